"""The embedder as `app.run` wires it, several processes if need be, over a log in memory and a provider in memory.

Time is virtual. What is checked is what stands in the log, and the provider's ledger; never a call between two parts.
"""

import asyncio
import hashlib
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from tests.unit.embedder.virtual_time import LoopClock, run_virtually

from embedder import app
from embedder.models.model import Embedded, ModelError, Side
from embedder.settings import EmbedderSettings
from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import Envelope, seal, unseal
from eventlog.errors import TransientFailure
from eventlog.events import (
    ChunkEmbedded,
    ChunkExtracted,
    ChunkKind,
    ChunkMessage,
    ChunkRejected,
    ChunkRejectionReason,
    EmbeddingContinued,
    EmbeddingPaused,
    ImportCancelled,
    ImportResumed,
    Message,
    Part,
)
from eventlog.ids import ImportId, chunk_id, document_id, embedding_key, import_id_of_key, project_id
from eventlog.log import NewRecord, Position, Reader, Record, TopicPartition, Writer
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.topics import CHUNKS, EMBEDDINGS, IMPORTS, Names, topic_table

SPACE = "openai/test-embedding@4:1"
GROUP = "embedder-openai-test-embedding-4-1"
DLQ = f"{GROUP}-dlq"
SCHEMAS = Schemas(schemas_dir())
PROJECT = project_id("Library")
DOCUMENT = document_id(PROJECT, "sha256:1")
FIRST, SECOND = (import_id_of_key("anonymous", key) for key in ("first", "second"))
Fails = Callable[[Sequence[str]], ModelError | None]


class SlowWriter:
    """Takes records at once, and writes them when the log is not slow any more."""

    def __init__(self, writer: Writer, world: "World") -> None:
        self._writer = writer
        self._world = world

    async def send(self, record: NewRecord) -> Awaitable[Position]:
        written = asyncio.ensure_future(self._written(record))
        # Who dies asks for no answer.
        written.add_done_callback(lambda one: one.cancelled() or one.exception())
        return written

    async def _written(self, record: NewRecord) -> Position:
        while self._world.is_log_slow:  # noqa: ASYNC110 - virtual time, and a test sets it
            await asyncio.sleep(0.1)
        return await (await self._writer.send(record))

    async def close(self) -> None:
        await self._writer.close()


class ProcessLog(MemoryLog):
    """With the names that `KafkaLog` has, and a log that may be slow in taking what it is given."""

    names = Names()

    def __init__(self, world: "World") -> None:
        super().__init__(world.broker)
        self._world = world
        self._is_dead = False

    async def kill(self) -> None:
        self._is_dead = True
        await super().kill()

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        if any(one.topic == IMPORTS for one in starts):
            await asyncio.sleep(self._world.story_delay_s)
        return await super().reader(starts)

    async def writer(self) -> Writer:
        if self._is_dead:
            raise TransientFailure("a dead process writes nothing")
        writer = await super().writer()
        return SlowWriter(writer, self._world) if self._world.may_be_slow else writer


@dataclass(frozen=True, slots=True)
class Request:
    at_s: float
    texts: tuple[str, ...]
    who: str


class Provider:
    """What all processes pay. `fails` looks at the texts of a request and says how it ends, if not well."""

    def __init__(self) -> None:
        self.latency_s = 0.2
        self.fails: Fails = lambda _: None
        self.fails_for: dict[str, Fails] = {}
        """The same for one process."""
        self.texts_in_flight = 0
        self.texts_in_flight_max = 0
        self.requests: list[Request] = []
        self.paid: list[Request] = []
        self.billed: Counter[str] = Counter()

    async def embed(self, texts: Sequence[str], who: str) -> Embedded:
        request = Request(asyncio.get_running_loop().time(), tuple(texts), who)
        self.requests.append(request)
        self.texts_in_flight += len(texts)
        self.texts_in_flight_max = max(self.texts_in_flight_max, self.texts_in_flight)
        try:
            error = self.fails_for.get(who, self.fails)(texts)
            if error is not None:
                await asyncio.sleep(0.01)
                raise error
            self.paid.append(request)
            self.billed.update(texts)
            await asyncio.sleep(self.latency_s)
        finally:
            self.texts_in_flight -= len(texts)
        return Embedded([vector_of(text) for text in texts], [7] * len(texts))

    def asked_since(self, at_s: float) -> list[Request]:
        return [one for one in self.requests if one.at_s >= at_s]


def vector_of(text: str) -> bytes:
    """Of unit length, and another one for each text."""
    angle = hashlib.sha256(text.encode()).digest()
    raw = [byte - 127.5 for byte in angle[:4]]
    length = sum(one * one for one in raw) ** 0.5
    return struct.pack("<4f", *(one / length for one in raw))


class _Model:
    def __init__(self, provider: Provider, who: str) -> None:
        self._provider = provider
        self._who = who

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        del side
        return await self._provider.embed(texts, self._who)

    async def close(self) -> None:
        pass


