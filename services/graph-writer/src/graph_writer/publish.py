"""Says what the store has flushed, then lets the positions follow: the one routine whose order matters.

    1. the store flushes, and is still the one that was opened, and no older copy of it
    2. settlements and settled documents go into the log, and are acknowledged
    3. positions advance in every collection

A death before 2 costs a repeat; before 3, settlements that are said twice. Never a loss, never a word too early.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventlog.clock import Clock
from eventlog.events import DocumentSettled
from eventlog.log import TopicPartition
from graph_writer.apply import Applied
from graph_writer.core import CYCLE_S_MIN, ReadTo, Settlement, cycle_s, plan_settlements
from graph_writer.opened import OpenedStore
from graph_writer.patience import Patience
from graph_writer.sender import Sender

IDLE_S = 0.1
PENDING_MAX = 5_000


class Publisher:
    def __init__(
        self,
        *,
        opened: OpenedStore,
        sender: Sender,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._opened = opened
        self._sender = sender
        self._clock = clock
        self._patience = patience
        self._read_to: dict[TopicPartition, ReadTo] = {}
        self._settlements: list[Settlement] = []
        self._documents: list[tuple[DocumentSettled, str]] = []
        self._last_at = 0.0
        self._flush_s = 0.0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._turn = asyncio.Lock()

    async def add(self, applied: Applied) -> None:
        """Waits while too much waits to be said: the log is away, or slower than the store."""
        await self._room.wait()
        self._read_to.update(applied.read_to)
        self._settlements.extend(applied.settlements)
        self._documents.extend(applied.documents)
        self._last_at = self._clock.monotonic_s()
        self._wake.set()
        if len(self._settlements) >= PENDING_MAX:
            self._room.clear()

    @asynccontextmanager
    async def silenced(self) -> AsyncIterator[None]:
        """For a new assignment: no cycle runs inside, and what was not said yet comes again from the positions."""
        async with self._turn:
            self._read_to.clear()
            self._settlements.clear()
            self._documents.clear()
            self._room.set()
            yield

    async def run(self) -> None:
        """Cycles every second or few while records come, soon after they stop."""
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), timeout=CYCLE_S_MIN)
            except TimeoutError:
                async with self._turn:  # or an assignment reads the positions anew meanwhile
                    await self._patience.wait_out(self._opened.check)
                continue
            until = self._clock.monotonic_s() + cycle_s(self._flush_s)
            while self._room.is_set():
                now = self._clock.monotonic_s()
                if now >= until or now - self._last_at >= IDLE_S:
                    break
                await asyncio.sleep(IDLE_S / 2)
            await self.cycle()

    async def cycle(self) -> None:
        async with self._turn:
            self._wake.clear()
            read_to, self._read_to = self._read_to, {}
            settlements, self._settlements = self._settlements, []
            documents, self._documents = self._documents, []
            began_s = self._clock.monotonic_s()
            await self._patience.wait_out(self._opened.store.flush)
            await self._patience.wait_out(self._opened.check)
            self._flush_s = self._clock.monotonic_s() - began_s
            said = plan_settlements(settlements, store_id=self._opened.id, at=self._clock.now())
            await self._sender.say([*((event, "") for event in said), *documents])
            await self._patience.wait_out(lambda: self._opened.advance(read_to))
            self._room.set()
