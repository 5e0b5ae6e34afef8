"""Search, graph and verify give the same answers whichever store the same log was written to."""

import itertools
import json
import os
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient
from tests.unit.graph_writer.story import BIB, PROJECT, SPACE, TEXT, Content, document, vector_of
from tests.unit.graph_writer.world import Process, World

from eventlog.events import ChunkOutcome, Part
from eventlog.ids import ChunkId, DocumentId
from eventlog.memory import MemoryLog
from graph_writer.graph_read import GraphRead
from graph_writer.opened import GRAPH, collection_of
from graph_writer.search import Mode, Question, Search
from graph_writer.stores.qdrant import QdrantStore
from graph_writer.stores.store import Where
from graph_writer.verify import SentChunk, SentDocument, Verify

SERVERS = [
    pytest.param(
        "memory",
        marks=pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
    ),
    pytest.param(
        "server",
        marks=pytest.mark.skipif("QDRANT_URL" not in os.environ, reason="QDRANT_URL names no Qdrant server"),
    ),
]
SUBJECTS = ("finch beaks", "coral reefs", "WAS protein", "barnacle shells", "earthworm soil", "river 2019")
COLLECTION = collection_of(SPACE).name


def passage(subject: str, number: int, index: int) -> str:
    chance = random.Random(100 * number + index)
    return f"{subject} {' '.join(chance.choices(' '.join(SUBJECTS).split(), k=chance.randint(5, 40)))}"


def library() -> list[Content]:
    return [
        Content(
            name=f"document {number}",
            bib=(f"On {subject}", f"An abstract about {subject} and {SUBJECTS[number - 1]}"),
            text=tuple(
                f"{subject} were measured {one} times near the {SUBJECTS[number - 2]}" for one in range(9)
            ),
            concepts={subject: (0, 2), "Evolution": (1,)},
        )
        for number, subject in enumerate(SUBJECTS)
    ]


class Both:
    """The embedded store and the other, each filled from the same log."""

    def __init__(self, world: World, embedded: Process, served: Process) -> None:
        self._world = world
        self._processes = (embedded, served)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._processes)

    async def catch_up(self) -> None:
        for process in self:
            await process.catch_up()

    async def bring_newer(self) -> None:
        """The whole library again, and then three documents shorter, with a rejected chunk, and swept."""
        revision = await self._world.request()
        for content in library():
            await self._world.bring(content.at(revision))
        newer = await self._world.request()
        for content in library()[:3]:
            shorter = replace(content, revision=newer, text=(content.text or ())[:5], concepts={})
            offset = await self._world.bring(shorter)
            await self._world.embed(shorter.rejected(3))
            await self._world.say(shorter.settled(offset, BIB, TEXT))
        await self.catch_up()


@pytest.fixture(params=SERVERS)
async def both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Both]:
    world = World(tmp_path)
    await world.project()
    revision = await world.request()
    for content in library():
        await world.bring(content.at(revision))
    embedded = await world.start()
    async with other(request.param, world) as served:
        both = Both(world, embedded, served)
        await both.catch_up()
        yield both
    await world.close()


@asynccontextmanager
async def other(kind: str, world: World) -> AsyncIterator[Process]:
    prefix = f"t{uuid.uuid4().hex[:10]}"
    client = (
        AsyncQdrantClient(":memory:")
        if kind == "memory"
        else AsyncQdrantClient(url=os.environ["QDRANT_URL"], timeout=30, check_compatibility=False)
    )
    process = Process(MemoryLog(world.broker), QdrantStore(client, prefix=prefix), world.folder)
    await process.open()
    try:
        yield process
    finally:
        for one in (await client.get_collections()).collections:
            if one.name.startswith(prefix):
                await client.delete_collection(one.name)
        await process.log.kill()
        await client.close()


def same(one: Any, two: Any) -> None:
    """Scores are sums of float32, which two programs add in different orders."""
    if isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-4)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            same(first, second)
    else:
        assert one == two


