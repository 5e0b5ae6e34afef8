"""What ingest decides: whether a command is carried out, when a document and an import are complete.

`evolve` folds the story of one import, `decide` answers a command, `settle_document` and `complete` look at tallies.
No clock, no I/O, no await: times, ids and what the store of rows counted come in as values.

How an import goes (states in the left column, the events that lead on)::

    accepted   ImportRequested → parsing
    parsing    DocumentParsed*, DocumentRejected*, ImportSealed → embedding
    embedding  DocumentChunksSettled*, ImportCompleted → completed | completed_with_rejections
    any open   ImportCancelled → cancelled;  ImportFailed → failed
    any        ImportResumed → parsing, with the next attempt
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from eventlog.events import (
    CancelImport,
    ChunkOutcome,
    Command,
    DocumentChunksSettled,
    DocumentRejected,
    ImportCancelled,
    ImportCompleted,
    ImportFailed,
    ImportMessage,
    ImportRefused,
    ImportRequested,
    ImportResumed,
    ImportSealed,
    Message,
    Part,
    ProjectCreated,
    RefusalReason,
    RequestImport,
    ResumeImport,
)
from eventlog.ids import DocumentId, ImportId, ProjectId, StoreId, project_id
from ingest.requests import is_space, request_sha256
from ingest.state import COMPLETE, ChunkCounts, Import, Project, State

FIRST_ATTEMPT = 1
_NAMED_MAX, _NAME_CHARACTERS_MAX = 20, 200
"""How much of missing files a refusal names."""
PARSING_SHARE = 0.1
"""Of progress; the rest is settling, which is what takes the time (DESIGN.md section 4)."""


# --- the fold ----------------------------------------------------------------------------------------------------


def evolve(state: Import | None, event: ImportMessage, offset: int) -> Import | None:
    """The import after `event`, which stands at `offset` of `imports`. An event of an unknown import changes nothing."""
    if isinstance(event, ImportRequested):
        return state if state is not None and state.is_decided else _requested(event, offset)
    if state is None or event.attempt < state.attempt:
        return state
    match event:
        case DocumentRejected():
            return replace(state, rejected_count=state.rejected_count + 1)
        case ImportSealed() if state.is_open:
            return replace(
                state,
                state=State.EMBEDDING,
                sealed_attempt=event.attempt,
                document_count=event.document_count,
                merged_count=event.merged_count,
                item_count=event.document_count + event.rejected_count + event.merged_count,
            )
        case ImportCancelled() if state.is_open:
            return replace(state, state=State.CANCELLED, finished_at=event.occurred_at)
        case ImportFailed() if state.is_open:
            return replace(
                state,
                state=State.FAILED,
                finished_at=event.occurred_at,
                problem=f"{event.reason}: {event.message}" if event.message else str(event.reason),
            )
        case ImportResumed() if event.attempt > state.attempt:
            return replace(
                state,
                state=State.PARSING,
                attempt=event.attempt,
                finished_at=None,
                digest=None,
                problem=None,
                chunks=None,
                tokens_billed=None,
                rejected_count=0,
            )
        case ImportCompleted() if state.is_open:
            return _completed(state, event)
        case _:
            return state


def _requested(event: ImportRequested, offset: int) -> Import:
    return Import(
        import_id=event.import_id,
        project_id=event.project_id,
        project_name=event.project_name,
        space=event.space,
        state=State.PARSING,
        attempt=event.attempt,
        revision=offset,
        request_sha256=event.request_sha256,
        requested_at=event.occurred_at,
        item_count=event.item_count,
    )


def _completed(state: Import, event: ImportCompleted) -> Import:
    has_rejections = event.rejected_count + event.dead_lettered_count + event.documents_rejected_count > 0
    counts = ChunkCounts(
        total=event.chunk_count,
        embedded=event.stored_count + event.superseded_count,
        reused=event.reused_count,
        stored=event.stored_count,
        rejected=event.rejected_count,
        dead_lettered=event.dead_lettered_count,
        superseded=event.superseded_count,
    )
    return replace(
        state,
        state=State.COMPLETED_WITH_REJECTIONS if has_rejections else State.COMPLETED,
        finished_at=event.occurred_at,
        digest=event.digest,
        chunks=counts,
        tokens_billed=event.tokens_billed,
    )


def progress(state: Import, *, parsed: int, settled: int, chunks_so_far: int) -> float:
    """0 to 1; the fold keeps the running maximum, since a late document makes the denominator grow."""
    if state.state in COMPLETE:
        return 1.0
    found = max(state.item_count, 1)
    parsing = min(1.0, (parsed + state.rejected_count + state.merged_count) / found)
    settling = settled / max(chunks_so_far, state.item_count, 1)
    # Short of 1 until ImportCompleted says so: completion is a fact, not a quotient.
    return min(0.999, PARSING_SHARE * parsing + (1 - PARSING_SHARE) * min(1.0, settling))


# --- commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the leader looked up for one command."""

    existing: Import | None
    project: Project | None
    default_space: str
    chunker_version: str
    missing_files: tuple[str, ...] = ()
    problem: str = ""
    """What is wrong with the request itself; empty when nothing is."""
    missing_count: int = 0
    """Chunks of the import that are not stored now."""


