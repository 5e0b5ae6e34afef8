"""Two writers on one Qdrant server: what one does between the other's look and its write."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient
from tests.unit.graph_writer.story import BIB, SPACE, TEXT, Content, vector_of
from tests.unit.graph_writer.world import Process, World, points_of

from eventlog.events import ChunkOutcome, ChunksSettled, DocumentSettled
from eventlog.log import TopicPartition
from eventlog.memory import MemoryLog
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.opened import GRAPH, collection_of
from graph_writer.stores.qdrant import QdrantStore
from graph_writer.stores.store import Order, Point, StoreLost

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

COLLECTION = collection_of(SPACE).name
CHUNKS = TopicPartition(EMBEDDINGS, 0)
DECISIONS = TopicPartition(IMPORTS, 0)


class InterruptedStore(QdrantStore):
    """Before the next write of points something else happens, once."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        super().__init__(client)
        self.first: Callable[[], Awaitable[None]] | None = None

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        first, self.first = self.first, None
        if first is not None:
            await first()
        await super().upsert(collection, points, order=order)

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


async def test_they_open_one_store(writers: tuple[Process, Process]):
    assert writers[0].opened.id == writers[1].opened.id


async def test_a_chunk_that_met_a_mark_between_look_and_write_is_taken_back_and_superseded(
    world: World, writers: tuple[Process, Process]
):
    chunks, decisions = writers
    old = Content(text=("one",), revision=await world.request())
    new = Content(text=("two",), revision=await world.request())
    await world.say(old.parsed())
    (offset,) = await world.say(new.parsed())
    await world.embed(*new.chunks())
    await chunks.catch_up()
    await world.embed(old.embedded(1))

    async def close_the_newer() -> None:
        await world.say(new.settled(offset, BIB, TEXT))
        await decisions.catch_up()

    chunks.store.first = close_the_newer  # type: ignore[attr-defined]  # an InterruptedStore
    await chunks.catch_up()
    assert world.said(DocumentSettled)[-1].revision == new.revision
    assert old.chunk_id(1) not in await chunks.store.get(COLLECTION, [old.chunk_id(1)])
    assert world.said(ChunksSettled)[-1].chunks[0].outcome is ChunkOutcome.SUPERSEDED


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
