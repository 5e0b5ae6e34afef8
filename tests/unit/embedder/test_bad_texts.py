"""A text that the provider refuses, or has no vector for, costs itself; when it is all of them, the fault is ours."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.embedder.trouble import COUNT, Make, busy, fail_for, library, now_s
from tests.unit.embedder.world import World, play

from embedder.models.model import (
    BadAnswer,
    InputRefused,
    ModelError,
)
from eventlog.events import ChunkRejectionReason, EmbeddingPaused, PauseReason


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: InputRefused("400: too long"), ChunkRejectionReason.PROVIDER_REFUSED),
        (lambda: BadAnswer("a vector is zero"), ChunkRejectionReason.VECTOR_INVALID),
    ],
)
def test_one_bad_text_costs_one_text(tmp_path: Path, make: Make, reason: ChunkRejectionReason) -> None:
    async def scenario(world: World) -> None:
        world.provider.fails = lambda texts: make() if any("bad" in text for text in texts) else None
        texts = [f"{'bad' if n in (2, 11) else 'good'} {n}" for n in range(20)]
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)), partition=0)
        await world.start()
        await world.answered(20)
        assert [one.text for one in world.embedded()] == [text for text in texts if "good" in text]
        assert [one.reason for one in world.rejected()] == [reason] * 2
        assert all(one.tries_count >= 1 and one.message for one in world.rejected())
        assert world.provider.billed == {text: 1 for text in texts if "good" in text}
        with_bad = [one for one in world.provider.requests if any("bad" in text for text in one.texts)]
        assert len(with_bad) <= 2 * 10
        assert not world.said()

    play(tmp_path, scenario)


def test_a_vector_that_is_bad_once_is_asked_for_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.provider.fails = lambda _: BadAnswer("nan") if len(world.provider.requests) == 1 else None
        world.give(*(world.chunk(f"text {n}", index=n) for n in range(5)), partition=0)
        await world.start()
        await world.answered(5)
        assert len(world.embedded()) == 5

    play(tmp_path, scenario)


@pytest.mark.parametrize("make", [lambda: InputRefused("400: no"), lambda: BadAnswer("zero")])
def test_a_provider_that_refuses_every_text_is_a_wrong_setting(tmp_path: Path, make: Make) -> None:
    """What was taken for the texts' fault is ours, when it is all of them: the library is not rejected whole."""

    async def scenario(world: World) -> None:
        await world.start()
        fail_for(world.provider, 600.0, make)
        library(world)
        await asyncio.sleep(600.0)
        assert len(world.rejected()) <= 48 + 20
        paused = next(one for one in world.said() if isinstance(one, EmbeddingPaused))
        assert paused.reason is PauseReason.PROVIDER_CONFIG
        last = world.provider.asked_since(now_s() - 300.0)
        assert len(last) <= 3 * 300 / 30, "it does not spin"
        world.provider.fails = lambda _: None
        await world.answered(COUNT, 120.0)
        assert len(world.embedded()) + len(world.rejected()) == COUNT

    play(tmp_path, scenario)


def test_the_bisecting_of_one_batch_goes_on_after_a_limit(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def fails(texts: Sequence[str]) -> ModelError | None:
            if len(world.provider.requests) in (2, 4):
                return busy(2.0)()
            return InputRefused("400: too long") if "bad" in texts else None

        world.provider.fails = fails
        texts = ["one", "two", "bad", "three", "four"]
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)), partition=0)
        await world.start()
        await world.answered(5)
        assert [one.text for one in world.embedded()] == ["one", "two", "three", "four"]
        assert len(world.rejected()) == 1
        assert set(world.provider.billed.values()) == {1}

    play(tmp_path, scenario)
