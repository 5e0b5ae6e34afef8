"""The log on Apache Kafka, by aiokafka. Every setting that differs from its defaults says why (docs/decisions/0003).

This module maps; it decides nothing: vendor errors become the three families, offsets stay Kafka's.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    ProducerFenced,
    RecordTooLargeError,
    TopicAlreadyExistsError,
)

from eventlog.errors import Fenced, RecordGone, TransientFailure, UnprocessableRecord
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
from eventlog.settings import ServiceSettings
from eventlog.topics import RECORD_BYTES_MAX, Names, Topic

SESSION_TIMEOUT_MS = 10_000
"""A process that died without a word is replaced after this; shorter ones take a pause for a death."""

_FETCH: dict[str, Any] = {
    "isolation_level": "read_committed",
    "auto_offset_reset": "none",  # a position outside the log is never silently another one
    "enable_auto_commit": False,
    "fetch_max_bytes": 2 * 1024 * 1024,  # what one process prefetches (P5); aiokafka's own is 50 MB
    "max_partition_fetch_bytes": 256 * 1024,
    "fetch_max_wait_ms": 100,
    "retry_backoff_ms": 100,
    "metadata_max_age_ms": 30_000,
}
_LOOKUP_PARTITIONS_MAX = 64
_LOOKUP_RECORDS = 32


def connection(settings: ServiceSettings) -> dict[str, Any]:
    """The arguments by which any aiokafka client reaches the brokers."""
    out: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": 15_000,
    }
    if "SSL" in settings.kafka_security_protocol.replace("SASL", ""):
        cafile = settings.kafka_ssl_cafile
        out["ssl_context"] = ssl.create_default_context(cafile=str(cafile) if cafile else None)
    if settings.kafka_security_protocol.startswith("SASL"):
        out["sasl_mechanism"] = settings.kafka_sasl_mechanism
        out["sasl_plain_username"] = settings.kafka_sasl_username
        out["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return out


def consumer_options() -> dict[str, Any]:
    """How every consumer here reads; Faust's consumer is built with the same."""
    return dict(_FETCH)


def to_record(message: Any) -> Record:
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=tuple(message.headers),
        timestamp_ms=message.timestamp,
    )


