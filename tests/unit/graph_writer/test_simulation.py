"""P1 and P2 under deaths, losses and repeats drawn from a seed, against a run that nothing disturbed.

`Ingest` is the part of ingest that the writer's promises lean on: it counts settlements, forgets those that a store
says it will give again, and closes a document when each of its chunks has an outcome. A failing seed is in the test's
name.
"""

import random
import shutil
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.graph_writer.story import BIB, DARWIN, PROJECT, SPACE, TEXT, Content
from tests.unit.graph_writer.world import Points, Process, World, points_of

from eventlog.events import (
    ChunkOutcome,
    ChunkRejected,
    ChunksSettled,
    Creator,
    DocumentParsed,
    Message,
    Part,
    StoreOpened,
)
from eventlog.ids import ChunkId, DocumentId
from eventlog.log import TopicPartition
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.core import marker_id
from graph_writer.opened import GRAPH, collection_of
from graph_writer.stores.store import StoreLost

PARTITIONS = 3
COLLECTION = collection_of(SPACE).name
STEPS = 80
WALLACE = Creator(family="Wallace", given="Alfred R.")


class Ingest:
    def __init__(self, world: World) -> None:
        self._world = world
        self._folded = 0
        self._parsed: dict[int, DocumentParsed] = {}
        self._closed: set[int] = set()
        self.contents: dict[int, Content] = {}
        self.settled: dict[tuple[ChunkId, int], tuple[int, int, ChunkOutcome]] = {}
        """By chunk and revision: where its record stands, and what became of it."""

    async def fold(self) -> bool:
        """Whether anything was new."""
        records = self._world.broker.records(IMPORTS)[self._folded :]
        events = self._world.said()[self._folded :]
        self._folded += len(records)
        for record, event in zip(records, events, strict=True):
            if isinstance(event, DocumentParsed):
                self._parsed[record.offset] = event
            elif isinstance(event, ChunksSettled):
                for one in event.chunks:
                    self.settled[one.chunk_id, one.revision] = (one.partition, one.offset, one.outcome)
            elif isinstance(event, StoreOpened):
                self._forget(event)
        await self._close_documents()
        return bool(records)

    def _forget(self, opened: StoreOpened) -> None:
        lowest: dict[int, int] = {}
        for at in opened.positions:
            if at.topic == EMBEDDINGS:
                lowest[at.partition] = min(at.offset, lowest.get(at.partition, at.offset))
        self.settled = {
            chunk: where
            for chunk, where in self.settled.items()
            if where[1] < lowest.get(where[0], where[1] + 1)
        }

    async def _close_documents(self) -> None:
        for offset, parsed in self._parsed.items():
            outcomes = {
                part.part: [self.settled.get((one, parsed.revision)) for one in part.chunk_ids]
                for part in parsed.parts
            }
            if any(None in found for found in outcomes.values()):
                self._closed.discard(offset)  # said again when it is whole again
            elif offset not in self._closed:
                self._closed.add(offset)
                parts = [part for part, found in outcomes.items() if _may_replace(found)]
                await self._world.say(self.contents[parsed.revision].settled(offset, *parts))


def _may_replace(found: list[tuple[int, int, ChunkOutcome] | None]) -> bool:
    outcomes = {one[2] for one in found if one is not None}
    return ChunkOutcome.DEAD_LETTERED not in outcomes and (not found or ChunkOutcome.STORED in outcomes)


def contents(chance: random.Random) -> Iterator[Content]:
    """Documents that share texts, concepts and authors, each with up to three revisions."""
    words = ["a gene", "a finch", "a beak", "an island", "a selection"]
    for _ in range(9):
        has_bib, has_text = chance.choice([(True, True), (True, False), (True, True), (False, True)])
        concepts = chance.sample(["Evolution", "Island", "Beak"], k=chance.randint(0, 2)) if has_bib else []
        yield Content(
            name=chance.choice(["origin", "voyage", "descent"]),
            bib=(f"title {chance.randint(1, 2)}", "an abstract") if has_bib else None,
            text=tuple(chance.choices(words, k=chance.randint(0, 4))) if has_text else None,
            creators=tuple(chance.sample([DARWIN, WALLACE], k=chance.randint(0, 2))),
            concepts=dict.fromkeys(concepts, (0,)),
        )


