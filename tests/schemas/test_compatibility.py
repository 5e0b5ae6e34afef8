"""Every version ever written can be read by the newest code and the other way round; and the check can fail."""

import copy
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from tests.schemas.compatibility import breaches
from tests.schemas.examples import FOLDER

from eventlog.avro import Schema, Schemas, schema_id, schemas_dir

SCHEMAS = Schemas(schemas_dir())


def versions() -> dict[str, list[Schema]]:
    found: dict[str, list[Schema]] = defaultdict(list)
    for schema in SCHEMAS:
        found[schema.name].append(schema)
    return found


@pytest.mark.parametrize("name", versions())
def test_every_version_is_compatible_with_every_other_in_both_directions(name: str):
    assert breaches(versions()[name]) == []


def changed(change: Callable[[list[dict[str, Any]]], None], name: str = "DocumentRejected") -> list[str]:
    """The breaches between version 1 and a version 2 with this change to its fields."""
    first = SCHEMAS.newest(name)
    raw = copy.deepcopy(first.raw)
    change(raw["fields"])
    parsed = fastavro.parse_schema(copy.deepcopy(raw))
    return breaches([first, Schema(schema_id(raw), name, first.version + 1, raw, parsed)])


def field(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in fields if one["name"] == name)


def test_a_new_field_with_a_default_is_compatible():
    assert changed(lambda fields: fields.append({"name": "pages", "type": "int", "default": 0})) == []


def test_a_new_symbol_is_compatible():
    assert changed(lambda fields: field(fields, "reason")["type"]["symbols"].append("too_new")) == []


def test_a_field_with_a_default_may_go():
    assert changed(lambda fields: fields.remove(field(fields, "file_sha256"))) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda fields: fields.remove(field(fields, "project_id")), "an identity field is gone"),
        (lambda fields: fields.append({"name": "pages", "type": "int"}), "new without a default"),
        (lambda fields: field(fields, "item").update(name="file"), "renamed"),
        (lambda fields: field(fields, "message").update(name="words"), "renamed"),
        (lambda fields: field(fields, "reason")["type"].pop("default"), "has no default UNKNOWN"),
        (lambda fields: field(fields, "attempt").update(type="long"), "is long, was int"),
        (lambda fields: field(fields, "attempt").update(type="string"), "read as v2"),
        (lambda fields: field(fields, "file_sha256").update(type="string", default=""), "is string, was"),
        (lambda fields: field(fields, "message").pop("default"), "a default came or went"),
        (lambda fields: field(fields, "message").update(aliases=["text"]), "has aliases"),
        (lambda fields: field(fields, "reason")["type"].update(name="Other"), "has another type"),
    ],
)
def test_the_check_fails_on(change: Callable[[list[dict[str, Any]]], None], says: str):
    assert any(says in one for one in changed(change)), changed(change)


def test_the_check_looks_inside_arrays_of_records():
    def change(fields: list[dict[str, Any]]) -> None:
        settled = field(fields, "chunks")["type"]["items"]["fields"]
        settled.remove(field(settled, "offset"))

    assert any(
        "chunks[].offset: an identity field is gone" in one for one in changed(change, "ChunksSettled")
    )


def test_what_an_older_version_wrote_is_read_into_the_newest_class(tmp_path: Path):
    """The folder as it will be: what is written today stands as v1 beside a v2 with one more field."""
    for path in schemas_dir().glob("*.avsc"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    old_value, _ = Schemas(tmp_path).encode(_example("import_failed.v1.json"))
    older = json.loads((tmp_path / "import_failed.v1.avsc").read_text())
    # Today's class has `message`; let the version before it be the one without.
    (tmp_path / "import_failed.v2.avsc").write_text(json.dumps(older))
    older["fields"].remove(field(older["fields"], "message"))
    (tmp_path / "import_failed.v1.avsc").write_text(json.dumps(older))
    schemas = Schemas(tmp_path)
    assert [one.version for one in schemas if one.name == "ImportFailed"] == [1, 2]
    assert schemas.decode(old_value).message == _example("import_failed.v1.json").message

    parsed = fastavro.parse_schema(older)
    import io

    body = io.BytesIO()
    values = json.loads((FOLDER / "import_failed.v1.json").read_text())
    values["occurred_at"] = _example("import_failed.v1.json").occurred_at
    fastavro.schemaless_writer(body, parsed, {one["name"]: values[one["name"]] for one in older["fields"]})
    frame = b"\0" + schema_id(older).to_bytes(4, "big") + body.getvalue()
    assert schemas.decode(frame).message == ""


def _example(name: str) -> Any:
    from tests.schemas.examples import from_json

    from eventlog.events import ImportFailed

    return from_json(ImportFailed, json.loads((FOLDER / name).read_text()))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("Import_Failed.avsc", "{}", "is not <event>.v<n>.avsc"),
        ("other.v1.avsc", '{"type": "record", "name": "Another", "fields": []}', "holds Another"),
    ],
)
def test_a_file_that_does_not_belong_is_named_at_start(tmp_path: Path, name: str, text: str, says: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        Schemas(tmp_path)


def test_a_missing_schema_is_named_at_start(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no schema for .*ImportFailed"):
        Schemas(tmp_path)
