"""The two worlds in which the contract of the log is checked: a broker in memory, and a real one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from eventlog.kafka import KafkaLog
from eventlog.log import GroupReader, Log, NewRecord, Position, Record, TopicPartition
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.settings import ServiceSettings
from eventlog.topics import Topic

DEADLINE_S = 30.0
Callback = Callable[[frozenset[TopicPartition]], Awaitable[None]]
ONE, MANY = "one", "many"
TOPICS = [
    Topic(name=ONE, partitions=1, retention_ms=-1, events=()),
    Topic(name=MANY, partitions=4, retention_ms=-1, events=()),
]


class World:
    """`log()` is a new process's log; `close` ends all of them."""

    def __init__(self, make: Callable[[str], Log]) -> None:
        self._make = make
        self._logs: list[Log] = []

    async def log(self, *, instance: str = "") -> Log:
        log = self._make(instance)
        await log.ensure_topics(TOPICS)  # type: ignore[attr-defined]  # not of the interface, but of both
        self._logs.append(log)
        return log

    async def close(self) -> None:
        for log in self._logs:
            await log.close()


def memory_world(broker: MemoryBroker | None = None) -> World:
    shared = broker or MemoryBroker()
    return World(lambda instance: MemoryLog(shared, instance=instance))


def kafka_world(bootstrap: str, prefix: str) -> World:
    def make(instance: str) -> KafkaLog:
        return KafkaLog(
            ServiceSettings(
                kafka_bootstrap_servers=bootstrap,
                prefix=prefix,
                http_port=0,
                data_dir=Path("unused"),
                instance=instance,
            )
        )

    return World(make)


def record(text: str, *, topic: str = ONE, partition: int | None = 0, key: str = "k") -> NewRecord:
    return NewRecord(topic=topic, key=key.encode(), value=text.encode(), partition=partition)


def texts(records: list[Record]) -> list[str]:
    return [(one.value or b"").decode() for one in records]


async def write(log: Log, *records: NewRecord) -> list[Position]:
    writer = await log.writer()
    try:
        acks = [await writer.send(one) for one in records]
        return [await ack for ack in acks]
    finally:
        await writer.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def read_all(log: Log, topic: str = ONE) -> list[Record]:
    """Everything that stands in the topic now, read as a replay would: until each position has reached its end."""
    starts, ends = await log.begins(topic), await log.ends(topic)
    places = [TopicPartition(topic, number) for number in ends]
    reader = await log.reader({at: starts[at.partition] for at in places})
    found: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while any([await reader.position(at) < ends[at.partition] for at in places]):
        assert time.monotonic() < deadline, f"read {len(found)} records and no end"
        found += await reader.poll(records_max=100, timeout_s=0.05)
    await reader.close()
    return found


class Member:
    """A member of a group that notes what it is given and what is taken from it."""

    def __init__(self, reader_of: Callable[["Member"], Awaitable[GroupReader]]) -> None:
        self._reader_of = reader_of
        self.events: list[tuple[str, int]] = []
        self.on_assigned: Callback | None = None
        self.on_revoked: Callback | None = None
        self.got: list[Record] = []
        self.reader: GroupReader

    @classmethod
    async def join(
        cls,
        log: Log,
        *,
        topic: str = MANY,
        on_assigned: Callback | None = None,
        on_revoked: Callback | None = None,
    ) -> "Member":
        member = cls(lambda self: log.group("readers", topic, assigned=self._assigned, revoked=self._revoked))
        member.on_assigned, member.on_revoked = on_assigned, on_revoked
        member.reader = await member._reader_of(member)
        return member

    async def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.events.append(("assigned", len(partitions)))
        if self.on_assigned is not None:
            await self.on_assigned(partitions)

    async def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.events.append(("revoked", len(partitions)))
        if self.on_revoked is not None:
            await self.on_revoked(partitions)

    async def read(self, condition: Callable[[], bool], *partitions: TopicPartition) -> None:
        """Polls until the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.events, len(self.got), self.reader.assignment())
            self.got += await self.reader.poll(*partitions, records_max=5, timeout_s=0.05)

    async def commit_all(self) -> None:
        offsets: dict[TopicPartition, int] = {}
        for one in self.got:
            offsets[TopicPartition(one.topic, one.partition)] = one.offset + 1
        await self.reader.commit(offsets)
