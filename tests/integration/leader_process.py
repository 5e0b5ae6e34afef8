"""Ingest as a process of its own against the session's broker, its library, and the two services that it waits for.

Run as a program, this file is ingest itself with named points at which it dies: `KILL_AT` lists `Event:when` (`inside`
the open transaction, or `after` its commit, before it is folded); at each one it is killed once, as by the system.
"""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import Envelope, header, seal, unseal
from eventlog.events import (
    ChunkExtracted,
    ChunkOutcome,
    ChunksSettled,
    DocumentChunksSettled,
    DocumentSettled,
    ImportRefused,
    Message,
    RequestImport,
    SettledChunk,
    Source,
    SourceFile,
    SourceKind,
    StoreOpened,
    StorePosition,
)
from eventlog.ids import NAMESPACE, ImportId, StoreId, new_import_id
from eventlog.kafka import KafkaLog
from eventlog.log import NewRecord, Record, TopicPartition
from eventlog.topics import CHUNKS, EMBEDDINGS, IMPORT_REQUESTS, IMPORTS

SCHEMAS = Schemas(schemas_dir())
SPACE = "local/wordllama@256:1"
STORE = StoreId(NAMESPACE)
WAIT_S = 40.0
T = TypeVar("T")


async def until(condition: Callable[[], Any], why: Callable[[], Any] = str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(why()) from None


class Ingest:
    """The process; its data folder and its port are kept over deaths."""

    def __init__(self, folder: Path, *, bootstrap: str, prefix: str, blobs: Path, instance: str = "") -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._env = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "PAPERLOG_PREFIX": prefix,
            "PAPERLOG_INSTANCE": instance,
            "PAPERLOG_DATA_DIR": str(folder / "data"),
            "PAPERLOG_HTTP_PORT": str(self._port),
            "PAPERLOG_BLOBS": str(blobs),
            "PAPERLOG_GRAPH_WRITER_URL": "http://127.0.0.1:9",
        }

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def elections(self) -> int:
        return self.log_text.count("leader.elected")

    def spawn(self, kill_at: Sequence[str] = ()) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.leader_process"],
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={**os.environ, **self._env, "KILL_AT": " ".join(kill_at)},
            )

    async def start(self) -> "Ingest":
        self.spawn()
        await until(lambda: self.get("/livez")[0] == 200, lambda: self.log_text[-3000:])
        return self

    def get(self, path: str, body: Any = None, *, method: str | None = None) -> tuple[int, Any]:
        """0 while nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", data=data, method=method,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError:
            return 0, {}

    def post(self, path: str) -> tuple[int, Any]:
        return self.get(path, {}, method="POST")

    def status(self, import_id: ImportId) -> dict[str, Any]:
        return dict(self.get(f"/api/imports/{import_id}")[1])

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


class World:
    """The log seen from outside, a library in the blob store, and an embedder and a writer in one, made by hand."""

    def __init__(self, log: KafkaLog, blobs: Path) -> None:
        self.log = log
        self.blobs = blobs
        self._places: Counter[int] = Counter()
        self._settled: set[tuple[str, int]] = set()
        self._said: set[int] = set()

    def library(self, titles: Sequence[str]) -> Source:
        """A CSL-JSON file with an item for each title."""
        items = [
            {"id": title, "type": "article-journal", "title": title, "abstract": f"{title}. " * 12,
             "author": [{"family": "Okonjo", "given": "Amara"}]}
            for title in titles
        ]  # fmt: skip
        return self.file("library.json", json.dumps(items).encode())

    def file(self, name: str, content: bytes) -> Source:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.blobs / sha256[:2] / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        file = SourceFile(path=name, sha256=sha256, size_bytes=len(content))
        return Source(kind=SourceKind.AUTO, files=(file,), file_count=1, size_bytes=len(content))

    def request(self, source: Source, **more: Any) -> RequestImport:
        values = {"import_id": new_import_id(), "project_name": "Reading", **more}
        return RequestImport(occurred_at=datetime.now(UTC), source=source, **values)

    async def ask(self, *commands: Message) -> None:
        await self.write(
            seal(SCHEMAS, one, topic=IMPORT_REQUESTS, source="test", partition=0) for one in commands
        )

    async def say(self, *facts: Message) -> None:
        await self.write(seal(SCHEMAS, one, topic=IMPORTS, source="test", partition=0) for one in facts)

    async def write(self, records: Any) -> None:
        writer = await self.log.writer()
        try:
            for ack in [await writer.send(record) for record in records]:
                await ack
        finally:
            await writer.close()

    async def read(self, topic: str) -> list[Record]:
        begins, ends = await self.log.begins(topic), await self.log.ends(topic)
        starts = {TopicPartition(topic, one): at for one, at in begins.items() if at < ends[one]}
        if not starts:
            return []
        reader = await self.log.reader(starts)
        records: list[Record] = []
        try:
            async with asyncio.timeout(WAIT_S):
                while any([await reader.position(at) < ends[at.partition] for at in starts]):
                    records.extend(await reader.poll(records_max=1000, timeout_s=0.2))
        finally:
            await reader.close()
        return records

    async def facts(self, import_id: ImportId | None = None) -> list[Envelope]:
        found = [unseal(SCHEMAS, one) for one in await self.read(IMPORTS) if header(one, "ce_id")]
        return [one for one in found if import_id in (None, getattr(one.event, "import_id", None))]

    async def counted(self, import_id: ImportId) -> Counter[str]:
        return Counter(type(one.event).__name__ for one in await self.facts(import_id))

    async def refused(self, count: int) -> list[ImportRefused]:
        """All refusals, as soon as there are so many."""

        async def refusals() -> list[ImportRefused]:
            return [one.event for one in await self.facts() if isinstance(one.event, ImportRefused)]

        return await self.come(refusals, count)

    async def come(self, look: Callable[[], Awaitable[list[T]]], count: int) -> list[T]:
        """What is there, as soon as it is so many."""
        found: list[T] = []
        try:
            async with asyncio.timeout(WAIT_S):
                while len(found := await look()) < count:  # noqa: ASYNC110 - another process writes
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{len(found)} of {count}: {found}") from None
        return found

    async def open_store(self, at: int = 0, *, store: StoreId = STORE) -> None:
        positions = [
            StorePosition(collection="c", topic=EMBEDDINGS, partition=one, offset=at) for one in range(48)
        ]
        positions.append(StorePosition(collection="c", topic=IMPORTS, partition=0, offset=at))
        await self.say(StoreOpened(occurred_at=datetime.now(UTC), store_id=store, positions=tuple(positions)))

    async def settle(self) -> None:
        """Answers every chunk and every settled document that nobody has answered yet, as stored."""
        answers: list[Message] = []
        for record in await self.read(CHUNKS):
            chunk = unseal(SCHEMAS, record).event
            assert isinstance(chunk, ChunkExtracted)
            key = (f"{chunk.import_id}{chunk.chunk_id}", chunk.attempt)
            if key not in self._settled:
                self._settled.add(key)
                answers.append(self._stored(chunk, record.partition))
        for envelope in await self.facts():
            said = envelope.event
            if isinstance(said, DocumentChunksSettled) and envelope.record.offset not in self._said:
                self._said.add(envelope.record.offset)
                answers.append(_settled(said, envelope.record.offset))
        await self.say(*answers)

    def _stored(self, chunk: ChunkExtracted, partition: int) -> ChunksSettled:
        offset = self._places[partition]
        self._places[partition] += 1
        return ChunksSettled(
            import_id=chunk.import_id,
            project_id=chunk.project_id,
            attempt=chunk.attempt,
            occurred_at=datetime.now(UTC),
            space=chunk.space,
            store_id=STORE,
            chunks=(
                SettledChunk(
                    partition=partition,
                    offset=offset,
                    chunk_id=chunk.chunk_id,
                    document_id=chunk.document_id,
                    revision=chunk.revision,
                    chunk_index=chunk.chunk_index,
                    outcome=ChunkOutcome.STORED,
                    tokens_billed=1,
                    content_hash=hashlib.sha256(chunk.text.encode()).digest(),
                ),
            ),
        )

    async def settle_until(self, condition: Callable[[], Any], why: Callable[[], Any] = str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await self.settle()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(why()) from None


def _settled(said: DocumentChunksSettled, offset: int) -> DocumentSettled:
    return DocumentSettled(
        import_id=said.import_id,
        project_id=said.project_id,
        attempt=said.attempt,
        occurred_at=datetime.now(UTC),
        document_id=said.document_id,
        revision=said.revision,
        outcome=ChunkOutcome.STORED,
        store_id=STORE,
        offset=offset,
    )


def _die_at_named_points() -> None:
    from eventlog import kafka

    marks = Path(os.environ["PAPERLOG_DATA_DIR"]) / "died"
    marks.mkdir(parents=True, exist_ok=True)
    points = [point.split(":") for point in os.environ.get("KILL_AT", "").split()]
    commit = kafka.KafkaDecider._commit

    def die(name: str, when: str) -> None:
        mark = marks / f"{name}-{when}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    async def dying(self: kafka.KafkaDecider, records: Sequence[NewRecord]) -> Any:
        types = {dict(one.headers)["ce_type"].decode().removeprefix("paperlog.") for one in records}
        here = [(name, when) for name, when in points if name in types]
        for name, when in here:
            if when == "inside" and not (marks / f"{name}-{when}").exists():
                await self._producer.begin_transaction()
                for one in records:
                    await (await self._writer.send(one))
                die(name, when)
        positions = await commit(self, records)
        for name, when in here:
            die(name, when)
        return positions

    kafka.KafkaDecider._commit = dying  # type: ignore[method-assign]  # the death is what is tested


if __name__ == "__main__":
    from ingest.app import main

    _die_at_named_points()
    main()
