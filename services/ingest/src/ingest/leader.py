"""The one that decides and parses: the owner of `import-requests`. Others follow and take over when it dies.

A new leader works in this order, which is what makes two of them harmless:

1. it opens the transactional writer, which fences the one before (its open transaction is aborted);
2. it reads where `imports` ends now and waits until its projection has folded that far;
3. only then it decides. Every decision is taken from the projection, committed as one transaction, and folded
   before the next one is looked at.

What it was doing when it died is in the log: documents that are parsed are not parsed again, the one in the middle is
published again under the same ids. Three loops run side by side: commands, driving (parse and publish), settling.
"""

import asyncio
import shutil
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from eventlog.avro import Schemas
from eventlog.clock import Clock
from eventlog.envelope import Envelope, dead_letter, header, seal, unseal
from eventlog.errors import Fenced, TransientFailure, UnprocessableRecord
from eventlog.events import (
    CancelImport,
    ChunkExtracted,
    Command,
    DocumentParsed,
    DocumentRejected,
    FailureReason,
    ImportFailed,
    ImportSealed,
    Message,
    RequestImport,
    ResumeImport,
)
from eventlog.ids import ImportId
from eventlog.log import Decider, GroupReader, Log, Position, Record, TopicPartition, Writer
from eventlog.logs import Logger
from eventlog.topics import CHUNKS, DLQ, IMPORT_REQUESTS, IMPORTS
from ingest.blobs import Blobs
from ingest.chunking import CHUNKER_VERSION
from ingest.core import Import, Known, complete, decide, settle_document, source_problem
from ingest.fold import POISON_IN_A_ROW_MAX, Fold, command_id, import_id_of
from ingest.library import local_files, source_files
from ingest.parser import (
    Parsed,
    Parser,
    Rejected,
    ScanFailed,
    ScanSummary,
    read_chunks,
    read_document,
    read_documents,
    read_rejections,
    read_warnings,
)
from ingest.projection import Projection
from ingest.sources.item import Rejection

logger = Logger("ingest.leader")

GROUP = "ingest"
TRANSACTIONAL_ID = "ingest-leader"
SOURCE = "paperlog/ingest"
COMMANDS_AT_ONCE = 5
FACTS_AT_ONCE = 50
UNACKNOWLEDGED_MAX = 500
FACTS_S_MAX = 0.5
SETTLE_PAUSE_S = 0.05
WARNINGS_MAX = 500
RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderParts:
    """What app.py gives: nothing here builds a client."""

    log: Log
    schemas: Schemas
    projection: Projection
    fold: Fold
    parser: Parser
    blobs: Blobs
    clock: Clock
    default_space: str
    work_dir: Path


@dataclass(slots=True)
class _Batch:
    """Facts about documents whose chunks are on their way into the log."""

    facts: list[Message] = field(default_factory=list)
    acks: deque[Awaitable[Position]] = field(default_factory=deque)
    since_s: float = 0.0


