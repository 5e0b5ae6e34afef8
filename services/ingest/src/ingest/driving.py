"""Parses open imports and publishes what is in them: a document's chunks, then the list of them, at the end the seal.

First come, first served. One document is parsed ahead of the one that is being published, completely and into a file,
so a crash repeats a document under the same ids and never leaves half of one listed.
"""

import asyncio
import shutil
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eventlog.envelope import seal
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import (
    ChunkExtracted,
    DocumentParsed,
    DocumentRejected,
    DocumentRejectionReason,
    FailureReason,
    ImportFailed,
    ImportSealed,
)
from eventlog.log import NewRecord, Position
from eventlog.logs import Logger
from eventlog.topics import CHUNKS, RECORD_BYTES_MAX
from ingest.library import local_files
from ingest.parser import (
    LocalFile,
    Parsed,
    Rejected,
    ScanFailed,
    ScanSummary,
    read_chunks,
    read_document,
    read_documents,
    read_rejections,
    read_warnings,
)
from ingest.sources.item import Rejection, first_warnings
from ingest.state import Import
from ingest.term import SOURCE, Term

logger = Logger("ingest.driving")

FACTS_AT_ONCE = 50
FACTS_S_MAX = 0.5
UNACKNOWLEDGED_MAX = 500
WARNINGS_MAX = 500
RETRY_S = 1.0
LOOKED_AT_S = 5.0
_T = TypeVar("_T")


class _Overtaken(Exception):  # noqa: N818 - not an error: the import was cancelled or resumed meanwhile
    pass


class Driving:
    def __init__(self, term: Term) -> None:
        self._term = term
        self._projection = term.parts.projection

    async def run(self) -> None:
        """Ends only by cancellation or failure. A sealed import is driven no more."""
        while True:
            position = self._projection.position
            waiting = [one for one in self._projection.open_imports() if one.sealed_attempt < one.attempt]
            if waiting:
                await _Drive(self._term, waiting[0]).run()
            else:
                await self._projection.wait_for_change(position, LOOKED_AT_S)


@dataclass(slots=True)
class _Batch:
    """Facts about documents whose chunks are on their way into the log."""

    facts: list[NewRecord] = field(default_factory=list)
    acks: deque[Awaitable[Position]] = field(default_factory=deque)
    since_s: float = 0.0


