"""Runs a service that dies at a named point, or whose store misbehaves: `python points.py ingest|embedder|graph_writer`.

What is patched here is patched at start, from outside: the services have no hook of their own. `FAULTS_DIR` holds
`plan.json` (`{"times": {point: deaths wanted}, "seed": n}`), `fired/` (a file for each point, a line for each death), and
`store` (`slow`, `crawls`, `away` or nothing), `clocks.json` (seconds by module), `held` (the fact that no leader may
commit) and `silent.json` (by module the id of a process that asks for no records), which are looked at before each
call. A point that has not fired as often as wanted ends the process by SIGKILL, by chance, when it is passed.
"""

import asyncio
import json
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("FAULTS_DIR", "."))
FIRED_SHARE = {"embedder": 0.07, "graph_writer": 0.5, "ingest": 0.6}
"""Of the times that a point is passed; what is passed seldom fires soon."""
SLOW_S = 5.0
CRAWL_S = 0.1
POLL_S_MAX = 6.0
"""In the place of two minutes: a graph-writer that asks for no records for so long ends itself."""
LOOKED_AT_S = 0.05


class Armed:
    """All points of the module that are to fire yet; each time that one is passed, chance says whether it does."""

    def __init__(self, module: str) -> None:
        path = FOLDER / "plan.json"
        plan: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"times": {}, "seed": 0}
        mine = {point: times for point, times in plan["times"].items() if point in POINTS[module]}
        self._points = {point for point, times in mine.items() if times > len(_lines(point))}
        self._share = FIRED_SHARE[module]
        self._chance = random.Random(f"{plan['seed']} {module} {sum(len(_lines(point)) for point in mine)}")

    def passed(self, point: str) -> bool:
        """Whether it is time to die here."""
        return point in self._points and self._chance.random() < self._share

    def die(self, point: str) -> None:
        with (FOLDER / "fired" / point).open("a") as file:
            file.write(f"{time.time():.3f}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def _lines(point: str) -> list[str]:
    path = FOLDER / "fired" / point
    return path.read_text().splitlines() if path.exists() else []


def _around(
    owner: Any,
    name: str,
    *,
    before: Callable[..., Any] | None = None,
    after: Callable[..., Any] | None = None,
) -> None:
    original = getattr(owner, name)

    async def patched(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            await before(*arguments, **named)
        result = await original(*arguments, **named)
        if after is not None:
            await after(*arguments, **named)
        return result

    setattr(owner, name, patched)


def _at(
    armed: Armed, point: str, *, is_meant: Callable[..., bool] = lambda *_, **__: True
) -> Callable[..., Any]:
    async def here(*arguments: Any, **named: Any) -> None:
        if is_meant(*arguments, **named) and armed.passed(point):
            armed.die(point)

    return here


# --- embedder ----------------------------------------------------------------------------------------------------

BEFORE_ANSWER, AFTER_ANSWER, AFTER_PUBLISH = (
    "before-the-answer",
    "after-the-answer",
    "after-publish-before-commit",
)
UNDER_WAY_S = 0.02


def patch_embedder(armed: Armed) -> None:
    from embedder.models.openai import OpenAIModel
    from embedder.publisher import Publisher

    async def soon(*_: Any, **__: Any) -> None:
        if armed.passed(BEFORE_ANSWER):
            asyncio.get_running_loop().call_later(UNDER_WAY_S, armed.die, BEFORE_ANSWER)

    _around(OpenAIModel, "embed", before=soon, after=_at(armed, AFTER_ANSWER))
    _around(Publisher, "publish", after=_at(armed, AFTER_PUBLISH))


# --- graph-writer ------------------------------------------------------------------------------------------------

AFTER_STORE, AFTER_SETTLED = "after-the-store-before-publish", "after-publish-before-acknowledge"
AMID_WRITE = "amid-a-write"


def patch_graph_writer(armed: Armed) -> None:
    from graph_writer.opened import OpenedStore
    from graph_writer.sender import Sender
    from graph_writer.stores.edge import EdgeStore
    from graph_writer.stores.store import StoreAway

    patch_watchdog()

    def settles(_self: Any, answers: Any) -> bool:
        return any(type(event).__name__ == "ChunksSettled" for event, _ in answers)

    _around(Sender, "say", before=_at(armed, AFTER_STORE, is_meant=settles))
    _around(OpenedStore, "advance", before=_at(armed, AFTER_SETTLED))
    _around(EdgeStore, "upsert", after=_at(armed, AMID_WRITE))

    async def misbehave(*_: Any, **__: Any) -> None:
        match _said("store"):
            case "slow":
                await asyncio.sleep(SLOW_S)
            case "crawls":
                await asyncio.sleep(CRAWL_S)
            case "away":
                raise StoreAway("the store is away, as the fault wants it")

    for name in ("upsert", "flush", "swap", "delete"):
        _around(EdgeStore, name, before=misbehave)


# --- ingest ------------------------------------------------------------------------------------------------------

FACTS = ("DocumentParsed", "ImportSealed", "ImportCompleted")


def patch_ingest(armed: Armed) -> None:
    """Within the transaction that holds the fact: its records are sent, the transaction is open or has just ended."""
    from aiokafka import AIOKafkaProducer

    from eventlog.kafka import KafkaDecider

    holds: set[str] = set()

    async def note(_self: Any, records: Any) -> None:
        holds.clear()
        holds.update(
            (value or b"").decode().removeprefix("paperlog.")
            for record in records
            for name, value in record.headers
            if name == "ce_type"
        )
        while _said("held") in holds:  # noqa: ASYNC110 - a file tells nobody that it has changed
            await asyncio.sleep(LOOKED_AT_S)

    def meant(fact: str) -> Callable[..., bool]:
        return lambda *_, **__: fact in holds

    _around(KafkaDecider, "commit", before=note)
    for fact in FACTS:
        _around(
            AIOKafkaProducer, "commit_transaction", before=_at(armed, f"amid-{fact}", is_meant=meant(fact)),
            after=_at(armed, f"after-{fact}", is_meant=meant(fact)),
        )  # fmt: skip


def patch_clock(module: str) -> None:
    from eventlog.clock import SystemClock

    original = SystemClock.now

    def now(self: SystemClock) -> datetime:
        offsets = json.loads(_said("clocks.json") or "{}")
        return original(self) + timedelta(seconds=offsets.get(module, 0))

    SystemClock.now = now  # type: ignore[method-assign]  # the clock of this process is to be wrong


# --- members that do not poll ------------------------------------------------------------------------------------


def _said(name: str) -> str:
    path = FOLDER / name
    return path.read_text() if path.exists() else ""


async def _silence(module: str) -> None:
    while json.loads(_said("silent.json") or "{}").get(module) == os.getpid():  # noqa: ASYNC110 - as above
        await asyncio.sleep(LOOKED_AT_S)


def patch_polls(module: str) -> None:
    from eventlog import kafka

    async def silent(*_: Any, **__: Any) -> None:
        await _silence(module)

    _around(kafka.KafkaGroupReader, "poll", before=silent)


def patch_watchdog() -> None:
    """Of the graph-writer, whose batches may wait for ever: its own watchdog looks after polls."""
    from graph_writer import consumer

    consumer.POLL_S_MAX = POLL_S_MAX

    async def silent(*_: Any, **__: Any) -> None:
        await _silence("graph_writer")

    _around(consumer._Client, "_fetch_records", before=silent)


POINTS = {
    "embedder": (BEFORE_ANSWER, AFTER_ANSWER, AFTER_PUBLISH),
    "graph_writer": (AFTER_STORE, AFTER_SETTLED, AMID_WRITE),
    "ingest": tuple(f"{when}-{fact}" for fact in FACTS for when in ("amid", "after")),
}
PATCHES = {"embedder": patch_embedder, "graph_writer": patch_graph_writer, "ingest": patch_ingest}

if __name__ == "__main__":
    MODULE = sys.argv[1]
    sys.path.pop(0)  # this folder: a service finds what it finds without us
    (FOLDER / "fired").mkdir(parents=True, exist_ok=True)
    patch_clock(MODULE)
    patch_polls(MODULE)
    PATCHES[MODULE](Armed(MODULE))
    sys.argv = [MODULE]
    runpy.run_module(f"{MODULE}.app", run_name="__main__", alter_sys=True)
