"""The log on Apache Kafka, by aiokafka (docs/decisions/0003).

This module maps roles to clients; it decides nothing, and offsets stay Kafka's. While the broker is away, readers
hand out nothing and acknowledgements wait: aiokafka goes on by itself when it is back. What needs an answer now
(opening, commits, positions, single reads) raises TransientFailure after a bounded time.
"""

import asyncio
import time
from collections.abc import Awaitable, Generator, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest

from eventlog.errors import RecordGone, TransientFailure, UnprocessableRecord
from eventlog.kafka_client import (
    CONNECT_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    connection,
    consumer_options,
    introduced,
    started,
    stopped,
    to_record,
    translated,
)
from eventlog.kafka_lookup import Lookup
from eventlog.kafka_refused import why_refused
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
from eventlog.logs import Logger
from eventlog.settings import ServiceSettings
from eventlog.topics import BATCH_BYTES_MAX, RECORD_BYTES_MAX, Names, Topic

__all__ = [
    "POLL_INTERVAL_MS",
    "SESSION_TIMEOUT_MS",
    "KafkaLog",
    "connection",
    "consumer_options",
    "to_record",
]

SESSION_TIMEOUT_MS = 10_000
"""A process that died without a word is replaced after this; shorter ones take a pause for a death."""
REBALANCE_TIMEOUT_MS = 60_000
"""How long a member may drain what it has in hand before its partitions go to others."""
POLL_INTERVAL_MS = 24 * 60 * 60 * 1000
"""None: who waits for a provider, a store or an operator is not dead, and the heartbeat says so. In aiokafka a member
that was silent for too long is let in again only when it polls, which nobody does who waits to be elected; and one whose
leaving meets a rebalance has no coordination any more.
"""
TRANSACTION_TIMEOUT_MS = 10_000
"""An open transaction holds up every reader of its topic; the broker aborts it after this."""
COMMIT_TIMEOUT_S = 30.0
_SLICE_S = 0.02
"""Of the first look at what a poll has passed; each that follows is twice as long."""
_POLL_GRACE_S = 0.2
_RIGHTS = "docs/runbooks/kafka.md lists the rights that each service needs"
_NO_RIGHT = (TopicAuthorizationFailedError.errno, ClusterAuthorizationFailedError.errno)
_logger = Logger("eventlog.kafka")


class _NoRight(TransientFailure):
    """The brokers know who we are and do not let us; somebody may grant it."""


class _Ack:
    """The acknowledgement of one record; cancelling the wait for it does not unsend the record."""

    __slots__ = ("_future", "_names")

    def __init__(self, future: "asyncio.Future[Any]", names: Names) -> None:
        self._future = future
        self._names = names

    def __await__(self) -> Generator[Any, None, Position]:
        with translated(self._names):
            meta = yield from self._future.__await__()
        return Position(self._names.bare(meta.topic), meta.partition, meta.offset)


class KafkaWriter:
    def __init__(self, producer: AIOKafkaProducer, names: Names) -> None:
        self._producer = producer
        self._names = names
        self._is_closed = False

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        _check_size(record)
        if self._is_closed:  # aiokafka would wait for metadata that nobody fetches any more
            raise TransientFailure("closed")
        with translated(self._names):
            while True:
                try:
                    future = await self._producer.send(
                        self._names.of(record.topic),
                        value=record.value,
                        key=record.key,
                        partition=record.partition,
                        headers=list(record.headers),
                    )
                except KafkaTimeoutError:
                    continue  # the buffer is still full, so the broker is away: that is back-pressure, no failure
                return _Ack(future, self._names)

    async def close(self) -> None:
        """Waits a moment for what is under way; what is not acknowledged by then raises TransientFailure."""
        self._is_closed = True
        await stopped(self._producer)


