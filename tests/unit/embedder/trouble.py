"""A library, and a provider that fails for a while."""

import asyncio
from collections.abc import Callable

from tests.unit.embedder.world import Provider, World

from embedder.models.model import (
    ModelError,
    RateLimited,
)

COUNT = 240
Make = Callable[[], ModelError]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def library(world: World) -> list[str]:
    texts = [f"text {number}" for number in range(COUNT)]
    world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)))
    return texts


def fail_for(provider: Provider, seconds: float, make: Make) -> float:
    """Every request of the next `seconds` ends with the error. Returns when that is over."""
    end_s = now_s() + seconds
    provider.fails = lambda _: make() if now_s() < end_s else None
    return end_s


def busy(retry_after_s: float | None) -> Make:
    return lambda: RateLimited("429: slow down", retry_after_s=retry_after_s, is_quota=False)


def empty() -> RateLimited:
    return RateLimited("429: insufficient quota", retry_after_s=None, is_quota=True)
