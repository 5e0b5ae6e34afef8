"""The store as this process opened it: its id, its collections, and how far each of them has read the log.

The graph's collection lists the others. Each collection keeps one position per source partition; the lowest counts,
so a collection that is lost, or restored from an older copy, refills itself. A position advances only from the value
last seen: another value means that somebody put another store under us, and only a new process can go on.
"""

import uuid
from collections.abc import Iterable, Mapping

from eventlog.envelope import header
from eventlog.ids import NAMESPACE, StoreId
from eventlog.log import Log, Record, TopicPartition, records_at
from eventlog.logs import Logger
from eventlog.spaces import parse_space
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.core import NOTHING_READ, ReadTo, advanced, lowest, position_id
from graph_writer.stores.store import Collection, Point, Store, StoreLost, StoreMismatch, Swap, Where
from graph_writer.words import KEYWORDS

GRAPH = Collection(name="graph", dims=2)
TOPICS = (IMPORTS, EMBEDDINGS)
COLLECTIONS_MAX = 1_000

_STORE_ID = uuid.uuid5(NAMESPACE, "store")
_DEAD_LETTERS_ID = uuid.uuid5(NAMESPACE, "dead letters in a row")
_log = Logger("graph_writer.opened")


def record_identity(record: Record) -> str:
    """What tells a record from another at the same place: a log that was wiped repeats offsets, not ids."""
    return header(record, "ce_id") or f"timestamp:{record.timestamp_ms}"


def collection_of(space: str) -> Collection:
    """Raises ValueError for what is not a space."""
    parsed = parse_space(space)
    return Collection(name=parsed.slug, dims=parsed.dims, space=space, keywords=KEYWORDS)


