"""An embedder as a process of its own against the session's broker, and the library that it is given."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.provider import FakeProvider

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import Envelope, seal, unseal
from eventlog.events import (
    ChunkEmbedded,
    ChunkExtracted,
    ChunkKind,
    ChunkRejected,
    EmbeddingContinued,
    EmbeddingPaused,
    Message,
    Part,
)
from eventlog.ids import ChunkId, ImportId, chunk_id, document_id, embedding_key, new_import_id, project_id
from eventlog.kafka import KafkaLog
from eventlog.log import NewRecord, Record, TopicPartition
from eventlog.settings import ServiceSettings
from eventlog.topics import CHUNKS, DLQ, EMBEDDINGS, IMPORTS, topic_table

SPACE = "openai/test-embedding@64:1"
SLUG = "openai-test-embedding-64-1"
WAIT_S = 30.0
SCHEMAS = Schemas(schemas_dir())
Identity = tuple[ImportId, int, ChunkId]


async def until(
    condition: Callable[[], Any], why: Callable[[], Any] = str, timeout_s: float = WAIT_S
) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(why()) from None


class Library:
    """What ingest would have written, and what the log says of it."""

    def __init__(self, log: KafkaLog, name: str = "Library") -> None:
        self.log = log
        self.project = project_id(name)
        self._document = document_id(self.project, "sha256:1")

    def chunks(
        self, texts: Sequence[str], import_id: ImportId, *, attempt: int = 1, space: str = SPACE
    ) -> list[ChunkExtracted]:
        return [
            ChunkExtracted(
                occurred_at=datetime.now(UTC),
                import_id=import_id,
                project_id=self.project,
                attempt=attempt,
                chunk_id=chunk_id(self._document, "1", "full_text", index, text),
                document_id=self._document,
                embedding_key=embedding_key(self.project, text),
                space=space,
                revision=1,
                chunk_index=index,
                kind=ChunkKind.PASSAGE,
                part=Part.FULL_TEXT,
                text=text,
            )
            for index, text in enumerate(texts)
        ]

    async def write(self, records: Iterable[NewRecord]) -> None:
        writer = await self.log.writer()
        try:
            for ack in [await writer.send(record) for record in records]:
                await ack
        finally:
            await writer.close()

    async def give(self, chunks: Iterable[ChunkExtracted], *, partition: int | None = None) -> None:
        await self.write(chunk_record(one, partition=partition) for one in chunks)

    async def say(self, *messages: Message) -> None:
        """On `imports`, as ingest does."""
        await self.write(
            seal(SCHEMAS, one, topic=IMPORTS, source="paperlog/ingest", partition=0) for one in messages
        )

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
                    records.extend(await reader.poll(records_max=1000, timeout_s=0.5))
        finally:
            await reader.close()
        return records

    async def envelopes(self) -> list[Envelope]:
        return [unseal(SCHEMAS, record) for record in await self.read(EMBEDDINGS)]

    async def events(self) -> dict[Identity, list[ChunkEmbedded | ChunkRejected]]:
        found: dict[Identity, list[ChunkEmbedded | ChunkRejected]] = {}
        for one in await self.envelopes():
            assert isinstance(one.event, ChunkEmbedded | ChunkRejected)
            identity = (one.event.import_id, one.event.attempt, one.event.chunk_id)
            found.setdefault(identity, []).append(one.event)
        return found

    async def pauses(self) -> list[EmbeddingPaused | EmbeddingContinued]:
        events = [unseal(SCHEMAS, record).event for record in await self.read(IMPORTS)]
        return [one for one in events if isinstance(one, EmbeddingPaused | EmbeddingContinued)]

    async def count_to(self, topic: str, count: int) -> list[Record]:
        """The records of a topic as soon as there are so many."""
        try:
            async with asyncio.timeout(WAIT_S):
                while sum((await self.log.ends(topic)).values()) < count:  # noqa: ASYNC110 - another process writes
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{len(await self.read(topic))} of {count} records") from None
        return await self.read(topic)

    async def answered(self, chunks: Iterable[ChunkExtracted], timeout_s: float = WAIT_S) -> list[Any]:
        """One event for each chunk, in order, as soon as all of them are in the log."""
        wanted = [(one.import_id, one.attempt, one.chunk_id) for one in chunks]
        found: dict[Identity, list[ChunkEmbedded | ChunkRejected]] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while not all(one in found for one in wanted):
                    if sum((await self.log.ends(EMBEDDINGS)).values()) > sum(map(len, found.values())):
                        found = await self.events()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            missing = sum(one not in found for one in wanted)
            raise AssertionError(f"{missing} of {len(wanted)} chunks have no event") from None
        return [found[one][0] for one in wanted]


def chunk_record(chunk: ChunkExtracted, *, partition: int | None = None) -> NewRecord:
    return seal(SCHEMAS, chunk, topic=CHUNKS, source="paperlog/ingest", partition=partition)


class Embedder:
    """The process; its data folder and its port are kept over deaths."""

    module = "embedder.app"

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "PAPERLOG_DATA_DIR": str(self.folder / "data"),
                    "PAPERLOG_HTTP_PORT": str(self._port),
                    **self._env,
                },
            )

    async def start(self) -> "Embedder":
        self.spawn()
        await self.until_ready()
        return self

    async def until_ready(self) -> None:
        await until(lambda: self.get("/readyz")[0] == 200, lambda: f"not ready: {self.log_text[-3000:]}")

    def get(self, path: str, body: Any = None, *, method: str | None = None) -> tuple[int, Any]:
        """0 while nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                content = answer.read()
                return answer.status, json.loads(content) if content[:1] in b"{[" else content.decode()
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError:
            return 0, {}

    def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        return self.get(path, body if body is not None else {}, method="POST")

    @property
    def reasons(self) -> list[str]:
        return list(self.get("/readyz")[1].get("reasons", ["unreachable"]))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        """The exit code after SIGTERM, within the 10 s that a service has."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10)

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@asynccontextmanager
async def log_of(
    bootstrap: str, prefix: str, folder: Path, *, group: str = f"embedder-{SLUG}"
) -> AsyncIterator[KafkaLog]:
    settings = ServiceSettings(
        KAFKA_BOOTSTRAP_SERVERS=bootstrap,
        PAPERLOG_PREFIX=prefix,
        PAPERLOG_HTTP_PORT=0,
        PAPERLOG_DATA_DIR=folder,
    )  # type: ignore[call-arg]  # the names of the environment
    log = KafkaLog(settings)
    table = topic_table()
    letters = replace(table.pop(DLQ), name=f"{group}-{DLQ}")
    await log.ensure_topics([*table.values(), letters])
    try:
        yield log
    finally:
        await log.close()


def environment(
    bootstrap: str, prefix: str, provider: FakeProvider | None, instance: str = "one"
) -> dict[str, str]:
    """With a name that it keeps, a process that died comes back without waiting for the group to miss it."""
    env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PAPERLOG_PREFIX": prefix, "PYTHONUNBUFFERED": "1"}
    env |= {"PAPERLOG_INSTANCE": instance}
    if provider is not None:
        env |= {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "sk-canary-key-of-this-test"}
        env |= {"PAPERLOG_EMBEDDING": SPACE}
    return env


def doubled(billed: Counter[str]) -> int:
    """Texts billed more than once, counted as often as they were too many."""
    return sum(count - 1 for count in billed.values())


def new_import() -> ImportId:
    return new_import_id()
