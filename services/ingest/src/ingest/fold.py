"""Follows `imports` and `import-requests` into the projection, on every instance, for as long as it runs.

It decides nothing. A record that is none of ours is noted with its coordinates, for the leader to dead-letter, and
passed; many in a row stop the fold until an operator says go on, since then we are wrong and not the data.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from eventlog.avro import Schemas
from eventlog.envelope import header
from eventlog.errors import RecordGone, TransientFailure, UnprocessableRecord
from eventlog.events import Message, RequestImport
from eventlog.ids import ImportId, import_id_of_command, import_id_of_coordinates, import_id_of_key
from eventlog.log import Log, Reader, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import IMPORT_REQUESTS, IMPORTS
from ingest.projection import Projection

logger = Logger("ingest.fold")

BATCH_RECORDS = 500
POISON_IN_A_ROW_MAX = 20
RETRY_S = 1.0
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
    if id_:
        return import_id_of_command(source, id_)
    return import_id_of_coordinates(record.topic, record.partition, record.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    record: Record
    reason: str
    message: str


class Fold:
    def __init__(self, *, log: Log, schemas: Schemas, projection: Projection, default_space: str) -> None:
        self._log = log
        self._schemas = schemas
        self._projection = projection
        self._default_space = default_space
        self._poison_in_a_row = 0
        self._go_on = asyncio.Event()
        self._go_on.set()
        self.poison: asyncio.Queue[Poison] = asyncio.Queue(maxsize=POISON_IN_A_ROW_MAX * 5)
        self.has_caught_up = False
        self.is_following = False

    @property
    def is_paused(self) -> bool:
        return not self._go_on.is_set()

    def go_on(self) -> None:
        self._poison_in_a_row = 0
        self._go_on.set()

    async def run(self) -> None:
        """Ends only by cancellation, or by a bug."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self._follow_imports))
            tasks.create_task(self._follow(self._follow_requests))

    async def _follow(self, follow: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await follow()
            except TransientFailure as failure:
                self.is_following = False
                logger.warning("fold.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _follow_imports(self) -> None:
        end = (await self._log.ends(IMPORTS))[0]
        await self._check_position(end)
        reader = await self._log.reader({_IMPORTS: self._projection.position})
        try:
            while True:
                self.is_following = True
                await self._go_on.wait()
                records = await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0)
                await self._fold(records, await reader.position(_IMPORTS))
                self.has_caught_up = self.has_caught_up or self._projection.position >= end
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
            await asyncio.to_thread(self._projection.reset)

    async def _fold(self, records: list[Record], position: int) -> None:
        events, poison = await asyncio.to_thread(self._decode, records)
        for one in poison:
            self._note(one)
        position = max(position, records[-1].offset + 1) if records else position
        if not records and position == self._projection.position:
            return
        await asyncio.to_thread(self._projection.apply, events, position, _last(records))
        await self._projection.notify()
        if self._poison_in_a_row > POISON_IN_A_ROW_MAX:
            logger.error("fold.paused", poison_in_a_row=self._poison_in_a_row, position=position)
            self._go_on.clear()

    def _decode(self, records: list[Record]) -> tuple[list[tuple[int, Message]], list[Poison]]:
        events: list[tuple[int, Message]] = []
        poison: list[Poison] = []
        for record in records:
            try:
                events.append((record.offset, self._schemas.decode(record.value)))
                self._poison_in_a_row = 0
            except UnprocessableRecord as error:
                self._poison_in_a_row += 1
                poison.append(Poison(record=record, reason=error.reason, message=str(error)))
        return events, poison

    def _note(self, poison: Poison) -> None:
        logger.warning(
            "record.unprocessable", topic=IMPORTS, offset=poison.record.offset, reason=poison.reason
        )
        if self.poison.full():
            self.poison.get_nowait()  # only a leader empties it; the newest are kept, the log keeps them all
        self.poison.put_nowait(poison)

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

    def _requests(self, records: list[Record]) -> list[tuple[ImportId, RequestImport, str]]:
        out = []
        for record in records:
            try:
                command = self._schemas.decode(record.value)
            except UnprocessableRecord:
                continue  # The leader dead-letters it: here it is only not shown.
            if isinstance(command, RequestImport):
                project = self._projection.project(command.project_name)
                space = project.space if project else (command.space or self._default_space)
                out.append((import_id_of(command, record), command, space))
        return out


def _last(records: list[Record]) -> tuple[int, str] | None:
    return (records[-1].offset, header(records[-1], "ce_id")) if records else None


async def _close(reader: Reader) -> None:
    await asyncio.shield(reader.close())