class World:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.provider = Provider()
        self.broker = MemoryBroker(topic_table().values(), clock=LoopClock())
        self.may_be_slow = False
        self.is_log_slow = False
        self.story_delay_s = 0.0
        self._running: dict[str, asyncio.Task[int]] = {}
        self._logs: dict[str, ProcessLog] = {}

    # --- processes

    def log_of(self, settings: EmbedderSettings) -> ProcessLog:
        log = self._logs[settings.data_dir.name] = ProcessLog(self)
        return log

    def model_of(self, settings: EmbedderSettings) -> _Model:
        return _Model(self.provider, settings.data_dir.name)

    def data(self, name: str) -> Path:
        return self._folder / name

    async def start(self, name: str = "a", *, space: str = SPACE, requests_max: int = 96) -> None:
        """Returns when the process has partitions and reads them."""
        settings = EmbedderSettings(
            kafka_bootstrap_servers="memory:1",
            http_port=0,
            data_dir=self.data(name),
            embedding=space,
            openai_base_url="http://nowhere",
            requests_max=requests_max,
        )
        self._running[name] = asyncio.create_task(app.run(settings))
        await asyncio.sleep(1.0)
        self.look()

    async def cut_off(self, name: str = "a") -> None:
        """As SIGKILL, for everybody else: nothing that it does from here on reaches the log or the group."""
        await self._logs[name].kill()

    async def kill(self, name: str = "a") -> None:
        await self.cut_off(name)
        await self.stop(name)

    async def stop(self, name: str = "a") -> None:
        """As SIGTERM does, but for the exit code."""
        task = self._running.pop(name)
        task.cancel()
        await asyncio.wait([task])

    async def stop_all(self) -> None:
        for name in list(self._running):
            await self.stop(name)

    def look(self) -> None:
        """Raises what ended a process that nobody stopped."""
        for task in self._running.values():
            if task.done():
                task.result()
                raise AssertionError("a process ended by itself")

    def forget(self, name: str = "a") -> None:
        """It was meant to end."""
        del self._running[name]

    # --- what ingest writes

    def chunk(
        self,
        text: str,
        import_id: ImportId = FIRST,
        *,
        attempt: int = 1,
        index: int = 0,
        space: str = SPACE,
    ) -> ChunkExtracted:
        return ChunkExtracted(
            occurred_at=LoopClock().now(),
            import_id=import_id,
            project_id=PROJECT,
            attempt=attempt,
            chunk_id=chunk_id(DOCUMENT, "1", "full_text", index, text),
            document_id=DOCUMENT,
            embedding_key=embedding_key(PROJECT, text),
            space=space,
            revision=1,
            chunk_index=index,
            kind=ChunkKind.PASSAGE,
            part=Part.FULL_TEXT,
            text=text,
        )

    def rejection(self) -> ChunkRejected:
        """An event that has no business on `chunks`."""
        chunk = self.chunk("rejected")
        return ChunkRejected(
            **{spec.name: getattr(chunk, spec.name) for spec in fields(ChunkMessage)},
            reason=ChunkRejectionReason.TEXT_EMPTY,
        )

    def give(self, *chunks: ChunkExtracted, partition: int | None = None) -> None:
        for chunk in chunks:
            self.put(
                seal(SCHEMAS, chunk, topic=CHUNKS, source="paperlog/ingest", partition=partition), CHUNKS
            )

    def put(self, record: NewRecord, topic: str) -> None:
        assert record.topic == topic
        self.broker.append(record)

    def say(self, message: Message) -> None:
        self.broker.append(seal(SCHEMAS, message, topic=IMPORTS, source="paperlog/ingest", partition=0))

    def cancel(self, import_id: ImportId = FIRST, attempt: int = 1) -> None:
        self.say(
            ImportCancelled(
                occurred_at=LoopClock().now(), import_id=import_id, project_id=PROJECT, attempt=attempt
            )
        )

    def resume(self, import_id: ImportId = FIRST, attempt: int = 2) -> None:
        self.say(
            ImportResumed(
                occurred_at=LoopClock().now(), import_id=import_id, project_id=PROJECT, attempt=attempt
            )
        )

    # --- what is in the log

    def envelopes(self) -> list[Envelope]:
        return [unseal(SCHEMAS, record) for record in self.broker.records(EMBEDDINGS)]

    def events(self) -> list[ChunkEmbedded | ChunkRejected]:
        events = [one.event for one in self.envelopes()]
        return [one for one in events if isinstance(one, ChunkEmbedded | ChunkRejected)]

    def embedded(self) -> list[ChunkEmbedded]:
        return [one for one in self.events() if isinstance(one, ChunkEmbedded)]

    def rejected(self) -> list[ChunkRejected]:
        return [one for one in self.events() if isinstance(one, ChunkRejected)]

    def said(self) -> list[EmbeddingPaused | EmbeddingContinued]:
        events = [unseal(SCHEMAS, record).event for record in self.broker.records(IMPORTS)]
        return [one for one in events if isinstance(one, EmbeddingPaused | EmbeddingContinued)]

    def letters(self) -> list[Record]:
        return self.broker.records(DLQ)

    def committed(self, partition: int) -> int:
        """The next offset that the group will read."""
        return self.broker.committed.get(GROUP, {}).get(TopicPartition(CHUNKS, partition), 0)

    async def until(self, condition: Callable[[], Any], within_s: float = 30.0) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        while not condition():
            self.look()
            assert asyncio.get_running_loop().time() < deadline, f"not within {within_s} s: {self}"
            await asyncio.sleep(0.05)

    async def answered(self, count: int, within_s: float = 30.0) -> None:
        await self.until(lambda: len(self.events()) >= count, within_s)

    def __str__(self) -> str:
        said = [type(one).__name__ for one in self.said()]
        return f"{len(self.events())} events, {len(self.provider.requests)} requests, said {said}"


Scenario = Callable[[World], Coroutine[Any, Any, None]]


@contextmanager
def patched(world: World) -> Iterator[None]:
    """`app.run` builds its clients itself; these three are what a test gives it in their place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "KafkaLog", world.log_of)
        patch.setattr(app, "build_model", world.model_of)
        patch.setattr(app, "SystemClock", LoopClock)
        yield


def play(folder: Path, scenario: Scenario) -> World:
    """The scenario from start to end; its processes are stopped whatever comes. Returns what is left."""
    world = World(folder)

    async def act() -> None:
        try:
            await scenario(world)
            world.look()
        finally:
            await world.stop_all()

    with patched(world):
        run_virtually(act())
    return world
