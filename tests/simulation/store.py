"""A store on a disk that loses what was not flushed, and that somebody may delete or restore from an older copy.

`Disk` outlives every process; `DiskStore` is what one process has opened of it, and works on. A deleted or replaced
disk goes on taking writes into nowhere, as an open shard of the embedded store does; only `check` and `flush` find out.
`ServerStore` is a client of a server, as Qdrant's: several processes write to what is there now. Both pass the contract
of stores.
"""

import asyncio
import contextvars
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import numpy as np

from graph_writer.stores.store import (
    Collection,
    Hit,
    Order,
    Payload,
    Point,
    StoreAway,
    StoreLost,
    StoreMismatch,
    Swap,
    Where,
    Words,
)

Points = dict[UUID, Point]
Write = tuple[str, UUID, Point | None]
SNAPSHOTS_MAX = 4
ON_ITS_WAY_S = (0.0, 0.0, 0.0, 0.001, 0.01)
"""A request to a server, or its answer."""
T = TypeVar("T")


@dataclass
class Disk:
    """`flushed` is what a process finds after whatever happened; `generation` changes when it is another disk."""

    chance: random.Random
    flushed: dict[str, Points] = field(default_factory=dict)
    made_as: dict[str, tuple[Collection, int]] = field(default_factory=dict)
    """With what tells each collection from one that is made under its name later."""
    generation: int = 0
    unflushed: list[Write] = field(default_factory=list)
    copies: list[tuple[dict[str, Points], dict[str, tuple[Collection, int]]]] = field(default_factory=list)
    _made: int = 0

    def make(self, collection: Collection) -> int:
        """Where it is missing. Raises StoreMismatch when it was made with other settings."""
        if collection.name not in self.made_as:
            self._made += 1
            self.made_as[collection.name] = (collection, self._made)
            self.flushed[collection.name] = {}
        made_as, id_ = self.made_as[collection.name]
        if (made_as.space, made_as.keywords) != (collection.space, collection.keywords):
            raise StoreMismatch(f"{collection.name} was made as {made_as}, not {collection}")
        return id_

    def power_off(self) -> None:
        """Of what was not flushed, each collection keeps as much as its disk had got to."""
        for name in self.flushed:
            writes = [one for one in self.unflushed if one[0] == name]
            for write in writes[: self.chance.randint(0, len(writes))]:
                _write(self.flushed[name], write)
        self.unflushed.clear()

    def keep_copy(self) -> None:
        if len(self.copies) < SNAPSHOTS_MAX:
            self.copies.append(({name: dict(one) for name, one in self.flushed.items()}, dict(self.made_as)))

    def lose(self) -> None:
        self._replace({}, {})

    def restore(self, is_old: Callable[[dict[str, Points]], bool]) -> None:
        """An older copy; without one, all is lost."""
        copies = [one for one in self.copies if is_old(one[0])]
        points, made_as = self.chance.choice(copies) if copies else ({}, {})
        self._replace({name: dict(one) for name, one in points.items()}, dict(made_as))

    def _replace(self, points: dict[str, Points], made_as: dict[str, tuple[Collection, int]]) -> None:
        self.flushed, self.made_as = points, made_as
        self.unflushed.clear()
        self.generation += 1


