"""The one that decides and parses: the owner of `import-requests`. Others follow and take over when it dies.

Here is the election. What a leader does stands in three files, whose loops run side by side for one term (`term`):
commands (`obeying`), parsing and publishing (`driving`), and completing (`settling`). What it was doing when it died is
in the log: documents that are listed are not parsed again, the one in the middle is published again under the same ids.
"""

import asyncio
from collections.abc import Sequence

from eventlog.errors import Fenced, TransientFailure
from eventlog.log import GroupReader, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import IMPORT_REQUESTS
from ingest.dead_letters import GROUP, DeadLetters
from ingest.driving import Driving
from ingest.obeying import Obeying
from ingest.settling import Settling
from ingest.term import LeaderParts, open_term

logger = Logger("ingest.leader")

RETRY_S = 1.0


class Leader:
    """`run` takes part in the election for as long as the process lives and leads while it is elected."""

    def __init__(self, parts: LeaderParts) -> None:
        self._parts = parts
        self._dead_letters = DeadLetters(parts)
        self._elected = asyncio.Event()
        self._term: asyncio.Task[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Many poison commands in a row: alive, not ready, until an operator says go on."""
        return self._dead_letters.is_paused

    def go_on(self) -> None:
        self._dead_letters.go_on()

    async def run(self) -> None:
        while True:
            try:
                await self._take_part()
            except TransientFailure as failure:
                logger.warning("leader.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _take_part(self) -> None:
        """Raises Fenced: whoever was fenced has lost the election without hearing of it, and joins the group anew."""
        group = await self._parts.log.group(
            GROUP, IMPORT_REQUESTS, assigned=self._on_assigned, revoked=self._on_revoked
        )
        try:
            while True:
                await self._elected.wait()
                self._term = asyncio.create_task(self._lead(group))
                try:
                    await self._term
                except asyncio.CancelledError:
                    if not self._term.cancelled() or _is_cancelling():
                        raise
                except Fenced:
                    raise
                except TransientFailure as failure:
                    logger.warning("leader.interrupted", why=failure)
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._end_term()
            self._elected.clear()
            await asyncio.shield(group.close())

    async def _on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        if partitions:
            self._elected.set()

    async def _on_revoked(self, _partitions: frozenset[TopicPartition]) -> None:
        self._elected.clear()
        await self._end_term()

    async def _end_term(self) -> None:
        if self._term is not None and not self._term.done():
            self._term.cancel()
            await asyncio.wait([self._term])

    async def _lead(self, group: GroupReader) -> None:
        async with open_term(self._parts) as term:
            logger.info("leader.elected", position=self._parts.projection.position)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(Obeying(term, group, self._dead_letters).run())
                    tasks.create_task(Driving(term).run())
                    tasks.create_task(Settling(term).run())
            except BaseExceptionGroup as failures:
                expected, other = failures.split(TransientFailure)
                if other is not None:
                    raise other from None
                assert expected is not None, "a group holds something"
                raise _worst(_leaves(expected)) from None


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _worst(failures: Sequence[BaseException]) -> BaseException:
    return next((one for one in failures if isinstance(one, Fenced)), failures[0])
