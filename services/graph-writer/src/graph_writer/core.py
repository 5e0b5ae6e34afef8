"""What becomes of a chunk, and what a document's new content takes away. Pure: no clock, no I/O, no client.

Everything is ordered by (revision, attempt): a lower one never overwrites a higher one, so neither the order in which
partitions are read nor a repeat decides what the store holds. A document's part has a mark, the `DocumentParsed` that
last replaced it; what is below the mark is superseded. `graph` plans nodes and edges, `fusion` ranks.
"""

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from eventlog.envelope import ChunkHeaders
from eventlog.events import (
    ChunkEmbedded,
    ChunkKind,
    ChunkOutcome,
    ChunkRejected,
    ChunkRejectionReason,
    ChunksSettled,
    Creator,
    Part,
    SettledChunk,
)
from eventlog.ids import NAMESPACE, ChunkId, DocumentId, ImportId, ProjectId, StoreId, normalise_name

Order = tuple[int, int]
"""(revision, attempt)"""
Place = tuple[str, UUID]
"""(space, point id): of a project that moves, one chunk is a point in two spaces"""
ATTEMPT_MAX = 2**31 - 1
Payload = dict[str, Any]

TEXT_LENGTH_MAX = 4_000
SETTLED_CHUNKS_MAX = 100
CYCLE_S_MIN = 1.0
CYCLE_S_MAX = 5.0
REJECTED_KIND = "rejected_chunk"
CONCEPT_CHUNK_KIND = "concept_chunk"
MARKER_KINDS = (REJECTED_KIND, CONCEPT_CHUNK_KIND)
_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
_ORDER_FIELDS = ("revision", "attempt", "content_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The `DocumentParsed` that last replaced a part, and its place on `imports`."""

    revision: int
    parsed_offset: int


Marks = Mapping[Part, Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A chunk's record as read: with its vector (`embedded`), rejected by the embedder, or unreadable but named."""

    partition: int
    offset: int
    import_id: ImportId
    project_id: ProjectId
    attempt: int
    space: str
    chunk_id: ChunkId
    document_id: DocumentId
    revision: int
    chunk_index: int
    kind: ChunkKind
    part: Part
    embedded: ChunkEmbedded | None = None
    outcome: ChunkOutcome = ChunkOutcome.STORED
    reason: ChunkRejectionReason = ChunkRejectionReason.UNKNOWN
    message: str = ""

    @property
    def order(self) -> Order:
        return (self.revision, self.attempt)

    @property
    def point_id(self) -> UUID:
        """A concept is one point for its project, whatever documents name it."""
        if self.embedded is not None and self.embedded.concept_id is not None:
            return self.embedded.concept_id
        return self.chunk_id

    @property
    def place(self) -> Place:
        return (self.space, self.point_id)

    @property
    def is_shared(self) -> bool:
        return self.point_id != self.chunk_id

    @property
    def marker_id(self) -> UUID:
        return marker_id(self.chunk_id, self.space)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A point to be written; `words` is the text from which its keywords are made, None for points of the graph."""

    id: UUID
    payload: Payload
    order: Order | None
    vector: bytes = b""
    words: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store holds about the chunks in hand: orders of points and of markers, hashes of points.

    `concepts` are the markers among them that say that a concept is there.
    """

    marks: Mapping[DocumentId, Marks] = field(default_factory=dict)
    points: Mapping[Place, Order] = field(default_factory=dict)
    markers: Mapping[UUID, Order] = field(default_factory=dict)
    hashes: Mapping[Place, str] = field(default_factory=dict)
    concepts: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How one chunk settled and for which import; it holds neither text nor vector, for many wait to be said."""

    import_id: ImportId
    project_id: ProjectId
    attempt: int
    space: str
    chunk: SettledChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`points` and `deletes` are for the collection of the space named, `markers` for the graph's.

    What is deleted is named with its order: another writer may put something newer there in between.
    """

    points: tuple[tuple[str, Draft], ...] = ()
    deletes: tuple[tuple[str, UUID, Order], ...] = ()
    markers: tuple[Draft, ...] = ()
    marker_deletes: tuple[tuple[UUID, Order], ...] = ()
    settled: tuple[Settlement, ...] = ()


def marker_id(chunk: ChunkId, space: str) -> UUID:
    """The point of the graph that says what became of a chunk which has no point of its own in its space."""
    return uuid.uuid5(chunk, f"marker\x1f{space}")


def position_id(topic: str, partition: int) -> UUID:
    return uuid.uuid5(NAMESPACE, f"position\x1f{topic}\x1f{partition}")


# --- arrivals ----------------------------------------------------------------------------------------------------


def arrival_of_embedded(event: ChunkEmbedded, partition: int, offset: int) -> Arrival:
    return Arrival(embedded=event, **_identity(event), partition=partition, offset=offset)


def arrival_of_rejected(event: ChunkRejected, partition: int, offset: int) -> Arrival:
    return Arrival(
        **_identity(event),
        partition=partition,
        offset=offset,
        outcome=ChunkOutcome.REJECTED,
        reason=event.reason,
        message=event.message,
    )


def arrival_of_dead_letter(
    named: ChunkHeaders | ChunkEmbedded | ChunkRejected, partition: int, offset: int, why: str
) -> Arrival:
    return Arrival(
        **_identity(named),
        partition=partition,
        offset=offset,
        outcome=ChunkOutcome.DEAD_LETTERED,
        reason=ChunkRejectionReason.DEAD_LETTERED,
        message=why,
    )


def _identity(named: ChunkHeaders | ChunkEmbedded | ChunkRejected) -> dict[str, Any]:
    return {
        "import_id": named.import_id,
        "project_id": named.project_id,
        "attempt": named.attempt,
        "space": named.space,
        "chunk_id": named.chunk_id,
        "document_id": named.document_id,
        "revision": named.revision,
        "chunk_index": named.chunk_index,
        "kind": named.kind,
        "part": named.part,
    }


# --- what is written of a chunk ----------------------------------------------------------------------------------


def display_name(creator: Creator) -> str:
    return ", ".join(part for part in (creator.family, creator.given) if part)


def content_hash(vector: bytes, payload: Payload) -> str:
    """The same whatever import brought the point: over the vector and the payload without revision and attempt."""
    said = {key: value for key, value in payload.items() if key not in _ORDER_FIELDS}
    return hashlib.sha256(vector + _JSON.encode(said).encode()).hexdigest()


def chunk_payload(event: ChunkEmbedded) -> Payload:
    if event.concept_id is not None:
        said: Payload = {
            "project_id": str(event.project_id),
            "kind": ChunkKind.CONCEPT.value,
            "text": normalise_name(event.text)[:TEXT_LENGTH_MAX],
        }
        return {**said, "content_hash": content_hash(event.vector, said)}
    said = {
        "project_id": str(event.project_id),
        "document_id": str(event.document_id),
        "kind": event.kind.value,
        "part": event.part.value,
        "chunk_index": event.chunk_index,
        "text": event.text[:TEXT_LENGTH_MAX],
        "title": event.title,
        "creators": [display_name(creator) for creator in event.creators],
        "section": event.section,
    }
    optional = (
        ("year", event.year),
        ("doi", event.doi),
        ("page_first", event.page_first),
        ("page_last", event.page_last),
    )
    said |= {name: value for name, value in optional if value is not None}
    ordered = {"revision": event.revision, "attempt": event.attempt}
    return {**said, **ordered, "content_hash": content_hash(event.vector, said)}


def keyword_text(payload: Payload) -> str:
    """A title is found by its creators, year and identifiers too; everything else by its own text."""
    if payload.get("kind") != ChunkKind.TITLE:
        return str(payload.get("text", ""))
    parts = [payload.get("text", ""), *payload.get("creators", ()), payload.get("year"), payload.get("doi")]
    return " ".join(str(part) for part in parts if part)


def _marker(arrival: Arrival, kind: str, more: Payload) -> Draft:
    payload = {
        "project_id": str(arrival.project_id),
        "document_id": str(arrival.document_id),
        "kind": kind,
        "part": arrival.part.value,
        "chunk_id": str(arrival.chunk_id),
        "chunk_index": arrival.chunk_index,
        "space": arrival.space,
        "revision": arrival.revision,
        "attempt": arrival.attempt,
        **more,
    }
    return Draft(id=arrival.marker_id, payload=payload, order=arrival.order)


# --- plans -------------------------------------------------------------------------------------------------------


def plan_upserts(arrivals: Sequence[Arrival], known: Known) -> Plan:
    """What to write for these chunks, in their order, and how each settles.

    A rejection takes a vector of its own revision away, never one of an older: only the sweep of a revision that
    has something better does that. Within one attempt the first vector stands, for it has settled, perhaps in a completion
    that counts it: what comes behind it is a repeat, or what a former owner says late.
    """
    points: list[tuple[str, Draft]] = []
    deletes: list[tuple[str, UUID, Order]] = []
    markers: list[Draft] = []
    marker_deletes: list[tuple[UUID, Order]] = []
    settled: list[Settlement] = []
    at_point = dict(known.points)
    at_marker = dict(known.markers)
    hashes = dict(known.hashes)
    concepts = set(known.concepts)

    for arrival in arrivals:
        here = at_point.get(arrival.place) if not arrival.is_shared else None
        marked = at_marker.get(arrival.marker_id)
        mark = known.marks.get(arrival.document_id, {}).get(arrival.part)
        if mark is not None and arrival.revision < mark.revision:
            if here is not None and here[0] < mark.revision:
                deletes.append((*arrival.place, here))
                del at_point[arrival.place]
            if marked is not None and marked[0] < mark.revision:
                marker_deletes.append((arrival.marker_id, marked))
                del at_marker[arrival.marker_id]
            settled.append(_settle(arrival, ChunkOutcome.SUPERSEDED))
            continue
        if max(here or (-1, 0), marked or (-1, 0)) > arrival.order:
            settled.append(_settle(arrival, ChunkOutcome.SUPERSEDED))
            continue
        has_concept = marked == arrival.order and arrival.marker_id in concepts
        is_repeat = here == arrival.order or has_concept
        if arrival.embedded is None or arrival.outcome is not ChunkOutcome.STORED:
            if is_repeat:
                continue
            settled.append(_settle(arrival, arrival.outcome))
            if marked is not None and marked[0] < arrival.revision and arrival.marker_id in concepts:
                continue
            more = {
                "outcome": arrival.outcome.value,
                "reason": arrival.reason.value,
                "message": arrival.message[:500],
            }
            markers.append(_marker(arrival, REJECTED_KIND, more))
            at_marker[arrival.marker_id] = arrival.order
            concepts.discard(arrival.marker_id)
            if here is not None and here[0] == arrival.revision:
                deletes.append((*arrival.place, here))
                del at_point[arrival.place]
            continue
        payload = chunk_payload(arrival.embedded)
        # A shared point has no order that could say more: only a resume brings it anew, for that may be a repair.
        may_replace = not is_repeat and (arrival.attempt > 1 or not arrival.is_shared)
        is_new = may_replace or arrival.place not in hashes
        if is_new:
            hashes[arrival.place] = payload["content_hash"]
        if arrival.is_shared:
            more = {"concept_id": str(arrival.point_id)}
            markers.append(_marker(arrival, CONCEPT_CHUNK_KIND, more))
            at_marker[arrival.marker_id] = arrival.order
            concepts.add(arrival.marker_id)
        else:
            at_point[arrival.place] = arrival.order
            if marked is not None:
                marker_deletes.append((arrival.marker_id, marked))
                del at_marker[arrival.marker_id]
        if is_new:
            draft = Draft(
                id=arrival.point_id,
                payload=payload,
                order=None if arrival.is_shared else arrival.order,
                vector=arrival.embedded.vector,
                words=keyword_text(payload),
            )
            points.append((arrival.space, draft))
        settled.append(_settle(arrival, ChunkOutcome.STORED, hashes[arrival.place]))
    return Plan(
        points=_last_of_each(points),
        deletes=tuple(one for one in deletes if one[:2] not in at_point),
        markers=tuple({draft.id: draft for draft in markers if draft.id in at_marker}.values()),
        marker_deletes=tuple(one for one in marker_deletes if one[0] not in at_marker),
        settled=tuple(settled),
    )


def _last_of_each(points: Iterable[tuple[str, Draft]]) -> tuple[tuple[str, Draft], ...]:
    return tuple({(space, draft.id): (space, draft) for space, draft in points}.values())


def _settle(arrival: Arrival, outcome: ChunkOutcome, hash_: str = "") -> Settlement:
    embedded = arrival.embedded
    chunk = SettledChunk(
        partition=arrival.partition,
        offset=arrival.offset,
        chunk_id=arrival.chunk_id,
        document_id=arrival.document_id,
        revision=arrival.revision,
        chunk_index=arrival.chunk_index,
        outcome=outcome,
        reason=arrival.reason,
        tokens_billed=0 if embedded is None else embedded.tokens_billed,
        is_reused=False if embedded is None else embedded.is_reused,
        content_hash=bytes.fromhex(hash_),
    )
    return Settlement(
        import_id=arrival.import_id,
        project_id=arrival.project_id,
        attempt=arrival.attempt,
        space=arrival.space,
        chunk=chunk,
    )


def plan_settlements(
    settled: Iterable[Settlement], *, store_id: StoreId, at: datetime
) -> list[ChunksSettled]:
    """One record per import, attempt and space, of at most `SETTLED_CHUNKS_MAX` chunks, in order of arrival.

    Earlier attempts come first: the first settlement of a chunk counts its bill, the last one its outcome.
    """
    groups: dict[tuple[ImportId, ProjectId, int, str], list[SettledChunk]] = {}
    for one in settled:
        key = (one.import_id, one.project_id, one.attempt, one.space)
        groups.setdefault(key, []).append(one.chunk)
    return [
        ChunksSettled(
            occurred_at=at,
            import_id=import_id,
            project_id=project_id,
            attempt=attempt,
            space=space,
            store_id=store_id,
            chunks=tuple(chunks[start : start + SETTLED_CHUNKS_MAX]),
        )
        for (import_id, project_id, attempt, space), chunks in sorted(
            groups.items(), key=lambda one: one[0][2]
        )
        for start in range(0, len(chunks), SETTLED_CHUNKS_MAX)
    ]


def cycle_s(flush_s: float) -> float:
    """Seconds from one flush to the next while records come: a store that takes long spends a fifth of the time on it, as
    long as nobody waits too long to hear (docs/decisions/0005).
    """
    return min(CYCLE_S_MAX, max(CYCLE_S_MIN, 4 * flush_s))


def raise_marks(marks: Marks, parts: Iterable[Part], mark: Mark) -> tuple[dict[Part, Mark], list[Part]]:
    """The marks after a `DocumentChunksSettled`, and the parts that it may sweep: a mark never goes down."""
    raised = dict(marks)
    taken: list[Part] = []
    for part in parts:
        there = raised.get(part)
        if there is None or (mark.revision, mark.parsed_offset) >= (there.revision, there.parsed_offset):
            raised[part] = mark
            taken.append(part)
    return raised, taken


def not_superseded(edges: Iterable[Draft], marks: Marks) -> list[Draft]:
    """Those of whose part no newer content has taken the place."""
    return [
        edge
        for edge in edges
        if (mark := marks.get(Part(edge.payload["part"]))) is None
        or mark.revision <= edge.payload["revision"]
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A point of a document as a sweep sees it; `name` is what the new content's list would call it."""

    id: UUID
    part: str
    revision: int
    name: UUID


def plan_sweep(held: Iterable[Held], *, part: Part, revision: int, kept: Collection[UUID]) -> list[UUID]:
    """What the content of `revision` takes away: older points of its part, and its own that it does not list."""
    return [
        one.id
        for one in held
        if one.part == part
        and (one.revision < revision or (one.revision == revision and one.name not in kept))
    ]


# --- positions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTo:
    """How far a collection is in one partition: the next offset, and which record stands before it.

    `record_offset` is that record's: on `imports` the end marks of transactions leave holes.
    """

    offset: int = 0
    record_offset: int = -1
    record_id: str = ""


NOTHING_READ = ReadTo()


def lowest(positions: Iterable[ReadTo]) -> ReadTo:
    """The one that counts: what the collection furthest behind has not seen must come again."""
    return min(positions, key=lambda one: one.offset, default=NOTHING_READ)


def advanced(there: ReadTo, done: ReadTo) -> ReadTo:
    """A collection that is already further stays there."""
    return done if done.offset > there.offset else there


def read_marks(payload: Payload) -> dict[Part, Mark]:
    stored: dict[str, list[int]] = payload.get("marks") or {}
    return {Part(part): Mark(revision=at[0], parsed_offset=at[1]) for part, at in stored.items()}


def write_marks(payload: Payload, marks: Marks) -> Payload:
    return {**payload, "marks": {part.value: [m.revision, m.parsed_offset] for part, m in marks.items()}}
