"""The three services as their `app` builds them, over a log, a disk, a provider and a parser that a seed decides about.

What is not here of them: HTTP, the parser's child, the adapters of providers, Faust, Qdrant's and the embedded store's
own behaviour. Everything that decides is the product's own.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from tests.simulation.faults import Plan
from tests.simulation.log import ProcessLog
from tests.simulation.provider import LifeOfModel
from tests.simulation.store import DiskStore
from tests.simulation.story import REJECTED, SPACE, Story
from tests.unit.embedder.virtual_time import LoopClock

from embedder import app as embedder_app
from embedder.index import Index
from embedder.settings import EmbedderSettings
from eventlog.avro import Schemas, schemas_dir
from eventlog.errors import UnprocessableRecord
from eventlog.events import DocumentRejectionReason, Message, SourceKind
from eventlog.ids import ProjectId
from eventlog.log import TopicPartition
from eventlog.memory import MemoryBroker
from eventlog.memory_group import Group, Member
from eventlog.snapshot import SnapshotFile
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.apply import Applier
from graph_writer.dead_letters import DeadLetters
from graph_writer.health import Health
from graph_writer.opened import OpenedStore
from graph_writer.patience import Patience
from graph_writer.projects import SNAPSHOT_VERSION, Projects
from graph_writer.publish import Publisher
from graph_writer.sender import Sender
from graph_writer.stores.store import StoreAway
from graph_writer.words import Keywords
from graph_writer.writer import Writer
from ingest.fold import Fold
from ingest.leader import Leader
from ingest.parser import Parsed, Rejected, ScanSummary
from ingest.projection import Projection
from ingest.scan_index import ScanIndex
from ingest.spool import write_spool
from ingest.term import LeaderParts

SCHEMAS = Schemas(schemas_dir())
PARTITIONS = 3
SOURCES = frozenset(
    [TopicPartition(IMPORTS, 0), *(TopicPartition(EMBEDDINGS, one) for one in range(PARTITIONS))]
)
BATCH = 5
LATE_S = 6.0
"""One partition of a life of the graph-writer may be read so much later than the others."""
PAUSES_S = (0.0, 0.0, 0.05, 0.4)
"""Before each batch of a life of the graph-writer: a slow one is long behind."""
KEYWORDS = Keywords()


# --- ingest ------------------------------------------------------------------------------------------------------


class Files:
    """The blob store: it has whatever the story names."""

    async def size(self, sha256: str) -> int | None:
        return 1

    async def local(self, sha256: str) -> Path:
        return Path(sha256)


class Parser:
    """Writes what the parser's child would: the index of a library, and one document after the other."""

    def __init__(self, story: Story, chance: random.Random) -> None:
        self._story = story
        self._chance = chance

    async def scan(
        self, *, project_id: ProjectId, kind: SourceKind, files: Any, options: Mapping[str, str], out: Path
    ) -> ScanSummary:
        await asyncio.sleep(self._chance.choice((0.0, 0.5)))
        library = self._story.by_file(files[0].sha256)
        index = ScanIndex(out)
        for content in library.documents:
            index.add_item(content.item)
        merged = index.make_documents(project_id)
        index.commit()
        index.close()
        out.with_suffix(".of").write_text(library.file_sha256, encoding="utf-8")
        count = len(library.documents)
        return ScanSummary(kind=kind, document_count=count, item_count=count, merged_count=merged)

    async def parse(self, *, scan: Path, number: int, out: Path, project_id: ProjectId) -> Parsed | Rejected:
        await asyncio.sleep(self._chance.choice((0.0, 0.05, 1.0)))
        content = self._story.by_file(scan.with_suffix(".of").read_text(encoding="utf-8")).documents[
            number - 1
        ]
        if content.name == REJECTED:
            return Rejected(reason=DocumentRejectionReason.PARSER_CRASHED, item=content.name)
        document, chunks = content.spooled(project_id)
        write_spool(out, document, iter(chunks))
        return Parsed()


Watched = Callable[[str, Projection], None]