class OpenedStore:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = StoreId(uuid.UUID(int=0))
        self._spaces: dict[str, Collection] = {}
        self._positions: dict[str, dict[TopicPartition, ReadTo]] = {}
        self._position_ids: frozenset[uuid.UUID] = frozenset()
        """Of all partitions, whoever reads them."""
        self._began: dict[TopicPartition, ReadTo] = {}
        """Where this process goes on, of what it was assigned: what it read since, it knows the spaces of."""

    @property
    def collections(self) -> tuple[Collection, ...]:
        return (GRAPH, *self._spaces.values())

    @property
    def positions(self) -> Mapping[str, Mapping[TopicPartition, ReadTo]]:
        return self._positions

    def name_of(self, space: str) -> str | None:
        """None where the space has no collection here."""
        known = self._spaces.get(space)
        return None if known is None else known.name

    async def open(self, partitions: Iterable[TopicPartition]) -> None:
        """Opens every collection that is listed; one that is listed but gone begins at the beginning.

        `partitions`: all that there are.
        """
        partitions = tuple(partitions)
        self._position_ids = frozenset(position_id(one.topic, one.partition) for one in partitions)
        await self.store.open(GRAPH)
        drawn = {"kind": "store", "store_id": str(uuid.uuid4()), "version": 1}
        await self.store.swap(GRAPH.name, [Swap(id=_STORE_ID, field="version", expected=None, new=drawn)])
        found = await self.store.get(GRAPH.name, [_STORE_ID])
        self.id = StoreId(uuid.UUID(found[_STORE_ID].payload["store_id"]))
        for space in await self._listed():
            collection = collection_of(space)
            await self.store.open(collection)
            self._spaces[space] = collection
        await self.read_positions(partitions)

    async def _listed(self) -> list[str]:
        listed, _ = await self.store.scroll(GRAPH.name, Where(kinds=("collection",)), limit=COLLECTIONS_MAX)
        return [point.payload["space"] for point in listed]

    async def read_positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, ReadTo]:
        """Reads them anew from the store; the lowest of each partition."""
        wanted = {position_id(one.topic, one.partition): one for one in partitions}
        for collection in self.collections:
            found = await self.store.get(collection.name, wanted)
            self._positions[collection.name] = {
                at: _read_to(found[id_]) if id_ in found else NOTHING_READ for id_, at in wanted.items()
            }
        self._began = {
            at: lowest(self._positions[collection.name][at] for collection in self.collections)
            for at in wanted.values()
        }
        return self._began

    async def check(self) -> None:
        """Raises StoreLost when this is not the store that was opened.

        A server's that came back from an older copy is the same collection; only what it says of itself is older.
        """
        await self.store.check()
        if not self.store.is_shared:
            return
        for collection in self.collections:
            there = {
                position_id(at.topic, at.partition): read_to.offset
                for at, read_to in self._positions[collection.name].items()
                if read_to.offset > 0
            }
            found = await self.store.get(collection.name, there)
            if any(id_ not in found or _read_to(found[id_]).offset < offset for id_, offset in there.items()):
                raise StoreLost(f"{collection.name} has read less than it had: it came back from a copy")

    async def forget_positions(self, partitions: Iterable[TopicPartition]) -> None:
        """Returns when the store has flushed it: everything in these partitions is read again."""
        ids = [position_id(one.topic, one.partition) for one in partitions]
        for collection in self.collections:
            await self.store.delete(collection.name, ids)
        await self.store.flush()

    async def check_log(self, log: Log) -> None:
        """Raises StoreMismatch when the log is not the one that was read: wiped, cut, or another cluster's."""
        ends = {topic: await log.ends(topic) for topic in TOPICS}
        begins = {topic: await log.begins(topic) for topic in TOPICS}
        proved: set[tuple[TopicPartition, ReadTo]] = set()
        for positions in self._positions.values():
            # The others have read nothing yet, or retention has taken the record that would prove it.
            provable = {
                at: read_to
                for at, read_to in positions.items()
                if (at, read_to) not in proved
                and read_to.offset > 0
                and read_to.record_offset >= begins[at.topic][at.partition]
            }
            for at, read_to in provable.items():
                if read_to.offset > ends[at.topic][at.partition]:
                    raise StoreMismatch(
                        f"the log ends before {_place(at, read_to)}, which the store has read"
                    )
            held = await records_at(log, {at: read_to.record_offset for at, read_to in provable.items()})
            for at, read_to in provable.items():
                if at not in held:
                    raise StoreMismatch(
                        f"the log does not hold {_place(at, read_to)}, which the store has read"
                    )
                if record_identity(held[at]) != read_to.record_id:
                    raise StoreMismatch(
                        f"the log holds another record at {_place(at, read_to)} than the store has read"
                    )
            proved.update(provable.items())

    async def look_for_spaces(self) -> None:
        """Those that other writers have made since: a sweep touches every collection, and positions advance in each."""
        if self.store.is_shared:
            for space in await self._listed():
                await self.ensure_space(space)

    async def ensure_space(self, space: str) -> str:
        """The collection of a space; a new one starts where the graph's is. Raises ValueError for no space."""
        known = self._spaces.get(space)
        if known is not None:
            return known.name
        collection = collection_of(space)
        present = self._positions[GRAPH.name]
        await self.store.open(collection)
        found = await self.store.get(collection.name, self._position_ids)
        # The other writers' partitions too: whoever has them next would read them from their beginning.
        graphs = await self.store.get(GRAPH.name, self._position_ids - found.keys())
        missing = [
            Swap(id=id_, field="offset", expected=None, new=point.payload) for id_, point in graphs.items()
        ]
        if missing:
            await self.store.swap(collection.name, missing)
            found |= await self.store.get(collection.name, graphs)  # another may have been first
        listing = Point(
            id=uuid.uuid5(NAMESPACE, f"collection\x1f{collection.name}"),
            payload={"kind": "collection", "name": collection.name, "space": space},
        )
        await self.store.upsert(GRAPH.name, [listing])
        positions = {
            at: _read_to(found[id_]) if (id_ := position_id(at.topic, at.partition)) in found else read_to
            for at, read_to in present.items()
        }
        if any(positions[at].offset < read_to.offset for at, read_to in self._began.items()):
            raise StoreLost(
                f"{collection.name} was found behind the others; it is read again from where it is"
            )
        if space not in self._spaces:  # a batch and a cycle may come here together
            self._spaces[space] = collection
            self._positions[collection.name] = positions
            _log.info("collection.opened", collection=collection.name, space=space)
        return collection.name

    async def advance(self, done: Mapping[TopicPartition, ReadTo]) -> None:
        """Raises StoreLost where a position is not the one last seen."""
        await self.look_for_spaces()
        for collection in self.collections:
            there = self._positions[collection.name]
            swaps: list[Swap] = []
            after: dict[TopicPartition, ReadTo] = {}
            for at, read_to in done.items():
                before = there.get(at)
                if before is None or advanced(before, read_to) is before:
                    continue
                after[at] = read_to
                expected = None if before is NOTHING_READ else before.offset
                new = _position_payload(at, read_to)
                id_ = position_id(at.topic, at.partition)
                swaps.append(Swap(id=id_, field="offset", expected=expected, new=new))
            if swaps and not await self.store.swap(collection.name, swaps):
                raise StoreLost(f"positions of {collection.name} are not those last written")
            there.update(after)

    async def dead_letters_in_row(self) -> int:
        found = await self.store.get(GRAPH.name, [_DEAD_LETTERS_ID])
        return int(found[_DEAD_LETTERS_ID].payload["count"]) if found else 0

    async def keep_dead_letters_in_row(self, count: int) -> None:
        payload = {"kind": "dead_letters", "count": count}
        await self.store.upsert(GRAPH.name, [Point(id=_DEAD_LETTERS_ID, payload=payload)])


def _place(at: TopicPartition, read_to: ReadTo) -> str:
    return f"{at.topic}[{at.partition}]@{read_to.record_offset}"


def _read_to(point: Point) -> ReadTo:
    said = point.payload
    return ReadTo(offset=said["offset"], record_offset=said["record_offset"], record_id=said["record_id"])


def _position_payload(at: TopicPartition, read_to: ReadTo) -> dict[str, object]:
    return {
        "kind": "position",
        "topic": at.topic,
        "partition": at.partition,
        "offset": read_to.offset,
        "record_offset": read_to.record_offset,
        "record_id": read_to.record_id,
    }
