"""Whatever stands in a record's value, reading it gives a message or UnprocessableRecord, and nothing else."""

import random

import pytest
from tests.schemas.examples import example, examples

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import read_chunk_headers, seal, unseal
from eventlog.errors import UnprocessableRecord
from eventlog.events import ChunkExtracted, ChunkMessage, Message
from eventlog.log import Record

SCHEMAS = Schemas(schemas_dir())
SEED = 20260314
each_example = pytest.mark.parametrize("message", examples(), ids=lambda one: type(one).__name__)


def reason_of(value: bytes | None) -> str:
    with pytest.raises(UnprocessableRecord) as caught:
        SCHEMAS.decode(value)
    return caught.value.reason


def encoded(message: Message) -> bytes:
    return SCHEMAS.encode(message)[0]


def test_a_null_value_is_poison():
    assert reason_of(None) == "value_null"


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"{}", b'{"import_id": 1}', b"\x01\0\0\0\x01x"])
def test_a_value_without_a_frame_is_poison(value: bytes):
    assert reason_of(value) == "frame_invalid"


def test_an_unknown_schema_id_is_poison_and_is_named():
    with pytest.raises(UnprocessableRecord, match="schema_unknown: 7"):
        SCHEMAS.decode(b"\0\0\0\0\x07body")


@each_example
def test_a_value_cut_short_anywhere_is_poison(message: Message):
    value = encoded(message)
    for length in range(len(value)):
        assert reason_of(value[:length]) in {"frame_invalid", "avro_invalid"}, length


@each_example
def test_trailing_bytes_are_poison(message: Message):
    for more in (b"\0", b"x", encoded(message)):
        assert reason_of(encoded(message) + more) == "bytes_trailing"


@each_example
def test_random_bytes_behind_a_good_frame_are_a_message_or_poison(message: Message):
    rng = random.Random(f"{SEED} {type(message).__name__}")
    frame = encoded(message)[:5]
    for _ in range(300):
        _read(frame + rng.randbytes(rng.randrange(400)))


@each_example
def test_a_damaged_value_is_a_message_or_poison(message: Message):
    rng = random.Random(f"{SEED} {type(message).__name__}")
    good = encoded(message)
    for _ in range(600):
        value = bytearray(good)
        for _ in range(rng.choice((1, 1, 1, 3, 8))):
            at = rng.randrange(5, len(value))
            match rng.randrange(3):
                case 0:
                    value[at] = rng.randrange(256)
                case 1:
                    value[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(12))
                case _:
                    value[at:at] = b"\xff" * rng.randrange(1, 12)
        _read(bytes(value))


def _read(value: bytes) -> None:
    """What can be read can be written again: no value came out that the schema does not allow."""
    try:
        message = SCHEMAS.decode(value)
    except UnprocessableRecord:
        return
    assert SCHEMAS.decode(encoded(message)) == message


def test_a_number_beyond_32_bits_in_a_32_bit_field_is_poison():
    value = encoded(example(ChunkExtracted))
    at = value.index(b"\x02", 5 + 8 + 37 + 37)  # attempt = 1, behind the time and two ids of 36 characters
    assert reason_of(value[:at] + b"\xfe\xff\xff\xff\xff\xff\x01" + value[at + 1 :]) == "avro_invalid"


def record_of(message: Message, **headers: bytes | None) -> Record:
    new = seal(SCHEMAS, message, topic="chunks", source="urn:paperlog:test")
    kept = [(name, headers.get(name, value)) for name, value in new.headers]
    return Record(
        topic=new.topic,
        partition=0,
        offset=0,
        key=new.key,
        value=new.value,
        headers=tuple((name, value) for name, value in kept if value is not None),
    )


def test_headers_say_whose_chunk_it_is():
    message = example(ChunkExtracted)
    found = read_chunk_headers(record_of(message))
    for name in ("import_id", "project_id", "attempt", "document_id", "chunk_id", "revision", "chunk_index"):
        assert getattr(found, name) == getattr(message, name), name
    assert (found.kind, found.part, found.embedding_key, found.space) == (
        message.kind,
        message.part,
        message.embedding_key,
        message.space,
    )


def chunk_header_names() -> list[str]:
    return [name for name, _ in record_of(example(ChunkExtracted)).headers if name.startswith("paperlog_")]


@pytest.mark.parametrize("name", chunk_header_names())
@pytest.mark.parametrize("value", [None, b"\xff\xfe", b""])
def test_a_missing_or_wrong_header_is_poison_for_whoever_needs_it(name: str, value: bytes | None):
    broken = record_of(example(ChunkExtracted), **{name: value})
    with pytest.raises(UnprocessableRecord, match="headers_invalid"):
        read_chunk_headers(broken)
    assert isinstance(unseal(SCHEMAS, broken).event, ChunkMessage)


def test_a_null_header_is_poison_and_does_not_hinder_reading_the_value():
    good = record_of(example(ChunkExtracted))
    headers = tuple((name, None if name == "paperlog_space" else value) for name, value in good.headers)
    broken = Record(topic="chunks", partition=0, offset=0, key=good.key, value=good.value, headers=headers)  # type: ignore[arg-type]  # as a foreign producer writes it
    with pytest.raises(UnprocessableRecord, match="headers_invalid"):
        read_chunk_headers(broken)
    with_null_id = Record(
        topic="chunks",
        partition=0,
        offset=0,
        key=None,
        value=good.value,
        headers=(("ce_id", None),),  # type: ignore[arg-type]  # as above
    )
    assert unseal(SCHEMAS, with_null_id).id == ""
