"""A dead letter fits into the log whatever the record is, or the consumer would die of it again and again."""

from datetime import UTC, datetime

import pytest

from eventlog.envelope import dead_letter
from eventlog.log import Header, NewRecord, Record
from eventlog.topics import RECORD_BYTES_MAX


def letter_of(
    value: bytes | None, *, key: bytes | None = None, headers: tuple[Header, ...] = ()
) -> NewRecord:
    record = Record(topic="import-requests", partition=0, offset=7, key=key, value=value, headers=headers)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return dead_letter(
        record, topic="ingest-dlq", reason="frame_invalid", message="why", consumer="ingest", at=at
    )


def test_a_record_with_room_for_the_reason_is_kept_byte_for_byte():
    letter = letter_of(b"?" * (RECORD_BYTES_MAX - 2_000), headers=(("a", b"b"),))
    assert len(letter.value or b"") == RECORD_BYTES_MAX - 2_000
    assert letter.headers[0] == ("a", b"b")
    assert "dlq_cut_at" not in dict(letter.headers)


@pytest.mark.parametrize("size", [RECORD_BYTES_MAX - 200, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 10_000])
def test_a_record_without_room_for_the_reason_loses_its_end_and_says_where(size: int):
    letter = letter_of(b"?" * size)
    assert letter.size_bytes <= RECORD_BYTES_MAX
    assert dict(letter.headers)["dlq_cut_at"] == str(len(letter.value or b"")).encode()
    assert len(letter.value or b"") > RECORD_BYTES_MAX - 2_000


@pytest.mark.parametrize(
    ("key", "headers"), [(b"k" * RECORD_BYTES_MAX, ()), (b"k", (("h", b"v" * RECORD_BYTES_MAX),))]
)
def test_of_a_record_whose_key_or_headers_are_too_large_the_coordinates_are_left(
    key: bytes, headers: tuple[Header, ...]
):
    letter = letter_of(b"?", key=key, headers=headers)
    assert letter.size_bytes <= RECORD_BYTES_MAX
    assert (letter.value, dict(letter.headers)["dlq_offset"]) == (b"", b"7")
