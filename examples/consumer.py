"""Follows one project: prints what happens to it, and every vector that arrives, from the beginning of the log on.

    KAFKA=127.0.0.1:9092 python examples/consumer.py "My library"

Records may come twice; whoever counts or adds up asks (`ce_source`, `ce_id`), which is done here with a set. A program
that keeps what it makes of them in a database asks there, in the transaction that writes.
"""

import argparse
import json
import os
import sys
import time
import urllib.request
from struct import unpack_from

from confluent_kafka import Consumer, Message
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

URL = os.environ.get("PAPERLOG_URL", "http://127.0.0.1:8800")
decode = AvroDeserializer(SchemaRegistryClient({"url": URL}))


def project_id_of(name: str) -> str:
    with urllib.request.urlopen(f"{URL}/api/projects", timeout=30) as answer:  # noqa: S310 - the user's own service
        projects = json.load(answer)["projects"]
    found = [one["project_id"] for one in projects if one["name"].casefold() == name.casefold()]
    return found[0] if found else sys.exit(f"There is no project “{name}”.")


def describe(kind: str, event: dict) -> str:
    match kind:
        case "DocumentParsed":
            return f"{event['title']!r}, {len(event['concepts'])} concepts"
        case "DocumentRejected":
            return f"{event['item']}: {event['reason']}"
        case "ChunkEmbedded":
            first = unpack_from("<3f", event["vector"])
            numbers = ", ".join(f"{one:+.3f}" for one in first)
            return f"{event['text'][:40]!r} → {event['dims']} dimensions [{numbers}, …]"
        case "ImportCompleted":
            return f"{event['document_count']} documents, {event['stored_count']} chunks stored"
        case _:
            return ""


def follow(consumer: Consumer, project_id: str, quiet_s: float) -> None:
    """Until Ctrl-C, or until nothing has come for so many seconds once something had."""
    seen: set[tuple[bytes, bytes]] = set()
    came_at = None
    while came_at is None or time.monotonic() - came_at < quiet_s:
        message: Message | None = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            sys.exit(str(message.error()))
        came_at = time.monotonic()
        headers = dict(message.headers())
        # Records of `embeddings` say in a header whose they are: strangers' vectors are not even decoded.
        if headers.get("paperlog_project", project_id.encode()) != project_id.encode():
            continue
        identity = headers["ce_source"], headers["ce_id"]
        if identity in seen:
            continue
        seen.add(identity)
        event = decode(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
        if str(event.get("project_id")) != project_id:
            continue
        kind = headers["ce_type"].decode().removeprefix("paperlog.")
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        print(where, kind, describe(kind, event), flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("project")
    arguments.add_argument("--group", default="example-consumer")
    arguments.add_argument("--quiet-s", type=float, default=float("inf"), help="end after so long a silence")
    asked = arguments.parse_args()
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA"],
            "group.id": asked.group,  # where it was, it goes on
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",  # what is not committed has not happened
        }
    )
    consumer.subscribe(["imports", "embeddings"])
    try:
        follow(consumer, project_id_of(asked.project), asked.quiet_s)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
