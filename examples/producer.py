"""Imports files by way of Kafka: sends their bytes, writes one command, and waits until the import has ended.

    KAFKA=127.0.0.1:9092 python examples/producer.py --project "From a program" paper.pdf notes.txt

The import's id is drawn once, before the first try. Whoever does not know whether the command was written writes it
again, with the same id: it is the same import.
"""

import argparse
import json
import os
import sys
import time
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

URL = os.environ.get("PAPERLOG_URL", "http://127.0.0.1:8800")
KAFKA = os.environ["KAFKA"]
SOURCE = "urn:example:producer"
"""Names this program among all producers; with `ce_id` it identifies a record."""
WAIT_S = 300.0

registry = SchemaRegistryClient({"url": URL})


def send_blob(path: Path) -> dict:
    """Its row in the command; the service answers the hash of what it received."""
    with path.open("rb") as file:
        request = urllib.request.Request(f"{URL}/api/blobs", data=file, method="POST")  # noqa: S310 - the user's own service
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header("Content-Length", str(path.stat().st_size))
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - as above
            blob = json.load(answer)
    return {"path": path.name, "sha256": blob["sha256"], "size_bytes": blob["size_bytes"]}


def write_command(import_id: uuid.UUID, project: str, files: list[dict]) -> None:
    """Returns when every replica has it."""
    schema = registry.get_latest_version("import-requests-paperlog.RequestImport").schema
    encode = AvroSerializer(
        registry,
        schema,
        conf={
            "auto.register.schemas": False,  # schemas are the service's
            "subject.name.strategy": topic_record_subject_name_strategy,
        },
    )
    now = datetime.now(UTC)
    command = {
        "occurred_at": now,
        "source": {"kind": "auto", "files": files, "file_count": len(files)},
        "import_id": import_id,
        "project_name": project,
        "requested_by": SOURCE,
    }
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(import_id),
        "ce_type": "paperlog.RequestImport",
        "ce_source": SOURCE,
        "ce_subject": str(import_id),
        "ce_time": now.isoformat(),
        "content-type": "application/vnd.confluent.avro",
    }
    producer = Producer({"bootstrap.servers": KAFKA, "acks": "all", "enable.idempotence": True})
    failures: list[str] = []
    producer.produce(
        "import-requests",
        key=str(import_id),
        value=encode(command, SerializationContext("import-requests", MessageField.VALUE)),
        headers=list(headers.items()),
        on_delivery=lambda error, _: failures.append(str(error)) if error else None,
    )
    if producer.flush(60) or failures:
        sys.exit(f"The command was not written: {failures}. Run this again with --import-id {import_id}.")


def wait(consumer: Consumer, import_id: uuid.UUID) -> int:
    """The exit code: 0 when the import has completed."""
    decode = AvroDeserializer(registry)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        headers = dict(message.headers())
        if headers.get("correlationid") != str(import_id).encode():
            continue
        kind = headers["ce_type"].decode().removeprefix("paperlog.")
        print(f"imports@{message.offset()}", kind, flush=True)
        if kind in ("ImportCompleted", "ImportFailed", "ImportRefused", "ImportCancelled"):
            event = decode(message.value(), SerializationContext("imports", MessageField.VALUE))
            print(
                event.get("reason") or f"{event.get('stored_count')} chunks stored", event.get("message", "")
            )
            return 0 if kind == "ImportCompleted" else 1
    print(
        f"Not done after {WAIT_S:.0f} s; it goes on. Ask GET {URL}/api/imports/{import_id}", file=sys.stderr
    )
    return 1


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--project", required=True)
    arguments.add_argument("--import-id", type=uuid.UUID, help="of a try whose end you do not know")
    asked = arguments.parse_args()
    import_id = asked.import_id or uuid.uuid4()
    files = [send_blob(path) for path in asked.files]
    consumer = Consumer(
        {"bootstrap.servers": KAFKA, "group.id": str(import_id), "isolation.level": "read_committed"}
    )
    try:
        # From where the log ends now, as what follows from a command comes after it; of a second try, all of it.
        start, end = consumer.get_watermark_offsets(TopicPartition("imports", 0), timeout=30)
        consumer.assign([TopicPartition("imports", 0, start if asked.import_id else end)])
        write_command(import_id, asked.project, files)
        return wait(consumer, import_id)
    finally:
        consumer.close()


if __name__ == "__main__":
    sys.exit(main())