class Run:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.seed = seed
        self.ingest = Ingest(world)
        self.chance = random.Random(seed)
        self._coming = deque(contents(random.Random(seed)))
        self._pool: list[tuple[int, Message]] = []
        self.deaths = 0

    async def bring(self) -> None:
        """The next import begins: what it says comes later, piece by piece and not in order."""
        if self._coming:
            content = self._coming.popleft().at(await self.world.request())
            self.ingest.contents[content.revision] = content
            self._pool.append((-1, content.parsed()))
            for index, event in enumerate(content.chunks()):
                # The same text meets the same worker, so the same partition.
                partition = uuid.uuid5(PROJECT, event.text).int % PARTITIONS
                # What a provider refuses once it refuses always.
                is_refused = uuid.uuid5(PROJECT, f"{self.seed}{event.text}").int % 8 == 0
                self._pool.append((partition, content.rejected(index) if is_refused else event))

    async def emit(self, *, all_: bool = False) -> None:
        self.chance.shuffle(self._pool)
        for _ in range(len(self._pool) if all_ else min(3, len(self._pool))):
            partition, event = self._pool.pop()
            if partition < 0:
                await self.world.say(event)
            else:
                await self.world.embed(event, partition=partition)

    async def disturbed(self) -> Process:
        process = await self.world.start()
        for _ in range(STEPS):
            step = self.chance.choices(
                ["bring", "emit", "take", "cycle", "fold", "die", "save", "restore", "delete", "repeat"],
                [4, 10, 20, 6, 6, 3, 1, 1, 1, 1],
            )[0]
            process = await self._step(process, step)
        return await self.to_the_end(process)

    async def _step(self, process: Process, step: str) -> Process:
        if step == "bring":
            await self.bring()
        elif step == "emit":
            await self.emit()
        elif step == "fold":
            await self.ingest.fold()
        elif step == "take":
            at = self.chance.choice([TopicPartition(IMPORTS, 0), *_sources()])
            await process.take(at, self.chance.randint(1, 5))
        elif step == "cycle":
            await process.publisher.cycle()
            await self.check(process)
        elif step == "save":
            self.world.save()
        elif step == "repeat":
            at = self.chance.choice(_sources())
            process.next[at] = max(0, process.next[at] - 3)
        else:
            process = await self._disaster(process, step)
        return process

    async def _disaster(self, process: Process, step: str) -> Process:
        self.deaths += 1
        if step == "restore" and self.world.has_copy:
            self.world.restore()
        elif step == "delete":
            shutil.rmtree(self.world.folder)
        if step != "die" and self.chance.random() < 0.5:
            with suppress(StoreLost):  # under a live writer; without a copy there is nothing to lose
                await process.publisher.cycle()
        process = await self.world.restart(process)
        await self.ingest.fold()
        await self.check(process)
        return process

    async def to_the_end(self, process: Process) -> Process:
        while self._coming:
            await self.bring()
        await self.emit(all_=True)
        while True:
            await process.catch_up()
            if not await self.ingest.fold():
                await self.check(process)
                return process

    async def check(self, process: Process) -> None:
        """P2: what counts as stored is there, or something newer that replaces it."""
        await self.ingest.fold()
        wanted = [key for key, where in self.ingest.settled.items() if where[2] is ChunkOutcome.STORED]
        ids = [one for one, _ in wanted]
        points = await process.store.get(COLLECTION, ids) if process.opened.name_of(SPACE) else {}
        markers = await process.store.get(GRAPH.name, [marker_id(one, SPACE) for one in ids])
        for chunk, revision in wanted:
            point = points.get(chunk) or markers.get(marker_id(chunk, SPACE))
            if point is None:
                content = self.ingest.contents[revision]
                marks = await marks_of(process, content.document_id)
                assert any(mark > revision for mark in marks.values()), f"{chunk} of {revision} is not there"
            else:
                assert point.payload["revision"] >= revision


async def marks_of(process: Process, document: DocumentId) -> dict[str, int]:
    found = await process.store.get(GRAPH.name, [document])
    marks = found[document].payload.get("marks") if document in found else None
    return {part: at[0] for part, at in (marks or {}).items()}


def _sources() -> list[TopicPartition]:
    return [TopicPartition(EMBEDDINGS, one) for one in range(PARTITIONS)]


def check_newest(run: Run, points: Points) -> None:
    """Independent of the writer: the points of each document are those that its newest content lists."""
    rejected = {(one.chunk_id, one.revision) for one in run.world.embedded(ChunkRejected)}
    expected: set[str] = set()
    for document in {one.document_id for one in run.ingest.contents.values()}:
        for part in (BIB, TEXT):
            expected |= {str(one) for one in _newest(run, document, part, rejected)}
    there = {id_ for id_, (payload, _) in points.get(COLLECTION, {}).items() if _has_part(payload)}
    assert there == expected, (there - expected, expected - there)


def _newest(
    run: Run, document: DocumentId, part: Part, rejected: set[tuple[ChunkId, int]]
) -> Iterator[ChunkId]:
    """From the newest revision whose part may replace; what a failed one stored stands beside it."""
    for revision in sorted(run.ingest.contents, reverse=True):
        content = run.ingest.contents[revision]
        if content.document_id != document:
            continue
        listed = [one for one in content.parsed().parts if one.part is part]
        if not listed:
            continue
        kinds = {content.chunk_id(n): event.concept_id for n, event in enumerate(content.chunks())}
        stored = [one for one in listed[0].chunk_ids if (one, revision) not in rejected]
        yield from (one for one in stored if kinds[one] is None)
        if stored or not listed[0].chunk_ids:
            return


def _has_part(payload: tuple[object, ...]) -> bool:
    return any(key == "part" for key, _ in payload)  # type: ignore[misc]  # pairs


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_deaths_the_store_is_the_one_that_nothing_disturbed(tmp_path: Path, seed: int):
    worlds = [World(tmp_path / "undisturbed"), World(tmp_path / "disturbed")]
    for world in worlds:
        await world.project()
    calm, wild = (Run(world, seed) for world in worlds)
    undisturbed = await points_of(await calm.to_the_end(await calm.world.start()))
    process = await wild.disturbed()
    disturbed = await points_of(process)
    for world in worlds:
        await world.close()
    check_newest(calm, undisturbed)
    check_newest(wild, disturbed)
    assert disturbed == undisturbed
