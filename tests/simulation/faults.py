"""What goes wrong, and when: faults drawn from the seed as a plan, so that a failing run can be tried with fewer.

Each fault waits for a count, of steps, appends, requests and so on, to reach its number, so that dropping one leaves
the others where they were as far as the run allows.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

INGEST = ("ingest-a", "ingest-b")
EMBEDDERS = ("embedder-a", "embedder-b")
WRITERS = ("graph-writer-a", "graph-writer-b")
"""Where the store is embedded, only the first: it has one owner."""


def has_server(seed: int) -> bool:
    """Whether the store is a server that two writers share, in one world of four."""
    return seed % 4 == 3


def processes_of(seed: int) -> tuple[str, ...]:
    return (*INGEST, *EMBEDDERS, *(WRITERS if has_server(seed) else WRITERS[:1]))


KINDS: Mapping[str, tuple[str, float]] = {
    # kind: what is counted until it comes, and how often it is drawn beside the others
    "kill": ("steps", 4.0),
    "kill and wipe": ("steps", 1.5),
    "stop": ("steps", 1.0),
    "refuse append": ("append", 1.0),
    "lose ack": ("append", 1.5),
    "slow write": ("append", 1.5),
    "kill sender": ("append", 1.0),
    "write twice": ("append", 1.0),
    "garble": ("append", 1.0),
    "refuse commit": ("commit", 0.7),
    "lose commit": ("commit", 1.5),
    "stop decider": ("commit", 1.0),
    "lose offsets": ("offsets", 1.0),
    "broker away": ("second", 0.7),
    "poison": ("second", 1.0),
    "rate limited": ("request", 1.0),
    "quota": ("request", 0.4),
    "misconfigured": ("request", 0.3),
    "unavailable": ("request", 1.0),
    "late answer": ("request", 1.5),
    "bad answer": ("request", 1.0),
    "store away": ("store", 1.0),
    "store lost": ("store", 0.7),
    "store restored": ("store", 1.5),
    "reassign": ("batch", 0.7),
    "stop writer": ("look", 0.0),  # drawn apart, for servers alone
}
FAULTS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: str
    at: int
    who: str = ""
    seconds: float = 0.0

    @property
    def counted(self) -> tuple[str, str]:
        return KINDS[self.kind][0], self.who if self.kind in ("kill", "kill and wipe", "stop") else ""

    def __str__(self) -> str:
        who = f" {self.who}" if self.who else ""
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind}{who} at {KINDS[self.kind][0]} {self.at}{lasts}"


def draw_faults(seed: int, counts: Mapping[tuple[str, str], int]) -> list[Fault]:
    """`counts` are those of the undisturbed run: a fault comes within it, or a little later."""
    chance = random.Random(f"faults {seed}")
    kinds = chance.choices(
        list(KINDS), [weight for _, weight in KINDS.values()], k=chance.randint(1, FAULTS_MAX)
    )
    faults = [_draw(kind, seed, chance, counts) for kind in kinds]
    # What a process holds and the log has not is lost with it: so it dies then, more often than chance would have it.
    held = [one for one in faults if one.kind in ("slow write", "refuse append") and chance.random() < 0.5]
    # Who was stopped has not heard what the other decided, and leads at once where the other is dead by then.
    unheard = [one for one in faults if one.kind == "stop" and one.who in INGEST and chance.random() < 0.5]
    # Of two writers one that stands still behind a look, and goes on when the other has read on in its place.
    if has_server(seed) and chance.random() < 0.5:
        stop = Fault(kind="stop writer", at=0, seconds=chance.choice([12.0, 20.0]))
        faults.append(replace(stop, at=_when(stop, chance, counts)))
    return [
        *faults,
        *(replace(one, kind="kill sender", seconds=one.seconds / 2) for one in held),
        *(_death_of_the_other(one, chance, counts) for one in unheard),
    ]


def _death_of_the_other(stop: Fault, chance: random.Random, counts: Mapping[tuple[str, str], int]) -> Fault:
    """About when the one is stopped, or a little later."""
    death = replace(stop, kind="kill", who=next(one for one in INGEST if one != stop.who))
    share = stop.at / counts.get(stop.counted, 20)
    return replace(death, at=max(1, int(share * chance.uniform(0.9, 1.3) * counts.get(death.counted, 20))))


def _draw(kind: str, seed: int, chance: random.Random, counts: Mapping[tuple[str, str], int]) -> Fault:
    fault = Fault(kind=kind, at=0, seconds=round(chance.uniform(0.1, 3.0), 2))
    if kind in ("kill", "kill and wipe"):
        fault = replace(fault, who=chance.choice(processes_of(seed)))
    elif kind == "stop":
        stoppable = [*INGEST, *EMBEDDERS, *(WRITERS if has_server(seed) else ())]
        fault = replace(fault, who=chance.choice(stoppable), seconds=chance.choice([3.0, 12.0, 20.0]))
    elif kind == "stop decider":
        fault = replace(fault, seconds=chance.choice([12.0, 20.0]))
    elif kind == "poison":
        fault = replace(fault, who=chance.choice(["import-requests", "imports", "chunks", "embeddings"]))
    elif kind == "broker away":
        fault = replace(fault, seconds=round(chance.uniform(0.5, 15.0), 1))
    return replace(fault, at=_when(fault, chance, counts))


def _when(fault: Fault, chance: random.Random, counts: Mapping[tuple[str, str], int]) -> int:
    return chance.randint(1, max(2, int(1.2 * counts.get(fault.counted, 20))))


class Plan:
    """Counts what happens; `meet` says which faults come now. Healed, none comes any more."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._waiting: dict[tuple[str, str], list[Fault]] = defaultdict(list)
        for fault in faults:
            self._waiting[fault.counted].append(fault)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.injected: list[Fault] = []
        self.is_healed = False

    @property
    def is_waiting(self) -> bool:
        return any(self._waiting.values())

    def meet(self, counter: str, who: str = "") -> list[Fault]:
        key = (counter, who)
        self.counts[key] += 1
        waiting = self._waiting.get(key)
        if not waiting or self.is_healed:
            return []
        due = [one for one in waiting if one.at <= self.counts[key]]
        if due:
            self._waiting[key] = [one for one in waiting if one not in due]
            self.injected += due
        return due
