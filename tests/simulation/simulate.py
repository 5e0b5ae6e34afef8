"""`make simulate SEEDS=10000`: many seeds on all cores, with what was injected, how fast, and what failed.

Exits with 1 when a seed failed or a kind of fault never came; what failed is printed with the fewest faults that show it.
"""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.faults import KINDS
from tests.simulation.seeds import pool, run_seeds

SAID_EVERY_S = 30.0
SHOWN_MAX = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    asked = parser.parse_args()
    injected, failed = Counter[str](), list[int]()
    checked = excused = again = done = 0
    began_s = said_s = time.monotonic()
    with pool() as processes:
        for verdict in run_seeds(processes, range(asked.first, asked.first + asked.seeds)):
            done += 1
            injected += verdict.injected
            checked += verdict.completions_checked
            excused += verdict.completions_excused
            again += verdict.billed_again
            if verdict.violations:
                failed.append(verdict.seed)
                print(verdict if len(failed) <= SHOWN_MAX else f"seed {verdict.seed} failed too", flush=True)
            now_s = time.monotonic()
            if now_s - said_s > SAID_EVERY_S:
                said_s = now_s
                print(f"{done} seeds, {len(failed)} failed, {done / (now_s - began_s):.1f}/s", flush=True)
    took_s = time.monotonic() - began_s
    print(f"{done} seeds in {took_s:.0f} s, {done / took_s:.1f}/s; failed: {failed or 'none'}")
    print(f"{checked} completions checked against the store, {excused} excused; {again} texts billed again")
    width = max(map(len, KINDS))
    for kind in KINDS:
        print(f"  {kind:{width}} {injected[kind]}")
    missing = sorted(set(KINDS) - set(injected))
    if missing:
        print(f"never came: {', '.join(missing)}")
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
