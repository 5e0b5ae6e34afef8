# ruff: noqa: S608 - what is put into statements are constants; values are always bound
"""What may be asked of the projection by whoever shows imports: state, pages of documents and chunks, projects.

Reads are short and synchronous; a page holds what its limit says, so that memory does not grow with an import.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from eventlog.events import ChunkOutcome, ChunkRejectionReason, DocumentRejectionReason, Part, Source
from eventlog.ids import ChunkId, DocumentId, ImportId, ProjectId, project_id
from ingest.state import ChunkCounts, DocumentCounts, Import, ImportStatus, Project, State
from ingest.tables import CODE, OUTCOMES, load_import, load_source

_CHUNK_COUNTS = "total, stored, rejected, dead_lettered, superseded, reused"
_STATUS = f"SELECT number, summary, changed_at, progress, parsed, settled, warnings, tokens, {_CHUNK_COUNTS} FROM imports"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """`number` is the cursor; `state` is parsed, settled or stored."""

    number: int
    document_id: DocumentId
    title: str
    state: str
    source_items: tuple[str, ...]
    parts: tuple[Part, ...]
    open_count: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionRow:
    number: int
    item: str
    reason: DocumentRejectionReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningRow:
    """Without a document it is about the library as a whole."""

    number: int
    code: str
    subject: str
    message: str
    document_id: DocumentId | None
    title: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """`number` is the document's; a page of chunks is a page of documents' chunks in order."""

    number: int
    chunk_id: ChunkId
    document_id: DocumentId
    part: Part
    chunk_index: int
    outcome: ChunkOutcome | None
    reason: ChunkRejectionReason
    content_hash: bytes


def chunk_counts(row: Iterable[int]) -> ChunkCounts:
    """Of the columns `total` to `reused`."""
    total, stored, rejected, dead_lettered, superseded, reused = row
    return ChunkCounts(
        total=total,
        stored=stored,
        rejected=rejected,
        dead_lettered=dead_lettered,
        superseded=superseded,
        embedded=stored + superseded,
        reused=reused,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCounts:
    """Of an import's stored documents, one by one: an author of two of them counts twice."""

    full_texts: int = 0
    authors: int = 0
    concepts: int = 0
    nodes: int = 0
    edges: int = 0


