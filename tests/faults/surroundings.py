"""Faults of what is around: members that come and go, disks that are full, clocks that differ, a backlog."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from tests.e2e.stack import until
from tests.faults.catalogue import fault
from tests.faults.named_points import LAUNCHER
from tests.faults.world import MODULES, TERMINAL, World

SLOW = {"PAPERLOG_REQUESTS_MAX": "8"}
COME_AND_GO_S = 120.0
EVERY_S = 2.0
STOPPED_S = 14.0
"""Longer than a session, so that the group goes on without the member, and finds it again."""
SILENT_S_MAX = 60.0
PARTITIONS = 48


@fault(
    "F4",
    "a second instance joins or leaves every 2 s for 2 minutes; one is stopped past its session, one of each polls no more",
    {"change": 40, "stopped": 1, "silent": 3},
    latency_ms=200,
    env=SLOW,
    program=LAUNCHER,
    needs_folder=True,
)
def rebalances(world: World) -> None:
    first = world.import_(world.library("texts", documents=250, chunks_each=40), "Texts")
    ends = time.monotonic() + COME_AND_GO_S
    there: dict[str, float] = {}
    while time.monotonic() < ends:
        name = world.chance.choice([*MODULES] + ["embedder"] * 2)
        if name in there:
            del there[name]
            number = world.chance.choice([signal.SIGTERM, signal.SIGKILL])
            if number is signal.SIGKILL:
                world.died(name)
            world.end_other(f"{name}-2", number=number)
        else:
            world.start_other(name)
            there[name] = time.monotonic()
        world.injected["change"] += 1
        time.sleep(EVERY_S)
    for name in ("ingest", "embedder"):
        if name not in there:
            world.start_other(name)
    time.sleep(EVERY_S * 2)
    with world.suffering("embedder"):
        world.send("embedder", signal.SIGSTOP)
        time.sleep(STOPPED_S)
        world.send("embedder", signal.SIGCONT)
    world.injected["stopped"] += 1
    second = world.import_(world.library("late", documents=10, chunks_each=20), "Texts")
    _ask_for_nothing(world)
    world.drain(first, second)


def _ask_for_nothing(world: World) -> None:
    """One of each lives, heartbeats and all, and does not poll: a member that waits keeps its place, and a graph-writer
    that Faust has stopped polling for ends itself.
    """
    pids = {module: world.pid(name) for name, module in MODULES.items()}
    embedders = (world.url("embedder"), world.urls["embedder-2"])
    # One that was stopped believes in its old share until it has joined again.
    until(
        lambda: sum(map(_partitions, embedders)) == PARTITIONS and min(map(_partitions, embedders)) > 0,
        SILENT_S_MAX,
        "the two embedders do not share the partitions",
    )
    held, leader = _partitions(embedders[0]), _led_last(world)
    path = world.folder / "faults" / "silent.json"
    with world.suffering("graph-writer"):
        path.write_text(json.dumps(pids))
        time.sleep(STOPPED_S)
        until(
            lambda: world.pid("graph-writer") not in (None, pids["graph_writer"]),
            SILENT_S_MAX,
            "the silent graph-writer is not ended by its watchdog",
        )
    world.check(_partitions(embedders[0]) == held, "the silent embedder has lost its partitions")
    world.check(_led_last(world) == leader, "another ingest leads although the silent one lives")
    path.unlink()
    world.check(world.pid("embedder") == pids["embedder"], "the silent embedder has died of it")
    world.check(world.pid("ingest") == pids["ingest"], "the silent ingest has died of it")
    world.injected["silent"] += len(pids)


def _partitions(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/status", timeout=5) as answer:
            return len(json.loads(answer.read())["partitions"])
    except OSError:
        return 0


def _led_last(world: World) -> str:
    """Whose election is the newest, as their own words tell."""
    elections = [
        (line.split()[0], path.stem)
        for path in (world.stack.folder / "logs").glob("ingest*.log")
        for line in path.read_text().splitlines()
        if "leader.elected" in line
    ]
    return max(elections, default=("", ""))[1]


# --- F16: disks --------------------------------------------------------------------------------------------------

DISKS = {"kafka": 300, "store": 200, "blobs": 100, "ingest": 100, "embedder-openai-test-embedding-64-1": 100}
FULL_S = 12.0


def mount_disks(world: World) -> None:
    """A small file system of its own under each folder; where this process may not mount, the fault cannot be shown."""
    for name, size_mb in DISKS.items():
        folder = world.folder / "data" / name
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)
        world.at_end(["umount", "-l", str(folder)])


@fault(
    "F16",
    "no space left under broker, store, blobs and indexes, one after the other",
    {"full": len(DISKS)},
    latency_ms=150,
    env=SLOW,
    before_start=mount_disks,
)
def full_disks(world: World) -> None:
    first = world.import_(world.library("texts", documents=150, chunks_each=40), "Texts")
    for number, name in enumerate(DISKS):
        world.wait_settled(first, 100 + 300 * number)
        with world.suffering(name):
            _run_full(world, name)
        world.injected["full"] += 1
    world.drain()


def _run_full(world: World, name: str) -> None:
    filler = world.folder / "data" / name / "filler"
    _fill(filler)
    if name == "blobs":
        library = world.library("no room", documents=3, chunks_each=20)
        said = world.stack.command("import", str(library), "--project", "No room", "--no-wait", check=None)
        world.check("no space left" in said.stderr, f"the full disk is not named: {said.stderr[-300:]}")
        world.check(said.returncode == 1, f"taken without room for it: {said.returncode} {said.stdout}")
        world.numbers["said"] = " ".join(said.stderr.split())[-160:]
    time.sleep(FULL_S)
    filler.unlink()
    until(world.is_ready, 120, lambda: f"not ready after {name} was full: {world.stack.tail()}")


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue


# --- F17: clocks -------------------------------------------------------------------------------------------------


@fault(
    "F17",
    "clocks ten minutes apart either way, one that jumps back",
    {"apart": 2, "jump": 1},
    program=LAUNCHER,
    needs_folder=True,
    latency_ms=100,
    env=SLOW,
    others=("ingest", "embedder"),
)
def clocks(world: World) -> None:
    _clocks(world, {"ingest": 600, "embedder": -600, "graph_writer": 0})
    first = world.import_(world.library("texts", documents=60, chunks_each=40), "Texts")
    world.wait_settled(first, 300)
    world.injected["apart"] += 2
    world.provider.tell(script=[{"kind": "rate_limit", "retry_after_s": 2.0, "times": 3}])
    world.wait_settled(first, 600)
    _clocks(world, {"ingest": -600, "embedder": 600, "graph_writer": -3600})
    world.injected["jump"] += 1
    second = world.import_(world.library("late", documents=10, chunks_each=20), "Texts")
    world.drain(first, second)
    page = world.stack.ask("GET", "/api/imports?limit=10")["imports"]
    world.check(
        [one["import_id"] for one in page] == [second, first], "newest first follows the clock, not the log"
    )


def _clocks(world: World, offsets_s: dict[str, int]) -> None:
    path = world.folder / "faults" / "clocks.json"
    path.with_suffix(".new").write_text(json.dumps(offsets_s))
    path.with_suffix(".new").replace(path)


# --- F18: a backlog ----------------------------------------------------------------------------------------------

BACKLOG = 100_000
PARTITIONS = 48
BACKLOG_DOCUMENTS = 3_600
EMBEDDED_S_MAX = 1_500.0


@fault(
    "F18",
    "the writer at a hundredth of its speed before a backlog of 100,000",
    {"backlog": BACKLOG},
    program=LAUNCHER,
    needs_folder=True,
    finish_s_max=900,
)
def backlog(world: World) -> None:
    (world.folder / "faults" / "store").write_text("crawls")
    import_id = world.import_(world.library("texts", documents=BACKLOG_DOCUMENTS, chunks_each=40), "Texts")

    def is_all_embedded() -> bool:
        status = world.stack.status(import_id)
        return bool(
            status["documents"]["parsed"] == BACKLOG_DOCUMENTS
            and _published(world) >= status["chunks"]["total"]
        )

    began_s = time.monotonic()
    until(is_all_embedded, EMBEDDED_S_MAX, lambda: f"not all is embedded: {world.stack.status(import_id)}")
    chunks = world.stack.status(import_id)["chunks"]
    world.injected["backlog"] = chunks["total"] - chunks["stored"]
    world.numbers["stored_per_s"] = round(chunks["stored"] / (time.monotonic() - began_s), 1)
    (world.folder / "faults" / "store").write_text("")
    world.drain()
    world.stack.wait(import_id, *TERMINAL)


def _published(world: World) -> int:
    """Records of `embeddings`, one for each chunk."""
    consumer = Consumer({"bootstrap.servers": world.stack.endpoints()["kafka"], "group.id": "faults"})
    try:
        partitions = [TopicPartition("embeddings", number) for number in range(PARTITIONS)]
        return sum(consumer.get_watermark_offsets(one, timeout=10)[1] for one in partitions)
    finally:
        consumer.close()
