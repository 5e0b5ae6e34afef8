"""P6 for records: poison on every topic costs nothing but itself, and is kept byte for byte with the reason."""

import uuid
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.e2e.stack import Stack, until, write_texts

from eventlog.avro import Schemas, schemas_dir

GROUPS = {
    "import-requests": "ingest-dlq",
    "imports": "ingest-dlq",
    "chunks": "embedder-local-wordllama-256-1-dlq",
    "embeddings": "graph-writer-dlq",
}


def poison() -> dict[str, bytes | None]:
    """Each kind with a value of its own, so that it is known again in the dead letters."""
    schema = next(iter(Schemas(schemas_dir())))
    frame = b"\x00" + schema.id.to_bytes(4, "big")
    return {
        "random bytes": uuid.uuid4().bytes * 3,
        "unknown schema id": b"\x00\x00\x00\x00\x07" + uuid.uuid4().bytes,
        "truncated": frame + b"\x02" + uuid.uuid4().bytes[:1],
        "magic alone": b"\x00",
        "null": None,
    }


def dead_letters(stack: Stack, topic: str) -> Counter[tuple[str, bytes | None]]:
    """By source topic and value."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack.endpoints()["kafka"],
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found: Counter[tuple[str, bytes | None]] = Counter()
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while (message := consumer.poll(20)) is not None and not message.error():
            headers = dict(message.headers() or [])
            assert headers["dlq_reason"]
            assert headers["dlq_offset"].isdigit()
            found[headers["dlq_topic"].decode(), message.value()] += 1
        return found
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    with Stack(tmp_path_factory.mktemp("poison") / "data") as stack:
        yield stack  # type: ignore[misc]  # pytest unwraps the generator


def test_poison_on_every_topic_goes_to_the_dead_letters_and_the_import_goes_on(
    stack: Stack, tmp_path: Path
) -> None:
    library = tmp_path / "texts"
    write_texts(library, documents=4, chunks_each=6)
    producer = Producer({"bootstrap.servers": stack.endpoints()["kafka"]})
    sent: dict[str, set[bytes | None]] = {}
    first = stack.import_folder(library, "Before")
    for topic in GROUPS:
        values = poison()
        sent[topic] = set(values.values())
        for value in values.values():
            producer.produce(topic, value=value, partition=0)
    assert producer.flush(20) == 0
    second = stack.import_folder(library, "After")
    assert stack.wait(first)["state"] == "completed"
    assert stack.wait(second)["state"] == "completed"
    for topic, letters in GROUPS.items():
        until(
            lambda topic=topic, letters=letters: (
                {value for source, value in dead_letters(stack, letters) if source.endswith(topic)}
                >= sent[topic]
            ),
            60,
            lambda topic=topic, letters=letters: f"{topic}: {dead_letters(stack, letters)}\n{stack.tail()}",
        )
        assert set(dead_letters(stack, letters).values()) == {1}, "each is kept once"
    assert stack.request("GET", "/readyz")[0] == 200


def test_many_in_a_row_stop_the_consumer_until_an_operator_decides(stack: Stack) -> None:
    producer = Producer({"bootstrap.servers": stack.endpoints()["kafka"]})
    for _ in range(40):
        producer.produce("import-requests", value=uuid.uuid4().bytes, partition=0)
    assert producer.flush(20) == 0
    until(
        lambda: "dead_letters" in stack.request("GET", "/readyz")[1]["reasons"],
        60,
        "the consumer goes on and on",
    )
    assert stack.request("GET", "/livez")[0] == 200
    assert len(dead_letters(stack, "ingest-dlq")) < 40
    for _ in range(3):  # forty are two times as many as may come in a row
        stack.request("POST", "/continue")
        until(
            lambda: (
                stack.request("GET", "/readyz")[0] == 200
                or "dead_letters" in stack.request("GET", "/readyz")[1]["reasons"]
            ),
            30,
            stack.tail,
        )
    until(lambda: stack.request("GET", "/readyz")[0] == 200, 60, stack.tail)
