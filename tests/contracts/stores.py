"""The worlds in which the contract of the store is checked: the embedded one, the one of the simulation, Qdrant's client
in memory, a server that somebody runs, and Qdrant's own image.

The client's in-memory mode knows conditions, aliases, metadata and sparse vectors. It has neither payload indexes (it
warns), nor versions, nor the server's errors: these are checked apart, against answers of a server's shape.
"""

import os
import random
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from tests.contracts.containers import NEEDS_DOCKER
from tests.simulation.store import Disk, DiskStore

from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.qdrant import QdrantStore
from graph_writer.stores.store import Collection, Point, Store, Words

DIMS = 8
SPACE = "openai/test-embedding@8:1"
CHUNKS = Collection(name="openai-test-embedding-8-1", dims=DIMS, space=SPACE, keywords="k1")
GRAPH = Collection(name="graph", dims=2)
STORES = [
    "edge",
    "disk",
    pytest.param(
        "memory",
        marks=pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
    ),
    *(["server"] if "QDRANT_URL" in os.environ else []),
    pytest.param("image", marks=NEEDS_DOCKER),
]


class World(Protocol):
    async def store(self) -> Store:
        """Opens what is there, as a new process would; the one before is closed."""

    async def lose(self) -> None:
        """Takes everything away under the store that is open."""

    async def close(self) -> None: ...


class EdgeWorld:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: EdgeStore | None = None

    async def store(self) -> Store:
        if self._open is not None:
            await self._open.close()
        lock = FolderLock(self._folder)
        assert lock.take()
        self._open = EdgeStore(self._folder, lock)
        return self._open

    async def lose(self) -> None:
        shutil.rmtree(self._folder)

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()


class DiskWorld:
    """What the simulation writes to."""

    def __init__(self) -> None:
        self._disk = Disk(random.Random(1))
        self._open: DiskStore | None = None

    async def store(self) -> Store:
        if self._open is not None:
            await self._open.close()
        self._open = DiskStore(self._disk)
        return self._open

    async def lose(self) -> None:
        self._disk.lose()

    async def close(self) -> None:
        pass


class QdrantWorld:
    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._prefix = f"t{uuid.uuid4().hex[:10]}"

    async def store(self) -> Store:
        return QdrantStore(self._client, prefix=self._prefix)

    async def lose(self) -> None:
        for one in (await self._client.get_collections()).collections:
            if one.name.startswith(self._prefix):
                await self._client.delete_collection(one.name)

    async def close(self) -> None:
        await self.lose()
        await self._client.close()


def make_world(kind: str, folder: Path, url: str = "") -> World:
    if kind == "edge":
        return EdgeWorld(folder / "store")
    if kind == "disk":
        return DiskWorld()
    if kind == "memory":
        return QdrantWorld(AsyncQdrantClient(":memory:"))
    url = url or os.environ["QDRANT_URL"]
    return QdrantWorld(AsyncQdrantClient(url=url, timeout=30, check_compatibility=False))


@pytest.fixture(params=STORES)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    url = request.getfixturevalue("qdrant_image") if request.param == "image" else ""
    world = make_world(request.param, tmp_path, url)
    yield world
    await world.close()


@pytest.fixture
async def store(world: World) -> Store:
    store = await world.store()
    await store.open(GRAPH)
    await store.open(CHUNKS)
    return store


def unit(*numbers: float) -> bytes:
    vector = np.zeros(DIMS, dtype="<f4")
    vector[: len(numbers)] = numbers
    length = float(np.linalg.norm(vector))
    return (vector / (length or 1.0)).astype("<f4").tobytes()


def point(number: int, *, vector: bytes = b"", words: Words | None = None, **said: Any) -> Point:
    return Point(id=uuid.UUID(int=number), payload=said, vector=vector, words=words)
