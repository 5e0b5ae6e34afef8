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
    {"import_id": id, "project_id": id, "space": str, "documents": [{"document_id": id, "chunks": [
        {"chunk_id": id, "part": "bibliographic" | "full_text", "outcome": "stored" | "rejected" | "dead_lettered" |
         "superseded" | "unknown", "content_hash": hex as settled | ""}]}]}
    → {"checked_count": int, "missing": [F], "extra": [F], "different": [F]}
       with F = {"document_id", "chunk_id": id | null, "kind": "chunk" | "node" | "edge", "id": of the point, "title"}
    What must be there is the list that the mark of each part names (the newest closed content of the document), for a
    part without a mark the chunks sent with outcome stored. `different`: the point's own hash does not fit what the
    store holds of it, or a chunk sent as stored has another hash and the mark is of this import's own revision.

`GET /status` → {"store_id", "is_ready", "reasons", "collections": [{"name", "space", "points_count"}],
    "positions": [{"collection", "topic", "partition", "offset"}], "lag_count", "dead_letters_in_row"}
`POST /continue` goes on after many dead letters in a row. `/livez`, `/readyz`, `/metrics` as on every service.
"""

from typing import Any

from aiohttp import web

from graph_writer.health import Health


class Reads:
    def __init__(self, health: Health) -> None:
        self._health = health

    def serve(self, **parts: Any) -> None:
        self._parts = parts

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        return app

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._health.is_ready
        return web.json_response(
            {"ready": ready, "reasons": self._health.reasons}, status=200 if ready else 503
        )
