"""Follows `imports`: which attempts are over, and what other processes of the space have met.

Holds one number for each import that was ever cancelled or resumed. Until it has read to the end once, nobody pays; a
snapshot of it makes that short.
"""

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

from eventlog.avro import Schemas
from eventlog.envelope import header
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import EmbeddingContinued, EmbeddingPaused, ImportCancelled, ImportResumed, Message
from eventlog.ids import ImportId
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.snapshot import SnapshotFile
from eventlog.topics import IMPORTS

logger = Logger("embedder.story")

_HERE = TopicPartition(IMPORTS, 0)
_WANTED = {
    f"paperlog.{cls.__name__}"
    for cls in (ImportCancelled, ImportResumed, EmbeddingPaused, EmbeddingContinued)
}
RETRY_S = 1.0
BATCH_RECORDS = 1_000
SNAPSHOT_VERSION = 1

OnPause = Callable[[EmbeddingPaused | EmbeddingContinued], None]


class Story:
    """`on_pause` hears what others say from now on, and once what stood at the end when this process came."""

    def __init__(
        self,
        log: Log,
        schemas: Schemas,
        *,
        space: str,
        source: str,
        on_pause: OnPause,
        snapshot: SnapshotFile,
    ) -> None:
        self._log = log
        self._schemas = schemas
        self._snapshot = snapshot
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
        if self._position == 0:
            await self._restore()
        end = (await self._log.ends(IMPORTS))[0]
        reader = await self._log.reader({_HERE: max(self._position, (await self._log.begins(IMPORTS))[0])})
        last: Record | None = None
        try:
            while True:
                self._position = await reader.position(_HERE)
                if last is not None and self._snapshot.is_due(self._position):
                    self._snapshot.keep(self._position, last, self._state())
                if self._position >= end and not self.caught_up.is_set():
                    if self._last is not None:
                        self._on_pause(self._last)
                    self.caught_up.set()
                for record in await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0):
                    self._take(record)
                    last = record
        finally:
            await reader.close()

    async def _restore(self) -> None:
        found = await self._snapshot.load(self._log)
        if found is None:
            return
        position, state = found
        paused = state["last"] and self._schemas.decode(base64.b64decode(state["last"]))
        if paused is None or (
            isinstance(paused, EmbeddingPaused | EmbeddingContinued) and paused.space == self._space
        ):
            self._last = paused
            self._over = {ImportId(UUID(one)): attempt for one, attempt in state["over"].items()}
            self._position = position

    def _state(self) -> Any:
        return {
            "over": {str(one): attempt for one, attempt in self._over.items()},
            "last": self._last and base64.b64encode(self._schemas.encode(self._last)[0]).decode(),
        }

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
