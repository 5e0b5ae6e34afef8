"""A provider of embeddings that anyone can audit: OpenAI's and Cohere's wire formats, vectors that follow from the text,
a ledger of every text billed, and faults in the order in which a test scripts them, or by chance from a seed.

`python -m tests.fakes.provider --port 0 --port-file FILE --latency-ms 200 --ledger FILE` runs it as a process; the
ledger is JSON lines, one for each text billed: its SHA-256, the number of the request, what that met, and the time. A
text is billed when its request is accepted, whether or not anybody reads the answer.

A process is told its faults over HTTP: `POST /control` takes `{"script": [{"kind", "times", "retry_after_s"}],
"shares": {kind: share of requests}, "seed", "retry_after_s", "latency_ms", "spoils", "refuses"}`, each left alone where
it is not named; the kind "" is none. `GET /control` answers what requests have met, in order.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import math
import random
import signal
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import uvloop
from aiohttp import web

DIMS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "embed-v4.0": 1536,
    "test-embedding": 64,
}
_BILL = 987_654_321
"""Stands for a bill that JSON cannot be made of in Python."""
FAULTS = (
    "rate_limit", "quota", "server_error", "bad_gateway", "unavailable", "html", "truncated", "reset", "late", "too_few", "too_many", "wrong_dims",
    "one_wrong_dims", "nan", "infinite", "null", "zeros", "strings", "permuted", "duplicate_index", "bad_key", "unknown_model",
    "too_long", "empty_data", "body",
)  # fmt: skip


def vector_of(text: str, model: str, dims: int) -> np.ndarray[Any, Any]:
    """Unit float32 that follows from text and model; cheap, for this process shares two cores."""
    drawn = hashlib.shake_128(f"{model}\x1f{text}".encode()).digest(dims)
    array = np.frombuffer(drawn, dtype=np.int8).astype(np.float32)
    return array / np.float32(np.linalg.norm(array))


@dataclass
class Fault:
    """`times` requests in a row meet it."""

    kind: str
    times: int = 1
    retry_after_s: float | None = None
    body: bytes = b""
    """What is answered with status 200 to the fault `body`."""


@dataclass
class FakeProvider:
    latency_s: float = 0.0
    dims: int | None = None
    refuses: str = "\x00"
    """Texts that hold this are refused, as a vendor refuses what is too long."""
    spoils: str = "\x00"
    """Texts that hold this get a vector of zeros, always."""
    bill: str = ""
    """JSON that stands in the answer in place of the number of tokens."""
    scale: float = 1.0
    """Length of the vectors: not every vendor's are of unit length."""
    faults: deque[Fault] = field(default_factory=deque)
    shares: dict[str, float] = field(default_factory=dict)
    """Kinds of fault that requests meet by chance, when nothing is scripted."""
    retry_after_s: float | None = None
    """What a rate limit met by chance says."""
    texts_per_s: float | None = None
    """A request above this rate is refused with 429 and told in how many whole seconds there is room for it; what one
    second allows may come at once.
    """
    room: tuple[float, float] = (0.0, 0.0)
    """Texts that there was room for, and when."""
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    billed: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[float, int, str]] = field(default_factory=list)
    """Time, number of texts, and what the request met."""
    ledger: TextIO | None = None
    url: str = ""

    def script(self, *faults: Fault | str) -> None:
        self.faults.extend(Fault(one) if isinstance(one, str) else one for one in faults)

    def _next_fault(self) -> Fault | None:
        if not self.faults:
            drawn = self.chance.random()
            for kind, share in self.shares.items():
                drawn -= share
                if drawn < 0:
                    return Fault(kind, retry_after_s=self.retry_after_s)
            return None
        fault = self.faults[0]
        fault.times -= 1
        if fault.times <= 0:
            self.faults.popleft()
        return fault

    def _limited(self, count: int) -> Fault | None:
        if self.texts_per_s is None:
            return None
        room, at = self.room
        now = time.monotonic()
        room = min(self.texts_per_s, room + (now - at) * self.texts_per_s)
        if room < count:
            self.room = (room, now)
            return Fault("rate_limit", retry_after_s=math.ceil((count - room) / self.texts_per_s))
        self.room = (room - count, now)
        return None

    def _bill(self, texts: list[str], met: str) -> None:
        lines = []
        for text in texts:
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.billed[digest] += 1
            lines.append(
                json.dumps(
                    {
                        "sha256": digest,
                        "request": len(self.requests),
                        "met": met,
                        "at": round(time.time(), 3),
                    }
                )
            )
        if self.ledger is not None:
            self.ledger.write("".join(f"{line}\n" for line in lines))
            self.ledger.flush()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(
            [
                web.post("/v1/embeddings", self._openai),
                web.post("/v2/embed", self._cohere),
                web.post("/control", self._control),
                web.get("/control", self._told),
            ]
        )
        return app

    async def _control(self, request: web.Request) -> web.Response:
        told = await request.json()
        kinds = {one["kind"] for one in told.get("script", [])} | set(told.get("shares", {}))
        unknown = kinds - {"", *FAULTS}
        if unknown:
            return web.json_response({"unknown": sorted(unknown)}, status=400)
        if "script" in told:
            self.faults = deque(Fault(**one) for one in told["script"])
        if "seed" in told:
            self.chance = random.Random(told["seed"])
        self.shares = told.get("shares", self.shares)
        self.retry_after_s = told.get("retry_after_s", self.retry_after_s)
        self.latency_s = told.get("latency_ms", self.latency_s * 1000) / 1000
        self.spoils = told.get("spoils", self.spoils)
        self.refuses = told.get("refuses", self.refuses)
        return web.json_response({})

    async def _told(self, _: web.Request) -> web.Response:
        """Unix times, numbers of texts, and what each request met; how many scripted faults nobody has met yet."""
        offset = time.time() - time.monotonic()
        met = [(at + offset, count, kind) for at, count, kind in self.requests]
        return web.json_response({"requests": met, "left": sum(one.times for one in self.faults)})

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        model = body["model"]
        dims = self.dims or body.get("dimensions") or DIMS.get(model, 64)

        def render(vectors: list[Any], tokens: int) -> Any:
            rows = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(vectors)]
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            return {"object": "list", "data": rows, "model": model, "usage": usage}

        is_base64 = body.get("encoding_format") == "base64"
        return await self._answer(request, texts, model, dims, render, is_base64=is_base64)

    async def _cohere(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        texts = body["texts"]
        model = f"{body['model']}/{body['input_type']}"
        dims = self.dims or body.get("output_dimension") or 1536

        def render(vectors: list[Any], tokens: int) -> Any:
            meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}}
            kind = "float" if "float" in body.get("embedding_types", ["float"]) else "base64"
            return {"id": "1", "embeddings": {kind: vectors}, "texts": texts, "meta": meta}

        is_base64 = "base64" in body.get("embedding_types", [])
        return await self._answer(request, texts, model, dims, render, is_base64=is_base64)

    async def _answer(
        self, request: web.Request, texts: list[str], model: str, dims: int, render: Any, *, is_base64: bool
    ) -> web.StreamResponse:
        fault = self._limited(len(texts)) or self._next_fault()
        kind = fault.kind if fault else ""
        self.requests.append((time.monotonic(), len(texts), kind))
        if refusal := self._refusal(texts, fault):
            return refusal
        self._bill(texts, kind or ("spoiled" if any(self.spoils in text for text in texts) else ""))
        due_s = self.requests[-1][0] + self.latency_s
        vectors: list[Any] = [self.scale * vector_of(text, model, dims) for text in texts]
        for number, text in enumerate(texts):
            if self.spoils in text:
                vectors[number] = np.zeros(dims, dtype=np.float32)
        vectors = _spoiled(kind, vectors, dims)
        data = [_wire(one, is_base64=is_base64) for one in vectors]
        # The latency is all of what a caller waits; what this process does for the answer is within it.
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        if kind == "late":
            await asyncio.sleep(3600)
        if fault is not None and kind == "body":
            return web.Response(body=fault.body, content_type="application/json")
        answer = render(data, _BILL if self.bill else sum(len(text) // 4 + 1 for text in texts))
        return await _sent(request, kind, answer, self.bill)

    def _refusal(self, texts: list[str], fault: Fault | None) -> web.Response | None:
        kind = fault.kind if fault else ""
        if (
            any(not text for text in texts)
            or any(self.refuses in text for text in texts)
            or kind == "too_long"
        ):
            message = "This model's maximum context length is 8192 tokens"
            return _error(400, "invalid_request_error", message)
        match kind:
            case "rate_limit":
                assert fault is not None
                headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
                return _error(429, "rate_limit_exceeded", "slow down", headers)
            case "quota":
                return _error(429, "insufficient_quota", "You exceeded your current quota")
            case "server_error":
                return _error(500, "server_error", "oh dear")
            case "bad_gateway":
                return _error(502, "bad_gateway", "nobody behind the gateway")
            case "unavailable":
                return _error(503, "unavailable", "come back later")
            case "bad_key":
                return _error(
                    401, "invalid_api_key", "Incorrect API key provided: sk-canary-key-0123456789abcdef"
                )
            case "unknown_model":
                return _error(404, "model_not_found", "no such model")
            case _:
                return None


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": code, "code": code}, "message": message}
    return web.json_response(body, status=status, headers=headers)


def _wire(vector: Any, *, is_base64: bool) -> Any:
    if not isinstance(vector, np.ndarray):
        return vector
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if is_base64 else vector.tolist()


def _spoiled(kind: str, vectors: list[Any], dims: int) -> list[Any]:
    first = vectors[0]
    match kind:
        case "too_few":
            return vectors[:-1]
        case "too_many":
            return [*vectors, first]
        case "wrong_dims":
            return [one[: dims // 2] for one in vectors]
        case "one_wrong_dims":
            return [first[: dims // 2], *vectors[1:]]
        case "nan":
            return [np.full(dims, np.nan, dtype=np.float32), *vectors[1:]]
        case "infinite":
            return [np.full(dims, np.inf, dtype=np.float32), *vectors[1:]]
        case "null":
            return [[None] * dims, *vectors[1:]]
        case "zeros":
            return [np.zeros(dims, dtype=np.float32), *vectors[1:]]
        case "strings":
            return [["0.1"] * dims, *vectors[1:]]
        case "empty_data":
            return []
        case _:
            return vectors


async def _sent(request: web.Request, kind: str, answer: Any, bill: str) -> web.StreamResponse:
    rows = answer.get("data")
    if kind == "permuted" and rows:
        rows.reverse()
    if kind == "duplicate_index" and rows:
        rows[-1]["index"] = 0
    if kind == "html":
        return web.Response(text="<html>504 Gateway</html>", content_type="text/html")
    text = json.dumps(answer).replace(str(_BILL), bill or str(_BILL)).encode()
    if kind == "truncated":
        return web.Response(body=text[: len(text) // 2], content_type="application/json")
    if kind == "reset":
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Content-Length": str(len(text))}
        )
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        assert request.transport is not None
        request.transport.abort()
        return response
    return web.Response(body=text, content_type="application/json")


@contextlib.asynccontextmanager
async def running(provider: FakeProvider, port: int = 0) -> AsyncIterator[FakeProvider]:
    runner = web.AppRunner(provider.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()


async def _main(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with open(arguments.ledger or "/dev/null", "a", encoding="utf-8") as ledger:  # noqa: ASYNC230, PTH123 - at start
        provider = FakeProvider(
            latency_s=arguments.latency_ms / 1000,
            dims=arguments.dims,
            texts_per_s=arguments.texts_per_s,
            ledger=ledger,
        )
        async with running(provider, arguments.port):
            if arguments.port_file:
                path = Path(arguments.port_file)
                path.with_suffix(".new").write_text(provider.url.rpartition(":")[2], encoding="utf-8")
                path.with_suffix(".new").replace(path)
            await stopping.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--dims", type=int)
    parser.add_argument("--texts-per-s", type=float)
    parser.add_argument("--ledger")
    uvloop.run(_main(parser.parse_args()))
