"""The schema that a dataclass implies, so that a test can hold it against the file."""

import types
import typing
from dataclasses import MISSING, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, get_args, get_origin
from uuid import UUID

from eventlog.avro import _is_optional, _strip, default_of

_PLAIN = {str: "string", bool: "boolean", int: "int", bytes: "bytes"}
_ID16 = {"type": "fixed", "name": "Id16", "namespace": "paperlog", "size": 16}


def schema_of(cls: type) -> dict[str, Any]:
    return _record(cls, set())


def _record(cls: type, seen: set[str]) -> dict[str, Any]:
    seen.add(cls.__name__)
    hints = typing.get_type_hints(cls, include_extras=True)
    out = []
    for one in fields(cls):
        described: dict[str, Any] = {"name": one.name, "type": _type(hints[one.name], seen)}
        default = default_of(one)
        if default is not MISSING:
            described["default"] = _default(default)
        out.append(described)
    return {"type": "record", "name": cls.__name__, "namespace": "paperlog", "fields": out}


def _type(annotation: Any, seen: set[str]) -> Any:
    if _is_optional(annotation):
        (inner,) = (one for one in get_args(annotation) if one is not types.NoneType)
        return ["null", _type(inner, seen)]
    if get_origin(annotation) is typing.Annotated:
        return get_args(annotation)[1]
    inner = _strip(annotation)
    if inner in _PLAIN:
        return _PLAIN[inner]
    if inner is UUID:
        return {"type": "string", "logicalType": "uuid"}
    if inner is datetime:
        return {"type": "long", "logicalType": "timestamp-micros"}
    if get_origin(inner) is dict:
        return {"type": "map", "values": "string"}
    if get_origin(inner) is tuple:
        item = get_args(inner)[0]
        if _strip(item) is UUID:
            return {"type": "array", "items": _named("Id16", _ID16, seen)}
        return {"type": "array", "items": _type(item, seen)}
    if inner.__name__ in seen:
        return f"paperlog.{inner.__name__}"
    if issubclass(inner, StrEnum):
        symbols = [one.value for one in inner]
        enum = {"type": "enum", "name": inner.__name__, "namespace": "paperlog", "symbols": symbols}
        return _named(inner.__name__, {**enum, "default": "UNKNOWN"}, seen)
    return _record(inner, seen)


def _named(name: str, schema: dict[str, Any], seen: set[str]) -> Any:
    """A name is defined where it first stands, and named from then on."""
    if name in seen:
        return f"paperlog.{name}"
    seen.add(name)
    return schema


def _default(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.decode("latin-1") if isinstance(value, bytes) else value
