"""Puts events into the log and returns only when they are there. A paid vector is held until then, whatever it takes."""

import asyncio
from collections.abc import Awaitable, Sequence

from eventlog.errors import TransientFailure
from eventlog.log import Log, NewRecord, Position, Writer
from eventlog.logs import Logger

logger = Logger("embedder.publisher")

RETRY_S = 0.5


class Publisher:
    """One writer for all workers; a broken one is replaced, and what was under way is sent again."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._writer: Writer | None = None
        self._opening = asyncio.Lock()

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """In order. Raises UnprocessableRecord when one is too large; a repeat has the same `ce_id`."""
        while True:
            writer = await self._opened()
            try:
                return await _acknowledged([await writer.send(record) for record in records])
            except TransientFailure as failure:
                logger.warning("log.write_failed", why=failure, records=len(records))
                await self._drop(writer)
                await asyncio.sleep(RETRY_S)

    async def _opened(self) -> Writer:
        async with self._opening:
            while self._writer is None:
                try:
                    self._writer = await self._log.writer()
                except TransientFailure as failure:
                    logger.warning("log.unavailable", why=failure)
                    await asyncio.sleep(RETRY_S)
            return self._writer

    async def _drop(self, writer: Writer) -> None:
        if self._writer is writer:
            self._writer = None
            await writer.close()

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()


async def _acknowledged(acks: Sequence[Awaitable[Position]]) -> list[Position]:
    """Looks at each, for a failure that nobody looks at is reported as a bug."""
    positions: list[Position] = []
    failures: list[TransientFailure] = []
    for ack in acks:
        try:
            positions.append(await ack)
        except TransientFailure as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    return positions
