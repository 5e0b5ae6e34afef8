"""Alive, ready, and why an import waits: what this process knows of itself and hears from its neighbours.

An outage of a neighbour makes this service not ready, never not alive. Ready means: imports and searches work.
"""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ingest.http.parts import HttpParts
from ingest.neighbours import ReadinessCache
from ingest.state import ImportStatus, State

NO_EMBEDDER_AFTER_S = 10.0
"""A restarting embedder is back sooner than this; then nobody need hear of it."""
STILL_AFTER_S = 120.0
"""So long after the last fact of any import nothing is on its way: a request to a provider is given up after 60 s."""


class Health:
    def __init__(self, parts: HttpParts, ready: ReadinessCache) -> None:
        self._settings = parts.settings
        self._projection = parts.projection
        self._clock = parts.clock
        self._has_nameless_letter = parts.has_nameless_letter
        self._log_reasons = parts.log_reasons
        self._ready = ready
        self._graph_writer = str(parts.settings.graph_writer_url).rstrip("/")

    async def reasons(self) -> list[str]:
        """Why not ready; empty when ready."""
        reasons = list(self._log_reasons())
        writer = await self._ready.of(self._graph_writer)
        if not writer.is_reachable:
            reasons.append("graph_writer_unreachable")
        elif not writer.is_ready:
            reasons.extend(f"graph_writer_{reason}" for reason in writer.reasons or ("not_ready",))
        url = self._settings.embedders.url_of(self._settings.default_space)
        embedder = None if url is None else await self._ready.of(url)
        if embedder is None or not embedder.is_reachable:
            reasons.append("no_embedder")
        elif not embedder.is_ready:
            reasons.extend(f"embedder_{reason}" for reason in embedder.reasons or ("not_ready",))
        return reasons

    async def waiting(self, status: ImportStatus) -> str | None:
        """Why an open import does not go on, as far as one can tell; null when it does or is over."""
        if status.waiting is not None or status.is_terminal:
            return status.waiting
        url = self._settings.embedders.url_of(status.space)
        if url is None:
            return "no_embedder"
        embedder = await self._ready.of(url)
        if not embedder.is_reachable and embedder.unreachable_s >= NO_EMBEDDER_AFTER_S:
            return "no_embedder"
        writer = await self._ready.of(self._graph_writer)
        if "store_down" in writer.reasons:
            return "store_down"
        if "dead_letters" in (*self._log_reasons(), *embedder.reasons, *writer.reasons):
            return "dead_letters"
        is_lost = embedder.is_ready and writer.is_ready and await self._misses_a_nameless_one(status)
        return "dead_letters" if is_lost else None

    async def _misses_a_nameless_one(self, status: ImportStatus) -> bool:
        """As far as one can tell: all was published, nothing moves any more, and a letter lies there that names nobody."""
        moved_at = self._projection.moved_at()
        if status.state is not State.EMBEDDING or moved_at is None:
            return False
        if (self._clock.now() - moved_at).total_seconds() < STILL_AFTER_S:
            return False
        return await self._has_nameless_letter(status.space, status.requested_at)

    async def status_json(self, status: ImportStatus) -> dict[str, Any]:
        return status.to_json() | {"waiting": await self.waiting(status)}


def router(parts: HttpParts, health: Health) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="Whether the process answers at all")
    async def livez() -> dict[str, bool]:
        return {"alive": True}

    @routes.get("/readyz", summary="Whether imports and searches work, and if not, why")
    async def readyz() -> JSONResponse:
        reasons = await health.reasons()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    @routes.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @routes.post("/continue", summary="Go on after many dead letters in a row")
    async def go_on() -> dict[str, bool]:
        parts.go_on()
        return {"continued": True}

    return routes
