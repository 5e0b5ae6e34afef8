"""Two writers on one Qdrant server: what one does between the other's look and its write."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import AsyncQdrantClient
from tests.unit.graph_writer.story import BIB, SPACE, TEXT, Content, vector_of
from tests.unit.graph_writer.world import Process, World, points_of

from eventlog.events import ChunkOutcome, ChunksSettled, DocumentSettled
from eventlog.log import TopicPartition
from eventlog.memory import MemoryLog
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.apply import LOOKED_S_MAX
from graph_writer.core import position_id, read_marks
from graph_writer.opened import GRAPH, collection_of
from graph_writer.stores.qdrant import QdrantStore
from graph_writer.stores.store import Order, Point, StoreLost, Swap

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

COLLECTION = collection_of(SPACE).name
CHUNKS = TopicPartition(EMBEDDINGS, 0)
DECISIONS = TopicPartition(IMPORTS, 0)


class InterruptedStore(QdrantStore):
    """Before the next write of points something else happens, once; or behind the next look at some."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        super().__init__(client)
        self.first: Callable[[], Awaitable[None]] | None = None
        self.behind_look: Callable[[], Awaitable[None]] | None = None
        self.written: list[UUID] = []

    async def get(self, collection: str, ids: Iterable[UUID], **more: Any) -> dict[UUID, Point]:
        found = await super().get(collection, ids, **more)
        behind_look, self.behind_look = self.behind_look, None
        if behind_look is not None:
            await behind_look()
        return found

    async def _interrupted(self) -> None:
        first, self.first = self.first, None
        if first is not None:
            await first()

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        await self._interrupted()
        self.written += [one.id for one in points]
        await super().upsert(collection, points, order=order)

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        await self._interrupted()
        return await super().swap(collection, swaps)

    async def close(self) -> None:
        """The client is the other's, too."""


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    await world.project()
    return world


@pytest.fixture
async def writers(world: World) -> AsyncIterator[tuple[Process, Process]]:
    """The first has the chunks, the second the decisions."""
    client = AsyncQdrantClient(":memory:")
    chunks, decisions = (
        Process(MemoryLog(world.broker), InterruptedStore(client), world.folder) for _ in range(2)
    )
    await chunks.open(frozenset({CHUNKS}))
    await decisions.open(frozenset({DECISIONS}))
    yield chunks, decisions
    await chunks.die()
    await decisions.die()
    await client.close()


async def an_older_chunk_behind_a_newer_document(
    world: World, chunks: Process
) -> tuple[Content, Content, int]:
    """Both contents, and the offset of the newer one's `DocumentParsed`; the older one's chunk is still to be taken."""
    old = Content(text=("one",), revision=await world.request())
    new = Content(text=("two",), revision=await world.request())
    await world.say(old.parsed())
    (offset,) = await world.say(new.parsed())
    await world.embed(*new.chunks())
    await chunks.catch_up()
    await world.embed(old.embedded(1))
    return old, new, offset


async def test_they_open_one_store(writers: tuple[Process, Process]):
    assert writers[0].opened.id == writers[1].opened.id


async def test_a_chunk_that_met_a_mark_between_look_and_write_is_taken_back_and_superseded(
    world: World, writers: tuple[Process, Process]
):
    chunks, decisions = writers
    old, new, offset = await an_older_chunk_behind_a_newer_document(world, chunks)

    async def close_the_newer() -> None:
        await world.say(new.settled(offset, BIB, TEXT))
        await decisions.catch_up()

    chunks.store.first = close_the_newer  # type: ignore[attr-defined]  # an InterruptedStore
    await chunks.catch_up()
    assert world.said(DocumentSettled)[-1].revision == new.revision
    assert old.chunk_id(1) not in await chunks.store.get(COLLECTION, [old.chunk_id(1)])
    assert world.said(ChunksSettled)[-1].chunks[0].outcome is ChunkOutcome.SUPERSEDED


async def test_who_stood_still_between_look_and_write_looks_again_before_it_writes(
    world: World, writers: tuple[Process, Process]
):
    """It may not live to look behind the write: what others have read on meanwhile is not its own any more."""
    chunks, decisions = writers
    old, new, offset = await an_older_chunk_behind_a_newer_document(world, chunks)

    async def stand_still() -> None:
        await world.say(new.settled(offset, BIB, TEXT))
        await decisions.catch_up()
        chunks.clock.advance(2 * LOOKED_S_MAX)

    chunks.store.behind_look = stand_still  # type: ignore[attr-defined]  # an InterruptedStore
    await chunks.catch_up()
    assert world.said(ChunksSettled)[-1].chunks[0].outcome is ChunkOutcome.SUPERSEDED
    assert old.chunk_id(1) not in chunks.store.written  # type: ignore[attr-defined]  # as above


