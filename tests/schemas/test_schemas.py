"""Dataclasses, schemas, examples and the table of topics say the same; what is missing is named."""

import json
from collections import Counter
from dataclasses import MISSING, dataclass, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tests.schemas.derive import schema_of
from tests.schemas.examples import FOLDER, example, from_json, path_of, to_json

from eventlog.avro import Schemas, canonical_json, default_of, schema_id, schemas_dir
from eventlog.envelope import seal, unseal
from eventlog.errors import UnprocessableRecord
from eventlog.events import COMMANDS, MESSAGES, ChunkMessage, ImportMessage, Message
from eventlog.log import NewRecord, Record
from eventlog.topics import IMPORT_REQUESTS, topic_table

SCHEMAS = Schemas(schemas_dir())
IDENTITY = {
    "import_id",
    "project_id",
    "attempt",
    "occurred_at",
    "chunk_id",
    "document_id",
    "embedding_key",
    "revision",
    "chunk_index",
    "kind",
    "part",
}
"""Identity wherever an event of an import carries it."""

each_message = pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)


def without_docs(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_docs(one) for one in schema]
    if isinstance(schema, dict):
        return {key: without_docs(value) for key, value in schema.items() if key != "doc"}
    return schema


def as_record(new: NewRecord) -> Record:
    return Record(
        topic=new.topic,
        partition=new.partition or 0,
        offset=0,
        key=new.key,
        value=new.value,
        headers=new.headers,
    )


@each_message
def test_a_dataclass_and_its_schema_have_the_same_fields_types_defaults_and_symbols(cls: type[Message]):
    newest = SCHEMAS.newest(cls.__name__)
    found, derived = without_docs(newest.raw), schema_of(cls)
    assert [one["name"] for one in found["fields"]] == [one["name"] for one in derived["fields"]]
    for written, implied in zip(found["fields"], derived["fields"], strict=True):
        assert written == implied
    assert found == derived


def test_a_dataclass_with_another_default_does_not_equal_the_schema():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class ImportFailed(ImportMessage):
        reason: str
        message: str = "other"

    assert schema_of(ImportFailed) != without_docs(SCHEMAS.newest("ImportFailed").raw)


@each_message
def test_occurred_at_is_the_first_field(cls: type[Message]):
    assert fields(cls)[0].name == "occurred_at"
    assert SCHEMAS.newest(cls.__name__).raw["fields"][0]["name"] == "occurred_at"


@each_message
def test_identity_fields_have_no_default(cls: type[Message]):
    names = {one.name: one for one in fields(cls)}
    if issubclass(cls, ImportMessage):
        for name in IDENTITY & set(names):
            assert default_of(names[name]) is MISSING, name
    assert default_of(names["occurred_at"]) is MISSING


def test_every_event_of_an_import_names_its_import_project_and_attempt():
    for cls in MESSAGES:
        if issubclass(cls, ImportMessage):
            assert {"import_id", "project_id", "attempt"} <= {one.name for one in fields(cls)}, cls.__name__


REQUIRED = {
    # What each message says beyond the identity that its base brings; all else has a default.
    "RequestImport": "source",
    "CancelImport": "import_id",
    "ResumeImport": "import_id",
    "ProjectCreated": "name space",
    "ImportRequested": "source request_sha256 space",
    "ImportRefused": "import_id command_id reason",
    "DocumentParsed": "document_id revision content_hash parts",
    "DocumentRejected": "item reason",
    "ImportSealed": "document_count chunk_count",
    "ChunkExtracted": "text",
    "ChunkEmbedded": "text dims vector",
    "ChunkRejected": "reason",
    "ChunksSettled": "space store_id chunks",
    "DocumentChunksSettled": "document_id revision parsed_offset parts",
    "DocumentSettled": "document_id revision outcome store_id offset",
    "StoreOpened": "store_id",
    "WritingPaused": "store_id",
    "WritingContinued": "store_id",
    "ImportCancelled": "",
    "ImportResumed": "",
    "ImportCompleted": "revision store_id digest",
    "ImportFailed": "reason",
    "ProjectSpaceMoveStarted": "project_id space",
    "ProjectSpaceChanged": "project_id space",
    "EmbeddingPaused": "space reason",
    "EmbeddingContinued": "space",
}


@each_message
def test_every_field_that_is_no_identity_has_a_default(cls: type[Message]):
    bases = [base for base in (ChunkMessage, ImportMessage, Message) if issubclass(cls, base)]
    inherited = {one.name for base in bases for one in fields(base)}
    without = {one.name for one in fields(cls) if default_of(one) is MISSING}
    assert without == inherited | set(REQUIRED[cls.__name__].split())


def test_every_enum_falls_back_to_unknown():
    seen = 0
    for schema in SCHEMAS:
        for enum in enums_of(schema.raw):
            assert enum["default"] == "UNKNOWN"
            assert enum["symbols"][0] == "UNKNOWN"
            seen += 1
    assert seen > 20


