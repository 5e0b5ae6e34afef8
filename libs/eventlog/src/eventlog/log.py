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
    """Idempotent, `acks=all`. After a failure it is broken for good: build a new one and send again."""

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        """Waits for room in the buffer only; await what it returns for the acknowledgement.

        Both raise TransientFailure when the log does not take it, UnprocessableRecord when it never will (too large).
        """

    async def close(self) -> None: ...


class Decider(Protocol):
    """The one writer under a transactional id: opening it fences the one before."""

    async def commit(self, records: Sequence[NewRecord]) -> list[Position]:
        """All or none. Raises Fenced when another took over, TransientFailure when the outcome is unknown."""

    async def close(self) -> None: ...


class Reader(Protocol):
    async def poll(self, *, records_max: int, timeout_s: float) -> list[Record]:
        """Up to `records_max` records in order per partition; an empty list when none came in time."""

    async def position(self, partition: TopicPartition) -> int:
        """The next offset to be read; it passes control records, so compare it with `ends`."""

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def close(self) -> None: ...


Assigned = Callable[[frozenset[TopicPartition]], Awaitable[None]]


class GroupReader(Protocol):
    """One member of a group. `revoked` is awaited before the partitions go, `assigned` after they came."""

    async def poll(self, *partitions: TopicPartition, records_max: int, timeout_s: float) -> list[Record]: ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Next offsets to read. Raises TransientFailure when the group has moved on."""

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
        """Raises RecordGone from `poll` when a position is outside the log."""

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
