"""A cancelled or superseded attempt is not asked for, from the moment on in which that is known."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.embedder.trouble import COUNT, Make, busy, empty, fail_for, library, now_s
from tests.unit.embedder.world import (
    FIRST,
    SECOND,
    World,
    play,
)

from embedder.models.model import InputRefused, Misconfigured, Unavailable
from eventlog.events import EmbeddingContinued


def test_a_cancel_stops_requests_at_once_and_says_nothing_of_what_was_skipped(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(2000)))
        await world.until(lambda: len(world.events()) > 300)
        world.cancel()
        at_s = asyncio.get_running_loop().time()
        await asyncio.sleep(10.0)
        assert not world.provider.asked_since(at_s + 0.1)
        assert len(world.events()) == world.provider.billed.total() < 2000
        assert sum(world.committed(number) for number in range(48)) == 2000

    play(tmp_path, scenario)


def test_a_cancel_is_heard_by_those_who_wait_for_their_turn(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.provider.latency_s = 1.0
        await world.start(requests_max=2)
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(200)))
        await world.until(lambda: len(world.provider.requests) >= 4)
        world.cancel()
        at_s = asyncio.get_running_loop().time()
        await world.until(lambda: sum(world.committed(number) for number in range(48)) == 200, 60.0)
        assert not world.provider.asked_since(at_s + 0.1)
        assert len(world.events()) == world.provider.billed.total()

    play(tmp_path, scenario)


def test_a_resumed_attempt_goes_on_and_others_were_never_stopped(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.cancel(FIRST, attempt=2)
        await world.start()
        world.give(
            world.chunk("first", FIRST, attempt=1),
            world.chunk("second", FIRST, attempt=2),
            world.chunk("third", FIRST, attempt=3),
            world.chunk("other", SECOND),
            partition=0,
        )
        await world.until(lambda: world.committed(0) == 4)
        assert [one.text for one in world.embedded()] == ["third", "other"]

    play(tmp_path, scenario)


def test_an_attempt_that_a_resume_has_superseded_is_not_asked_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.resume(FIRST, attempt=2)
        await world.start()
        world.give(world.chunk("first"), world.chunk("second", attempt=2), partition=0)
        await world.until(lambda: world.committed(0) == 2)
        assert [one.text for one in world.embedded()] == ["second"]
        assert world.provider.billed == {"second": 1}

    play(tmp_path, scenario)


def test_a_cancel_from_before_the_start_is_known_before_the_first_request(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.story_delay_s = 5.0
        world.cancel()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(100)))
        await world.start()
        await world.until(lambda: sum(world.committed(number) for number in range(48)) == 100)
        assert not world.provider.requests
        assert not world.events()

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "make", [busy(60.0), empty, lambda: Misconfigured("401"), lambda: Unavailable("503")]
)
def test_a_cancel_is_heard_while_the_space_is_paused(tmp_path: Path, make: Make) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        end_s = fail_for(world.provider, 50.0, make)
        library(world)
        await asyncio.sleep(20.0)
        world.cancel()
        await world.until(lambda: sum(world.committed(number) for number in range(48)) == COUNT, 3.0)
        assert not world.events()
        asked = len(world.provider.requests)
        await asyncio.sleep(end_s - now_s() + 60.0)
        assert len(world.provider.requests) - asked <= 1, "at most the try that was under way"
        assert isinstance(world.said()[-1], EmbeddingContinued), "nothing waits, so nothing is paused"

    play(tmp_path, scenario)


def test_what_was_paid_before_a_cancel_is_said_and_a_resume_does_not_pay_it_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.provider.latency_s = 2.0
        world.provider.fails = lambda texts: InputRefused("400: too long") if "bad" in texts else None
        texts = ["one", "two", "bad", "three", "four"]
        await world.start()
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)), partition=0)
        await world.until(lambda: bool(world.provider.billed))
        world.cancel()  # the first half is under way, the second is not asked for
        await world.until(lambda: world.committed(0) == 5)
        assert [one.text for one in world.embedded()] == ["one", "two"]
        world.resume()
        world.give(*(world.chunk(text, attempt=2, index=n) for n, text in enumerate(texts)), partition=0)
        await world.answered(7)
        assert world.provider.billed == dict.fromkeys(["one", "two", "three", "four"], 1)
        assert [one.text for one in world.embedded() if one.is_reused] == ["one", "two"]

    play(tmp_path, scenario)


def test_other_imports_in_the_same_batch_outlive_a_cancel(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 10.0, lambda: Misconfigured("401"))
        texts = [f"text {number}" for number in range(6)]
        for number, text in enumerate(texts):
            world.give(world.chunk(text, SECOND if number % 2 else FIRST, index=number), partition=0)
        await asyncio.sleep(5.0)
        world.cancel(FIRST)
        await world.answered(3, 60.0)
        await world.until(lambda: world.committed(0) == 6)
        assert [one.text for one in world.embedded()] == texts[1::2]
        assert set(world.provider.billed) == set(texts[1::2])

    play(tmp_path, scenario)
