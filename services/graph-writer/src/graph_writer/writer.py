"""The writer's life between an assignment and the next: where it goes on, what it does with a batch, how it stops.

It holds the others together and decides nothing about content: `apply` writes, `publish` says.
"""

import asyncio
from collections.abc import Mapping, Sequence

from eventlog.clock import Clock
from eventlog.events import StoreOpened, StorePosition
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from graph_writer.apply import Applier
from graph_writer.consumer import Crash, Reading
from graph_writer.core import ReadTo
from graph_writer.dead_letters import DeadLetters
from graph_writer.health import Health
from graph_writer.opened import TOPICS, OpenedStore
from graph_writer.patience import Patience
from graph_writer.projects import Projects
from graph_writer.publish import Publisher
from graph_writer.sender import Sender

_log = Logger("graph_writer.writer")
_WATCH_S = 0.2
STOP_S_MAX = 5.0


class Writer:
    reading: Reading

    def __init__(
        self,
        *,
        applier: Applier,
        publisher: Publisher,
        opened: OpenedStore,
        dead_letters: DeadLetters,
        patience: Patience,
        projects: Projects,
        sender: Sender,
        log: Log,
        clock: Clock,
        health: Health,
        crash: Crash,
    ) -> None:
        self._applier = applier
        self._publisher = publisher
        self._opened = opened
        self._dead_letters = dead_letters
        self._patience = patience
        self._projects = projects
        self._sender = sender
        self._kafka = log
        self._clock = clock
        self._health = health
        self._crash = crash
        self._ends: dict[TopicPartition, int] = {}
        self._is_stopping = False
        self._batch = asyncio.Lock()
        self._epoch = 0
        self.chunks_count = 0
        self.batches_count = 0

    async def assigned(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to read on, said in the log before anything is read."""
        self._epoch += 1
        # No cycle may be under way: it would move positions past what this assignment reads again.
        async with self._batch, self._publisher.silenced():
            await self._forget_foreign(partitions)
            lowest = await self._patience.wait_out(lambda: self._opened.read_positions(partitions))
            # What is open answers also when its folder is gone, and must not be said to be there.
            await self._patience.wait_out(self._opened.store.check)
            starts = await self._inside_log(lowest)
            positions = tuple(
                StorePosition(collection=name, topic=at.topic, partition=at.partition, offset=read_to.offset)
                for name, found in self._opened.positions.items()
                for at, read_to in sorted(found.items(), key=lambda one: (one[0].topic, one[0].partition))
            )
            opened = StoreOpened(occurred_at=self._clock.now(), store_id=self._opened.id, positions=positions)
            await self._sender.say([(opened, "")])
            self._ends = {
                TopicPartition(topic, partition): end
                for topic in TOPICS
                for partition, end in (await self._kafka.ends(topic)).items()
                if TopicPartition(topic, partition) in partitions
            }
            self._health.add("catching_up")
            self._epoch += 1
        _log.info(
            "store.opened",
            store_id=self._opened.id,
            partitions=len(partitions),
            behind_count=sum(max(0, self._ends[at] - starts[at]) for at in starts),
        )
        return starts

    async def _forget_foreign(self, partitions: frozenset[TopicPartition]) -> None:
        """Where another store went on meanwhile, this one was brought back from a copy: what it has settled is
        forgotten since the other was opened, and must be said again, what stands before its positions too.
        """
        last = await self._projects.stores()
        foreign = [at for at in partitions if last.get(at, self._opened.id) != self._opened.id]
        if foreign:
            await self._patience.wait_out(lambda: self._opened.forget_positions(foreign))

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when the batch is in the store; it is said later, by the publisher."""
        epoch = self._epoch
        await self._dead_letters.wait_until_allowed()
        async with self._batch:
            if epoch != self._epoch:
                return  # left over from before a new assignment; it comes again
            if self._is_stopping:
                await asyncio.Event().wait()  # the process ends without acknowledging this batch
            applied = await self._patience.wait_out(lambda: self._applier.apply(records))
            self.chunks_count += len(applied.settlements)
            self.batches_count += 1
            await self._publisher.add(applied)

    def crashed(self, error: BaseException) -> None:
        if not self._is_stopping:
            _log.exception("writer.failed", error)
            self._crash(error)

    async def watch(self) -> None:
        """Tells when the store has caught up with the log's end as it was at the assignment; ends a stuck process."""
        while not self._is_stopping:
            await asyncio.sleep(_WATCH_S)
            ends = self._ends
            # A new assignment in between has ends of its own.
            if ends and await self._has_caught_up(ends) and ends is self._ends:
                self._ends = {}
                self._health.remove("catching_up")
                _log.info("store.caught_up")
            if self.reading.is_stuck():
                raise TimeoutError("the consumer was not asked for records for too long")

    async def stop(self) -> None:
        """Lets the batch in hand end, says what the store holds, leaves the group."""
        try:
            await asyncio.wait_for(self._batch.acquire(), timeout=STOP_S_MAX)
            self._is_stopping = True
            await asyncio.wait_for(self._publisher.cycle(), timeout=STOP_S_MAX)
        except TimeoutError:
            self._is_stopping = True
            _log.warning("process.stopped_late")
        try:
            await self.reading.leave()
        except Exception as error:  # noqa: BLE001 - the group finds out by itself
            _log.warning("group.not_left", error=error)

    async def lag_count(self) -> int:
        """Records between what is written and the end of the log, of the partitions read here."""
        ends = {topic: await self._kafka.ends(topic) for topic in TOPICS}
        done = self.reading.next_offsets
        return sum(max(0, ends[at.topic][at.partition] - offset) for at, offset in done.items())

    async def _inside_log(self, lowest: Mapping[TopicPartition, ReadTo]) -> dict[TopicPartition, int]:
        """Retention may have taken what a store has not read: then it goes on from where the log starts."""
        begins = {topic: await self._kafka.begins(topic) for topic in TOPICS}
        starts: dict[TopicPartition, int] = {}
        for at, read_to in lowest.items():
            begin = begins[at.topic][at.partition]
            if read_to.offset < begin:
                _log.error(
                    "history.gone",
                    topic=at.topic,
                    partition=at.partition,
                    position=read_to.offset,
                    begin=begin,
                )
            starts[at] = max(read_to.offset, begin)
        return starts

    async def _has_caught_up(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Kafka's client has passed the end, end marks of transactions included, and what it gave out is done."""
        done = dict(self.reading.next_offsets)
        behind = [at for at, end in ends.items() if done.get(at, 0) < end]
        if behind:
            passed = await self.reading.passed()
            for at in behind:
                position, given_out = passed.get(at, (0, 0))
                if position < ends[at] or done.get(at, 0) < given_out:
                    return False
        return not self.reading.is_busy