class KafkaDecider:
    def __init__(self, producer: AIOKafkaProducer, names: Names) -> None:
        self._producer = producer
        self._writer = KafkaWriter(producer, names)
        self._names = names
        self._lock = asyncio.Lock()
        self._broken: Exception | None = None

    async def commit(self, records: Sequence[NewRecord]) -> list[Position]:
        # 1. begin  2. send all  3. await every acknowledgement: commit_transaction() succeeds although a record
        # failed whose future nobody awaited  4. commit. Whatever fails leaves this decider to be thrown away;
        # a record that is too large is refused before anything begins.
        if not records:
            return []
        for record in records:
            _check_size(record)
        async with self._lock:
            if self._broken is not None:
                raise self._broken
            self._broken = TransientFailure("a commit before this one did not end")
            try:
                with translated(self._names):
                    async with asyncio.timeout(COMMIT_TIMEOUT_S):
                        positions = await self._commit(records)
            except TransientFailure as error:
                self._broken = error
                raise
            self._broken = None
            return positions

    async def _commit(self, records: Sequence[NewRecord]) -> list[Position]:
        await self._producer.begin_transaction()
        acks = [await self._writer.send(record) for record in records]
        results = await asyncio.gather(*(_awaited(ack) for ack in acks), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._producer.commit_transaction()
        return [result for result in results if isinstance(result, Position)]

    async def close(self) -> None:
        """A transaction that is still open is aborted by the next decider's opening, or by its time-out."""
        await stopped(self._producer)


async def _awaited(ack: Awaitable[Position]) -> Position:
    return await ack


def _check_size(record: NewRecord) -> None:
    if record.size_bytes > RECORD_BYTES_MAX:
        raise UnprocessableRecord("record_too_large", f"{record.size_bytes} of {RECORD_BYTES_MAX} bytes")


class KafkaReader:
    def __init__(self, consumer: AIOKafkaConsumer, names: Names) -> None:
        self._consumer = consumer
        self._names = names

    async def poll(self, *, records_max: int, timeout_s: float) -> list[Record]:
        deadline_s, slice_s = time.monotonic() + timeout_s, _SLICE_S
        with translated(self._names):
            before = await self._positions()
            while True:
                left_s = max(0.0, deadline_s - time.monotonic())
                batches = await self._consumer.getmany(
                    timeout_ms=int(min(slice_s, left_s) * 1000), max_records=records_max
                )
                # aiokafka passes control records without a word, and whoever waits for the end would wait for more.
                if batches or left_s <= slice_s or await self._positions() != before:
                    return [
                        to_record(message, self._names) for batch in batches.values() for message in batch
                    ]
                slice_s *= 2

    async def _positions(self) -> list[int]:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return [await self._consumer.position(one) for one in self._consumer.assignment()]

    async def position(self, partition: TopicPartition) -> int:
        with translated(self._names):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return int(await self._consumer.position(_kafka(self._names, partition)))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(_kafka(self._names, partition), offset)

    async def close(self) -> None:
        await stopped(self._consumer)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's base is untyped
    """aiokafka swallows what its callbacks raise, so the reader keeps it and raises it from the next poll."""

    def __init__(self, reader: "KafkaGroupReader", assigned: Assigned, revoked: Assigned) -> None:
        self._reader = reader
        self._assigned = assigned
        self._revoked = revoked

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            await self._call(self._revoked, revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._call(self._assigned, assigned)

    async def _call(self, callback: Assigned, partitions: Any) -> None:
        topic = self._reader.topic
        try:
            await callback(frozenset(TopicPartition(topic, one.partition) for one in partitions))
        except Exception as error:  # noqa: BLE001 - kept for poll, which raises it
            self._reader.failure = error


class KafkaGroupReader:
    def __init__(self, consumer: AIOKafkaConsumer, names: Names, topic: str) -> None:
        self._consumer = consumer
        self._names = names
        self.topic = topic
        self.failure: Exception | None = None

    async def poll(self, *partitions: TopicPartition, records_max: int, timeout_s: float) -> list[Record]:
        if self.failure is not None:
            raise self.failure
        kafka = [_kafka(self._names, one) for one in partitions]
        with translated(self._names):
            try:
                # getmany() waits for the end of a rebalance, however long that takes: the outer limit is ours.
                async with asyncio.timeout(timeout_s + _POLL_GRACE_S):
                    batches = await self._consumer.getmany(
                        *kafka, timeout_ms=int(timeout_s * 1000), max_records=records_max
                    )
            except TimeoutError:
                return []
        return [to_record(message, self._names) for batch in batches.values() for message in batch]

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        with translated(self._names):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._consumer.commit(
                    {_kafka(self._names, one): offset for one, offset in offsets.items()}
                )

    async def committed(self, partition: TopicPartition) -> int | None:
        with translated(self._names):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                offset = await self._consumer.committed(_kafka(self._names, partition))
        return None if offset is None else int(offset)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(self.topic, one.partition) for one in self._consumer.assignment())

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(_kafka(self._names, partition), offset)

    def pause(self, *partitions: TopicPartition) -> None:
        self._consumer.pause(*(_kafka(self._names, one) for one in partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        self._consumer.resume(*(_kafka(self._names, one) for one in partitions))

    async def close(self) -> None:
        await stopped(self._consumer)


def _kafka(names: Names, partition: TopicPartition) -> KafkaTopicPartition:
    return KafkaTopicPartition(names.of(partition.topic), partition.partition)


class KafkaLog:
    """One per process; close it last."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.names = Names(settings.prefix)
        self._settings = settings
        self._connection = connection(settings)
        self._lookup = Lookup(self._connection, self.names)
        self._admin_lock = asyncio.Lock()
        self._admin: AIOKafkaAdminClient | None = None
        self._offsets_consumer: AIOKafkaConsumer | None = None

    async def writer(self) -> Writer:
        return KafkaWriter(await started(self._producer(), self.names), self.names)

    async def decider(self, transactional_id: str) -> Decider:
        producer = self._producer(
            transactional_id=self.names.of(transactional_id),
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        return KafkaDecider(await started(producer, self.names), self.names)

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        options = consumer_options(len(starts))
        consumer = await started(AIOKafkaConsumer(**self._connection, **options), self.names)
        partitions = {_kafka(self.names, one): at for one, at in starts.items()}
        consumer.assign(list(partitions))
        for partition, offset in partitions.items():
            consumer.seek(partition, offset)
        return KafkaReader(consumer, self.names)

    async def group(self, group: str, topic: str, *, assigned: Assigned, revoked: Assigned) -> GroupReader:
        instance = self._settings.instance
        options = {
            **consumer_options(await self.partitions(topic)),
            "auto_offset_reset": "earliest",
        }  # a new group begins at the beginning
        consumer = AIOKafkaConsumer(
            **self._connection,
            **options,
            group_id=self.names.of(group),
            group_instance_id=f"{group}-{instance}" if instance else None,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=POLL_INTERVAL_MS,
        )
        await started(consumer, self.names)
        reader = KafkaGroupReader(consumer, self.names, topic)
        # Joining begins here and goes on in the background, so the callbacks find the reader that we return.
        consumer.subscribe([self.names.of(topic)], listener=_Listener(reader, assigned, revoked))
        return reader

    async def read_at(self, topic: str, partition: int, offset: int) -> Record:
        record = await self._lookup.read(topic, partition, offset)
        if record is None:
            raise RecordGone(topic, partition, offset)
        return record

    async def partitions(self, topic: str) -> int:
        name = self.names.of(topic)
        with translated(self.names):
            count = (await self._partition_counts([name]))[name]
        if not count:
            raise TransientFailure(f"topic {name} is not there")
        return count

    async def begins(self, topic: str) -> dict[int, int]:
        return await self._offsets(topic, "beginning_offsets")

    async def ends(self, topic: str) -> dict[int, int]:
        return await self._offsets(topic, "end_offsets")

    async def _offsets(self, topic: str, which: str) -> dict[int, int]:
        count = await self.partitions(topic)
        async with self._admin_lock:
            if self._offsets_consumer is None:
                consumer = AIOKafkaConsumer(**self._connection, **consumer_options())
                self._offsets_consumer = await started(consumer, self.names)
        ask = getattr(self._offsets_consumer, which)
        with translated(self.names):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await introduced(self._offsets_consumer, self.names.of(topic))
                offsets = await ask([KafkaTopicPartition(self.names.of(topic), one) for one in range(count)])
        return {at.partition: int(offset) for at, offset in sorted(offsets.items())}

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        """Makes what is missing, with explicit settings; what is there stays as it is.

        Raises ValueError where a partition count differs, and TransientFailure that says why the brokers cannot be
        reached. Other settings that differ are said in the log.
        """
        wanted = {self.names.of(topic.name): topic for topic in topics}
        try:
            with translated(self.names):
                await self._make_missing(wanted)
                await self._say_differences(wanted)
        except _NoRight:
            raise
        except TransientFailure as error:
            why = await why_refused(self._connection)
            raise TransientFailure(why or str(error)) from None

    async def _make_missing(self, wanted: Mapping[str, Topic]) -> None:
        found = await self._partition_counts(wanted)
        missing = {name: topic for name, topic in wanted.items() if not found[name]}
        if missing:
            await self._create(missing)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not all(found.values()):  # a broker answers creation before it knows the new partitions
            if time.monotonic() > deadline:
                raise TransientFailure(f"topics were created but are not there: {', '.join(missing)}")
            await asyncio.sleep(0.05)
            found = await self._partition_counts(wanted)
        wrong = [
            f"topic {name} has {found[name]} partitions, not {topic.partitions}"
            for name, topic in wanted.items()
            if found[name] != topic.partitions
        ]
        if wrong:
            raise ValueError(
                f"{'; '.join(wrong)}. Keys stand in partitions by their number, so it cannot be changed: "
                "delete the topic if nothing in it is needed, or take another PAPERLOG_PREFIX"
            )

    async def _create(self, wanted: Mapping[str, Topic]) -> None:
        new = [
            # -1: as many replicas as the cluster's default; aiokafka takes it only with explicit (no) assignments
            NewTopic(name, topic.partitions, -1, {}, topic.config)
            for name, topic in wanted.items()
        ]
        admin = await self._started_admin()
        response = await admin.create_topics(new)
        for name, code, *message in response.topic_errors:
            if code in _NO_RIGHT:
                raise _NoRight(
                    f"topic {name} is not there (or may not be seen), and may not be made; {_RIGHTS}"
                )
            if code not in (0, TopicAlreadyExistsError.errno):  # another process was faster
                raise TransientFailure(f"topic {name}: error {code} {message}")

    async def _say_differences(self, wanted: Mapping[str, Topic]) -> None:
        admin = await self._started_admin()
        asked = [
            ConfigResource(ConfigResourceType.TOPIC, name, topic.config) for name, topic in wanted.items()
        ]
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            answers = await admin.describe_configs(asked)
        for code, _, _, name, entries in (one for answer in answers for one in answer.resources):
            if code:
                _logger.warning("topic.settings_not_seen", topic=name, code=code, why=_RIGHTS)
                continue
            topic, found = wanted[name], {setting: str(value) for setting, value, *_ in entries}
            for setting, cost in topic.differences(found).items():
                _logger.warning(
                    "topic.settings_differ",
                    topic=name,
                    setting=setting,
                    found=found[setting],
                    ours=topic.config[setting],
                    why=cost,
                    action="none was taken",
                )

    async def _partition_counts(self, names: Iterable[str]) -> dict[str, int]:
        """0 where a topic is not there; asking must not make it, as the admin client's own question would."""
        admin = await self._started_admin()
        request = MetadataRequest(list(names), allow_auto_topic_creation=False)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            answer = await admin._send_request(request)  # noqa: SLF001 - describe_topics cannot be told
        described = answer.to_object()["topics"]
        return {one["topic"]: len(one["partitions"]) for one in described}

    async def _started_admin(self) -> AIOKafkaAdminClient:
        async with self._admin_lock:
            if self._admin is None:
                self._admin = await started(AIOKafkaAdminClient(**self._connection), self.names)
            return self._admin

    async def close(self) -> None:
        clients = [one for one in (self._offsets_consumer, self._admin) if one is not None]
        await asyncio.gather(self._lookup.close(), *(stopped(one) for one in clients))
        self._offsets_consumer = self._admin = None

    def _producer(self, **more: Any) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._connection,
            **more,
            acks="all",
            enable_idempotence=True,
            compression_type=None,  # vectors do not shrink, and packing costs the broker too (docs/decisions/0002)
            linger_ms=5,
            max_batch_size=64 * 1024,
            max_request_size=BATCH_BYTES_MAX,
        )
