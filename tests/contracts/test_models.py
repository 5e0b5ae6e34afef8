"""One suite for every embedding model: the local one as it is, the vendors' against the fake provider."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import pytest
from tests.fakes.provider import FakeProvider, Fault, running

from embedder.models.cohere import CohereModel
from embedder.models.local import LocalModel
from embedder.models.model import (
    BadAnswer,
    InputRefused,
    Misconfigured,
    Model,
    ModelError,
    RateLimited,
    Side,
    Unavailable,
)
from embedder.models.openai import OpenAIModel
from eventlog.spaces import parse_space

KEY = "sk-canary-key-0123456789abcdef"
TIMEOUT_S = 0.5
TEXTS = ["a gene called WAS", "eine Tür", "図書館の論文", "x" * 20_000, "a gene called WAS"]


@dataclass
class World:
    model: Model
    dims: int
    provider: FakeProvider

    async def embed(self, texts: list[str], side: Side = "document") -> list[np.ndarray]:
        embedded = await self.model.embed(texts, side)
        assert len(embedded.tokens) == len(texts)
        return [np.frombuffer(vector, dtype="<f4") for vector in embedded.vectors]


def _openai(url: str) -> tuple[Model, int]:
    space = parse_space("openai/text-embedding-3-small")
    return OpenAIModel(space, api_key=KEY, base_url=f"{url}/v1", timeout_s=TIMEOUT_S), space.dims


def _cohere(url: str) -> tuple[Model, int]:
    space = parse_space("cohere/embed-v4.0@256")
    return CohereModel(space, api_key=KEY, base_url=url, timeout_s=TIMEOUT_S), space.dims


def _local(_: str) -> tuple[Model, int]:
    space = parse_space("local")
    return LocalModel(space), space.dims


MAKERS = {"local": _local, "openai": _openai, "cohere": _cohere}


async def _world(name: str) -> AsyncIterator[World]:
    async with running(FakeProvider(scale=1.7)) as provider:  # not every vendor's are of unit length
        model, dims = MAKERS[name](provider.url)
        yield World(model, dims, provider)
        await model.close()


@pytest.fixture(params=["local", "openai", "cohere"])
async def any_model(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async for one in _world(request.param):
        yield one


@pytest.fixture(params=["openai", "cohere"])
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async for one in _world(request.param):
        yield one


@pytest.fixture
async def openai() -> AsyncIterator[World]:
    async for one in _world("openai"):
        yield one


async def failure(world: World, texts: list[str] | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await world.embed(texts or ["one", "two", "three"])
    return caught.value


async def test_each_text_has_a_vector_of_unit_length_in_its_place(any_model: World) -> None:
    vectors = await any_model.embed(TEXTS)
    assert [len(vector) for vector in vectors] == [any_model.dims] * len(TEXTS)
    assert all(abs(float(np.linalg.norm(vector)) - 1.0) < 1e-5 for vector in vectors)
    assert np.allclose(vectors[0], vectors[4], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)


async def test_a_text_has_the_same_vector_alone_and_among_others(any_model: World) -> None:
    together = await any_model.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.allclose((await any_model.embed([text]))[0], vector, atol=1e-5)


async def test_callers_at_the_same_time_get_their_own_vectors(any_model: World) -> None:
    groups = [[f"group {group} text {number}" for number in range(5)] for group in range(12)]
    answers = await asyncio.gather(*(any_model.embed(group) for group in groups))
    for group, vectors in zip(groups, answers, strict=True):
        assert np.allclose((await any_model.embed(group[2:3]))[0], vectors[2], atol=1e-5)


async def test_texts_and_vectors_are_gone_when_they_are_used(vendor: World) -> None:
    """And not only when the collector of cycles comes, for it comes seldom and counts objects, not bytes."""
    marker = "zirconium" * 50
    await vendor.embed([marker])
    gc.collect()
    gc.disable()
    try:
        others = _bodies()  # kept here, so that none of ours takes the place of one in memory
        await vendor.embed([marker])
        held = [one for one in _bodies() if not any(one is other for other in others)]
    finally:
        gc.enable()
    assert not held


def _bodies() -> list[object]:
    """Requests and answers of either HTTP library that have a body."""
    return [
        one
        for one in gc.get_objects()
        if type(one).__name__ in ("Request", "Response") and isinstance(getattr(one, "_content", None), bytes)
    ]


async def test_a_query_has_a_vector_of_the_same_dimension(any_model: World) -> None:
    assert [len(vector) for vector in await any_model.embed(["who?"], "query")] == [any_model.dims]


async def test_the_two_sides_are_told_apart_where_the_model_has_two() -> None:
    async for cohere in _world("cohere"):
        assert not np.allclose(await cohere.embed(["who?"], "query"), await cohere.embed(["who?"]), atol=1e-2)


async def test_the_bill_is_divided_without_loss(vendor: World) -> None:
    embedded = await vendor.model.embed(TEXTS, "document")
    assert sum(embedded.tokens) == sum(len(text) // 4 + 1 for text in TEXTS)
    assert embedded.tokens[3] > embedded.tokens[0] > 0


async def test_the_local_model_bills_nothing() -> None:
    async for local in _world("local"):
        assert (await local.model.embed(TEXTS, "document")).tokens == [0] * len(TEXTS)


async def test_a_long_text_costs_the_local_model_no_more_memory_among_others_than_alone() -> None:
    long = "the sleep of the people of the north " * 640
    async for local in _world("local"):
        await local.embed(["warm"])
        tracemalloc.start()
        try:
            short = [[f"group {group} text {number}" for number in range(5)] for group in range(24)]
            vectors, *_ = await asyncio.gather(local.embed([long]), *map(local.embed, short))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 24_000_000
        assert np.allclose(vectors[0], (await local.embed([long]))[0], atol=1e-6)


async def test_a_text_without_a_token_has_no_vector() -> None:
    async for local in _world("local"):
        assert isinstance(await failure(local, [""]), BadAnswer)


async def test_nobody_retries_but_the_gate(vendor: World) -> None:
    for fault in ("server_error", "rate_limit", "reset", "bad_key"):
        vendor.provider.script(fault)
        before = len(vendor.provider.requests)
        await failure(vendor)
        assert len(vendor.provider.requests) == before + 1


@pytest.mark.parametrize("fault", ["server_error", "html", "truncated", "reset", "late"])
async def test_what_may_be_better_later_is_unavailable(vendor: World, fault: str) -> None:
    vendor.provider.script(fault)
    assert isinstance(await failure(vendor), Unavailable)
    assert len(await vendor.embed(["one", "two"])) == 2


@pytest.mark.parametrize(
    "fault", ["too_few", "too_many", "one_wrong_dims", "nan", "null", "zeros", "strings", "empty_data"]
)
async def test_a_vector_that_cannot_be_used_never_comes_out(vendor: World, fault: str) -> None:
    vendor.provider.script(fault)
    assert isinstance(await failure(vendor), BadAnswer)


async def test_an_index_twice_is_a_bad_answer(openai: World) -> None:
    openai.provider.script("duplicate_index")
    assert isinstance(await failure(openai), BadAnswer)


async def test_vectors_are_put_into_the_order_of_their_texts(openai: World) -> None:
    right = await openai.embed(["one", "two", "three"])
    openai.provider.script("permuted")
    assert np.allclose(await openai.embed(["one", "two", "three"]), right)


async def test_another_dimension_for_all_texts_speaks_against_the_settings(vendor: World) -> None:
    vendor.provider.script(Fault("wrong_dims", times=2))
    assert isinstance(await failure(vendor, ["one"]), Misconfigured)
    assert isinstance(await failure(vendor), Misconfigured)


async def test_another_dimension_for_one_text_alone_speaks_against_the_text_once_others_were_right(
    vendor: World,
) -> None:
    await vendor.embed(["one", "two"])
    vendor.provider.script("wrong_dims")
    assert isinstance(await failure(vendor, ["one"]), BadAnswer)


async def test_a_limit_says_how_long_and_whether_money_is_what_is_missing(vendor: World) -> None:
    vendor.provider.script(Fault("rate_limit", retry_after_s=7))
    limited = await failure(vendor)
    assert isinstance(limited, RateLimited)
    assert (limited.retry_after_s, limited.is_quota) == (7.0, False)
    vendor.provider.script("quota")
    limited = await failure(vendor)
    assert isinstance(limited, RateLimited)
    assert (limited.retry_after_s, limited.is_quota) == (None, True)


async def test_a_limit_without_reason_or_measure_is_a_day_at_most(vendor: World) -> None:
    for given, understood in (
        (1e300, 86_400.0),
        (float("inf"), 86_400.0),
        (float("nan"), None),
        (-1.0, None),
    ):
        vendor.provider.script(Fault("rate_limit", retry_after_s=given))
        limited = await failure(vendor)
        assert isinstance(limited, RateLimited)
        assert limited.retry_after_s == understood


@pytest.mark.parametrize("bill", ["1e999", "NaN", "-5", "1" * 40, '"many"', "[1]", "null"])
async def test_a_bill_that_is_no_number_of_tokens_is_no_bill(vendor: World, bill: str) -> None:
    """The vectors are paid for all the same, and are not thrown away for it."""
    vendor.provider.bill = bill
    embedded = await vendor.model.embed(["one", "two"], "document")
    assert embedded.tokens == [0, 0]
    assert len(embedded.vectors) == 2


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"{}", b"[]", b"null", b'{"data": {"index": 0}}', b"\xff", b""]
)
async def test_an_answer_of_another_shape_is_unavailable(vendor: World, body: bytes) -> None:
    vendor.provider.script(Fault("body", body=body))
    assert isinstance(await failure(vendor), Unavailable)


@pytest.mark.parametrize("fault", ["bad_key", "unknown_model"])
async def test_a_wrong_key_or_model_is_a_matter_for_people(vendor: World, fault: str) -> None:
    vendor.provider.script(fault)
    assert isinstance(await failure(vendor), Misconfigured)


async def test_a_text_that_the_provider_refuses_is_said_to_be_refused(vendor: World) -> None:
    vendor.provider.script("too_long")
    assert isinstance(await failure(vendor), InputRefused)


async def test_no_error_tells_the_key(vendor: World) -> None:
    for fault in ("bad_key", "server_error", "html"):
        vendor.provider.script(fault)
        assert "canary" not in str(await failure(vendor))


async def test_an_absent_provider_is_unavailable() -> None:
    for make in (_openai, _cohere):
        model, _ = make("http://127.0.0.1:9")
        with pytest.raises(Unavailable):
            await model.embed(["one"], "document")
        await model.close()


def test_a_local_model_that_is_not_there_is_said_at_the_start() -> None:
    with pytest.raises(Misconfigured):
        LocalModel(parse_space("local/wordllama@512"))
