"""Resident and anonymous memory of each service, children included, at start, peak and end of what asks most of it.

`python bench/memory.py [CASE …] [--no-limit]`: each case in a stack of its own, the three services together in one
memory cgroup of 512 MB where this machine lets us make one (anonymous memory cannot be dropped, so the figures are
those without a limit; what the limit shows is that nobody is ended). The provider is a fake of 1536 dimensions and
200 ms; the broker is measured apart. All of them take most of an hour on two cores.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cgroup import Cgroup, memory_limited
from harness.corpus import write_corpus
from harness.finished_history import MODEL as HISTORY_MODEL
from harness.finished_history import write_history
from harness.processes import MemorySampler
from harness.report import megabytes, print_head, print_step, print_table, save
from harness.sealing import longest_pause
from harness.stack import (
    OPENAI_SPACE,
    SERVICES,
    BenchFailed,
    Provider,
    Stack,
    fake_provider,
    running_stack,
    scratch,
    wait_until,
)
from harness.zotero import write_zotero
from replay import record_counts

from eventlog.topics import EMBEDDINGS

LATENCY_MS = 200
LIMIT_BYTES = 512 * 1024 * 1024
TOGETHER_KB_MAX = 300 * 1024
GROWTH_KB_MAX = 10 * 1024
GROWTH_BETWEEN = ("20000", "100000")
BACKLOG = 100_000
HISTORY_EVENTS = 1_000_000
ZOTERO_BYTES = 70_000_000
ZOTERO_CHUNKS = 20_000
"""Stored, then the import is cancelled: the library is known whole by then, and what is left goes like every import."""
AT_ONCE = 50
PATIENCE_S = 3_600.0


@dataclass(slots=True, kw_only=True)
class Run:
    """One case: its folder, and the stack that it starts and stops while somebody looks at the memory."""

    folder: Path
    provider: Provider
    cgroup: Cgroup | None
    facts: dict[str, Any] = field(default_factory=dict)
    ended_by_us: int = 0
    samplers: list[MemorySampler] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def stack(self, on: ExitStack, embedding: str = OPENAI_SPACE, *, from_start: bool = False) -> Stack:
        """Watched from its being ready on, or from its start."""
        running = running_stack(
            self.data,
            embedding=embedding,
            provider=self.provider,
            cgroup=self.cgroup,
            ready_s_max=PATIENCE_S,
        )
        watched = Stack(data=self.data, provider=self.provider)
        self.samplers.append(MemorySampler(watched.pids, together=SERVICES))
        if from_start:
            on.enter_context(self.samplers[-1])
            return on.enter_context(running)
        stack = on.enter_context(running)
        on.enter_context(self.samplers[-1])
        return stack


def imports(size: int) -> Callable[[Run], None]:
    def run(run: Run) -> None:
        write_corpus(run.folder / "corpus", size)
        with ExitStack() as on:
            run.facts["chunks"] = (
                run.stack(on).import_folder(run.folder / "corpus", "memory", "text").chunk_count
            )

    return run


def backlog(run: Run) -> None:
    """The writer stands still while everything else is done; the one that takes its place catches up."""
    write_corpus(run.folder / "corpus", BACKLOG)
    with ExitStack() as on:
        stack = run.stack(on)
        writer = stack.pids()["graph-writer"]
        os.kill(writer, signal.SIGSTOP)
        import_id = stack.ask_for(run.folder / "corpus", "memory", "text")

        def is_all_embedded() -> bool:
            status = stack.status(import_id)
            run.facts["chunks"] = status["chunks"]["total"]
            is_parsed = bool(status["documents"]["parsed"] == status["documents"]["found"])
            return is_parsed and embedded_count(stack) >= int(status["chunks"]["total"])

        wait_until("the embedding of a backlog", is_all_embedded, PATIENCE_S, every_s=2.0)
        os.kill(writer, signal.SIGKILL)
        run.ended_by_us = 1
        stack.wait(import_id, PATIENCE_S)


def embedded_count(stack: Stack) -> int:
    return asyncio.run(record_counts(stack.kafka))[EMBEDDINGS]


def history(run: Run) -> None:
    """Everything local is lost: each service reads all of it again."""
    run.facts["chunks"] = write_history(run.data / "kafka", HISTORY_EVENTS)
    with ExitStack() as on:
        began = time.monotonic()
        run.stack(on, HISTORY_MODEL, from_start=True)
        run.facts["rebuilt_s"] = round(time.monotonic() - began, 1)
    with ExitStack() as on:
        began = time.monotonic()
        run.stack(on, HISTORY_MODEL, from_start=True)
        run.facts["started_s"] = round(time.monotonic() - began, 1)


def zotero(run: Run) -> None:
    run.facts["items"] = write_zotero(run.folder / "library" / "library.rdf", ZOTERO_BYTES)
    with ExitStack() as on:
        stack = run.stack(on)
        import_id = stack.ask_for(run.folder / "library", "memory", "zotero_rdf")
        wait_until(
            "the storing of a library",
            lambda: stack.status(import_id)["chunks"]["stored"] >= ZOTERO_CHUNKS,
            PATIENCE_S,
            every_s=2.0,
        )
        stack.cancel(import_id)
        run.facts["chunks"] = stack.wait(import_id)["chunks"]["stored"]


def at_once(run: Run) -> None:
    for number in range(AT_ONCE):
        write_corpus(run.folder / f"corpus-{number}", 200 + number)
    with ExitStack() as on:
        stack = run.stack(on)
        asked = [
            stack.ask_for(run.folder / f"corpus-{number}", f"memory {number}", "text")
            for number in range(AT_ONCE)
        ]
        run.facts["chunks"] = sum(stack.wait(each, PATIENCE_S)["chunks"]["total"] for each in asked)


CASES: dict[str, Callable[[Run], None]] = {
    **{str(size): imports(size) for size in (1_000, 10_000, 20_000, 100_000)},
    "backlog": backlog,
    "history": history,
    "zotero": zotero,
    "at-once": at_once,
}
SEALING = "sealing"


def measure(name: str, *, is_limited: bool) -> dict[str, Any]:
    with (
        scratch() as folder,
        memory_limited(LIMIT_BYTES) if is_limited else nullcontext() as cgroup,
        fake_provider(LATENCY_MS, folder / "ledger.jsonl") as provider,
    ):
        run = Run(folder=folder, provider=provider, cgroup=cgroup)
        began = time.monotonic()
        CASES[name](run)
        deaths = sum(each.restart_count for each in run.samplers) - run.ended_by_us
        result: dict[str, Any] = {
            "case": name,
            **run.facts,
            "seconds": round(time.monotonic() - began, 1),
            "deaths": deaths,
            "together_anonymous_kb_peak": max(each.together_anonymous_kb_peak for each in run.samplers),
            "together_rss_kb_peak": max(each.together_rss_kb_peak for each in run.samplers),
            "services": {
                service: _series([each.series[service] for each in run.samplers])
                for service in sorted(run.samplers[0].series)
            },
        }
        if cgroup is not None:
            result |= {"cgroup_peak_bytes": cgroup.peak_bytes, "oom_kills": cgroup.oom_kill_count}
        return result


def _series(several: list[Any]) -> dict[str, list[int]]:
    """Start, peak and end in kB."""
    return {
        kind: [
            int(getattr(several[0].start, kind)),
            max(getattr(each, f"{kind}_peak") for each in several),
            int(getattr(several[-1].end, kind)),
        ]
        for kind in ("rss_kb", "anonymous_kb")
    }


def show(results: list[dict[str, Any]]) -> None:
    rows = [
        [each["case"], name, *(megabytes(kb) for kb in (*values["rss_kb"], *values["anonymous_kb"]))]
        for each in results
        for name, values in each["services"].items()
    ]
    print_table(
        ["case", "process", "rss start", "peak", "end", "anon start", "peak", "end"],
        rows,
    )
    print("\nMB; the three services together at their highest moment:")
    print_table(
        ["case", "chunks", "seconds", "anon", "rss", "deaths", "oom kills"],
        [
            [
                each["case"],
                each["chunks"],
                each["seconds"],
                megabytes(each["together_anonymous_kb_peak"]),
                megabytes(each["together_rss_kb_peak"]),
                each["deaths"],
                each.get("oom_kills", "no limit"),
            ]
            for each in results
        ],
    )


def judge(results: list[dict[str, Any]]) -> bool:
    is_kept = True

    def say(what: str, is_so: bool, figure: str) -> None:
        nonlocal is_kept
        is_kept = is_kept and is_so
        print(f"{what}: {'kept' if is_so else 'NOT kept'} ({figure})")

    print()
    by_name = {each["case"]: each for each in results}
    for name, each in by_name.items():
        highest = each["together_anonymous_kb_peak"]
        say(
            f"{name}: ≤ {megabytes(TOGETHER_KB_MAX)} MB anonymous together",
            highest <= TOGETHER_KB_MAX,
            f"{megabytes(highest)} MB",
        )
        if "oom_kills" in each:
            is_alive = not each["deaths"] and not each["oom_kills"]
            say(f"{name}: alive in {LIMIT_BYTES >> 20} MB", is_alive, f"{each['oom_kills']} ended")
    if by_name.keys() >= set(GROWTH_BETWEEN):
        for service in SERVICES:
            few, many = (by_name[name]["services"][service]["anonymous_kb"][1] for name in GROWTH_BETWEEN)
            say(
                f"{service}: growth from {' to '.join(GROWTH_BETWEEN)} chunks ≤ {megabytes(GROWTH_KB_MAX)} MB",
                many - few <= GROWTH_KB_MAX,
                f"{(many - few) / 1024:+.1f} MB",
            )
    return is_kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [*CASES, SEALING]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(names)}; all without one")
    parser.add_argument("--no-limit", action="store_true", help="without the cgroup")
    args = parser.parse_args()
    if unknown := set(args.cases) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    print_head("memory of the services")
    chosen = args.cases or names
    results: list[dict[str, Any]] = []
    extra: dict[str, Any] = {}
    for name in chosen:
        print_step(name)
        try:
            if name == SEALING:
                extra[SEALING] = longest_pause()
            else:
                results.append(measure(name, is_limited=not args.no_limit))
        except BenchFailed as failed:
            print(f"{name} was not measured: {failed}", file=sys.stderr)
    if results and not args.no_limit and "oom_kills" not in results[0]:
        print("this machine lets us make no memory cgroup: measured without a limit")
    show(results)
    is_kept = judge(results) and len(results) + len(extra) == len(chosen)
    for each in extra.values():
        print(
            f"sealing on a re-import in shuffled order of {each['points']:,} points: longest pause {each['pause_ms_max']} ms"
        )
    print(f"\n{save('memory', {'cases': results, **extra}).relative_to(Path(__file__).parents[1])}")
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
