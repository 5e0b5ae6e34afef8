"""The table of topics, read from `schemas/topics.toml`, and their names under a prefix."""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from eventlog.avro import Schema, schemas_dir

IMPORT_REQUESTS = "import-requests"
IMPORTS = "imports"
CHUNKS = "chunks"
EMBEDDINGS = "embeddings"
DLQ = "dlq"

RECORD_BYTES_MAX = 4 * 1024 * 1024
"""One record with its headers, uncompressed; every writer refuses a larger one before it is sent."""

BATCH_BYTES_MAX = RECORD_BYTES_MAX + 64 * 1024
"""What a topic takes: more than the largest record and its framing, because a batch that the broker refuses breaks
the sequence of an idempotent producer."""

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    name: str
    partitions: int
    retention_ms: int
    events: tuple[str, ...]
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, str]:
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "max.message.bytes": str(BATCH_BYTES_MAX),
            "message.timestamp.type": "CreateTime",
        }

    def differences(self, found: Mapping[str, str]) -> dict[str, str]:
        """By setting that has another value than ours, what that may cost."""
        return {
            setting: _COSTS[setting]
            for setting, wanted in self.config.items()
            if setting in found and found[setting] != wanted
        }


_COSTS = {
    "cleanup.policy": "anything but delete removes records that are still needed",
    "retention.ms": "a shorter time than ours takes records that a replay, a resume or another model needs",
    "retention.bytes": "the oldest records are deleted when the topic grows to this size",
    "max.message.bytes": "what is larger than this is refused by the brokers",
    "message.timestamp.type": "times of records are the brokers'",
}


def topic_table() -> dict[str, Topic]:
    """Every topic by its name without prefix; raises KeyError where the table lacks a field."""
    with (schemas_dir() / "topics.toml").open("rb") as file:
        rows = tomllib.load(file)
    return {
        name: Topic(
            name=name,
            partitions=row["partitions"],
            retention_ms=row["retention_days"] * _DAY_MS if row["retention_days"] > 0 else -1,
            events=tuple(row["events"]),
            writers=tuple(row["writers"]),
            readers=tuple(row["readers"]),
        )
        for name, row in rows.items()
    }


def topics_of(service: str, group: str) -> list[Topic]:
    """What a service writes or reads, and no more: with rights of its own it sees nothing else. Its dead letters last."""
    table = topic_table()
    letters = replace(table.pop(DLQ), name=f"{group}-{DLQ}")
    return [*(one for one in table.values() if service in (*one.writers, *one.readers)), letters]


@dataclass(frozen=True, slots=True)
class Names:
    """What a prefix makes of the names of topics, groups and transactional ids."""

    prefix: str = ""

    def of(self, name: str) -> str:
        return f"{self.prefix}-{name}" if self.prefix else name

    def bare(self, name: str) -> str:
        """The name without the prefix, as the rest of the program knows it."""
        return name.removeprefix(f"{self.prefix}-") if self.prefix else name

    def dlq(self, group: str) -> str:
        return f"{self.of(group)}-dlq"


def subjects(
    schemas: Iterable[Schema], topics: Iterable[Topic], names: Names
) -> dict[str, dict[int, Schema]]:
    """What a schema registry knows: subject (topic and record name, Confluent's TopicRecordNameStrategy) → version → schema."""
    topics_of: dict[str, list[str]] = defaultdict(list)
    for topic in topics:
        for event in topic.events:
            topics_of[event].append(names.of(topic.name))
    found: dict[str, dict[int, Schema]] = defaultdict(dict)
    for schema in schemas:
        for topic_name in topics_of[schema.name]:
            found[f"{topic_name}-{schema.full_name}"][schema.version] = schema
    return dict(found)
