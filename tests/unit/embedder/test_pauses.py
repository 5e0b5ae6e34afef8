"""How a provider's failures end: who waits, who tries, what is said of it, and that nothing spins or is lost."""

import asyncio
import itertools
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.embedder.trouble import COUNT, Make, busy, empty, fail_for, library, now_s
from tests.unit.embedder.world import SPACE, Request, World, play

from embedder.models.model import (
    Misconfigured,
    RateLimited,
    Unavailable,
)
from eventlog.events import EmbeddingContinued, EmbeddingPaused, PauseReason


def gaps_s(requests: Sequence[Request]) -> list[float]:
    times = [one.at_s for one in requests]
    return [after - before for before, after in itertools.pairwise(times)]


async def all_went_through(world: World, within_s: float = 120.0) -> None:
    await world.answered(COUNT, within_s)
    assert len(world.embedded()) == COUNT
    assert world.provider.billed == {f"text {number}": 1 for number in range(COUNT)}


def check_said(world: World, reason: PauseReason) -> EmbeddingPaused:
    """One pause and its end, and nothing else."""
    paused, *more = world.said()
    assert isinstance(paused, EmbeddingPaused)
    assert paused.reason is reason
    assert [type(one) for one in more] == [EmbeddingContinued]
    return paused


class Limit:
    """A provider's limit: what one second allows may come at once, and what is refused hears of whole seconds."""

    def __init__(self, texts_per_s: float) -> None:
        self._per_s = texts_per_s
        self._room = texts_per_s
        self._at_s = now_s()
        self.refused = 0

    def __call__(self, texts: Sequence[str]) -> RateLimited | None:
        self._room = min(self._per_s, self._room + (now_s() - self._at_s) * self._per_s)
        self._at_s = now_s()
        if self._room >= len(texts):
            self._room -= len(texts)
            return None
        self.refused += 1
        after_s = math.ceil((len(texts) - self._room) / self._per_s)
        return RateLimited("429: slow down", retry_after_s=after_s, is_quota=False)


# --- each failure ------------------------------------------------------------------------------------------------