async def run_ingest(name: str, folder: Path, log: ProcessLog, story: Story, watched: Watched) -> None:
    projection = Projection(folder / "imports.sqlite")
    fold = Fold(log=log, schemas=SCHEMAS, projection=projection, default_space=SPACE)
    parts: Any = {
        "log": log,
        "names": log.names,
        "schemas": SCHEMAS,
        "projection": projection,
        "parser": Parser(story, log.chance),
        "blobs": Files(),
        "clock": LoopClock(),
        "default_space": SPACE,
        "work_dir": folder / "spool",
    }
    leader = Leader(LeaderParts(**parts))

    async def watch() -> None:
        position = -1
        while True:
            position = await projection.wait_for_change(position, 5.0)
            if fold.has_caught_up:
                watched(name, projection)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fold.run())
            tasks.create_task(leader.run())
            tasks.create_task(watch())
    finally:
        projection.close()


def folded_at_once(folder: Path, broker: MemoryBroker) -> Projection:
    events: list[tuple[int, Message]] = []
    for record in broker.records(IMPORTS):
        with suppress(UnprocessableRecord):
            events.append((record.offset, SCHEMAS.decode(record.value)))
    projection = Projection(folder / "imports.sqlite")
    projection.apply(events, len(broker.partition(IMPORTS, 0).slots))
    return projection


def statuses_of(projection: Projection) -> dict[Any, Any]:
    return {one.import_id: one.to_json() for one in projection.statuses(before=None, limit=100)}


# --- embedder ----------------------------------------------------------------------------------------------------


class _NoSite:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def setup(self) -> None:
        pass

    start = cleanup = setup


@dataclass(frozen=True, slots=True)
class Life:
    log: ProcessLog
    model: LifeOfModel


@contextmanager
def embedders_run_on(
    life_of: Callable[[str], Life], opened: Callable[[str, Index], None], chance: random.Random
) -> Iterator[None]:
    """`app.run` builds its clients itself; these are what it gets in their place. Ids are drawn from the seed.

    `opened` is told of the index of each life: what a process has not committed there goes with it.
    """

    def name_of(settings: EmbedderSettings) -> str:
        return settings.data_dir.name

    def index(path: Path, space: str) -> Index:
        made = Index(path, space)
        opened(path.parent.name, made)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedder_app, "KafkaLog", lambda settings: life_of(name_of(settings)).log)
        patch.setattr(embedder_app, "build_model", lambda settings: life_of(name_of(settings)).model)
        patch.setattr(embedder_app, "Index", index)
        patch.setattr(embedder_app, "SystemClock", LoopClock)
        patch.setattr(embedder_app, "Schemas", lambda _: SCHEMAS)
        patch.setattr(embedder_app, "build_app", lambda parts: parts)
        patch.setattr(embedder_app, "web", SimpleNamespace(AppRunner=_NoSite, TCPSite=_NoSite))
        patch.setattr("eventlog.snapshot.RECORDS_BETWEEN", 10)  # a story has some hundred records
        patch.setattr("uuid.uuid4", lambda: UUID(int=chance.getrandbits(128), version=4))
        yield


_SETTINGS = EmbedderSettings(
    kafka_bootstrap_servers="memory:1",
    http_port=0,
    data_dir=Path(),
    embedding=SPACE,
    openai_base_url="http://nowhere",
)


async def run_embedder(folder: Path) -> None:
    await embedder_app.run(_SETTINGS.model_copy(update={"data_dir": folder}))


# --- graph-writer ------------------------------------------------------------------------------------------------