class Reads:
    def __init__(self, read: sqlite3.Connection) -> None:
        self._read = read

    def meta(self, key: str) -> str | int | None:
        row = self._read.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def moved_at(self) -> datetime | None:
        """When the last fact came that is folded; null before the first."""
        value = self.meta("moved_at")
        return None if value is None else datetime.fromisoformat(str(value))

    def status(self, import_id: ImportId) -> ImportStatus | None:
        row = self._read.execute(f"{_STATUS} WHERE import_id = ?", (import_id.bytes,)).fetchone()
        return None if row is None else self._status(*row)

    def statuses(
        self,
        *,
        before: int | None,
        limit: int,
        project_id: ProjectId | None = None,
        states: Sequence[State] = (),
    ) -> list[ImportStatus]:
        """Newest first; `before` is the `cursor` of the last one of the page before. No states means all."""
        where = ["number < ?"]
        values: list[object] = [before if before is not None else 1 << 62]
        if project_id is not None:
            where.append("project_id = ?")
            values.append(project_id.bytes)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values.extend(states)
        rows = self._read.execute(
            f"{_STATUS} WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?", (*values, limit)
        ).fetchall()
        return [self._status(*row) for row in rows]

    def _status(
        self,
        number: int,
        summary: str,
        changed_at: int,
        progress: float,
        parsed: int,
        settled: int,
        warnings: int,
        tokens: int,
        *counts: int,
    ) -> ImportStatus:
        state = load_import(summary)
        is_complete = state.chunks is not None
        return ImportStatus(
            import_id=state.import_id,
            project_id=state.project_id,
            project=state.project_name,
            state=state.state,
            waiting=self._waiting(state),
            attempt=state.attempt,
            progress=1.0 if is_complete else progress,
            documents=DocumentCounts(
                found=max(state.item_count, parsed + state.rejected_count + state.merged_count),
                parsed=parsed,
                merged=state.merged_count,
                stored=state.document_count if is_complete else settled,
                rejected=state.rejected_count,
            ),
            chunks=state.chunks or chunk_counts(counts),
            warnings=warnings,
            tokens_billed=tokens if state.tokens_billed is None else state.tokens_billed,
            space=state.space,
            requested_at=state.requested_at,
            finished_at=state.finished_at,
            digest=state.digest,
            problem=state.problem,
            position=changed_at,
            cursor=number,
        )

    def _waiting(self, state: Import) -> str | None:
        if not state.is_open:
            return None
        row = self._read.execute("SELECT reason FROM paused WHERE space = ?", (state.space,)).fetchone()
        if row is not None:
            return str(row[0])
        return "store_down" if self.meta("writer_paused") else None

    def source(self, import_id: ImportId) -> tuple[Source, str] | None:
        """The source and the request's hash, empty while the command is undecided."""
        row = self._read.execute(
            "SELECT source, summary FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return None if row is None else (load_source(row[0]), load_import(row[1]).request_sha256)

    def find(self, import_id: ImportId) -> Import | None:
        """The import as decided; null while only the command is known, or when it was refused."""
        row = self._read.execute(
            "SELECT summary FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        state = None if row is None else load_import(row[0])
        return state if state is not None and state.is_decided else None

    # --- projects ------------------------------------------------------------------------------------------------

    def project(self, name_or_id: str) -> Project | None:
        try:
            key = UUID(name_or_id).bytes
        except ValueError:
            key = project_id(name_or_id).bytes
        row = self._read.execute(
            "SELECT project_id, name, space FROM projects WHERE project_id = ?", (key,)
        ).fetchone()
        return None if row is None else _project(row)

    def projects(self) -> list[Project]:
        rows = self._read.execute("SELECT project_id, name, space FROM projects ORDER BY folded").fetchall()
        return [_project(row) for row in rows]

    def spaces(self) -> list[str]:
        return [row[0] for row in self._read.execute("SELECT DISTINCT space FROM projects ORDER BY space")]

    # --- documents and chunks ------------------------------------------------------------------------------------

    def documents(self, import_id: ImportId, *, after: int, limit: int) -> list[DocumentRow]:
        rows = self._read.execute(
            "SELECT d.number, d.document_id, d.title, d.items, d.parts, d.open, d.settled, d.revision "
            "FROM documents d WHERE d.import_no = (SELECT number FROM imports WHERE import_id = ?) "
            "AND d.number > ? AND d.parsed_offset IS NOT NULL ORDER BY d.number LIMIT ?",
            (import_id.bytes, after, limit),
        ).fetchall()
        return [
            DocumentRow(
                number=row[0],
                document_id=DocumentId(UUID(bytes=row[1])),
                title=row[2],
                state="parsed" if row[5] else "stored" if row[6] else "settled",
                source_items=tuple(json.loads(row[3])),
                parts=tuple(Part(part) for part in json.loads(row[4])),
                open_count=row[5],
                revision=row[7],
            )
            for row in rows
        ]

    def graph_counts(self, import_id: ImportId) -> GraphCounts:
        row = self._read.execute(
            "SELECT count(*) FILTER (WHERE instr(parts, ?)), coalesce(sum(authors), 0), coalesce(sum(concepts), 0), "
            "coalesce(sum(nodes), 0), coalesce(sum(edges), 0) FROM documents "
            "WHERE settled AND import_no = (SELECT number FROM imports WHERE import_id = ?)",
            (Part.FULL_TEXT, import_id.bytes),
        ).fetchone()
        return GraphCounts(full_texts=row[0], authors=row[1], concepts=row[2], nodes=row[3], edges=row[4])

    def rejections(self, import_id: ImportId, *, after: int, limit: int) -> list[RejectionRow]:
        rows = self._read.execute(
            "SELECT r.number, r.item, r.reason, r.message FROM rejections r JOIN imports i ON i.number = r.import_no "
            "WHERE i.import_id = ? AND r.number > ? ORDER BY r.number LIMIT ?",
            (import_id.bytes, after, limit),
        ).fetchall()
        return [
            RejectionRow(number=row[0], item=row[1], reason=DocumentRejectionReason(row[2]), message=row[3])
            for row in rows
        ]

    def warnings(self, import_id: ImportId, *, after: int, limit: int) -> list[WarningRow]:
        rows = self._read.execute(
            "SELECT w.number, w.code, w.subject, w.message, d.document_id, d.title "
            "FROM warnings w LEFT JOIN documents d ON d.number = w.document_no "
            "WHERE w.import_no = (SELECT number FROM imports WHERE import_id = ?) "
            "AND w.number > ? ORDER BY w.number LIMIT ?",
            (import_id.bytes, after, limit),
        ).fetchall()
        return [
            WarningRow(
                number=row[0],
                code=row[1],
                subject=row[2],
                message=row[3],
                document_id=DocumentId(UUID(bytes=row[4])) if row[4] else None,
                title=row[5],
            )
            for row in rows
        ]

    def chunks(
        self, import_id: ImportId, *, outcome: ChunkOutcome | None, after: int, limit: int
    ) -> list[ChunkRow]:
        """Chunks of documents whose number is greater than `after`; a page ends with a whole document."""
        condition = "" if outcome is None else f" AND c.outcome = {CODE[outcome]}"
        rows = self._chunks(f"d.number > ?{condition} ORDER BY d.number LIMIT ?", import_id, after, limit)
        if len(rows) < limit:
            return rows
        if rows[0].number == rows[-1].number:
            return self._chunks(f"d.number = ?{condition}", import_id, rows[0].number)
        return [row for row in rows if row.number != rows[-1].number]

    def chunks_of(self, import_id: ImportId, document_id: DocumentId) -> list[ChunkRow]:
        return self._chunks("d.document_id = ?", import_id, document_id.bytes)

    def _chunks(self, condition: str, import_id: ImportId, *values: object) -> list[ChunkRow]:
        # By document and not by index, which would sort a whole import for its first page.
        rows = self._read.execute(
            "SELECT d.number, c.chunk_id, d.document_id, c.part, c.chunk_index, c.outcome, c.reason, c.content_hash "
            "FROM documents d CROSS JOIN chunks c ON c.document_no = d.number "  # CROSS: documents come first
            f"WHERE d.import_no = (SELECT number FROM imports WHERE import_id = ?) AND c.listed AND {condition}",
            (import_id.bytes, *values),
        ).fetchall()
        return sorted((_chunk(*row) for row in rows), key=lambda row: (row.number, row.chunk_index))


def _project(row: tuple[bytes, str, str]) -> Project:
    return Project(project_id=ProjectId(UUID(bytes=row[0])), name=row[1], space=row[2])


def _chunk(
    number: int,
    chunk_id: bytes,
    document_id: bytes,
    part: str,
    chunk_index: int,
    outcome: int | None,
    reason: str | None,
    content_hash: bytes | None,
) -> ChunkRow:
    return ChunkRow(
        number=number,
        chunk_id=ChunkId(UUID(bytes=chunk_id)),
        document_id=DocumentId(UUID(bytes=document_id)),
        part=Part(part),
        chunk_index=chunk_index,
        outcome=None if outcome is None else OUTCOMES[outcome],
        reason=ChunkRejectionReason(reason) if reason else ChunkRejectionReason.UNKNOWN,
        content_hash=content_hash or b"",
    )
