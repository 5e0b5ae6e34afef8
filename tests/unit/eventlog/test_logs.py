"""A log line is one line, whatever its values hold."""

import io
import logging

import pytest

from eventlog import logs
from eventlog.logs import Logger


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch):
    """What was logged since, as lines."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure()
    yield lambda: stream.getvalue().splitlines()
    root.handlers[:] = before
    root.setLevel(level)


def fields_of(line: str) -> str:
    """Behind time, level and logger."""
    return line.split(" ", 3)[3]


def test_a_line_is_time_level_logger_event_and_pairs(lines):
    Logger("embedder").info("chunk.embedded", chunk_id="c1", count=3, is_reused=False)
    (line,) = lines()
    at, level, name, rest = line.split(" ", 3)
    assert at[10] == "T"
    assert at.endswith("Z")
    assert (level, name) == ("info", "embedder")
    assert rest == "chunk.embedded chunk_id=c1 count=3 is_reused=False"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("größer/λ", "größer/λ"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "no"', '"say \\"no\\""'),
        ("a\nb\r\tc", '"a\\nb\\r\\tc"'),
        ("\x00\x1b[31m", '"\\u0000\\u001b[31m"'),
        ("a\u2028b\x85c\x9bd", '"a\\u2028b\\x85c\\x9bd"'),
        ("\ud800", '"\\ud800"'),
        (None, "None"),
    ],
)
def test_a_value_that_could_break_the_line_is_quoted(lines, value: object, shown: str):
    Logger("x").info("event", value=value)
    assert [fields_of(one) for one in lines()] == [f"event value={shown}"]


def test_a_long_value_is_cut(lines):
    Logger("x").info("event", value="v" * 10_000)
    (line,) = lines()
    assert fields_of(line) == "event value=" + "v" * logs.VALUE_LENGTH_MAX + "…"


def test_a_traceback_stands_on_the_same_line(lines):
    try:
        {}["two\nlines"]
    except LookupError:
        Logger("x").exception("service.failed", code=70)
    (line,) = lines()
    assert fields_of(line).startswith('service.failed code=70 traceback="Traceback')
    assert "KeyError: 'two\\\\nlines'" in line


def test_what_was_raised_elsewhere_has_its_traceback_too(lines):
    Logger("x").exception("service.failed", ValueError("two"), code=70)
    assert [fields_of(one) for one in lines()] == ['service.failed code=70 traceback="ValueError: two"']


def test_what_other_libraries_log_is_one_line_too_and_cut(lines):
    logging.getLogger("other").warning("first\nsecond %s", "x" * 5000)
    (line,) = lines()
    assert fields_of(line).startswith("first second xxx")
    assert len(fields_of(line)) == logs.MESSAGE_LENGTH_MAX


def test_a_percent_sign_in_an_event_does_no_harm(lines):
    Logger("x").info("100%", value="%s")
    assert fields_of(lines()[0]) == "100% value=%s"


def test_what_a_client_library_repeats_is_said_once_in_a_while(lines):
    logger = logging.getLogger("aiokafka.consumer.fetcher")
    for number in range(100):
        logger.error("Failed fetch messages from %s", number)
    logger.error("something else")
    assert [fields_of(one) for one in lines()] == ["Failed fetch messages from 0", "something else"]


def test_what_we_repeat_is_said_each_time(lines):
    for number in range(3):
        Logger("embedder").error("embedder.failed", number=number)
    assert len(lines()) == 3


def test_small_talk_of_client_libraries_is_left_out(lines):
    logging.getLogger("aiokafka").info("hello")
    assert lines() == []