class _Ack:
    """The acknowledgement of one record; awaiting it maps the vendor's errors."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, Position]:
        try:
            meta = yield from self._future.__await__()
        except KafkaError as error:
            raise _mapped(error) from None
        return Position(meta.topic, meta.partition, meta.offset)


def _mapped(error: Exception) -> Exception:
    if isinstance(error, MessageSizeTooLargeError | RecordTooLargeError):
        return UnprocessableRecord("record_too_large", f"over {RECORD_BYTES_MAX} bytes")
    if isinstance(error, ProducerFenced | InvalidProducerEpoch):
        return Fenced(type(error).__name__)
    return TransientFailure(f"{type(error).__name__}: {error}")


class KafkaWriter:
    def __init__(self, producer: AIOKafkaProducer, names: Names) -> None:
        self._producer = producer
        self._names = names

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        try:
            future = await self._producer.send(
                self._names.of(record.topic),
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
        except KafkaError as error:
            raise _mapped(error) from None
        return _Ack(future)

    async def close(self) -> None:
        await self._producer.stop()


class KafkaDecider:
    def __init__(self, producer: AIOKafkaProducer, names: Names) -> None:
        self._writer = KafkaWriter(producer, names)
        self._producer = producer

    async def commit(self, records: Sequence[NewRecord]) -> list[Position]:
        # 1. begin  2. send all  3. await every acknowledgement: commit_transaction() succeeds although a record
        # failed whose future nobody awaited  4. commit. Whatever fails leaves this decider to be thrown away.
        try:
            await self._producer.begin_transaction()
            acks = [await self._writer.send(record) for record in records]
            positions = [await ack for ack in acks]
            await self._producer.commit_transaction()
        except KafkaError as error:
            raise _mapped(error) from None
        return positions

    async def close(self) -> None:
        # A fenced or broken producer cannot say goodbye; its transaction is aborted by the next one's opening.
        try:
            await self._producer.stop()
        except KafkaError:
            await self._producer.client.close()


class KafkaReader:
    def __init__(self, consumer: AIOKafkaConsumer, names: Names) -> None:
        self._consumer = consumer
        self._names = names

    async def poll(self, *, records_max: int, timeout_s: float) -> list[Record]:
        try:
            batches = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=records_max)
        except OffsetOutOfRangeError as error:
            partition, offset = next(iter(error.args[0].items()))
            raise RecordGone(partition.topic, partition.partition, offset) from None
        except KafkaError as error:
            raise _mapped(error) from None
        return [to_record(message) for batch in batches.values() for message in batch]

    async def position(self, partition: TopicPartition) -> int:
        return int(await self._consumer.position(self._kafka(partition)))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(self._kafka(partition), offset)

    def _kafka(self, partition: TopicPartition) -> KafkaTopicPartition:
        return KafkaTopicPartition(self._names.of(partition.topic), partition.partition)

    async def close(self) -> None:
        await self._consumer.stop()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's base is untyped
    """aiokafka swallows what its callbacks raise, so the reader keeps it and raises it from the next poll."""

    def __init__(self, reader: "KafkaGroupReader", assigned: Assigned, revoked: Assigned) -> None:
        self._reader = reader
        self._assigned = assigned
        self._revoked = revoked

    async def on_partitions_revoked(self, revoked: Any) -> None:
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
        try:
            batches = await self._consumer.getmany(
                *(self._kafka(one) for one in partitions),
                timeout_ms=int(timeout_s * 1000),
                max_records=records_max,
            )
        except OffsetOutOfRangeError as error:
            partition, offset = next(iter(error.args[0].items()))
            raise RecordGone(partition.topic, partition.partition, offset) from None
        except KafkaError as error:
            raise _mapped(error) from None
        return [to_record(message) for batch in batches.values() for message in batch]

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        try:
            await self._consumer.commit({self._kafka(one): offset for one, offset in offsets.items()})
        except KafkaError as error:
            raise _mapped(error) from None

    async def committed(self, partition: TopicPartition) -> int | None:
        try:
            offset = await self._consumer.committed(self._kafka(partition))
        except KafkaError as error:
            raise _mapped(error) from None
        return None if offset is None else int(offset)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(self.topic, one.partition) for one in self._consumer.assignment())

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(self._kafka(partition), offset)

    def pause(self, *partitions: TopicPartition) -> None:
        self._consumer.pause(*(self._kafka(one) for one in partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        self._consumer.resume(*(self._kafka(one) for one in partitions))

    def _kafka(self, partition: TopicPartition) -> KafkaTopicPartition:
        return KafkaTopicPartition(self._names.of(partition.topic), partition.partition)

    async def close(self) -> None:
        await self._consumer.stop()


class KafkaLog:
    """One per process. `await open_kafka(settings)` makes it and the topics; close it last."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.names = Names(settings.prefix)
        self._settings = settings
        self._connection = connection(settings)
        self._lookup: AIOKafkaConsumer | None = None
        self._lookup_lock = asyncio.Lock()
        self._seen: OrderedDict[tuple[str, int], dict[int, Record]] = OrderedDict()

    async def writer(self) -> Writer:
        return KafkaWriter(await self._started(self._producer()), self.names)

    async def decider(self, transactional_id: str) -> Decider:
        producer = self._producer(
            transactional_id=self.names.of(transactional_id),
            transaction_timeout_ms=10_000,  # an open transaction holds up every reader of `imports`
        )
        return KafkaDecider(await self._started(producer), self.names)

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        consumer = await self._started(AIOKafkaConsumer(**self._connection, **_FETCH))
        partitions = {
            KafkaTopicPartition(self.names.of(one.topic), one.partition): at for one, at in starts.items()
        }
        consumer.assign(list(partitions))
        for partition, offset in partitions.items():
            consumer.seek(partition, offset)
        return KafkaReader(consumer, self.names)

    async def group(self, group: str, topic: str, *, assigned: Assigned, revoked: Assigned) -> GroupReader:
        instance = self._settings.instance
        options = {**_FETCH, "auto_offset_reset": "earliest"}  # a new group begins at the beginning
        consumer = AIOKafkaConsumer(
            **self._connection,
            **options,
            group_id=self.names.of(group),
            group_instance_id=f"{group}-{instance}" if instance else None,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            rebalance_timeout_ms=60_000,
            max_poll_interval_ms=300_000,
        )
        reader = KafkaGroupReader(consumer, self.names, topic)
        consumer.subscribe([self.names.of(topic)], listener=_Listener(reader, assigned, revoked))
        await self._started(consumer)
        return reader

    async def read_at(self, topic: str, partition: int, offset: int) -> Record:
        """About 1,500 scattered reads a second; neighbours of the last read of a partition cost nothing."""
        name = self.names.of(topic)
        async with self._lookup_lock:
            seen = self._seen.get((name, partition), {})
            if offset not in seen:
                seen = await self._look_up(name, partition, offset)
                self._seen[name, partition] = seen
                self._seen.move_to_end((name, partition))
                if len(self._seen) > _LOOKUP_PARTITIONS_MAX:
                    self._seen.popitem(last=False)
        if offset not in seen:
            raise RecordGone(topic, partition, offset)
        return seen[offset]

    async def _look_up(self, name: str, partition: int, offset: int) -> dict[int, Record]:
        if self._lookup is None:
            options = {**_FETCH, "max_partition_fetch_bytes": 64 * 1024, "fetch_max_bytes": 64 * 1024}
            self._lookup = await self._started(AIOKafkaConsumer(**self._connection, **options))
        at = KafkaTopicPartition(name, partition)
        try:
            ends = await self._lookup.end_offsets([at])
            if not 0 <= offset < ends[at]:
                return {}  # behind the end a consumer would wait for a record that may come one day
            self._lookup.assign([at])
            self._lookup.seek(at, offset)
            batch = await self._lookup.getmany(at, timeout_ms=10_000, max_records=_LOOKUP_RECORDS)
        except OffsetOutOfRangeError:
            return {}
        except KafkaError as error:
            raise _mapped(error) from None
        finally:
            self._lookup.unsubscribe()
        return {message.offset: to_record(message) for message in batch.get(at, [])}

    async def partitions(self, topic: str) -> int:
        return len(await self.begins(topic))

    async def begins(self, topic: str) -> dict[int, int]:
        return await self._offsets(topic, "beginning_offsets")

    async def ends(self, topic: str) -> dict[int, int]:
        return await self._offsets(topic, "end_offsets")

    async def _offsets(self, topic: str, which: str) -> dict[int, int]:
        consumer = await self._started(AIOKafkaConsumer(**self._connection, **_FETCH))
        name = self.names.of(topic)
        try:
            numbers = await self._partition_numbers(consumer, name)
            offsets = await getattr(consumer, which)([KafkaTopicPartition(name, one) for one in numbers])
        except KafkaError as error:
            raise _mapped(error) from None
        finally:
            await consumer.stop()
        return {at.partition: int(offset) for at, offset in offsets.items()}

    async def _partition_numbers(self, consumer: AIOKafkaConsumer, name: str) -> list[int]:
        await consumer._client.fetch_all_metadata()  # noqa: SLF001 - partitions_for_topic() answers from a cache only
        numbers = consumer.partitions_for_topic(name)
        if not numbers:
            raise TransientFailure(f"topic {name} is not there")
        return sorted(numbers)

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        """Makes what is missing, with explicit settings. Raises ValueError where a partition count differs."""
        admin = await self._started(AIOKafkaAdminClient(**self._connection))
        try:
            for topic in topics:
                new = NewTopic(self.names.of(topic.name), topic.partitions, -1, topic_configs=topic.config)
                await self._create(admin, new)
            found = await admin.describe_topics([self.names.of(topic.name) for topic in topics])
        except KafkaError as error:
            raise _mapped(error) from None
        finally:
            await admin.close()
        counts = {one["topic"]: len(one["partitions"]) for one in found}
        wrong = [
            f"{name} has {counts.get(name)} partitions, not {topic.partitions}"
            for topic in topics
            if counts.get(name := self.names.of(topic.name)) != topic.partitions
        ]
        if wrong:
            raise ValueError("; ".join(wrong))

    async def _create(self, admin: AIOKafkaAdminClient, new: NewTopic) -> None:
        response = await admin.create_topics([new])
        for _name, code, *message in response.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise TransientFailure(f"topic {new.name}: error {code} {message}")

    async def close(self) -> None:
        if self._lookup is not None:
            await self._lookup.stop()

    def _producer(self, **more: Any) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._connection,
            **more,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=5,
            max_batch_size=64 * 1024,
            max_request_size=RECORD_BYTES_MAX,
        )

    async def _started(self, client: Any) -> Any:
        try:
            await client.start()
        except KafkaError as error:
            stop = getattr(client, "stop", None) or client.close
            await stop()
            raise _mapped(error) from None
        return client
