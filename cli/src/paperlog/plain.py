"""Text for a terminal: what comes from libraries and services may not steer the terminal that shows it."""

import json
import re
from typing import Any

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, …: titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_DIRECTIONS = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]")
"""Marks that turn the reading direction of what follows them; the terminal finds the direction of Arabic by itself."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s+")
_JSON_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: object) -> str:
    """The text without escape sequences, control characters, direction marks and lone surrogates; lines are kept."""
    text = "" if value is None else str(value)
    text = text.replace("\r\n", "\n").replace("\t", " ")
    text = _SEQUENCES.sub("", text)
    text = _CONTROLS.sub(" ", text)
    text = _DIRECTIONS.sub("", text)
    return _SURROGATES.sub("\ufffd", text)


def one_line(value: object) -> str:
    return _SPACE.sub(" ", plain(value)).strip()


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON that a terminal shows safely and any reader takes: readable letters, everything else escaped."""
    return safe_json(json.dumps(value, ensure_ascii=False, indent=indent))


def safe_json(text: str) -> str:
    """JSON, or a piece of it, as it came from elsewhere: the same value, without what a terminal would obey."""
    return _JSON_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
