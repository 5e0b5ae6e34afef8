"""The worker of one partition: takes five, asks for what is new, and publishes; two batches of five are in hand at most.

The order of effects, and why:

1. take up to five records, which were read before there was room for them;
2. plan them, from the index and from what the batch before has said; where that one is asked for a text of theirs,
   wait for its answer;
3. embed what is new (this is what costs money and time), while the batch before is asked for or published;
4. when the batch before is in the log, publish this one; when it is acknowledged, the index knows it, its offset may
   be committed, and there is room for the next. So at most two batches can be lost by a death (P4).

A chunk whose attempt is cancelled while it waits for its turn is not asked for, and says nothing. A batch may hold what
is paid for: it is told to stop, not cancelled, and publishes first.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar

from embedder.core import BATCH_CHUNKS, BATCHES_MAX, Step, Verdict, identity, plan_batch
from embedder.dead_letters import DeadLetters
from embedder.gate import Gate, Outcome, Refused, Vector
from embedder.index import Index, Published
from embedder.metrics import CHUNKS, TOKENS
from embedder.publisher import Publisher
from embedder.story import Story
from eventlog.avro import Schemas
from eventlog.clock import Clock
from eventlog.envelope import ChunkHeaders, header, read_chunk_headers, seal, unseal
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import ChunkEmbedded, ChunkExtracted, ChunkMessage, ChunkRejected, ChunkRejectionReason
from eventlog.ids import EmbeddingKey, embedding_key, id_text
from eventlog.log import GroupReader, Log, NewRecord, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import EMBEDDINGS, RECORD_BYTES_MAX

_T = TypeVar("_T")
_BODY = tuple(spec.name for spec in fields(ChunkExtracted) if spec.name != "occurred_at")
_HEAD = tuple(spec.name for spec in fields(ChunkMessage) if spec.name != "occurred_at")
_identity_fields = attrgetter(*(spec.name for spec in fields(ChunkHeaders)))
POLL_S = 1.0
EVENT_MORE_BYTES = 4096
"""What the event of a chunk has around the chunk and the vector, generously."""

logger = Logger("embedder.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """What all workers of a process share."""

    space: str
    dims: int
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
class _Chunk:
    """A chunk of this space, and the `ce_id` of its record."""

    event: ChunkExtracted
    cause: str
    is_too_large: bool


@dataclass(frozen=True, slots=True)
class _Said:
    """An event, and the `ce_id` of the record that caused it."""

    event: ChunkEmbedded | ChunkRejected
    cause: str


@dataclass(slots=True, eq=False)
class _Batch:
    """Up to five chunks on their way into the log, and what the batch behind them must know."""

    chunks: Sequence[_Chunk] = ()
    said: list[_Said] = field(default_factory=list)
    end_offset: int = 0
    is_whole: bool = True
    """Whether all of it is said, and all before it: who stops does not ask for what is left."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    vectors: dict[EmbeddingKey, Vector] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def shares_text_with(self, other: "_Batch") -> bool:
        keys = {one.event.embedding_key for one in self.chunks}
        return any(one.event.embedding_key in keys for one in other.chunks)


