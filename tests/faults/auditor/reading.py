"""Gathers the evidence of a stopped stack: the log by confluent-kafka and fastavro, the store by qdrant-edge, files.

The broker is started once more on the folder that it left; the store's folder is copied first, for opening a shard
writes into it. Writer schemas are the files of `schemas/`, chosen by `ce_type`; what does not fit them is unreadable.
"""

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import qdrant_edge as edge
from confluent_kafka import Consumer, Message, TopicPartition
from tests.faults.auditor.evidence import (
    Bill,
    Counted,
    DeadLetter,
    Death,
    Evidence,
    Fact,
    Point,
    Progress,
    Rebuilt,
)

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
REPEATED = "faults-repeated"
"""The header of what a run has put there once more."""
FRAME_BYTES = 5
PAGE = 500
SILENT_MAX = 150
"""Looks of a fifth of a second without an answer."""
_DROPPED = {"text": ("ChunkEmbedded",)}
"""Not needed twice: ten thousand texts stand in `chunks` already."""


@dataclass(frozen=True, slots=True)
class Record:
    """A message that is no error, as the broker has it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def record_of(message: Message) -> Record | None:
    """None where it is an error."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if message.error() or topic is None or partition is None or offset is None:
        return None
    pairs = message.headers()
    assert not isinstance(pairs, dict), "what was consumed has them in order"
    headers = [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs or []]
    return Record(topic, partition, offset, message.key(), message.value(), headers)


class Reader:
    """Decodes values; one schema id belongs to one type, and the other way round."""

    def __init__(self) -> None:
        self._schemas: dict[str, Any] = {}
        for path in sorted(SCHEMAS.glob("*.avsc")):
            schema = json.loads(path.read_text())
            self._schemas[schema["name"]] = fastavro.parse_schema(schema)
        self._ids: dict[bytes, str] = {}

    def fact(self, record: Record) -> Fact | None:
        """None where the record is not one of ours."""
        headers = dict(record.headers)
        type_ = (headers.get("ce_type") or b"").decode(errors="replace").removeprefix("paperlog.")
        value = record.value
        if type_ not in self._schemas or value is None or value[:1] != b"\x00":
            return None
        if self._ids.setdefault(value[1:FRAME_BYTES], type_) != type_:
            return None
        stream = io.BytesIO(value[FRAME_BYTES:])
        try:
            body: Any = fastavro.schemaless_reader(stream, self._schemas[type_], None)
        except Exception:  # noqa: BLE001 - fastavro raises whatever the bytes lead it to
            return None
        if stream.read(1):
            return None
        for name, types in _DROPPED.items():
            if type_ in types:
                del body[name]
        return Fact(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            type=type_,
            id=(headers.get("ce_id") or b"").decode(errors="replace"),
            content=_content(value[FRAME_BYTES:]),
            body=_plain(body),
            is_repeat=REPEATED in headers,
        )


def _content(body: bytes) -> bytes:
    """`occurred_at`, the first field, is when it was said and no part of what is said."""
    end = next(at for at, byte in enumerate(body) if byte < 0x80) + 1
    return hashlib.sha256(body[end:]).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict):
        return {
            name: [str(UUID(bytes=one)) if isinstance(one, bytes) else str(one) for one in each]
            if name == "chunk_ids"
            else _plain(each)
            for name, each in value.items()
        }
    return [_plain(one) for one in value] if isinstance(value, list) else value


def read_log(bootstrap: str, evidence: Evidence) -> None:
    """A key may stand nowhere in the log either; a document's text may, in values."""
    reader, words = Reader(), list[str]()
    keys = [one.encode() for one in evidence.secrets if one.startswith("sk-")]
    for record in _records(bootstrap):
        raw = [record.value or b"", *(value or b"" for _, value in record.headers)]
        if any(key in each for key in keys for each in raw):
            evidence.words[f"{record.topic}[{record.partition}]@{record.offset}"] = " ".join(
                each.decode(errors="replace") for each in raw
            )
        if record.topic.endswith("-dlq"):
            evidence.dead_letters.append(_dead_letter(record))
            words += [f"{name}={_text(value)}" for name, value in record.headers]
            continue
        fact = reader.fact(record)
        if fact is None:
            evidence.unreadable.append((record.topic, record.partition, record.offset))
        else:
            evidence.facts.append(fact)
    evidence.words["headers of dead letters"] = "\n".join(words)


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _dead_letter(record: Record) -> DeadLetter:
    headers = {name: _text(value) for name, value in record.headers}
    return DeadLetter(
        topic=record.topic,
        source=(headers["dlq_topic"], int(headers["dlq_partition"]), int(headers["dlq_offset"])),
        reason=headers["dlq_reason"],
        chunk_id=headers.get("paperlog_chunk", ""),
        import_id=headers.get("paperlog_import", ""),
    )


