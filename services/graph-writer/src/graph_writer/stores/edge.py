"""The embedded store: one qdrant-edge shard per collection in a folder that one process holds by its lock.

Memory stays flat because points are sealed in steps (docs/decisions/0005): only a sealed segment is mapped from its
file instead of held. A step is counted in points written, for rewrites grow a segment too. Search is
exact: there is no graph of neighbours to build. An open shard goes on taking writes after its folder was deleted;
so `check` compares what is open with what the paths name now, and `flush` fails.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from eventlog import allocator
from eventlog.logs import Logger
from graph_writer.stores.store import (
    Collection,
    Hit,
    Order,
    Point,
    StoreLost,
    StoreMismatch,
    Swap,
    Where,
    Words,
)

DENSE = "dense"
WORDS = "words"
STEP = 8_000
"""Points of the graph written between two sealings: half a kilobyte of memory each until they are sealed."""
WORDS_STEP = 2_000
"""Points with keywords: six kilobytes each (docs/decisions/0005)."""
SEGMENTS_MAX = 128
"""More of them are merged, the smallest first, for each lookup and each flush looks at all."""
SEGMENT_POINTS_MAX = 32_000
"""What merging makes has no more points, for it is done in one go."""
DELETED_SHARE_MAX = 0.6
"""Of a sealed segment's points; one that has lost more is made anew without them. A re-import in another order brings all
segments there at once, and the more of a segment is left then, the longer that takes (docs/decisions/0005).
"""
SETTINGS_ID = UUID("00000000-0000-0000-0000-000000000001")
"""The point of each collection that says how it was made."""

_COLD = edge.Memory.Cold
_DUMMY = [1.0, 0.0]
"""Points without a vector never seal, so each point of the graph carries this one."""

_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EACCES, errno.EPERM,
}  # fmt: skip
"""Troubles that a store may have with its machine, whole as it is."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

_log = Logger("graph_writer.edge")


@dataclass(slots=True)
class _Shard:
    shard: Any
    folder: Path
    fd: int
    """Kept open, for the number of a folder that nobody holds is given to the next one that is made."""
    has_dense: bool
    step: int
    written: int = 0
    is_dirty: bool = False


class FolderLock:
    """Held for the life of the process; the kernel gives it back however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "lock"
        self._fd = -1

    def take(self) -> bool:
        """False while another process holds it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return self.is_held()

    def is_held(self) -> bool:
        """False when the folder was deleted or replaced: then the lock guards nothing."""
        return _is_at(self._fd, self._path)

    def release(self) -> None:
        os.close(self._fd)


