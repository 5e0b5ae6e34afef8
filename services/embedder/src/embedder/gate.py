"""The one place that retries. All workers of the space call the provider through here and pause together.

What a text can be blamed for comes out as `Refused`; what the space is to blame for never comes out: the call waits,
until the space works again or nobody wants the answer any more. What is said of a pause in the log follows what is
true here, from one task, so that no call waits for the log.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from embedder import core
from embedder.models.model import (
    BadAnswer,
    Embedded,
    InputRefused,
    Misconfigured,
    Model,
    ModelError,
    RateLimited,
    Unavailable,
)
from embedder.sharing import AskAgain, SharedRequests
from eventlog.clock import Clock
from eventlog.events import ChunkRejectionReason, PauseReason
from eventlog.logs import Logger
from eventlog.retry import RetryPolicy

logger = Logger("embedder.gate")

POLICY = RetryPolicy(attempts_max=3, backoff_s_first=0.5, backoff_s_max=5.0)
"""For an outage of one call; past it the space is paused. And for a text whose vector failed its checks."""
TOGETHER_TRIES_MAX = 2
"""For the answer to several texts that failed its checks; then they are asked for in halves."""
REFUSED_IN_ROW_MAX = 20
"""So many texts refused one after another mean that we are wrong, not the texts."""
_WAIT_S_MAX = 0.5


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


def _always() -> bool:
    return True


class Gate:
    def __init__(self, model: Model, *, requests_max: int, clock: Clock, said: Said) -> None:
        self._requests = SharedRequests(model, may_go=lambda: self._pause is None)
        self._clock = clock
        self._said = said
        self._slots = asyncio.Semaphore(requests_max)
        self._requests_max = requests_max
        self._answered_count = 0
        self._counted_from_s = 0.0
        """Since the provider's limit was last waited out, or since a request was begun when none was under way."""
        self._under_way_count = 0
        self._pace: core.Pace | None = None
        """Since a limit was met; null where only the slots bound the requests."""
        self._pause: core.Pause | None = None
        self._changed = asyncio.Event()
        self._waiting_count = 0
        self._refused_in_row = 0
        self._knows_better = False
        self.told: PauseReason | None = None
        """The pause that stands in the log, whoever wrote it."""
        self._known_as: PauseReason | None = None
        """What the pause here has been called in the log. Another process's may have another reason at the same time:
        each says its own once, or they would contradict each other for as long as both last.
        """

    @property
    def pause(self) -> core.Pause | None:
        return self._pause

    @property
    def next_try_in_s(self) -> float:
        return 0.0 if self._pause is None else max(0.0, self._pause.next_try_s - self._clock.monotonic_s())

    def probe(self) -> None:
        """An operator wants a try now, whatever was said."""
        self._happened(core.ProbeAsked(at_s=self._clock.monotonic_s()))

    def go_on(self) -> None:
        """An operator has looked at the texts that were refused."""
        self._refused_in_row = 0
        self.probe()

    def obey(self, reason: PauseReason, wait_s: float, message: str) -> None:
        """Another process of the space has met the pause and said so."""
        now = self._clock.monotonic_s()
        self.told, self._knows_better = reason, False
        if self._pause is None:
            self._known_as = reason
        self._happened(
            core.Obeyed(reason=reason, message=message, at_s=now, next_try_s=now + max(0.0, wait_s))
        )

    def inherit(self, reason: PauseReason, wait_s: float, message: str) -> None:
        """Nobody has ended what the log said when this process came: it falls to this one."""
        self.obey(reason, wait_s, message)
        self._knows_better = True

    def continued(self) -> None:
        """Another process of the space has found that it works again, and said so."""
        self.told, self._knows_better = None, False
        self._succeeded()

    async def run(self) -> None:
        """Says pauses and their ends. A pause that nobody waits in ends by itself when it is due; that is said only
        by who is answerable for it, for who merely obeyed knows no better than who asked the provider.
        """
        while True:
            changed, now, pause = self._changed, self._clock.monotonic_s(), self._pause
            if pause is not None and core.may_probe(pause, now) and not self._waiting_count:
                self._succeeded()
                continue
            if pause is not None and self._is_news(pause) and core.is_to_be_said(pause, now):
                logger.warning("embedding.paused", reason=pause.reason, why=pause.message)
                self.told, self._known_as, self._knows_better = pause.reason, pause.reason, True
                await self._said(pause)
            elif pause is None and self.told is not None and self._knows_better:
                logger.info("embedding.continued")
                self.told, self._knows_better = None, False
                await self._said(None)
            await self._wait(changed, _WAIT_S_MAX)

    def _is_news(self, pause: core.Pause) -> bool:
        return self.told is None or pause.reason not in (self.told, self._known_as)

    async def embed(
        self, texts: Sequence[str], *, is_wanted: Callable[[], bool] = _always, is_suspect: bool = False
    ) -> list[Outcome | None]:
        """One outcome for each text, in order; null for those that nobody wanted any more when their turn came.

        Texts under suspicion share no request with others.
        """
        tries = 0
        while texts:
            tries += 1
            try:
                embedded = await self._call(texts, is_wanted, is_alone=is_suspect or tries > 1)
            except InputRefused as error:
                if len(texts) > 1:
                    return await self._divided(texts, is_wanted)
                refused = Refused(ChunkRejectionReason.PROVIDER_REFUSED, str(error), tries)
            except BadAnswer as error:
                logger.warning("provider.answer_bad", why=error, texts=len(texts), tries=tries)
                if len(texts) > 1 and tries >= TOGETHER_TRIES_MAX:
                    return await self._divided(texts, is_wanted)
                if len(texts) > 1 or tries < POLICY.attempts_max:
                    await asyncio.sleep(_backoff_s(tries))
                    continue
                refused = Refused(ChunkRejectionReason.VECTOR_INVALID, str(error), tries)
            else:
                if embedded is None:
                    return [None] * len(texts)
                self._refused_in_row = 0
                return [Vector(*one) for one in zip(embedded.vectors, embedded.tokens, strict=True)]
            if self._may_refuse(refused):
                return [refused]
        return []

    async def _divided(self, texts: Sequence[str], is_wanted: Callable[[], bool]) -> list[Outcome | None]:
        first, second = core.halves(texts)
        return [
            *await self.embed(first, is_wanted=is_wanted, is_suspect=True),
            *await self.embed(second, is_wanted=is_wanted, is_suspect=True),
        ]

    def _may_refuse(self, refused: Refused) -> bool:
        """False where too many were refused in a row: then the space waits for an operator instead."""
        if self._refused_in_row < REFUSED_IN_ROW_MAX:
            self._refused_in_row += 1
            return True
        message = f"{self._refused_in_row} texts were refused one after another: {refused.message}"
        self._failed(PauseReason.PROVIDER_CONFIG, message, is_probe=False)
        return False

    async def _call(
        self, texts: Sequence[str], is_wanted: Callable[[], bool], *, is_alone: bool
    ) -> Embedded | None:
        """The answer; waits out whatever is the space's fault."""
        outages = 0
        while True:
            is_probe = await self._enter(is_wanted)
            if is_probe is None:
                return None
            try:
                # A limit may be less than a shared request holds.
                is_careful = is_probe or self._pace is not None
                return await self._attempt(texts, is_probe=is_probe, is_alone=is_alone or is_careful)
            except AskAgain as again:
                is_alone |= again.is_alone
                continue
            except Unavailable as error:
                outages += 1
                if is_probe or outages >= POLICY.attempts_max:
                    self._failed(PauseReason.PROVIDER_DOWN, str(error), is_probe=is_probe)
                    continue
                logger.warning("provider.unavailable", why=error, tries=outages)
            except RateLimited as error:
                self._failed(
                    PauseReason.PROVIDER_QUOTA,
                    str(error),
                    is_probe=is_probe,
                    retry_after_s=error.retry_after_s,
                    is_quota=error.is_quota,
                )
                continue
            except Misconfigured as error:
                self._failed(PauseReason.PROVIDER_CONFIG, str(error), is_probe=is_probe)
                continue
            finally:
                self._slots.release()
                self._under_way_count -= 1
                if is_probe and self._pause is not None and self._pause.is_probing:
                    self._happened(core.ProbeDropped())
            await asyncio.sleep(_backoff_s(outages))

    async def _attempt(self, texts: Sequence[str], *, is_probe: bool, is_alone: bool) -> Embedded:
        try:
            embedded = await self._requests.embed(texts, is_alone=is_alone)
        except (InputRefused, BadAnswer) as error:
            self._answered_count += 1
            if is_probe:
                self._answered_badly(error)
            raise
        self._answered_count += 1
        self._knows_better = True
        if is_probe:
            self._succeeded()
        return embedded

    def _answered_badly(self, error: ModelError) -> None:
        """To a probe: the space itself works, unless it was paused for this very kind of answer."""
        if self._refused_in_row >= REFUSED_IN_ROW_MAX:
            self._failed(PauseReason.PROVIDER_CONFIG, str(error), is_probe=True)
            return
        self._knows_better = True
        self._succeeded()

    async def _enter(self, is_wanted: Callable[[], bool]) -> bool | None:
        """Takes a slot, and waits while the space is paused. True for the one call that tries whether it still is;
        null, without a slot, when nobody wants the answer any more.
        """
        self._waiting_count += 1
        try:
            while True:
                await self._slots.acquire()
                is_probe = self._admitted() if is_wanted() else None
                if is_probe is not None and (is_probe or await self._turn_came(is_wanted)):
                    self._under_way_count += 1
                    return is_probe
                self._slots.release()
                if not is_wanted():
                    return None
                await self._wait(self._changed, self._wait_s())
        finally:
            self._waiting_count -= 1

    async def _turn_came(self, is_wanted: Callable[[], bool]) -> bool:
        """Waits for the pace. False when the turn is far off, when a pause began meanwhile, or nobody wants the answer."""
        now = self._clock.monotonic_s()
        if self._pace is None:
            if not self._under_way_count:
                self._answered_count, self._counted_from_s = 0, now
            return True
        pace, turn_s = core.take_turn(self._pace, now)
        if turn_s - now > _WAIT_S_MAX:
            return False  # by then more is known of the pace
        self._pace = pace
        while self._pause is None and is_wanted():
            left_s = turn_s - self._clock.monotonic_s()
            if left_s <= 0:
                return True
            await self._wait(self._changed, left_s)
        return False

    def _wait_s(self) -> float:
        is_for_others = self._pause is None or self._pause.is_probing
        return _WAIT_S_MAX if is_for_others else min(_WAIT_S_MAX, max(0.01, self.next_try_in_s))

    def _admitted(self) -> bool | None:
        now = self._clock.monotonic_s()
        if self._pause is not None and core.ends_in_time(
            self._pause, now, answered_count=self._answered_count
        ):
            self._pace = core.pace_after(
                answered_count=self._answered_count,
                began_s=self._counted_from_s,
                paused_s=self._pause.since_s,
                at_s=now,
                requests_max=self._requests_max,
            )
            self._answered_count, self._counted_from_s = 0, now
            self._succeeded()
        if self._pause is None:
            if self._pace is not None and core.is_free(self._pace, now):
                self._pace = None
            return False
        if not core.may_probe(self._pause, now):
            return None
        self._happened(core.ProbeStarted())
        return True

    async def _wait(self, changed: asyncio.Event, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            pass  # Times pass without anything happening.

    def _succeeded(self) -> None:
        self._happened(core.Succeeded(at_s=self._clock.monotonic_s()))

    def _failed(
        self,
        reason: PauseReason,
        message: str,
        *,
        is_probe: bool,
        retry_after_s: float | None = None,
        is_quota: bool = False,
    ) -> None:
        self._happened(
            core.Failed(
                reason=reason,
                message=message,
                at_s=self._clock.monotonic_s(),
                is_probe=is_probe,
                retry_after_s=retry_after_s,
                is_quota=is_quota,
            )
        )

    def _happened(self, happening: core.Happening) -> None:
        self._pause = core.evolve(self._pause, happening)
        if self._pause is None:
            self._known_as = None
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _backoff_s(tries: int) -> float:
    return POLICY.backoff_s(tries, jitter=random.random())  # noqa: S311 - spreads retries
