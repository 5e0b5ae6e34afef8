"""What the embedded store takes a chunk when nothing else is running: the part of an import that no code around it shortens.

`python bench/store.py [--chunks N]`: the passages of what `bench/throughput.py` imports, cut as ingest cuts them
(no titles, no concepts), 1536 dimensions, five points a call, as the graph-writer writes them: keywords, a lookup by id,
the write with the sealing behind it, and a flush a second. No log, no events, no HTTP.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from uuid import UUID

import numpy as np
from harness.corpus import write_corpus
from harness.report import print_head, print_table, save
from harness.stack import scratch

from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import Collection, Point
from graph_writer.words import KEYWORDS, Keywords
from ingest.chunking import split

DIMS = 1536
BATCH = 5
FLUSH_S = 1.0
LOOKED_AT = ("revision", "attempt", "content_hash")


def points(corpus: Path) -> Iterator[Point]:
    """Without keywords. The ids are drawn, for those of an import come in no order either."""
    rng = np.random.default_rng(1)
    for path in sorted(corpus.iterdir()):
        text = path.read_text(encoding="utf-8")
        document = str(UUID(bytes=rng.bytes(16), version=5))
        for number, span in enumerate(split(text)):
            vector = rng.normal(size=DIMS)
            payload = {
                "project_id": "00000000-0000-5000-8000-000000000001",
                "document_id": document,
                "kind": "body",
                "part": "fulltext",
                "chunk_index": number,
                "text": text[span.start : span.end],
                "title": path.stem,
                "creators": [],
                "section": "",
                "revision": 1,
                "attempt": 1,
                "content_hash": rng.bytes(32).hex(),
            }
            yield Point(
                id=UUID(bytes=rng.bytes(16), version=5),
                payload=payload,
                vector=(vector / np.linalg.norm(vector)).astype("<f4").tobytes(),
            )


async def measure(corpus: Path, folder: Path) -> dict[str, float]:
    """Microseconds a chunk: of the processor by stage, and `elapsed` of all stages, waits for the disk included."""
    lock = FolderLock(folder)
    if not lock.take():
        raise RuntimeError(f"{folder} is in use")
    store, keywords = EdgeStore(folder, lock), Keywords()
    spent: Counter[str] = Counter()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        cpu_ns, elapsed_ns = time.process_time_ns(), time.perf_counter_ns()
        yield
        spent[name] += time.process_time_ns() - cpu_ns
        spent["elapsed"] += time.perf_counter_ns() - elapsed_ns

    await store.open(Collection(name="chunks", dims=DIMS, space="bench", keywords=KEYWORDS))
    made, count, flushed_ns = points(corpus), 0, 0
    while batch := list(islice(made, BATCH)):
        count += len(batch)
        with stage("keywords"):
            words = [keywords.of_text(point.payload["text"]) for point in batch]
        with stage("lookup"):
            await store.get("chunks", [point.id for point in batch], fields=LOOKED_AT)
        with stage("write"):
            whole = [
                Point(id=point.id, payload=point.payload, vector=point.vector, words=one)
                for point, one in zip(batch, words, strict=True)
            ]
            await store.upsert("chunks", whole)
        if spent["elapsed"] - flushed_ns >= FLUSH_S * 1e9:
            with stage("flush"):
                await store.flush()
            flushed_ns = spent["elapsed"]
    with stage("flush"):
        await store.flush()
    if await store.count("chunks") != count + 1:  # and the point that says how the collection was made
        raise RuntimeError("the store does not hold what was written")
    await store.close()
    return {"chunks": count, **{name: round(ns / 1e3 / count, 1) for name, ns in spent.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000, metavar="N")
    args = parser.parse_args()
    print_head("the embedded store alone, microseconds of processor time a chunk")
    with scratch() as folder:
        write_corpus(folder / "corpus", args.chunks)
        result = asyncio.run(measure(folder / "corpus", folder / "store"))
    stages = [name for name in result if name not in {"chunks", "elapsed"}]
    total = round(sum(result[name] for name in stages), 1)
    print_table(
        ["chunks", *stages, "all", "elapsed"],
        [[result["chunks"], *(result[name] for name in stages), total, result["elapsed"]]],
    )
    print(f"\n{save('store', result).relative_to(Path(__file__).parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
