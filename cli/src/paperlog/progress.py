"""What a status means to a person: the words for states and waits, the pace, the live display, the last sentence.

The display goes to stderr: a bar where that is a terminal, otherwise a line whenever something has changed.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from paperlog.failures import FAILED, WITH_REJECTIONS
from paperlog.plain import one_line
from paperlog.service import Json

STATES = {
    "accepted": "accepted",
    "parsing": "reading",
    "embedding": "embedding",
    "completed": "completed",
    "completed_with_rejections": "completed with rejected items",
    "cancelled": "cancelled",
    "failed": "failed",
}
WAITS = {
    "provider_quota": "the provider says that the quota is used up or that we ask too often; it is tried again",
    "provider_down": "the provider does not answer; it is tried again",
    "provider_config": "the provider refuses key or model; set the right one and start Paperlog again",
    "store_down": "the store does not answer; it is tried again",
    "dead_letters": "records could not be processed; an operator must look at the dead letters",
    "no_embedder": "no embedder runs for this project's model; start one (`paperlog up --embedding MODEL`)",
}
EXIT_CODES = {
    "completed": 0,
    "completed_with_rejections": WITH_REJECTIONS,
    "cancelled": FAILED,
    "failed": FAILED,
}
_WINDOW_S = 15.0


def count_of(status: Json, group: str, name: str) -> int:
    counts = status.get(group)
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) else 0


def settled_count(status: Json) -> int:
    return sum(
        count_of(status, "chunks", name) for name in ("stored", "rejected", "dead_lettered", "superseded")
    )


def waiting_words(status: Json) -> str:
    code = status.get("waiting")
    return "" if code is None else WAITS.get(str(code), one_line(code))


def problem_words(status: Json) -> str:
    problem = status.get("problem")
    if isinstance(problem, dict):
        parts = (problem.get(key) for key in ("title", "message", "detail", "action"))
        return ". ".join(one_line(part).rstrip(".") for part in parts if part)
    return one_line(problem)


@dataclass(slots=True)
class Pace:
    """Chunks per second over the last seconds, and how long the rest will take at that pace."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, at_s: float, settled: int) -> None:
        self._seen.append((at_s, settled))
        while len(self._seen) > 2 and at_s - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (start_s, before), (end_s, after) = self._seen[0], self._seen[-1]
        return max(0.0, (after - before) / (end_s - start_s)) if end_s > start_s else 0.0

    def eta_s(self, status: Json) -> float | None:
        """None as long as the number of chunks is not final, where nothing moves, and where no chunk is left."""
        rest = count_of(status, "chunks", "total") - settled_count(status)
        if status.get("state") != "embedding" or status.get("waiting") or self.per_s == 0 or rest <= 0:
            return None
        return rest / self.per_s


def duration_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counts_words(status: Json, pace: Pace) -> str:
    parts = [
        f"papers {count_of(status, 'documents', 'stored'):,}/{count_of(status, 'documents', 'found'):,}",
        f"chunks {settled_count(status):,}/{count_of(status, 'chunks', 'total'):,}",
    ]
    if rejected := count_of(status, "documents", "rejected") + count_of(status, "chunks", "rejected"):
        parts.append(f"rejected {rejected}")
    if pace.per_s:
        parts.append(f"{pace.per_s:,.0f}/s")
    if (eta_s := pace.eta_s(status)) is not None:
        parts.append(f"about {duration_words(eta_s)} left")
    return "  ".join(parts)


def follow(
    statuses: Iterable[Json], console: Console, *, clock: Callable[[], float] = time.monotonic
) -> Json | None:
    """Shows each status; returns the last one."""
    show = _bar if console.is_terminal else _lines
    return show(statuses, console, clock)


class _Bar(Progress):
    """One line of figures, and below it in full why nothing moves, for that is what a person has to act upon."""

    waiting = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.waiting:
            yield Text(f"waiting: {self.waiting}", style="yellow")


def _bar(statuses: Iterable[Json], console: Console, clock: Callable[[], float]) -> Json | None:
    pace, last = Pace(), None
    columns = (
        TextColumn("{task.fields[state]}", style="bold", markup=False, table_column=Column(min_width=9)),
        BarColumn(bar_width=24, table_column=Column(min_width=4)),
        TaskProgressColumn(table_column=Column(min_width=4)),
        TextColumn("{task.fields[counts]}", markup=False, table_column=Column(overflow="fold")),
    )
    with _Bar(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0, state="", counts="")
        for last in statuses:
            pace.add(clock(), settled_count(last))
            progress.waiting = waiting_words(last)
            state, counts = _state(last), counts_words(last, pace)
            progress.update(task, completed=_progress(last), state=state, counts=counts, refresh=True)
    return last


def _lines(statuses: Iterable[Json], console: Console, clock: Callable[[], float]) -> Json | None:
    pace, last, said = Pace(), None, None
    for last in statuses:
        pace.add(clock(), settled_count(last))
        # Each tenth part, and whenever the state or the reason to wait is another.
        now = (last.get("state"), last.get("waiting"), int(_progress(last) * 10))
        if now != said:
            said = now
            line = f"{_state(last)}  {_progress(last):.0%}  {counts_words(last, pace)}"
            if words := waiting_words(last):
                line += f"  waiting: {words}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return last


def _state(status: Json) -> str:
    state = str(status.get("state"))
    return STATES.get(state, one_line(state))


def _progress(status: Json) -> float:
    value = status.get("progress")
    return min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else 0.0


def summary(status: Json) -> str:
    """One sentence, and one more with the reason where it has not simply completed."""
    stored, reused = count_of(status, "chunks", "stored"), count_of(status, "chunks", "reused")
    text = (
        f"{_state(status)}: {_counted(count_of(status, 'documents', 'stored'), 'paper')},"
        f" {_counted(stored, 'chunk')} stored"
    )
    if reused:
        text += f" ({reused:,} with a vector that was there already)"
    if merged := count_of(status, "documents", "merged"):
        text += f", {merged} merged"
    for group, word in (("documents", "item"), ("chunks", "chunk")):
        if rejected := count_of(status, group, "rejected"):
            text += f", {_counted(rejected, word)} rejected"
    if dead := count_of(status, "chunks", "dead_lettered"):
        text += f", {_counted(dead, 'chunk')} in the dead letters"
    tokens: Any = status.get("tokens_billed")
    text += f"; {tokens:,} tokens billed." if isinstance(tokens, int) and tokens else "; nothing billed."
    if problem := problem_words(status):
        text += f"\n{problem}"
    return text


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
