"""Reads over HTTP: search, graph, verify, status and health. Writes nothing and knows nothing of the log's groups.

Served only while the store is held and has caught up with the log's end as it was when the process opened it; before
that, reads answer 503 `{"code": "not_ready", "reasons": [...]}`. `document_id`, `chunk_id` and the like are UUIDs as text.

`POST /search`  {"project_id": id | null, "space": str, "text": str, "vector": base64 float32 | null, "limit": 1..100,
                 "mode": "hybrid" | "meaning" | "words", "document_ids": [id] (optional)}
    → {"results": [{"chunk_id", "document_id", "score", "kind", "part", "text", "title", "creators": [str], "year",
       "doi", "section", "page_first", "page_last", "found_by": ["meaning", "words"], "words": [str]}], "mode": effective}
    hybrid without a vector answers by words and says so in `mode`; at most two results of one document.

`GET /projects/{id}/graph?limit=N`  → {"nodes": [{"id", "type", "label", …}], "edges": [{"source", "target", "type", …}],
    "truncated": bool}; CO_OCCURS_WITH and weights are computed here; nodes that no edge reaches are left out.

`POST /verify`  one page of an import's documents (at most 200):
    {"import_id": id, "project_id": id, "space": str, "documents": [{"document_id": id, "revision": int, "chunks": [
        {"chunk_id": id, "part": "bibliographic" | "full_text", "outcome": "stored" | "rejected" | "dead_lettered" |
         "superseded" | "unknown", "content_hash": hex as settled | ""}]}]}
    → {"checked_count": int, "missing": [F], "extra": [F], "different": [F]}
       with F = {"document_id", "chunk_id": id | null, "kind": "chunk" | "node" | "edge", "id": of the point, "title"}
    What must be there is the list that the mark of each part names (the newest closed content of the document), for a
    part without a mark the chunks sent with outcome stored. `different`: the point's own hash does not fit what the
    store holds of it, or a chunk sent as stored has another hash (or was rejected) at the revision sent.

`GET /status` → {"store_id", "is_ready", "reasons", "collections": [{"name", "space", "points_count"}],
    "positions": [{"collection", "topic", "partition", "offset"}], "lag_count", "dead_letters_in_row"}
`POST /continue` goes on after many dead letters in a row. `/livez`, `/readyz`, `/metrics` as on every service.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from aiohttp import web

from eventlog.errors import RecordGone, TransientFailure
from eventlog.events import ChunkOutcome, Part
from eventlog.ids import ChunkId, DocumentId
from eventlog.spaces import parse_space
from graph_writer.apply import Applier
from graph_writer.dead_letters import DeadLetters
from graph_writer.graph_read import NODES_DEFAULT, NODES_MAX, GraphRead
from graph_writer.health import Health
from graph_writer.opened import OpenedStore
from graph_writer.search import Mode, Question, Search
from graph_writer.verify import SentChunk, SentDocument, Verify
from graph_writer.words import Keywords
from graph_writer.writer import Writer

LIMIT_MAX = 100
TEXT_LENGTH_MAX = 10_000
DOCUMENTS_MAX = 1_000
VERIFY_DOCUMENTS_MAX = 200
BODY_BYTES_MAX = 32 * 1024 * 1024
Handler = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    opened: OpenedStore
    search: Search
    verify: Verify
    dead_letters: DeadLetters
    writer: Writer


class Reads:
    def __init__(self, health: Health) -> None:
        self._health = health
        self._parts: _Parts | None = None

    def serve(
        self,
        *,
        opened: OpenedStore,
        applier: Applier,
        keywords: Keywords,
        dead_letters: DeadLetters,
        writer: Writer,
    ) -> None:
        """From now on reads are answered, as soon as the store is ready for them."""
        self._parts = _Parts(
            opened=opened,
            search=Search(opened, keywords),
            verify=Verify(opened, applier),
            dead_letters=dead_letters,
            writer=writer,
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_errors])
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status", self._status)
        app.router.add_post("/continue", self._continue)
        app.router.add_post("/search", self._search)
        app.router.add_post("/verify", self._verify)
        app.router.add_get("/projects/{project_id}/graph", self._graph)
        return app

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._health.is_ready
        body = {"ready": ready, "reasons": self._health.reasons}
        return web.json_response(body, status=200 if ready else 503)

    async def _status(self, _: web.Request) -> web.Response:
        body: dict[str, Any] = {"is_ready": self._health.is_ready, "reasons": self._health.reasons}
        if self._parts is not None:
            opened = self._parts.opened
            body["store_id"] = str(opened.id)
            body["collections"] = [
                {"name": one.name, "space": one.space, "points_count": await opened.store.count(one.name)}
                for one in opened.collections
            ]
            body["positions"] = [
                {"collection": name, "topic": at.topic, "partition": at.partition, "offset": read_to.offset}
                for name, found in opened.positions.items()
                for at, read_to in found.items()
            ]
            body["lag_count"] = await self._parts.writer.lag_count()
            body["dead_letters_in_row"] = self._parts.dead_letters.in_row
        return web.json_response(body)

    async def _metrics(self, _: web.Request) -> web.Response:
        lines = [f"paperlog_ready {int(self._health.is_ready)}"]
        if self._parts is not None:
            writer, letters = self._parts.writer, self._parts.dead_letters
            lines += [
                f"paperlog_chunks_settled_total {writer.chunks_count}",
                f"paperlog_batches_total {writer.batches_count}",
                f"paperlog_dead_letters_total {letters.total}",
                f"paperlog_dead_letters_in_row {letters.in_row}",
                f"paperlog_lag_count {await writer.lag_count()}",
            ]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    async def _continue(self, _: web.Request) -> web.Response:
        parts = self._held()
        await parts.dead_letters.go_on()
        return web.json_response({"reasons": self._health.reasons})

    async def _search(self, request: web.Request) -> web.Response:
        parts = self._ready()
        with _understanding():
            question = _question(await _body(request))
        return web.json_response(await parts.search.search(question))

    async def _verify(self, request: web.Request) -> web.Response:
        parts = self._ready()
        with _understanding():
            body = await _body(request)
            space = str(parse_space(body["space"]))
            documents = [_document(one) for one in _list(body, "documents", VERIFY_DOCUMENTS_MAX)]
        report = await parts.verify.verify(space, documents)
        return web.json_response(
            {
                "checked_count": report.checked_count,
                "missing": report.missing,
                "extra": report.extra,
                "different": report.different,
            }
        )

    async def _graph(self, request: web.Request) -> web.StreamResponse:
        parts = self._ready()
        with _understanding():
            project = UUID(request.match_info["project_id"])
            limit = min(max(1, int(request.query.get("limit", NODES_DEFAULT))), NODES_MAX)
        response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        await response.prepare(request)
        async for piece in GraphRead(parts.opened.store, project, nodes_max=limit).parts():
            await response.write(piece.encode())
        await response.write_eof()
        return response

    def _held(self) -> _Parts:
        if self._parts is None:
            raise _not_ready(self._health)
        return self._parts

    def _ready(self) -> _Parts:
        if self._parts is None or not self._health.can_read:
            raise _not_ready(self._health)
        return self._parts


def _not_ready(health: Health) -> web.HTTPException:
    return _problem(
        web.HTTPServiceUnavailable, "not_ready", "the store is not held or not caught up", health.reasons
    )


def _problem(
    kind: type[web.HTTPException], code: str, message: str, reasons: list[str] | None = None
) -> web.HTTPException:
    body = {"code": code, "message": message, "reasons": reasons or []}
    return kind(text=web.json_response(body).text, content_type="application/json")


@contextmanager
def _understanding() -> Iterator[None]:
    """Around the reading of a request: what goes wrong in there is its sender's error, and anywhere else ours."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _problem(web.HTTPBadRequest, "request_invalid", f"{type(error).__name__}: {error}") from None


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except RecordGone as error:
        raise _problem(web.HTTPConflict, "history_gone", str(error)) from None
    except TransientFailure as error:
        raise _problem(web.HTTPServiceUnavailable, "not_ready", str(error)) from None
    return response


