"""How often a paper that is asked for is among the first five, by meaning, by words, and by both; and how fast.

`python bench/search.py`: the example library, and real Zotero exports where `../shared/samples` has them (they are
not ours to commit), each in a project of its own, embedded by the local model. A paper is asked for by three words of
its title, by its first author with the year, by eight words from the middle of its abstract, and (example library) by
a paraphrase. What shares its words with other papers cannot always be first.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.known_items import Question, questions
from harness.report import print_head, print_table, save
from harness.stack import ROOT, BenchFailed, Stack, running_stack, scratch

from paperlog.service import Service

SAMPLES = ROOT.parent / "shared" / "samples"
MODES = ("meaning", "words", "hybrid")
FIRST = 5
RESULTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    question: Question
    mode: str
    rank: int | None
    """Of the paper among the papers found, from 1; None when it is not among the first results."""
    ms: float


def ask(service: Service, project: str, question: Question, mode: str) -> Answer:
    started = time.perf_counter()
    answer = service.get("/api/search", q=question.text, project=project, mode=mode, limit=RESULTS)
    ms = (time.perf_counter() - started) * 1000
    if answer.get("mode") != mode:
        raise BenchFailed(f"asked by {mode}, answered by {answer.get('mode')}: {answer.get('message')}")
    documents = list(dict.fromkeys(str(each["document_id"]) for each in answer["results"]))
    rank = documents.index(question.document_id) + 1 if question.document_id in documents else None
    return Answer(question=question, mode=mode, rank=rank, ms=ms)


def measure(stack: Stack, name: str, path: Path) -> dict[str, Any]:
    imported = stack.import_folder(path, name)
    with Service(stack.url, say=lambda text: print(text, file=sys.stderr)) as service:
        graph = service.get(f"/api/projects/{quote(name)}/graph")
        papers = [node for node in graph["nodes"] if node["type"] == "Paper"]
        asked = questions(papers)
        for mode in MODES:
            ask(service, name, asked[0], mode)  # The first one warms what is read from disk.
        answers = [ask(service, name, question, mode) for question in asked for mode in MODES]
    return {
        "library": name,
        "papers": len(papers),
        "chunks": imported.chunk_count,
        "rows": [
            _row(
                kind,
                mode,
                [each for each in answers if each.mode == mode and kind in (each.question.kind, "all")],
            )
            for kind in [*dict.fromkeys(question.kind for question in asked), "all"]
            for mode in MODES
        ],
    }


def _row(kind: str, mode: str, answers: Sequence[Answer]) -> dict[str, Any]:
    times = sorted(each.ms for each in answers)
    return {
        "kind": kind,
        "mode": mode,
        "questions": len(answers),
        "hit_at_5": round(
            sum(each.rank is not None and each.rank <= FIRST for each in answers) / len(answers), 3
        ),
        "mrr": round(sum(1 / each.rank for each in answers if each.rank) / len(answers), 3),
        "ms_median": round(statistics.median(times), 1),
        "ms_p95": round(times[int(0.95 * (len(times) - 1))], 1),
        "not_found": [each.question.text for each in answers if each.rank is None][:20],
    }


def show(results: list[dict[str, Any]]) -> None:
    for each in results:
        print(f"\n{each['library']}: {each['papers']} papers, {each['chunks']} chunks")
        print_table(
            ["asked by", "mode", "questions", f"hit@{FIRST}", "MRR", "ms", "ms p95"],
            [
                [
                    row["kind"],
                    row["mode"],
                    row["questions"],
                    f"{row['hit_at_5']:.2f}",
                    f"{row['mrr']:.2f}",
                    row["ms_median"],
                    row["ms_p95"],
                ]
                for row in each["rows"]
            ],
        )


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_head("search for known items")
    libraries = [("example library", ROOT / "examples" / "library")]
    samples = sorted(SAMPLES.glob("*.rdf")) if SAMPLES.is_dir() else []
    if not samples:
        print("no samples beside this checkout: the example library alone is measured")
    libraries += [(path.stem, path) for path in samples]
    results = []
    try:
        with scratch() as folder, running_stack(folder / "data", embedding="local") as stack:
            for name, path in libraries:
                results.append(measure(stack, name, path))
    except BenchFailed as failed:
        print(f"not all was measured: {failed}", file=sys.stderr)
        if not results:
            return 1
    show(results)
    print(f"\n{save('search', results).relative_to(Path(__file__).parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
