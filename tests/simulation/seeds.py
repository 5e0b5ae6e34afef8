"""One seed from its story to its verdict, the shortest list of faults under which it still fails, and many seeds."""

import gc
import logging
import multiprocessing
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.faults import Fault, draw_faults
from tests.simulation.story import draw_story
from tests.simulation.world import Outcome, play

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""SQLite's files are the larger part of what a seed costs on a disk."""
_AT_ONCE = 4
UNDISTURBED = "undisturbed: "
"""Before what a run without any fault has broken."""


@dataclass
class Verdict:
    seed: int
    faults: list[Fault]
    violations: list[str]
    trace: list[str]
    injected: Counter[str] = field(default_factory=Counter)
    billed_again: int = 0
    completions_excused: int = 0
    completions_checked: int = 0

    def __str__(self) -> str:
        faults = "\n".join(f"  {one}" for one in self.faults) or "  none"
        trace = "\n".join(self.trace)
        broken = "\n".join(f"  {one}" for one in self.violations)
        return f"seed {self.seed}\nbroken:\n{broken}\nunder these faults:\n{faults}\nevents:\n{trace}"


def run_seed(seed: int, faults: Sequence[Fault] | None = None) -> Verdict:
    """Plays the story undisturbed and disturbed, and compares. `faults` takes the place of those that are drawn."""
    story = draw_story(seed)
    with tempfile.TemporaryDirectory(prefix="paperlog-simulation-", dir=_MEMORY) as folder:
        calm = play(story, [], Path(folder) / "calm")
        if calm.violations:
            return Verdict(seed, [], [f"{UNDISTURBED}{one}" for one in calm.violations], calm.trace)
        drawn = draw_faults(seed, calm.counts) if faults is None else list(faults)
        wild = play(story, drawn, Path(folder) / "wild")
    violations = list(wild.violations)
    if not violations and wild.readable != calm.readable:
        violations.append(f"P1: the store is not that of the undisturbed run: {_difference(wild, calm)}")
    return Verdict(
        seed,
        drawn,
        violations,
        wild.trace,
        injected=Counter(one.kind for one in wild.injected),
        billed_again=wild.billed_again,
        completions_excused=wild.completions_excused,
        completions_checked=wild.completions_checked,
    )


def _difference(wild: Outcome, calm: Outcome) -> str:
    found = []
    for name in sorted({*wild.readable, *calm.readable}):
        here, there = wild.readable.get(name, {}), calm.readable.get(name, {})
        found += [
            f"{name} {id_}: {here.get(id_)}, undisturbed {there.get(id_)}"
            for id_ in sorted({*here, *there})
            if here.get(id_) != there.get(id_)
        ]
    return "; ".join(found[:3])


def shrink(verdict: Verdict) -> Verdict:
    """Drops faults one by one for as long as what is left still fails."""
    smallest, is_smaller = verdict, True
    while is_smaller:
        is_smaller = False
        for one in list(smallest.faults):
            fewer = run_seed(verdict.seed, [other for other in smallest.faults if other is not one])
            if fewer.violations:
                smallest, is_smaller = fewer, True
                break
    return smallest


Pool = ProcessPoolExecutor


@contextmanager
def pool() -> Iterator[Pool]:
    """A process for each core; new ones, so that each has another seed for the hashes of its strings."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=context, initializer=_begin) as made:
        yield made


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(logging.CRITICAL)  # what services say of faults is expected
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _end_with_parent() -> None:
    """A parent that was killed tells nobody: its workers would wait for more for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_seeds(made: Pool, seeds: Iterable[int]) -> Iterator[Verdict]:
    """In their order; what failed is already shrunk."""
    return made.map(_run_and_shrink, seeds, chunksize=_AT_ONCE)


def _run_and_shrink(seed: int) -> Verdict:
    verdict = run_seed(seed)
    return shrink(verdict) if verdict.violations else verdict