async def _body(request: web.Request) -> dict[str, Any]:
    body = await request.json()
    if not isinstance(body, dict):
        raise TypeError("the body is not an object")
    return body


def _list(body: dict[str, Any], name: str, length_max: int) -> list[Any]:
    found = body[name]
    if not isinstance(found, list) or len(found) > length_max:
        raise ValueError(f"{name} must be a list of at most {length_max}")
    return found


def _question(body: dict[str, Any]) -> Question:
    space = parse_space(body["space"])
    vector = base64.b64decode(body.get("vector") or "", validate=True)
    if vector and len(vector) != 4 * space.dims:
        raise ValueError(f"the vector has {len(vector)} bytes, the space {space.dims} dimensions")
    if not np.isfinite(np.frombuffer(vector, dtype="<f4")).all():
        raise ValueError("the vector holds what is no number")
    limit = 10 if body.get("limit") is None else int(body["limit"])
    if not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit must be 1 to {LIMIT_MAX}")
    text = body["text"]
    if not isinstance(text, str) or len(text) > TEXT_LENGTH_MAX:
        raise ValueError(f"text must be a string of at most {TEXT_LENGTH_MAX} characters")
    text.encode()  # half a surrogate pair is refused
    documents = _list({"document_ids": [], **body}, "document_ids", DOCUMENTS_MAX)
    question = Question(
        space=str(body["space"]),
        text=text,
        vector=vector,
        limit=limit,
        mode=Mode(body.get("mode") or Mode.HYBRID),
        project_id=UUID(body["project_id"]) if body.get("project_id") else None,
        document_ids=tuple(UUID(one) for one in documents),
    )
    if question.mode is Mode.MEANING and not vector:
        raise ValueError("a search by meaning needs a vector")
    return question


def _document(body: dict[str, Any]) -> SentDocument:
    return SentDocument(
        document_id=DocumentId(UUID(body["document_id"])),
        revision=int(body["revision"]),
        chunks=tuple(
            SentChunk(
                chunk_id=ChunkId(UUID(one["chunk_id"])),
                part=Part(one["part"]),
                outcome=ChunkOutcome(one["outcome"]) if one["outcome"] != "unknown" else ChunkOutcome.UNKNOWN,
                content_hash=str(one.get("content_hash") or ""),
            )
            for one in body["chunks"]
        ),
    )
