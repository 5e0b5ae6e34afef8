"""The wire format and the derivation of ids do not change by accident."""

import json
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

import pytest
from tests.schemas.examples import example, examples
from tests.schemas.golden import PATH, golden

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import event_id_of
from eventlog.events import MESSAGES, Message

SCHEMAS = Schemas(schemas_dir())
GOLDEN = json.loads(PATH.read_text(encoding="utf-8"))
each_message = pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)


def ce_id(message: Message) -> UUID:
    return event_id_of(message, SCHEMAS.encode(message)[1])


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, StrEnum):
        return next(one for one in type(value) if one is not value and one != "UNKNOWN")
    if isinstance(value, bool):
        return not value
    if isinstance(value, UUID):
        return uuid5(value, "other")
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, bytes):
        return value + b"\0"
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {**value, "other": "x"}
    if isinstance(value, tuple):
        return (*value[:-1], other(value[-1])) if value else None
    assert is_dataclass(value)
    first = fields(value)[0].name
    return replace(value, **{first: other(getattr(value, first))})


@each_message
def test_an_example_has_the_bytes_key_headers_and_id_that_it_always_had(cls: type[Message]):
    assert golden(SCHEMAS, example(cls)) == GOLDEN[cls.__name__]


def test_every_version_of_every_message_has_its_golden_bytes_and_nothing_else_has():
    newest = {cls.__name__ for cls in MESSAGES}
    older = {
        f"{one.name}.v{one.version}" for one in SCHEMAS if one.version < SCHEMAS.newest(one.name).version
    }
    assert set(GOLDEN) == newest | older


@pytest.mark.parametrize("named", [name for name in GOLDEN if ".v" in name])
def test_golden_bytes_of_an_older_version_are_read_as_its_example(named: str):
    name, _, version = named.rpartition(".v")
    cls = next(one for one in MESSAGES if one.__name__ == name)
    value = bytes.fromhex(GOLDEN[named]["value"])
    assert SCHEMAS.by_id(int.from_bytes(value[1:5], "big")).version == int(version)
    assert SCHEMAS.decode(value) == example(cls, int(version))


@each_message
def test_golden_bytes_are_read_as_the_example(cls: type[Message]):
    assert SCHEMAS.decode(bytes.fromhex(GOLDEN[cls.__name__]["value"])) == example(cls)


@each_message
def test_a_fact_said_again_later_has_the_same_id(cls: type[Message]):
    message = example(cls)
    for seconds in (-3600, 1, 10**9):
        assert ce_id(replace(message, occurred_at=message.occurred_at + timedelta(seconds=seconds))) == ce_id(
            message
        )


@each_message
def test_a_fact_that_says_anything_else_has_another_id(cls: type[Message]):
    message = example(cls)
    for one in fields(cls):
        value = other(getattr(message, one.name)) if getattr(message, one.name) is not None else None
        if one.name != "occurred_at" and value is not None:
            assert ce_id(replace(message, **{one.name: value})) != ce_id(message), one.name


def test_facts_of_different_types_never_share_an_id():
    ids = [ce_id(one) for one in examples()]
    assert len(set(ids)) == len(ids)
