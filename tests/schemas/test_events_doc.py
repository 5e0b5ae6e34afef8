"""docs/events.md is what the schemas say, and what is said of each event beside them is true of it."""

import re

import pytest
from tests.schemas import events_doc
from tests.schemas.examples import example

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import key_of, seal
from eventlog.events import MESSAGES, ChunkEmbedded, Message
from eventlog.ids import id_text

TOLD = events_doc.table("events.toml")
TOPICS = events_doc.table("topics.toml")


def test_the_page_is_made_from_the_schemas():
    assert events_doc.PATH.read_text(encoding="utf-8") == events_doc.text(), "run `make events-doc`"


def test_every_event_is_told_of_and_no_other():
    assert set(TOLD) == {cls.__name__ for cls in MESSAGES}


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_the_key_of_a_record_is_the_field_that_is_named(cls: type[Message]):
    message = example(cls)
    value = getattr(message, TOLD[cls.__name__]["key"])
    assert key_of(message).decode() == (value if isinstance(value, str) else id_text(value))


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_who_writes_an_event_may_write_to_its_topic(cls: type[Message]):
    (topic,) = [row for row in TOPICS.values() if cls.__name__ in row["events"]]
    by = TOLD[cls.__name__]["by"]
    assert any(re.search(rf"\b{re.escape(writer)}\b", by) for writer in topic["writers"]), by


def test_each_field_of_each_schema_stands_on_the_page():
    page = events_doc.text()
    for cls in MESSAGES:
        _, _, rest = page.partition(f"### {cls.__name__}\n")
        section = rest.partition("\n### ")[0]
        common = {"occurred_at", *(name for names in events_doc.BASES.values() for name in names)}
        for name in cls.__dataclass_fields__.keys() - common:
            assert re.search(rf"(\*\*|`){name}(\*\*|`)", section), f"{cls.__name__}.{name}"


def test_each_header_stands_on_the_page():
    record = seal(
        Schemas(schemas_dir()), example(ChunkEmbedded), topic="embeddings", source="s", causation_id="c"
    )
    page = events_doc.text()
    assert [name for name, _ in record.headers if f"`{name}`" not in page] == []
