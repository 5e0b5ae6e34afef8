"""FULL_TRANSITIVE compatibility as we mean it: Avro's resolution both ways, and our own stricter rules.

Identity fields stay, every added field has a default, enums fall back, and nothing is renamed: a field that goes
while one of the same type comes is taken for a renamed one.
"""

import io
from itertools import permutations
from typing import Any

import fastavro

from eventlog.avro import Schema

Schemas = list[Schema]


def breaches(versions: Schemas) -> list[str]:
    """What is wrong between any two versions of one event, in words; empty when all is well."""
    found: list[str] = []
    for older, newer in permutations(sorted(versions, key=lambda one: one.version), 2):
        if older.version < newer.version:
            where = f"{newer.name} v{older.version} to v{newer.version}"
            found += [f"{where}: {one}" for one in rules(older.raw, newer.raw)]
        found += [
            f"{older.name} v{older.version} read as v{newer.version}: {one}"
            for one in unreadable(older, newer)
        ]
    for version in versions:
        found += [f"{version.name} v{version.version}: {one}" for one in lacks(version.raw)]
    return found


def rules(older: Any, newer: Any, at: str = "") -> list[str]:
    if isinstance(older, str) or isinstance(newer, str):
        return [] if older == newer else [f"{at} is {newer}, was {older}"]
    if isinstance(older, list) or isinstance(newer, list):
        if not (isinstance(older, list) and isinstance(newer, list) and len(older) == len(newer)):
            return [f"{at} is another union"]
        return [one for pair in zip(older, newer, strict=True) for one in rules(*pair, at)]
    if (older["type"], older.get("name"), older.get("logicalType")) != (
        newer["type"],
        newer.get("name"),
        newer.get("logicalType"),
    ):
        return [f"{at} has another type"]
    if older["type"] == "record":
        return _fields(older, newer, at)
    if older["type"] == "array":
        return rules(older["items"], newer["items"], f"{at}[]")
    if older["type"] == "map":
        return rules(older["values"], newer["values"], f"{at}{{}}")
    if older["type"] == "fixed" and older["size"] != newer["size"]:
        return [f"{at} has another size"]
    return []


def _fields(older: Any, newer: Any, at: str) -> list[str]:
    before = {one["name"]: one for one in older["fields"]}
    after = {one["name"]: one for one in newer["fields"]}
    gone = [one for name, one in before.items() if name not in after]
    come = [one for name, one in after.items() if name not in before]
    found = [f"{at}.{one['name']}: an identity field is gone" for one in gone if "default" not in one]
    found += [f"{at}.{one['name']}: new without a default" for one in come if "default" not in one]
    found += [
        f"{at}.{one['name']} was renamed to {other['name']}"
        for one in gone
        for other in come
        if one["type"] == other["type"]
    ]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if ("default" in old) != ("default" in new):
            found.append(f"{at}.{name}: a default came or went")
        found += rules(old["type"], new["type"], f"{at}.{name}")
    return found


def lacks(schema: Any, at: str = "") -> list[str]:
    """What one version alone does wrong."""
    if isinstance(schema, list):
        return [found for one in schema for found in lacks(one, at)]
    if not isinstance(schema, dict):
        return []
    found = [f"{at} has aliases"] if "aliases" in schema else []
    if schema.get("type") == "enum" and schema.get("default") != "UNKNOWN":
        found.append(f"{at}: the enum {schema['name']} has no default UNKNOWN")
    for one in schema.get("fields", []):
        found += lacks(one, f"{at}.{one['name']}")
    for key in ("type", "items", "values"):
        found += lacks(schema.get(key), at)
    return found


def unreadable(writer: Schema, reader: Schema) -> list[str]:
    """What Avro itself says: a record of every default and zero, written by one and read by the other."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, writer.parsed, sample(writer.raw, {}))
    body.seek(0)
    try:
        fastavro.schemaless_reader(body, writer.parsed, reader.parsed)
    except Exception as error:  # noqa: BLE001 - fastavro has many; each is a breach
        return [f"{type(error).__name__}: {error}"]
    return []


def sample(schema: Any, named: dict[str, Any]) -> Any:
    """A value that fits, with every array filled and every union at its last branch."""
    if isinstance(schema, list):
        return sample(schema[-1], named)
    if isinstance(schema, str):
        plain: dict[str, Any] = {
            "string": "s",
            "int": 1,
            "long": 1,
            "boolean": True,
            "bytes": b"b",
            "float": 0.5,
        }
        return plain[schema] if schema in plain else sample(named[schema], named)
    if "name" in schema:
        named[f"paperlog.{schema['name']}"] = schema
    match schema["type"]:
        case "record":
            return {one["name"]: sample(one["type"], named) for one in schema["fields"]}
        case "enum":
            return schema["symbols"][-1]
        case "array":
            return [sample(schema["items"], named)]
        case "map":
            return {"k": sample(schema["values"], named)}
        case "fixed":
            return b"\0" * schema["size"]
        case "string":
            return "00000000-0000-0000-0000-000000000000"
        case other:
            return sample(other, named)
