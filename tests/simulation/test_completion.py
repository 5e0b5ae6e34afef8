"""Ingest's fold and decisions against a stand-in embedder and writer, with chance and faults drawn from a seed.

The log is a list. A leader that may die between any two steps folds it into a file that may be lost; a writer that may
die, or lose its store, answers chunks in any order, twice, late, with any outcome. What is asserted is what the log says
at the end, and that whoever watched saw progress grow and never a completion that the store did not bear out.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from eventlog import ids
from eventlog.events import (
    CancelImport,
    ChunkOutcome,
    ChunksSettled,
    Command,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentPart,
    DocumentSettled,
    ImportCompleted,
    ImportMessage,
    ImportSealed,
    Message,
    Part,
    RequestImport,
    ResumeImport,
    SettledChunk,
    Source,
    SourceFile,
    SourceKind,
    StoreOpened,
    StorePosition,
)
from eventlog.topics import EMBEDDINGS, IMPORTS
from ingest.core import Known, complete, decide, settle_document
from ingest.projection import Projection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = "local/wordllama@256:1"
SEEDS = 50
STEPS_MAX = 4_000
PARTITIONS = 3
SETTLED = tuple(one for one in ChunkOutcome if one not in (ChunkOutcome.UNKNOWN, ChunkOutcome.SUPERSEDED))


class Dead(Exception):  # noqa: N818 - the process dies here
    pass


@dataclass(frozen=True)
class Embedded:
    """A record of `embeddings`."""

    import_id: ids.ImportId
    attempt: int
    document: DocumentParsed
    index: int
    chunk_id: ids.ChunkId


@dataclass
class World:
    """What survives every death: the log; and what can be lost: the projection and the store."""

    folder: Path
    chance: random.Random
    imports: list[Message] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    embeddings: list[list[Embedded]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    watched: dict[tuple[ids.ImportId, int], float] = field(default_factory=dict)
    is_quiet: bool = False
    """From now on nothing goes wrong, so that an end is reached."""

    def may_die(self) -> None:
        if not self.is_quiet and self.chance.random() < 0.03:
            raise Dead

    def say(self, *facts: Message) -> None:
        """One transaction: all or nothing."""
        self.may_die()
        self.imports.extend(facts)
        self.may_die()


class Library:
    """Documents that two imports of one project share; the second may list other chunks of them."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.import_id = ids.import_id_of_key("anonymous", name)
        self.project = ids.project_id("Reading")
        self.request = RequestImport(
            occurred_at=NOW,
            import_id=self.import_id,
            project_name="Reading",
            source=Source(
                kind=SourceKind.PDF,
                files=(SourceFile(path=f"{name}.pdf", sha256="0" * 64, size_bytes=1),),
                file_count=1,
                size_bytes=1,
            ),
        )
        self.documents = [
            [f"{name if chance.random() < 0.5 else ''}{number}.{n}" for n in range(chance.randrange(4))]
            for number in range(chance.randrange(4))
        ]

    def parsed(self, number: int, *, attempt: int, revision: int) -> DocumentParsed:
        document = ids.document_id(self.project, f"doi:{number}")
        texts = enumerate(self.documents[number])
        chunks = tuple(ids.chunk_id(document, "1", "full_text", n, text) for n, text in texts)
        parts = (
            DocumentPart(part=Part.BIBLIOGRAPHIC, chunk_ids=chunks[:1]),
            DocumentPart(part=Part.FULL_TEXT, chunk_ids=chunks[1:]),
        )
        return DocumentParsed(
            import_id=self.import_id,
            project_id=self.project,
            attempt=attempt,
            occurred_at=NOW,
            document_id=document,
            revision=revision,
            content_hash="h",
            parts=parts,
        )


