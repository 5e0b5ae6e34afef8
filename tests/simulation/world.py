"""One world: the log, the disk, the provider, five processes, and a supervisor that starts again what died.

A run plays a story under a plan of faults, heals, waits until nothing happens any more, and hands everything over to
the checker. The same seed gives the same run, step for step.
"""

import asyncio
import contextvars
import random
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.simulation.checker import Checker, Points
from tests.simulation.faults import EMBEDDERS, INGEST, WRITERS, Fault, Plan, has_server, processes_of
from tests.simulation.log import ObservedBroker, ProcessLog
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.provider import LifeOfModel, Provider
from tests.simulation.services import (
    PARTITIONS,
    SCHEMAS,
    SOURCES,
    Life,
    embedders_run_on,
    folded_at_once,
    run_embedder,
    run_graph_writer,
    run_ingest,
    statuses_of,
)
from tests.simulation.store import Disk, DiskStore, ServerStore
from tests.simulation.story import NOW, SPACE, Story
from tests.unit.embedder.virtual_time import LoopClock

from embedder.index import Index
from eventlog.envelope import seal
from eventlog.events import Message, ResumeImport
from eventlog.ids import ImportId
from eventlog.log import NewRecord, Record
from eventlog.memory_group import SESSION_TIMEOUT_S
from eventlog.topics import CHUNKS, DLQ, EMBEDDINGS, IMPORT_REQUESTS, IMPORTS, topic_table
from graph_writer.core import position_id
from graph_writer.stores.store import Point, StoreAway
from graph_writer.writer import Writer
from ingest.projection import Projection

TROUBLE_S = 30.0
"""Faults that did not come by then come no more."""
ENDS_WITHIN_S = 900.0
QUIET_S = 2.5
KNOWS_AFTER_S = 1.0
"""Who was stopped learns by then that its partitions are others'."""
RESTART_S = (0.1, 0.5, 3.0)


class Violated(AssertionError):  # noqa: N818 - it says what happened to a promise
    """A promise was broken."""


@dataclass
class Running:
    process: Process
    life: int
    log: ProcessLog
    task: "asyncio.Task[None] | None" = None
    writer: Writer | None = None
    projection: Projection | None = None
    index: Index | None = None
    back_at_s: float | None = None
    """When it went on after it had been expelled; null again when it knows."""


@dataclass
class Outcome:
    """What is left of a run. `violations` are sentences; none is what is wanted."""

    trace: list[str]
    counts: Counter[tuple[str, str]]
    injected: list[Fault]
    violations: list[str] = field(default_factory=list)
    readable: Points = field(default_factory=dict)
    billed_again: int = 0
    completions_checked: int = 0
    completions_excused: int = 0


