"""How often a small paper is found first, and among the first three, in five languages, with the local model.

`python bench/languages.py`: the papers of `tests/languages`, eight in each language, titles and abstracts, in the embedded
store, asked for by words (in another form where the language has forms) and by a paraphrase, through the search that
users have; no broker is needed. Eight papers are few: the figures tell what works from what does not, no more.
"""

import argparse
import asyncio
import sys
import uuid
from pathlib import Path
from typing import Any

from harness.report import print_head, print_table, save
from harness.stack import ROOT, scratch

from embedder.models.local import LocalModel
from eventlog.events import ChunkKind, Part
from eventlog.spaces import DEFAULT_SPACE
from graph_writer.core import keyword_text
from graph_writer.opened import OpenedStore
from graph_writer.search import Mode, Question, Search
from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import Point
from graph_writer.words import Keywords

sys.path.append(str(ROOT))  # tests are no installed package

from tests.languages.papers import LANGUAGES, Language, Paper, language

MODES = (Mode.MEANING, Mode.WORDS, Mode.HYBRID)
NEAR = 3
WAYS = ("words", "meaning")
SPACE = str(DEFAULT_SPACE)


def project_of(one: Language) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, one.name)


class Library:
    """All papers in one collection, as one stack has them; each language is a project."""

    def __init__(self, folder: Path) -> None:
        lock = FolderLock(folder)
        assert lock.take()
        self._opened = OpenedStore(EdgeStore(folder, lock))
        self._keywords = Keywords()
        self._search = Search(self._opened, self._keywords)
        self._model = LocalModel(DEFAULT_SPACE)

    async def fill(self, languages: list[Language]) -> None:
        await self._opened.open([])
        collection = await self._opened.ensure_space(SPACE)
        for one in languages:
            for paper in one.papers:
                await self._opened.store.upsert(collection, await self._points(one, paper))

    async def _points(self, one: Language, paper: Paper) -> list[Point]:
        texts = {ChunkKind.TITLE: paper.title, ChunkKind.ABSTRACT: paper.abstract}
        vectors = (await self._model.embed(list(texts.values()), "document")).vectors
        points = []
        for (kind, text), vector in zip(texts.items(), vectors, strict=True):
            payload: dict[str, Any] = {
                "project_id": str(project_of(one)),
                "document_id": str(uuid.uuid5(project_of(one), paper.title)),
                "kind": kind.value,
                "part": Part.BIBLIOGRAPHIC.value,
                "text": text,
                "title": paper.title,
                "creators": [],
                "section": "",
            }
            id_ = uuid.uuid5(project_of(one), f"{paper.title}/{kind}")
            words = self._keywords.of_text(keyword_text(payload))
            points.append(Point(id=id_, payload=payload, vector=vector, words=words))
        return points

    async def rank(self, one: Language, paper: Paper, text: str, mode: Mode) -> int | None:
        (vector,) = (await self._model.embed([text], "query")).vectors
        question = Question(
            space=SPACE, text=text, vector=vector, limit=20, mode=mode, project_id=project_of(one)
        )
        found = (await self._search.search(question))["results"]
        titles = list(dict.fromkeys(each["title"] for each in found))
        return titles.index(paper.title) + 1 if paper.title in titles else None


async def measure(folder: Path) -> list[dict[str, Any]]:
    library = Library(folder)
    languages = [language(name) for name in LANGUAGES]
    await library.fill(languages)
    out = []
    for one in languages:
        for way in WAYS:
            for mode in MODES:
                ranks = [await library.rank(one, paper, getattr(paper, way), mode) for paper in one.papers]
                out.append(
                    {
                        "language": one.name,
                        "asked_by": "words" if way == "words" else "paraphrase",
                        "mode": mode.value,
                        "papers": len(ranks),
                        "first": sum(each == 1 for each in ranks),
                        "near": sum(each is not None and each <= NEAR for each in ranks),
                    }
                )
    return out


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_head("search in five languages")
    with scratch() as folder:
        rows = asyncio.run(measure(folder / "store"))
    print_table(
        ["language", "asked by", *(f"{mode.value}: first, in {NEAR}" for mode in MODES)],
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
