"""Follows `imports`: which attempts were cancelled, and what other instances of the space have met.

Holds one number for each import that is cancelled and not resumed. Until it has read to the end once, nobody pays.
"""

import asyncio
from collections.abc import Awaitable, Callable

from eventlog.avro import Schemas
from eventlog.envelope import header
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import EmbeddingPaused, ImportCancelled, ImportResumed, Message
from eventlog.ids import ImportId
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import IMPORTS

logger = Logger("embedder.story")

_HERE = TopicPartition(IMPORTS, 0)
_WANTED = {f"paperlog.{cls.__name__}": cls for cls in (ImportCancelled, ImportResumed, EmbeddingPaused)}
RETRY_S = 1.0
BATCH_RECORDS = 1_000


class Story:
    def __init__(
        self,
        log: Log,
        schemas: Schemas,
        *,
        source: str,
        on_pause: Callable[[EmbeddingPaused], Awaitable[None]],
    ) -> None:
        self._log = log
        self._schemas = schemas
        self._source = source
        self._on_pause = on_pause
        self._cancelled: dict[ImportId, int] = {}
        self._position = 0
        self.caught_up = asyncio.Event()

    def is_cancelled(self, import_id: ImportId, attempt: int) -> bool:
        return attempt <= self._cancelled.get(import_id, 0)

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except TransientFailure as failure:
                logger.warning("story.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        end = (await self._log.ends(IMPORTS))[0]
        if self._position > end:  # another log
            self._position, self._cancelled = 0, {}
        reader = await self._log.reader({_HERE: max(self._position, (await self._log.begins(IMPORTS))[0])})
        try:
            while True:
                for record in await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0):
                    await self._take(record)
                self._position = await reader.position(_HERE)
                if self._position >= end:
                    self.caught_up.set()
        finally:
            await reader.close()

    async def _take(self, record: Record) -> None:
        if header(record, "ce_type") not in _WANTED:
            return
        try:
            event: Message = self._schemas.decode(record.value)
        except UnprocessableRecord:
            return  # The owner of the story dead-letters it.
        match event:
            case ImportCancelled():
                self._cancelled[event.import_id] = max(event.attempt, self._cancelled.get(event.import_id, 0))
            case ImportResumed() if event.attempt > self._cancelled.get(event.import_id, 0):
                self._cancelled.pop(event.import_id, None)
            case EmbeddingPaused() if self.caught_up.is_set() and header(record, "ce_source") != self._source:
                await self._on_pause(event)
            case _:
                pass  # Nothing that stops a payment.