def _records(bootstrap: str) -> Iterator[Record]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "auditor",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        topics = consumer.list_topics(timeout=30).topics
        wanted = [
            TopicPartition(name, partition, 0)
            for name, topic in topics.items()
            if not name.startswith("__")
            for partition in topic.partitions
        ]
        consumer.assign(wanted)
        left, silent = len(wanted), 0
        while left:
            batch = consumer.consume(1_000, timeout=0.2)
            silent = 0 if batch else silent + 1
            assert silent < SILENT_MAX, f"the broker does not answer for {left} partitions"
            for message in batch:
                if (record := record_of(message)) is None:
                    left -= 1
                else:
                    yield record
    finally:
        consumer.close()


def read_store(folder: Path) -> dict[str, dict[str, Point]]:
    found: dict[str, dict[str, Point]] = {}
    with tempfile.TemporaryDirectory(prefix="auditor-") as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "store"))
        for each in sorted(copy.iterdir()):
            if (each / "edge_config.json").is_file():
                found[each.name] = dict(_collection(each))
    return found


def _collection(folder: Path) -> Iterator[tuple[str, Point]]:
    shard = edge.EdgeShard.load(str(folder))
    try:
        after = None
        while True:
            request = edge.ScrollRequest(offset=after, limit=PAGE, with_payload=True, with_vector=True)
            records, after = shard.scroll(request)
            for record in records:
                dense = record.vector.get("dense") if isinstance(record.vector, dict) else None
                vector = b"" if dense is None else np.asarray(dense, "<f4").tobytes()
                yield str(record.id), Point(payload=dict(record.payload or {}), vector=vector)
            if after is None:
                return
    finally:
        shard.close()


def read_bills(ledger: Path) -> list[Bill]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [Bill(sha256=one["sha256"], met=one["met"], at=one["at"]) for one in map(json.loads, lines)]


def read_watched(path: Path, evidence: Evidence) -> None:
    """What `watch.py` has written; the last line may be half one, for the watcher is killed at the end."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            kind, said = json.loads(line)
        except ValueError:
            continue
        match kind:
            case "progress":
                evidence.progress.append(Progress(**said))
            case "counted":
                evidence.counted.append(Counted(**said))
            case "memory":
                evidence.memory_kb.append(said)
            case "problem":
                evidence.words["problem documents"] = (
                    evidence.words.get("problem documents", "") + said + "\n"
                )


def read_run(folder: Path, evidence: Evidence) -> None:
    """`run.json` as the runner left it beside the data: see `tests/faults/world.py`."""
    said = json.loads((folder / "run.json").read_text())
    bills = read_bills(folder / "ledger.jsonl")
    evidence.bills = bills[: said["bills_before_rebuilding"]]
    evidence.deaths = [Death(**one) for one in said["deaths"]]
    evidence.statuses = said["statuses"]
    evidence.finished_in_s = said["finished_in_s"]
    evidence.finish_s_max = said["finish_s_max"]
    evidence.memory_mb_max = said["memory_mb_max"]
    evidence.secrets = tuple(said["secrets"])
    for import_id, files in said["sources"].items():
        evidence.sources[import_id] = {path: Path(path).read_text() for path in files}
    for log in [folder / "data" / "up.log", *sorted((folder / "data" / "logs").glob("*.log*"))]:
        evidence.words[log.name] = log.read_text(errors="replace")
    read_watched(folder / "watched.jsonl", evidence)
    evidence.points = read_store(folder / "store-before")
    if said["statuses_rebuilt"] is not None:
        evidence.rebuilt = Rebuilt(
            points=read_store(folder / "data" / "store"),
            statuses=said["statuses_rebuilt"],
            bills_count=len(bills) - said["bills_before_rebuilding"],
        )