async def test_a_server_that_is_slow_to_answer_is_written_to_all_the_same(
    world: World, writers: tuple[Process, Process]
):
    chunks, _ = writers
    content = Content(text=("one",), revision=await world.request())
    await world.say(content.parsed())
    await world.embed(*content.chunks())
    store: Any = chunks.store

    async def slowly() -> None:
        chunks.clock.advance(2 * LOOKED_S_MAX)
        store.behind_look = slowly

    store.behind_look = slowly
    await chunks.catch_up()
    assert {one.outcome for one in world.said(ChunksSettled)[-1].chunks} == {ChunkOutcome.STORED}


async def test_a_chunk_that_a_newer_one_overtook_between_look_and_write_stays_the_newer(
    world: World, writers: tuple[Process, Process]
):
    chunks, decisions = writers
    content = Content(text=("one",), revision=await world.request())
    await world.say(content.parsed())
    await world.embed(content.embedded(0))
    await chunks.catch_up()
    await decisions.opened.ensure_space(SPACE)
    id_ = content.chunk_id(1)
    newer = {"revision": content.revision + 1, "attempt": 1, "content_hash": "newer"}

    async def write_the_newer() -> None:
        await decisions.store.upsert(COLLECTION, [Point(id=id_, payload=newer, vector=vector_of("newer"))])

    await world.embed(content.embedded(1))
    chunks.store.first = write_the_newer  # type: ignore[attr-defined]  # an InterruptedStore
    await chunks.catch_up()
    found = await chunks.store.get(COLLECTION, [id_])
    assert found[id_].payload == newer


async def test_a_space_that_one_made_is_found_by_the_other(world: World, writers: tuple[Process, Process]):
    chunks, decisions = writers
    content = Content(text=("one",), revision=await world.request())
    offset = await world.bring(content)
    await chunks.catch_up()
    newer = Content(text=("two",), revision=await world.request())
    await world.say(content.settled(offset, BIB, TEXT))
    offset = await world.bring(newer)
    await chunks.catch_up()
    await world.say(newer.settled(offset, BIB, TEXT))
    await decisions.catch_up()
    assert content.chunk_id(1) not in await chunks.store.get(COLLECTION, [content.chunk_id(1)]), (
        "sweeps touch every collection, those that another writer made too"
    )


async def test_a_writer_whose_partition_another_has_read_on_gives_up(
    world: World, writers: tuple[Process, Process]
):
    chunks, decisions = writers
    await world.bring(Content(text=("one",), revision=await world.request()))
    await decisions.writer.assigned(frozenset({CHUNKS, DECISIONS}))
    decisions.next = dict.fromkeys((CHUNKS, DECISIONS), 0)
    await chunks.take(CHUNKS, 1)
    await decisions.catch_up()
    with pytest.raises(StoreLost, match="not those last written"):
        await chunks.publisher.cycle()


@pytest.fixture
async def overtaken(world: World, writers: tuple[Process, Process]) -> Callable[[], Awaitable[None]]:
    """The second stands still for long: the first is given its partition, and reads all that there is."""
    chunks, _ = writers

    async def overtake() -> None:
        chunks.next = dict(await chunks.writer.assigned(frozenset({CHUNKS, DECISIONS})))
        await chunks.catch_up()

    return overtake


async def test_who_is_overtaken_before_a_document_is_written_takes_nothing_of_the_newer_one_away(
    world: World, writers: tuple[Process, Process], overtaken: Callable[[], Awaitable[None]]
):
    chunks, decisions = writers
    old = Content(text=("one",), concepts={"Finch": (0,)}, revision=await world.request())
    await decisions.take_all()
    await world.bring(old)
    new = Content(text=("two",), concepts={"Beak": (0,)}, revision=await world.request())
    offset = await world.bring(new)
    await world.say(new.settled(offset, BIB, TEXT))

    decisions.store.first = overtaken  # type: ignore[attr-defined]  # an InterruptedStore
    await decisions.take(DECISIONS, 1)
    assert world.said(DocumentSettled)[-1].revision == new.revision
    found = await chunks.store.get(GRAPH.name, [new.document_id])
    assert found[new.document_id].payload["revision"] == new.revision
    assert {one.revision for one in read_marks(found[new.document_id].payload).values()} == {new.revision}
    held = await chunks.applier.held(GRAPH.name, new.document_id)
    assert {one.revision for one in held} == {new.revision}, (
        "edges of the older one were swept, and came late"
    )


