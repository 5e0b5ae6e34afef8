"""P1 to P4 and P6 under whatever a seed draws, over the real services on one virtual clock; see `world`.

`make simulate SEEDS=10000` runs more of the same.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulation.faults import KINDS, Fault
from tests.simulation.seeds import Pool, Verdict, pool, run_seed, run_seeds

SEEDS = 200
DIES_S_MAX = 60.0


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    with pool() as made:
        yield made


@pytest.fixture(scope="module")
def verdicts(processes: Pool) -> list[Verdict]:
    return list(run_seeds(processes, range(SEEDS)))


@pytest.mark.timeout(600)
def test_whatever_happens_nothing_is_lost_paid_twice_or_said_too_early(verdicts: list[Verdict]) -> None:
    failed = [one for one in verdicts if one.violations]
    assert not failed, f"{len(failed)} of {SEEDS} seeds, the first:\n{failed[0]}"


def test_every_kind_of_fault_came_and_completions_were_looked_at(verdicts: list[Verdict]) -> None:
    injected = sum((one.injected for one in verdicts), Counter[str]())
    assert set(injected) == set(KINDS)
    checked = sum(one.completions_checked for one in verdicts)
    assert checked > 50 * sum(one.completions_excused for one in verdicts)


def test_the_same_seed_is_the_same_run_in_every_process(processes: Pool, verdicts: list[Verdict]) -> None:
    """Also where strings have other hashes and objects other addresses."""
    for seed in (0, 7, 8):
        assert run_seed(seed).trace == verdicts[seed].trace


def test_a_fault_more_is_another_run(verdicts: list[Verdict]) -> None:
    more = run_seed(3, [*verdicts[3].faults, Fault(kind="kill", who="ingest-a", at=5)])
    assert more.trace != verdicts[3].trace
    assert not more.violations


def test_the_workers_of_a_killed_run_die_with_it() -> None:
    program = """
import os, time
from tests.simulation.seeds import pool
with pool() as made:
    print(made.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + DIES_S_MAX
    while _is_alive(worker):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
