"""One leadership: its fenced writer for facts, its plain one for chunks, and the one way in which it decides.

Opening one makes two leaders harmless, by its order:

1. it opens the transactional writer, which fences the one before (its open transaction is aborted);
2. it reads where `imports` ends now and waits until the projection has folded that far;
3. only then anything is decided. Every decision is taken from the projection with the lock held, committed as one
   transaction, and folded before the next one is looked at.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from eventlog.avro import Schemas
from eventlog.clock import Clock
from eventlog.envelope import seal
from eventlog.events import Message
from eventlog.log import Decider, Log, NewRecord, Writer
from eventlog.topics import IMPORTS, Names
from ingest.blobs import Blobs
from ingest.parser import Parser
from ingest.projection import Projection

TRANSACTIONAL_ID = "ingest-leader"
SOURCE = "paperlog/ingest"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderParts:
    """What app.py gives: nothing here builds a client."""

    log: Log
    names: Names
    schemas: Schemas
    projection: Projection
    parser: Parser
    blobs: Blobs
    clock: Clock
    default_space: str
    work_dir: Path


class Term:
    def __init__(self, parts: LeaderParts, decider: Decider, writer: Writer) -> None:
        self.parts = parts
        self.writer = writer
        self.lock = asyncio.Lock()
        self._decider = decider

    def sealed(self, fact: Message, cause: str = "") -> NewRecord:
        """Raises UnprocessableRecord when the fact does not fit its schema."""
        return seal(self.parts.schemas, fact, topic=IMPORTS, source=SOURCE, causation_id=cause, partition=0)

    async def commit(self, records: Sequence[NewRecord]) -> None:
        """Called with the lock held. Returns when the projection has folded them."""
        positions = await self._decider.commit(records)
        await self._folded(positions[-1].offset + 1)

    async def catch_up(self) -> None:
        """The projection has folded all that stands in `imports` now."""
        await self._folded((await self.parts.log.ends(IMPORTS))[0])

    async def _folded(self, position: int) -> None:
        projection = self.parts.projection
        while projection.position < position:
            await projection.wait_for_change(projection.position, 1.0)


@asynccontextmanager
async def open_term(parts: LeaderParts) -> AsyncIterator[Term]:
    decider = await parts.log.decider(TRANSACTIONAL_ID)
    try:
        writer = await parts.log.writer()
        try:
            term = Term(parts, decider, writer)
            await term.catch_up()
            yield term
        finally:
            await asyncio.shield(writer.close())
    finally:
        await asyncio.shield(decider.close())
