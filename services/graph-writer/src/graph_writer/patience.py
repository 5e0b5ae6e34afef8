"""Waits out a store that does not answer, inside the batch, and says so in the log once it lasts."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventlog.clock import Clock
from eventlog.events import WritingContinued, WritingPaused, WritingPauseReason
from eventlog.logs import Logger
from eventlog.retry import RetryPolicy
from graph_writer.health import Health
from graph_writer.opened import OpenedStore
from graph_writer.sender import Sender
from graph_writer.stores.store import StoreAway

PAUSE_SAID_AFTER_S = 2.0
_RETRY = RetryPolicy(backoff_s_first=0.1, backoff_s_max=5.0, retry_after_s_max=60.0)
_log = Logger("graph_writer.patience")
T = TypeVar("T")


class Patience:
    def __init__(self, *, opened: OpenedStore, sender: Sender, clock: Clock, health: Health) -> None:
        self._opened = opened
        self._sender = sender
        self._clock = clock
        self._health = health
        self._is_said = False

    async def wait_out(self, operation: Callable[[], Awaitable[T]]) -> T:
        """What the operation returns, however long the store is away. The operation must bear being repeated."""
        since = self._clock.monotonic_s()
        attempt = 0
        while True:
            attempt += 1
            try:
                done = await operation()
            except StoreAway as error:
                self._health.add("store_down")
                _log.warning("store.away", attempt=attempt, error=error)
                if self._clock.monotonic_s() - since >= PAUSE_SAID_AFTER_S:
                    await self._say_paused()
                jitter = random.random()  # noqa: S311 - spreads retries
                await asyncio.sleep(
                    _RETRY.backoff_s(attempt, retry_after_s=error.retry_after_s, jitter=jitter)
                )
            else:
                if attempt > 1:
                    self._health.remove("store_down")
                    await self._say_continued()
                return done

    async def _say_paused(self) -> None:
        if not self._is_said:
            self._is_said = True
            event = WritingPaused(
                occurred_at=self._clock.now(), store_id=self._opened.id, reason=WritingPauseReason.STORE_DOWN
            )
            await self._sender.say([(event, "")])

    async def _say_continued(self) -> None:
        if self._is_said:
            self._is_said = False
            event = WritingContinued(
                occurred_at=self._clock.now(), store_id=self._opened.id, reason=WritingPauseReason.STORE_DOWN
            )
            await self._sender.say([(event, "")])
