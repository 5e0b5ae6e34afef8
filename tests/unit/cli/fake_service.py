"""A service on loopback that answers as ingest's contract says, from plain values that a test sets."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

DROP = object()
"""In a script of events: the connection breaks here."""

IMPORT_ID = "6f8f3f0e-0a4c-5d0e-9f3a-3f1f0a4c5d0e"


def a_status(state: str = "embedding", **changes: Any) -> dict[str, Any]:
    status = {
        "import_id": IMPORT_ID,
        "project_id": "0b7c2d0a-93d4-5a39-a9b0-111111111111",
        "project": "Soil",
        "state": state,
        "waiting": None,
        "attempt": 1,
        "progress": 0.5,
        "documents": {"found": 4, "parsed": 4, "merged": 0, "stored": 2, "rejected": 0},
        "chunks": {
            "total": 40,
            "embedded": 20,
            "reused": 0,
            "stored": 20,
            "rejected": 0,
            "dead_lettered": 0,
            "superseded": 0,
        },
        "warnings": 0,
        "tokens_billed": 0,
        "space": "local/wordllama@256:1",
        "requested_at": "2026-01-01T00:00:00+00:00",
        "finished_at": None,
        "digest": None,
        "problem": None,
    }
    return {**status, **changes}


def a_problem(status: int, code: str, title: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return status, {"type": "about:blank", "title": title, "status": status, "code": code, **more}


@dataclass
class FakeService:
    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    last_event_ids: list[str | None] = field(default_factory=list)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    """(method, path) → JSON value, (status, JSON value), bytes, or a list of these that is used up."""
    streams: list[list[Any]] = field(default_factory=list)
    """One list of `(id, event, value)` per connection to an import's events; DROP breaks it off."""
    before: Callable[[str, str], Any] = lambda _method, _path: None
    """May answer in place of the service."""

    def said(self, method: str) -> list[str]:
        return [path for each, path in self.requests if each == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeService

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, value: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "problem+json" if status >= 400 else "octet-stream" if isinstance(value, bytes) else "json"
        self.send_header("Content-Type", f"application/{kind}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self._body()
        self.fake.requests.append((self.command, parts.path))
        self.fake.queries.append(parse_qs(parts.query))
        if (early := self.fake.before(self.command, parts.path)) is not None:
            if early is DROP:
                self.close_connection = True
                return
            self._answer(*early)
            return
        scripted = self.fake.answers.get((self.command, parts.path))
        if isinstance(scripted, list):
            scripted = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        if parts.path.startswith("/api/blobs/"):
            self._blob(parts.path.rsplit("/", 1)[1], body)
        elif parts.path.endswith("/events"):
            self._events()
        else:
            if body:
                self.fake.bodies.append(json.loads(body))
                self.fake.keys.append(self.headers.get("Idempotency-Key"))
            if scripted is None:
                scripted = a_problem(404, "not_found", "There is nothing here")
            self._answer(*(scripted if isinstance(scripted, tuple) else (200, scripted)))

    do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815 - http.server calls them so

    def _blob(self, sha256: str, body: bytes) -> None:
        if self.command == "HEAD":
            self._answer(200 if sha256 in self.fake.blobs else 404, b"")
        elif hashlib.sha256(body).hexdigest() != sha256:
            self._answer(*a_problem(422, "hash_mismatch", "The bytes have another hash"))
        else:
            self.fake.blobs[sha256] = body
            self._answer(201, {"sha256": sha256, "size_bytes": len(body)})

    def _events(self) -> None:
        self.fake.last_event_ids.append(self.headers.get("Last-Event-ID"))
        script = self.fake.streams.pop(0) if self.fake.streams else []
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for each in script:
            if each is DROP:
                self.wfile.write(b"event: status\ndata: {half")
                return
            event_id, name, value = each
            self.wfile.write(b": heartbeat\n\n")
            data = json.dumps(value, ensure_ascii=False)
            self.wfile.write(f"id: {event_id}\r\nevent: {name}\r\ndata: {data}\r\n\r\n".encode())
            self.wfile.flush()


@contextlib.contextmanager
def fake_service() -> Iterator[FakeService]:
    fake = FakeService()
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def wait_until(is_true: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