class _Drive:
    """One attempt of one import."""

    def __init__(self, term: Term, state: Import) -> None:
        self._term = term
        self._parts = term.parts
        self._projection = term.parts.projection
        self._state = state
        self._cause = str(state.import_id)
        self._work = term.parts.work_dir / self._cause
        self._scan = self._work / "scan.sqlite"
        self._batch = _Batch(since_s=self._parts.clock.monotonic_s())

    async def run(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        try:
            summary = await self._unless_overtaken(self._scanned())
            await self._publish_all()
            await self._seal(summary)
        except ScanFailed as failure:
            where = f"{failure.subject}: " if failure.subject else ""
            await self._fail(failure.reason, f"{where}{failure}")
        except FileNotFoundError as failure:
            await self._fail(FailureReason.FILES_MISSING, f"the blob store has no {failure}")
        except _Overtaken:
            logger.info("import.left", import_id=self._state.import_id, attempt=self._state.attempt)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    # --- being overtaken -----------------------------------------------------------------------------------------

    @property
    def _is_overtaken(self) -> bool:
        """Cancelled or resumed under us: what we know of it is old."""
        now = self._projection.find(self._state.import_id)
        return now is None or not now.is_open or now.attempt != self._state.attempt

    def _check_not_overtaken(self) -> None:
        if self._is_overtaken:
            raise _Overtaken

    async def _unless_overtaken(self, work: Awaitable[_T]) -> _T:
        """What `work` answers; a scan or a parse may take minutes, and a cancel does not wait for it."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                position = self._projection.position
                self._check_not_overtaken()
                change = asyncio.ensure_future(self._projection.wait_for_change(position, LOOKED_AT_S))
                await asyncio.wait({task, change}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
            return task.result()
        finally:
            await _ended(task)

    # --- looking in ----------------------------------------------------------------------------------------------

    async def _scanned(self) -> ScanSummary:
        found = self._projection.source(self._state.import_id)
        assert found is not None, "an import that was requested has a source"
        return await self._parts.parser.scan(
            project_id=self._state.project_id,
            kind=found[0].kind,
            files=await self._local_files(),
            options=self._projection.options(self._state.import_id),
            out=self._scan,
        )

    async def _local_files(self) -> list[LocalFile]:
        found = self._projection.source(self._state.import_id)
        assert found is not None, "an import that was requested has a source"
        while True:
            try:
                return await local_files(self._parts.blobs, found[0])
            except TransientFailure as failure:
                logger.warning("blobs.unavailable", why=failure)
                await asyncio.sleep(RETRY_S)  # here and not in the election: what is parsed settles meanwhile
            except ValueError as error:
                raise ScanFailed(FailureReason.SOURCE_UNREADABLE, "manifest_invalid", str(error)) from None

    # --- publishing ----------------------------------------------------------------------------------------------

    async def _publish_all(self) -> None:
        for rejection in read_rejections(self._scan):
            self._reject(rejection.item, rejection)
            await self._flush()
        ahead: tuple[Path, asyncio.Task[Parsed | Rejected], str] | None = None
        try:
            for number, document_id, item in read_documents(self._scan):
                if self._projection.is_driven(self._state, document_id):
                    continue
                spool = self._work / f"{number}.jsonl"
                parsing = asyncio.create_task(
                    self._parts.parser.parse(
                        scan=self._scan, number=number, out=spool, project_id=self._state.project_id
                    )
                )
                ahead, current = (spool, parsing, item), ahead
                if current is not None:
                    await self._publish(*current)
            if ahead is not None:
                await self._publish(*ahead)
        finally:
            if ahead is not None:
                await _ended(ahead[1])
        await self._flush(is_last=True)

    async def _publish(self, spool: Path, parsing: "asyncio.Task[Parsed | Rejected]", item: str) -> None:
        parsed = await self._unless_overtaken(parsing)
        if isinstance(parsed, Rejected):
            self._reject(item, parsed)
        else:
            try:
                await self._publish_document(spool)
            except UnprocessableRecord as error:
                self._reject(item, _unwritable(error))
            for one in parsed.rejected_attachments:
                self._reject(one.item, one)
        await asyncio.to_thread(spool.unlink, missing_ok=True)
        await self._flush()

    async def _publish_document(self, spool: Path) -> None:
        """Chunks first, acknowledged, then the list of them: a list in the log names chunks that are there."""
        document = read_document(spool)
        at = self._parts.clock.now()
        head: dict[str, Any] = {
            "import_id": self._state.import_id,
            "project_id": self._state.project_id,
            "attempt": self._state.attempt,
            "occurred_at": at,
            "revision": self._state.revision,
        }
        # The list is made before anything is sent: what cannot be written costs nothing.
        listed = self._term.sealed(DocumentParsed(**head, **document.fields()), self._cause)
        if listed.size_bytes > RECORD_BYTES_MAX:
            raise UnprocessableRecord("record_too_large", f"{listed.size_bytes} bytes")
        for chunk in read_chunks(spool):
            event = ChunkExtracted(
                **head,
                space=self._state.space,
                document_id=document.document_id,
                title=document.title,
                creators=document.creators,
                year=document.year,
                doi=document.doi,
                **chunk.fields(),
            )
            record = seal(self._parts.schemas, event, topic=CHUNKS, source=SOURCE, causation_id=self._cause)
            self._batch.acks.append(await self._term.writer.send(record))
            if len(self._batch.acks) > UNACKNOWLEDGED_MAX:
                await self._batch.acks.popleft()
        self._batch.facts.append(listed)

    def _reject(self, item: str, rejected: Rejected | Rejection) -> None:
        if self._projection.is_rejected(self._state.import_id, item):
            return  # said before a restart
        fact = DocumentRejected(
            import_id=self._state.import_id,
            project_id=self._state.project_id,
            attempt=self._state.attempt,
            occurred_at=self._parts.clock.now(),
            item=item,
            reason=rejected.reason,
            file_sha256=rejected.file_sha256,
            message=rejected.message,
        )
        self._batch.facts.append(self._term.sealed(fact, self._cause))

    async def _flush(self, *, is_last: bool = False) -> None:
        batch, now_s = self._batch, self._parts.clock.monotonic_s()
        is_due = len(batch.facts) >= FACTS_AT_ONCE or now_s - batch.since_s > FACTS_S_MAX
        if not batch.facts or not (is_due or is_last):
            return
        while batch.acks:
            await batch.acks.popleft()
        async with self._term.lock:
            self._check_not_overtaken()
            await self._term.commit(batch.facts)
        batch.facts.clear()
        batch.since_s = now_s

    # --- ending --------------------------------------------------------------------------------------------------

    async def _seal(self, summary: ScanSummary) -> None:
        warnings = first_warnings(read_warnings(self._scan), "", WARNINGS_MAX)
        async with self._term.lock:
            self._check_not_overtaken()
            now = self._projection.find(self._state.import_id)
            assert now is not None, "it is not overtaken"
            documents, chunks = self._projection.counts_to_seal(self._state)
            sealed = ImportSealed(
                import_id=self._state.import_id,
                project_id=self._state.project_id,
                attempt=self._state.attempt,
                occurred_at=self._parts.clock.now(),
                document_count=documents,
                chunk_count=chunks,
                rejected_count=now.rejected_count,
                merged_count=summary.merged_count,
                warnings=warnings,
            )
            await self._term.commit([self._term.sealed(sealed, self._cause)])
        logger.info("import.sealed", import_id=self._state.import_id, documents=documents, chunks=chunks)

    async def _fail(self, reason: FailureReason, message: str) -> None:
        async with self._term.lock:
            if self._is_overtaken:
                return
            failed = ImportFailed(
                import_id=self._state.import_id,
                project_id=self._state.project_id,
                attempt=self._state.attempt,
                occurred_at=self._parts.clock.now(),
                reason=reason,
                message=message,
            )
            await self._term.commit([self._term.sealed(failed, self._cause)])
        logger.warning("import.failed", import_id=self._state.import_id, reason=reason)


def _unwritable(error: UnprocessableRecord) -> Rejected:
    if error.reason == "record_too_large":
        return Rejected(
            reason=DocumentRejectionReason.ITEM_TOO_LARGE,
            message="its description is too large for one record",
        )
    return Rejected(
        reason=DocumentRejectionReason.ITEM_INVALID, message=f"it cannot be written down: {error.reason}"
    )


async def _ended(task: "asyncio.Future[_T]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
