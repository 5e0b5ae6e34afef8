"""How long the embedded store holds up its process while it seals, on a re-import that comes in another order.

A re-import writes every point again under a newer revision. Where it comes in another order, each step takes a few
points from every sealed segment, until many of them are due to be cleared at once.
"""

import asyncio
import os
import random
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from graph_writer.opened import collection_of
from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import Point
from graph_writer.words import Keywords
from harness.corpus import vocabulary

POINTS = 100_000
DIMS = 256
_BATCH, _TEXTS, _WORDS = 5, 500, 262


def longest_pause() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="paperlog-bench-") as folder:
        return asyncio.run(_written_twice(Path(folder)))


async def _written_twice(folder: Path) -> dict[str, Any]:
    lock = FolderLock(folder)
    assert lock.take(), "nobody else knows the folder"
    store, collection = EdgeStore(folder, lock), collection_of(f"openai/bench@{DIMS}")
    await store.open(collection)
    rng = random.Random(7)
    words, weights = vocabulary()
    texts = [" ".join(rng.choices(words, cum_weights=weights, k=_WORDS)) for _ in range(_TEXTS)]
    keywords = [Keywords().of_text(text) for text in texts]
    vectors = np.random.default_rng(7).standard_normal((_TEXTS, DIMS)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    ids = [uuid.UUID(int=rng.getrandbits(128)) for _ in range(POINTS)]
    pause_s, anonymous_kb, began = [0.0, 0.0], 0, time.monotonic()
    for revision in (0, 1):
        for start in range(0, POINTS, _BATCH):
            points = [
                Point(
                    id=id_,
                    payload={
                        "kind": "passage",
                        "text": texts[id_.int % _TEXTS],
                        "revision": revision,
                        "attempt": 1,
                    },
                    vector=vectors[id_.int % _TEXTS].tobytes(),
                    words=keywords[id_.int % _TEXTS],
                )
                for id_ in ids[start : start + _BATCH]
            ]
            at = time.monotonic()
            await store.upsert(collection.name, points, order=(revision, 1))
            pause_s[revision] = max(pause_s[revision], time.monotonic() - at)
            if start % 1_000 == 0:
                await store.flush()
                anonymous_kb = max(anonymous_kb, _anonymous_kb())
        rng.shuffle(ids)
    result = {
        "points": await store.count(collection.name),
        "pause_ms_max_first_time": round(pause_s[0] * 1000),
        "pause_ms_max": round(pause_s[1] * 1000),
        "anonymous_kb_peak": anonymous_kb,
        "seconds": round(time.monotonic() - began, 1),
        "load_average": os.getloadavg()[0],
    }
    await store.close()
    return result


def _anonymous_kb() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:"))