class World:
    def __init__(self, story: Story, faults: Iterable[Fault], folder: Path) -> None:
        self.story = story
        self.chance = random.Random(f"world {story.seed}")
        self.plan = Plan(faults)
        self.folder = folder
        self.loop = SimulatedLoop(self.chance)
        self.trace: list[str] = []
        table = topic_table()
        topics = [table[IMPORT_REQUESTS], table[IMPORTS]]
        topics += [replace(table[one], partitions=PARTITIONS) for one in (CHUNKS, EMBEDDINGS)]
        topics += [
            replace(table[DLQ], name=f"{one}-{DLQ}")
            for one in ("ingest", "graph-writer", f"embedder-{_SLUG}")
        ]
        self.broker = ObservedBroker(topics, clock=LoopClock(), seen=self._seen)
        self.disk = Disk(self.chance)
        self.provider = Provider(self.chance, self._meet)
        self.checker = Checker(story, self.broker, self.disk, self.provider)
        self.running: dict[str, Running] = {}
        self.deaths: Counter[str] = Counter()
        self._lives = 0
        self._knows_at_s = 0.0
        """Who was stopped last knows by then what it may not pay any more."""
        self._unsent: deque[Message] = deque()
        self.is_over = False
        self.loop.stepped = self._stepped

    # --- the plan

    def say(self, text: str) -> None:
        self.trace.append(f"{self.loop.time():8.3f} {text}")

    def _meet(self, counter: str, who: str = "") -> list[Fault]:
        due = self.plan.meet(counter, who)
        for fault in due:
            self.say(f"FAULT {fault}")
        return due

    def _stepped(self, process: Process) -> None:
        for fault in self._meet("steps", process.name):
            if fault.kind == "stop":
                self._stop(process, fault.seconds)
            else:
                process.die()
                if fault.kind == "kill and wipe":
                    shutil.rmtree(self.folder / process.name, ignore_errors=True)

    def _store_meets(self, call: str) -> None:
        for fault in self._meet("store"):
            if fault.kind == "store away":
                raise StoreAway("the store does not answer")
            self.checker.store_is_replaced()
            if fault.kind == "store lost":
                self.disk.lose()
            else:
                self.disk.restore(self._is_old)
        if call == "flush" and self.chance.random() < 0.2:
            self.disk.keep_copy()

    def _is_old(self, copy: Mapping[str, Mapping[UUID, Point]]) -> bool:
        """A server that gets back a copy from the very cycle that a writer is in tells it nothing (docs/runbooks/operations.md):
        where there is more to read, the writers have gone on since.
        """
        if not has_server(self.story.seed):
            return True
        for name, points in self.disk.flushed.items():
            for at in SOURCES:
                id_ = position_id(at.topic, at.partition)
                then, now = (
                    one[id_].payload["offset"] if id_ in one else 0 for one in (copy.get(name, {}), points)
                )
                if then == now and self.broker.partition(at.topic, at.partition).read(now, 1)[0]:
                    return False
        return True

    # --- processes

    def start(self, name: str) -> None:
        if self.is_over:
            return
        self._lives += 1
        process = Process(name, self._died)
        log = ProcessLog(self.broker, self.plan, self.chance, self.checker.garbled)
        log.plan = _Told(self, process)  # type: ignore[assignment]  # the same, told in the trace
        running = self.running[name] = Running(process, self._lives, log)
        self.say(f"start {name}")
        running.task = process.start(self._main(name, running))
        running.task.add_done_callback(lambda task: self._ended(running, task), context=contextvars.Context())

    async def _main(self, name: str, running: Running) -> None:
        folder = self.folder / name
        if name in INGEST:
            await run_ingest(name, folder, running.log, self.story, self._watched)
        elif name in EMBEDDERS:
            await run_embedder(folder)
        else:
            plan = running.log.plan
            store = (
                ServerStore(self.disk, self._store_meets, lambda: plan.meet("look"))
                if has_server(self.story.seed)
                else DiskStore(self.disk, self._store_meets)
            )

            def started(writer: Writer) -> None:
                running.writer = writer

            await run_graph_writer(folder, running.log, store, running.log.plan, started)

    def _watched(self, name: str, projection: Projection) -> None:
        running = self.running[name]
        running.projection = projection
        self.checker.saw_statuses(running.life, projection.statuses(before=None, limit=100))

    def _ended(self, running: Running, task: "asyncio.Task[None]") -> None:
        if not self.is_over and not running.process.is_dead:
            error = None if task.cancelled() else task.exception()
            self.say(f"crash {running.process.name}: {_named(error)}")
            self.checker.crashed(running.process.name, error)
            running.process.die()

    def _died(self, process: Process) -> None:
        running = self.running[process.name]
        self.say(f"dead {process.name} after {process.steps} steps")
        self.deaths[process.name] += 1
        running.log.die()
        if running.index is not None:
            running.index._db.close()  # the kernel takes a dead process's locks away
        if process.name in EMBEDDERS:
            self._held(running)
            self.checker.lost_with(running.life)
        if process.name in WRITERS:
            self.disk.power_off()
        self.loop.call_later(
            self.chance.choice(RESTART_S), self.start, process.name, context=contextvars.Context()
        )

    def _stop(self, process: Process, seconds: float) -> None:
        running = self.running[process.name]
        self.loop.stop_process(process)
        expelled: list[tuple[Any, Any]] = []

        def expel() -> None:
            self.say(f"expelled {process.name}")
            self.checker.lost_with(running.life)
            for group, member in running.log.members:
                if not member.is_dead:
                    group.expel(member)
                    expelled.append((group, member))

        def go_on() -> None:
            missing.cancel()  # or it would take the next stop for this one, whose end knows nothing of an expulsion
            self.say(f"goes on {process.name}")
            if expelled:
                running.back_at_s = self.loop.time()
                self.loop.call_later(KNOWS_AFTER_S, self._held, running)
                self._knows_at_s = self.loop.time() + KNOWS_AFTER_S
            for group, member in expelled:
                group.rejoin(member)
            self.loop.go_on(process)

        own = contextvars.Context()
        missing = self.loop.call_later(SESSION_TIMEOUT_S, expel, context=own)
        self.loop.call_later(seconds, go_on, context=own)

    def _held(self, running: Running) -> None:
        """Who was expelled has paid what it held; by now it knows, or has died before it could."""
        if running.back_at_s is not None:
            self.checker.lost_with(running.life, paid_since_s=running.back_at_s)
            running.back_at_s = None

    def _seen(self, record: Record) -> None:
        event = self.checker.saw_fact(record)
        self.say(f"imports {record.offset} {event}")

    # --- people

    def send(self, command: Message) -> None:
        """Users try until it is taken, in the order in which they came."""
        self._unsent.append(command)
        self._send_all()

    def _send_all(self) -> None:
        while self._unsent and not self.broker.is_down:
            command = self._unsent.popleft()
            self.say(f"command {type(command).__name__} {_short(getattr(command, 'import_id', None))}")
            self.broker.append(seal(SCHEMAS, command, topic=IMPORT_REQUESTS, source="user", partition=0))

    def _broker_is_back(self) -> None:
        self.broker.start()
        self._send_all()

    async def _every_second(self) -> None:
        while not self.plan.is_healed:
            await asyncio.sleep(1.0)
            for fault in self._meet("second"):
                if fault.kind == "poison":
                    self._put_poison(fault.who)
                else:
                    self.broker.stop()
                    self.loop.call_later(fault.seconds, self._broker_is_back)

    def _put_poison(self, topic: str) -> None:
        value = self.chance.choice([b"", b"\x00", b"no frame", b"\x00\x00\x00\x00\x01no schema", None])
        try:
            self.broker.append(NewRecord(topic=topic, key=b"?", value=value, partition=0))
        except Exception:  # noqa: BLE001 - a fault that waits for the topic hit it
            self.say("the poison was refused")
        else:
            self.checker.poison_count += 1

    # --- the whole

    async def play(self) -> None:
        for name in processes_of(self.story.seed):
            self.start(name)
        for at, command in self.story.commands:
            self.loop.call_later(at, self.send, command)
        faults = asyncio.create_task(self._every_second())
        last_s = max(at for at, _ in self.story.commands)
        await asyncio.sleep(last_s + 1.0)
        while self.plan.is_waiting and self.loop.time() < TROUBLE_S:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1.0)
        self._heal()
        await faults
        await self._until_quiet()
        await self._check_projection()
        self.is_over = True

    def _heal(self) -> None:
        self.say("healed")
        self.plan.is_healed = True
        self.broker._faults.clear()
        self._broker_is_back()

    async def _check_projection(self) -> None:
        """One that is made again from the log, in one batch, says the same."""
        deadline_s = self.loop.time() + ENDS_WITHIN_S
        while True:
            end = self.broker.partition(IMPORTS, 0).end
            found = [one for name in INGEST if (one := self.running[name].projection) and one.position >= end]
            if found:
                break
            if self.loop.time() > deadline_s:
                self.checker.violations.append("I10: no instance of ingest has come back and read all")
                return
            await asyncio.sleep(0.5)  # they may all be dead just now, or only just alive
        folded = found[0]
        again = folded_at_once(self.folder / "again", self.broker)
        if statuses_of(folded) != statuses_of(again):
            self.checker.violations.append(
                f"I11: folded as it came {statuses_of(folded)}, at once {statuses_of(again)}"
            )
        again.close()

    async def _until_quiet(self) -> None:
        """Once is resumed what was cancelled or lacks a garbled chunk; nothing else is done for anybody."""
        deadline_s = self.loop.time() + ENDS_WITHIN_S
        resumed: set[tuple[ImportId, int]] = set()
        since_s, before = self.loop.time(), self._ends()
        while True:
            await asyncio.sleep(0.5)
            for import_id, attempt in self.checker.to_resume():
                if (import_id, attempt) not in resumed:
                    resumed.add((import_id, attempt))
                    self.send(ResumeImport(occurred_at=NOW, import_id=import_id, attempt_seen=attempt))
            now = self._ends()
            if now != before or not self._has_read_all():
                since_s, before = self.loop.time(), now
            is_quiet = self.loop.time() - max(since_s, self._knows_at_s) >= QUIET_S
            if is_quiet and not self.checker.open_imports():
                return
            if self.loop.time() > deadline_s:
                raise Violated(
                    f"P3: after {ENDS_WITHIN_S:.0f} s there is no end: {self.checker.open_imports()}"
                )

    def _ends(self) -> list[int]:
        return [
            len(part.slots)
            for topic in (IMPORT_REQUESTS, IMPORTS, CHUNKS, EMBEDDINGS)
            for part in self.broker.topic(topic)
        ]

    def _has_read_all(self) -> bool:
        readings: list[Any] = []
        for running in (one for name, one in self.running.items() if name in WRITERS):
            if running.process.is_dead or running.process.is_stopped or running.writer is None:
                return False
            readings.append(running.writer.reading)
        if any(one.is_busy for one in readings):
            return False
        ends = {at: self.broker.partition(at.topic, at.partition).end for at in SOURCES}
        return all(any(one.has_read(at, end) for one in readings) for at, end in ends.items())

    async def bury(self) -> None:
        """Ends every task, those of the dead too, so that nothing outlives the loop."""
        self.loop.bury()
        mine = asyncio.current_task()
        for _ in range(20):
            left = [task for task in asyncio.all_tasks() if task is not mine]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=20.0)


