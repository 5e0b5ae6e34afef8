"""What the parts reach without Paperlog: the same broker, provider, SDK, splitter, codec, store and keywords, and nothing else.

`python bench/bare.py [--chunks N] [--latency-ms MS]`: three processes on two topics of 48 partitions. One splits the texts
that `bench/throughput.py` imports and publishes chunks; one asks the provider for 25 texts at a time and publishes
vectors; one counts words and writes points to the embedded store, five a call, with a flush a second. No ids that
follow from content, no event's envelope, no check of what is paid or written, no attempts, no completion, no graph, and
a death would lose work. What it takes a chunk is the least that these parts cost here.
"""

import argparse
import asyncio
import contextlib
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import fastavro
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from harness.corpus import write_corpus
from harness.processes import cpu_s
from harness.report import print_head, print_table, save
from harness.stack import OPENAI_SPACE, ROOT, BenchFailed, fake_provider, scratch, wait_until

from embedder.models.openai import OpenAIModel
from eventlog.kafka_client import consumer_options
from eventlog.spaces import parse_space
from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import Collection, Point
from graph_writer.words import KEYWORDS, Keywords
from ingest.chunking import split
from paperlog.up.kafka import embedded_kafka

DIMS = 1536
PARTITIONS = 48
TEXTS_PER_REQUEST = 25
REQUESTS_MAX = 48
POINTS_PER_CALL = 5
FLUSH_S = 1.0
WAIT_S_MAX = 600.0
CHUNKS, VECTORS = "bare-chunks", "bare-vectors"
STAGES = ("splitter", "embedder", "writer")
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Bare",
        "fields": [
            {"name": "id", "type": "bytes"},
            {"name": "text", "type": "string"},
            {"name": "vector", "type": "bytes"},
        ],
    }
)


def packed(**fields: Any) -> bytes:
    into = io.BytesIO()
    fastavro.schemaless_writer(into, SCHEMA, fields)
    return into.getvalue()


def unpacked(value: bytes) -> dict[str, Any]:
    read: Any = fastavro.schemaless_reader(io.BytesIO(value), SCHEMA, None)
    return dict(read)


def producer(kafka: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", enable_idempotence=True, linger_ms=5, max_batch_size=64 * 1024
    )


@contextlib.asynccontextmanager
async def reading(kafka: str, topic: str) -> Any:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, **consumer_options(PARTITIONS) | {"fetch_min_bytes": 64 * 1024}
    )
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    try:
        yield consumer
    finally:
        await consumer.stop()


async def splitter(folder: Path, kafka: str) -> None:
    async with producer(kafka) as out:
        report(folder, "splitter", "ready")
        await asyncio.to_thread(sys.stdin.readline)  # the word to begin
        acks, count = [], 0
        for path in sorted((folder / "corpus").iterdir()):
            text = path.read_text(encoding="utf-8")
            for span in split(text):
                chunk_id = uuid4().bytes
                value = packed(id=chunk_id, text=text[span.start : span.end], vector=b"")
                acks.append(await out.send(CHUNKS, value, partition=count % PARTITIONS))
                count += 1
        report(folder, "count", str(count))
        await asyncio.gather(*acks)
    report(folder, "splitter", "done")


async def embedder(folder: Path, kafka: str, provider: str) -> None:
    model = OpenAIModel(parse_space(OPENAI_SPACE), api_key="bench", base_url=provider, timeout_s=60)
    slots = asyncio.Semaphore(REQUESTS_MAX)

    async def ask(chunks: list[tuple[int, dict[str, Any]]]) -> None:
        embedded = await model.embed([chunk["text"] for _, chunk in chunks], "document")
        for (partition, chunk), vector in zip(chunks, embedded.vectors, strict=True):
            await out.send(VECTORS, packed(**chunk | {"vector": vector}), partition=partition)
        slots.release()

    async with producer(kafka) as out, reading(kafka, CHUNKS) as source, asyncio.TaskGroup() as asking:
        report(folder, "embedder", "ready")
        count = 0
        while not is_all(folder, count):
            found = await source.getmany(timeout_ms=100, max_records=TEXTS_PER_REQUEST)
            chunks = [(one.partition, unpacked(one.value)) for many in found.values() for one in many]
            if chunks:
                count += len(chunks)
                await slots.acquire()
                asking.create_task(ask(chunks))
    await model.close()
    report(folder, "embedder", "done")


