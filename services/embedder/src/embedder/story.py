"""Follows `imports`: which attempts are over, and what other processes of the space have met.

Holds one number for each import that was ever cancelled or resumed. Until it has read to the end once, nobody pays.
"""

import asyncio
from collections.abc import Callable

from eventlog.avro import Schemas
from eventlog.envelope import header
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import EmbeddingContinued, EmbeddingPaused, ImportCancelled, ImportResumed, Message
from eventlog.ids import ImportId
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import IMPORTS

logger = Logger("embedder.story")

_HERE = TopicPartition(IMPORTS, 0)
_WANTED = {
    f"paperlog.{cls.__name__}"
    for cls in (ImportCancelled, ImportResumed, EmbeddingPaused, EmbeddingContinued)
}
RETRY_S = 1.0
BATCH_RECORDS = 1_000

OnPause = Callable[[EmbeddingPaused | EmbeddingContinued], None]


class Story:
    """`on_pause` hears what others say from now on, and once what stood at the end when this process came."""

    def __init__(self, log: Log, schemas: Schemas, *, space: str, source: str, on_pause: OnPause) -> None:
        self._log = log
        self._schemas = schemas
        self._space = space
        self._source = source
        self._on_pause = on_pause
        self._over: dict[ImportId, int] = {}
        self._last: EmbeddingPaused | EmbeddingContinued | None = None
        self._position = 0
        self.caught_up = asyncio.Event()

    def is_over(self, import_id: ImportId, attempt: int) -> bool:
        """Cancelled, or superseded by a resume: that is another attempt, which asks for all that is missing."""
        return attempt <= self._over.get(import_id, -1)

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except TransientFailure as failure:
                logger.warning("story.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        end = (await self._log.ends(IMPORTS))[0]
        reader = await self._log.reader({_HERE: max(self._position, (await self._log.begins(IMPORTS))[0])})
        try:
            while True:
                self._position = await reader.position(_HERE)
                if self._position >= end and not self.caught_up.is_set():
                    if self._last is not None:
                        self._on_pause(self._last)
                    self.caught_up.set()
                for record in await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0):
                    self._take(record)
        finally:
            await reader.close()

    def _take(self, record: Record) -> None:
        if header(record, "ce_type") not in _WANTED:
            return
        try:
            event: Message = self._schemas.decode(record.value)
        except UnprocessableRecord:
            return  # The owner of the story dead-letters it.
        if isinstance(event, ImportCancelled):
            self._ended(event.import_id, event.attempt)
        elif isinstance(event, ImportResumed):
            self._ended(event.import_id, event.attempt - 1)
        elif isinstance(event, EmbeddingPaused | EmbeddingContinued) and event.space == self._space:
            self._last = event
            if self.caught_up.is_set() and header(record, "ce_source") != self._source:
                self._on_pause(event)

    def _ended(self, import_id: ImportId, attempt: int) -> None:
        self._over[import_id] = max(attempt, self._over.get(import_id, -1))