def decide(
    command: Command, known: Known, *, import_id: ImportId, command_id: str, at: datetime
) -> list[Message]:
    """The facts that a command makes. Empty: it was carried out before, or there is nothing to do."""
    refuse = _Refusal(import_id=import_id, command_id=command_id, at=at)
    match command:
        case RequestImport():
            return _decide_request(command, known, refuse, import_id=import_id, at=at)
        case CancelImport():
            if known.existing is None:
                return [refuse(RefusalReason.IMPORT_UNKNOWN, "there is no such import")]
            if not known.existing.is_open:
                return []
            return [
                ImportCancelled(
                    import_id=import_id,
                    project_id=known.existing.project_id,
                    attempt=known.existing.attempt,
                    occurred_at=at,
                    requested_by=command.requested_by,
                    message=command.message,
                )
            ]
        case ResumeImport():
            return _decide_resume(command, known, refuse, import_id=import_id, at=at)
        case _:
            assert_never(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    import_id: ImportId
    command_id: str
    at: datetime

    def __call__(self, reason: RefusalReason, message: str) -> ImportRefused:
        return ImportRefused(
            import_id=self.import_id,
            command_id=self.command_id,
            reason=reason,
            message=message,
            occurred_at=self.at,
        )


def refuse_unwritable(import_id: ImportId, command_id: str, why: str, at: datetime) -> ImportRefused:
    """For a command whose facts do not fit into the log."""
    refuse = _Refusal(import_id=import_id, command_id=command_id, at=at)
    return refuse(RefusalReason.REQUEST_INVALID, f"it cannot be written to the log: {why}")


def _named(files: Sequence[str]) -> str:
    shown = ", ".join(path[:_NAME_CHARACTERS_MAX] for path in files[:_NAMED_MAX])
    more = len(files) - _NAMED_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _decide_request(
    command: RequestImport, known: Known, refuse: _Refusal, *, import_id: ImportId, at: datetime
) -> list[Message]:
    if known.problem:
        return [refuse(RefusalReason.REQUEST_INVALID, known.problem)]
    sha256 = request_sha256(command)
    if known.existing is not None:
        if known.existing.request_sha256 == sha256:
            return []  # The same request again is the same import.
        return [
            refuse(RefusalReason.IDEMPOTENCY_KEY_REUSED, "this key belongs to an import with another body")
        ]
    if known.missing_files:
        return [refuse(RefusalReason.FILES_MISSING, _named(known.missing_files))]
    if command.space is not None and not is_space(command.space):
        return [refuse(RefusalReason.SPACE_UNKNOWN, f"{command.space[:120]!r} is not an embedding space")]
    if known.project is not None and command.space not in (None, known.project.space):
        return [
            refuse(RefusalReason.SPACE_MISMATCH, f"project {known.project.name} is in {known.project.space}")
        ]
    project = project_id(command.project_name)
    space = known.project.space if known.project else (command.space or known.default_space)
    requested = ImportRequested(
        import_id=import_id,
        project_id=project,
        attempt=FIRST_ATTEMPT,
        occurred_at=at,
        source=command.source,
        request_sha256=sha256,
        space=space,
        project_name=known.project.name if known.project else command.project_name.strip(),
        idempotency_key=command.idempotency_key,
        options=dict(command.options),
        requested_by=command.requested_by,
        item_count=command.item_count,
        chunker_version=known.chunker_version,
    )
    if known.project is not None:
        return [requested]
    created = ProjectCreated(
        import_id=import_id,
        project_id=project,
        attempt=FIRST_ATTEMPT,
        occurred_at=at,
        name=requested.project_name,
        space=space,
    )
    return [created, requested]


def _decide_resume(
    command: ResumeImport, known: Known, refuse: _Refusal, *, import_id: ImportId, at: datetime
) -> list[Message]:
    state = known.existing
    if state is None:
        return [refuse(RefusalReason.IMPORT_UNKNOWN, "there is no such import")]
    if state.is_open or (command.attempt_seen and command.attempt_seen != state.attempt):
        return []  # Running already, or resumed by somebody else in the meantime.
    if known.missing_files:
        return [refuse(RefusalReason.FILES_MISSING, _named(known.missing_files))]
    return [
        ImportResumed(
            import_id=import_id,
            project_id=state.project_id,
            attempt=state.attempt + 1,
            occurred_at=at,
            requested_by=command.requested_by,
            missing_count=known.missing_count,
        )
    ]


# --- completion --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentTally:
    """A document of an import whose listed chunks all have an outcome; counts by part."""

    import_id: ImportId
    project_id: ProjectId
    attempt: int
    document_id: DocumentId
    revision: int
    parsed_offset: int
    parts: Mapping[Part, Mapping[ChunkOutcome, int]]


def settle_document(tally: DocumentTally, at: datetime) -> DocumentChunksSettled:
    """Names the parts that may replace older ones: a failed revision never takes a good one away."""
    replacing = tuple(
        part
        for part, outcomes in tally.parts.items()
        if not outcomes.get(ChunkOutcome.DEAD_LETTERED)
        and (not outcomes or outcomes.get(ChunkOutcome.STORED))
    )

    def count(outcome: ChunkOutcome) -> int:
        return sum(outcomes.get(outcome, 0) for outcomes in tally.parts.values())

    return DocumentChunksSettled(
        import_id=tally.import_id,
        project_id=tally.project_id,
        attempt=tally.attempt,
        occurred_at=at,
        document_id=tally.document_id,
        revision=tally.revision,
        parsed_offset=tally.parsed_offset,
        parts=replacing,
        stored_count=count(ChunkOutcome.STORED),
        rejected_count=count(ChunkOutcome.REJECTED),
        dead_lettered_count=count(ChunkOutcome.DEAD_LETTERED),
        superseded_count=count(ChunkOutcome.SUPERSEDED),
    )


def is_complete(state: Import, *, open_documents: int, open_chunks: int) -> bool:
    """Sealed in this attempt, every listed chunk has an outcome, and every document is settled by the writer."""
    is_sealed = state.state is State.EMBEDDING and state.sealed_attempt == state.attempt
    return is_sealed and open_documents == 0 and open_chunks == 0


def complete(
    state: Import, *, chunks: ChunkCounts, tokens_billed: int, digest: str, store_id: StoreId, at: datetime
) -> ImportCompleted:
    return ImportCompleted(
        import_id=state.import_id,
        project_id=state.project_id,
        attempt=state.attempt,
        occurred_at=at,
        revision=state.revision,
        store_id=store_id,
        digest=digest,
        document_count=state.document_count,
        chunk_count=chunks.total,
        stored_count=chunks.stored,
        rejected_count=chunks.rejected,
        dead_lettered_count=chunks.dead_lettered,
        superseded_count=chunks.superseded,
        reused_count=chunks.reused,
        documents_rejected_count=state.rejected_count,
        tokens_billed=tokens_billed,
        space=state.space,
        project_name=state.project_name,
        requested_at=state.requested_at,
    )


def digest(content_hashes: Iterable[bytes]) -> str:
    """The sum of distinct content hashes modulo 2^256, in hex: no order, no repeats."""
    total = 0
    for one in content_hashes:
        total += int.from_bytes(one, "big")
    return f"{total % (1 << 256):064x}"
