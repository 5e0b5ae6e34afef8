"""Says of documents that their chunks are settled, and of imports that they are complete, as soon as it is true."""

import asyncio
from collections.abc import Sequence

from eventlog.events import ImportCompleted, Message
from eventlog.logs import Logger
from ingest.core import complete, settle_document
from ingest.term import Term

logger = Logger("ingest.settling")

FACTS_AT_ONCE = 50
PAUSE_S = 0.05
LOOKED_AT_S = 5.0


class Settling:
    def __init__(self, term: Term) -> None:
        self._term = term
        self._projection = term.parts.projection

    async def run(self) -> None:
        """Ends only by cancellation or failure."""
        while True:
            position = self._projection.position
            if not await self._settle():
                await self._projection.wait_for_change(position, LOOKED_AT_S)
            # A document a transaction would be 40 a second: let some gather.
            await asyncio.sleep(PAUSE_S)

    async def _settle(self) -> bool:
        async with self._term.lock:
            at = self._term.parts.clock.now()
            tallies = self._projection.documents_to_settle(FACTS_AT_ONCE)
            await self._say([settle_document(tally, at) for tally in tallies])
            # Only now: what these replace counts as superseded in a completion behind them.
            completions = await self._completions()
            await self._say(completions)
        return bool(tallies or completions)

    async def _say(self, facts: Sequence[Message]) -> None:
        if facts:
            await self._term.commit([self._term.sealed(fact) for fact in facts])

    async def _completions(self) -> list[ImportCompleted]:
        if not self._projection.complete_imports():
            return []
        # A store that was lost and opened just now takes its settlements back before anybody counts them.
        await self._term.catch_up()
        store_id = self._projection.store_id()
        if store_id is None:
            return []
        out = []
        for state in self._projection.complete_imports():
            chunks, tokens, digest = await asyncio.to_thread(self._projection.totals, state.import_id)
            at = self._term.parts.clock.now()
            out.append(
                complete(state, chunks=chunks, tokens_billed=tokens, digest=digest, store_id=store_id, at=at)
            )
            logger.info("import.completed", import_id=state.import_id, stored=chunks.stored)
        return out
