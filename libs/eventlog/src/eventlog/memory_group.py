"""Consumer groups of the log in memory: who has which partition, and how they change hands.

As in Kafka with eager assignment: every join or loss revokes everything, waits for all members, and assigns anew.
A member that was killed, or that is stopped, is missed after the session time-out only; one that comes back under its
instance name before that takes its partitions again without a rebalance. What the group does runs in a context of its
own, and what a member is called for in that of its process: a simulation may stop either without the other.
"""

import asyncio
import contextvars
from collections.abc import Coroutine
from dataclasses import dataclass, field

from eventlog.log import Assigned, TopicPartition
from eventlog.memory_broker import MemoryBroker

SESSION_TIMEOUT_S = 10.0
LOOKED_AT_S = 0.1


@dataclass(slots=True, eq=False)
class Member:
    instance: str
    assigned: Assigned
    revoked: Assigned
    partitions: frozenset[TopicPartition] = frozenset()
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    paused: set[TopicPartition] = field(default_factory=set)
    failure: Exception | None = None
    is_moving: bool = True
    is_dead: bool = False
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class Group:
    def __init__(self, broker: MemoryBroker, name: str, *topics: str) -> None:
        self._broker = broker
        self._name = name
        self._topics = topics
        self._members: list[Member] = []
        self._is_due = False
        self._task: asyncio.Task[None] | None = None
        self._rejoining: asyncio.Task[None] | None = None

    def join(self, member: Member) -> None:
        for number, former in enumerate(self._members):
            if member.instance and former.instance == member.instance:
                former.is_dead = True
                self._members[number] = member
                if not former.is_moving:
                    self._run(self._hand_over(former, member))
                    return
                break
        else:
            self._members.append(member)
        self._rebalance_soon()

    def leave(self, member: Member) -> None:
        member.is_dead = True
        if member in self._members and not member.instance:
            self._members.remove(member)
            self._rebalance_soon()
        elif member in self._members:
            self._miss_later(member)

    def kill(self, member: Member) -> None:
        member.is_dead = True
        self._miss_later(member)

    def expel(self, member: Member) -> None:
        """A process that is alive and was not heard of for the session time-out; `rejoin` when it finds out."""
        member.partitions = frozenset()
        self._miss(member)

    def rejoin(self, member: Member) -> None:
        """What it held is revoked first, for it may still be at work on it."""
        member.is_moving = True

        async def revoked_then_joined() -> None:
            await self._call(member, member.revoked)
            if not member.is_dead:
                self.join(member)

        context = contextvars.Context()
        self._rejoining = asyncio.get_running_loop().create_task(revoked_then_joined(), context=context)

    def _miss_later(self, member: Member) -> None:
        loop, own = asyncio.get_running_loop(), contextvars.Context()
        loop.call_later(SESSION_TIMEOUT_S, self._miss, member, context=own)

    def _miss(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)
            self._rebalance_soon()

    def _rebalance_soon(self) -> None:
        self._is_due = True
        if self._task is None or self._task.done():
            self._run(self._rebalance())

    def _run(self, step: Coroutine[None, None, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(step, context=contextvars.Context())

    async def _rebalance(self) -> None:
        while self._is_due:
            self._is_due = False
            members = [one for one in self._members if not one.is_dead]
            for member in members:
                member.is_moving = True
            await asyncio.gather(*(self._call(one, one.revoked) for one in members if one.partitions))
            # A dead member that nobody missed yet keeps its share: its partitions stand still, as in Kafka.
            partitions = [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in range(len(self._broker.topic(topic)))
            ]
            for number, member in enumerate(self._members):
                self._give(member, frozenset(partitions[number :: len(self._members)]))
            living = [one for one in self._members if not one.is_dead]
            await asyncio.gather(*(self._call(one, one.assigned) for one in living))
            for member in living:
                member.is_moving = False
            self._broker.wake()

    async def _hand_over(self, former: Member, member: Member) -> None:
        self._give(member, former.partitions)
        await self._call(member, member.assigned)
        member.is_moving = False
        self._broker.wake()
        await self._rebalance()  # where one became due meanwhile

    def _give(self, member: Member, partitions: frozenset[TopicPartition]) -> None:
        committed = self._broker.committed.setdefault(self._name, {})
        member.partitions = partitions
        member.paused.clear()
        member.positions = {}
        for at in sorted(partitions, key=lambda one: (one.topic, one.partition)):
            begin = self._broker.partition(at.topic, at.partition).begin
            member.positions[at] = max(begin, committed.get(at, begin))

    async def _call(self, member: Member, callback: Assigned) -> None:
        """Returns when it is done, or when its process is gone: nobody waits for the dead."""
        is_member = member in self._members
        call = asyncio.get_running_loop().create_task(self._guarded(member, callback), context=member.context)
        while not (call.done() or member.is_dead or (is_member and member not in self._members)):
            await asyncio.wait([call], timeout=LOOKED_AT_S)

    async def _guarded(self, member: Member, callback: Assigned) -> None:
        try:
            await callback(member.partitions)
        except Exception as error:  # noqa: BLE001 - kept for poll, which raises it
            member.failure = error