async def writer(folder: Path, kafka: str) -> None:
    lock = FolderLock(folder / "store")
    if not lock.take():
        raise RuntimeError("the store is in use")
    store, keywords = EdgeStore(folder / "store", lock), Keywords()
    await store.open(Collection(name="chunks", dims=DIMS, space="bench", keywords=KEYWORDS))
    async with reading(kafka, VECTORS) as source:
        report(folder, "writer", "ready")
        count, flushed_s = 0, time.monotonic()
        while not is_all(folder, count):
            found = await source.getmany(timeout_ms=100, max_records=POINTS_PER_CALL)
            chunks = [unpacked(one.value) for many in found.values() for one in many]
            if chunks:
                await store.upsert("chunks", [point(chunk, keywords) for chunk in chunks])
                count += len(chunks)
            if time.monotonic() - flushed_s > FLUSH_S:
                await store.flush()
                flushed_s = time.monotonic()
        await store.flush()
    if await store.count("chunks") != count + 1:  # and the point that says how the collection was made
        raise RuntimeError("the store does not hold what was written")
    await store.close()
    report(folder, "writer", "done")


def point(chunk: dict[str, Any], keywords: Keywords) -> Point:
    text = chunk["text"]
    return Point(
        id=UUID(bytes=chunk["id"]),
        payload={"text": text},
        vector=chunk["vector"],
        words=keywords.of_text(text),
    )


def is_all(folder: Path, count: int) -> bool:
    told = folder / "count"
    return told.exists() and count >= int(told.read_text())


def report(folder: Path, name: str, what: str) -> None:
    new = folder / f"{name}.new"
    new.write_text(what)
    new.replace(folder / name)


def told(folder: Path, what: str) -> bool:
    return all((folder / name).exists() and (folder / name).read_text() == what for name in STAGES)


async def make_topics(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (CHUNKS, VECTORS)])
    await admin.close()


def measure(folder: Path, chunk_count: int, latency_ms: int) -> dict[str, Any]:
    write_corpus(folder / "corpus", chunk_count)
    (folder / "store").mkdir()
    with contextlib.ExitStack() as running:
        broker = running.enter_context(embedded_kafka(folder / "kafka"))
        provider = running.enter_context(fake_provider(latency_ms, folder / "ledger.jsonl"))
        asyncio.run(make_topics(broker.bootstrap))
        children = {}
        for stage in STAGES:
            argv = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
            argv += ["--kafka", broker.bootstrap, "--provider", provider.url]
            children[stage] = running.enter_context(subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE))
            running.callback(children[stage].terminate)

        def has(what: str) -> bool:
            if any(one.poll() not in (None, 0) for one in children.values()):
                raise BenchFailed("a stage has failed; its traceback stands above")
            return told(folder, what)

        pids = {name: child.pid for name, child in children.items()} | {
            "kafka": broker.pid,
            "provider": provider.pid,
        }
        wait_until("the start of all stages", lambda: has("ready"), WAIT_S_MAX)
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        after = before
        began_s = time.monotonic()
        word = children["splitter"].stdin
        assert word is not None
        word.write(b"go\n")
        word.flush()
        while not has("done"):
            after = {name: max(cpu_s(pid), after[name]) for name, pid in pids.items()}
            time.sleep(0.02)  # not to be measured itself; its deadline is the stages'
            if time.monotonic() - began_s > WAIT_S_MAX:
                raise BenchFailed(f"not done in {WAIT_S_MAX:.0f} s")
        seconds = time.monotonic() - began_s
    chunks = int((folder / "count").read_text())
    return {
        "latency_ms": latency_ms,
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "chunks_per_s": round(chunks / seconds, 1),
        "cpu_us_per_chunk": {name: round((after[name] - before[name]) / chunks * 1e6) for name in pids},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000, metavar="N")
    parser.add_argument("--latency-ms", type=int, default=0, metavar="MS")
    for name in ("--stage", "--folder", "--kafka", "--provider"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        folder = Path(args.folder)
        steps = {
            "splitter": lambda: splitter(folder, args.kafka),
            "embedder": lambda: embedder(folder, args.kafka, args.provider),
            "writer": lambda: writer(folder, args.kafka),
        }
        uvloop.run(steps[args.stage]())
        return 0
    print_head("the same parts without Paperlog")
    try:
        with scratch() as folder:
            result = measure(folder, args.chunks, args.latency_ms)
    except BenchFailed as failed:
        print(f"nothing measured: {failed}", file=sys.stderr)
        return 1
    spent = result["cpu_us_per_chunk"]
    print_table(
        ["provider", "chunks", "seconds", "chunks/s", *spent, "all"],
        [
            [
                f"{result['latency_ms']} ms",
                result["chunks"],
                result["seconds"],
                result["chunks_per_s"],
                *spent.values(),
                sum(spent.values()),
            ]
        ],
    )
    print(f"\n{save('bare', result).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