class Leader:
    """A step at a time, as the loops of the real one would take it; each may be its last."""

    def __init__(self, world: World, libraries: dict[ids.ImportId, Library]) -> None:
        self._world = world
        self._libraries = libraries
        self._path = world.folder / "imports.sqlite"
        if not world.is_quiet and world.chance.random() < 0.2:
            self._path.unlink(missing_ok=True)
        self.projection = Projection(self._path)

    def close(self) -> None:
        self.projection.close()

    def step(self) -> None:
        self.fold()
        self._world.chance.choice((self._obey, self._drive, self._settle))()
        self.fold()
        self._watch()

    def fold(self) -> None:
        """In batches of any size."""
        while (at := self.projection.position) < len(self._world.imports):
            end = min(len(self._world.imports), at + self._world.chance.randrange(1, 9))
            self.projection.apply(list(enumerate(self._world.imports))[at:end], end)

    def _obey(self) -> None:
        if not self._world.commands:
            return
        command = self._world.commands[0]
        assert command.import_id is not None
        known = Known(
            existing=self.projection.find(command.import_id),
            project=self.projection.project("Reading"),
            default_space=SPACE,
            chunker_version="1",
        )
        facts = decide(command, known, import_id=command.import_id, command_id=str(id(command)), at=NOW)
        if facts:
            self._world.say(*facts)
        if not (
            not self._world.is_quiet and self._world.chance.random() < 0.3
        ):  # a lost commit of its offset
            self._world.commands.pop(0)

    def _drive(self) -> None:
        for state in self.projection.open_imports():
            if state.sealed_attempt == state.attempt:
                continue
            library = self._libraries[state.import_id]
            for number in range(len(library.documents)):
                parsed = library.parsed(number, attempt=state.attempt, revision=state.revision)
                if not self.projection.is_driven(state, parsed.document_id):
                    self._publish(parsed)
                    self._world.say(parsed)
                    return
            documents, chunks = self.projection.counts_to_seal(state)
            self._world.say(
                ImportSealed(
                    import_id=state.import_id,
                    project_id=state.project_id,
                    attempt=state.attempt,
                    occurred_at=NOW,
                    document_count=documents,
                    chunk_count=chunks,
                )
            )
            return

    def _publish(self, parsed: DocumentParsed) -> None:
        index = 0
        for part in parsed.parts:
            for chunk_id in part.chunk_ids:
                self._world.may_die()
                record = Embedded(parsed.import_id, parsed.attempt, parsed, index, chunk_id)
                self._world.embeddings[chunk_id.int % PARTITIONS].append(record)
                index += 1

    def _settle(self) -> None:
        facts: list[Message] = [settle_document(one, NOW) for one in self.projection.documents_to_settle(50)]
        store = self.projection.store_id()
        for state in self.projection.complete_imports() if store else ():
            assert store is not None
            chunks, tokens, digest = self.projection.totals(state.import_id)
            facts.append(
                complete(state, chunks=chunks, tokens_billed=tokens, digest=digest, store_id=store, at=NOW)
            )
        if facts:
            self._world.say(*facts)

    def _watch(self) -> None:
        for status in self.projection.statuses(before=None, limit=10):
            key = (status.import_id, status.attempt)
            assert status.progress >= self._world.watched.get(key, 0.0), "progress fell"
            self._world.watched[key] = status.progress


