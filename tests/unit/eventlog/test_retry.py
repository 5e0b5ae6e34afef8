"""How long to wait, as numbers."""

import pytest

from eventlog.clock import ManualClock, SystemClock
from eventlog.retry import RetryPolicy

POLICY = RetryPolicy(attempts_max=5, backoff_s_first=0.5, backoff_s_max=30.0, retry_after_s_max=600.0)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10_000, 30.0)]
)
def test_the_wait_doubles_up_to_a_ceiling(attempt: int, seconds: float):
    assert POLICY.backoff_s(attempt) == seconds


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_jitter_moves_the_wait_by_a_quarter_at_most(jitter: float, factor: float):
    assert POLICY.backoff_s(3, jitter=jitter) == 2.0 * factor


@pytest.mark.parametrize(("asked", "seconds"), [(0.0, 0.0), (120.0, 120.0), (10_000.0, 600.0), (-5.0, 0.0)])
def test_retry_after_wins_up_to_a_ceiling(asked: float, seconds: float):
    assert POLICY.backoff_s(1, retry_after_s=asked, jitter=1.0) == seconds


def test_an_attempt_below_one_counts_as_the_first():
    assert POLICY.backoff_s(0) == POLICY.backoff_s(1)


def test_a_manual_clock_moves_only_when_told_and_both_ways_at_once():
    clock = ManualClock(SystemClock().now())
    start, before = clock.now(), clock.monotonic_s()
    assert clock.now() == start
    clock.advance(1.5)
    assert (clock.now() - start).total_seconds() == 1.5
    assert clock.monotonic_s() - before == 1.5
