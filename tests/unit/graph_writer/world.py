"""A log in memory, an embedded store in a folder, and writers between them that die when a test says so.

A `Process` is what `app` builds, without Faust: the test hands out the batches. With the write-ahead log of the
embedded store a death costs nothing that was written, so a process that is dropped and one that was killed look alike;
`save` and `restore` keep and bring back a copy of the folder.
"""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.unit.graph_writer.story import NOW, SPACE, Content

from eventlog.avro import Schemas, schemas_dir
from eventlog.clock import ManualClock
from eventlog.envelope import seal, unseal
from eventlog.errors import UnprocessableRecord
from eventlog.events import ImportRequested, Message, ProjectCreated, Source, SourceKind
from eventlog.log import NewRecord, Record, TopicPartition
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.snapshot import SnapshotFile
from eventlog.topics import DLQ, EMBEDDINGS, IMPORTS, topic_table
from graph_writer.apply import Applier
from graph_writer.dead_letters import TOPIC, DeadLetters
from graph_writer.health import Health
from graph_writer.opened import GRAPH, TOPICS, OpenedStore
from graph_writer.patience import Patience
from graph_writer.projects import SNAPSHOT_VERSION, Projects
from graph_writer.publish import Publisher
from graph_writer.reads import Reads
from graph_writer.sender import Sender
from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import Order, Point, Store, StoreLost, Swap, Where
from graph_writer.words import Keywords
from graph_writer.writer import Writer

SCHEMAS = Schemas(schemas_dir())
PARTITIONS = frozenset(
    TopicPartition(topic, one) for topic in TOPICS for one in range(topic_table()[topic].partitions)
)
VOLATILE = {"revision", "attempt", "marks", "version"}
BOOKKEEPING = {"position", "settings", "store", "collection", "dead_letters"}
_LEFT: list[Store] = []
Points = dict[str, dict[str, tuple[Any, ...]]]


class FaultyStore(EdgeStore):
    """Raises what a test placed, one call each; `calls` names what was asked for and done, in order."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        super().__init__(folder, lock)
        self.faults: dict[str, list[Exception]] = {}
        self.calls: list[str] = []

    def _meet(self, name: str) -> None:
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        self.calls.append(name)

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        self._meet("upsert")
        await super().upsert(collection, points, order=order)

    async def delete(self, collection: str, ids: Sequence[UUID], *, order: Order | None = None) -> None:
        self._meet("delete")
        await super().delete(collection, ids, order=order)

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        self._meet("swap")
        return await super().swap(collection, swaps)

    async def flush(self) -> None:
        self._meet("flush")
        await super().flush()


class Process:
    """One writer's life. `store` is what it works on; `next` is where it goes on in each partition."""

    def __init__(self, log: MemoryLog, store: Any, folder: Path) -> None:
        self.log = log
        self.store = store
        self.clock = ManualClock(NOW)
        self.health = Health()
        self.opened = OpenedStore(store)
        self.sender = Sender(log, SCHEMAS, self.health)
        self.projects = Projects(log, SCHEMAS, SnapshotFile(folder / "projects.json", SNAPSHOT_VERSION))
        self.keywords = Keywords()
        self.dead_letters = DeadLetters(
            log=log,
            names=_NoPrefix,
            sender=self.sender,
            opened=self.opened,
            clock=self.clock,
            health=self.health,
        )
        patience = Patience(opened=self.opened, sender=self.sender, clock=self.clock, health=self.health)
        self.patience = patience
        self.publisher = Publisher(
            opened=self.opened, sender=self.sender, clock=self.clock, patience=patience
        )
        self.applier = Applier(
            opened=self.opened,
            projects=self.projects,
            dead_letters=self.dead_letters,
            keywords=self.keywords,
            schemas=SCHEMAS,
            log=log,
            clock=self.clock,
        )
        self.writer = Writer(
            applier=self.applier,
            publisher=self.publisher,
            opened=self.opened,
            dead_letters=self.dead_letters,
            patience=patience,
            projects=self.projects,
            sender=self.sender,
            log=log,
            clock=self.clock,
            health=self.health,
            crash=_raise,
        )
        self.next: dict[TopicPartition, int] = {}
        self._folding: asyncio.Task[None] | None = None
        self._is_dead = False

    async def open(self, partitions: frozenset[TopicPartition] = PARTITIONS) -> None:
        await self.opened.open(PARTITIONS)
        await self.opened.check_log(self.log)
        await self.dead_letters.open()
        self._folding = asyncio.create_task(self.projects.run())
        self.next = dict(await self.writer.assigned(partitions))
        self.health.remove("starting")

    def reads(self) -> Reads:
        reads = Reads(self.health)
        reads.serve(
            opened=self.opened,
            applier=self.applier,
            keywords=self.keywords,
            dead_letters=self.dead_letters,
            writer=self.writer,
        )
        return reads

    async def take(self, at: TopicPartition, count: int = 5) -> int:
        """Hands out up to `count` records of a partition, as one batch; how many there were."""
        partition = self.log.broker.partition(at.topic, at.partition)
        records, following = partition.read(self.next[at], count)
        if records:
            await self.writer.handle(records)
        self.next[at] = following
        return len(records)

    async def take_all(self) -> None:
        """Everything up to the log's end, chunks first, without a cycle of the publisher."""
        for at in sorted(self.next, key=lambda one: (one.topic, one.partition)):
            while await self.take(at):
                pass

    async def catch_up(self) -> None:
        await self.take_all()
        await self.publisher.cycle()

    async def die(self) -> None:
        """As SIGKILL: nothing more is said or flushed by this process's own doing."""
        if self._is_dead:
            return
        self._is_dead = True
        if self._folding is not None:
            self._folding.cancel()
            await asyncio.gather(self._folding, return_exceptions=True)
        await self.log.kill()
        try:
            await self.store.check()
        except StoreLost:
            # Closing would write into what stands there now, which a killed process does not do.
            _LEFT.append(self.store)
        else:
            await self.store.close()