async def test_a_search_finds_the_same_in_the_same_order(both: Both) -> None:
    texts = ("finch beaks near the river 2019", "WAS protein", "nothing that is there")
    filters = ((), (document("document 1"), document("document 4")))
    for mode, text, documents in itertools.product(Mode, texts, filters):
        found = await searched(both, mode, text, documents)
        assert found or mode is Mode.WORDS
        assert not documents or {one["document_id"] for one in found} <= {str(each) for each in documents}
    await both.bring_newer()
    # By words only what was replaced counts differently: in a store's statistics, until it tidies up.
    assert await searched(both, Mode.MEANING, texts[0], ())


async def searched(
    both: Both, mode: Mode, text: str, documents: tuple[DocumentId, ...]
) -> list[dict[str, Any]]:
    """What both have found, which is the same."""
    asked = Question(
        space=SPACE,
        text=text,
        vector=vector_of(text),
        mode=mode,
        limit=20,
        project_id=PROJECT,
        document_ids=documents,
    )
    one, two = [await Search(each.opened, each.keywords).search(asked) for each in both]
    same(one, two)
    return list(one["results"])


async def test_filters_find_the_same_points(both: Both) -> None:
    await both.bring_newer()
    one_document = (document("document 1"),)
    asked = [
        Where(project_id=PROJECT),
        Where(project_id=uuid.uuid4()),
        Where(document_ids=one_document),
        Where(document_ids=one_document, kinds=("passage", "abstract"), project_id=PROJECT),
    ]
    for name in (GRAPH.name, COLLECTION):
        for where in asked:
            found = [
                [point.id for point in (await each.store.scroll(name, where, limit=2_000))[0]]
                for each in both
            ]
            assert found[0] == found[1]
            assert found[0] or where.project_id not in (None, PROJECT) or where.document_ids


async def test_the_graph_is_the_same(both: Both) -> None:
    await both.bring_newer()
    read = [
        json.loads("".join([part async for part in GraphRead(each.store, PROJECT, nodes_max=1_000).parts()]))
        for each in both
    ]
    for one in read:
        one["nodes"].sort(key=lambda node: node["id"])
        one["edges"].sort(key=lambda edge: (edge["source"], edge["type"], edge["target"]))
    same(read[0], read[1])
    assert len(read[0]["nodes"]) > len(SUBJECTS)


async def test_verify_names_the_same_damage(both: Both) -> None:
    await both.bring_newer()
    documents = [
        SentDocument(
            document_id=content.document_id,
            revision=0,
            chunks=tuple(
                SentChunk(
                    chunk_id=ChunkId(content.chunk_id(index)),
                    part=Part.BIBLIOGRAPHIC if index < 4 else Part.FULL_TEXT,
                    outcome=ChunkOutcome.STORED,
                )
                for index in range(13)
            ),
        )
        for content in library()
    ]

    async def reports() -> list[dict[str, Any]]:
        found = []
        for each in both:
            report = await Verify(each.opened, each.applier).verify(SPACE, documents)
            damage = {
                kind: sorted(getattr(report, kind), key=lambda one: str(one["id"]))
                for kind in ("missing", "extra", "different")
            }
            found.append({"checked_count": report.checked_count, **damage})
        return found

    sound = await reports()
    same(sound[0], sound[1])
    lost, changed = library()[5].chunk_id(6), library()[4].chunk_id(7)
    for each in both:
        await each.store.delete(COLLECTION, [lost])
        (point,) = (await each.store.get(COLLECTION, [changed], with_vector=True)).values()
        point.payload["text"] = "not what was embedded"
        await each.store.upsert(COLLECTION, [point])
    damaged = await reports()
    same(damaged[0], damaged[1])
    assert len(damaged[0]["missing"]) == len(sound[0]["missing"]) + 1
    assert len(damaged[0]["different"]) == len(sound[0]["different"]) + 1
