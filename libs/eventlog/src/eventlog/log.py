"""The log as services see it: records, positions, and five small roles. Kafka and memory implement it.

`Log` opens the roles: a `Writer` appends, pipelined; a `Decider` appends transactions under one fixed id, and a newer
one fences the older; a `Reader` reads given partitions from given offsets; a `GroupReader` shares a topic's partitions
with the other members of its group; `read_at` reads exactly one record. Readers see committed records only.
Topic names here are without prefix; an implementation puts it there.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Header = tuple[str, bytes]

_RECORD_OVERHEAD_BYTES = 128
_HEADER_OVERHEAD_BYTES = 10


@dataclass(frozen=True, slots=True)
class TopicPartition:
    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """What is appended. `partition` None lets the key decide."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    partition: int | None = None

    @property
    def size_bytes(self) -> int:
        """At most what Kafka's format makes of it, uncompressed."""
        size = _RECORD_OVERHEAD_BYTES + len(self.key or b"") + len(self.value or b"")
        return size + sum(_HEADER_OVERHEAD_BYTES + 4 * len(name) + len(value) for name, value in self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where an appended record stands."""

    topic: str
    partition: int
    offset: int


class Writer(Protocol):
    """Idempotent, `acks=all`. After a TransientFailure it is broken for good: build a new one and send again."""

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        """Waits for room in the buffer only; await what it returns for the acknowledgement.

        While the log is away both wait, for as long as it takes: it is no failure, and nothing is sent twice.
        Both raise TransientFailure when the log does not take it; `send` raises UnprocessableRecord, and nothing is
        broken, when it never will (too large).
        """

    async def close(self) -> None: ...


class Decider(Protocol):
    """The one writer under a transactional id: opening it fences the one before."""

    async def commit(self, records: Sequence[NewRecord]) -> list[Position]:
        """All or none, in order. What it returns is decided, but readers, and `ends`, may see it a moment later.

        Raises Fenced when another took over (or this transaction took too long), TransientFailure when the outcome is
        unknown; after either, close this one and open another. UnprocessableRecord (too large) breaks nothing.
        """

    async def close(self) -> None: ...


class Reader(Protocol):
    async def poll(self, *, records_max: int, timeout_s: float) -> list[Record]:
        """Up to `records_max` records in order per partition; an empty list when none came in time, or when control
        records alone came: then the position has moved.
        """

    async def position(self, partition: TopicPartition) -> int:
        """The next offset to be read; it passes control records, so compare it with `ends`."""

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def close(self) -> None: ...


Assigned = Callable[[frozenset[TopicPartition]], Awaitable[None]]


class GroupReader(Protocol):
    """One member of a group. `revoked` is awaited before the partitions go, `assigned` after they came.

    Joining begins when the reader is opened and goes on in the background, as do the callbacks; both may use the
    reader. Every rebalance revokes all partitions before it assigns anew. What a callback raises comes out of `poll`.
    """

    async def poll(self, *partitions: TopicPartition, records_max: int, timeout_s: float) -> list[Record]:
        """From these partitions, or from all; an empty list also while a rebalance is under way."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Next offsets to read. Raises TransientFailure when the group has moved on, or the log is away."""

    async def committed(self, partition: TopicPartition) -> int | None: ...
    def assignment(self) -> frozenset[TopicPartition]: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    async def close(self) -> None: ...


class Log(Protocol):
    async def writer(self) -> Writer: ...
    async def decider(self, transactional_id: str) -> Decider: ...
    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        """Raises RecordGone from `poll`, each time until `seek`, when a position is outside the log."""

    async def group(
        self, group: str, topic: str, *, assigned: Assigned, revoked: Assigned
    ) -> GroupReader: ...
    async def read_at(self, topic: str, partition: int, offset: int) -> Record:
        """Exactly that record; raises RecordGone when the log does not hold it."""

    async def partitions(self, topic: str) -> int: ...
    async def begins(self, topic: str) -> dict[int, int]: ...
    async def ends(self, topic: str) -> dict[int, int]:
        """The offset behind the last record that a reader may see, by partition."""

    async def close(self) -> None: ...


async def records_at(log: Log, places: Mapping[TopicPartition, int]) -> dict[TopicPartition, Record]:
    """The record at each place, found side by side by one reader; what the log does not hold is left out."""
    topics = {at.topic for at in places}
    begins, ends = [{one: await ask(one) for one in topics} for ask in (log.begins, log.ends)]
    waiting = {
        at: offset
        for at, offset in places.items()
        if begins[at.topic][at.partition] <= offset < ends[at.topic][at.partition]
    }
    found: dict[TopicPartition, Record] = {}
    if not waiting:
        return found
    reader = await log.reader(waiting)
    try:
        while waiting:
            for record in await reader.poll(records_max=1_000, timeout_s=1.0):
                at = TopicPartition(record.topic, record.partition)
                if waiting.get(at) == record.offset:
                    found[at] = record
            waiting = {at: offset for at, offset in waiting.items() if await reader.position(at) <= offset}
    finally:
        await reader.close()
    return found