class World:
    def __init__(self, folder: Path) -> None:
        table = topic_table()
        topics = [table[IMPORTS], table[EMBEDDINGS], replace(table[DLQ], name=TOPIC)]
        self.broker = MemoryBroker(topics)
        self.folder = folder / "store"
        self._aside = folder / "copy"
        self._log = MemoryLog(self.broker)
        self._processes: list[Process] = []

    # --- what others write

    async def append(self, *records: NewRecord) -> list[int]:
        writer = await self._log.writer()
        return [(await (await writer.send(record))).offset for record in records]

    async def say(self, *messages: Message) -> list[int]:
        """On `imports`, as ingest does; the offsets."""
        return await self.append(*(imports_record(one) for one in messages))

    async def project(self, space: str = SPACE) -> None:
        head = Content().head | {"attempt": 1}
        await self.say(ProjectCreated(**head, name="Reading", space=space))

    async def request(self) -> int:
        """The revision of a new import."""
        source = Source(kind=SourceKind.PDF, files=())
        head = Content().head
        (offset,) = await self.say(ImportRequested(**head, source=source, request_sha256="", space=SPACE))
        return offset

    async def embed(self, *events: Message, partition: int = 0) -> list[int]:
        return await self.append(*(embeddings_record(one, partition) for one in events))

    async def bring(self, content: Content, *, partition: int = 0) -> int:
        """The document and its chunks; the offset of its `DocumentParsed`."""
        (offset,) = await self.say(content.parsed())
        await self.embed(*content.chunks(), partition=partition)
        return offset

    def said(self, type_: type[Message] = Message) -> list[Any]:
        return self._read(IMPORTS, type_)

    def embedded(self, type_: type[Message] = Message) -> list[Any]:
        return self._read(EMBEDDINGS, type_)

    def _read(self, topic: str, type_: type[Message]) -> list[Any]:
        """What can be read; tests put noise there, too."""
        events: list[Message] = []
        for record in self.broker.records(topic):
            with suppress(UnprocessableRecord):
                events.append(unseal(SCHEMAS, record).event)
        return [one for one in events if isinstance(one, type_)]

    def dead_letters(self) -> list[Record]:
        return self.broker.records(TOPIC)

    # --- writers

    async def start(self) -> Process:
        lock = FolderLock(self.folder)
        assert lock.take(), "the process before is still alive"
        process = Process(MemoryLog(self.broker), FaultyStore(self.folder, lock), self.folder)
        await process.open()
        self._processes = [process]
        return process

    async def restart(self, process: Process) -> Process:
        await process.die()
        return await self.start()

    def save(self) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)
        # Its log makes the next of these in a thread, and renames it.
        shutil.copytree(self.folder, self._aside, ignore=shutil.ignore_patterns("tmp-open-*"))

    @property
    def has_copy(self) -> bool:
        return self._aside.exists()

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._aside, self.folder)

    async def close(self) -> None:
        for process in self._processes:
            await process.die()


class _NoPrefix:
    @staticmethod
    def of(name: str) -> str:
        return name


def _raise(error: BaseException) -> None:
    raise error


def imports_record(message: Message) -> NewRecord:
    return seal(SCHEMAS, message, topic=IMPORTS, source="paperlog/ingest", partition=0)


def embeddings_record(message: Message, partition: int = 0) -> NewRecord:
    return seal(SCHEMAS, message, topic=EMBEDDINGS, source="paperlog/embedder", partition=partition)


async def all_points(store: Store, collections: Sequence[str]) -> Points:
    """What the store says, by collection and id: the payload without what differs between runs, and the vector."""
    found: Points = {}
    for name in collections:
        points: list[Point] = []
        after = None
        while True:
            page, after = await store.scroll(name, Where(), limit=500, after=after, with_vector=True)
            points += page
            if after is None:
                break
        found[name] = {
            str(one.id): (
                sorted((k, repr(v)) for k, v in one.payload.items() if k not in VOLATILE),
                one.vector if name != GRAPH.name else b"",
            )
            for one in points
            if one.payload.get("kind") not in BOOKKEEPING
        }
    return found


async def points_of(process: Process) -> Points:
    return await all_points(process.store, [one.name for one in process.opened.collections])
