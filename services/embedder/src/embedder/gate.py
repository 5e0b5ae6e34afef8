"""The one place that retries. All workers of the space call the provider through here and pause together.

What a text can be blamed for comes out as `Refused`; what the space is to blame for never comes out: the call waits.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from embedder import core
from embedder.metrics import IN_FLIGHT, REQUEST_SECONDS, REQUESTS
from embedder.models.model import (
    BadAnswer,
    Embedded,
    InputRefused,
    Misconfigured,
    Model,
    RateLimited,
    Unavailable,
)
from eventlog.clock import Clock
from eventlog.events import ChunkRejectionReason, PauseReason
from eventlog.logs import Logger
from eventlog.retry import RetryPolicy

logger = Logger("embedder.gate")

POLICY = RetryPolicy(attempts_max=3, backoff_s_first=0.5, backoff_s_max=5.0)
"""For an outage of one call; past it the space is paused. And for answers that failed their checks."""


@dataclass(frozen=True, slots=True)
class Vector:
    data: bytes
    tokens: int


@dataclass(frozen=True, slots=True)
class Refused:
    reason: ChunkRejectionReason
    message: str
    tries: int


Outcome = Vector | Refused
Said = Callable[[core.Pause | None], Awaitable[None]]
"""Told of a pause that is to be said, and of its end with null."""


class Gate:
    def __init__(self, model: Model, *, requests_max: int, clock: Clock, said: Said) -> None:
        self._model = model
        self._clock = clock
        self._said = said
        self._slots = asyncio.Semaphore(requests_max)
        self._pause: core.Pause | None = None
        self._changed = asyncio.Condition()

    @property
    def pause(self) -> core.Pause | None:
        return self._pause

    async def probe(self) -> None:
        """An operator wants a try now, whatever was said."""
        await self._happened(core.ProbeAsked(at_s=self._clock.monotonic_s()))

    async def obey(self, reason: PauseReason, wait_s: float, message: str) -> None:
        """Another instance has met the pause."""
        now = self._clock.monotonic_s()
        if self._pause is None:
            self._pause = core.Pause(
                reason=reason, since_s=now, next_try_s=now + wait_s, message=message, is_said=True
            )

    async def embed(
        self, texts: Sequence[str], *, is_wanted: Callable[[], bool] = lambda: True
    ) -> list[Outcome] | None:
        """One outcome for each text, in order; null when nobody wants them any more before they were asked for."""
        if not texts:
            return []
        tries = 0
        while True:
            tries += 1
            try:
                embedded = await self._call(texts, is_wanted)
            except InputRefused as error:
                return await self._divide(
                    texts, ChunkRejectionReason.PROVIDER_REFUSED, str(error), tries, is_wanted
                )
            except BadAnswer as error:
                logger.warning("provider.answer_bad", why=error, texts=len(texts), tries=tries)
                if tries >= POLICY.attempts_max:
                    return await self._divide(
                        texts, ChunkRejectionReason.VECTOR_INVALID, str(error), tries, is_wanted
                    )
                await asyncio.sleep(POLICY.backoff_s(tries, jitter=random.random()))  # noqa: S311 - spreads retries
                continue
            if embedded is None:
                return None
            tokens = core.split_tokens(embedded.tokens, texts)
            return [Vector(vector, count) for vector, count in zip(embedded.vectors, tokens, strict=True)]

    async def _divide(
        self,
        texts: Sequence[str],
        reason: ChunkRejectionReason,
        message: str,
        tries: int,
        is_wanted: Callable[[], bool],
    ) -> list[Outcome] | None:
        if len(texts) == 1:
            return [Refused(reason, message, tries)]
        first, second = core.halves(texts)
        left = await self.embed(first, is_wanted=is_wanted)
        right = None if left is None else await self.embed(second, is_wanted=is_wanted)
        return None if left is None or right is None else left + right

    async def _call(self, texts: Sequence[str], is_wanted: Callable[[], bool]) -> Embedded | None:
        """The answer; waits out whatever is the space's fault."""
        outages = 0
        while True:
            is_probe = await self._enter()
            async with self._slots:
                if self._pause is not None and not is_probe:
                    continue  # The pause began while this call waited for its turn.
                if not is_wanted():
                    await self._leave(is_probe)
                    return None
                try:
                    with IN_FLIGHT.track_inprogress(), REQUEST_SECONDS.time():
                        embedded = await self._model.embed(texts, "document")
                except RateLimited as error:
                    REQUESTS.labels("rate_limited").inc()
                    await self._failed(
                        PauseReason.PROVIDER_QUOTA, error, error.retry_after_s, is_quota=error.is_quota
                    )
                    continue
                except Misconfigured as error:
                    REQUESTS.labels("misconfigured").inc()
                    await self._failed(PauseReason.PROVIDER_CONFIG, error)
                    continue
                except Unavailable as error:
                    REQUESTS.labels("unavailable").inc()
                    outages += 1
                    if is_probe or outages >= POLICY.attempts_max:
                        await self._failed(PauseReason.PROVIDER_DOWN, error)
                        continue
                    logger.warning("provider.unavailable", why=error, tries=outages)
                except (InputRefused, BadAnswer):
                    # An answer of whatever kind: the space itself works.
                    REQUESTS.labels("refused").inc()
                    await self._happened(core.Succeeded(at_s=self._clock.monotonic_s()))
                    raise
                except BaseException:
                    await self._leave(is_probe)
                    raise
                else:
                    REQUESTS.labels("ok").inc()
                    if self._pause is not None:
                        await self._happened(core.Succeeded(at_s=self._clock.monotonic_s()))
                    return embedded
            await asyncio.sleep(POLICY.backoff_s(outages, jitter=random.random()))  # noqa: S311 - spreads retries

    async def _enter(self) -> bool:
        """Waits while the space is paused. True for the one call that may try whether it still is."""
        while (pause := self._pause) is not None:
            now = self._clock.monotonic_s()
            if now >= pause.next_try_s and not pause.is_probing:
                await self._happened(core.ProbeStarted(at_s=now))
                return True
            wait_s = max(0.01, pause.next_try_s - now) if not pause.is_probing else 1.0
            await self._say_if_due()
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), min(wait_s, 1.0))
                except TimeoutError:
                    continue
        return False

    async def _leave(self, is_probe: bool) -> None:
        if is_probe and self._pause is not None:
            self._pause = replace(self._pause, is_probing=False)

    async def _failed(
        self,
        reason: PauseReason,
        error: Exception,
        retry_after_s: float | None = None,
        *,
        is_quota: bool = False,
    ) -> None:
        await self._happened(
            core.Failed(
                reason=reason,
                message=str(error),
                at_s=self._clock.monotonic_s(),
                retry_after_s=retry_after_s,
                is_quota=is_quota,
            )
        )
        await self._say_if_due()

    async def _happened(self, happening: core.Happening) -> None:
        before, self._pause = self._pause, core.evolve(self._pause, happening)
        if before is not None and self._pause is None and before.is_said:
            await self._said(None)
        async with self._changed:
            self._changed.notify_all()

    async def _say_if_due(self) -> None:
        pause = self._pause
        if pause is not None and core.is_to_be_said(pause, self._clock.monotonic_s()):
            self._pause = replace(pause, is_said=True)
            logger.warning("embedding.paused", reason=pause.reason, why=pause.message)
            await self._said(self._pause)
