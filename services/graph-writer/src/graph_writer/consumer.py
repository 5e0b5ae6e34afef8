"""Faust, crash-only: a group's partitions, read from where the store says, five records at a time.

Faust's own retries and graceful stops lose records (docs/decisions): so values stay raw, offsets are the store's,
nothing is acknowledged to Faust, and any failure ends the process from inside the batch. Committed offsets only show
lag. What it costs to carry a message would be a quarter of our time: so up to five records of a partition are one
message to Faust, and its client of Kafka runs in our loop and not in a thread. This module knows Faust and Kafka's
client; what is done with a batch it does not know.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import NoOffsetForPartitionError
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.utils.futures import maybe_async

from eventlog.kafka import POLL_INTERVAL_MS, SESSION_TIMEOUT_MS, connection, consumer_options
from eventlog.kafka_client import stopped, to_record
from eventlog.log import Record, TopicPartition
from eventlog.logs import Logger
from eventlog.settings import ServiceSettings
from eventlog.topics import IMPORTS, Names, topic_table

BATCH = 5
QUEUED_BATCHES_MAX = 16
"""Read and not yet in hand; then the next are not asked for."""
COMMIT_S = 0.5
POLL_S_MAX = 120.0
LEAVE_S_MAX = 3.0

Assigned = Callable[[frozenset[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
Handle = Callable[[Sequence[Record]], Awaitable[None]]
Crash = Callable[[BaseException], None]

_log = Logger("graph_writer.consumer")


def _reading(app: Any) -> "Reading":
    reading: Reading = app.reading
    return reading


@dataclass(frozen=True, slots=True)
class _Batch:
    """Up to five records of one partition, in order, as Kafka's client hands them out; to Faust they are one message."""

    records: Sequence[Any]

    @property
    def offset(self) -> int:
        return int(self.records[-1].offset)


