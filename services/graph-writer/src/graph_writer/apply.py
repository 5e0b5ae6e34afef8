"""Applies records to the store, in the order read: what `core` and `graph` plan is written here, and waited for.

It knows records and the store, not the group: it neither commits nor publishes. What it returns is said once the
store has flushed it. Everything written is ordered by (revision, attempt), so any record may come again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from uuid import UUID

import numpy as np

from eventlog.avro import Schemas
from eventlog.clock import Clock
from eventlog.envelope import chunk_headers, header, read_chunk_headers
from eventlog.errors import UnprocessableRecord
from eventlog.events import (
    ChunkEmbedded,
    ChunkOutcome,
    ChunkRejected,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentSettled,
    Message,
    Part,
)
from eventlog.ids import DocumentId
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.spaces import parse_space
from eventlog.topics import EMBEDDINGS, IMPORTS, topic_table
from graph_writer import core, graph
from graph_writer.core import Arrival, Draft, Known, Mark, Plan, ReadTo, Settlement
from graph_writer.dead_letters import DeadLetters
from graph_writer.opened import GRAPH, OpenedStore, record_identity
from graph_writer.projects import Projects
from graph_writer.stores.store import Order, Payload, Point, Swap, Where
from graph_writer.words import Keywords

SCROLL_LIMIT = 500
LOOKED_S_MAX = 3.0
"""Less than the time after which the group gives a silent member's partitions to others."""
LOOKS_MAX = 3
"""For one batch: where the last one has taken so long too, it is the server that is slow."""
_log = Logger("graph_writer.apply")
_OURS = (DocumentParsed, DocumentChunksSettled)


class _LookedLongAgo(Exception):  # noqa: N818 - it says what happened
    """What is to be written was decided by what may stand there no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One batch: how far each partition is, and what may be said once the store has flushed."""

    read_to: dict[TopicPartition, ReadTo]
    settlements: tuple[Settlement, ...] = ()
    documents: tuple[tuple[DocumentSettled, str], ...] = ()
    """With the `ce_id` of what each answers."""


