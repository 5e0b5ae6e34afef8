"""Commands in their order: each is decided once, and refused, dead-lettered or carried out as facts."""

import asyncio

from eventlog.envelope import Envelope, unseal
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import CancelImport, Command, Message, RequestImport, ResumeImport, Source
from eventlog.ids import ImportId
from eventlog.log import GroupReader, NewRecord, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import IMPORT_REQUESTS
from ingest.blobs import sizes
from ingest.chunking import CHUNKER_VERSION
from ingest.core import Known, decide, refuse_unwritable
from ingest.dead_letters import DeadLetters
from ingest.fold import command_id, import_id_of
from ingest.library import source_files
from ingest.requests import files_problem, request_problem
from ingest.term import Term

logger = Logger("ingest.obeying")

COMMANDS_AT_ONCE = 5
RETRY_S = 1.0
_REQUESTS = TopicPartition(IMPORT_REQUESTS, 0)


class Obeying:
    def __init__(self, term: Term, group: GroupReader, dead_letters: DeadLetters) -> None:
        self._term = term
        self._parts = term.parts
        self._projection = term.parts.projection
        self._group = group
        self._dead_letters = dead_letters

    async def run(self) -> None:
        """Ends only by cancellation or failure."""
        committed = await self._group.committed(_REQUESTS)
        begin = (await self._parts.log.begins(IMPORT_REQUESTS))[0]
        position = max(committed or 0, begin)
        self._group.seek(_REQUESTS, position)
        await self._dead_letters.open(position)
        while True:
            await self._dead_letters.bury_facts(self._term)
            if self._dead_letters.is_paused:
                # Polled all the same: what the group's callbacks raise comes out of it.
                self._group.pause(_REQUESTS)
            else:
                self._group.resume(_REQUESTS)
            for record in await self._group.poll(_REQUESTS, records_max=COMMANDS_AT_ONCE, timeout_s=0.5):
                if self._dead_letters.is_paused:
                    self._group.seek(_REQUESTS, record.offset)
                    break
                await self._obey(record)
                # A repeat of a command is seen by its id, so a lost commit costs nothing.
                await self._group.commit({_REQUESTS: record.offset + 1})

    async def _obey(self, record: Record) -> None:
        try:
            envelope = unseal(self._parts.schemas, record)
            command = _command(envelope.event)
        except UnprocessableRecord as error:
            logger.warning("command.unprocessable", offset=record.offset, reason=error.reason)
            await self._dead_letters.bury_command(self._term, record, error.reason, str(error))
            return
        await self._decide(command, envelope)

    async def _decide(self, command: Command, envelope: Envelope) -> None:
        id_ = command_id(envelope.record)
        import_id = (
            import_id_of(command, envelope.record)
            if isinstance(command, RequestImport)
            else command.import_id
        )
        problem, missing = await self._look_at_files(command, import_id)
        async with self._term.lock:
            if self._projection.is_refused(id_):
                return
            known = Known(
                existing=self._projection.find(import_id),
                project=(
                    self._projection.project(command.project_name)
                    if isinstance(command, RequestImport)
                    else None
                ),
                default_space=self._parts.default_space,
                chunker_version=CHUNKER_VERSION,
                missing_files=missing,
                problem=problem,
                missing_count=self._projection.missing_count(import_id),
            )
            at = self._parts.clock.now()
            facts = decide(command, known, import_id=import_id, command_id=id_, at=at)
            try:
                await self._commit([self._term.sealed(fact, envelope.id) for fact in facts])
            except UnprocessableRecord as error:
                # A stranger's request may fill a record to the brim, and what follows from it is a little longer.
                refusal = refuse_unwritable(import_id, id_, error.reason, at)
                await self._commit([self._term.sealed(refusal, envelope.id)])
        if facts:
            logger.info("command.decided", facts=[type(fact).__name__ for fact in facts], import_id=import_id)

    async def _commit(self, records: list[NewRecord]) -> None:
        if records:
            await self._term.commit(records)

    async def _look_at_files(self, command: Command, import_id: ImportId) -> tuple[str, tuple[str, ...]]:
        """What is wrong with the request, and which of its files the blob store has not."""
        if isinstance(command, CancelImport):
            return "", ()
        if isinstance(command, RequestImport):
            problem = request_problem(command)
            if problem:
                return problem, ()
            source = command.source
        else:
            found = self._projection.source(import_id)
            if found is None:
                return "", ()
            source = found[0]
        while True:
            try:
                return await self._files_of(source)
            except TransientFailure as failure:
                logger.warning("blobs.unavailable", why=failure)
                await asyncio.sleep(RETRY_S)  # here and not in the election: what is parsed settles meanwhile

    async def _files_of(self, source: Source) -> tuple[str, tuple[str, ...]]:
        try:
            files = await source_files(self._parts.blobs, source)
        except FileNotFoundError:
            return "", ("the list of the library's files",)
        except ValueError as error:
            return str(error), ()
        problem = files_problem(files)
        if problem:
            return problem, ()
        there = await sizes(self._parts.blobs, [file.sha256 for file in files])
        return "", tuple(file.path for file, size in zip(files, there, strict=True) if size is None)


def _command(message: Message) -> Command:
    if isinstance(message, RequestImport | CancelImport | ResumeImport):
        return message
    raise UnprocessableRecord("type_unexpected", type(message).__name__)
