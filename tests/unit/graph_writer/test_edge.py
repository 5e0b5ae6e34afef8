"""What only the embedded store does: points are sealed in steps, at opening too, so that memory does not grow."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from graph_writer.stores import edge
from graph_writer.stores.edge import STEP, WORDS_STEP, EdgeStore, FolderLock
from graph_writer.stores.store import Collection, Point, StoreLost, Words

GRAPH = Collection(name="graph", dims=2)
TEXTS = Collection(name="texts", dims=2, keywords="some")


async def opened(folder: Path) -> EdgeStore:
    lock = FolderLock(folder)
    assert lock.take()
    store = EdgeStore(folder, lock)
    await store.open(GRAPH)
    return store


async def write(store: EdgeStore, count: int) -> None:
    for start in range(0, count, 500):
        points = [Point(id=uuid.UUID(int=10 + n), payload={"kind": "k"}) for n in range(start, start + 500)]
        await store.upsert(GRAPH.name, points)


def sealed_count(store: EdgeStore) -> int:
    return int(store._shards[GRAPH.name].shard.info().indexed_vectors_count)


async def test_after_each_step_of_writes_what_was_written_is_sealed(tmp_path: Path):
    store = await opened(tmp_path / "store")
    await write(store, STEP // 2)
    assert sealed_count(store) == 0
    await write(store, STEP // 2)  # the same points: rewrites grow a segment, too
    assert sealed_count(store) >= STEP // 2
    await store.close()


async def test_what_a_death_left_unsealed_is_sealed_at_opening(tmp_path: Path):
    store = await opened(tmp_path / "store")
    await write(store, STEP - 1_000)
    assert sealed_count(store) == 0
    await store.close()
    store = await opened(tmp_path / "store")
    assert sealed_count(store) >= STEP - 1_000
    await store.close()


class _NoRoom:
    """A shard on a disk that has no room for the copies that sealing makes."""

    def __init__(self, shard: Any) -> None:
        self._shard = shard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)

    def optimize(self) -> None:
        raise Exception("Not enough space available for optimization")  # noqa: TRY002 - what the library raises


async def test_a_disk_without_room_for_sealing_takes_points_and_is_sealed_later(tmp_path: Path):
    store = await opened(tmp_path / "store")
    held = store._shards[GRAPH.name]
    shard = held.shard
    held.shard = _NoRoom(shard)
    await write(store, STEP)
    await store.flush()
    assert await store.count(GRAPH.name) == STEP + 1
    assert sealed_count(store) == 0
    held.shard = shard
    await write(store, STEP)
    assert sealed_count(store) >= STEP
    await store.close()


class _Full:
    @staticmethod
    def load(folder: str, config: Any) -> None:
        del folder, config
        why = "Service runtime error: Failed to save structure on disk with error: No space left on device (os error 28)"
        raise Exception(why)  # noqa: TRY002 - what the library raises


async def test_a_disk_without_room_for_opening_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is called damaged is set aside and built again: the last thing that a full disk has room for."""
    store = await opened(tmp_path / "store")
    await write(store, 500)
    await store.close()
    with (
        monkeypatch.context() as patch,
        pytest.raises(StoreLost, match=r"graph cannot be opened now.*No space"),
    ):
        patch.setattr(edge.edge, "EdgeShard", _Full)
        await opened(tmp_path / "store")


async def test_points_with_keywords_are_sealed_sooner_for_each_holds_more_memory(tmp_path: Path):
    store = await opened(tmp_path / "store")
    await store.open(TEXTS)
    points = [
        Point(id=uuid.UUID(int=10 + n), payload={}, vector=b"\0\0\x80?" + bytes(4), words=Words([n], [1.0]))
        for n in range(WORDS_STEP)
    ]
    shard = store._shards[TEXTS.name].shard
    await store.upsert(TEXTS.name, points[:-2])  # the settings are a point, too
    assert shard.info().segments_count == 1
    await store.upsert(TEXTS.name, points[-2:])
    assert shard.info().segments_count == 2, "one that is sealed, one to go on in"
    assert 4 * WORDS_STEP <= STEP
    await store.close()


@pytest.mark.parametrize(("points_max", "least", "most"), [(2_000, 2, 6), (400, 8, 17)])
async def test_segments_beyond_so_many_are_merged_up_to_so_many_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points_max: int, least: int, most: int
):
    monkeypatch.setattr(edge, "WORDS_STEP", 200)
    monkeypatch.setattr(edge, "SEGMENTS_MAX", 4)
    monkeypatch.setattr(edge, "SEGMENT_POINTS_MAX", points_max)
    store = await opened(tmp_path / "store")
    await store.open(TEXTS)
    for start in range(0, 3_200, 200):
        points = [
            Point(id=uuid.UUID(int=10 + n), payload={}, vector=b"\0\0\x80?" + bytes(4))
            for n in range(start, start + 200)
        ]
        await store.upsert(TEXTS.name, points)
    assert least <= store._shards[TEXTS.name].shard.info().segments_count <= most
    assert await store.count(TEXTS.name) == 3_201, "the settings are a point, too"
    await store.close()
