"""Compares what a page of documents should have in the store with what is there, point by point.

What should be there is the list that the mark of each part names, the newest closed content of the document, whatever
import asks; for a part without a mark, the chunks that were sent as stored. It repairs nothing.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from eventlog.events import ChunkOutcome, DocumentParsed, Part
from eventlog.ids import ChunkId, DocumentId
from graph_writer import core, graph
from graph_writer.apply import Applier
from graph_writer.core import CONCEPT_CHUNK_KIND, Held, Mark
from graph_writer.opened import GRAPH, OpenedStore
from graph_writer.stores.store import Point

_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SentChunk:
    chunk_id: ChunkId
    part: Part
    outcome: ChunkOutcome
    content_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentDocument:
    """A document as the import that asks knows it; `revision` is that import's."""

    document_id: DocumentId
    revision: int
    chunks: tuple[SentChunk, ...]


@dataclass(slots=True)
class Report:
    checked_count: int = 0
    missing: list[dict[str, Any]] = field(default_factory=list)
    extra: list[dict[str, Any]] = field(default_factory=list)
    different: list[dict[str, Any]] = field(default_factory=list)


class Verify:
    def __init__(self, opened: OpenedStore, applier: Applier) -> None:
        self._opened = opened
        self._store = opened.store
        self._applier = applier

    async def verify(self, space: str, documents: Sequence[SentDocument]) -> Report:
        report = Report()
        papers = await self._store.get(GRAPH.name, [one.document_id for one in documents])
        for document in documents:
            paper = papers.get(document.document_id)
            await _Check(self, report, space, document, paper).run()
            await asyncio.sleep(0)  # records and searches go on in between
        return report

    async def get(
        self, collection: str | None, ids: Iterable[UUID], *, with_vector: bool
    ) -> dict[UUID, Point]:
        if collection is None:
            return {}
        wanted = list(ids)
        found: dict[UUID, Point] = {}
        for start in range(0, len(wanted), _PAGE):
            page = wanted[start : start + _PAGE]
            found |= await self._store.get(collection, page, with_vector=with_vector)
        return found

    def collection_of(self, space: str) -> str | None:
        return self._opened.name_of(space)

    async def parsed_at(self, document: DocumentId, offset: int) -> DocumentParsed:
        return await self._applier.parsed_at(document, offset)

    async def held(self, collection: str | None, document: DocumentId) -> list[Held]:
        return [] if collection is None else await self._applier.held(collection, document)


class _Check:
    """One document."""

    def __init__(
        self, verify: Verify, report: Report, space: str, document: SentDocument, paper: Point | None
    ) -> None:
        self._verify = verify
        self._report = report
        self._space = space
        self._document = document
        self._payload = {} if paper is None else paper.payload
        self._collection = verify.collection_of(space)
        self._sent = {chunk.chunk_id: chunk for chunk in document.chunks}

    async def run(self) -> None:
        document = self._document.document_id
        marks = core.read_marks(self._payload)
        if not self._payload:
            self._report.missing.append(self._finding("node", document))
        expected: list[ChunkId] = [
            chunk.chunk_id
            for chunk in self._document.chunks
            if chunk.part not in marks and chunk.outcome is ChunkOutcome.STORED
        ]
        listed: dict[Part, set[UUID]] = {}
        for part, mark in marks.items():
            parsed = await self._verify.parsed_at(document, mark.parsed_offset)
            chunks = [id_ for one in parsed.parts if one.part is part for id_ in one.chunk_ids]
            expected.extend(chunks)
            listed[part] = set(chunks)
            listed[part] |= await self._check_graph(graph.plan_graph(parsed), part)
        await self._check_chunks(expected)
        for collection, kind in ((self._collection, "chunk"), (GRAPH.name, "edge")):
            for held in await self._verify.held(collection, document):
                if self._is_extra(held, marks, listed):
                    self._report.extra.append(self._finding(kind, held.id))

    @staticmethod
    def _is_extra(held: Held, marks: core.Marks, listed: dict[Part, set[UUID]]) -> bool:
        part = Part(held.part)
        mark: Mark | None = marks.get(part)
        return mark is not None and bool(
            core.plan_sweep([held], part=part, revision=mark.revision, kept=listed[part])
        )

    async def _check_graph(self, plan: graph.DocumentGraph, part: Part) -> set[UUID]:
        edges = {edge.id for edge in plan.edges if edge.payload["part"] == part}
        nodes = {node.id for node in plan.shared} if part is Part.BIBLIOGRAPHIC else set()
        found = await self._verify.get(GRAPH.name, edges | nodes, with_vector=False)
        for kind, ids in (("edge", edges), ("node", nodes)):
            self._report.missing.extend(self._finding(kind, id_) for id_ in sorted(ids - found.keys()))
        return edges

    async def _check_chunks(self, chunks: Sequence[ChunkId]) -> None:
        self._report.checked_count += len(chunks)
        points = await self._verify.get(self._collection, chunks, with_vector=True)
        absent = {core.marker_id(id_, self._space): id_ for id_ in chunks if id_ not in points}
        markers = {
            absent[id_]: point
            for id_, point in (await self._verify.get(GRAPH.name, absent, with_vector=False)).items()
        }
        concept_of = {
            chunk: UUID(marker.payload["concept_id"])
            for chunk, marker in markers.items()
            if marker.payload["kind"] == CONCEPT_CHUNK_KIND
        }
        concepts = await self._verify.get(self._collection, set(concept_of.values()), with_vector=True)
        for chunk in chunks:
            point = points.get(chunk) or concepts.get(concept_of.get(chunk, chunk))
            if point is not None:
                self._check_point(chunk, point)
            elif chunk not in markers or chunk in concept_of:
                self._report.missing.append(self._finding("chunk", chunk, chunk))
            elif self._was_sent_as_stored(chunk, markers[chunk]):
                self._report.different.append(self._finding("chunk", chunk, chunk))

    def _check_point(self, chunk: ChunkId, point: Point) -> None:
        said = point.payload["content_hash"]
        is_sound = core.content_hash(point.vector, point.payload) == said
        sent = self._sent.get(chunk)
        is_same = not (
            self._was_sent_as_stored(chunk, point) and sent is not None and sent.content_hash != said
        )
        if not (is_sound and is_same):
            self._report.different.append(self._finding("chunk", point.id, chunk))

    def _was_sent_as_stored(self, chunk: ChunkId, point: Point) -> bool:
        """Of the asking import's own revision: what a newer one stored may rightly be another."""
        sent = self._sent.get(chunk)
        return (
            sent is not None
            and sent.outcome is ChunkOutcome.STORED
            and point.payload.get("revision", self._document.revision) == self._document.revision
        )

    def _finding(self, kind: str, id_: UUID, chunk: ChunkId | None = None) -> dict[str, Any]:
        return {
            "document_id": str(self._document.document_id),
            "chunk_id": None if chunk is None else str(chunk),
            "kind": kind,
            "id": str(id_),
            "title": self._payload.get("label", ""),
        }
