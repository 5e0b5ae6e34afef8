"""Independent Confluent clients read what we write: our record, Kafka, their consumer, their deserializer, our registry."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from fastapi import FastAPI
from tests.schemas.examples import examples

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import Message
from eventlog.kafka import KafkaLog
from eventlog.settings import ServiceSettings
from eventlog.topics import Names, topic_table
from ingest import registry

PREFIX = "wire"
DEADLINE_S = 60.0
NAMES = Names(PREFIX)
SCHEMAS = Schemas(schemas_dir())
TOPIC_OF = {event: topic.name for topic in topic_table().values() for event in topic.events}


@pytest.fixture(scope="module")
def registry_url() -> Iterator[str]:
    """Ingest's own routes, over HTTP, without the rest of ingest."""
    app = FastAPI()
    app.include_router(registry.router(SCHEMAS, topic_table(), NAMES))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while not server.started:
        assert time.monotonic() < deadline, "no HTTP server"
        time.sleep(0.01)  # a thread of its own starts it; it offers nothing to wait on
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(DEADLINE_S)


@pytest.fixture(scope="module")
def client(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url}) as client:
        yield client


def plain(value: Any) -> Any:
    """A message as an Avro library that knows no dataclass sees it."""
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple):
        # Lists of ids are fixed(16); single ids are text with a logical type.
        return [one.bytes if isinstance(one, UUID) else plain(one) for one in value]
    if isinstance(value, StrEnum):
        return value.value
    return value


def subject_of(message: Message) -> str:
    name = type(message).__name__
    return f"{NAMES.of(TOPIC_OF[name])}-paperlog.{name}"


@pytest.mark.kafka
async def test_a_confluent_consumer_and_deserializer_read_every_example(kafka, client: SchemaRegistryClient):
    written = examples()
    log = KafkaLog(
        ServiceSettings(
            kafka_bootstrap_servers=kafka.bootstrap, prefix=PREFIX, http_port=0, data_dir=Path("unused")
        )
    )
    await log.ensure_topics(list(topic_table().values()))
    writer = await log.writer()
    acks = [
        await writer.send(seal(SCHEMAS, one, topic=TOPIC_OF[type(one).__name__], source="urn:paperlog:test"))
        for one in written
    ]
    for ack in acks:
        await ack
    await writer.close()
    await log.close()

    read = consumed(kafka.bootstrap, len(written))
    deserialize = AvroDeserializer(client)
    by_type: dict[str, Any] = {}
    for message in read:
        headers = dict(message.headers())
        context = SerializationContext(message.topic(), MessageField.VALUE, message.headers())
        by_type[headers["ce_type"].decode()] = deserialize(message.value(), context)
    assert set(by_type) == {f"paperlog.{type(one).__name__}" for one in written}
    for one in written:
        assert by_type[f"paperlog.{type(one).__name__}"] == plain(one)


def consumed(bootstrap: str, count: int) -> list[Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{PREFIX}-confluent",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([NAMES.of(name) for name in topic_table()])
    found: list[Any] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            found.append(message)
    consumer.close()
    return found


@pytest.mark.parametrize("message", examples(), ids=lambda one: type(one).__name__)
def test_the_deserializer_needs_no_kafka_to_read_an_example_by_the_registry(
    message: Message, client: SchemaRegistryClient
):
    value, _ = SCHEMAS.encode(message)
    context = SerializationContext(NAMES.of(TOPIC_OF[type(message).__name__]), MessageField.VALUE)
    assert AvroDeserializer(client)(value, context) == plain(message)


@pytest.mark.parametrize("message", examples(), ids=lambda one: type(one).__name__)
def test_the_registry_knows_each_message_by_subject_version_and_text(
    message: Message, client: SchemaRegistryClient
):
    subject, schema = subject_of(message), SCHEMAS.newest(type(message).__name__)
    latest = client.get_latest_version(subject)
    assert (latest.schema_id, latest.version) == (schema.id, schema.version)
    assert json.loads(latest.schema.schema_str) == schema.raw
    assert client.get_versions(subject) == list(range(1, schema.version + 1))
    assert client.get_version(subject, schema.version).schema_id == schema.id
    assert client.lookup_schema(subject, latest.schema).schema_id == schema.id


def test_the_registry_lists_one_subject_for_each_message(client: SchemaRegistryClient):
    assert sorted(client.get_subjects()) == sorted(subject_of(one) for one in examples())


def test_the_registry_says_that_an_unknown_id_is_unknown(client: SchemaRegistryClient):
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_schema(7)
    assert caught.value.http_status_code == 404
    assert caught.value.error_code == 40403


def test_the_comparison_sees_a_difference():
    """Were `plain` blind, everything above would pass for nothing."""
    one = examples()[0]
    assert plain(one)["occurred_at"] == one.occurred_at
    assert isinstance(plain(one)["occurred_at"], datetime)
    assert plain(one) != {**plain(one), "item_count": 0}
