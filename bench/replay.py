"""How long a start takes over a long history, and how fast what was lost is rebuilt from the log.

`python bench/replay.py [--chunks N]`: one import makes the history; then the stack is stopped and started again, each
time with something more deleted: nothing, ingest's projection, the embedder's index, the store. A start is counted to
`GET /readyz` answering 200, beside that of an empty folder in the same run; nothing may be billed.
"""

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from harness.corpus import write_corpus
from harness.report import print_head, print_table, save
from harness.stack import OPENAI_SPACE, BenchFailed, Provider, fake_provider, running_stack, scratch

from eventlog.topics import EMBEDDINGS, IMPORTS, topic_table

LOST = {
    "nothing": (),
    "ingest's projection": ("ingest/imports.sqlite*",),
    "the embedder's index": ("embedder-*/*.sqlite*",),
    "the store": ("store",),
}


async def record_counts(bootstrap: str) -> dict[str, int]:
    """Offsets at the ends, marks of transactions included."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        counts = {}
        for topic in (IMPORTS, EMBEDDINGS):
            partitions = [TopicPartition(topic, n) for n in range(topic_table()[topic].partitions)]
            counts[topic] = sum((await consumer.end_offsets(partitions)).values())
        return counts
    finally:
        await consumer.stop()


def start(data: Path, provider: Provider) -> float:
    """Seconds from the command to ready."""
    began = time.monotonic()
    with running_stack(data, embedding=OPENAI_SPACE, provider=provider):
        return time.monotonic() - began


def lose(data: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        found = list(data.glob(pattern))
        if not found:
            raise BenchFailed(f"there is no {pattern} to lose")
        for each in found:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def measure(folder: Path, chunk_count: int) -> dict[str, Any]:
    write_corpus(folder / "corpus", chunk_count)
    data, ledger = folder / "data", folder / "ledger.jsonl"
    with fake_provider(0, ledger) as provider:
        empty_s = start(folder / "empty", provider)
        with running_stack(data, embedding=OPENAI_SPACE, provider=provider) as stack:
            imported = stack.import_folder(folder / "corpus", "history", kind="text")
            records = asyncio.run(record_counts(stack.kafka))
        billed = ledger.stat().st_size
        starts = {}
        for what, patterns in LOST.items():
            lose(data, patterns)
            starts[what] = start(data, provider)
        if ledger.stat().st_size != billed:
            raise BenchFailed("something was billed again")
    return {"chunks": imported.chunk_count, "records": records, "empty_s": empty_s, "starts": starts}


def show(result: dict[str, Any]) -> None:
    read = {
        "ingest's projection": result["records"][IMPORTS],
        "the embedder's index": result["records"][EMBEDDINGS],
        "the store": result["records"][EMBEDDINGS],
    }
    rows = [["an empty folder", f"{result['empty_s']:.1f}", "", ""]]
    for what, seconds in result["starts"].items():
        more_s = seconds - result["starts"]["nothing"]
        rate = f"{read[what] / more_s:,.0f}" if what in read and more_s > 0.1 else ""
        rows.append([f"lost: {what}", f"{seconds:.1f}", f"{read[what]:,}" if what in read else "", rate])
    print_table(["start over", "ready after s", "records to read", "records/s"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=50_000, metavar="N")
    args = parser.parse_args()
    print_head(f"starts over a history of about {args.chunks:,} chunks")
    try:
        with scratch() as folder:
            result = measure(folder, args.chunks)
    except BenchFailed as failed:
        print(f"nothing measured: {failed}", file=sys.stderr)
        return 1
    show(result)
    print(f"\n{save('replay', result).relative_to(Path(__file__).parents[1])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
