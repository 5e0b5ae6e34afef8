"""How fast requests follow one another after a limit: what was answered says it, and time finds out whether it is more."""

import pytest

from embedder.core import LATE_S_MAX, Pace, is_free, pace_after, take_turn


def pace(**changes: float) -> Pace:
    return Pace(**({"per_s": 10.0, "since_s": 100.0, "next_s": 100.0, "at_once_count": 0} | changes))  # type: ignore[arg-type] - fields by name


def turns_s(one: Pace, *, at_s: float, count: int) -> list[float]:
    found = []
    for _ in range(count):
        one, turn_s = take_turn(one, at_s)
        found.append(turn_s)
    return found


def test_the_rate_is_what_was_answered_with_the_pause_counted() -> None:
    found = pace_after(answered_count=30, began_s=90.0, paused_s=98.0, at_s=100.0, requests_max=96)
    assert (found.per_s, found.at_once_count) == (3.0, 12)


def test_a_first_limit_at_the_first_request_still_has_a_rate() -> None:
    """Answers to requests from before may come while nothing is counted yet."""
    found = pace_after(answered_count=0, began_s=100.0, paused_s=100.0, at_s=100.0, requests_max=3)
    assert found.per_s > 0
    assert found.at_once_count == 0


def test_some_go_at_once_and_the_others_one_after_the_other() -> None:
    assert turns_s(pace(at_once_count=2), at_s=100.0, count=5) == pytest.approx(
        [100.0, 100.0, 100.0, 100.1, 100.2]
    )


def test_who_comes_a_little_late_makes_up_for_it_and_who_comes_much_later_does_not() -> None:
    assert turns_s(pace(), at_s=100.0 + LATE_S_MAX, count=2)[0] == pytest.approx(100.0)
    # An hour without requests is no reason for an hour's requests at once.
    late = turns_s(pace(), at_s=3700.0, count=3)
    assert late[0] == pytest.approx(3700.0 - LATE_S_MAX)


def test_the_pace_grows_while_no_limit_is_met() -> None:
    first, second = turns_s(pace(next_s=130.0), at_s=130.0, count=2)
    assert 0.05 < second - first < 0.06


def test_a_minute_without_a_limit_ends_it() -> None:
    assert not is_free(pace(), 160.0)
    assert is_free(pace(), 160.1)
