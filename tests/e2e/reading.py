"""A second pair of eyes: reads the log with an independent client and the store's files with nobody's help."""

import json
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from tests.e2e.edge_files import read_collection
from tests.e2e.stack import Stack

from eventlog.avro import Schemas, schemas_dir

VOLATILE = {"revision", "attempt", "store_id", "marks", "version"}


def completed_events(stack: Stack, import_id: str, prefix: str = "") -> list[Any]:
    topic = f"{prefix}-imports" if prefix else "imports"
    return [
        event for event in read_topic(stack, topic, "ImportCompleted") if str(event.import_id) == import_id
    ]


def read_topic(stack: Stack, topic: str, type_name: str) -> list[Any]:
    """Every committed message of a type, from the start of partition 0 to the end as it is now."""
    schemas = Schemas(schemas_dir())
    consumer = Consumer(
        {
            "bootstrap.servers": stack.endpoints()["kafka"],
            "group.id": "tests",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    found: list[Any] = []
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while True:
            message = consumer.poll(20)
            assert message is not None, f"{topic} does not answer"
            if message.error():
                return found
            headers = dict(message.headers() or [])
            if headers.get("ce_type") == f"paperlog.{type_name}".encode():
                found.append(schemas.decode(message.value()))
    finally:
        consumer.close()


def store_points(data: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """By collection and point id: payload without what differs between runs, and the vector. The stack is stopped."""
    import qdrant_edge  # noqa: F401 - a missing wheel fails here, with its name

    return {
        folder.name: {
            id_: (
                json.dumps({k: v for k, v in payload.items() if k not in VOLATILE}, sort_keys=True),
                vector,
            )
            for id_, payload, vector in read_collection(folder)
        }
        for folder in sorted((data / "store").iterdir())
        if folder.is_dir()
    }
