"""Search by meaning and by words over passages, abstracts, titles and notes of one space's collection."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from eventlog.events import ChunkKind
from graph_writer.core import keyword_text
from graph_writer.fusion import Ranked, fuse, spread
from graph_writer.opened import OpenedStore
from graph_writer.stores.store import Point, Where, Words
from graph_writer.words import Keywords

CANDIDATES_MIN = 100
EACH_DOCUMENT_MAX = 2
SEARCHED_KINDS = tuple(
    kind.value for kind in (ChunkKind.PASSAGE, ChunkKind.ABSTRACT, ChunkKind.TITLE, ChunkKind.NOTE)
)


class Mode(StrEnum):
    HYBRID = "hybrid"
    MEANING = "meaning"
    WORDS = "words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`vector` is empty where nobody could embed the text."""

    space: str
    text: str
    vector: bytes = b""
    limit: int = 10
    mode: Mode = Mode.HYBRID
    project_id: UUID | None = None
    document_ids: tuple[UUID, ...] = ()

    @property
    def effective_mode(self) -> Mode:
        return Mode.WORDS if self.mode is Mode.HYBRID and not self.vector else self.mode


class Search:
    def __init__(self, opened: OpenedStore, keywords: Keywords) -> None:
        self._opened = opened
        self._store = opened.store
        self._keywords = keywords

    async def search(self, question: Question) -> dict[str, Any]:
        mode = question.effective_mode
        name = self._opened.name_of(question.space)
        results: list[dict[str, Any]] = []
        if name is not None:
            ranked = await self._ranked(name, question, mode)
            points = await self._store.get(name, [one.id for one in ranked])
            results = [self._result(one, points[one.id], question.text) for one in ranked if one.id in points]
        return {"results": results, "mode": mode.value}

    async def _ranked(self, name: str, question: Question, mode: Mode) -> list[Ranked]:
        where = Where(
            project_id=question.project_id, document_ids=question.document_ids, kinds=SEARCHED_KINDS
        )
        queries: dict[str, bytes | Words] = {}
        if mode is not Mode.WORDS and question.vector:
            queries["meaning"] = question.vector
        if mode is not Mode.MEANING:
            queries["words"] = self._keywords.of_query(question.text)
        lists: dict[str, list[tuple[UUID, float]]] = {}
        document_of: dict[UUID, str] = {}
        for found_by, query in queries.items():
            if isinstance(query, Words) and not query.indices:
                continue
            hits = await self._store.nearest(
                name, query, where, limit=max(CANDIDATES_MIN, 3 * question.limit), fields=("document_id",)
            )
            lists[found_by] = [(hit.id, hit.score) for hit in hits]
            document_of |= {hit.id: hit.payload["document_id"] for hit in hits}
        return spread(fuse(lists), document_of, limit=question.limit, each=EACH_DOCUMENT_MAX)

    def _result(self, ranked: Ranked, point: Point, asked: str) -> dict[str, Any]:
        said = point.payload
        return {
            "chunk_id": str(point.id),
            "document_id": said["document_id"],
            "score": round(ranked.score, 6),
            "kind": said["kind"],
            "part": said["part"],
            "text": said["text"],
            "title": said["title"],
            "creators": said["creators"],
            "year": said.get("year"),
            "doi": said.get("doi"),
            "section": said["section"],
            "page_first": said.get("page_first"),
            "page_last": said.get("page_last"),
            "found_by": list(ranked.found_by),
            "words": self._keywords.matched(asked, keyword_text(said)),
        }
