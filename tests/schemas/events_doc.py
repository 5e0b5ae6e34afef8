"""docs/events.md, made from schemas, topics.toml and events.toml: `make events-doc` writes it anew."""

import tomllib
from pathlib import Path
from typing import Any

from eventlog.avro import Schema, Schemas, schemas_dir
from eventlog.events import COMMANDS, EVENTS
from eventlog.topics import RECORD_BYTES_MAX

PATH = Path(__file__).resolve().parents[2] / "docs" / "events.md"
BASES = {
    "an import": ("import_id", "project_id", "attempt"),
    "a chunk": (
        "chunk_id", "document_id", "embedding_key", "space", "revision", "chunk_index", "kind", "part",
    ),
}  # fmt: skip

HEAD = f"""# Events

Made by `make events-doc` from `schemas/`, and held against it by a test: change it there.

Everything that Paperlog knows is an event in Kafka. This page says what a consumer may lean on. Programs that read and
write them stand in `examples/`: `consumer.py`, `consumer.ts`, `producer.py`, `read_events.py`.

## On the wire

* **Value**: Confluent's frame (a zero byte, the schema's id as four bytes, big-endian, the Avro body). Ids follow from the
  schemas; `GET /schemas/ids/{{id}}` of the service answers them, as Confluent's registry does. Subjects: topic and record name.
  A record has at most {RECORD_BYTES_MAX // 1024**2} MiB.
* **Headers**: CloudEvents in binary mode: `ce_specversion`, `ce_id`, `ce_type` (`paperlog.` and the name below),
  `ce_source`, `ce_subject`, `ce_time`, `ce_dataschema`, `content-type`; `correlationid` is the import's id, `causationid`
  the `ce_id` of what led to it, `traceparent` for tracing. On `chunks` and `embeddings` also `paperlog_import`,
  `paperlog_project`, `paperlog_attempt`, `paperlog_document`, `paperlog_chunk`, `paperlog_revision`,
  `paperlog_chunk_index`, `paperlog_kind`, `paperlog_part`, `paperlog_embedding_key` and `paperlog_space`, so that a
  consumer may pass over what is not its own without decoding it.
* **Reading**: `isolation.level=read_committed`. `imports` is written in transactions: offsets have holes, and what is not
  committed has not happened.
* **Types**: ids are UUIDs as text (lists of them `fixed(16)`), times are UTC microseconds, a vector is `dims` float32,
  little-endian, of length 1. Every enum has `UNKNOWN` for what came after your schema.
* **Identity**: an event of an import has `import_id`, `project_id` and `attempt`; one of a chunk has these and `chunk_id`,
  `document_id`, `embedding_key` (the project and the text), `space`, `revision`, `chunk_index`, `kind` and `part`. Below,
  bold fields are identity too, and what has a `?` may be null.

## Order

`imports` has one partition: what stands there has one order, for all imports together. `chunks` and `embeddings` are
ordered by embedding key only, that is by text. Between topics there is no order: a `ChunkEmbedded` may reach you before
the `ImportRequested` that led to it. Its `revision` is the offset of that record on `imports`, so you can wait for it.
Partitions follow from Kafka's murmur2; clients with another default partitioner (librdkafka has CRC32) put the same key elsewhere.

## Repeats

A record may come twice: a service that dies writes again what it cannot be sure of. A repeat of the same fact has the
same (`ce_source`, `ce_id`), because the id follows from what the fact says, without its time: remember the pairs that you
have dealt with, in the same transaction as what you made of them. Where another content may follow for one thing, it is
said below which counts. Nothing is taken back silently: only a later fact, with a higher `revision` or `attempt`,
replaces an earlier one.

`ce_source` is `paperlog/ingest`, `paperlog/embedder-` and the space as words, or `graph-writer`; what an embedder says
of its provider has the process's name behind it. A producer chooses its own.

## Evolution

* Nothing is renamed, no type changes, identity fields (bold below) have no default and never go.
* A new field has a default; an enum may get symbols, and older readers see `UNKNOWN`.
* So every version reads every other, both ways (`FULL_TRANSITIVE`). Another meaning is another event.
* A version that was written stays in `schemas/` for ever, as the log does.
"""


def text() -> str:
    schemas = Schemas(schemas_dir())
    told = table("events.toml")
    topics = table("topics.toml")
    topic_of = {name: topic for topic, row in topics.items() for name in row["events"]}
    out = [HEAD, "## Topics\n", *_topics(topics), ""]
    for title, classes in (("Commands", COMMANDS), ("Events", EVENTS)):
        out.append(f"## {title}\n")
        for cls in classes:
            out += _event(schemas.newest(cls.__name__), topic_of[cls.__name__], told[cls.__name__])
    return "\n".join(out).rstrip() + "\n"


def table(name: str) -> dict[str, Any]:
    with (schemas_dir() / name).open("rb") as file:
        return tomllib.load(file)


def _topics(topics: dict[str, Any]) -> list[str]:
    out = ["| topic | key | partitions | kept | written by | read by |", "|---|---|---|---|---|---|"]
    for name, row in topics.items():
        kept = f"{row['retention_days']} days" if row["retention_days"] > 0 else "for ever"
        shown = "`<group>-dlq`" if name == "dlq" else f"`{name}`"
        writers, readers = ", ".join(row["writers"]), ", ".join(row["readers"])
        out.append(f"| {shown} | {row['key']} | {row['partitions']} | {kept} | {writers} | {readers} |")
    return out


def _event(schema: Schema, topic: str, told: dict[str, str]) -> list[str]:
    fields = {one["name"]: one for one in schema.raw["fields"]}
    groups = [name for name, names in BASES.items() if set(names) <= set(fields)]
    common = {"occurred_at", *(name for group in groups for name in BASES[group])}
    doc = schema.raw.get("doc", "")
    listed = [_field(one) for name, one in fields.items() if name not in common]
    identity = " and ".join(["`occurred_at`", *(f"the identity of {group}" for group in groups)])
    return [
        f"### {schema.name}",
        "",
        told["when"] + (f" {doc}" if doc else ""),
        "",
        f"* On `{topic}`, by {told['by']}. Key: `{told['key']}`. Schema id {schema.id}, version {schema.version}.",
        f"* Repeats: {told['repeats']}",
        f"* Fields: {identity}" + (f"; {', '.join(listed)}." if listed else "."),
        "",
    ]


def _field(field: dict[str, Any]) -> str:
    name = f"**{field['name']}**" if "default" not in field else f"`{field['name']}`"
    return f"{name} {_type(field['type'])}"


def _type(schema: Any) -> str:
    if isinstance(schema, str):
        return schema.removeprefix("paperlog.")
    if isinstance(schema, list):
        return f"{_type(next(one for one in schema if one != 'null'))}?"
    if schema["type"] == "array":
        return f"[{_type(schema['items'])}]"
    if schema["type"] == "map":
        return f"{{{_type(schema['values'])}}}"
    if schema["type"] == "record":
        return f"{{{', '.join(one['name'] for one in schema['fields'])}}}"
    if schema["type"] == "enum":
        return f"({' | '.join(one for one in schema['symbols'] if one != 'UNKNOWN')})"
    if schema["type"] == "fixed":
        return f"fixed({schema['size']})"
    return str(schema.get("logicalType", schema["type"]))


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
