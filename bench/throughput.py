"""Chunks a second from the request to `ImportCompleted`, and what each costs, with and without the provider's latency.

`python bench/throughput.py [--chunks N …]`: the smallest number without latency, each with it. The provider is a fake
on loopback with 1536 dimensions: so the network and the vendor are left out, and everything of ours is in. The ceiling
is the run's own: what the partition with the most texts would take if it asked for five at a time, one batch after the
other. A worker may ask for two at once, so it bounds nothing; it tells how much of the provider's latency is hidden.
"""

import argparse
import asyncio
import math
import os
import sys
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from harness.corpus import write_corpus
from harness.report import print_head, print_step, print_table, save
from harness.stack import OPENAI_SPACE, BenchFailed, fake_provider, running_stack, scratch

from eventlog.avro import Schemas, schemas_dir
from eventlog.events import ChunkEmbedded
from eventlog.topics import EMBEDDINGS, topic_table

TEXTS_PER_BATCH = 5
LATENCY_MS = 200
TO_REACH_PER_S = 1500
TO_REACH_SHARE = 0.95
TO_REACH_OF_TWO_CORES = 0.85
"""Without latency: of the rate at which two cores would be full with what all processes take a chunk."""


async def requests_of_largest_partition(bootstrap: str, import_id: str) -> int:
    """From the log: texts that were embedded for this import, by partition; what was reused needed no request."""
    schemas = Schemas(schemas_dir())
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        count = topic_table()[EMBEDDINGS].partitions
        partitions = [TopicPartition(EMBEDDINGS, number) for number in range(count)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        counts = dict.fromkeys(partitions, 0)
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                for record in records:
                    event = schemas.decode(record.value)
                    if isinstance(event, ChunkEmbedded) and str(event.import_id) == import_id:
                        counts[partition] += not event.is_reused
        return math.ceil(max(counts.values()) / TEXTS_PER_BATCH)
    finally:
        await consumer.stop()


def measure(folder: Path, chunk_count: int, latency_ms: int) -> dict[str, Any]:
    corpus = folder / f"corpus-{chunk_count}"
    if not corpus.exists():
        write_corpus(corpus, chunk_count)
    name = f"{chunk_count}-{latency_ms}"
    with (
        fake_provider(latency_ms, folder / f"ledger-{name}.jsonl") as provider,
        running_stack(folder / f"data-{name}", embedding=OPENAI_SPACE, provider=provider) as stack,
    ):
        imported = stack.import_folder(corpus, f"throughput {name}", kind="text")
        requests = asyncio.run(requests_of_largest_partition(stack.kafka, imported.import_id))
    chunks = imported.chunk_count
    rate = chunks / imported.seconds
    ceiling = chunks / (requests * latency_ms / 1000) if latency_ms else None
    return {
        "latency_ms": latency_ms,
        "documents": imported.status["documents"],
        "chunks": imported.status["chunks"],
        "seconds": round(imported.seconds, 2),
        "chunks_per_s": round(rate, 1),
        "requests_of_largest_partition": requests,
        "ceiling_per_s": round(ceiling, 1) if ceiling else None,
        "share_of_ceiling": round(rate / ceiling, 3) if ceiling else None,
        "restarted": imported.restarted,
        "load_average": os.getloadavg()[0],
        "cpu_us_per_chunk": {name: round(cpu / chunks * 1e6) for name, cpu in imported.cpu_s.items()},
    }


def show(results: list[dict[str, Any]]) -> None:
    print_table(
        ["provider", "chunks", "seconds", "chunks/s", "ceiling/s", "share"],
        [
            [
                f"{each['latency_ms']} ms",
                each["chunks"]["total"],
                each["seconds"],
                each["chunks_per_s"],
                each["ceiling_per_s"] or "-",
                f"{each['share_of_ceiling']:.0%}" if each["share_of_ceiling"] else "-",
            ]
            for each in results
        ],
    )
    names = sorted({name for each in results for name in each["cpu_us_per_chunk"]})
    print("\nprocessor microseconds per chunk, children included")
    print_table(
        ["provider", *names, "all"],
        [
            [
                f"{each['latency_ms']} ms",
                *(each["cpu_us_per_chunk"].get(name, "-") for name in names),
                sum(each["cpu_us_per_chunk"].values()),
            ]
            for each in results
        ],
    )
    for each in results:
        name = f"{each['latency_ms']} ms, {each['chunks']['total']} chunks"
        if each["restarted"]:
            print(f"{name}: died on the way: {', '.join(each['restarted'])}")
        if each["latency_ms"]:
            goals = [(f"{TO_REACH_SHARE:.0%} of the ceiling", each["share_of_ceiling"] >= TO_REACH_SHARE)]
        else:
            full = 2e6 / sum(each["cpu_us_per_chunk"].values())
            share = each["chunks_per_s"] / full
            goals = [
                (f"{TO_REACH_PER_S} chunks/s", each["chunks_per_s"] >= TO_REACH_PER_S),
                (
                    f"{TO_REACH_OF_TWO_CORES:.0%} of what two cores could do ({full:.0f}/s; {share:.0%})",
                    share >= TO_REACH_OF_TWO_CORES,
                ),
            ]
        for wanted, is_reached in goals:
            print(f"{name}: {wanted} {'reached' if is_reached else 'NOT reached'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000, 50_000], metavar="N")
    args = parser.parse_args()
    print_head("throughput from the request to `ImportCompleted`")
    runs = [(min(args.chunks), 0), *((chunk_count, LATENCY_MS) for chunk_count in sorted(args.chunks))]
    results = []
    try:
        with scratch() as folder:
            for chunk_count, latency_ms in runs:
                print_step(f"{chunk_count:,} chunks, {latency_ms} ms")
                results.append(measure(folder, chunk_count, latency_ms))
    except BenchFailed as failed:
        print(f"nothing measured: {failed}", file=sys.stderr)
        return 1
    show(results)
    print(f"\n{save('throughput', results).relative_to(Path(__file__).parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
