"""How long a start takes over a long history, and how fast what was lost is rebuilt from the log.

`python bench/replay.py [--chunks N] [--lost WHAT …]`: documents and embedded chunks are written straight into the log, and
the services store and settle them; that is the history (200,000 records on `imports` for a million chunks, and some
minutes of work: `--chunks 1000000 --lost nothing`). Then the stack is stopped and started again, each time with
something more deleted. A start is counted to `GET /readyz` answering 200: the whole stack's from the command, the
broker included, beside that of an empty folder in the same run; a service's from the birth of its process, beside the
others' and, killed in a stack that runs, alone. Nothing may be billed.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from harness.history import import_id_of, write_history
from harness.processes import age_s
from harness.report import print_head, print_step, print_table, save
from harness.stack import (
    SERVICES,
    BenchFailed,
    Provider,
    Stack,
    answers_ready,
    fake_provider,
    running_stack,
    scratch,
    wait_until,
)

from eventlog.spaces import parse_space
from eventlog.topics import EMBEDDINGS, IMPORTS, topic_table

SPACE = str(parse_space("openai/text-embedding-3-small@256"))
LOST = {
    "nothing": (),
    "snapshots": ("embedder-*/story-*.json", "graph-writer/projects.json"),
    "projection": ("ingest/imports.sqlite*",),
    "index": ("embedder-*/*.sqlite*",),
    "store": ("store",),
}
READ = {
    "snapshots": ("graph-writer", IMPORTS),
    "projection": ("ingest", IMPORTS),
    "index": ("embedder", EMBEDDINGS),
    "store": ("graph-writer", EMBEDDINGS),
}
"""Who rebuilds it, from what."""
START_S_MAX = 3.0
READY_S_MAX = 7200.0


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


def start(data: Path, provider: Provider) -> dict[str, float]:
    """Seconds to ready by service, and of `all` from the command."""
    (data / "endpoints.json").unlink(missing_ok=True)  # what it says is of the stack before
    seconds: dict[str, float] = {}
    is_over = threading.Event()
    watching = threading.Thread(target=_watch, args=(Stack(data=data, provider=None), seconds, is_over))
    watching.start()
    began = time.monotonic()
    try:
        with running_stack(data, embedding=SPACE, provider=provider, ready_s_max=READY_S_MAX):
            seconds["all"] = time.monotonic() - began
            deadline = time.monotonic() + 10
            while len(seconds) <= len(SERVICES) and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        is_over.set()
        watching.join()
    return {name: round(value, 2) for name, value in seconds.items()}


def restarts(data: Path, provider: Provider) -> dict[str, float]:
    """Seconds to ready of each service that is killed while the others run."""
    seconds: dict[str, float] = {}
    with running_stack(data, embedding=SPACE, provider=provider, ready_s_max=READY_S_MAX) as stack:
        for name in SERVICES:
            before = stack.pids()[name]
            os.kill(before, signal.SIGKILL)

            def is_back(name: str = name, before: int = before) -> bool:
                service = stack.endpoints()["services"].get(name, {})
                return service.get("pid") not in (None, before) and answers_ready(service["url"])

            wait_until(f"the restart of {name}", is_back, READY_S_MAX)
            seconds[name] = round(age_s(stack.pids()[name]) or 0.0, 2)
    return seconds


def _watch(stack: Stack, seconds: dict[str, float], is_over: threading.Event) -> None:
    while not is_over.wait(0.05):
        try:
            services = stack.endpoints()["services"]
        except (OSError, ValueError):
            continue  # not written yet
        for name, service in services.items():
            if name in SERVICES and name not in seconds and service["pid"] and answers_ready(service["url"]):
                seconds[name] = age_s(service["pid"]) or 0.0


def lose(data: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for each in data.glob(pattern):
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def make_history(data: Path, provider: Provider, chunk_count: int) -> dict[str, Any]:
    began = time.monotonic()
    print_step(f"{chunk_count:,} chunks are written into the log")
    write_history(data, SPACE, chunk_count)
    written_s = time.monotonic() - began
    began = time.monotonic()
    print_step("they are stored and settled")
    with running_stack(data, embedding=SPACE, provider=provider, ready_s_max=READY_S_MAX) as stack:
        status = stack.wait(str(import_id_of(chunk_count)))
        if status["state"] != "completed":
            raise BenchFailed(f"the history ended as {status['state']}: {status.get('problem')}")
        settled_s = time.monotonic() - began
        records = asyncio.run(record_counts(stack.kafka))
    return {
        "chunks": status["chunks"]["total"],
        "records": records,
        "written_s": round(written_s, 1),
        "settled_s": round(settled_s, 1),
    }


def measure(folder: Path, chunk_count: int, lost: list[str]) -> dict[str, Any]:
    data, ledger = folder / "data", folder / "ledger.jsonl"
    with fake_provider(0, ledger) as provider:
        (folder / "empty").mkdir()
        start(folder / "empty", provider)  # the first start of all reads programs from the disk
        empty = start(folder / "empty", provider)
        result = make_history(data, provider, chunk_count)
        starts = {}
        for what in lost:
            print_step(f"start, lost: {what}")
            lose(data, LOST[what])
            starts[what] = start(data, provider)
        print_step("restarts of each service alone")
        alone = restarts(data, provider)
        if ledger.stat().st_size:
            raise BenchFailed("something was billed")
    return result | {"empty": empty, "starts": starts, "alone": alone}


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{result['chunks']:,} chunks: written into the log in {result['written_s']} s, stored and settled in "
        f"{result['settled_s']} s ({result['chunks'] / result['settled_s']:,.0f} chunks/s)"
    )
    rows = [["an empty folder", *_seconds(result["empty"]), "", ""]]
    for what, seconds in result["starts"].items():
        who, topic = READ.get(what, ("", ""))
        more_s = seconds.get(who, 0.0) - result["starts"].get("nothing", result["empty"]).get(who, 0.0)
        read = result["records"].get(topic, 0)
        rate = f"{read / more_s:,.0f}" if more_s > 0.1 else ""
        rows.append([f"lost: {what}", *_seconds(seconds), f"{read:,}" if read else "", rate])
    print_table(["ready after s", "all", *SERVICES, "records to read", "records/s"], rows)
    for who, seconds in result["alone"].items():
        verdict = "kept" if seconds <= START_S_MAX else "NOT kept"
        print(
            f"{who}, alone: start to ready within {START_S_MAX:.0f} s over this history {verdict} ({seconds} s)"
        )


def _seconds(seconds: dict[str, float]) -> list[str]:
    return [f"{seconds[name]:.1f}" if name in seconds else "-" for name in ("all", *SERVICES)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000, metavar="N")
    parser.add_argument("--lost", nargs="+", choices=list(LOST), default=list(LOST))
    args = parser.parse_args()
    print_head(f"starts over a history of {args.chunks:,} chunks")
    try:
        with scratch() as folder:
            result = measure(folder, args.chunks, args.lost)
    except BenchFailed as failed:
        print(f"nothing measured: {failed}", file=sys.stderr)
        return 1
    show(result)
    print(f"\n{save('replay', result).relative_to(Path(__file__).parents[1])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
