"""The log in memory, for tests and simulation: the same roles over a `MemoryBroker`, with faults placed by hand.

The contract suite runs against this and against Kafka alike; what it does not check, do not lean on. One `MemoryLog`
is one process: `kill` ends it as SIGKILL would.
"""

import asyncio
from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import TypeVar

from eventlog.errors import Fenced, TransientFailure, UnprocessableRecord
from eventlog.log import (
    Assigned,
    Decider,
    GroupReader,
    NewRecord,
    Position,
    Reader,
    Record,
    TopicPartition,
    Writer,
)
from eventlog.memory_broker import Crash, Fault, MemoryBroker
from eventlog.memory_group import Group, Member
from eventlog.topics import RECORD_BYTES_MAX, Topic, topic_table

__all__ = ["Crash", "Fault", "MemoryBroker", "MemoryLog"]


class _Ack:
    """Known at once, told when awaited: an acknowledgement that nobody asks for is no error."""

    __slots__ = ("_outcome",)

    def __init__(self, outcome: Position | Exception) -> None:
        self._outcome = outcome

    def __await__(self) -> Generator[None, None, Position]:
        yield  # never in the same step as the send
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def _check_size(record: NewRecord) -> None:
    if record.size_bytes > RECORD_BYTES_MAX:
        raise UnprocessableRecord("record_too_large", f"{record.size_bytes} of {RECORD_BYTES_MAX} bytes")


class MemoryWriter:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._broken: TransientFailure | None = None

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        _check_size(record)
        await self._broker.up()
        if self._broken is not None:
            raise self._broken
        try:
            return _Ack(self._broker.append(record))
        except TransientFailure as error:
            self._broken = error
            return _Ack(error)

    async def close(self) -> None:
        self._broken = TransientFailure("closed")


class MemoryDecider:
    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self._broker = broker
        self._id = transactional_id
        self._epoch = broker.fence(transactional_id)
        self._lock = asyncio.Lock()
        self._broken: TransientFailure | None = None

    async def commit(self, records: Sequence[NewRecord]) -> list[Position]:
        for record in records:
            _check_size(record)
        async with self._lock:
            if self._broken is not None:
                raise self._broken
            self._broken = TransientFailure("a commit before this one did not end")
            try:
                positions = await self._commit(records)
            except TransientFailure as error:
                self._broken = error
                raise
            self._broken = None
            return positions

    async def _commit(self, records: Sequence[NewRecord]) -> list[Position]:
        self._broker.check_up()
        self._check_fence()
        if not records:
            return []
        transaction = self._broker.begin(self._id, self._epoch)
        positions = [self._broker.append(record, transaction) for record in records]
        await asyncio.sleep(0)  # here another process may fence this one
        self._check_fence()
        self._broker.commit(transaction)
        return positions

    def _check_fence(self) -> None:
        if self._broker.is_fenced(self._id, self._epoch):
            raise Fenced("a newer decider was opened")

    async def close(self) -> None:
        self._broken = TransientFailure("closed")


class MemoryReader:
    def __init__(self, broker: MemoryBroker, starts: Mapping[TopicPartition, int]) -> None:
        self._broker = broker
        # In an order that the hashes of strings do not decide: a seed is the same run in every process.
        self._positions = {
            at: starts[at] for at in sorted(starts, key=lambda one: (one.topic, one.partition))
        }
        self._turn = 0
        self._is_closed = False

    async def poll(self, *, records_max: int, timeout_s: float) -> list[Record]:
        before = dict(self._positions)
        try:
            async with asyncio.timeout(timeout_s):
                while not (records := self._take(records_max)) and self._positions == before:
                    await self._broker.changed()
        except TimeoutError:
            return []
        return records

    def _take(self, records_max: int) -> list[Record]:
        if self._is_closed:
            raise TransientFailure("closed")
        found: list[Record] = []
        if self._broker.is_down:
            return found
        self._turn += 1
        for at in _rotated(list(self._positions), self._turn):
            records, self._positions[at] = self._broker.read(
                at, self._positions[at], records_max - len(found)
            )
            found += records
            if len(found) >= records_max:
                break
        return found

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def close(self) -> None:
        self._is_closed = True