class Worker:
    def __init__(
        self,
        parts: WorkerParts,
        reader: GroupReader,
        partition: TopicPartition,
        *,
        crash: Callable[[BaseException], None],
    ) -> None:
        self._parts = parts
        self._crash = crash
        self._reader = reader
        self._partition = partition
        self._in_hand: deque[asyncio.Task[None]] = deque()
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self.done_offset: int | None = None
        """Everything before it is in the log or needs nothing; it may be committed."""

    def start(self) -> None:
        self._task = self._guarded(self._run())

    def _guarded(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """What nobody expected ends the process, at once and not when somebody looks."""

        def look(task: asyncio.Task[_T]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._crash(error)

        task = asyncio.create_task(work)
        task.add_done_callback(look)
        return task

    async def stop(self, timeout_s: float) -> None:
        """Asks for nothing new, and returns when what is paid for is in the log, or the time is up."""
        self._is_stopping = True
        steps = [*self._in_hand]
        if self._task is not None:
            self._task.cancel()  # it reads and waits for room, and holds nothing
            steps.append(self._task)
        if steps:
            await asyncio.wait(steps, timeout=timeout_s)
            for step in steps:
                step.cancel()
            await asyncio.wait(steps)

    async def _run(self) -> None:
        ahead = self._guarded(self._read_next())
        before = _Batch()
        before.answered.set()
        try:
            while not self._is_stopping:
                records = await ahead
                ahead = self._guarded(self._read_next())
                await self._has_room()
                await self._parts.dead_letters.wait_until_allowed()
                batch = await self._opened(records)
                batch.task = self._guarded(self._carry(batch, before))
                self._in_hand.append(batch.task)
                before = batch
        finally:
            ahead.cancel()

    async def _has_room(self) -> None:
        while len(self._in_hand) >= BATCHES_MAX:
            await asyncio.wait([self._in_hand[0]])
            self._in_hand.popleft().result()

    async def _read_next(self) -> list[tuple[Record, _Chunk | UnprocessableRecord | None]]:
        """Up to five records, at least one, and what they say."""
        while True:
            try:
                records = await self._reader.poll(self._partition, records_max=BATCH_CHUNKS, timeout_s=POLL_S)
            except TransientFailure as failure:  # nothing was handed out
                logger.warning("poll.failed", partition=self._partition.partition, why=failure)
                await asyncio.sleep(POLL_S)
                continue
            if records:
                return [(record, self._read(record)) for record in records]

    async def _opened(self, records: Sequence[tuple[Record, _Chunk | UnprocessableRecord | None]]) -> _Batch:
        """What cannot be read is buried, and its outcome is the first that the batch says."""
        chunks: list[_Chunk] = []
        said: list[_Said] = []
        for record, read in records:
            if isinstance(read, UnprocessableRecord):
                said.extend(await self._bury(record, read))
            elif read is not None:
                self._parts.dead_letters.saw_good()
                chunks.append(read)
        return _Batch(chunks, said, records[-1][0].offset + 1)

    async def _carry(self, batch: _Batch, before: _Batch) -> None:
        """Into the log; the batch before goes first."""
        if batch.shares_text_with(before):
            await before.answered.wait()
        answers, is_whole = await self._answer(batch.chunks, before)
        batch.said.extend(answers)
        batch.vectors = {
            one.event.embedding_key: Vector(one.event.vector, 0)
            for one in batch.said
            if isinstance(one.event, ChunkEmbedded)
        }
        batch.answered.set()
        if before.task is not None:
            await before.task
        batch.is_whole = is_whole and before.is_whole
        await self._publish(batch)

    def _read(self, record: Record) -> _Chunk | UnprocessableRecord | None:
        """The chunk, or why it is none; null when it is another space's."""
        try:
            return self._chunk(record)
        except UnprocessableRecord as error:
            return error

    def _chunk(self, record: Record) -> _Chunk | None:
        headers = read_chunk_headers(record)
        if headers.space != self._parts.space:
            return None
        event = unseal(self._parts.schemas, record).event
        if not isinstance(event, ChunkExtracted):
            raise UnprocessableRecord("type_unexpected", type(event).__name__)
        if _identity_fields(event) != _identity_fields(headers):
            raise UnprocessableRecord("headers_contradict", "headers and body name different chunks")
        # Under a wrong key a text would meet another worker, which pays it again, or get another text's vector.
        if event.embedding_key != embedding_key(event.project_id, event.text):
            raise UnprocessableRecord("key_contradicts", "the embedding key is not the text's")
        if record.key != id_text(event.embedding_key).encode():
            raise UnprocessableRecord("key_contradicts", "the record's key is not the embedding key")
        # Its event holds all of it, the vector, and little else.
        size = len(record.value or b"") + 4 * self._parts.dims + EVENT_MORE_BYTES
        return _Chunk(event, header(record, "ce_id"), size > RECORD_BYTES_MAX)

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

    async def _answer(self, chunks: Sequence[_Chunk], before: _Batch) -> tuple[list[_Said], bool]:
        """What is to be said of them; and whether that is all, for who stops does not ask for what is left."""
        outcomes: dict[EmbeddingKey, Outcome] = {}
        is_whole = False
        while not is_whole:
            steps, known = await self._planned(chunks, before, outcomes)
            wanted = [
                step.chunk
                for step in steps
                if step.verdict is Verdict.EMBED and step.chunk.embedding_key not in outcomes
            ]
            if wanted and self._is_stopping:
                break
            # One that is cancelled while they wait for their turn takes the others back to the plan.
            found = await self._parts.gate.embed(
                [chunk.text for chunk in wanted],
                is_wanted=lambda: not self._is_stopping and not any(map(self._is_over, wanted)),  # noqa: B023 - asked within this round
            )
            outcomes.update(
                (chunk.embedding_key, one)
                for chunk, one in zip(wanted, found, strict=True)
                if one is not None
            )
            is_whole = None not in found
        return [
            _Said(event, chunk.cause)
            for step, chunk in zip(steps, chunks, strict=True)
            if (event := self._event(step, outcomes, known)) is not None
        ], is_whole

    async def _planned(
        self, chunks: Sequence[_Chunk], before: _Batch, outcomes: Mapping[EmbeddingKey, Outcome]
    ) -> tuple[list[Step], dict[EmbeddingKey, Vector]]:
        """The steps, and the vectors that are paid for already."""
        while True:
            steps = self._plan(chunks, before, outcomes)
            known = await self._recalled(steps, before)
            if known is not None:
                return steps, known
            # The index promised what the log does not hold; now it knows better.

    def _plan(
        self, chunks: Sequence[_Chunk], before: _Batch, outcomes: Mapping[EmbeddingKey, Outcome]
    ) -> list[Step]:
        index = self._parts.index
        said_before = {identity(one.event) for one in before.said}
        too_large = {id(chunk.event) for chunk in chunks if chunk.is_too_large}
        return plan_batch(
            [chunk.event for chunk in chunks],
            is_published=lambda one: (
                identity(one) in said_before or index.is_published(one.import_id, one.attempt, one.chunk_id)
            ),
            # What was paid before the cancellation is said: a resume would pay it again.
            is_over=lambda one: one.embedding_key not in outcomes and self._is_over(one),
            is_paid=lambda key: key in before.vectors or index.place_of(key) is not None,
            is_too_large=lambda one: id(one) in too_large,
        )

    def _is_over(self, chunk: ChunkExtracted) -> bool:
        return self._parts.story.is_over(chunk.import_id, chunk.attempt)

    async def _recalled(self, steps: Sequence[Step], before: _Batch) -> dict[EmbeddingKey, Vector] | None:
        """The vectors that are paid for already; null when one is not where the index says."""
        here = {step.chunk.embedding_key for step in steps if step.verdict is Verdict.EMBED}
        known: dict[EmbeddingKey, Vector] = {}
        for step in steps:
            key = step.chunk.embedding_key
            if step.verdict is not Verdict.REUSE or key in here:
                continue
            vector = before.vectors.get(key) or await self._read_back(key)
            if vector is None:
                return None
            known[key] = vector
        return known

    async def _read_back(self, key: EmbeddingKey) -> Vector | None:
        """From the log, where only the right record counts."""
        place = self._parts.index.place_of(key)
        if place is None:
            return None
        while True:
            try:
                record = await self._parts.log.read_at(EMBEDDINGS, *place)
                event = unseal(self._parts.schemas, record).event
            except TransientFailure as failure:
                logger.warning("vector.not_read", partition=place[0], offset=place[1], why=failure)
                await asyncio.sleep(POLL_S)
            except UnprocessableRecord:  # gone, or another record
                break
            else:
                if isinstance(event, ChunkEmbedded) and (event.embedding_key, event.space, event.dims) == (
                    key,
                    self._parts.space,
                    self._parts.dims,
                ):
                    return Vector(event.vector, 0)
                break
        self._parts.index.forget(key, place[1])
        return None

    def _event(
        self, step: Step, outcomes: Mapping[EmbeddingKey, Outcome], known: Mapping[EmbeddingKey, Vector]
    ) -> ChunkEmbedded | ChunkRejected | None:
        chunk, at = step.chunk, self._parts.clock.now()
        outcome: Outcome | None = known.get(chunk.embedding_key) or outcomes.get(chunk.embedding_key)
        is_reused = step.verdict is Verdict.REUSE
        if step.verdict is Verdict.REJECT:
            outcome = Refused(step.reason, "", 0)
        match outcome if step.verdict is not Verdict.SKIP else None:
            case Vector(data=data, tokens=billed):
                tokens = 0 if is_reused else billed
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

    async def _publish(self, batch: _Batch) -> None:
        if batch.said:
            records = self._records(batch.said)
            positions = await self._parts.publisher.publish(records)
            self._parts.index.add_published(
                self._partition.partition,
                [
                    Published(
                        one.event, position.offset, _ce_id(record), isinstance(one.event, ChunkEmbedded)
                    )
                    for one, record, position in zip(batch.said, records, positions, strict=True)
                ],
            )
        if batch.is_whole:
            self.done_offset = batch.end_offset

    def _records(self, said: Sequence[_Said]) -> list[NewRecord]:
        return [
            seal(
                self._parts.schemas,
                one.event,
                topic=EMBEDDINGS,
                source=self._parts.source,
                causation_id=one.cause,
                partition=self._partition.partition,
            )
            for one in said
        ]


def _ce_id(record: NewRecord) -> str:
    return next(value.decode() for name, value in record.headers if name == "ce_id")
