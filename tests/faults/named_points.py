"""Deaths at named points, twenty at each; and a store that is slow or away. Both by services that `points.py` starts."""

import json
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from tests.e2e.stack import until
from tests.faults.catalogue import fault
from tests.faults.points import POINTS
from tests.faults.world import DONE, SERVICES, World

LAUNCHER = ("-m", "tests.faults.up_with_points")
TIMES = {
    point: 10 if point.startswith(("amid-D", "after-D", "amid-I", "after-I")) else 20
    for points in POINTS.values()
    for point in points
}
"""In the middle of a fact is before the end of its transaction and after it, ten times each."""
FIRED_S_MAX = 600.0
OPEN_MAX = 4
AWAY_S = 60.0
SLOW_FOR_S = 20.0


def _fired(world: World) -> dict[str, int]:
    folder = world.folder / "faults" / "fired"
    return {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}


@fault(
    "F2", "kills at named points", TIMES, program=LAUNCHER, latency_ms=60, needs_folder=True, finish_s_max=240
)
def named_points(world: World) -> None:
    (world.folder / "faults" / "plan.json").write_text(json.dumps({"times": TIMES, "seed": world.seed}))
    for name in ("ingest", "embedder", "graph-writer"):  # those that run now were started without a plan
        world.kill(name)
    world.injected.clear()
    number, deadline = 0, time.monotonic() + FIRED_S_MAX
    open_: list[str] = []
    while (fired := _fired(world)) != TIMES and time.monotonic() < deadline:
        open_ = [each for each in open_ if world.stack.status(each)["state"] not in DONE]
        if len(open_) < OPEN_MAX:
            number += 1
            library = world.library(f"texts-{number}", documents=4, chunks_each=16)
            open_.append(_import_under_fire(world, library, f"Texts {number}"))
        time.sleep(0.3)
    world.numbers["imports"] = number
    world.drain()
    fired = _fired(world)
    world.injected.update(fired)
    for module, points in POINTS.items():
        for point in points:
            for line in (world.folder / "faults" / "fired" / point).read_text().splitlines():
                world.died(module.replace("_", "-"), at=float(line))


def _import_under_fire(world: World, library: Any, project: str) -> str:
    """The command may lose its service while it uploads; asked again, it is the same import."""
    answers: list[str] = []

    def asked() -> bool:
        try:
            answers.append(world.import_(library, project))
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            return False
        return True

    until(asked, 120, f"{project} cannot be asked for")
    return answers[0]


@fault(
    "F11",
    "store 5 s slow, then away for 60 s: the offsets stand still, nothing is rebalanced",
    {"slow": 1, "away": 1},
    others=SERVICES,
    program=LAUNCHER,
    latency_ms=20,
    needs_folder=True,
)
def store_away(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=100, chunks_each=40), "Texts")
    world.wait_settled(import_id, 200)
    pid = world.pid("graph-writer")
    _store(world, "slow")
    time.sleep(SLOW_FOR_S)
    world.injected["slow"] += 1
    _store(world, "away")
    until(
        lambda: world.stack.status(import_id)["waiting"] == "store_down",
        30,
        "nobody says that the store is down",
    )
    before = _positions(world)
    time.sleep(AWAY_S)
    world.injected["away"] += 1
    world.check(_positions(world) == before, "a position moved while the store was away")
    _store(world, "")
    world.drain()
    world.check(world.pid("graph-writer") == pid, "the writer has died of it")
    log = (world.stack.folder / "logs" / "graph-writer.log").read_text()
    world.check(log.count("store.opened") == 1, "its partitions were assigned anew: there was a rebalance")


def _store(world: World, how: str) -> None:
    (world.folder / "faults" / "store").write_text(how)


def _positions(world: World) -> Mapping[str, int]:
    said = world.writer_status()
    return {
        f"{one['collection']} {one['topic']} {one['partition']}": one["offset"] for one in said["positions"]
    }
