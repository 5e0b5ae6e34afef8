"""Which settlements stand at each completion: the fold of `ChunksSettled` and `StoreOpened`, written down a second time.

What a store said stands while that store is the one that is open and has not gone back: `StoreOpened` with another id
takes everything back, with a position what was read at or after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.auditor.evidence import Fact

Place = tuple[int, int]
"""Partition and offset of `embeddings` where a chunk was read."""


@dataclass(slots=True)
class _Standing:
    store: str = ""
    places: dict[str, dict[str, Place]] = field(default_factory=dict)
    """By import and chunk."""

    def settle(self, fact: Fact) -> None:
        if fact.body["store_id"] == self.store:
            of_import = self.places.setdefault(fact.body["import_id"], {})
            of_import |= {one["chunk_id"]: (one["partition"], one["offset"]) for one in fact.body["chunks"]}

    def open(self, fact: Fact) -> None:
        if fact.body["store_id"] != self.store:
            self.store = fact.body["store_id"]
            self.places.clear()
            return
        back: dict[int, int] = {}
        for one in fact.body["positions"]:
            if one["topic"] == "embeddings":
                back[one["partition"]] = min(one["offset"], back.get(one["partition"], one["offset"]))
        for import_id, places in self.places.items():
            self.places[import_id] = {
                chunk: place for chunk, place in places.items() if place[1] < back.get(place[0], 1 << 62)
            }


def counted_but_gone(facts: Iterable[Fact]) -> Iterator[tuple[Fact, int]]:
    """Each `ImportCompleted`, and how many fewer settlements stood for its import when it was said than it counts."""
    standing = _Standing()
    for fact in (one for one in facts if not one.is_repeat):
        if fact.type == "StoreOpened":
            standing.open(fact)
        elif fact.type == "ChunksSettled":
            standing.settle(fact)
        elif fact.type == "ImportCompleted":
            there = len(standing.places.get(fact.body["import_id"], {}))
            yield fact, max(0, fact.body["chunk_count"] - there)
