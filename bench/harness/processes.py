"""What /proc says of processes and their children: memory and processor time. Linux only, as the benches are."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def with_children(pid: int) -> list[int]:
    """The process and all that descend from it and live."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # gone in between
                found += map(int, children.read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """User and system seconds of the process, of its children that live, and of those that it has buried."""
    total = 0
    for each in with_children(pid):
        if (stat := _stat(each)) is not None:
            total += sum(int(value) for value in stat[11:15])
    return total * _TICK_S


def age_s(pid: int) -> float | None:
    """Seconds since the process was born; None when it is gone."""
    stat = _stat(pid)
    return None if stat is None else time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) * _TICK_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    rss_kb: int
    anonymous_kb: int


def memory_of(pid: int) -> Memory | None:
    """Of the process and its children; None when it is gone."""
    rss = anonymous = 0
    is_there = False
    for each in with_children(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        is_there = True
        for line in text.splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                rss += int(rest.split()[0])
            elif name == "Anonymous":
                anonymous += int(rest.split()[0])
    return Memory(rss_kb=rss, anonymous_kb=anonymous) if is_there else None


@dataclass(slots=True)
class MemorySeries:
    """Start, peak and end of one process."""

    start: Memory | None = None
    end: Memory | None = None
    rss_kb_peak: int = 0
    anonymous_kb_peak: int = 0

    def add(self, memory: Memory) -> None:
        self.start = self.start or memory
        self.end = memory
        self.rss_kb_peak = max(self.rss_kb_peak, memory.rss_kb)
        self.anonymous_kb_peak = max(self.anonymous_kb_peak, memory.anonymous_kb)


@dataclass(slots=True)
class MemorySampler:
    """Looks four times a second at processes by name; `pids` is asked anew each time, for they may be restarted."""

    pids: Callable[[], dict[str, int]]
    together: tuple[str, ...]
    """Those whose sum at one moment counts."""
    series: dict[str, MemorySeries] = field(default_factory=dict)
    together_anonymous_kb_peak: int = 0
    together_rss_kb_peak: int = 0
    seen_pids: dict[str, set[int]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        anonymous = rss = 0
        for name, pid in self.pids().items():
            if (memory := memory_of(pid)) is None:
                continue
            self.seen_pids.setdefault(name, set()).add(pid)
            self.series.setdefault(name, MemorySeries()).add(memory)
            if name in self.together:
                anonymous += memory.anonymous_kb
                rss += memory.rss_kb
        self.together_anonymous_kb_peak = max(self.together_anonymous_kb_peak, anonymous)
        self.together_rss_kb_peak = max(self.together_rss_kb_peak, rss)

    @property
    def restart_count(self) -> int:
        return sum(len(pids) - 1 for pids in self.seen_pids.values())

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self.sample()
            due += 0.25
            self._stop.wait(max(0.0, due - time.monotonic()))
