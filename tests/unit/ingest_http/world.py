"""A world for the HTTP side without a log: commands are decided and folded at once, neighbours are scripted."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from eventlog.avro import Schemas, schemas_dir
from eventlog.clock import ManualClock
from eventlog.errors import TransientFailure
from eventlog.events import Command, Message, RequestImport, Source, SourceKind
from eventlog.ids import new_import_id
from ingest.blobs import FolderBlobs
from ingest.core import Known, decide
from ingest.http import HttpParts, build_app
from ingest.projection import Projection
from ingest.settings import IngestSettings

LOCAL = "local/wordllama@256:1"
OTHER = "openai/text-embedding-3-small@1536:1"
EMBEDDER = "http://embedder.test"
WRITER = "http://writer.test"
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_zip(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


@dataclass(kw_only=True)
class Found:
    kind: SourceKind = SourceKind.PDF
    items: int = 1
    pdfs_found: int = 1
    pdfs_missing: int = 0
    problems: tuple[Any, ...] = ()


@dataclass(kw_only=True)
class FoundProblem:
    code: str
    subject: str = ""
    message: str = ""
    is_fatal: bool = True


class Deciding:
    """The log and the leader in one: what is appended is decided and folded before it is acknowledged."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self.appended: list[Command] = []
        self.is_down = False
        self.is_folding = True

    async def append(self, command: Command) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise TransientFailure("the log does not answer")
        self.appended.append(command)
        if self.is_folding:
            await self.fold(command)

    async def fold(self, command: Command) -> None:
        import_id = command.import_id or new_import_id()
        name = command.project_name if isinstance(command, RequestImport) else ""
        known = Known(
            existing=self.projection.find(import_id),
            project=self.projection.project(name) if name else None,
            default_space=LOCAL,
            chunker_version="1",
        )
        await self.happen(*decide(command, known, import_id=import_id, command_id="c", at=T0))

    async def happen(self, *events: Message) -> None:
        at = self.projection.position
        self.projection.apply([(at + number, event) for number, event in enumerate(events)], at + len(events))
        await self.projection.notify()


@dataclass(kw_only=True)
class Neighbours:
    """What the embedder and the graph-writer answer, by method and path; a function gets the request's JSON."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    away: set[str] = field(default_factory=set)

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.away:
            raise httpx.ConnectError("refused")
        key = f"{request.method} {request.url.host} {request.url.path}"
        body = None
        if request.content:
            import json

            body = json.loads(request.content)
        self.asked.append((key, body))
        answer = self.answers.get(key)
        if answer is None and request.url.path == "/readyz":
            answer = {"ready": True, "reasons": []}
        if isinstance(answer, Callable):
            answer = answer(body)
        if isinstance(answer, httpx.Response):
            return answer
        return (
            httpx.Response(404, json={"code": "not_found"})
            if answer is None
            else httpx.Response(200, json=answer)
        )


class World:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = IngestSettings(
            **{
                "kafka_bootstrap_servers": "127.0.0.1:1",
                "http_port": 0,
                "data_dir": folder / "data",
                "blobs": str(folder / "blobs"),
                "embedders_json": f'{{"{LOCAL}": "{EMBEDDER}"}}',
                "graph_writer_url": WRITER,
                **settings,
            }
        )
        self.projection = Projection(folder / "data" / "projection.sqlite")
        self.commands = Deciding(self.projection)
        self.blobs = FolderBlobs(folder / "blobs")
        self.neighbours = Neighbours()
        self.found = Found()
        self.validated: list[Source] = []
        self.clock = ManualClock(T0)
        self.is_rebuilding = False
        self.log_reasons: list[str] = []
        self.damages = 0
        self.nameless_letter_at: datetime | None = None
        self.app = build_app(
            HttpParts(
                settings=self.settings,
                projection=self.projection,
                commands=self.commands,
                blobs=self.blobs,
                validate=self._validate,
                clock=self.clock,
                schemas=Schemas(schemas_dir()),
                client=httpx.AsyncClient(transport=httpx.MockTransport(self.neighbours.handle)),
                is_rebuilding=lambda: self.is_rebuilding,
                log_reasons=lambda: self.log_reasons,
                has_nameless_letter=self._has_nameless_letter,
                on_damage=self._on_damage,
            )
        )
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8800",
        )

    async def _has_nameless_letter(self, space: str, at: datetime) -> bool:
        assert space == LOCAL
        return self.nameless_letter_at is not None and self.nameless_letter_at >= at

    def _on_damage(self) -> None:
        self.damages += 1

    async def _validate(self, source: Source) -> Found:
        self.validated.append(source)
        return self.found

    async def put(self, data: bytes) -> str:
        answer = await self.http.put(f"/api/blobs/{sha256(data)}", content=data)
        assert answer.status_code in (200, 201)
        return sha256(data)

    async def ask(self, files: Mapping[str, bytes], key: str | None = None, **body: Any) -> httpx.Response:
        rows = [{"path": path, "sha256": await self.put(data)} for path, data in files.items()]
        return await self.http.post(
            "/api/imports",
            json={"source": {"files": rows}, **body},
            headers={} if key is None else {"Idempotency-Key": key},
        )

    def blob_files(self) -> list[str]:
        """Names of everything in the blob store, what is on its way in included."""
        return sorted(
            path.name
            for path in (self.folder / "blobs").rglob("*")
            if path.is_file() and path.name != ".lock"
        )

    def close(self) -> None:
        self.projection.close()
        self.blobs.close()
