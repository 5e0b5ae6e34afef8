"""The worker of one partition: takes five, asks for what is new, and publishes while the next request is under way.

The order of effects, and why:

1. take up to five records and plan them, from the index and from what is still on its way into the log;
2. embed what is new (this is what costs money and time);
3. wait until the batch before is in the log: so at most two batches can be lost by a death (P4);
4. publish this batch in the background; when it is acknowledged, the index knows it and its offset may be committed.

A batch whose attempt was cancelled while it waited for its turn is not asked for, and says nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields

from embedder.core import BATCH_CHUNKS, Step, Verdict, plan_batch
from embedder.dead_letters import DeadLetters
from embedder.gate import Gate, Outcome, Refused, Vector
from embedder.index import Index
from embedder.metrics import CHUNKS, TOKENS
from embedder.publisher import Publisher
from embedder.story import Story
from eventlog.avro import Schemas
from eventlog.clock import Clock
from eventlog.envelope import ChunkHeaders, header, read_chunk_headers, seal, unseal
from eventlog.errors import RecordGone, UnprocessableRecord
from eventlog.events import ChunkEmbedded, ChunkExtracted, ChunkMessage, ChunkRejected, ChunkRejectionReason
from eventlog.ids import EmbeddingKey
from eventlog.log import GroupReader, Log, NewRecord, Record, TopicPartition
from eventlog.topics import EMBEDDINGS

_BODY = tuple(spec.name for spec in fields(ChunkExtracted) if spec.name != "occurred_at")
_HEAD = tuple(spec.name for spec in fields(ChunkMessage) if spec.name != "occurred_at")
POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """What all workers of a process share."""

    space: str
    source: str
    log: Log
    schemas: Schemas
    index: Index
    gate: Gate
    story: Story
    publisher: Publisher
    dead_letters: DeadLetters
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Said:
    """An event, and the `ce_id` of the record that caused it."""

    event: ChunkEmbedded | ChunkRejected
    cause: str


class Worker:
    def __init__(self, parts: WorkerParts, reader: GroupReader, partition: TopicPartition) -> None:
        self._parts = parts
        self._reader = reader
        self._partition = partition
        self._publishing: asyncio.Task[None] | None = None
        self._on_its_way: dict[EmbeddingKey, Vector] = {}
        self.done_offset: int | None = None
        """Everything before it is in the log or needs nothing; it may be committed."""

    async def run(self) -> None:
        """Until cancelled; `drain` then ends what is on its way."""
        while True:
            await self._parts.dead_letters.wait_until_allowed()
            records = await self._reader.poll(self._partition, records_max=BATCH_CHUNKS, timeout_s=POLL_S)
            if records:
                await self._take(records)

    async def drain(self) -> None:
        if self._publishing is not None:
            await self._publishing

    async def _take(self, records: Sequence[Record]) -> None:
        chunks: list[tuple[ChunkExtracted, str]] = []
        said: list[_Said] = []
        for record in records:
            try:
                chunk = self._read(record)
            except UnprocessableRecord as error:
                said.extend(await self._bury(record, error))
                continue
            if chunk is not None:
                self._parts.dead_letters.saw_good()
                chunks.append((chunk, header(record, "ce_id")))
        said.extend(await self._answer(chunks))
        # 3. The batch before is in the log before this one is published behind it.
        await self.drain()
        self._on_its_way = {
            one.event.embedding_key: Vector(one.event.vector, 0)
            for one in said
            if isinstance(one.event, ChunkEmbedded)
        }
        self._publishing = asyncio.create_task(self._publish(said, records[-1].offset + 1))

    def _read(self, record: Record) -> ChunkExtracted | None:
        """The chunk; null when it is another space's. Raises UnprocessableRecord."""
        headers = read_chunk_headers(record)
        if headers.space != self._parts.space:
            return None
        event = unseal(self._parts.schemas, record).event
        if not isinstance(event, ChunkExtracted):
            raise UnprocessableRecord("type_unexpected", type(event).__name__)
        if _headers_of(event) != headers:
            raise UnprocessableRecord("headers_contradict", "headers and body name different chunks")
        return event

    async def _bury(self, record: Record, error: UnprocessableRecord) -> list[_Said]:
        """The dead letter, and its outcome from the headers where they can be read, so that no import waits for it."""
        await self._parts.dead_letters.put(record, reason=error.reason, message=str(error))
        try:
            headers = read_chunk_headers(record)
        except UnprocessableRecord:
            return []
        is_ours = headers.space == self._parts.space
        if not is_ours or self._parts.index.is_published(
            headers.import_id, headers.attempt, headers.chunk_id
        ):
            return []
        rejected = ChunkRejected(
            **{name: getattr(headers, name) for name in _HEAD},
            occurred_at=self._parts.clock.now(),
            reason=ChunkRejectionReason.DEAD_LETTERED,
            message=error.reason,
        )
        return [_Said(rejected, header(record, "ce_id"))]

    async def _answer(self, chunks: Sequence[tuple[ChunkExtracted, str]]) -> list[_Said]:
        parts = self._parts
        steps = plan_batch(
            [chunk for chunk, _ in chunks],
            is_published=lambda one: parts.index.is_published(one.import_id, one.attempt, one.chunk_id),
            is_cancelled=self._is_cancelled,
            is_paid=lambda key: key in self._on_its_way or parts.index.place_of(key) is not None,
        )
        vectors: dict[EmbeddingKey, Outcome] = {}
        for step in steps:
            if (
                step.verdict is Verdict.REUSE
                and (known := await self._known(step.chunk.embedding_key)) is not None
            ):
                vectors[step.chunk.embedding_key] = known
        wanted = [step for step in steps if step.verdict is Verdict.EMBED]
        # What the index promised and the log does not hold is paid like the rest.
        here = {step.chunk.embedding_key for step in wanted} | set(vectors)
        lost = {step.chunk.embedding_key: step for step in steps if step.verdict is Verdict.REUSE}
        wanted.extend(step for key, step in lost.items() if key not in here)
        # A text that two imports want is asked for as long as one of them does.
        asked = [step for step in steps if step.verdict is not Verdict.SKIP]
        outcomes = await parts.gate.embed(
            [step.chunk.text for step in wanted],
            is_wanted=lambda: not all(self._is_cancelled(step.chunk) for step in asked),
        )
        if outcomes is None:
            wanted = []
        billed = {id(step): outcome for step, outcome in zip(wanted, outcomes or (), strict=True)}
        vectors.update({step.chunk.embedding_key: billed[id(step)] for step in wanted})
        said = []
        for step, (_, cause) in zip(steps, chunks, strict=True):
            event = self._event(step, billed.get(id(step)), vectors.get(step.chunk.embedding_key))
            if event is not None:
                said.append(_Said(event, cause))
        return said

    def _is_cancelled(self, chunk: ChunkExtracted) -> bool:
        return self._parts.story.is_cancelled(chunk.import_id, chunk.attempt)

    async def _known(self, key: EmbeddingKey) -> Vector | None:
        """From the batch on its way, or from the log, where only the right record counts."""
        if key in self._on_its_way:
            return self._on_its_way[key]
        place = self._parts.index.place_of(key)
        if place is None:
            return None
        try:
            event = unseal(self._parts.schemas, await self._parts.log.read_at(EMBEDDINGS, *place)).event
        except (RecordGone, UnprocessableRecord):
            event = None
        if isinstance(event, ChunkEmbedded) and (event.embedding_key, event.space) == (
            key,
            self._parts.space,
        ):
            return Vector(event.vector, 0)
        self._parts.index.forget(key)
        return None

    def _event(
        self, step: Step, billed: Outcome | None, outcome: Outcome | None
    ) -> ChunkEmbedded | ChunkRejected | None:
        chunk, at = step.chunk, self._parts.clock.now()
        if step.verdict is Verdict.REJECT:
            outcome = Refused(step.reason, "", 0)
        match outcome if step.verdict is not Verdict.SKIP else None:
            case Vector(data=data):
                is_reused = billed is None
                tokens = billed.tokens if isinstance(billed, Vector) else 0
                CHUNKS.labels("reused" if is_reused else "embedded").inc()
                TOKENS.inc(tokens)
                return ChunkEmbedded(
                    **{name: getattr(chunk, name) for name in _BODY},
                    occurred_at=at,
                    dims=len(data) // 4,
                    vector=data,
                    tokens_billed=tokens,
                    is_reused=is_reused,
                )
            case Refused(reason=reason, message=message, tries=tries):
                CHUNKS.labels("rejected").inc()
                return ChunkRejected(
                    **{name: getattr(chunk, name) for name in _HEAD},
                    occurred_at=at,
                    reason=reason,
                    tries_count=tries,
                    message=message,
                )
            case _:
                CHUNKS.labels("skipped").inc()
                return None

    async def _publish(self, said: Sequence[_Said], next_offset: int) -> None:
        if said:
            records, events = self._records(said)
            positions = await self._parts.publisher.publish(records)
            for event, record, position in zip(events, records, positions, strict=True):
                self._parts.index.add_published(
                    self._partition.partition,
                    event,
                    position.offset,
                    ce_id=_ce_id(record),
                    has_vector=isinstance(event, ChunkEmbedded),
                )
        self.done_offset = next_offset

    def _records(self, said: Sequence[_Said]) -> tuple[list[NewRecord], list[ChunkMessage]]:
        records: list[NewRecord] = []
        events: list[ChunkMessage] = []
        for one in said:
            records.append(
                seal(
                    self._parts.schemas,
                    one.event,
                    topic=EMBEDDINGS,
                    source=self._parts.source,
                    causation_id=one.cause,
                    partition=self._partition.partition,
                )
            )
            events.append(one.event)
        return records, events


def _headers_of(chunk: ChunkExtracted) -> ChunkHeaders:
    return ChunkHeaders(**{spec.name: getattr(chunk, spec.name) for spec in fields(ChunkHeaders)})


def _ce_id(record: NewRecord) -> str:
    return next(value.decode() for name, value in record.headers if name == "ce_id")
