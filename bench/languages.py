"""How often a small paper is found first, and among the first three, in five languages, with the local model.

`python bench/languages.py`: the papers of `tests/languages`, eight in each language, imported into a project for each
and asked for by words (in another form where the language has forms) and by a paraphrase. Eight papers are few: a hit
is worth an eighth, and the figures tell what works from what does not, no more.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness.report import print_head, print_table, save
from harness.stack import ROOT, BenchFailed, running_stack, scratch

from paperlog.service import Service

sys.path.append(str(ROOT))  # tests are no installed package

from tests.languages.papers import LANGUAGES, Language, Paper, language

MODES = ("meaning", "words", "hybrid")
NEAR = 3
WAYS = ("words", "meaning")


def write_library(one: Language, folder: Path) -> Path:
    """CSL-JSON: titles and abstracts, as a reference manager has them."""
    folder.mkdir(parents=True)
    rows = [
        {
            "id": f"{one.name}-{number}",
            "type": "article-journal",
            "title": paper.title,
            "abstract": paper.abstract,
        }
        for number, paper in enumerate(one.papers)
    ]
    (folder / "library.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def rank(service: Service, project: str, paper: Paper, question: str, mode: str) -> int | None:
    answer = service.get("/api/search", q=question, project=project, mode=mode, limit=20)
    if answer.get("mode") != mode:
        raise BenchFailed(f"asked by {mode}, answered by {answer.get('mode')}: {answer.get('message')}")
    titles = list(dict.fromkeys(each["title"] for each in answer["results"]))
    return titles.index(paper.title) + 1 if paper.title in titles else None


def measure(service: Service, one: Language) -> list[dict[str, Any]]:
    out = []
    for way in WAYS:
        for mode in MODES:
            ranks = [rank(service, one.name, paper, getattr(paper, way), mode) for paper in one.papers]
            out.append(
                {
                    "language": one.name,
                    "asked_by": "words" if way == "words" else "paraphrase",
                    "mode": mode,
                    "papers": len(ranks),
                    "first": sum(each == 1 for each in ranks),
                    "near": sum(each is not None and each <= NEAR for each in ranks),
                }
            )
    return out


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_head("search in five languages")
    rows: list[dict[str, Any]] = []
    try:
        with scratch() as folder, running_stack(folder / "data", embedding="local") as stack:
            languages = [language(name) for name in LANGUAGES]
            for one in languages:
                stack.import_folder(write_library(one, folder / one.name), one.name)
            with Service(stack.url, say=lambda text: print(text, file=sys.stderr)) as service:
                for one in languages:
                    rows += measure(service, one)
    except BenchFailed as failed:
        print(f"not all was measured: {failed}", file=sys.stderr)
        return 1
    print_table(
        ["language", "asked by", *(f"{mode}: first, in {NEAR}" for mode in MODES)],
        [
            [
                rows[at]["language"],
                rows[at]["asked_by"],
                *(f"{row['first']}, {row['near']} of {row['papers']}" for row in rows[at : at + len(MODES)]),
            ]
            for at in range(0, len(rows), len(MODES))
        ],
    )
    print(f"\n{save('languages', rows).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
