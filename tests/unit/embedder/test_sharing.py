"""Which batches share a request, and that none answers for its neighbour."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from tests.unit.embedder.virtual_time import LoopClock, run_virtually
from tests.unit.embedder.world import vector_of

from embedder.core import Pause
from embedder.gate import Gate, Refused
from embedder.models.model import BadAnswer, Embedded, InputRefused, ModelError, Side, Unavailable
from embedder.sharing import GATHER_S, TEXTS_MAX, AskAgain, SharedRequests


class _Model:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.fails: Callable[[Sequence[str]], Exception | None] = lambda _: None
        self.is_to_wait = False

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        assert side == "document"
        self.asked.append(list(texts))
        await asyncio.sleep(0.2)
        error = self.fails(texts)
        if error is not None:
            raise error
        return Embedded([vector_of(text) for text in texts], [len(text) for text in texts])

    async def close(self) -> None:
        pass


def play(scenario: Callable[[_Model, SharedRequests], Coroutine[Any, Any, None]]) -> None:
    async def act() -> None:
        model = _Model()
        await scenario(model, SharedRequests(model, may_go=lambda: not model.is_to_wait))

    run_virtually(act())


def batches(count: int) -> list[list[str]]:
    return [[f"{number} {index}" + "." * number for index in range(5)] for number in range(count)]


async def asked_at_once(requests: SharedRequests, given: Sequence[Sequence[str]]) -> list[Any]:
    asking = (requests.embed(texts, is_alone=False) for texts in given)
    return await asyncio.gather(*asking, return_exceptions=True)


def check_right(answer: Embedded, texts: Sequence[str]) -> None:
    assert answer == Embedded([vector_of(text) for text in texts], [len(text) for text in texts])


def test_batches_of_one_moment_share_a_request_and_each_has_its_own_answer() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        given = batches(3)
        for answer, texts in zip(await asked_at_once(requests, given), given, strict=True):
            check_right(answer, texts)
        assert model.asked == [[text for texts in given for text in texts]]

    play(scenario)


def test_a_request_holds_no_more_than_it_may() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        given = batches(7)
        for answer, texts in zip(await asked_at_once(requests, given), given, strict=True):
            check_right(answer, texts)
        assert [len(texts) for texts in model.asked] == [TEXTS_MAX, 10]

    play(scenario)


def test_who_asks_later_waits_for_nobody() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        first = asyncio.create_task(requests.embed(["one"], is_alone=False))
        await asyncio.sleep(2 * GATHER_S)
        second = asyncio.create_task(requests.embed(["two"], is_alone=False))
        await asyncio.sleep(2 * GATHER_S)
        assert model.asked == [["one"], ["two"]]
        check_right(await first, ["one"])
        check_right(await second, ["two"])

    play(scenario)


def test_who_asks_alone_shares_with_nobody() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        await asyncio.gather(
            requests.embed(["one"], is_alone=False),
            requests.embed(["two"], is_alone=True),
            requests.embed(["three"], is_alone=False),
        )
        assert sorted(model.asked) == [["one", "three"], ["two"]]

    play(scenario)


@pytest.mark.parametrize("kind", [InputRefused, BadAnswer])
def test_who_shared_with_a_culprit_is_to_ask_alone(kind: type[ModelError]) -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        given = batches(4)
        model.fails = lambda texts: kind("it") if given[2][3] in texts else None
        for answer in await asked_at_once(requests, given):
            assert isinstance(answer, AskAgain)
            assert answer.is_alone
        assert len(model.asked) == 1, "whether and when it asks is the gate's to say"
        with pytest.raises(kind):
            await requests.embed(given[2], is_alone=True)
        assert [type(one) for one in await asked_at_once(requests, given[2:3])] == [kind], (
            "nobody else is there"
        )

    play(scenario)


def test_a_provider_that_takes_fewer_texts_is_seldom_asked_for_more() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        model.fails = lambda texts: InputRefused("16 at most") if len(texts) > 16 else None
        for _ in range(40):
            await asked_at_once(requests, batches(5))
        refused = [texts for texts in model.asked if len(texts) > 16]
        assert 2 <= len(refused) < len(model.asked) / 15
        assert max(len(texts) for texts in model.asked[-10:]) > 5, "but they still share"

    play(scenario)


def test_one_bad_text_does_not_keep_others_apart_for_long() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        model.fails = lambda texts: InputRefused("it") if "bad" in texts else None
        await asked_at_once(requests, [["bad"], *batches(4)])
        for _ in range(40):
            await asked_at_once(requests, batches(5))
        assert len(model.asked[-1]) == TEXTS_MAX

    play(scenario)


def test_a_pause_that_begins_while_batches_gather_is_kept() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        asking = asyncio.create_task(requests.embed(["one"], is_alone=False))
        await asyncio.sleep(0)
        model.is_to_wait = True
        with pytest.raises(AskAgain) as caught:
            await asking
        assert not caught.value.is_alone
        assert not model.asked

    play(scenario)


def test_what_is_no_texts_fault_is_said_to_all_of_them() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        model.fails = lambda _: Unavailable("away")
        answers = await asked_at_once(requests, batches(3))
        assert [str(answer) for answer in answers] == ["away"] * 3
        assert len(model.asked) == 1

    play(scenario)


def test_what_nobody_expected_is_no_silence() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        model.fails = lambda _: KeyError("a bug")
        assert [type(answer) for answer in await asked_at_once(requests, batches(2))] == [KeyError] * 2

    play(scenario)


@pytest.mark.parametrize(
    ("after_s", "asked"),
    [
        pytest.param(0, ["staying"], id="not asked for"),
        pytest.param(0.1, ["gone", "staying"], id="asked for"),
    ],
)
def test_who_gives_up_takes_the_answer_from_nobody(after_s: float, asked: list[str]) -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        gone = asyncio.create_task(requests.embed(["gone"], is_alone=False))
        staying = asyncio.create_task(requests.embed(["staying"], is_alone=False))
        await asyncio.sleep(after_s)
        gone.cancel()
        check_right(await staying, ["staying"])
        assert model.asked == [asked]

    play(scenario)


def test_when_all_have_given_up_nothing_is_asked_for() -> None:
    async def scenario(model: _Model, requests: SharedRequests) -> None:
        gone = asyncio.create_task(requests.embed(["gone"], is_alone=False))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(2 * GATHER_S)
        assert not model.asked

    play(scenario)


@pytest.mark.parametrize("kind", [InputRefused, BadAnswer])
def test_a_culprit_meets_the_texts_of_others_once(kind: type[ModelError]) -> None:
    """While it is looked for, others ask at every moment; what they share with it would be billed again."""

    async def nothing(_: Pause | None) -> None:
        pass

    async def scenario(model: _Model, _: SharedRequests) -> None:
        gate = Gate(model, requests_max=1000, clock=LoopClock(), said=nothing)
        model.fails = lambda texts: kind("it") if "bad" in texts else None
        looking = asyncio.create_task(gate.embed(["good 1", "good 2", "bad", "good 3"]))
        others = []
        while not looking.done():
            others.append(asyncio.create_task(gate.embed([f"neighbour {len(others)}"])))
            await asyncio.sleep(GATHER_S / 4)
        assert [isinstance(one, Refused) for one in await looking] == [False, False, True, False]
        for other in others:
            assert not isinstance((await other)[0], Refused)
        with_bad = [texts for texts in model.asked if "bad" in texts]
        assert len(with_bad) > 2, "it was looked for"
        assert len([texts for texts in with_bad if any("neighbour" in text for text in texts)]) == 1

    play(scenario)
