"""`python -m tests.faults.run [--seed N] [--keep] [FAULT…]`: each fault on a stack of its own, then what came of it.

Exit code 1 when an invariant is broken, an import does not end, or fewer faults were injected than planned. The seed is
printed first; the same seed draws the same victims and places again.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import commands, deaths, inputs, named_points, provider_answers, store_faults, surroundings
from tests.faults.catalogue import CATALOGUE, Fault, short_of
from tests.faults.world import World

REGISTERED = (commands, deaths, inputs, named_points, provider_answers, store_faults, surroundings)


@dataclass(slots=True, kw_only=True)
class Row:
    name: str
    planned: int
    injected: int = 0
    deaths: int = 0
    repeats: int = 0
    bill: str = ""
    finished_in_s: float | None = None
    peak_mb: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


def run(fault: Fault, seed: int, folder: Path) -> Row:
    started = time.monotonic()
    row = Row(name=fault.name, planned=sum(fault.planned.values()))
    print(f"\n== {fault.name}: {fault.title} (seed {seed})", flush=True)
    world = World(folder, seed, **fault.stack)
    try:
        with world:
            fault.inject(world)
            world.finish()
    except Exception as error:  # noqa: BLE001 - one fault that cannot be judged must not hide the others
        traceback.print_exc()
        row.broken.append(f"the run ended with {type(error).__name__}")
    else:
        _judged(row, json.loads((folder / "findings.json").read_text()))
        row.finished_in_s = world.finished_in_s
    row.broken += world.broken + list(short_of(fault.planned, world.injected))
    row.injected, row.deaths = world.injected.total(), len(world.deaths)
    row.seconds = time.monotonic() - started
    print(f"   injected {dict(world.injected)} {world.numbers or ''}")
    for line in (*world.broken, *short_of(fault.planned, world.injected)):
        print(f"   BROKEN {line}")
    return row


def _judged(row: Row, findings: list[dict[str, Any]]) -> None:
    by_name = {one["name"]: one for one in findings}
    row.broken += [f"{one['name']}: {one['broken'][0]}" for one in findings if one["broken"]]
    bill = by_name["I5"]["numbers"]
    row.bill = f"{bill['billed']}/{bill['distinct']}≤{bill['bound']}"
    row.repeats = by_name["I6"]["numbers"]["repeats"]
    row.peak_mb = by_name["I9"]["numbers"]["peak_mb"]


def show(rows: list[Row]) -> None:
    head = (
        "fault",
        "planned",
        "injected",
        "deaths",
        "repeats",
        "billed/distinct≤bound",
        "ends in s",
        "MB",
        "took s",
        "",
    )
    print("\n" + "{:6}{:>8}{:>9}{:>7}{:>8}  {:24}{:>9}{:>5}{:>7}  {}".format(*head))
    for row in rows:
        end = "-" if row.finished_in_s is None else f"{row.finished_in_s:.1f}"
        verdict = f"BROKEN: {row.broken[0]}"[:160] if row.broken else "ok"
        print(
            f"{row.name:6}{row.planned:>8}{row.injected:>9}{row.deaths:>7}{row.repeats:>8}  {row.bill:24}"
            f"{end:>9}{row.peak_mb:>5}{row.seconds:>7.0f}  {verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(CATALOGUE))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument(
        "--keep", action="store_true", help="leave the folders of all runs, not of broken ones alone"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or its processes would stay
    if unknown := [name for name in arguments.faults if name not in CATALOGUE]:
        parser.error(f"there is no {', '.join(unknown)}")
    names = arguments.faults or sorted(CATALOGUE, key=lambda name: int(name.removeprefix("F")))
    chosen = [CATALOGUE[name] for name in names]
    scratch = Path(tempfile.mkdtemp(prefix="paperlog-faults-"))
    print(f"seed {arguments.seed}; in {scratch}")
    rows = []
    for fault in chosen:
        folder = scratch / fault.name
        rows.append(run(fault, arguments.seed, folder))
        if not rows[-1].broken and not arguments.keep:
            shutil.rmtree(folder)
    show(rows)
    if not arguments.keep and not any(row.broken for row in rows):
        shutil.rmtree(scratch)
    return int(any(row.broken for row in rows))


if __name__ == "__main__":
    sys.exit(main())