class Applier:
    def __init__(
        self,
        *,
        opened: OpenedStore,
        projects: Projects,
        dead_letters: DeadLetters,
        keywords: Keywords,
        schemas: Schemas,
        log: Log,
        clock: Clock,
    ) -> None:
        self._opened = opened
        self._store = opened.store
        self._projects = projects
        self._dead_letters = dead_letters
        self._keywords = keywords
        self._schemas = schemas
        self._kafka = log
        self._clock = clock
        self._looked_s = 0.0
        self._looks_left = 0
        self._header_names: frozenset[str] | None = None
        imports_events = topic_table()[IMPORTS].events
        self._ours = {f"paperlog.{cls.__name__}" for cls in _OURS}
        self._skipped = {f"paperlog.{name}" for name in imports_events} - self._ours

    async def apply(self, records: Sequence[Record]) -> Applied:
        """May be called again with the same records after a failure; the second time changes nothing more."""
        self._looks_left = LOOKS_MAX
        while True:
            self._looks_left -= 1
            try:
                return await self._apply(records)
            except _LookedLongAgo:
                _log.warning("batch.looked_at_again", records=len(records))

    async def _apply(self, records: Sequence[Record]) -> Applied:
        settlements: list[Settlement] = []
        documents: list[tuple[DocumentSettled, str]] = []
        read_to: dict[TopicPartition, ReadTo] = {}
        for topic, group in groupby(records, key=lambda one: one.topic):
            run = list(group)
            if topic == EMBEDDINGS:
                settlements.extend(await self._apply_chunks(run))
            else:
                for record in run:
                    settled = await self._apply_decision(record)
                    if settled is not None:
                        documents.append((settled, header(record, "ce_id")))
            for record in run:
                read_to[TopicPartition(record.topic, record.partition)] = ReadTo(
                    offset=record.offset + 1,
                    record_offset=record.offset,
                    record_id=record_identity(record),
                )
        return Applied(read_to=read_to, settlements=tuple(settlements), documents=tuple(documents))

    # --- chunks --------------------------------------------------------------------------------------------------

    async def _apply_chunks(self, records: Sequence[Record]) -> tuple[Settlement, ...]:
        arrivals = [arrival for record in records if (arrival := await self._arrival(record)) is not None]
        known = await self._known(arrivals)
        plan = core.plan_upserts(arrivals, known)
        await self._write(plan)
        if self._store.is_shared and await self._marks(arrivals) != known.marks:
            # Another writer has raised a mark between our look and our write, and perhaps swept before we wrote.
            again = core.plan_upserts(arrivals, await self._known(arrivals))
            if again.deletes or again.marker_deletes:
                await self._write(again)
                return again.settled
        return plan.settled

    async def _arrival(self, record: Record) -> Arrival | None:
        """None where the record is poison and not even its headers say whose it is."""
        event: Message | None = None
        try:
            event = self._schemas.decode(record.value)
            event = self._check_type_and_headers(event, record)
            if isinstance(event, ChunkRejected):
                arrival = core.arrival_of_rejected(event, record.partition, record.offset)
            else:
                await self._check(event)
                arrival = core.arrival_of_embedded(event, record.partition, record.offset)
        except UnprocessableRecord as error:
            await self._dead_letters.put(record, reason=error.reason, message=str(error))
            return self._named(record, event, error.reason)
        await self._dead_letters.saw_good()
        return arrival

    def _check_type_and_headers(self, event: Message, record: Record) -> ChunkEmbedded | ChunkRejected:
        """The headers must all be there; what they say is read only where the value cannot be."""
        if not isinstance(event, ChunkEmbedded | ChunkRejected):
            raise UnprocessableRecord("type_unexpected", type(event).__name__)
        if self._header_names is None:
            self._header_names = frozenset(name for name, _ in chunk_headers(event)) | {"ce_id", "ce_type"}
        if not self._header_names <= {name for name, _ in record.headers}:
            raise UnprocessableRecord("headers_invalid", "one is missing")
        return event

    def _named(self, record: Record, event: Message | None, why: str) -> Arrival | None:
        if isinstance(event, ChunkEmbedded | ChunkRejected):
            return core.arrival_of_dead_letter(event, record.partition, record.offset, why)
        try:
            named = read_chunk_headers(record)
        except UnprocessableRecord:
            return None
        return core.arrival_of_dead_letter(named, record.partition, record.offset, why)

    async def _check(self, event: ChunkEmbedded) -> None:
        """A vector is only ever stored with vectors of its own space, and only for a project that has the space."""
        try:
            space = _space(event.space)
        except ValueError:
            raise UnprocessableRecord("space_invalid", event.space[:120]) from None
        if str(space) != event.space:
            raise UnprocessableRecord("space_invalid", event.space[:120])
        if event.dims != space.dims or len(event.vector) != 4 * space.dims:
            got = f"{event.dims} dimensions in {len(event.vector)} bytes"
            raise UnprocessableRecord("vector_invalid", f"{got}, the space has {space.dims}")
        vector = np.frombuffer(event.vector, dtype="<f4")
        length = float(np.dot(vector, vector))
        if not 0.98 < length < 1.02:  # NaN and infinity fail this too
            raise UnprocessableRecord("vector_invalid", "it is not of length 1")
        if not await self._projects.has_space(event.project_id, event.space, revision=event.revision):
            raise UnprocessableRecord("space_foreign", f"the project never had {event.space}")
        await self._opened.ensure_space(event.space)

    async def _known(self, arrivals: Sequence[Arrival]) -> Known:
        """Looks at what is there: a few points by id, in one call to each collection concerned."""
        self._looked_s = self._clock.monotonic_s()
        papers: set[UUID] = {one.document_id for one in arrivals}
        markers = {one.marker_id for one in arrivals}
        nodes = await self._store.get(
            GRAPH.name, papers | markers, fields=("marks", "revision", "attempt", "kind")
        )
        points: dict[core.Place, Order] = {}
        hashes: dict[core.Place, str] = {}
        by_space: dict[str, set[UUID]] = {}
        for one in arrivals:
            by_space.setdefault(one.space, set()).add(one.point_id)
        fields = ("revision", "attempt", "content_hash")
        for space, ids in by_space.items():
            name = self._opened.name_of(space)
            found = {} if name is None else await self._store.get(name, ids, fields=fields)
            for id_, point in found.items():
                if "content_hash" in point.payload:
                    hashes[space, id_] = point.payload["content_hash"]
                if "revision" in point.payload:
                    points[space, id_] = _order(point)
        return Known(
            marks={DocumentId(id_): core.read_marks(nodes[id_].payload) for id_ in papers & nodes.keys()},
            points=points,
            markers={id_: _order(nodes[id_]) for id_ in markers & nodes.keys()},
            hashes=hashes,
            concepts=frozenset(
                id_ for id_ in markers & nodes.keys() if nodes[id_].payload["kind"] == core.CONCEPT_CHUNK_KIND
            ),
        )

    async def _marks(self, arrivals: Sequence[Arrival]) -> dict[DocumentId, core.Marks]:
        found = await self._store.get(GRAPH.name, {one.document_id for one in arrivals}, fields=("marks",))
        return {DocumentId(id_): core.read_marks(point.payload) for id_, point in found.items()}

    async def _write(self, plan: Plan) -> None:
        for space in dict.fromkeys(space for space, _ in plan.points):
            name = await self._opened.ensure_space(space)
            await self._upsert(name, [draft for at, draft in plan.points if at == space], is_known=True)
        await self._upsert(GRAPH.name, plan.markers, is_known=True)
        for space, id_, order in plan.deletes:
            await self._store.delete(await self._opened.ensure_space(space), [id_], order=order)
        for id_, order in plan.marker_deletes:
            await self._store.delete(GRAPH.name, [id_], order=order)

    async def _upsert(self, collection: str, drafts: Iterable[Draft], *, is_known: bool = False) -> None:
        """One call per (revision, attempt), which is one call for nearly every batch.

        `is_known`: what stands there was looked at just now. Where nobody else writes, that is as good as a condition,
        which the embedded store checks in every segment.
        """
        needs_condition = not is_known or self._store.is_shared
        by_order: dict[Order | None, list[Point]] = {}
        for draft in drafts:
            words = None if draft.words is None else self._keywords.of_text(draft.words)
            point = Point(id=draft.id, payload=draft.payload, vector=draft.vector, words=words)
            by_order.setdefault(draft.order if needs_condition else None, []).append(point)
        for order, points in by_order.items():
            self._check_look()
            await self._store.upsert(collection, points, order=order)

    def _check_look(self) -> None:
        """Raises _LookedLongAgo where others write: a process that stood still may have been given up meanwhile, what it
        saw replaced and swept, and nobody would sweep again what it writes.
        """
        is_old = self._clock.monotonic_s() - self._looked_s > LOOKED_S_MAX
        if self._store.is_shared and is_old and self._looks_left:
            raise _LookedLongAgo

    # --- documents -----------------------------------------------------------------------------------------------

    async def _apply_decision(self, record: Record) -> DocumentSettled | None:
        if header(record, "ce_type") in self._skipped:
            return None
        try:
            settled = await self._decide(record)
        except UnprocessableRecord as error:
            await self._dead_letters.put(record, reason=error.reason, message=str(error))
            return None
        await self._dead_letters.saw_good()
        return settled

    async def _decide(self, record: Record) -> DocumentSettled | None:
        if not header(record, "ce_type") or not header(record, "ce_id"):
            raise UnprocessableRecord("headers_invalid", "no ce_type or no ce_id")
        event = self._schemas.decode(record.value)
        match event:
            case DocumentParsed():
                await self._apply_parsed(event)
                return None
            case DocumentChunksSettled():
                return await self._apply_chunks_settled(event, record.offset)
            case _ if f"paperlog.{type(event).__name__}" in self._skipped:
                return None
            case _:
                raise UnprocessableRecord("type_unexpected", type(event).__name__)

    async def _apply_parsed(self, parsed: DocumentParsed) -> None:
        plan = graph.plan_graph(parsed)

        def facts(paper: Payload) -> Payload | None:
            stored = (paper.get("revision", -1), paper.get("attempt", 0))
            is_newer = graph.has_facts(parsed) and (parsed.revision, parsed.attempt) >= stored
            if paper and not is_newer:
                return None
            return core.write_marks(plan.paper.payload, core.read_marks(paper))

        marks = core.read_marks(await self._write_paper(parsed.document_id, facts))
        await self._upsert(GRAPH.name, await self._unknown(plan.shared))
        current = core.not_superseded(plan.edges, marks)
        await self._upsert(GRAPH.name, current)
        if self._store.is_shared:
            # Another writer may have raised a mark between our look and our write, and swept before we wrote.
            raised = core.read_marks(await self._paper(parsed.document_id))
            kept = {edge.id for edge in core.not_superseded(current, raised)}
            stale = [edge.id for edge in current if edge.id not in kept]
            await self._store.delete(GRAPH.name, stale, order=(parsed.revision, core.ATTEMPT_MAX))

    async def _unknown(self, shared: Sequence[Draft]) -> list[Draft]:
        """A shared node follows from its key, so one that is there needs no writing."""
        there = await self._store.get(GRAPH.name, [draft.id for draft in shared], fields=("kind",))
        return [draft for draft in shared if draft.id not in there]

    async def _apply_chunks_settled(self, event: DocumentChunksSettled, offset: int) -> DocumentSettled:
        """New before old: 1. the mark  2. the sweep of what the new content replaces  3. the fact."""
        parsed = await self.parsed_at(event.document_id, event.parsed_offset)
        plan = graph.plan_graph(parsed)
        mark = Mark(revision=event.revision, parsed_offset=event.parsed_offset)
        taken: list[Part] = []

        def marked(paper: Payload) -> Payload | None:
            nonlocal taken
            marks, taken = core.raise_marks(core.read_marks(paper), event.parts, mark)
            return core.write_marks(paper or plan.paper.payload, marks) if taken else None

        await self._write_paper(event.document_id, marked)
        if taken:
            await self._opened.look_for_spaces()
        swept = await self._sweep(parsed, plan, taken)
        is_superseded = bool(event.parts) and not taken
        parts = tuple(taken)
        return DocumentSettled(
            occurred_at=self._clock.now(),
            import_id=event.import_id,
            project_id=event.project_id,
            attempt=event.attempt,
            document_id=event.document_id,
            revision=event.revision,
            outcome=ChunkOutcome.SUPERSEDED if is_superseded else ChunkOutcome.STORED,
            store_id=self._opened.id,
            offset=offset,
            node_count=0 if is_superseded else plan.node_count,
            edge_count=0 if is_superseded else len(plan.edges),
            swept_count=swept,
            content_hash="" if is_superseded else graph.graph_hash(plan, parts),
        )

    async def parsed_at(self, document: DocumentId, offset: int) -> DocumentParsed:
        record = await self._kafka.read_at(IMPORTS, 0, offset)
        event = self._schemas.decode(record.value)
        if not isinstance(event, DocumentParsed) or event.document_id != document:
            raise UnprocessableRecord(
                "parsed_offset_invalid", f"{IMPORTS}@{offset} is not its DocumentParsed"
            )
        return event

    async def _write_paper(
        self, document: DocumentId, change: Callable[[Payload], Payload | None]
    ) -> Payload:
        """What stands there afterwards. `change` makes of what is there what is to be there; null: as it is.

        Where others write, the point counts its versions, and one that was written meanwhile is changed anew.
        """
        while True:
            paper = await self._paper(document)
            changed = change(paper)
            if changed is None:
                return paper
            version = paper.get("version")
            if self._store.is_shared:
                changed = {**changed, "version": (version or 0) + 1}
            if not self._store.is_shared or (paper and version is None):  # not counted yet
                await self._store.upsert(GRAPH.name, [Point(id=document, payload=changed)])
                return changed
            swap = Swap(id=document, field="version", expected=version, new=changed)
            if await self._store.swap(GRAPH.name, [swap]):
                return changed

    async def _paper(self, document: DocumentId) -> Payload:
        self._looked_s = self._clock.monotonic_s()
        found = await self._store.get(GRAPH.name, [document])
        return found[document].payload if document in found else {}

    async def _sweep(self, parsed: DocumentParsed, plan: graph.DocumentGraph, parts: Sequence[Part]) -> int:
        if not parts:
            return 0
        edges = {edge.id for edge in plan.edges}
        kept = {
            part: edges.union(*(one.chunk_ids for one in parsed.parts if one.part is part)) for part in parts
        }
        swept = 0
        for collection in self._opened.collections:
            held = await self.held(collection.name, parsed.document_id)
            for part in parts:
                gone = core.plan_sweep(held, part=part, revision=parsed.revision, kept=kept[part])
                # What another writer has meanwhile put there for a newer revision stays.
                await self._store.delete(collection.name, gone, order=(parsed.revision, core.ATTEMPT_MAX))
                swept += len(gone)
        return swept

    async def held(self, collection: str, document: DocumentId) -> list[core.Held]:
        held: list[core.Held] = []
        after: UUID | None = None
        fields = ("part", "revision", "chunk_id")
        where = Where(document_ids=(document,))
        while True:
            points, after = await self._store.scroll(
                collection, where, limit=SCROLL_LIMIT, after=after, fields=fields
            )
            for point in points:
                if "part" in point.payload:
                    name = point.payload.get("chunk_id")
                    held.append(
                        core.Held(
                            id=point.id,
                            part=point.payload["part"],
                            revision=point.payload["revision"],
                            name=UUID(name) if name else point.id,
                        )
                    )
            if after is None:
                return held


_space = lru_cache(maxsize=64)(parse_space)


def _order(point: Point) -> Order:
    return (point.payload["revision"], point.payload["attempt"])