def enums_of(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [enum for one in schema for enum in enums_of(one)]
    if isinstance(schema, dict):
        own = [schema] if schema.get("type") == "enum" else []
        return own + [enum for one in schema.values() for enum in enums_of(one)]
    return []


# --- topics and examples


def test_every_message_stands_in_the_table_of_topics_once_and_every_name_there_exists():
    listed = Counter(name for topic in topic_table().values() for name in topic.events)
    assert listed == Counter(cls.__name__ for cls in MESSAGES)


def test_commands_have_their_own_topic():
    assert set(topic_table()[IMPORT_REQUESTS].events) == {cls.__name__ for cls in COMMANDS}


def test_chunks_and_embeddings_have_the_same_number_of_partitions():
    table = topic_table()
    assert table["chunks"].partitions == table["embeddings"].partitions


def test_every_version_of_every_schema_has_an_example_and_nothing_else_lies_there():
    schemas = {path.stem for path in schemas_dir().glob("*.avsc")}
    assert {path.stem for path in FOLDER.iterdir()} == schemas


@each_message
def test_an_example_shows_every_field(cls: type[Message]):
    written = json.loads(path_of(cls).read_text(encoding="utf-8"))
    assert list(written) == [one.name for one in fields(cls)]
    assert to_json(example(cls)) == written


def test_an_example_with_an_unknown_field_a_missing_one_or_another_type_is_refused():
    written = json.loads(path_of(MESSAGES[1]).read_text(encoding="utf-8"))
    for wrong in (
        {**written, "surplus": 1},
        {key: value for key, value in written.items() if key != "import_id"},
        {**written, "message": 7},
        {**written, "occurred_at": None},
    ):
        with pytest.raises(TypeError):
            from_json(MESSAGES[1], wrong)


@each_message
def test_an_example_comes_back_from_its_bytes_as_it_was(cls: type[Message]):
    message = example(cls)
    value, _ = SCHEMAS.encode(message)
    assert SCHEMAS.decode(value) == message


@each_message
def test_an_example_comes_back_from_its_record_as_it_was(cls: type[Message]):
    message = example(cls)
    new = seal(SCHEMAS, message, topic="t", source="urn:paperlog:test", causation_id="c")
    envelope = unseal(SCHEMAS, as_record(new))
    assert envelope.event == message
    assert envelope.id == dict(new.headers)["ce_id"].decode()
    assert envelope.source == "urn:paperlog:test"


@pytest.mark.parametrize(
    ("named", "subject"),
    [
        ({"idempotency_key": "k", "project_name": "Soil"}, "k"),
        ({"idempotency_key": None, "project_name": "Soil"}, "Soil"),
        ({"idempotency_key": None, "project_name": "", "space": "local/wordllama@256:1"}, "import"),
    ],
)
def test_a_request_that_has_no_id_yet_is_about_its_key_or_its_project(named: dict[str, Any], subject: str):
    whole = next(example(cls) for cls in MESSAGES if cls.__name__ == "RequestImport")
    message = replace(whole, **{"import_id": None, "space": None, **named})
    new = seal(SCHEMAS, message, topic=IMPORT_REQUESTS, source="urn:paperlog:test")
    assert dict(new.headers)["ce_subject"].decode() == subject
    assert unseal(SCHEMAS, as_record(new)).event == message


def test_a_time_of_another_zone_is_the_same_moment_and_a_time_without_zone_is_refused():
    message = example(MESSAGES[1])
    elsewhere = message.occurred_at.astimezone(timezone(timedelta(hours=5)))
    value, _ = SCHEMAS.encode(replace(message, occurred_at=elsewhere))
    assert value == SCHEMAS.encode(message)[0]
    with pytest.raises(UnprocessableRecord):
        SCHEMAS.encode(replace(message, occurred_at=datetime(2026, 1, 1)))  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize("wrong", [2**31, -(2**31) - 1, "1", None, 1.5, True])
def test_a_number_that_does_not_fit_is_refused_on_writing(wrong: Any):
    message = next(example(cls) for cls in MESSAGES if cls.__name__ == "ImportSealed")
    with pytest.raises(UnprocessableRecord, match="avro_unencodable"):
        SCHEMAS.encode(replace(message, chunk_count=wrong))


def test_a_lone_surrogate_is_refused_on_writing():
    message = next(example(cls) for cls in MESSAGES if cls.__name__ == "ImportFailed")
    with pytest.raises(UnprocessableRecord, match="avro_unencodable"):
        SCHEMAS.encode(replace(message, message="\ud800"))


def test_a_field_of_micros_keeps_its_last_digit():
    message = replace(example(MESSAGES[1]), occurred_at=datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC))
    assert SCHEMAS.decode(SCHEMAS.encode(message)[0]) == message


# --- schema ids


def test_schema_ids_are_small_positive_and_different():
    ids = [schema.id for schema in SCHEMAS]
    assert len(set(ids)) == len(ids)
    assert all(0 < one < 2**30 for one in ids)


def test_a_schema_id_does_not_see_docs_or_white_space_but_any_other_change():
    raw = SCHEMAS.newest("ImportFailed").raw
    assert schema_id(json.loads(json.dumps(raw, indent=8))) == schema_id(raw)
    assert schema_id({**raw, "doc": "other words"}) == schema_id(raw)
    changed = json.loads(json.dumps(raw))
    changed["fields"][-1]["default"] = "x"
    assert schema_id(changed) != schema_id(raw)
    assert schema_id({**raw, "fields": raw["fields"][:-1]}) != schema_id(raw)


def test_the_canonical_form_is_a_schema_of_the_same_id():
    for schema in SCHEMAS:
        assert schema_id(json.loads(canonical_json(schema.raw))) == schema.id
