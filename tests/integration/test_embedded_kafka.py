"""The real broker: what it has acknowledged outlives SIGKILL, and its address stays."""

import os
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from paperlog.up.kafka import EmbeddedKafka, _cluster_id, embedded_kafka

pytestmark = pytest.mark.kafka


async def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def read_all(bootstrap: str, topic: str) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while await consumer.position(partition) < end:
            values += [
                record.value
                for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, [])
            ]
        return values


async def make_topic(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_what_was_acknowledged_outlives_sigkill_of_the_broker_on_the_same_address(tmp_path: Path):
    values = [b"%d" % number for number in range(200)]
    with embedded_kafka(tmp_path) as kafka:
        bootstrap, pid = kafka.bootstrap, kafka.pid
        await make_topic(bootstrap, "kept")
        await produce(bootstrap, "kept", values)
        kafka.kill()
        assert not kafka.is_ready()
        kafka.start()
        assert (kafka.bootstrap, kafka.pid != pid) == (bootstrap, True)
        assert await read_all(bootstrap, "kept") == values
    with pytest.raises(ProcessLookupError):
        os.kill(kafka.pid, 0)
    with embedded_kafka(tmp_path) as again:
        assert await read_all(again.bootstrap, "kept") == values


async def test_a_message_of_a_mebibyte_and_more_goes_through(kafka: EmbeddedKafka, kafka_prefix: str):
    topic = f"{kafka_prefix}-large"
    await make_topic(kafka.bootstrap, topic)
    large = os.urandom(3_000_000)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=4_000_000) as producer:
        await producer.send_and_wait(topic, large)
    assert await read_all(kafka.bootstrap, topic) == [large]


async def test_a_topic_that_nobody_made_is_not_made_by_asking_for_it(kafka: EmbeddedKafka, kafka_prefix: str):
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap) as consumer:
        await consumer.topics()
        assert f"{kafka_prefix}-unknown" not in await consumer.topics()
        assert consumer.partitions_for_topic(f"{kafka_prefix}-unknown") is None
        assert f"{kafka_prefix}-unknown" not in await consumer.topics()


async def test_the_index_files_of_a_partition_are_small(tmp_path: Path):
    """The first touch of one may read it whole (docs/decisions/0016); Kafka's own choice is ten times this."""
    with embedded_kafka(tmp_path) as kafka:
        await make_topic(kafka.bootstrap, "indexed")
        await produce(kafka.bootstrap, "indexed", [b"x"])
        sizes = _index_sizes(tmp_path)
    assert len(sizes) >= 2
    assert max(sizes) <= 1024 * 1024


def _index_sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("indexed-0/*index")]


def test_a_cluster_id_is_never_taken_for_an_option():
    assert not [
        each for each in (_cluster_id() for _ in range(2000)) if each.startswith("-") or len(each) != 22
    ]