class EdgeStore:
    """Calls return when done and do not yield: the longest, sealing a step, takes a third of a second, and one that merges
    16,000 points 1.3 s.
    """

    is_shared = False

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        self._folder = folder
        self._lock = lock
        self._shards: dict[str, _Shard] = {}

    async def open(self, collection: Collection) -> None:
        if collection.name in self._shards:
            return
        folder = self._folder / collection.name
        step = WORDS_STEP if collection.has_words else STEP
        config = _config(collection, step)
        settings = {"kind": "settings", "space": collection.space, "keywords": collection.keywords}
        if (folder / "edge_config.json").is_file():
            shard = _load(folder, config)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shard = edge.EdgeShard.create(str(folder), config)
        _index(shard)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened = _Shard(shard, folder, fd, collection.has_words, step)
        self._shards[collection.name] = opened
        found = shard.retrieve([SETTINGS_ID], True, False)
        if not found:
            await self.upsert(collection.name, [Point(id=SETTINGS_ID, payload=settings)])
            shard.flush()
        elif found[0].payload != settings:
            raise StoreMismatch(f"{collection.name} was made with {found[0].payload}, not {settings}")
        self._seal(opened)

    async def get(
        self,
        collection: str,
        ids: Iterable[UUID],
        *,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> dict[UUID, Point]:
        wanted = list(ids)
        if not wanted:
            return {}
        what = True if fields is None else list(fields)
        records = self._shards[collection].shard.retrieve(wanted, what, with_vector)
        return {record.id: _point(record) for record in records}

    async def scroll(
        self,
        collection: str,
        where: Where,
        *,
        limit: int,
        after: UUID | None = None,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> tuple[list[Point], UUID | None]:
        request = edge.ScrollRequest(
            offset=after,
            limit=limit,
            filter=_filter(where),
            with_payload=True if fields is None else list(fields),
            with_vector=with_vector,
        )
        records, following = self._shards[collection].shard.scroll(request)
        return [_point(record) for record in records], following

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        if not points:
            return
        opened = self._shards[collection]
        operation = edge.UpdateOperation.upsert_points(
            [edge.Point(point.id, _vectors(point, opened.has_dense), point.payload) for point in points],
            condition=None if order is None else _not_above(order),
        )
        opened.shard.update(operation)
        self._wrote(opened, len(points))

    async def delete(self, collection: str, ids: Sequence[UUID], *, order: Order | None = None) -> None:
        if not ids:
            return
        opened = self._shards[collection]
        if order is None:
            operation = edge.UpdateOperation.delete_points(list(ids))
        else:
            chosen = edge.Filter(must=[edge.HasIdCondition(set(ids)), _not_above(order)])
            operation = edge.UpdateOperation.delete_points_by_filter(chosen)
        opened.shard.update(operation)
        self._wrote(opened, len(ids))

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        # One process writes, one call at a time: looking first is as good as a condition.
        found = await self.get(collection, [swap.id for swap in swaps])
        for swap in swaps:
            there = found[swap.id].payload if swap.id in found else {}
            if there.get(swap.field) != swap.expected and there != swap.new:
                return False
        await self.upsert(collection, [Point(id=swap.id, payload=swap.new) for swap in swaps])
        return True

    async def nearest(
        self, collection: str, query: bytes | Words, where: Where, *, limit: int, fields: Sequence[str]
    ) -> list[Hit]:
        if isinstance(query, Words):
            nearest = edge.Query.Nearest(edge.SparseVector(list(query.indices), list(query.values)), WORDS)
        else:
            nearest = edge.Query.Nearest(np.frombuffer(query, dtype="<f4").tolist(), DENSE)
        request = edge.QueryRequest(
            limit=limit,
            query=nearest,
            filter=_filter(where),
            with_payload=list(fields),
            with_vector=False,
        )
        scored = self._shards[collection].shard.query(request)
        return [Hit(id=one.id, score=one.score, payload=one.payload or {}) for one in scored]

    async def count(self, collection: str) -> int:
        return int(self._shards[collection].shard.info().points_count)

    async def flush(self) -> None:
        await self.check()
        for opened in self._shards.values():
            if opened.is_dirty:
                try:
                    opened.shard.flush()
                except Exception as error:  # noqa: BLE001 - the shard raises bare Exception, whatever went wrong
                    raise StoreLost(f"{opened.folder.name} cannot be flushed: {error}") from None
                opened.is_dirty = False
        await self.check()

    async def check(self) -> None:
        if not self._lock.is_held():
            raise StoreLost("the store's folder is gone")
        for opened in self._shards.values():
            if not _is_at(opened.fd, opened.folder):
                raise StoreLost(f"the folder of {opened.folder.name} is gone")

    async def close(self) -> None:
        for opened in self._shards.values():
            opened.shard.close()
            os.close(opened.fd)
        self._shards.clear()
        self._lock.release()

    def _wrote(self, opened: _Shard, count: int) -> None:
        opened.is_dirty = True
        opened.written += count
        if opened.written >= opened.step:
            self._seal(opened)

    def _seal(self, opened: _Shard) -> None:
        opened.written = 0
        opened.is_dirty = True
        try:
            opened.shard.optimize()
        except Exception as error:  # noqa: BLE001 - the shard raises bare Exception, whatever went wrong
            # A full disk, most likely. Only memory is at stake, and until the next step; ending here would come back to it.
            _log.warning("store.not_sealed", collection=opened.folder.name, why=error)
        allocator.trim()  # what held the points is in pieces, and would stay


def _is_at(fd: int, path: Path) -> bool:
    """Whether what we hold open is what stands at the path now."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _load(folder: Path, config: Any) -> Any:
    """A damaged shard is no store of ours: the log builds another. Raises StoreLost where there was no room to open it."""
    try:
        return edge.EdgeShard.load(str(folder), config)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - it raises bare Exception, and panics that are not even that
        said = _OS_ERROR.search(str(error))
        if said is not None and int(said[1]) in _OF_THE_MACHINE:
            raise StoreLost(f"{folder.name} cannot be opened now: {error}") from None
        raise StoreMismatch(f"{folder.name} cannot be read: {error}") from None


def _config(collection: Collection, step: int) -> Any:
    point_bytes = collection.dims * 4
    sparse = {WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=_COLD)}
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(collection.dims, edge.Distance.Dot, memory=_COLD)},
        sparse_vectors=sparse if collection.has_words else None,
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=0, memory=_COLD),
        id_tracker_memory=_COLD,
        payload_memory=_COLD,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=DELETED_SHARE_MAX,
            indexing_threshold=max(1, step * point_bytes // 4096),
            max_segment_size=max(1, SEGMENT_POINTS_MAX * point_bytes // 1024),
            default_segment_number=SEGMENTS_MAX,
        ),
        max_search_threads=1,
    )


def _index(shard: Any) -> None:
    """Also where a death came between the making of the shard and of its indexes."""
    wanted: dict[str, Any] = {
        "project_id": edge.UuidIndexParams(memory=_COLD),
        "document_id": edge.UuidIndexParams(memory=_COLD),
        "kind": edge.KeywordIndexParams(memory=_COLD),
    }
    there = shard.info().payload_schema
    for name, how in wanted.items():
        if name not in there:
            shard.update(edge.UpdateOperation.create_field_index(name, how))


def _vectors(point: Point, has_dense: bool) -> dict[str, Any]:
    if not has_dense:
        return {DENSE: _DUMMY}
    vectors: dict[str, Any] = {}
    if point.vector:
        vectors[DENSE] = memoryview(point.vector).cast("f")  # quicker than a list or an array of numpy's
    if point.words is not None and len(point.words.indices):
        vectors[WORDS] = edge.SparseVector(list(point.words.indices), list(point.words.values))
    return vectors


def _point(record: Any) -> Point:
    dense = record.vector.get(DENSE) if record.vector else None
    vector = b"" if dense is None else np.asarray(dense, dtype="<f4").tobytes()
    return Point(id=record.id, payload=record.payload or {}, vector=vector)


def _filter(where: Where) -> Any:
    must: list[Any] = []
    if where.project_id is not None:
        must.append(edge.FieldCondition("project_id", match=edge.MatchValue(str(where.project_id))))
    if where.document_ids:
        must.append(
            edge.FieldCondition("document_id", match=edge.MatchAny([str(one) for one in where.document_ids]))
        )
    if where.kinds:
        must.append(edge.FieldCondition("kind", match=edge.MatchAny(list(where.kinds))))
    return edge.Filter(must=must) if must else None


def _not_above(order: Order) -> Any:
    revision, attempt = order
    same = edge.FieldCondition("revision", match=edge.MatchValue(revision))
    return edge.Filter(
        should=[
            edge.FieldCondition("revision", range=edge.RangeFloat(lt=float(revision))),
            edge.Filter(
                must=[same, edge.FieldCondition("attempt", range=edge.RangeFloat(lte=float(attempt)))]
            ),
        ]
    )
