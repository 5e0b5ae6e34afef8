"""The part of the Confluent schema registry's API that deserializers and consoles call, answered from our schemas.

Read only: ids follow from the schemas themselves, so there is nothing to register. Subjects are topic and record name,
with the deployment's prefix. It knows nothing of imports.
"""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from eventlog.avro import Schema, Schemas, schema_id
from eventlog.topics import Names, Topic, subjects

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
COMPATIBILITY = "FULL_TRANSITIVE"
BODY_BYTES_MAX = 1024**2


class _Answer(JSONResponse):
    media_type = MEDIA_TYPE


_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A registry's error, not a problem document",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {"error_code": {"type": "integer"}, "message": {"type": "string"}},
                    "required": ["error_code", "message"],
                }
            }
        },
    }
}


def _error(code: int, message: str) -> JSONResponse:
    # The first three digits of a registry's error code are the HTTP status.
    return _Answer({"error_code": code, "message": message}, int(str(code)[:3]))


def _text(schema: Schema) -> str:
    return json.dumps(schema.raw, separators=(",", ":"))


class _Subjects:
    def __init__(self, schemas: Schemas, topics: dict[str, Topic], names: Names) -> None:
        self.schemas = schemas
        self.versions = subjects(schemas, topics.values(), names)

    def version(self, subject: str, version: str) -> Schema | JSONResponse:
        found = self.versions.get(subject)
        if found is None:
            return _error(40401, f"Subject '{subject[:200]}' not found.")
        if version in ("latest", "-1"):
            return found[max(found)]
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        return found.get(number) or _error(40402, f"Version {version[:20]} not found.")

    def of_schema(self, schema: Schema) -> list[dict[str, Any]]:
        return [
            {"subject": subject, "version": schema.version}
            for subject, versions in sorted(self.versions.items())
            if versions.get(schema.version) is schema
        ]


def _described(subject: str, schema: Schema) -> dict[str, Any]:
    return {"subject": subject, "id": schema.id, "version": schema.version, "schema": _text(schema)}


def router(schemas: Schemas, topics: dict[str, Topic], names: Names) -> APIRouter:
    routes = APIRouter(tags=["schema registry"], default_response_class=_Answer, responses=_ERROR)
    known = _Subjects(schemas, topics, names)
    _by_id(routes, known)
    _by_subject(routes, known)

    @routes.get("/config", summary="The compatibility that a test holds every schema to")
    @routes.get("/config/{subject}", include_in_schema=False)
    async def config(subject: str = "") -> JSONResponse:
        if subject and subject not in known.versions:
            return _error(40401, f"Subject '{subject[:200]}' not found.")
        return _Answer({"compatibilityLevel": COMPATIBILITY})

    @routes.get("/mode", include_in_schema=False)
    @routes.get("/mode/{subject}", include_in_schema=False)
    async def mode(subject: str = "") -> JSONResponse:
        del subject  # all are alike
        return _Answer({"mode": "READONLY"})

    return routes


def _by_id(routes: APIRouter, subjects: _Subjects) -> None:
    unknown = _error(40403, "Schema not found")

    @routes.get("/schemas/types", summary="Only Avro")
    async def types() -> JSONResponse:
        return _Answer(["AVRO"])

    @routes.get("/schemas/ids/{schema_id}", summary="A schema by the id in a record's first bytes")
    async def by_id(schema_id: int) -> JSONResponse:
        found = subjects.schemas.by_id(schema_id)
        return unknown if found is None else _Answer({"schema": _text(found), "schemaType": "AVRO"})

    @routes.get("/schemas/ids/{schema_id}/schema", include_in_schema=False)
    async def text_by_id(schema_id: int) -> JSONResponse:
        found = subjects.schemas.by_id(schema_id)
        return unknown if found is None else _Answer(found.raw)

    @routes.get("/schemas/ids/{schema_id}/versions", summary="Where a schema is used")
    async def versions_by_id(schema_id: int) -> JSONResponse:
        found = subjects.schemas.by_id(schema_id)
        return unknown if found is None else _Answer(subjects.of_schema(found))

    @routes.get("/schemas/ids/{schema_id}/subjects", include_in_schema=False)
    async def subjects_by_id(schema_id: int) -> JSONResponse:
        found = subjects.schemas.by_id(schema_id)
        if found is None:
            return unknown
        return _Answer([row["subject"] for row in subjects.of_schema(found)])


def _by_subject(routes: APIRouter, subjects: _Subjects) -> None:
    @routes.get("/subjects", summary="Every topic with every record that stands there")
    async def all_subjects() -> JSONResponse:
        return _Answer(sorted(subjects.versions))

    @routes.get("/subjects/{subject}/versions", summary="The versions of a subject")
    async def versions(subject: str) -> JSONResponse:
        found = subjects.versions.get(subject)
        if found is None:
            return _error(40401, f"Subject '{subject[:200]}' not found.")
        return _Answer(sorted(found))

    @routes.get("/subjects/{subject}/versions/{version}", summary="One version, or “latest”")
    async def version(subject: str, version: str) -> JSONResponse:
        found = subjects.version(subject, version)
        return _Answer(_described(subject, found)) if isinstance(found, Schema) else found

    @routes.get("/subjects/{subject}/versions/{version}/schema", include_in_schema=False)
    async def version_text(subject: str, version: str) -> JSONResponse:
        found = subjects.version(subject, version)
        return _Answer(found.raw) if isinstance(found, Schema) else found

    @routes.post("/subjects/{subject}", summary="Which version a schema is")
    async def look_up(subject: str, request: Request) -> JSONResponse:
        versions = subjects.versions.get(subject)
        if versions is None:
            return _error(40401, f"Subject '{subject[:200]}' not found.")
        try:
            asked = schema_id(json.loads((await _body(request))["schema"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _error(42201, "Invalid schema")
        found = next((schema for schema in versions.values() if schema.id == asked), None)
        return _error(40403, "Schema not found") if found is None else _Answer(_described(subject, found))

    @routes.post("/subjects/{subject}/versions", include_in_schema=False)
    async def register(subject: str) -> JSONResponse:
        del subject
        return _error(42205, "This registry is read only: its schemas are those of the service.")


async def _body(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise ValueError("too large for a schema")
    found = json.loads(bytes(body))
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one family for whatever is no schema
    return found