class Leader:
    """`run` takes part in the election for as long as the process lives and leads while it is elected."""

    def __init__(self, parts: LeaderParts) -> None:
        self._parts = parts
        self._elected = asyncio.Event()
        self._term: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._go_on = asyncio.Event()
        self._go_on.set()
        self._poison_in_a_row = 0

    @property
    def is_paused(self) -> bool:
        """Many poison commands in a row: alive, not ready, until an operator says go on."""
        return not self._go_on.is_set()

    def go_on(self) -> None:
        self._poison_in_a_row = 0
        self._go_on.set()

    async def run(self) -> None:
        while True:
            try:
                await self._take_part()
            except TransientFailure as failure:
                logger.warning("leader.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _take_part(self) -> None:
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
                    if not self._term.cancelled() or self._is_cancelling():
                        raise
                except Fenced as failure:
                    logger.warning("leader.fenced", why=failure)
                    await asyncio.sleep(RETRY_S)
                except TransientFailure as failure:
                    logger.warning("leader.interrupted", why=failure)
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._end_term()
            await asyncio.shield(group.close())

    @staticmethod
    def _is_cancelling() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

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
        async with self._opened() as term:
            logger.info("leader.elected", position=self._parts.projection.position)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._obey(group, term))
                    tasks.create_task(self._drive_all(term))
                    tasks.create_task(self._settle_all(term))
            except BaseExceptionGroup as group_error:
                expected, other = group_error.split(TransientFailure)
                if other is not None:
                    raise other from None
                assert expected is not None
                raise _first(expected) from None

    @asynccontextmanager
    async def _opened(self) -> "AsyncIterator[_Term]":
        decider = await self._parts.log.decider(TRANSACTIONAL_ID)
        try:
            writer = await self._parts.log.writer()
            try:
                end = (await self._parts.log.ends(IMPORTS))[0]
                await self._folded(end)
                yield _Term(decider=decider, writer=writer)
            finally:
                await asyncio.shield(writer.close())
        finally:
            await asyncio.shield(decider.close())

    async def _folded(self, position: int) -> None:
        """The projection has folded everything before `position`."""
        projection = self._parts.projection
        while projection.position < position:
            await projection.wait_for_change(projection.position, 1.0)

    async def _commit(self, term: "_Term", facts: Sequence[Message], cause: str = "") -> list[Position]:
        """Called with the lock held: no decision is taken before this one is folded."""
        records = [
            seal(self._parts.schemas, fact, topic=IMPORTS, source=SOURCE, causation_id=cause, partition=0)
            for fact in facts
        ]
        positions = await term.decider.commit(records)
        await self._folded(positions[-1].offset + 1)
        return positions

    # --- commands ------------------------------------------------------------------------------------------------

    async def _obey(self, group: GroupReader, term: "_Term") -> None:
        requests = TopicPartition(IMPORT_REQUESTS, 0)
        committed = await group.committed(requests)
        begin = (await self._parts.log.begins(IMPORT_REQUESTS))[0]
        group.seek(requests, max(committed or 0, begin))
        dead = await self._last_dead_letters()
        while True:
            await self._go_on.wait()
            await self._bury_poison_facts(term, dead)
            records = await group.poll(requests, records_max=COMMANDS_AT_ONCE, timeout_s=0.5)
            for record in records:
                await self._obey_one(term, record, dead)
                # A repeat of a command is seen by its id, so a lost commit costs nothing.
                await group.commit({requests: record.offset + 1})

    async def _obey_one(self, term: "_Term", record: Record, dead: dict[str, int]) -> None:
        try:
            envelope = unseal(self._parts.schemas, record)
            command = _command(envelope.event)
        except UnprocessableRecord as error:
            logger.warning("command.unprocessable", offset=record.offset, reason=error.reason)
            await self._bury(term, record, error.reason, str(error), dead)
            self._count_poison()
            return
        self._poison_in_a_row = 0
        await self._decide(term, command, envelope)

    def _count_poison(self) -> None:
        self._poison_in_a_row += 1
        if self._poison_in_a_row > POISON_IN_A_ROW_MAX:
            logger.error("leader.paused", poison_in_a_row=self._poison_in_a_row)
            self._go_on.clear()

    async def _decide(self, term: "_Term", command: Command, envelope: Envelope) -> None:
        id_ = command_id(envelope.record)
        import_id = (
            import_id_of(command, envelope.record)
            if isinstance(command, RequestImport)
            else command.import_id
        )
        problem, missing = await self._look_at_files(command, import_id)
        async with self._lock:
            if self._parts.projection.is_refused(id_):
                return
            known = Known(
                existing=self._parts.projection.find(import_id),
                project=(
                    self._parts.projection.project(command.project_name)
                    if isinstance(command, RequestImport)
                    else None
                ),
                default_space=self._parts.default_space,
                chunker_version=CHUNKER_VERSION,
                missing_files=missing,
                problem=problem,
                missing_count=self._parts.projection.missing_count(import_id),
            )
            facts = decide(command, known, import_id=import_id, command_id=id_, at=self._parts.clock.now())
            if facts:
                await self._commit(term, facts, envelope.id)
                logger.info(
                    "command.decided", facts=[type(fact).__name__ for fact in facts], import_id=import_id
                )

    async def _look_at_files(self, command: Command, import_id: ImportId) -> tuple[str, tuple[str, ...]]:
        """What is wrong with the request, and which of its files the blob store has not."""
        if isinstance(command, CancelImport):
            return "", ()
        if isinstance(command, RequestImport):
            source = command.source
            problem = source_problem(source)
            if not problem and not command.project_name.strip():
                problem = "the request names no project"
            if problem:
                return problem, ()
        else:
            found = self._parts.projection.source(import_id)
            if found is None:
                return "", ()
            source = found[0]
        try:
            files = await source_files(self._parts.blobs, source)
        except FileNotFoundError:
            return "", ("the list of the library's files",)
        except ValueError as error:
            return str(error), ()
        return "", tuple([file.path for file in files if not await self._parts.blobs.exists(file.sha256)])

    # --- dead letters --------------------------------------------------------------------------------------------

    async def _last_dead_letters(self) -> dict[str, int]:
        """The last offset dead-lettered of each source topic: a restart buries nothing twice."""
        topic = f"{GROUP}-{DLQ}"
        end = (await self._parts.log.ends(topic))[0]
        begin = (await self._parts.log.begins(topic))[0]
        out: dict[str, int] = {}
        reader = await self._parts.log.reader({TopicPartition(topic, 0): begin})
        try:
            while await reader.position(TopicPartition(topic, 0)) < end:
                for record in await reader.poll(records_max=100, timeout_s=1.0):
                    offset = header(record, "dlq_offset")
                    if offset.isdigit():
                        out[header(record, "dlq_topic")] = int(offset)
        finally:
            await asyncio.shield(reader.close())
        return out

    async def _bury(
        self, term: "_Term", record: Record, reason: str, message: str, dead: dict[str, int]
    ) -> None:
        if record.offset <= dead.get(record.topic, -1):
            return
        letter = dead_letter(
            record,
            topic=f"{GROUP}-{DLQ}",
            reason=reason,
            message=message,
            consumer=GROUP,
            at=self._parts.clock.now(),
        )
        await (await term.writer.send(letter))
        dead[record.topic] = record.offset

    async def _bury_poison_facts(self, term: "_Term", dead: dict[str, int]) -> None:
        while not self._parts.fold.poison.empty():
            poison = self._parts.fold.poison.get_nowait()
            await self._bury(term, poison.record, poison.reason, poison.message, dead)

    # --- driving -------------------------------------------------------------------------------------------------

    async def _drive_all(self, term: "_Term") -> None:
        """First come, first served; a sealed import is driven no more."""
        while True:
            position = self._parts.projection.position
            waiting = [
                one for one in self._parts.projection.open_imports() if one.sealed_attempt < one.attempt
            ]
            if waiting:
                await self._drive(term, waiting[0])
            else:
                await self._parts.projection.wait_for_change(position, 5.0)

    async def _drive(self, term: "_Term", state: Import) -> None:
        work = self._parts.work_dir / str(state.import_id)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            summary = await self._scan(state, work)
            await self._drive_documents(term, state, work)
            await self._seal(term, state, work, summary)
        except ScanFailed as failure:
            await self._fail(term, state, failure.reason, str(failure))
        except FileNotFoundError as failure:
            await self._fail(term, state, FailureReason.FILES_MISSING, f"the blob store has no {failure}")
        except _Overtaken:
            logger.info("import.left", import_id=state.import_id, attempt=state.attempt)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    async def _scan(self, state: Import, work: Path) -> ScanSummary:
        found = self._parts.projection.source(state.import_id)
        assert found is not None
        source = found[0]
        local = await local_files(self._parts.blobs, source)
        return await self._parts.parser.scan(
            project_id=state.project_id,
            kind=source.kind,
            files=local,
            options=self._parts.projection.options(state.import_id),
            out=work / "scan.sqlite",
        )

    async def _drive_documents(self, term: "_Term", state: Import, work: Path) -> None:
        """Parses one document ahead of the one that is being published."""
        batch = _Batch(since_s=self._parts.clock.monotonic_s())
        scan = work / "scan.sqlite"
        for rejection in read_rejections(scan):
            batch.facts.append(self._rejected(state, rejection.item, rejection))
            await self._flush(term, state, batch, is_last=False)
        ahead: tuple[Path, asyncio.Task[Parsed | Rejected], str] | None = None
        is_even = True
        try:
            for number, document_id, item in read_documents(scan):
                if self._parts.projection.is_driven(state, document_id):
                    continue
                is_even = not is_even
                out = work / f"{int(is_even)}.jsonl"
                task = asyncio.create_task(
                    self._parts.parser.parse(scan=scan, number=number, out=out, project_id=state.project_id)
                )
                ahead, current = (out, task, item), ahead
                if current is not None:
                    await self._publish(term, state, batch, *current)
                await asyncio.wait([task])
            if ahead is not None:
                await self._publish(term, state, batch, *ahead)
                ahead = None
        finally:
            if ahead is not None:
                ahead[1].cancel()
                await asyncio.wait([ahead[1]])
        await self._flush(term, state, batch, is_last=True)

    async def _publish(
        self,
        term: "_Term",
        state: Import,
        batch: _Batch,
        spool: Path,
        parsing: "asyncio.Task[Parsed | Rejected]",
        item: str,
    ) -> None:
        parsed = await parsing
        if isinstance(parsed, Rejected):
            batch.facts.append(self._rejected(state, item, parsed))
        else:
            await self._publish_document(term, state, batch, spool)
            batch.facts.extend(self._rejected(state, one.item, one) for one in parsed.rejected_attachments)
        await self._flush(term, state, batch, is_last=False)

    async def _publish_document(self, term: "_Term", state: Import, batch: _Batch, spool: Path) -> None:
        """Chunks first, acknowledged, then the list of them: a list in the log names chunks that are there."""
        document = read_document(spool)
        at = self._parts.clock.now()
        cause = str(state.import_id)
        for chunk in read_chunks(spool):
            event = ChunkExtracted(
                import_id=state.import_id,
                project_id=state.project_id,
                attempt=state.attempt,
                occurred_at=at,
                space=state.space,
                revision=state.revision,
                document_id=document.document_id,
                title=document.title,
                creators=document.creators,
                year=document.year,
                doi=document.doi,
                **chunk.fields(),
            )
            record = seal(self._parts.schemas, event, topic=CHUNKS, source=SOURCE, causation_id=cause)
            batch.acks.append(await term.writer.send(record))
            if len(batch.acks) > UNACKNOWLEDGED_MAX:
                await batch.acks.popleft()
        batch.facts.append(
            DocumentParsed(
                import_id=state.import_id,
                project_id=state.project_id,
                attempt=state.attempt,
                occurred_at=at,
                revision=state.revision,
                **document.fields(),
            )
        )

    def _rejected(self, state: Import, item: str, rejected: Rejected | Rejection) -> DocumentRejected:
        return DocumentRejected(
            import_id=state.import_id,
            project_id=state.project_id,
            attempt=state.attempt,
            occurred_at=self._parts.clock.now(),
            item=item,
            reason=rejected.reason,
            file_sha256=rejected.file_sha256,
            message=rejected.message,
        )

    async def _flush(self, term: "_Term", state: Import, batch: _Batch, *, is_last: bool) -> None:
        now = self._parts.clock.monotonic_s()
        is_due = len(batch.facts) >= FACTS_AT_ONCE or now - batch.since_s > FACTS_S_MAX
        if not batch.facts or not (is_due or is_last):
            return
        while batch.acks:
            await batch.acks.popleft()
        async with self._lock:
            self._check_not_overtaken(state)
            facts = [fact for fact in batch.facts if not self._is_said(state, fact)]
            if facts:
                await self._commit(term, facts, str(state.import_id))
        batch.facts.clear()
        batch.since_s = now

    def _is_said(self, state: Import, fact: Message) -> bool:
        return isinstance(fact, DocumentRejected) and self._parts.projection.is_rejected(
            state.import_id, fact.item
        )

    def _check_not_overtaken(self, state: Import) -> None:
        """Raises when the import was cancelled or resumed under us: what we know of it is old."""
        now = self._parts.projection.find(state.import_id)
        if now is None or not now.is_open or now.attempt != state.attempt:
            raise _Overtaken

    async def _seal(self, term: "_Term", state: Import, work: Path, summary: ScanSummary) -> None:
        warnings = []
        for warning in read_warnings(work / "scan.sqlite"):
            warnings.append(warning)
            if len(warnings) >= WARNINGS_MAX:
                break
        async with self._lock:
            self._check_not_overtaken(state)
            now = self._parts.projection.find(state.import_id)
            assert now is not None
            documents, chunks = self._parts.projection.listed_counts(state.import_id)
            sealed = ImportSealed(
                import_id=state.import_id,
                project_id=state.project_id,
                attempt=state.attempt,
                occurred_at=self._parts.clock.now(),
                document_count=documents,
                chunk_count=chunks,
                rejected_count=now.rejected_count,
                merged_count=summary.merged_count,
                warnings=tuple(warnings),
            )
            await self._commit(term, [sealed], str(state.import_id))
        logger.info("import.sealed", import_id=state.import_id, documents=documents, chunks=chunks)

    async def _fail(self, term: "_Term", state: Import, reason: FailureReason, message: str) -> None:
        async with self._lock:
            now = self._parts.projection.find(state.import_id)
            if now is None or not now.is_open or now.attempt != state.attempt:
                return
            failed = ImportFailed(
                import_id=state.import_id,
                project_id=state.project_id,
                attempt=state.attempt,
                occurred_at=self._parts.clock.now(),
                reason=reason,
                message=message,
            )
            await self._commit(term, [failed], str(state.import_id))
        logger.warning("import.failed", import_id=state.import_id, reason=reason)

    # --- settling ------------------------------------------------------------------------------------------------

    async def _settle_all(self, term: "_Term") -> None:
        while True:
            position = self._parts.projection.position
            if not await self._settle(term):
                await self._parts.projection.wait_for_change(position, 5.0)
            # A document a transaction would be 40 a second: let some gather.
            await asyncio.sleep(SETTLE_PAUSE_S)

    async def _settle(self, term: "_Term") -> bool:
        projection, at = self._parts.projection, self._parts.clock.now()
        async with self._lock:
            tallies = projection.documents_to_settle(FACTS_AT_ONCE)
            facts: list[Message] = [settle_document(tally, at) for tally in tallies]
            store_id = projection.store_id()
            for state in projection.complete_imports() if store_id is not None else ():
                assert store_id is not None
                chunks, tokens, digest = projection.totals(state.import_id)
                facts.append(
                    complete(
                        state, chunks=chunks, tokens_billed=tokens, digest=digest, store_id=store_id, at=at
                    )
                )
                logger.info("import.completed", import_id=state.import_id, stored=chunks.stored)
            if facts:
                await self._commit(term, facts)
        return bool(facts)


@dataclass(frozen=True, slots=True)
class _Term:
    """One leadership: its fenced writer for facts and its plain one for chunks."""

    decider: Decider
    writer: Writer


class _Overtaken(Exception):  # noqa: N818 - not an error: the import was cancelled or resumed meanwhile
    pass


def _command(message: Message) -> Command:
    if isinstance(message, RequestImport | CancelImport | ResumeImport):
        return message
    raise UnprocessableRecord("type_unexpected", type(message).__name__)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