def test_nobody_asks_a_busy_provider_before_the_time_that_it_named(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.provider.fails = lambda _: busy(7.0)() if len(world.provider.requests) == 6 else None
        library(world)
        await world.until(lambda: len(world.provider.requests) >= 6)
        told_s = world.provider.requests[5].at_s + 0.01
        await all_went_through(world)
        after = [one for one in world.provider.requests if one.at_s > told_s]
        assert 7.0 <= after[0].at_s - told_s < 7.6
        assert not world.said(), "seven seconds are nobody's business"

    play(tmp_path, scenario)


@pytest.mark.parametrize(("texts_per_s", "refused_max"), [(20, 48 + 20 * 8), (100, 20), (150, 20)])
def test_a_limit_is_used_up_and_seldom_run_into(tmp_path: Path, texts_per_s: int, refused_max: int) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.provider.fails = limit = Limit(texts_per_s)
        began_s = now_s()
        for number in range(5_000):
            world.give(world.chunk(f"text {number}", index=number), partition=number % 48)
        await asyncio.sleep(20.5)
        paid = sum(len(one.texts) for one in world.provider.paid if one.at_s >= began_s + 0.5)
        assert paid / 20 >= 0.95 * texts_per_s, f"{paid / 20:.1f} of {texts_per_s} a second"
        assert limit.refused <= refused_max, f"{limit.refused} refused"
        assert not world.said(), "a limit that lets texts through is no pause"

    play(tmp_path, scenario)


def test_a_limit_that_is_gone_slows_nobody_for_long(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.provider.fails = Limit(50)
        for number in range(40_000):
            world.give(world.chunk(f"text {number}", index=number), partition=number % 48)
        await asyncio.sleep(5.0)
        world.provider.fails = lambda _: None
        await asyncio.sleep(62.0)
        began = len(world.provider.paid)
        await asyncio.sleep(1.0)
        # A second of 0.2 s each for 48 workers, and nobody but a free gate lets them share.
        latest = world.provider.paid[began:]
        assert sum(len(one.texts) for one in latest) > 48 * 5 * 3
        assert any(len(one.texts) > 5 for one in latest)

    play(tmp_path, scenario)


def test_a_long_limit_after_few_answers_holds_nobody_up_when_it_is_over(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        began_s = now_s()
        world.provider.fails = lambda _: (
            busy(300.0)() if len(world.provider.requests) > 3 and now_s() - began_s < 10.0 else None
        )
        for number in range(5_000):
            world.give(world.chunk(f"text {number}", index=number), partition=number % 48)
        await asyncio.sleep(300.0 + 65.0)
        assert len(world.provider.billed) == 5_000

    play(tmp_path, scenario)


def test_a_provider_that_refuses_by_chance_is_not_asked_ever_less(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        chance = random.Random(1)
        world.provider.fails = lambda _: busy(1.0)() if chance.random() < 0.4 else None
        for number in range(5_000):
            world.give(world.chunk(f"text {number}", index=number), partition=number % 48)
        await asyncio.sleep(30.0)
        assert len(world.provider.paid) > 30 * 5

    play(tmp_path, scenario)


def test_where_nothing_was_answered_before_a_limit_one_request_looks_whether_it_is_over(
    tmp_path: Path,
) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        end_s = fail_for(world.provider, 100.0, busy(5.0))
        library(world)
        await asyncio.sleep(2.0)
        first = len(world.provider.requests)
        assert first <= 48
        await asyncio.sleep(end_s - now_s() - 0.1)
        assert len(world.provider.requests) - first <= 20
        await all_went_through(world)
        check_said(world, PauseReason.PROVIDER_QUOTA)

    play(tmp_path, scenario)


def test_a_limit_is_no_attempt_however_often_it_comes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 60.0, busy(1.0))
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(5)), partition=0)
        await world.answered(5, 70.0)
        assert len(world.provider.requests) > 50
        assert {len(one.texts) for one in world.provider.requests} == {5}, (
            "nor a reason to look for a culprit"
        )
        assert not world.rejected()
        check_said(world, PauseReason.PROVIDER_QUOTA)

    play(tmp_path, scenario)


def test_a_limit_without_a_time_is_waited_out_too(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        begin_s = now_s()
        fail_for(world.provider, 60.0, busy(None))
        library(world)
        await all_went_through(world, 200.0)
        refused = [one for one in world.provider.requests if one.at_s < begin_s + 60.0]
        assert len(refused) < 48 + 60

    play(tmp_path, scenario)


def test_a_long_limit_is_said_at_once_with_its_end(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 1.0, busy(90.0))
        library(world)
        await world.until(lambda: bool(world.said()), 3.0)
        [paused] = world.said()
        assert isinstance(paused, EmbeddingPaused)
        assert paused.next_try_at is not None
        assert 88 < (paused.next_try_at - paused.paused_since).total_seconds() < 92
        asked = len(world.provider.requests)
        await asyncio.sleep(80.0)
        assert len(world.provider.requests) == asked
        await all_went_through(world)
        check_said(world, PauseReason.PROVIDER_QUOTA)

    play(tmp_path, scenario)


def test_an_empty_quota_is_asked_about_every_thirty_seconds(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        end_s = fail_for(world.provider, 200.0, empty)
        library(world)
        await world.until(lambda: bool(world.said()), 2.0)
        first = len(world.provider.requests)
        assert first <= 48
        await asyncio.sleep(end_s - now_s() - 0.1)
        probes = world.provider.requests[first:]
        assert 5 <= len(probes) <= 7
        assert min(gaps_s(probes)) >= 30.0
        await all_went_through(world)
        check_said(world, PauseReason.PROVIDER_QUOTA)

    play(tmp_path, scenario)


def test_a_short_outage_is_nobodys_business(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.provider.fails = lambda _: (
            Unavailable("500") if len(world.provider.requests) in (3, 9) else None
        )
        library(world)
        await all_went_through(world)
        assert not world.said()

    play(tmp_path, scenario)


def test_a_long_outage_is_said_and_one_request_at_a_time_looks_for_its_end(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        end_s = fail_for(world.provider, 300.0, lambda: Unavailable("503"))
        library(world)
        await world.until(lambda: bool(world.said()), 30.0)
        await asyncio.sleep(2.0)
        first = len(world.provider.requests)
        assert first <= 3 * 48
        await asyncio.sleep(end_s - now_s() - 0.1)
        probes = world.provider.requests[first:]
        assert 8 <= len(probes) <= 25
        assert max(gaps_s(probes)) < 35.0
        assert not world.rejected()
        await all_went_through(world)
        check_said(world, PauseReason.PROVIDER_DOWN)

    play(tmp_path, scenario)


def test_a_wrong_key_neither_spins_nor_rejects(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        end_s = fail_for(world.provider, 200.0, lambda: Misconfigured("401: invalid key"))
        library(world)
        await world.until(lambda: bool(world.said()), 2.0)
        first = len(world.provider.requests)
        assert first <= 48
        await asyncio.sleep(end_s - now_s() - 0.1)
        probes = world.provider.requests[first:]
        assert 5 <= len(probes) <= 7
        assert not world.events()
        await all_went_through(world)
        assert "invalid key" in check_said(world, PauseReason.PROVIDER_CONFIG).message

    play(tmp_path, scenario)


def test_what_lasts_is_called_by_its_present_name(tmp_path: Path) -> None:
    """A quota that was refilled under a key that is gone: users see what keeps them waiting now."""

    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 40.0, empty)
        library(world)
        await asyncio.sleep(41.0)
        fail_for(world.provider, 60.0, lambda: Misconfigured("401: invalid key"))
        await asyncio.sleep(40.0)
        reasons = [one.reason for one in world.said() if isinstance(one, EmbeddingPaused)]
        assert reasons == [PauseReason.PROVIDER_QUOTA, PauseReason.PROVIDER_CONFIG]
        await all_went_through(world)
        assert isinstance(world.said()[-1], EmbeddingContinued)

    play(tmp_path, scenario)


# --- while it waits ----------------------------------------------------------------------------------------------


def test_a_stop_does_not_wait_for_the_provider(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 3600.0, lambda: Misconfigured("401"))
        library(world)
        await asyncio.sleep(5.0)
        began_s = now_s()
        await world.stop()
        assert now_s() - began_s < 8.0
        assert not world.events()
        assert not world.broker.committed.get("embedder-openai-test-embedding-4-1")

    play(tmp_path, scenario)


def test_an_empty_quota_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 100.0, empty)
        library(world)
        await asyncio.sleep(5.0)
        last_s = world.provider.requests[-1].at_s
        await world.stop()
        await world.start()
        await asyncio.sleep(60.0)
        later = [one for one in world.provider.requests if one.at_s > last_s]
        assert later[0].at_s - last_s >= 29.9
        assert min(gaps_s(later)) >= 29.9
        await all_went_through(world)
        assert isinstance(world.said()[-1], EmbeddingContinued)

    play(tmp_path, scenario)


def test_a_pause_whose_cause_is_gone_at_the_start_is_ended(tmp_path: Path) -> None:
    """Somebody repaired the key and started it again; there may be nothing to embed."""

    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 10.0, lambda: Misconfigured("401"))
        library(world)
        await asyncio.sleep(5.0)
        world.cancel()
        await world.stop()
        await asyncio.sleep(10.0)
        await world.start()
        await world.until(lambda: isinstance(world.said()[-1], EmbeddingContinued), 40.0)

    play(tmp_path, scenario)


# --- several processes -------------------------------------------------------------------------------------------


async def two_processes(world: World) -> None:
    await world.start("a")
    await world.start("b")
    await asyncio.sleep(10.0)


def test_another_process_obeys_the_limit_that_one_met(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await two_processes(world)
        texts = [f"text {number}" for number in range(COUNT)]
        fail_for(world.provider, 1.0, busy(60.0))
        world.give(world.chunk(texts[0]))
        await world.until(lambda: bool(world.said()), 5.0)
        met_s = world.provider.requests[-1].at_s
        await asyncio.sleep(1.0)
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts) if n))
        await all_went_through(world)
        after = [one for one in world.provider.requests if one.at_s > met_s]
        assert after[0].at_s - met_s >= 60.0
        assert {one.who for one in after} == {"a", "b"}
        assert isinstance(world.said()[-1], EmbeddingContinued)

    play(tmp_path, scenario)


def test_another_process_s_success_does_not_shorten_the_time_that_the_provider_named_to_this_one(
    tmp_path: Path,
) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 1.0, busy(60.0))
        library(world)
        await world.until(lambda: bool(world.said()), 5.0)
        met_s = world.provider.requests[-1].at_s
        world.say(EmbeddingContinued(occurred_at=datetime.now(UTC), space=SPACE))
        await all_went_through(world)
        after = [one.at_s for one in world.provider.requests if one.at_s > met_s]
        assert after[0] - met_s >= 60.0

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "make", [lambda: Misconfigured("401"), lambda: Unavailable("503"), empty, busy(20.0)]
)
def test_a_process_without_work_does_not_end_the_pause_of_another(tmp_path: Path, make: Make) -> None:
    async def scenario(world: World) -> None:
        await two_processes(world)
        end_s = fail_for(world.provider, 300.0, make)
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(10)), partition=0)
        await asyncio.sleep(end_s - now_s() - 1.0)
        assert len(world.provider.requests) <= 30, "neither spins nor is called back by the other"
        assert [type(one) for one in world.said()] == [EmbeddingPaused]
        await world.answered(10, 60.0)
        await world.until(lambda: isinstance(world.said()[-1], EmbeddingContinued), 5.0)
        await asyncio.sleep(60.0)
        check_said(world, world.said()[0].reason)

    play(tmp_path, scenario)