class _Told:
    """The plan, as a process's log meets it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def meet(self, counter: str, who: str = "") -> list[Fault]:
        due = self._world._meet(counter, who)
        for fault in due:
            if fault.kind == "kill sender":
                own = contextvars.Context()
                self._world.loop.call_later(fault.seconds, self._process.die, context=own)
            elif fault.kind in ("stop decider", "stop writer"):
                self._world._stop(self._process, fault.seconds)
        return due


_SLUG = "openai-test-embedding-4-1"
assert SPACE == "openai/test-embedding@4:1"


def play(story: Story, faults: Iterable[Fault], folder: Path) -> Outcome:
    """Plays to the end, and checks."""
    folder.mkdir(parents=True, exist_ok=True)
    random.seed(story.seed)  # the jitter of retries is drawn there
    world = World(story, faults, folder)
    checker = world.checker
    outcome = Outcome(world.trace, world.plan.counts, world.plan.injected)

    def life_of(name: str) -> Life:
        running = world.running[name]
        return Life(running.log, LifeOfModel(world.provider, running.life))

    def opened(name: str, index: Index) -> None:
        world.running[name].index = index

    async def act() -> None:
        try:
            await world.play()
            checker.check_end()
        except Violated as violation:
            checker.violations.append(str(violation))
        finally:
            world.is_over = True
            await world.bury()

    with (
        embedders_run_on(life_of, opened, random.Random(f"ids {story.seed}")),
        asyncio.Runner(loop_factory=lambda: world.loop) as runner,
    ):
        runner.run(act())
    outcome.violations = checker.violations
    outcome.readable = checker.readable()
    outcome.billed_again = sum(world.provider.billed.values()) - len(world.provider.billed)
    outcome.completions_checked = checker.completions_checked
    outcome.completions_excused = checker.completions_excused
    return outcome


def _named(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_named(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"


def _short(id_: Any) -> str:
    return str(id_)[:8]