async def test_who_is_overtaken_before_a_mark_is_raised_lets_a_higher_one_stand(
    world: World, writers: tuple[Process, Process], overtaken: Callable[[], Awaitable[None]]
):
    chunks, decisions = writers
    old = Content(text=("one",), revision=await world.request())
    first = await world.bring(old)
    new = Content(text=("two",), revision=await world.request())
    second = await world.bring(new)
    await chunks.catch_up()
    await decisions.take_all()
    await world.say(old.settled(first, BIB, TEXT), new.settled(second, BIB, TEXT))

    decisions.store.first = overtaken  # type: ignore[attr-defined]  # an InterruptedStore
    await decisions.take(DECISIONS, 1)
    found = await chunks.store.get(GRAPH.name, [new.document_id])
    assert {one.revision for one in read_marks(found[new.document_id].payload).values()} == {new.revision}


async def test_a_space_that_one_makes_is_not_read_from_the_beginning_by_the_other(
    world: World, writers: tuple[Process, Process]
):
    chunks, decisions = writers
    content = Content(text=("one",), revision=await world.request())
    await world.say(content.parsed())
    await decisions.catch_up()
    await world.embed(*content.chunks())
    await chunks.catch_up()
    there = await chunks.store.get(COLLECTION, [position_id(DECISIONS.topic, DECISIONS.partition)])
    assert [one.payload["offset"] for one in there.values()] == [decisions.next[DECISIONS]]


async def test_a_space_that_one_makes_costs_the_other_nothing_that_it_has_read_since(
    world: World, writers: tuple[Process, Process]
):
    chunks, decisions = writers
    content = Content(text=("one",), revision=await world.request())
    await world.say(content.parsed())
    await decisions.catch_up()
    await world.embed(*content.chunks())
    await chunks.catch_up()
    await world.say(content.at(content.revision, attempt=2).parsed())
    await decisions.catch_up()
    at = [position_id(DECISIONS.topic, DECISIONS.partition)]
    there = await chunks.store.get(COLLECTION, at)
    assert [one.payload["offset"] for one in there.values()] == [decisions.next[DECISIONS]]
    assert await decisions.opened.ensure_space(SPACE) == COLLECTION


async def test_a_copy_that_a_server_got_back_is_noticed_though_nothing_comes_and_before_anything_is_said(
    world: World, writers: tuple[Process, Process]
):
    chunks, _ = writers
    content = Content(text=("one",), revision=await world.request())
    await world.say(content.parsed())
    await world.embed(content.embedded(0))
    await chunks.catch_up()
    at = [position_id(CHUNKS.topic, CHUNKS.partition)]
    copy = await chunks.store.get(COLLECTION, at)
    await world.embed(content.embedded(1))
    await chunks.catch_up()
    await chunks.opened.check()
    await chunks.store.upsert(COLLECTION, list(copy.values()))
    with pytest.raises(StoreLost, match="came back from a copy"):
        await chunks.publisher.run()
    await world.embed(content.embedded(1))
    await chunks.take_all()
    count = len(world.said(ChunksSettled))
    with pytest.raises(StoreLost, match="came back from a copy"):
        await chunks.publisher.cycle()
    assert len(world.said(ChunksSettled)) == count


async def test_a_document_from_before_versions_were_counted_is_counted_from_now_on(
    world: World, writers: tuple[Process, Process]
):
    _, decisions = writers
    content = Content(text=("one",), revision=await world.request())
    await decisions.store.upsert(GRAPH.name, [Point(id=content.document_id, payload={"revision": -1})])
    await world.say(content.parsed())
    await decisions.catch_up()
    found = await decisions.store.get(GRAPH.name, [content.document_id])
    assert found[content.document_id].payload["version"] == 1
    assert found[content.document_id].payload["revision"] == content.revision


async def test_on_a_server_the_store_says_the_same_as_embedded(
    world: World, writers: tuple[Process, Process], tmp_path: Path
):
    chunks, decisions = writers
    content = Content(text=("one", "two"), concepts={"Finch": (0,)}, revision=await world.request())
    offset = await world.bring(content)
    await world.say(content.settled(offset, BIB, TEXT))
    for process in (chunks, decisions, chunks):
        await process.catch_up()
    served = await points_of(chunks)
    embedded = World(tmp_path / "embedded")
    embedded.broker = world.broker
    process = await embedded.start()
    await process.catch_up()
    assert await points_of(process) == served
    assert set(served) == {GRAPH.name, COLLECTION}
    await embedded.close()