def test_two_processes_with_work_probe_together_no_more_than_twice_as_often(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await two_processes(world)
        end_s = fail_for(world.provider, 300.0, empty)
        library(world)
        await asyncio.sleep(10.0)
        first = len(world.provider.requests)
        await asyncio.sleep(end_s - now_s() - 1.0)
        assert len(world.provider.requests) - first <= 2 * 300 / 30
        assert len(world.said()) <= 2, "each may say it before it hears the other"
        await all_went_through(world)
        assert isinstance(world.said()[-1], EmbeddingContinued)

    play(tmp_path, scenario)


def test_two_processes_that_meet_different_failures_each_say_theirs_once(tmp_path: Path) -> None:
    """One's answers are of another model, say, while the other's are refused; neither contradicts the other for ever."""

    async def scenario(world: World) -> None:
        await two_processes(world)
        end_s = now_s() + 200.0
        for who, make in (("a", lambda: Misconfigured("401")), ("b", empty)):
            world.provider.fails_for[who] = lambda _, make=make: make() if now_s() < end_s else None
        library(world)
        await asyncio.sleep(end_s - now_s() - 1.0)
        assert {one.who for one in world.provider.requests} == {"a", "b"}
        reasons = [one.reason for one in world.said() if isinstance(one, EmbeddingPaused)]
        assert sorted(reasons) == [PauseReason.PROVIDER_CONFIG, PauseReason.PROVIDER_QUOTA]
        await all_went_through(world)
        await world.until(lambda: isinstance(world.said()[-1], EmbeddingContinued), 60.0)

    play(tmp_path, scenario)


def test_a_pause_of_a_process_that_died_is_ended_by_the_one_that_takes_over(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await two_processes(world)
        fail_for(world.provider, 40.0, lambda: Misconfigured("401"))
        library(world)
        await asyncio.sleep(20.0)
        await world.stop("a")
        await all_went_through(world, 200.0)
        await world.until(lambda: isinstance(world.said()[-1], EmbeddingContinued), 60.0)

    play(tmp_path, scenario)
