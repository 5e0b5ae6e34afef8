"""Follows `imports` and `import-requests` into the projection, on every instance, for as long as it runs.

It decides nothing. A record that is none of ours is noted with its coordinates, for the leader to dead-letter, and
passed; many in a row stop the fold until an operator says go on, since then we are wrong and not the data.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from eventlog.avro import Schemas
from eventlog.envelope import header
from eventlog.errors import RecordGone, TransientFailure, UnprocessableRecord
from eventlog.events import Message, RequestImport
from eventlog.ids import ImportId, import_id_of_command, import_id_of_coordinates, import_id_of_key
from eventlog.log import Log, Reader, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import IMPORT_REQUESTS, IMPORTS
from ingest.projection import Poison, Projection, Requested

logger = Logger("ingest.fold")

BATCH_RECORDS = 500
POISON_IN_A_ROW_MAX = 20
RETRY_S = 1.0
WATCH_S = 2.0
ANONYMOUS = "anonymous"
_IMPORTS = TopicPartition(IMPORTS, 0)
_REQUESTS = TopicPartition(IMPORT_REQUESTS, 0)


def command_id(record: Record) -> str:
    """A command's place in the log: sent again after a refusal, it is looked at again."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


def import_id_of(command: RequestImport, record: Record) -> ImportId:
    """Explicit, by idempotency key, by CloudEvents identity, or by coordinates (DESIGN.md, Ids)."""
    if command.import_id is not None:
        return command.import_id
    if command.idempotency_key:
        return import_id_of_key(command.requested_by or ANONYMOUS, command.idempotency_key)
    source, id_ = header(record, "ce_source"), header(record, "ce_id")
    if source and id_:  # an id alone is another producer's id too
        return import_id_of_command(source, id_)
    return import_id_of_coordinates(record.topic, record.partition, record.offset)


class Fold:
    def __init__(self, *, log: Log, schemas: Schemas, projection: Projection, default_space: str) -> None:
        self._log = log
        self._schemas = schemas
        self._projection = projection
        self._default_space = default_space
        self._go_on = asyncio.Event()
        self.has_caught_up = False
        self.is_following = False
        self._is_anew = projection.position == 0
        self._look()

    @property
    def is_paused(self) -> bool:
        return not self._go_on.is_set()

    @property
    def is_rebuilding(self) -> bool:
        """Whether the projection began at nothing and has not come up to the log yet: what it says then is older than what
        has been said before.
        """
        return self._is_anew and not self.has_caught_up and not self.is_paused

    def go_on(self) -> None:
        self._projection.forget_poison_in_a_row()
        self._look()

    def _look(self) -> None:
        if self._projection.poison_in_a_row <= POISON_IN_A_ROW_MAX:
            self._go_on.set()
        else:
            logger.error("fold.paused", poison_in_a_row=self._projection.poison_in_a_row)
            self._go_on.clear()

    async def run(self) -> None:
        """Ends only by cancellation, or by a bug."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self._follow_imports))
            tasks.create_task(self._follow(self._follow_requests))
            tasks.create_task(self._watch())

    async def _follow(self, follow: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await follow()
            except TransientFailure as failure:
                logger.warning("fold.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        """A reader waits for an absent broker without a word, so the broker is asked."""
        while True:
            try:
                await self._log.ends(IMPORTS)
                self.is_following = True
                await asyncio.sleep(WATCH_S)
            except TransientFailure as failure:
                if self.is_following:
                    logger.warning("log.unavailable", why=failure)
                self.is_following = False
                await asyncio.sleep(RETRY_S)

    async def _follow_imports(self) -> None:
        end = (await self._log.ends(IMPORTS))[0]
        await self._check_position(end)
        reader = await self._log.reader({_IMPORTS: self._projection.position})
        try:
            while True:
                self.has_caught_up = self.has_caught_up or self._projection.position >= end
                await self._go_on.wait()
                records = await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0)
                await self._fold(records, await reader.position(_IMPORTS))
        finally:
            await _close(reader)

    async def _check_position(self, end: int) -> None:
        """A log that was wiped under a kept projection has another record, or none, where we stopped."""
        offset, id_ = self._projection.last_record()
        if offset is None:
            return
        try:
            found = header(await self._log.read_at(IMPORTS, 0, offset), "ce_id")
        except RecordGone:
            found = None
        if found != id_ or self._projection.position > end:
            logger.warning("fold.restarted", why="the log is not the one that was folded", offset=offset)
            self._is_anew = True
            await asyncio.to_thread(self._projection.reset)

    async def _fold(self, records: list[Record], position: int) -> None:
        position = max(position, records[-1].offset + 1) if records else position
        if records or position != self._projection.position:
            await asyncio.to_thread(self._decode_and_apply, records, position)
            await self._projection.notify()
            self._look()

    def _decode_and_apply(self, records: list[Record], position: int) -> None:
        events: list[tuple[int, Message]] = []
        poison: list[Poison] = []
        in_a_row = self._projection.poison_in_a_row
        for record in records:
            try:
                events.append((record.offset, self._schemas.decode(record.value)))
                in_a_row = 0
            except UnprocessableRecord as error:
                in_a_row += 1
                poison.append(Poison(offset=record.offset, reason=error.reason, message=str(error)))
                logger.warning(
                    "record.unprocessable", topic=IMPORTS, offset=record.offset, reason=error.reason
                )
        self._projection.apply(events, position, _last(records), poison=poison, poison_in_a_row=in_a_row)

    async def _follow_requests(self) -> None:
        end = (await self._log.ends(IMPORT_REQUESTS))[0]
        begin = (await self._log.begins(IMPORT_REQUESTS))[0]
        position = self._projection.requests_position
        reader = await self._log.reader({_REQUESTS: position if begin <= position <= end else begin})
        try:
            while True:
                records = await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0)
                if records:
                    requests = list(self._requests(records))
                    position = records[-1].offset + 1
                    await asyncio.to_thread(self._projection.apply_requests, requests, position)
                    await self._projection.notify()
        finally:
            await _close(reader)

    def _requests(self, records: list[Record]) -> Iterator[Requested]:
        for record in records:
            try:
                command = self._schemas.decode(record.value)
            except UnprocessableRecord:
                continue  # The leader dead-letters it: here it is only not shown.
            if isinstance(command, RequestImport):
                project = self._projection.project(command.project_name)
                yield Requested(
                    import_id=import_id_of(command, record),
                    command_id=command_id(record),
                    command=command,
                    space=project.space if project else (command.space or self._default_space),
                )


def _last(records: list[Record]) -> tuple[int, str] | None:
    return (records[-1].offset, header(records[-1], "ce_id")) if records else None


async def _close(reader: Reader) -> None:
    await asyncio.shield(reader.close())
