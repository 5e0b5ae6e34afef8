"""The routes of imports and of the blob store: asking, looking, watching, cancelling."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from eventlog.events import CancelImport, ChunkOutcome
from eventlog.ids import ImportId
from ingest.blobs import Blob, is_sha256
from ingest.http.accepting import CALLER, Accepting, problem_json
from ingest.http.asked import ImportIn, read_asked
from ingest.http.forms import receive_raw
from ingest.http.health import Health
from ingest.http.metrics import WATCHERS
from ingest.http.parts import HttpParts
from ingest.http.problems import UNREAD, Problem, drain
from ingest.state import ImportStatus, State
from ingest.uploads import FILE_BYTES_MAX, build_source

HEARTBEAT_S = 15.0
LOOKED_AT_S = 1.0
"""How often a stream looks up from its wait: for a stop, and for what the neighbours say."""
BETWEEN_EVENTS_S = 0.2
"""A fast import changes thousands of times a second; nobody reads that."""
PAGE_MAX = 200

PathId = UUID
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        description="The same key with the same body is the same import, however often it is sent.",
    ),
]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ImportIn"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "each part's filename is its path in the library",
                        },
                        "project": {"type": "string"},
                        "kind": {"type": "string"},
                        "space": {"type": "string"},
                        "options": {"type": "string", "description": "a JSON object"},
                    },
                }
            },
        },
    }
}
BODY_MODELS = (ImportIn,)


def unknown_import() -> Problem:
    return Problem(
        404, "import_unknown", "There is no such import.", "GET /api/imports lists those there are."
    )


def blob_router(parts: HttpParts) -> APIRouter:
    routes = APIRouter(prefix="/api/blobs", tags=["files"])
    raw: dict[str, Any] = {
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        }
    }

    def answer(blob: Blob, status: int) -> JSONResponse:
        return JSONResponse({"sha256": blob.sha256, "size_bytes": blob.size_bytes}, status_code=status)

    def checked(sha256: str) -> str:
        if not is_sha256(sha256):
            raise Problem(
                422,
                "hash_invalid",
                "A file is named by its SHA-256 in 64 lower-case hexadecimal digits.",
                "Send it to POST /api/blobs, which answers its hash.",
            )
        return sha256

    @routes.put("/{sha256}", status_code=201, openapi_extra=raw, summary="Send a file whose hash you know")
    async def put(sha256: str, request: Request) -> Response:
        size_bytes = await parts.blobs.size(checked(sha256))
        if size_bytes is not None:
            request.scope[UNREAD] = True
            await drain(request.scope, request.receive)
            return answer(Blob(sha256=sha256, size_bytes=size_bytes), 200)
        with parts.blobs.receive(FILE_BYTES_MAX) as received:
            blob = await receive_raw(request, received)
            if blob.sha256 != sha256:
                raise Problem(
                    422,
                    "hash_mismatch",
                    f"What came has the hash {blob.sha256}.",
                    "Send it again; if that repeats, the file changes while it is sent.",
                    retryable=True,
                )
            await received.publish(blob)
        return answer(blob, 201)

    @routes.head("/{sha256}", summary="Whether a file is there")
    async def head(sha256: str) -> Response:
        return Response(status_code=200 if await parts.blobs.exists(checked(sha256)) else 404)

    @routes.post("", status_code=201, openapi_extra=raw, summary="Send a file, hear its hash")
    async def post(request: Request) -> Response:
        with parts.blobs.receive(FILE_BYTES_MAX) as received:
            blob = await receive_raw(request, received)
            await received.publish(blob)
        return answer(blob, 201)

    return routes


def router(parts: HttpParts, accepting: Accepting, health: Health) -> APIRouter:
    routes = APIRouter(prefix="/api/imports", tags=["imports"])
    _asking(routes, parts, accepting, health)
    _looking(routes, parts, accepting, health)
    return routes


def _asking(routes: APIRouter, parts: HttpParts, accepting: Accepting, health: Health) -> None:
    @routes.post("", status_code=202, openapi_extra=_BODY, summary="Ask for an import")
    async def request_import(request: Request, key: Key = None) -> Response:
        asked = await read_asked(request, parts)
        status, is_new = await accepting.accept(asked, key)
        return JSONResponse(
            {**await health.status_json(status), "is_new": is_new},
            status_code=202,
            headers={"Location": f"/api/imports/{status.import_id}", "Retry-After": "1"},
        )

    @routes.post("/validate", openapi_extra=_BODY, summary="What is in a library, before importing it")
    async def validate(request: Request) -> dict[str, Any]:
        asked = await read_asked(request, parts)
        found = await accepting.validated(await build_source(asked.kind, asked.files, parts.blobs))
        return {
            "kind": found.kind,
            "items": found.items,
            "pdfs_found": found.pdfs_found,
            "pdfs_missing": found.pdfs_missing,
            "problems": [problem_json(problem) for problem in found.problems],
            "project": asked.project,
            "files": len(asked.files),
        }

    @routes.post("/{import_id}/cancel", status_code=202, summary="Stop an import; what is stored stays")
    async def cancel(import_id: PathId) -> Response:
        status = accepting.status(ImportId(import_id))
        if status is None:
            raise unknown_import()
        if status.state is State.CANCELLED:
            return JSONResponse(await health.status_json(status), status_code=200)
        if status.is_terminal:
            raise Problem(
                409,
                "import_finished",
                f"The import is {status.state.value.replace('_', ' ')}; there is nothing to cancel.",
                "Nothing needs to be done.",
            )
        await parts.commands.append(
            CancelImport(
                occurred_at=parts.clock.now(), import_id=status.import_id, requested_by=CALLER, message=""
            )
        )
        now = await accepting.folded(status.import_id, lambda one: one.is_terminal)
        return JSONResponse(await health.status_json(now or status), status_code=202)


def _looking(routes: APIRouter, parts: HttpParts, accepting: Accepting, health: Health) -> None:
    projection = parts.projection

    @routes.get("", summary="All imports, newest first")
    async def imports(
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        project: Annotated[str | None, Query(max_length=200)] = None,
    ) -> dict[str, Any]:
        project_id = None
        if project:
            found = projection.project(project)
            if found is None:
                return {"imports": [], "next": None}
            project_id = found.project_id
        rows = projection.statuses(before=before, limit=limit + 1, project_id=project_id)
        page = rows[:limit]
        return {
            "imports": [await health.status_json(row) for row in page],
            "next": str(page[-1].cursor) if len(rows) > limit else None,
        }

    @routes.get("/{import_id}", summary="The state of an import")
    async def status(import_id: PathId) -> dict[str, Any]:
        found = accepting.status(ImportId(import_id))
        if found is None:
            raise unknown_import()
        return await health.status_json(found)

    @routes.get(
        "/{import_id}/events",
        summary="Watch an import (server-sent events)",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def events(
        import_id: PathId, last_event_id: Annotated[str | None, Header(max_length=40)] = None
    ) -> Response:
        if accepting.status(ImportId(import_id)) is None:
            raise unknown_import()
        seen = int(last_event_id) if last_event_id and last_event_id.isdigit() else None
        return StreamingResponse(
            _stream(parts, accepting, health, ImportId(import_id), seen),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.get("/{import_id}/documents", summary="Its documents, then what was rejected, page by page")
    async def documents(
        import_id: PathId,
        after: Annotated[str, Query(pattern=r"^(d|r):\d{1,18}$")] = "d:0",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
    ) -> dict[str, Any]:
        if accepting.status(ImportId(import_id)) is None:
            raise unknown_import()
        return _documents_page(parts, ImportId(import_id), after, limit)

    @routes.get("/{import_id}/warnings", summary="What of it could not be used, by name, page by page")
    async def warnings(
        import_id: PathId,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
    ) -> dict[str, Any]:
        if accepting.status(ImportId(import_id)) is None:
            raise unknown_import()
        rows = projection.warnings(ImportId(import_id), after=after, limit=limit + 1)
        page = rows[:limit]
        return {
            "warnings": [
                {
                    "code": row.code,
                    "subject": row.subject,
                    "message": row.message,
                    "document_id": str(row.document_id) if row.document_id else None,
                    "title": row.title,
                }
                for row in page
            ],
            "next": str(page[-1].number) if len(rows) > limit else None,
        }

    @routes.get("/{import_id}/chunks", summary="Its chunks with their outcome, whole documents at a time")
    async def chunks(
        import_id: PathId,
        status: ChunkOutcome | None = None,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> dict[str, Any]:
        if accepting.status(ImportId(import_id)) is None:
            raise unknown_import()
        outcome = None if status is ChunkOutcome.UNKNOWN else status
        rows = projection.chunks(ImportId(import_id), outcome=outcome, after=after, limit=limit)
        last = rows[-1].number if rows else after
        has_more = bool(rows) and bool(
            projection.chunks(ImportId(import_id), outcome=outcome, after=last, limit=1)
        )
        return {
            "chunks": [
                {
                    "chunk_id": str(row.chunk_id),
                    "document_id": str(row.document_id),
                    "part": row.part,
                    "chunk_index": row.chunk_index,
                    "status": row.outcome,
                    "reason": row.reason if row.reason != "UNKNOWN" else None,
                }
                for row in rows
            ],
            "next": str(last) if has_more else None,
        }


def _documents_page(parts: HttpParts, import_id: ImportId, after: str, limit: int) -> dict[str, Any]:
    """Documents first; what room is left on the last page of them, rejections take."""
    kind, _, number = after.partition(":")
    rows = parts.projection.documents(import_id, after=int(number), limit=limit + 1) if kind == "d" else []
    page = rows[:limit]
    after_rejection = int(number) if kind == "r" else 0
    rejections = []
    next_page = f"d:{page[-1].number}" if len(rows) > limit else None
    if next_page is None:
        room = limit - len(page)
        rejections = parts.projection.rejections(import_id, after=after_rejection, limit=room + 1)
        if len(rejections) > room:
            rejections = rejections[:room]
            next_page = f"r:{rejections[-1].number if rejections else after_rejection}"
    return {
        "documents": [
            {
                "document_id": str(row.document_id),
                "title": row.title,
                "state": row.state,
                "chunks": _chunk_counts(parts, import_id, row.document_id),
                "source_items": list(row.source_items),
            }
            for row in page
        ],
        "rejections": [
            {"item": row.item, "reason": row.reason, "message": row.message} for row in rejections
        ],
        "next": next_page,
    }


def _chunk_counts(parts: HttpParts, import_id: ImportId, document_id: Any) -> dict[str, int]:
    counts = dict.fromkeys(("total", "stored", "rejected", "dead_lettered", "superseded"), 0)
    for chunk in parts.projection.chunks_of(import_id, document_id):
        counts["total"] += 1
        if chunk.outcome is not None:
            counts[chunk.outcome.value] += 1
    return counts


async def _stream(
    parts: HttpParts, accepting: Accepting, health: Health, import_id: ImportId, seen: int | None
) -> AsyncIterator[bytes]:
    """A snapshot, then each change; what the client has seen (`Last-Event-ID`) is not said again."""
    with WATCHERS.track_inprogress():
        loop = asyncio.get_running_loop()
        said, said_at_s = None, loop.time()
        while not parts.is_stopping():
            position = parts.projection.position
            status = accepting.status(import_id)
            if status is None:
                return  # the log was another one; the client asks anew and hears 404
            data = await health.status_json(status)
            is_seen = said is None and status.position == seen and not status.is_terminal
            if is_seen:
                said = data
            if data != said:
                said, said_at_s = data, loop.time()
                yield _event("status", status, data)
            if status.is_terminal:
                yield _event("end", status, {"state": status.state.value})
                return
            if loop.time() - said_at_s >= HEARTBEAT_S:
                said_at_s = loop.time()
                yield b": heartbeat\n\n"
            await asyncio.sleep(BETWEEN_EVENTS_S)
            await parts.projection.wait_for_change(position, LOOKED_AT_S)


def _event(name: str, status: ImportStatus, data: dict[str, Any]) -> bytes:
    return f"event: {name}\nid: {status.position}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