class Writer:
    """Keeps chunks by id with their revision, marks by part, and where it goes on; a death may lose all of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.points: dict[UUID, int] = {}
        self.part_of: dict[UUID, tuple[UUID, Part]] = {}
        self.marks: dict[tuple[UUID, Part], int] = {}
        self.lists: dict[tuple[UUID, Part], frozenset[UUID]] = {}
        self._positions = [0] * PARTITIONS
        self._at = 0
        self._number = 0
        self.open()

    def open(self) -> None:
        """After a death; the positions may lag behind what was done, and the store may be gone."""
        chance = self._world.chance
        if self._number == 0 or (not self._world.is_quiet and chance.random() < 0.3):
            self._number += 1
            self.points, self.part_of, self.marks, self.lists = {}, {}, {}, {}
            self._positions, self._at = [0] * PARTITIONS, 0
        elif not self._world.is_quiet:
            self._positions = [max(0, one - chance.randrange(3)) for one in self._positions]
            self._at = max(0, self._at - chance.randrange(5))
        self.store_id = ids.StoreId(UUID(int=self._number))
        at = [*((EMBEDDINGS, n, one) for n, one in enumerate(self._positions)), (IMPORTS, 0, self._at)]
        self._world.imports.append(
            StoreOpened(
                occurred_at=NOW,
                store_id=self.store_id,
                positions=tuple(
                    StorePosition(collection="c", topic=topic, partition=n, offset=offset)
                    for topic, n, offset in at
                ),
            )
        )

    def step(self) -> None:
        partition = self._world.chance.randrange(PARTITIONS)
        records = self._world.embeddings[partition]
        if self._positions[partition] < len(records):
            offset = self._positions[partition]
            outcome = self._store(records[offset])
            self._world.say(self._settled(records[offset], partition, offset, outcome))
            self._positions[partition] += 1  # only what was said is passed
        if self._at < len(self._world.imports):
            event = self._world.imports[self._at]
            if isinstance(event, DocumentChunksSettled):
                self._sweep(event)
                self._world.say(self._document_settled(event, self._at))
            self._at += 1

    def _store(self, record: Embedded) -> ChunkOutcome:
        document = record.document
        bib = document.parts[0].chunk_ids
        key = (document.document_id, Part.BIBLIOGRAPHIC if record.chunk_id in bib else Part.FULL_TEXT)
        below = max(self.marks.get(key, -1), self.points.get(record.chunk_id, -1))
        if document.revision < below:
            return ChunkOutcome.SUPERSEDED
        # The same chunk of the same attempt has the same outcome whenever it is read.
        outcome = random.Random(f"{record.chunk_id}{record.attempt}").choices(SETTLED, (8, 1, 1))[0]
        if outcome is ChunkOutcome.STORED:
            self.points[record.chunk_id] = document.revision
            self.part_of[record.chunk_id] = key
        return outcome

    def _sweep(self, event: DocumentChunksSettled) -> None:
        parsed = self._world.imports[event.parsed_offset]
        assert isinstance(parsed, DocumentParsed)
        for part in parsed.parts:
            key = (event.document_id, part.part)
            if part.part not in event.parts or self.marks.get(key, -1) > event.revision:
                continue
            self.marks[key] = event.revision
            kept = set(part.chunk_ids)
            for chunk, revision in list(self.points.items()):
                older = revision < event.revision or (revision == event.revision and chunk not in kept)
                if self.part_of[chunk] == key and older:
                    del self.points[chunk]

    def _settled(self, record: Embedded, partition: int, offset: int, outcome: ChunkOutcome) -> ChunksSettled:
        return ChunksSettled(
            import_id=record.import_id,
            project_id=record.document.project_id,
            attempt=record.attempt,
            occurred_at=NOW,
            space=SPACE,
            store_id=self.store_id,
            chunks=(
                SettledChunk(
                    partition=partition,
                    offset=offset,
                    chunk_id=record.chunk_id,
                    document_id=record.document.document_id,
                    revision=record.document.revision,
                    chunk_index=record.index,
                    outcome=outcome,
                    content_hash=record.chunk_id.bytes * 2,
                ),
            ),
        )

    def _document_settled(self, said: DocumentChunksSettled, offset: int) -> DocumentSettled:
        return DocumentSettled(
            import_id=said.import_id,
            project_id=said.project_id,
            attempt=said.attempt,
            occurred_at=NOW,
            document_id=said.document_id,
            revision=said.revision,
            outcome=ChunkOutcome.STORED,
            store_id=self.store_id,
            offset=offset,
        )


def someones_commands(libraries: dict[ids.ImportId, Library], chance: random.Random) -> Iterator[Command]:
    for library in libraries.values():
        yield library.request
        if chance.random() < 0.5:
            yield library.request
        if chance.random() < 0.5:
            yield CancelImport(occurred_at=NOW, import_id=library.import_id)
            yield ResumeImport(occurred_at=NOW, import_id=library.import_id, attempt_seen=1)
            yield ResumeImport(occurred_at=NOW, import_id=library.import_id, attempt_seen=1)


def is_over(world: World, leader: Leader) -> bool:
    statuses = leader.projection.statuses(before=None, limit=10)
    return not world.commands and bool(statuses) and all(one.is_terminal for one in statuses)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_dies_an_import_completes_once_an_attempt_and_truly(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    libraries = {one.import_id: one for one in (Library("a", chance), Library("b", chance))}
    world = World(tmp_path, chance, commands=list(someones_commands(libraries, chance)))
    writer, leader = Writer(world), Leader(world, libraries)
    for step in range(STEPS_MAX):
        world.is_quiet = step > STEPS_MAX // 8
        is_leader = chance.random() < 0.5
        try:
            leader.step() if is_leader else writer.step()
        except Dead:
            if is_leader:
                leader.close()
                leader = Leader(world, libraries)
            else:
                writer.open()
        completed_true(world, writer)
        if world.is_quiet and is_over(world, leader):
            break
    assert is_over(world, leader), f"seed {seed} came to no end"
    said = Counter(
        (one.import_id, one.attempt, type(one)) for one in world.imports if isinstance(one, ImportMessage)
    )
    for (_, _, kind), count in said.items():
        assert count == 1 or kind not in (ImportCompleted, ImportSealed), f"seed {seed}: {kind} {count} times"
    leader.close()
    rebuilt(world, leader, libraries)


def completed_true(world: World, writer: Writer) -> None:
    """The newest fact is a completion: the store that is open answers for each chunk that it counts as stored."""
    completed = world.imports[-1] if world.imports else None
    if not isinstance(completed, ImportCompleted) or completed.store_id != writer.store_id:
        return
    listed: dict[UUID, DocumentParsed] = {}
    for event in world.imports:
        if isinstance(event, DocumentParsed) and event.import_id == completed.import_id:
            listed[event.document_id] = event
    chunks = {one for parsed in listed.values() for part in parsed.parts for one in part.chunk_ids}
    assert completed.chunk_count == len(chunks)
    counts = (completed.stored_count, completed.rejected_count, completed.dead_lettered_count)
    assert sum(counts) + completed.superseded_count == len(chunks)
    assert completed.stored_count <= len(chunks & writer.points.keys()), "counted as stored, and not there"


def rebuilt(world: World, leader: Leader, libraries: dict[ids.ImportId, Library]) -> None:
    """A projection made again, in other batches, says the same."""
    folder = world.folder / "again"
    again = Leader(replace(world, folder=folder, is_quiet=True), libraries)
    again.fold()
    before = Projection(leader._path)
    for import_id in libraries:
        one, two = before.status(import_id), again.projection.status(import_id)
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one.to_json() == two.to_json()
    before.close()
    again.close()
    shutil.rmtree(folder)