class MemoryGroupReader:
    def __init__(self, broker: MemoryBroker, group: Group, name: str, member: Member) -> None:
        self._broker = broker
        self._group = group
        self._name = name
        self.member = member
        self._turn = 0

    async def poll(self, *partitions: TopicPartition, records_max: int, timeout_s: float) -> list[Record]:
        try:
            async with asyncio.timeout(timeout_s):
                while not (records := self._take(partitions, records_max)):
                    await self._broker.changed()
        except TimeoutError:
            return []
        return records

    def _take(self, partitions: Sequence[TopicPartition], records_max: int) -> list[Record]:
        member = self.member
        if member.failure is not None:
            raise member.failure
        if member.is_dead:
            raise TransientFailure("closed")
        found: list[Record] = []
        if self._broker.is_down or member.is_moving:
            return found
        self._turn += 1
        for at in _rotated(list(member.positions), self._turn):
            if at in member.paused or (partitions and at not in partitions):
                continue
            records, member.positions[at] = self._broker.read(
                at, member.positions[at], records_max - len(found)
            )
            found += records
            if len(found) >= records_max:
                break
        return found

    def repeat(self, partition: TopicPartition, count: int) -> None:
        """A fault: the last `count` offsets of the partition are delivered again."""
        begin = self._broker.partition(partition.topic, partition.partition).begin
        self.member.positions[partition] = max(begin, self.member.positions[partition] - count)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._broker.check_up()
        if self.member.is_dead or not set(offsets) <= self.member.partitions:
            raise TransientFailure("the group has moved on")
        self._broker.committed.setdefault(self._name, {}).update(offsets)

    async def committed(self, partition: TopicPartition) -> int | None:
        self._broker.check_up()
        return self._broker.committed.get(self._name, {}).get(partition)

    def assignment(self) -> frozenset[TopicPartition]:
        return self.member.partitions

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.member.positions[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        self.member.paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.member.paused.difference_update(partitions)
        self._broker.wake()

    async def close(self) -> None:
        if not self.member.is_dead:
            self._group.leave(self.member)


def _rotated(items: list[TopicPartition], turn: int) -> list[TopicPartition]:
    """Another one first each time, so that a full partition does not starve the others."""
    cut = turn % len(items) if items else 0
    return items[cut:] + items[:cut]


_Client = TypeVar("_Client", MemoryWriter, MemoryDecider, MemoryReader)


class MemoryLog:
    """Without a broker it makes one of its own, with every topic of the table."""

    def __init__(self, broker: MemoryBroker | None = None, *, instance: str = "") -> None:
        self.broker = broker or MemoryBroker(topic_table().values())
        self._instance = instance
        self._members: list[tuple[Group, Member]] = []
        self._closers: list[MemoryWriter | MemoryDecider | MemoryReader] = []

    async def writer(self) -> Writer:
        self.broker.check_up()
        return self._kept(MemoryWriter(self.broker))

    async def decider(self, transactional_id: str) -> Decider:
        self.broker.check_up()
        return self._kept(MemoryDecider(self.broker, transactional_id))

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        self.broker.check_up()
        return self._kept(MemoryReader(self.broker, starts))

    async def group(self, group: str, topic: str, *, assigned: Assigned, revoked: Assigned) -> GroupReader:
        self.broker.check_up()
        found = self.broker.groups.setdefault(group, Group(self.broker, group, topic))
        member = Member(self._instance, assigned, revoked)
        self._members.append((found, member))
        reader = MemoryGroupReader(self.broker, found, group, member)
        found.join(member)
        return reader

    async def read_at(self, topic: str, partition: int, offset: int) -> Record:
        self.broker.check_up()
        return self.broker.at(TopicPartition(topic, partition), offset)

    async def partitions(self, topic: str) -> int:
        self.broker.check_up()
        return len(self.broker.topic(topic))

    async def begins(self, topic: str) -> dict[int, int]:
        self.broker.check_up()
        return {number: part.begin for number, part in enumerate(self.broker.topic(topic))}

    async def ends(self, topic: str) -> dict[int, int]:
        self.broker.check_up()
        return {number: part.end for number, part in enumerate(self.broker.topic(topic))}

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        self.broker.check_up()
        for topic in topics:
            self.broker.create(topic)

    async def close(self) -> None:
        pass

    async def kill(self) -> None:
        """As SIGKILL: groups miss it after their time-out; a transaction that is open stays so until its own."""
        for client in self._closers:
            await client.close()
        for group, member in self._members:
            group.kill(member)

    def _kept(self, client: _Client) -> _Client:
        self._closers.append(client)
        return client
