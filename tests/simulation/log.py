"""One process's log in memory, with the faults that the plan has for it; and a broker that tells what became visible."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.simulation.faults import Plan
from tests.simulation.story import REFUSED

from eventlog.clock import Clock
from eventlog.errors import TransientFailure
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
from eventlog.memory import Fault, MemoryBroker, MemoryLog
from eventlog.memory_group import Group, Member
from eventlog.topics import IMPORTS, Names, Topic

GARBLED = b"\x00 what no schema explains"
ACK_S = (0.0, 0.0, 0.0, 0.001, 0.02)
BEHIND_S = (0.0, 0.0, 0.0, 0.05, 0.3)
"""A life of a process folds what it reads of `imports` so much later than it could: its loop may be busy."""


class ObservedBroker(MemoryBroker):
    """`seen` is called for each record of `imports` in the moment in which readers may see it."""

    def __init__(self, topics: Sequence[Topic], *, clock: Clock, seen: Callable[[Record], None]) -> None:
        self._seen: Callable[[Record], None] | None = None
        super().__init__(topics, clock=clock)
        self._seen = seen
        self._observed = 0

    def wake(self) -> None:
        super().wake()
        if self._seen is not None:
            records, self._observed = self.partition(IMPORTS, 0).read(self._observed, 1_000)
            for record in records:
                self._seen(record)


def _is_of_good_text(record: NewRecord) -> bool:
    """Of one that would be rejected anyway, or is garbled already, it does not matter how."""
    types = ("paperlog.ChunkExtracted", "paperlog.ChunkEmbedded")
    is_of_text = dict(record.headers).get("ce_type", b"").decode() in types
    value = record.value
    return is_of_text and value is not None and value != GARBLED and REFUSED.encode() not in value


class _LateAck:
    def __init__(self, ack: Awaitable[Position], seconds: float) -> None:
        self._ack = ack
        self._seconds = seconds

    def __await__(self) -> Generator[Any, None, Position]:
        yield from asyncio.sleep(self._seconds).__await__()
        return (yield from self._ack.__await__())


class _Writer:
    """A slow one holds what it is given, as a producer's buffer does, and the process may die over it."""

    def __init__(self, log: "ProcessLog", inner: Writer) -> None:
        self._log = log
        self._inner = inner
        self._slow_until_s = 0.0
        self._in_turn = asyncio.Lock()

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        log = self._log
        for fault in log.plan.meet("append"):
            if fault.kind == "refuse append":
                log.broker.fail(record.topic, Fault.REFUSE)
            elif fault.kind == "lose ack":
                log.broker.fail(record.topic, Fault.LOSE_ACK)
            elif fault.kind == "write twice" and not log.broker.is_down:
                log.broker.append(record)
            elif fault.kind == "garble" and _is_of_good_text(record):
                log.garbled(record)
                record = replace(record, value=GARBLED)
            elif fault.kind == "slow write":
                self._slow_until_s = asyncio.get_running_loop().time() + fault.seconds
        if self._slow_until_s or self._in_turn.locked():
            return asyncio.ensure_future(self._written(record))
        return _LateAck(await self._inner.send(record), log.chance.choice(ACK_S))

    async def _written(self, record: NewRecord) -> Position:
        async with self._in_turn:
            await asyncio.sleep(max(0.0, self._slow_until_s - asyncio.get_running_loop().time()))
            self._slow_until_s = 0.0
            return await (await self._inner.send(record))

    async def close(self) -> None:
        await self._inner.close()


class _Decider:
    def __init__(self, log: "ProcessLog", inner: Decider, transactional_id: str) -> None:
        self._log = log
        self._inner = inner
        self._id = transactional_id

    async def commit(self, records: Sequence[NewRecord]) -> list[Position]:
        for fault in self._log.plan.meet("commit"):
            if fault.kind == "stop decider":
                continue  # the plan stops it here, between its decision and its commit
            is_refused = fault.kind == "refuse commit"
            self._log.broker.fail(self._id, Fault.REFUSE if is_refused else Fault.LOSE_ACK)
        await asyncio.sleep(self._log.chance.choice(ACK_S))
        positions = await self._inner.commit(records)
        await asyncio.sleep(self._log.chance.choice(ACK_S))
        return positions

    async def close(self) -> None:
        await self._inner.close()


class _LateReader:
    def __init__(self, inner: Reader, behind_s: float) -> None:
        self._inner = inner
        self._behind_s = behind_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def poll(self, *, records_max: int, timeout_s: float) -> list[Record]:
        records = await self._inner.poll(records_max=records_max, timeout_s=timeout_s)
        await asyncio.sleep(self._behind_s)
        return records


class _GroupReader:
    def __init__(self, log: "ProcessLog", inner: GroupReader) -> None:
        self._log = log
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self._log.plan.meet("offsets"):
            raise TransientFailure("the commit was lost by a fault")
        await self._inner.commit(offsets)


class ProcessLog(MemoryLog):
    """With the names that `KafkaLog` has. Dead, it does nothing more."""

    names = Names()

    def __init__(
        self,
        broker: MemoryBroker,
        plan: Plan,
        chance: random.Random,
        garbled: Callable[[NewRecord], None],
    ) -> None:
        super().__init__(broker)
        self.plan = plan
        self.chance = chance
        self.garbled = garbled
        self.is_dead = False
        self._behind_s = chance.choice(BEHIND_S)

    @property
    def members(self) -> list[tuple[Group, Member]]:
        return self._members

    def die(self) -> None:
        self.is_dead = True
        for group, member in self._members:
            group.kill(member)

    def _check(self) -> None:
        if self.is_dead:
            raise TransientFailure("a dead process does nothing")

    async def writer(self) -> Writer:
        self._check()
        return _Writer(self, await super().writer())

    async def decider(self, transactional_id: str) -> Decider:
        self._check()
        return _Decider(self, await super().decider(transactional_id), transactional_id)

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        self._check()
        inner = await super().reader(starts)
        is_fold = {at.topic for at in starts} == {IMPORTS}
        return _LateReader(inner, self._behind_s) if is_fold else inner

    async def group(self, group: str, topic: str, *, assigned: Assigned, revoked: Assigned) -> GroupReader:
        self._check()
        return _GroupReader(self, await super().group(group, topic, assigned=assigned, revoked=revoked))

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        """A world has fewer partitions than the table says."""
        self.broker.check_up()
        known = set(self.broker._topics)
        for topic in topics:
            if topic.name not in known:
                self.broker.create(topic)
