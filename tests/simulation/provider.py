"""A provider in memory: nearly the same vector for the same text, a ledger of what it has billed, and faults of its own."""

import asyncio
import hashlib
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.simulation.faults import Fault
from tests.simulation.story import REFUSED

from embedder.models.model import (
    BadAnswer,
    Embedded,
    InputRefused,
    Misconfigured,
    RateLimited,
    Side,
    Unavailable,
)

LATENCY_S = (0.02, 0.2, 0.6)
TIMEOUT_S = 5.0
RETRY_AFTER_S = 4.0


@dataclass(slots=True, eq=False)
class Bill:
    life: int
    """Which life of a process has paid."""
    texts: tuple[str, ...]
    at_s: float
    is_excused: bool = False
    """Its answer was late or wrong, or its process is gone: these texts may be paid again."""


class Provider:
    def __init__(self, chance: random.Random, meet: Callable[[str], list[Fault]]) -> None:
        self._chance = chance
        self._meet = meet
        self.bills: list[Bill] = []
        self.billed: Counter[str] = Counter()
        self.excused: Counter[str] = Counter()
        self.text_of: dict[bytes, str] = {}
        """Of every vector that was ever given."""
        self.too_early: list[str] = []
        self._not_before: dict[int, float] = {}

    def excuse(self, bill: Bill, texts: Sequence[str]) -> None:
        if not bill.is_excused:
            bill.is_excused = True
            self.excused.update(texts)

    async def embed(self, texts: Sequence[str], life: int) -> Embedded:
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before.get(life, 0.0) - 0.001:
            self.too_early.append(f"{loop.time():.3f} s, not before {self._not_before[life]:.3f} s")
        kinds = {one.kind for one in self._meet("request")}
        latency_s = self._chance.choice(LATENCY_S)
        if "rate limited" in kinds:
            self._not_before[life] = loop.time() + RETRY_AFTER_S
            raise RateLimited("429: slow down", retry_after_s=RETRY_AFTER_S, is_quota=False)
        await asyncio.sleep(latency_s / 2)
        if "quota" in kinds:
            raise RateLimited("429: insufficient quota", retry_after_s=None, is_quota=True)
        if "misconfigured" in kinds:
            raise Misconfigured("401: wrong key")
        if "unavailable" in kinds:
            raise Unavailable("503")
        if any(REFUSED in text for text in texts):
            raise InputRefused("400: one of these")
        bill = Bill(life, tuple(texts), loop.time())
        self.bills.append(bill)
        self.billed.update(texts)
        if "late answer" in kinds:
            self.excuse(bill, texts)
            await asyncio.sleep(TIMEOUT_S)
            raise Unavailable("no answer in time")
        await asyncio.sleep(latency_s / 2)
        if "bad answer" in kinds:
            self.excuse(bill, texts)
            raise BadAnswer("a vector is zero or not finite")
        vectors = [vector_of(text, len(self.bills)) for text in texts]
        self.text_of |= zip(vectors, texts, strict=True)
        return Embedded(vectors, [len(text) for text in texts])


class LifeOfModel:
    """What one life of an embedder's process holds of the provider."""

    def __init__(self, provider: Provider, life: int) -> None:
        self._provider = provider
        self._life = life

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        assert side == "document"
        return await self._provider.embed(texts, self._life)

    async def close(self) -> None:
        pass


def vector_of(text: str, time: int) -> bytes:
    """Of unit length, another one for each text, and not quite the same each time, as with some vendors."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:4]]
    raw[0] += time / 1000
    length = sum(one * one for one in raw) ** 0.5
    return struct.pack("<4f", *(one / length for one in raw))