class _Client(driver.AIOKafkaConsumerThread):
    """Faust's client of Kafka. Its own runs in a thread, which is no help: the store holds Python's lock when it works."""

    async def start(self) -> None:
        self._thread_started.set()
        await self._default_start()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.last_poll_s = time.monotonic()
        self._given_out: dict[Any, int] = {}
        self._committed: dict[TP, int] = {}

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:  # noqa: ARG002 - Faust's signature
        reading = _reading(self.app)
        return AIOKafkaConsumer(
            **connection(reading.settings),
            **consumer_options(reading.partitions_count),
            group_id=reading.group,
            group_instance_id=reading.instance or None,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            max_poll_records=50,
            fetch_min_bytes=64 * 1024,  # or the broker is asked for every few records; it waits 0.1 s at most
            max_poll_interval_ms=POLL_INTERVAL_MS,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            rebalance_timeout_ms=60_000,
        )

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> Any:
        try:
            records = await super()._fetch_records(*args, **kwargs)
        except NoOffsetForPartitionError:
            # The call was under way in a rebalance; where to read on is said after it, whatever was committed.
            records = {}
        self.last_poll_s = time.monotonic()
        for tp, found in records.items():
            if found:
                self._given_out[tp] = found[-1].offset + 1
        return {
            tp: [_Batch(found[at : at + BATCH]) for at in range(0, len(found), BATCH)]
            for tp, found in records.items()
        }

    async def _commit(self, offsets: Any) -> bool:
        # They only show lag; an outage of the broker must not end the process over them.
        assigned = self.assignment()
        news = {
            tp: offset
            for tp, offset in offsets.items()
            if tp in assigned and self._committed.get(tp) != offset
        }
        if not news:
            return False
        try:
            await self._ensure_consumer().commit(
                {driver.ensure_aiokafka_TP(tp): offset for tp, offset in news.items()}
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing depends on it
            _log.warning("offsets.not_committed", error=error)
            return False
        self._committed.update(news)
        return True

    async def passed(self) -> dict[Any, tuple[int, int]]:
        consumer = self._ensure_consumer()
        found = {tp: await consumer.position(tp) for tp in consumer.assignment()}
        return {tp: (position, self._given_out.get(tp, 0)) for tp, position in found.items()}

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Our own watchdog looks after polls; Faust's takes a batch that waits for the store for a hang."""


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _Client:
        return _Client(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset,
            timestamp=0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=record,
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002 - Faust's signature
        """What is done and not what Faust was told of, every `COMMIT_S`; never from inside a batch."""
        reading = _reading(self.app)
        return not reading.is_busy and await self._thread.commit(reading.done())

    def on_buffer_full(self, tp: TP) -> None:
        """A full queue makes the reading wait, which is enough; Faust would sleep for a second besides."""

    def on_buffer_drop(self, tp: TP) -> None:
        """As above."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Faust asks after every assignment where to read on: where the store says, whatever was committed."""
        positions = await _reading(self.app).positions(self.assignment())
        await self._thread.seek_wait(positions)
        return positions


class _Producer(driver.Producer):
    """Faust wants one; nothing is sent by it."""

    def _new_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:  # noqa: ARG002 - Faust's signature
        return AIOKafkaProducer(**connection(_reading(self.app).settings))


class _Transport(driver.Transport):
    Consumer = _Consumer
    Producer = _Producer


class _Tables(TableManager):
    async def on_start(self) -> None:
        """As Faust's, without the second that it waits for tables to be declared: there are none."""
        await self._update_channels()
        await self.recovery.start()


class _App(faust.App):
    reading: "Reading"

    def _crash(self, reason: BaseException) -> None:
        self.reading.crash(reason)
        super()._crash(reason)


class Reading:
    """One member of the group, started once and never stopped gracefully: the process ends."""

    def __init__(
        self,
        *,
        settings: ServiceSettings,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Assigned,
        handle: Handle,
        crash: Crash,
    ) -> None:
        self.settings = settings
        self._names = Names(settings.prefix)
        self.group = self._names.of(group)
        self.instance = instance
        self._logical = {self._names.of(topic): topic for topic in topics}
        self._assigned = assigned
        self._handle = handle
        self.crash = crash
        self._next: dict[TopicPartition, int] = {}
        self._generation = -1
        self._is_busy = False
        self._app = self._build()

    @property
    def partitions_count(self) -> int:
        """That this member may have at most."""
        table = topic_table()
        return sum(table[topic].partitions for topic in self._logical.values())

    @property
    def next_offsets(self) -> Mapping[TopicPartition, int]:
        """Where each assigned partition goes on after what was handed out and done."""
        return self._next

    def done(self) -> dict[TP, int]:
        """As above, by the names that Kafka knows; nothing before the first assignment."""
        return {TP(self._names.of(at.topic), at.partition): offset for at, offset in self._next.items()}

    async def start(self) -> None:
        await self._app.start()

    @property
    def is_busy(self) -> bool:
        return self._is_busy

    async def passed(self) -> dict[TopicPartition, tuple[int, int]]:
        """Up to where Kafka's client is, end marks of transactions included, and behind which record it last gave out."""
        thread = self._thread
        found = await thread.call_thread(thread.passed)
        return {self._logical_tp(tp): where for tp, where in found.items()}

    def is_stuck(self) -> bool:
        """Whether Kafka's client has not been asked for long although no batch is in hand."""
        thread = self._thread
        if not self._next or self._is_busy:
            thread.last_poll_s = time.monotonic()
        return time.monotonic() - thread.last_poll_s > POLL_S_MAX

    async def leave(self) -> None:
        """Tells the group that this member is gone, so that the others need not wait for its session to end."""
        logging.getLogger("faust").setLevel(logging.CRITICAL)  # it calls the end of its client a crash
        thread = self._thread
        await asyncio.wait_for(thread.call_thread(stopped, thread._ensure_consumer()), timeout=LEAVE_S_MAX)  # noqa: SLF001 - as above

    async def positions(self, partitions: AbstractSet[TP]) -> dict[TP, int]:
        logical = {self._logical_tp(tp): tp for tp in partitions}
        starts = await self._assigned(frozenset(logical))
        self._next = dict(starts)
        self._generation = self._app.consumer_generation_id
        return {logical[at]: offset for at, offset in starts.items()}

    @property
    def _thread(self) -> _Client:
        consumer: Any = self._app.consumer
        thread: _Client = consumer._thread  # noqa: SLF001 - nothing public tells what it knows
        return thread

    def _logical_tp(self, tp: Any) -> TopicPartition:
        return TopicPartition(self._logical[tp.topic], tp.partition)

    def _build(self) -> _App:
        # Faust makes a folder though it keeps nothing in it: where it is told, not where the process was started.
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        app = _App(
            self.group,
            broker="kafka://" + self.settings.kafka_bootstrap_servers.replace(",", ";"),
            loop=asyncio.get_running_loop(),
            store="memory://",
            datadir=str(self.settings.data_dir),
            agent_supervisor="mode.CrashingSupervisor",
            value_serializer="raw",
            key_serializer="raw",
            stream_buffer_maxsize=QUEUED_BATCHES_MAX,
            broker_commit_interval=COMMIT_S,
            table_standby_replicas=0,
            TableManager=_Tables,
            topic_disable_leader=True,
            topic_allow_declare=False,
            web_enabled=False,
            debug=False,
        )
        app.reading = self
        app.transport = _Transport(app.conf.broker_consumer, app)
        app.producer_transport = _Transport(app.conf.broker_producer, app)
        topic = app.topic(
            *self._logical, value_serializer="raw", key_serializer="raw", allow_empty=True, acks=False
        )

        @app.agent(topic, name="write", concurrency=1)
        async def write(stream: Any) -> None:
            async for event in stream.events():
                await self._take(event.message)

        return app

    async def _take(self, message: ConsumerMessage) -> None:
        """Whatever goes wrong here ends the process: returning or raising would go on behind what is not done."""
        try:
            self._is_busy = True
            records = self._expected(message)
            if records:
                await self._handle(records)
            self._is_busy = False
        except BaseException as error:  # noqa: BLE001 - CancelledError too: nothing behind this batch may be read
            self.crash(error)
            await asyncio.Event().wait()  # the crash may leave the end of the process to somebody else

    def _expected(self, message: ConsumerMessage) -> list[Record]:
        """Without what is left over from before a new assignment; a hole in `embeddings` ends the process."""
        at = self._logical_tp(message)
        expected = self._next.get(at)
        if expected is None or message.generation_id != self._generation:
            return []
        batch: Any = message.value  # a `_Batch`, where Faust would have bytes
        records: list[Record] = []
        for record in (to_record(one, self._names) for one in batch.records):
            if record.offset < expected:
                continue
            if record.offset > expected and not _may_have_holes(at):
                raise LookupError(f"{at} goes on at {record.offset}, not at {expected}")
            expected = self._next[at] = record.offset + 1
            records.append(record)
        return records


def _may_have_holes(at: TopicPartition) -> bool:
    return at.topic == IMPORTS  # written in transactions, whose end marks take offsets
