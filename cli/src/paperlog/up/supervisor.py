"""Keeps a set of processes alive: starts them in order, brings back what dies, says where they are, stops them in order.

Knows a process by its name, how to start it and when it is to be stopped; neither Kafka nor what a service does.
One loop in the main thread does everything, because children are bound to the thread that starts them.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from paperlog.up.core import WRONG_SETTINGS, RestartPolicy
from paperlog.up.processes import Child

TICK_S = 0.05
LINE_LENGTH_MAX = 400
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One process to keep alive."""

    name: str
    spawn: Callable[[], Child]
    url: str | None = None
    is_up: Callable[[], bool] | None = None
    """Where given, units that were added later first start when this has been true once."""
    stop_rank: int = 0
    """Lower ranks stop first; one rank stops together."""
    stop_s_max: float = 12.0
    is_needed: bool = True
    """Whether the stack makes no sense when this unit's settings are wrong."""


@dataclass(slots=True)
class _Running:
    unit: Unit
    child: Child | None = None
    quick_deaths: int = 0
    start_at: float = 0.0
    was_up: bool = False
    is_given_up: bool = False

    last_words: list[str] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        return self.was_up or self.is_given_up or (self.unit.is_up is None and self.child is not None)

    def words_of(self, child: Child) -> str:
        """Its last lines, once: a child that dies again and again says the same."""
        lines = [line[:LINE_LENGTH_MAX] for line in child.last_lines()]
        if lines == self.last_words:
            return " the same as before" if lines else " none"
        self.last_words = lines
        return "".join(f"\n    {line}" for line in lines)


def write_json(path: Path, value: object) -> None:
    """Whoever reads the file sees the old content or the new one, never a part."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    half.replace(path)


@dataclass(slots=True)
class Supervisor:
    say: Callable[[str], None]
    publish: Callable[[dict[str, Unit], dict[str, int]], None]
    """Called with the units and the pids that live now, after every change; with nothing at the end."""
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    _running: dict[str, _Running] = field(default_factory=dict)
    _stop_requests: int = 0
    _is_stopping: bool = False
    _published: dict[str, int] | None = None

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping or self._stop_requests > 0

    def add(self, unit: Unit) -> None:
        assert unit.name not in self._running, f"{unit.name} is there already"
        self._running[unit.name] = _Running(unit)

    def run(self, each_tick: Callable[[], None] = lambda: None) -> int:
        """Until a signal asks to stop (0) or a needed unit says that its settings are wrong (2)."""
        before = {number: signal.signal(number, self._on_signal) for number in _STOP_SIGNALS}
        code = 0
        try:
            while not self._stop_requests:
                if self._bury():
                    code = WRONG_SETTINGS
                    break
                self._start_due()
                self._publish()
                each_tick()
                time.sleep(TICK_S)
        finally:
            self._is_stopping = True
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)
        return code

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _bury(self) -> bool:
        """Plans the return of what has died; true when that makes no sense."""
        for each in self._running.values():
            if each.child is None or (code := each.child.exit_code()) is None:
                continue
            child, each.child = each.child, None
            each.quick_deaths = self.policy.quick_deaths(each.quick_deaths, lived_s=child.lived_s)
            wait_s = self.policy.backoff_s(each.quick_deaths)
            each.start_at = time.monotonic() + wait_s
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            words = each.words_of(child)
            if code == WRONG_SETTINGS:
                self.say(f"{each.unit.name} refuses its settings; it is not started again:{words}")
                each.is_given_up = True
                if each.unit.is_needed:
                    return True
            else:
                when = f"in {wait_s:.1f} s" if wait_s else "now"
                self.say(
                    f"{each.unit.name} (pid {child.pid}) {how}; starting it again {when}. Its last lines:{words}"
                )
        return False

    def _start_due(self) -> None:
        for each in self._running.values():
            if each.child is None and not each.is_given_up and time.monotonic() >= each.start_at:
                each.child = each.unit.spawn()
            if each.unit.is_up is not None and not each.was_up and each.child is not None:
                each.was_up = each.unit.is_up()
            if not each.is_settled:
                return  # Those that were added later wait for it.

    def _publish(self) -> None:
        if not all(each.is_settled for each in self._running.values()) and self._published is None:
            return
        pids = {name: each.child.pid for name, each in self._running.items() if each.child is not None}
        if pids != self._published:
            self._published = pids
            self.publish({name: each.unit for name, each in self._running.items()}, pids)

    def _stop_all(self) -> None:
        """Rank by rank; a second signal ends all that is left at once."""
        asked = max(self._stop_requests, 1)
        alive = [(each.unit, each.child) for each in self._running.values() if each.child is not None]
        for rank in sorted({unit.stop_rank for unit, _ in alive}):
            group = [(unit, child) for unit, child in alive if unit.stop_rank == rank]
            if self._stop_requests <= asked:
                self.say("stopping " + ", ".join(unit.name for unit, _ in group))
                for _, child in group:
                    child.terminate()
            self._wait_or_kill(group, asked)
        self.publish({}, {})

    def _wait_or_kill(self, group: list[tuple[Unit, Child]], asked: int) -> None:
        deadline = time.monotonic() + max(unit.stop_s_max for unit, _ in group)
        while any(child.exit_code() is None for _, child in group):
            if self._stop_requests > asked or time.monotonic() > deadline:
                for unit, child in group:
                    if child.exit_code() is None:
                        self.say(f"{unit.name} (pid {child.pid}) has not stopped by itself and is ended")
                        child.kill()
                return
            time.sleep(0.02)