class Reading:
    """In the place of Faust: five records of any partitions, and assignments that come in the middle of a batch.

    `instance`: one of several members, which has the partitions that the group gives it; else it has all.
    """

    is_busy = False

    def __init__(self, log: ProcessLog, plan: Plan, instance: str = "") -> None:
        self._log = log
        self._plan = plan
        self._instance = instance
        self._partitions = frozenset() if instance else SOURCES
        self._generation = 0
        self._pause_s = log.chance.choice(PAUSES_S)
        self._late = log.chance.choice([None, *sorted(SOURCES, key=str)])
        self._late_until_s = asyncio.get_running_loop().time() + LATE_S
        self._reassigning: asyncio.Task[None] | None = None
        self._reader: Any = None
        self.next_offsets: dict[TopicPartition, int] = {}

    async def run(self, writer: Writer) -> None:
        if self._instance:
            self._join(writer)
        else:
            await self._reassign(writer)
        while True:
            generation = self._generation
            if self._late is not None and asyncio.get_running_loop().time() > self._late_until_s:
                self._late = None
                await self._read_on()
            if self._reader is None:
                await asyncio.sleep(0.1)
                continue
            records = await self._reader.poll(records_max=BATCH, timeout_s=0.5)
            if self._plan.meet("batch"):
                self._reassigning = asyncio.create_task(self._reassign(writer))
            await asyncio.sleep(self._pause_s)
            if self._reassigning is not None and self._reassigning.done():
                self._reassigning.result()
            if generation != self._generation:
                await self._read_on()  # what is in hand is left over from before, or was read just behind it
                continue
            if not records:
                continue
            for record in records:
                self.next_offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
            self.is_busy = True
            await writer.handle(records)
            self.is_busy = False

    def _join(self, writer: Writer) -> None:
        broker = self._log.broker
        group = broker.groups.setdefault("graph-writer", Group(broker, "graph-writer", IMPORTS, EMBEDDINGS))

        async def assigned(partitions: frozenset[TopicPartition]) -> None:
            self._partitions = partitions
            try:
                await self._reassign(writer)
            except Exception as error:  # noqa: BLE001 - whatever it was, Faust crashes of it
                writer.crashed(error)

        async def revoked(_: frozenset[TopicPartition]) -> None:
            """What is in hand goes on, while another reads it already."""

        member = Member(self._instance, assigned, revoked)
        self._log.members.append((group, member))
        group.join(member)

    async def _reassign(self, writer: Writer) -> None:
        starts = await writer.assigned(self._partitions) if self._partitions else {}
        # In an order that the hashes of strings do not decide.
        self.next_offsets = {at: starts[at] for at in sorted(starts, key=str)}
        self._generation += 1
        await self._read_on()

    async def _read_on(self) -> None:
        starts = {at: offset for at, offset in self.next_offsets.items() if at != self._late}
        if not starts:
            self._reader = None
        elif self._reader is None or not self._reader._positions.keys() <= starts.keys():
            self._reader = await self._log.reader(starts)
        else:
            for at, offset in starts.items():
                self._reader.seek(at, offset)

    async def passed(self) -> dict[TopicPartition, tuple[int, int]]:
        given_out = dict(self.next_offsets)
        return {at: (await self._reader.position(at), given_out[at]) for at in given_out if at != self._late}

    def has_read(self, at: TopicPartition, end: int) -> bool:
        return self._reader is not None and self._reader._positions.get(at, -1) >= end

    def is_stuck(self) -> bool:
        return False

    async def leave(self) -> None:
        pass


async def _patiently(opening: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await opening()
        except StoreAway:
            await asyncio.sleep(0.5)


async def run_graph_writer(
    folder: Path, log: ProcessLog, store: DiskStore, plan: Plan, started: Callable[[Writer], None]
) -> None:
    instance = folder.name if store.is_shared else ""
    clock, health = LoopClock(), Health()
    opened = OpenedStore(store)
    await _patiently(lambda: opened.open(SOURCES))
    await opened.check_log(log)
    sender = Sender(log, SCHEMAS, health)
    projects = Projects(log, SCHEMAS, SnapshotFile(folder / "projects.json", SNAPSHOT_VERSION))
    dead_letters = DeadLetters(
        log=log, names=log.names, sender=sender, opened=opened, clock=clock, health=health
    )
    patience = Patience(opened=opened, sender=sender, clock=clock, health=health)
    await patience.wait_out(dead_letters.open)
    publisher = Publisher(opened=opened, sender=sender, clock=clock, patience=patience)
    applier = Applier(
        opened=opened,
        projects=projects,
        dead_letters=dead_letters,
        keywords=KEYWORDS,
        schemas=SCHEMAS,
        log=log,
        clock=clock,
    )
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writer = Writer(
        applier=applier,
        publisher=publisher,
        opened=opened,
        dead_letters=dead_letters,
        patience=patience,
        projects=projects,
        sender=sender,
        log=log,
        clock=clock,
        health=health,
        crash=failed.set_exception,
    )
    reading = Reading(log, plan, instance)
    writer.reading = reading  # type: ignore[assignment]  # it stands in for Faust
    started(writer)

    async def crash() -> None:
        await failed

    work: list[Awaitable[None]] = [
        projects.run(),
        publisher.run(),
        writer.watch(),
        reading.run(writer),
        crash(),
    ]
    tasks = [asyncio.ensure_future(one) for one in work]
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:  # the process is gone at once: it ends nothing else
        task.result()
