"""A schema registry in memory, as far as Confluent's API says what happens in import mode, over HTTP or HTTPS.

What makes import mode dangerous is here too: an existing version is overwritten, and nothing is checked but ids.
"""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(slots=True)
class FakeRegistry:
    url: str = ""
    subjects: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    """Subject → version → id and schema."""
    deleted: set[tuple[str, int]] = field(default_factory=set)
    """Hidden, and not yet deleted for good."""
    modes: dict[str, str] = field(default_factory=dict)
    is_mutable: bool = True
    keeps_ids: bool = True
    may_delete: bool = True
    user_info: str = ""
    writes: list[str] = field(default_factory=list)

    def by_id(self, id_: int) -> str | None:
        rows = (row for versions in self.subjects.values() for row in versions.values())
        return next((schema for known, schema in rows if known == id_), None)

    def answer(self, method: str, path: list[str], *, query: str, body: Any) -> tuple[int, Any]:
        match method, path:
            case "GET", ["schemas", "ids", id_]:
                found = self.by_id(int(id_))
                return (
                    (200, {"schema": found})
                    if found
                    else (404, {"error_code": 40403, "message": "Schema not found"})
                )
            case "GET", ["subjects", subject, "versions"]:
                versions = self.subjects.get(subject)
                return (
                    (200, sorted(versions))
                    if versions
                    else (404, {"error_code": 40401, "message": "No subject"})
                )
            case "GET", ["subjects", subject, "versions", version]:
                row = self.subjects.get(subject, {}).get(int(version))
                if row is None:
                    return 404, {"error_code": 40402, "message": "No version"}
                return 200, {"subject": subject, "version": int(version), "id": row[0], "schema": row[1]}
            case "GET", ["mode", subject]:
                mode = self.modes.get(subject)
                return (200, {"mode": mode}) if mode else (404, {"error_code": 40409, "message": "No mode"})
            case "PUT", ["mode", subject]:
                return self._set_mode(subject, body["mode"], force=query == "force=true")
            case "DELETE", ["mode", subject]:
                return 200, {"mode": self.modes.pop(subject)}
            case "POST", ["subjects", subject, "versions"]:
                return self._add(subject, body)
            case "DELETE", ["subjects", subject, "versions", version]:
                return self._delete(subject, int(version), for_good=query == "permanent=true")
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _set_mode(self, subject: str, mode: str, *, force: bool) -> tuple[int, Any]:
        if not self.is_mutable:
            return 422, {"error_code": 42205, "message": "Mode changes are not allowed"}
        if mode == "IMPORT" and self.subjects.get(subject) and not force:
            return 422, {"error_code": 42205, "message": "Cannot import since found existing subjects"}
        self.modes[subject] = mode
        return 200, {"mode": mode}

    def _add(self, subject: str, body: Any) -> tuple[int, Any]:
        if self.modes.get(subject) != "IMPORT":
            return 422, {"error_code": 42205, "message": f"Subject {subject} is not in import mode"}
        id_ = body["id"] if self.keeps_ids else len(self.writes) + 1
        if self.by_id(id_) not in (None, body["schema"]):
            return 422, {
                "error_code": 42205,
                "message": f"Overwrite new schema with id {id_} is not permitted.",
            }
        # As a registry does: written in its own way.
        text = json.dumps(json.loads(body["schema"]), indent=1, sort_keys=True)
        self.subjects.setdefault(subject, {})[body["version"]] = (id_, text)
        self.writes.append(subject)
        return 200, {"id": id_}

    def _delete(self, subject: str, version: int, *, for_good: bool) -> tuple[int, Any]:
        if not self.may_delete:
            return 405, {"error_code": 405, "message": "HTTP 405 Method Not Allowed"}
        if not for_good:
            del self.subjects[subject][version]
            self.deleted.add((subject, version))
        elif (subject, version) not in self.deleted:
            return 404, {
                "error_code": 40407,
                "message": "It was not deleted first before being permanently deleted",
            }
        else:
            self.deleted.remove((subject, version))
        return 200, version


@contextmanager
def fake_registry(tls: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    registry = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            path = [unquote(one) for one in parts.path.strip("/").split("/")]
            wanted = "Basic " + base64.b64encode(registry.user_info.encode()).decode()
            if registry.user_info and self.headers.get("Authorization") != wanted:
                status, answer = 401, {"error_code": 401, "message": "Unauthorized"}
            else:
                status, answer = registry.answer(
                    self.command,
                    path,
                    query=parts.query,
                    body=json.loads(body) if body else None,
                )
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        registry.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
