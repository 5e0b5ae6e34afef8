"""The embedder's HTTP: health, metrics, a query's vector, and what an operator may say."""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from embedder.consumer import Consumer
from embedder.dead_letters import DeadLetters
from embedder.gate import Gate
from embedder.models.model import InputRefused, Model, ModelError
from embedder.story import Story
from eventlog.spaces import Space

BODY_BYTES_MAX = 64 * 1024
QUERY_BYTES_MAX = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParts:
    space: Space
    model: Model
    gate: Gate
    story: Story
    consumer: Consumer
    dead_letters: DeadLetters
    is_connected: Callable[[], bool]


def build_app(parts: HttpParts) -> web.Application:
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    handlers = _Handlers(parts)
    app.add_routes(
        [
            web.get("/livez", handlers.livez),
            web.get("/readyz", handlers.readyz),
            web.get("/metrics", handlers.metrics),
            web.get("/status", handlers.status),
            web.post("/embed", handlers.embed),
            web.post("/probe", handlers.probe),
            web.post("/continue", handlers.go_on),
        ]
    )
    return app


class _Handlers:
    def __init__(self, parts: HttpParts) -> None:
        self._parts = parts

    def _reasons(self) -> list[str]:
        parts = self._parts
        reasons = []
        if parts.dead_letters.is_paused:
            reasons.append("dead_letters")
        if not parts.is_connected():
            reasons.append("log_unavailable")
        elif not (parts.story.caught_up.is_set() and parts.consumer.has_caught_up):
            reasons.append("catching_up")
        if parts.gate.told is not None:
            reasons.append(str(parts.gate.told))
        return reasons

    async def livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(self, _request: web.Request) -> web.Response:
        reasons = self._reasons()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, _request: web.Request) -> web.Response:
        pause = self._parts.gate.pause
        return web.json_response(
            {
                "space": str(self._parts.space),
                "partitions": self._parts.consumer.partitions,
                "paused": None
                if pause is None
                else {
                    "reason": pause.reason,
                    "message": pause.message,
                    "next_try_in_s": round(self._parts.gate.next_try_in_s, 1),
                },
                "dead_letters_in_row": self._parts.dead_letters.in_row,
                "reasons": self._reasons(),
            }
        )

    async def embed(self, request: web.Request) -> web.Response:
        try:
            body: Any = json.loads(await request.read())
            text = body["text"]
            side = body.get("side", "query")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return _problem(400, "request_invalid", 'send {"text": "…", "side": "query"}')
        if not isinstance(text, str) or not text.strip() or side not in ("query", "document"):
            return _problem(
                400, "request_invalid", "text is a string that is not empty, side is query or document"
            )
        try:
            is_short = len(text.encode()) <= QUERY_BYTES_MAX
        except UnicodeEncodeError:
            return _problem(400, "request_invalid", "the text holds half a surrogate pair")
        if not is_short:
            return _problem(413, "text_too_long", f"a query has at most {QUERY_BYTES_MAX} bytes")
        if self._parts.gate.pause is not None:  # a query may be lost; the provider's wish is not
            return self._unavailable(f"the provider is paused: {self._parts.gate.pause.message}")
        try:
            embedded = await self._parts.model.embed([text], side)
        except InputRefused as error:
            return _problem(422, "text_refused", str(error))
        except ModelError as error:
            return self._unavailable(str(error))
        vector = base64.b64encode(embedded.vectors[0]).decode()
        return web.json_response(
            {"space": str(self._parts.space), "dims": self._parts.space.dims, "vector": vector}
        )

    def _unavailable(self, detail: str) -> web.Response:
        response = _problem(503, "model_unavailable", detail)
        response.headers["Retry-After"] = str(math.ceil(self._parts.gate.next_try_in_s) or 1)
        return response

    async def probe(self, _request: web.Request) -> web.Response:
        self._parts.gate.probe()
        return web.json_response({"probing": self._parts.gate.pause is not None}, status=202)

    async def go_on(self, _request: web.Request) -> web.Response:
        self._parts.dead_letters.go_on()
        self._parts.gate.go_on()
        return web.json_response({"continued": True})


def _problem(status: int, code: str, detail: str) -> web.Response:
    return web.json_response(
        {"status": status, "code": code, "detail": detail},
        status=status,
        content_type="application/problem+json",
    )
