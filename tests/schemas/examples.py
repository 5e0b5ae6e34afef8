"""Reads `schemas/examples/*.json` into messages: ids as text, times in ISO 8601, bytes in base64, enums by symbol."""

import base64
import json
import re
import typing
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin
from uuid import UUID

from eventlog.avro import _is_optional, _strip, schemas_dir
from eventlog.events import MESSAGES, Message

FOLDER = schemas_dir() / "examples"
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


def path_of(cls: type[Message], version: int | None = None) -> Path:
    """Of the newest version where none is named."""
    name = _WORDS.sub("_", cls.__name__).lower()
    if version is None:
        version = max(int(path.stem.rpartition(".v")[2]) for path in FOLDER.glob(f"{name}.v*.json"))
    return FOLDER / f"{name}.v{version}.json"


def example(cls: type[Message], version: int | None = None) -> Any:
    return from_json(cls, json.loads(path_of(cls, version).read_text(encoding="utf-8")))


def examples() -> list[Message]:
    return [example(cls) for cls in MESSAGES]


def from_json(annotation: Any, value: Any) -> Any:
    """Raises TypeError for a field that the dataclass does not have or that lacks without a default."""
    if value is None:
        if not _is_optional(annotation):
            raise TypeError(f"null is no {annotation}")
        return None
    inner = _strip(annotation)
    origin = get_origin(inner)
    if origin is tuple:
        return tuple(from_json(get_args(inner)[0], one) for one in value)
    if origin is dict:
        return dict(value)
    if is_dataclass(inner):
        hints = typing.get_type_hints(inner, include_extras=True)
        return inner(**{name: from_json(hints.get(name, str), one) for name, one in value.items()})
    if issubclass(inner, StrEnum | UUID):
        return inner(value)
    if inner is datetime:
        return datetime.fromisoformat(value)
    if inner is bytes:
        return base64.b64decode(value, validate=True)
    if type(value) is not inner and not (inner is float and type(value) is int):
        raise TypeError(f"{value!r} is no {inner.__name__}")
    return inner(value)


def to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple):
        return [to_json(one) for one in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
