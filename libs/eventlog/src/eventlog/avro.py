"""Avro and the Confluent frame: messages to bytes and back, and the table of every schema we ever wrote.

Schemas are read from the `schemas` folder; their ids are the first 30 bits of the SHA-256 of their canonical form,
the same on every machine, so nobody asks a registry in order to write or read. A body that does not decode to its
last byte is `UnprocessableRecord`: fastavro itself would accept trailing bytes.
"""

import hashlib
import io
import json
import re
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NewType, get_args, get_origin
from uuid import UUID

import fastavro

from eventlog.errors import UnprocessableRecord
from eventlog.events import MESSAGES, Message
from eventlog.ids import id_text

MAGIC = b"\x00"
_FRAME_LENGTH = 5
_FILE_NAME = re.compile(r"(?P<name>[a-z_]+)\.v(?P<version>\d+)\.avsc")
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
_CANONICAL_KEYS = ("name", "type", "logicalType", "fields", "symbols", "items", "values", "size", "default")


def schemas_dir() -> Path:
    """The folder of schemas: inside an installed package, or at the top of the checkout."""
    packaged = Path(__file__).parent / "schemas"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[4] / "schemas"


def _canonical(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_canonical(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {
        key: _canonical(schema[key]) if key != "default" else schema[key]
        for key in _CANONICAL_KEYS
        if key in schema
    }
    if "namespace" in schema and "name" in out and "." not in out["name"]:
        out["name"] = f"{schema['namespace']}.{out['name']}"
    return out


def canonical_json(schema: Any) -> str:
    """Names qualified, docs and aliases dropped, defaults kept, keys in one order, no white space."""
    return json.dumps(_canonical(schema), separators=(",", ":"), ensure_ascii=False)


def schema_id(schema: Any) -> int:
    """30 bits, never 0: a Confluent id is a positive int32."""
    return (int.from_bytes(hashlib.sha256(canonical_json(schema).encode()).digest()[:4], "big") >> 2) or 1


@dataclass(frozen=True, slots=True)
class Schema:
    id: int
    name: str
    version: int
    raw: dict[str, Any]
    parsed: Any

    @property
    def full_name(self) -> str:
        return f"{self.raw['namespace']}.{self.raw['name']}"


# A record that crosses the wire either way: one function per type, built once at start.
_Convert = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _strip(annotation: Any) -> Any:
    """`Long` → int, `ChunkId` → UUID, `X | None` → X."""
    if get_origin(annotation) is typing.Annotated:
        return _strip(get_args(annotation)[0])
    if isinstance(annotation, NewType):
        return _strip(annotation.__supertype__)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return _strip(next(arg for arg in get_args(annotation) if arg is not types.NoneType))
    return annotation


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (typing.Union, types.UnionType)


def _integer(bits: int) -> _Convert:
    """What does not fit is written by fastavro all the same, and no other reader could read it."""
    limit = 1 << (bits - 1)

    def check(value: Any) -> Any:
        if type(value) is not int or not -limit <= value < limit:
            raise ValueError(f"{value!r} does not fit {bits} bits")
        return value

    return check


def _time(value: Any) -> Any:
    if value.tzinfo is None:  # fastavro would take it for local time
        raise ValueError("a time without zone")
    return value


_INT, _LONG = _integer(32), _integer(64)


def _is_long(annotation: Any) -> bool:
    if _is_optional(annotation):
        return any(_is_long(one) for one in get_args(annotation))
    return get_origin(annotation) is typing.Annotated and get_args(annotation)[1] == "long"


def _encoder(annotation: Any) -> _Convert:
    inner = _strip(annotation)
    if inner is UUID:
        return id_text
    if inner is int:
        return _LONG if _is_long(annotation) else _INT
    if inner is datetime:
        return _time
    if get_origin(inner) is tuple:
        item = get_args(inner)[0]
        if _strip(item) is UUID:
            return lambda ids: [one.bytes for one in ids]
        each = _encoder(item)
        return list if each is _same else lambda items: [each(one) for one in items]
    if is_dataclass(inner):
        return _record_encoder(inner)
    return _same


def _record_encoder(cls: Any) -> _Convert:
    hints = typing.get_type_hints(cls, include_extras=True)
    plain: list[str] = []
    converted: list[tuple[str, _Convert]] = []
    for spec in fields(cls):
        convert = _encoder(hints[spec.name])
        if convert is _same:
            plain.append(spec.name)
        else:
            converted.append((spec.name, convert))

    def encode(value: Any) -> dict[str, Any]:
        out = {name: getattr(value, name) for name in plain}
        for name, convert in converted:
            item = getattr(value, name)
            out[name] = None if item is None else convert(item)
        return out

    return encode


def _decoder(annotation: Any) -> _Convert:
    inner = _strip(annotation)
    if get_origin(inner) is tuple:
        item = get_args(inner)[0]
        if _strip(item) is UUID:
            return lambda ids: tuple(UUID(bytes=one) for one in ids)
        each = _decoder(item)
        return tuple if each is _same else lambda items: tuple(each(one) for one in items)
    if is_dataclass(inner):
        return _record_decoder(inner)
    if isinstance(inner, type) and issubclass(inner, StrEnum):
        return inner
    if inner is int and not _is_long(annotation):
        return _INT  # fastavro reads 64 bits everywhere
    return _same


def _record_decoder(cls: Any) -> _Convert:
    hints = typing.get_type_hints(cls, include_extras=True)
    converted = []
    for spec in fields(cls):
        convert = _decoder(hints[spec.name])
        if convert is not _same:
            converted.append((spec.name, convert, _is_optional(hints[spec.name])))

    def decode(values: dict[str, Any]) -> Any:
        for name, convert, is_optional in converted:
            value = values[name]
            if not (is_optional and value is None):
                values[name] = convert(value)
        return cls(**values)

    return decode


class Schemas:
    """Every version of every schema; the newest of each is what we write and read into."""

    def __init__(self, folder: Path) -> None:
        self._by_id: dict[int, Schema] = {}
        self._newest: dict[str, Schema] = {}
        for path in sorted(folder.glob("*.avsc")):
            self._add(path)
        self._types = {cls.__name__: cls for cls in MESSAGES}
        missing = sorted(set(self._types) - set(self._newest))
        if missing:
            raise FileNotFoundError(f"no schema for {', '.join(missing)} in {folder}")
        self._encode = {name: _record_encoder(cls) for name, cls in self._types.items()}
        self._decode = {name: _record_decoder(cls) for name, cls in self._types.items()}

    def _add(self, path: Path) -> None:
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path.name} is not <event>.v<n>.avsc")
        raw = json.loads(path.read_text(encoding="utf-8"))
        if _WORDS.sub("_", raw["name"]).lower() != match["name"]:
            raise ValueError(f"{path.name} holds {raw['name']}")
        schema = Schema(
            schema_id(raw), raw["name"], int(match["version"]), raw, fastavro.parse_schema(raw, expand=False)
        )
        if schema.id in self._by_id:
            raise ValueError(f"{path.name} and {self._by_id[schema.id].name} have one id, {schema.id}")
        self._by_id[schema.id] = schema
        newest = self._newest.get(schema.name)
        if newest is None or newest.version < schema.version:
            self._newest[schema.name] = schema

    def __iter__(self) -> typing.Iterator[Schema]:
        return iter(self._by_id.values())

    def by_id(self, id_: int) -> Schema | None:
        return self._by_id.get(id_)

    def newest(self, name: str) -> Schema:
        return self._newest[name]

    def encode(self, message: Message) -> tuple[bytes, bytes]:
        """The framed value, and the body without `occurred_at` (for `ce_id`).

        Raises UnprocessableRecord when a value does not fit its schema.
        """
        name = type(message).__name__
        schema = self._newest[name]
        out = io.BytesIO()
        out.write(MAGIC + schema.id.to_bytes(4, "big"))
        try:
            fastavro.schemaless_writer(out, schema.parsed, self._encode[name](message), strict=True)
        except Exception as error:  # noqa: BLE001 - fastavro raises a dozen kinds for a value that does not fit
            raise UnprocessableRecord("avro_unencodable", f"{name}: {type(error).__name__}") from None
        value = out.getvalue()
        return value, value[_after_first_long(value, _FRAME_LENGTH) :]

    def decode(self, value: bytes | None) -> Message:
        """Raises UnprocessableRecord with the reason in a word: see the codes below."""
        if value is None:
            raise UnprocessableRecord("value_null")
        if len(value) < _FRAME_LENGTH or value[:1] != MAGIC:
            raise UnprocessableRecord("frame_invalid", f"{len(value)} bytes")
        schema = self._by_id.get(int.from_bytes(value[1:_FRAME_LENGTH], "big"))
        if schema is None:
            raise UnprocessableRecord("schema_unknown", str(int.from_bytes(value[1:_FRAME_LENGTH], "big")))
        newest = self._newest[schema.name]
        body = io.BytesIO(value)
        body.seek(_FRAME_LENGTH)
        try:
            values = fastavro.schemaless_reader(
                body, schema.parsed, None if schema is newest else newest.parsed
            )
            message = self._decode[schema.name](values)
        except Exception as error:  # noqa: BLE001 - poison raises EOFError, IndexError, ValueError, UnicodeDecodeError and more
            raise UnprocessableRecord("avro_invalid", f"{schema.name}: {type(error).__name__}") from None
        if body.tell() != len(value):
            raise UnprocessableRecord("bytes_trailing", f"{len(value) - body.tell()} bytes")
        assert isinstance(message, Message)
        return message


def _after_first_long(data: bytes, at: int) -> int:
    """The index behind the variable-length integer that starts at `at`."""
    while data[at] & 0x80:
        at += 1
    return at + 1


def default_of(spec: Any) -> Any:
    """A dataclass field's default value, or MISSING for an identity field."""
    return spec.default_factory() if spec.default_factory is not MISSING else spec.default