class DiskStore:
    is_shared = False

    def __init__(self, disk: Disk, meets: Callable[[str], None] = lambda _: None) -> None:
        self._disk = disk
        self._meets = meets
        self._generation = disk.generation
        self._opened: dict[str, Points] = {}
        self._sorted: dict[str, list[UUID]] = {}

    async def open(self, collection: Collection) -> None:
        if collection.name in self._opened:
            return
        await self.check()
        self._disk.make(collection)
        self._opened[collection.name] = dict(self._disk.flushed[collection.name])

    async def get(
        self,
        collection: str,
        ids: Iterable[UUID],
        *,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> dict[UUID, Point]:
        self._meets("get")
        points = self._points(collection)
        return {id_: _part(points[id_], fields, with_vector) for id_ in sorted(set(ids)) if id_ in points}

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
        self._meets("scroll")
        points = self._points(collection)
        ids = sorted(one for one in points if (after is None or one >= after) and _fits(points[one], where))
        page = [_part(points[one], fields, with_vector) for one in ids[:limit]]
        return page, ids[limit] if len(ids) > limit else None

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        self._meets("upsert")
        for point in points:
            if self._may_write(collection, point.id, order):
                self._write(collection, point.id, point)

    async def delete(self, collection: str, ids: Sequence[UUID], *, order: Order | None = None) -> None:
        self._meets("delete")
        for id_ in ids:
            if id_ in self._points(collection) and self._may_write(collection, id_, order):
                self._write(collection, id_, None)

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        self._meets("swap")
        points = self._points(collection)
        for swap in swaps:
            there: Payload = points[swap.id].payload if swap.id in points else {}
            if there.get(swap.field) != swap.expected and there != swap.new:
                return False
        for swap in swaps:
            self._write(collection, swap.id, Point(id=swap.id, payload=swap.new))
        return True

    async def nearest(
        self, collection: str, query: bytes | Words, where: Where, *, limit: int, fields: Sequence[str]
    ) -> list[Hit]:
        """By every point; nobody searches in a simulation, but whoever passes for a store can."""
        points = [one for one in self._points(collection).values() if _fits(one, where)]
        scored = [
            (score, one)
            for one in points
            if (score := _score(one, query, self._points(collection).values())) is not None
        ]
        best = sorted(scored, key=lambda one: -one[0])[:limit]
        return [Hit(id=one.id, score=score, payload=_part(one, fields, False).payload) for score, one in best]

    async def count(self, collection: str) -> int:
        return len(self._points(collection))

    async def flush(self) -> None:
        self._meets("flush")
        await self.check()
        for write in self._disk.unflushed:
            _write(self._disk.flushed[write[0]], write)
        self._disk.unflushed.clear()

    async def check(self) -> None:
        if self._generation != self._disk.generation:
            raise StoreLost("this is another disk")

    async def close(self) -> None:
        """As with a write-ahead log: what was written is there."""
        if self._generation == self._disk.generation:
            await self.flush()

    def _points(self, collection: str) -> Points:
        return self._opened[collection]

    def _may_write(self, collection: str, id_: UUID, order: Order | None) -> bool:
        there = self._points(collection).get(id_)
        if there is None or order is None or "revision" not in there.payload:
            return True
        return (there.payload["revision"], there.payload["attempt"]) <= order

    def _write(self, collection: str, id_: UUID, point: Point | None) -> None:
        write = (collection, id_, point)
        _write(self._points(collection), write)
        if self._generation == self._disk.generation:
            self._disk.unflushed.append(write)


class ServerStore(DiskStore):
    """A call takes effect somewhere between its request and its answer, and an answer may be lost. Nothing has to be flushed;
    what was restored from a copy has the identity that it had.
    """

    is_shared = True

    def __init__(
        self,
        disk: Disk,
        meets: Callable[[str], None] = lambda _: None,
        looked: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(disk)
        self._meets_call = meets
        self._looked = looked
        self._ids: dict[str, int] = {}

    async def open(self, collection: Collection) -> None:
        await self._on_its_way()
        self._ids[collection.name] = self._disk.make(collection)

    async def get(
        self,
        collection: str,
        ids: Iterable[UUID],
        *,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> dict[UUID, Point]:
        found = await self._call(
            partial(super().get, collection, ids, fields=fields, with_vector=with_vector)
        )
        if self._looked():
            await asyncio.sleep(0)  # here the process stands still
        return found

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
        return await self._call(
            partial(
                super().scroll,
                collection,
                where,
                limit=limit,
                after=after,
                fields=fields,
                with_vector=with_vector,
            )
        )

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        await self._call(partial(super().upsert, collection, points, order=order))

    async def delete(self, collection: str, ids: Sequence[UUID], *, order: Order | None = None) -> None:
        await self._call(partial(super().delete, collection, ids, order=order))

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        """One by one, and then a look whether ours is what stands there."""
        for one in swaps:
            await self._call(partial(super().swap, collection, [one]))
        found = await self.get(collection, [one.id for one in swaps])
        return all(one.id in found and found[one.id].payload == one.new for one in swaps)

    async def flush(self) -> None:
        self._meets_call("flush")
        await self.check()

    async def check(self) -> None:
        await self._on_its_way()
        for name, id_ in self._ids.items():
            if name not in self._disk.made_as or self._disk.made_as[name][1] != id_:
                raise StoreLost(f"{name} is another collection now")

    async def close(self) -> None:
        pass

    async def _call(self, effect: Callable[[], Awaitable[T]]) -> T:
        """Once sent it is the server's: it is done though the process dies, or stands still."""
        return await asyncio.get_running_loop().create_task(
            self._served(effect), context=contextvars.Context()
        )

    async def _served(self, effect: Callable[[], Awaitable[T]]) -> T:
        await self._on_its_way()
        is_lost = False
        try:
            self._meets_call("call")
        except StoreAway:
            is_lost = self._disk.chance.random() < 0.5
            if not is_lost:
                raise
        done = await effect()
        await self._on_its_way()
        if is_lost:
            raise StoreAway("the answer was lost")
        return done

    async def _on_its_way(self) -> None:
        await asyncio.sleep(self._disk.chance.choice(ON_ITS_WAY_S))

    def _points(self, collection: str) -> Points:
        if collection not in self._disk.flushed:
            raise StoreLost(f"404: there is no {collection}")
        return self._disk.flushed[collection]

    def _write(self, collection: str, id_: UUID, point: Point | None) -> None:
        _write(self._points(collection), (collection, id_, point))


def _write(points: Points, write: Write) -> None:
    _, id_, point = write
    if point is None:
        points.pop(id_, None)
    else:
        points[id_] = point


def _part(point: Point, fields: Sequence[str] | None, with_vector: bool) -> Point:
    payload: dict[str, Any] = (
        dict(point.payload)
        if fields is None
        else {name: point.payload[name] for name in fields if name in point.payload}
    )
    return replace(point, payload=payload, vector=point.vector if with_vector else b"", words=None)


def _score(point: Point, query: bytes | Words, all_: Iterable[Point]) -> float | None:
    if isinstance(query, bytes):
        if not point.vector:
            return None
        return float(np.frombuffer(point.vector, "<f4") @ np.frombuffer(query, "<f4"))
    if point.words is None:
        return None
    weights = dict(zip(point.words.indices, point.words.values, strict=True))
    having = [set(one.words.indices) for one in all_ if one.words is not None]
    shares = [
        weight * weights[index] * math.log(1 + len(having) / sum(index in one for one in having))
        for index, weight in zip(query.indices, query.values, strict=True)
        if index in weights
    ]
    return sum(shares) if shares else None


def _fits(point: Point, where: Where) -> bool:
    said = point.payload
    return (
        (where.project_id is None or said.get("project_id") == str(where.project_id))
        and (not where.document_ids or said.get("document_id") in {str(one) for one in where.document_ids})
        and (not where.kinds or said.get("kind") in where.kinds)
    )
