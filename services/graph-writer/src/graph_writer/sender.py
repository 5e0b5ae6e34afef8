"""Puts records into the log until the log has them. It waits out an outage; it never drops and never reorders.

A writer that failed is broken for good, so the whole list is sent again by a new one: ids are derived from content,
and a repeat lands on itself.
"""

import asyncio
import random
from collections.abc import Sequence

from eventlog.avro import Schemas
from eventlog.envelope import seal
from eventlog.errors import TransientFailure
from eventlog.events import Message
from eventlog.log import Log, NewRecord, Writer
from eventlog.logs import Logger
from eventlog.retry import RetryPolicy
from eventlog.topics import IMPORTS
from graph_writer.health import Health

SOURCE = "graph-writer"
_log = Logger("graph_writer.sender")
_RETRY = RetryPolicy(backoff_s_first=0.2, backoff_s_max=5.0)


class Sender:
    def __init__(self, log: Log, schemas: Schemas, health: Health) -> None:
        self._kafka = log
        self._schemas = schemas
        self._health = health
        self._writer: Writer | None = None
        self._lock = asyncio.Lock()

    async def say(self, answers: Sequence[tuple[Message, str]]) -> None:
        """Events on `imports`, each with the `ce_id` of what it answers or an empty string."""
        await self.send(
            [
                seal(self._schemas, event, topic=IMPORTS, source=SOURCE, causation_id=cause)
                for event, cause in answers
            ]
        )

    async def send(self, records: Sequence[NewRecord]) -> None:
        """Returns when every record is acknowledged, in their order. Raises UnprocessableRecord for one too large."""
        if not records:
            return
        async with self._lock:
            attempt = 0
            while True:
                attempt += 1
                try:
                    await self._try(records)
                except TransientFailure as error:
                    self._health.add("log_down")
                    _log.warning("log.send_failed", attempt=attempt, error=error)
                    await self._drop_writer()
                    await asyncio.sleep(_RETRY.backoff_s(attempt, jitter=random.random()))  # noqa: S311 - spreads retries
                else:
                    self._health.remove("log_down")
                    return

    async def close(self) -> None:
        async with self._lock:
            await self._drop_writer()

    async def _try(self, records: Sequence[NewRecord]) -> None:
        if self._writer is None:
            self._writer = await self._kafka.writer()
        acks = [await self._writer.send(record) for record in records]
        for ack in acks:
            await ack

    async def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                await asyncio.wait_for(writer.close(), timeout=5.0)
            except (TransientFailure, TimeoutError):
                _log.warning("log.writer_not_closed")
