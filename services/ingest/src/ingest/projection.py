# ruff: noqa: S608 - what is put into statements are constants of this module; values are always bound
"""The read model of `imports`: one SQLite file per instance, with the offset up to which it has folded.

The file may be deleted at any time; the log makes it again. It answers HTTP's reads and tells the leader what is
ready to be decided. It holds rows, so memory does not grow with the size of an import or the length of history.
What an event means for an import as a whole stands in `core.evolve`; here are the rows of documents and chunks:

* a chunk's row is made by whichever comes first, its settlement or the list that names it; only listed rows count;
* a settlement is a coordinate: `StoreOpened` takes back what stands at or behind the positions that it names;
* a row once superseded by a newer revision's `DocumentChunksSettled` has an outcome without coordinates.
"""

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from eventlog.events import (
    ChunkOutcome,
    ChunkRejectionReason,
    ChunksSettled,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentRejected,
    DocumentRejectionReason,
    DocumentSettled,
    EmbeddingContinued,
    EmbeddingPaused,
    ImportMessage,
    ImportRefused,
    ImportRequested,
    ImportResumed,
    Message,
    Part,
    ProjectCreated,
    ProjectSpaceChanged,
    RequestImport,
    SettledChunk,
    Source,
    SourceFile,
    SourceKind,
    StoreOpened,
    WritingContinued,
    WritingPaused,
)
from eventlog.ids import ChunkId, DocumentId, ImportId, ProjectId, StoreId, normalise_name, project_id
from eventlog.topics import EMBEDDINGS, IMPORTS
from ingest.core import (
    COMPLETE,
    OPEN,
    ChunkCounts,
    DocumentCounts,
    DocumentTally,
    Import,
    ImportStatus,
    Project,
    State,
    digest,
    evolve,
    is_complete,
    progress,
)

VERSION = 1
"""Of the tables; a file of another version is thrown away and folded again."""

_OUTCOMES = (ChunkOutcome.STORED, ChunkOutcome.REJECTED, ChunkOutcome.DEAD_LETTERED, ChunkOutcome.SUPERSEDED)
_CODE = {outcome: code for code, outcome in enumerate(_OUTCOMES)}
_SUPERSEDED = _CODE[ChunkOutcome.SUPERSEDED]
_COUNTERS = (
    "total",
    "stored",
    "rejected",
    "dead_lettered",
    "superseded",
    "embedded",
    "reused",
    "tokens",
    "seen",
)

_TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE projects (project_id BLOB PRIMARY KEY, name TEXT, folded TEXT, space TEXT) WITHOUT ROWID;
CREATE TABLE imports (
    number INTEGER PRIMARY KEY, import_id BLOB UNIQUE, project_id BLOB, state TEXT, summary TEXT,
    source TEXT, options TEXT, changed_at INTEGER, parsed INTEGER DEFAULT 0, progress REAL DEFAULT 0,
    {", ".join(f"{name} INTEGER DEFAULT 0" for name in _COUNTERS)}
);
CREATE INDEX imports_open ON imports (state) WHERE state IN ('parsing', 'embedding');
CREATE INDEX imports_project ON imports (project_id, number);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, import_no INTEGER, document_id BLOB, title TEXT, items TEXT, parts TEXT,
    revision INTEGER, parsed_offset INTEGER, attempt INTEGER DEFAULT 0, open INTEGER DEFAULT 0,
    said_offset INTEGER, settled INTEGER DEFAULT 0, UNIQUE (import_no, document_id)
);
CREATE INDEX documents_by_id ON documents (document_id);
CREATE INDEX documents_open ON documents (import_no)
    WHERE parsed_offset IS NOT NULL AND (open > 0 OR settled = 0);
CREATE INDEX documents_ready ON documents (number) WHERE parsed_offset IS NOT NULL AND open = 0 AND said_offset IS NULL;
CREATE INDEX documents_said ON documents (said_offset) WHERE said_offset IS NOT NULL;
CREATE TABLE chunks (
    import_no INTEGER, chunk_id BLOB, document_no INTEGER, part TEXT, chunk_index INTEGER, listed INTEGER,
    outcome INTEGER, reason TEXT, partition INTEGER, "offset" INTEGER, tokens INTEGER, reused INTEGER,
    content_hash BLOB, PRIMARY KEY (import_no, chunk_id)
) WITHOUT ROWID;
CREATE INDEX chunks_by_place ON chunks (partition, "offset") WHERE partition IS NOT NULL;
CREATE INDEX chunks_by_document ON chunks (document_no, chunk_index);
CREATE TABLE marks (document_id BLOB, part TEXT, revision INTEGER, PRIMARY KEY (document_id, part)) WITHOUT ROWID;
CREATE TABLE rejections (
    number INTEGER PRIMARY KEY, import_no INTEGER, item TEXT, reason TEXT, message TEXT, UNIQUE (import_no, item)
);
CREATE TABLE refusals (command_id TEXT PRIMARY KEY, import_id BLOB, reason TEXT, message TEXT) WITHOUT ROWID;
CREATE TABLE paused (space TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID;
"""

_TABLE_NAMES = (
    "meta",
    "projects",
    "imports",
    "documents",
    "chunks",
    "marks",
    "rejections",
    "refusals",
    "paused",
)


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


@dataclass(slots=True)
class _Deltas:
    """What one batch of events adds to the counters, written once at its end."""

    imports: defaultdict[int, defaultdict[str, int]]
    open_by_document: defaultdict[int, int]
    changed: set[int]


def _micros(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1_000_000)


def _dump(state: Import) -> str:
    values = asdict(state)
    for name in ("import_id", "project_id"):
        values[name] = str(values[name])
    for name in ("requested_at", "finished_at"):
        values[name] = values[name].isoformat() if values[name] else None
    return json.dumps(values)


def _load(text: str) -> Import:
    values = json.loads(text)
    values["import_id"] = ImportId(UUID(values["import_id"]))
    values["project_id"] = ProjectId(UUID(values["project_id"]))
    values["state"] = State(values["state"])
    for name in ("requested_at", "finished_at"):
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    values["chunks"] = ChunkCounts(**values["chunks"]) if values["chunks"] else None
    return Import(**values)


def _dump_source(source: Source) -> str:
    return json.dumps(asdict(source))


def _load_source(text: str) -> Source:
    values = json.loads(text)
    values["kind"] = SourceKind(values["kind"])
    values["files"] = tuple(SourceFile(**file) for file in values["files"])
    return Source(**values)


class Projection:
    """Reads are synchronous and short; `apply` runs in a thread, one batch at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        if not self._is_current():
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            with _connect(path) as db:
                db.executescript(_TABLES)
                db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
        self._write = _connect(path)
        self._read = _connect(path)
        self._deltas = _Deltas(defaultdict(lambda: defaultdict(int)), defaultdict(int), set())
        self._changed = asyncio.Condition()
        self.position = int(self._meta("position") or 0)
        self.requests_position = int(self._meta("requests_position") or 0)

    def _is_current(self) -> bool:
        if not self._path.exists():
            return False
        try:
            with _connect(self._path) as db:
                row = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        except sqlite3.DatabaseError:
            return False
        return row is not None and row[0] == VERSION

    def close(self) -> None:
        self._write.close()
        self._read.close()

    # --- folding -------------------------------------------------------------------------------------------------

    def apply(
        self, events: Sequence[tuple[int, Message]], position: int, last: tuple[int, str] | None = None
    ) -> None:
        """Folds events with their offsets on `imports`, in order, and moves the position: all or nothing.

        `last` is the offset and `ce_id` of the last record read, by which a wiped log is known again.
        """
        with self._transaction() as db:
            for offset, event in events:
                self._fold(db, offset, event)
            self._write_deltas(db, position)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('position', ?)", (position,))
            if last is not None:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('last_record', ?)", (json.dumps(last),))
        self.position = position

    def last_record(self) -> tuple[int | None, str]:
        """Offset and `ce_id` of the last record folded; null before the first."""
        value = self._meta("last_record")
        return tuple(json.loads(value)) if isinstance(value, str) else (None, "")

    def reset(self) -> None:
        """Forgets everything, because the log is another one."""
        with self._transaction() as db:
            for table in _TABLE_NAMES:
                db.execute(f"DELETE FROM {table}")
            db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
        self.position = 0
        self.requests_position = 0

    def apply_requests(self, requests: Sequence[tuple[ImportId, RequestImport, str]], position: int) -> None:
        """Commands that nobody decided yet are shown as accepted; a decision always overrides them."""
        with self._transaction() as db:
            for import_id, command, space in requests:
                state = Import(
                    import_id=import_id,
                    project_id=project_id(command.project_name),
                    project_name=command.project_name,
                    space=space,
                    state=State.ACCEPTED,
                    attempt=0,
                    revision=-1,
                    request_sha256="",
                    requested_at=command.occurred_at,
                    item_count=command.item_count,
                )
                db.execute(
                    "INSERT OR IGNORE INTO imports (import_id, project_id, state, summary, source, options, changed_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        import_id.bytes,
                        state.project_id.bytes,
                        state.state,
                        _dump(state),
                        _dump_source(command.source),
                        "{}",
                        self.position,
                    ),
                )
            db.execute("INSERT OR REPLACE INTO meta VALUES ('requests_position', ?)", (position,))
        self.requests_position = position

    async def notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait_for_change(self, position: int, timeout_s: float) -> int:
        """Returns the present position, at once when it is not `position` any more."""
        async with self._changed:
            with suppress(TimeoutError):  # the caller looks at the position; a heartbeat is due
                await asyncio.wait_for(self._changed.wait_for(lambda: self.position != position), timeout_s)
        return self.position

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._write
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            self._deltas = _Deltas(defaultdict(lambda: defaultdict(int)), defaultdict(int), set())
            raise
        db.execute("COMMIT")

    def _fold(self, db: sqlite3.Connection, offset: int, event: Message) -> None:
        match event:
            case ChunksSettled():
                number = self._number(db, event.import_id)
                if number is not None:
                    self._settle_chunks(db, number, event)
            case StoreOpened():
                self._take_back(db, event)
            case EmbeddingPaused():
                db.execute("INSERT OR REPLACE INTO paused VALUES (?, ?)", (event.space, event.reason))
            case EmbeddingContinued():
                db.execute("DELETE FROM paused WHERE space = ?", (event.space,))
            case WritingPaused():
                db.execute("INSERT OR REPLACE INTO meta VALUES ('writer_paused', ?)", (event.reason,))
            case WritingContinued():
                db.execute("DELETE FROM meta WHERE key = 'writer_paused'")
            case ProjectSpaceChanged():
                db.execute(
                    "UPDATE projects SET space = ? WHERE project_id = ?",
                    (event.space, event.project_id.bytes),
                )
            case ImportRefused():
                self._refuse(db, offset, event)
            case ImportMessage():
                self._fold_import(db, offset, event)
            case _:
                pass  # A fact that is no part of any import's story.

    def _fold_import(self, db: sqlite3.Connection, offset: int, event: ImportMessage) -> None:
        if isinstance(event, ProjectCreated):
            db.execute(
                "INSERT OR IGNORE INTO projects VALUES (?, ?, ?, ?)",
                (event.project_id.bytes, event.name, normalise_name(event.name), event.space),
            )
            return
        row = db.execute(
            "SELECT number, summary FROM imports WHERE import_id = ?", (event.import_id.bytes,)
        ).fetchone()
        before = _load(row[1]) if row else None
        if isinstance(event, ImportRequested) and (before is None or not before.is_decided):
            number = self._insert_import(db, event, row[0] if row else None)
        elif row is None or before is None:
            return  # An event of an import that was never requested is nobody's.
        else:
            number = row[0]
        match event:
            case DocumentParsed():
                self._list_document(db, number, offset, event)
            case DocumentRejected():
                if not self._reject(db, number, event):
                    return
            case DocumentChunksSettled():
                self._mark(db, number, offset, event)
            case DocumentSettled():
                db.execute(
                    "UPDATE documents SET settled = 1 WHERE import_no = ? AND document_id = ? AND said_offset = ?",
                    (number, event.document_id.bytes, event.offset),
                )
            case ImportResumed():
                self._forget_failures(db, number, before)
            case _:
                pass  # Its meaning for the import as a whole is core's.
        after = evolve(before, event, offset)
        if after is not None:
            db.execute(
                "UPDATE imports SET state = ?, summary = ?, project_id = ? WHERE number = ?",
                (after.state, _dump(after), after.project_id.bytes, number),
            )
        self._deltas.changed.add(number)

    def _insert_import(self, db: sqlite3.Connection, event: ImportRequested, number: int | None) -> int:
        if number is not None:
            db.execute("DELETE FROM imports WHERE number = ?", (number,))
        cursor = db.execute(
            "INSERT INTO imports (number, import_id, project_id, source, options) VALUES (?, ?, ?, ?, ?)",
            (
                number,
                event.import_id.bytes,
                event.project_id.bytes,
                _dump_source(event.source),
                json.dumps(event.options),
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _refuse(self, db: sqlite3.Connection, offset: int, event: ImportRefused) -> None:
        db.execute(
            "INSERT OR IGNORE INTO refusals VALUES (?, ?, ?, ?)",
            (event.command_id, event.import_id.bytes, event.reason, event.message),
        )
        row = db.execute(
            "SELECT number, summary FROM imports WHERE import_id = ? AND state = 'accepted'",
            (event.import_id.bytes,),
        ).fetchone()
        if row is not None:
            values = json.loads(row[1]) | {
                "state": State.FAILED,
                "problem": f"{event.reason}: {event.message}",
                "finished_at": event.occurred_at.isoformat(),
            }
            db.execute(
                "UPDATE imports SET state = 'failed', summary = ?, changed_at = ? WHERE number = ?",
                (json.dumps(values), offset, row[0]),
            )

    def _number(self, db: sqlite3.Connection, import_id: ImportId) -> int | None:
        row = db.execute("SELECT number FROM imports WHERE import_id = ?", (import_id.bytes,)).fetchone()
        return None if row is None else int(row[0])

    def _document_no(self, db: sqlite3.Connection, import_no: int, document_id: DocumentId) -> int:
        row = db.execute(
            "SELECT number FROM documents WHERE import_no = ? AND document_id = ?",
            (import_no, document_id.bytes),
        ).fetchone()
        if row is not None:
            return int(row[0])
        cursor = db.execute(
            "INSERT INTO documents (import_no, document_id) VALUES (?, ?)", (import_no, document_id.bytes)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    # --- documents and chunks ------------------------------------------------------------------------------------

    def _list_document(
        self, db: sqlite3.Connection, import_no: int, offset: int, event: DocumentParsed
    ) -> None:
        document_no = self._document_no(db, import_no, event.document_id)
        was_listed = db.execute(
            "SELECT parsed_offset FROM documents WHERE number = ?", (document_no,)
        ).fetchone()[0]
        db.execute(
            "UPDATE documents SET title = ?, items = ?, parts = ?, revision = ?, parsed_offset = ?, attempt = ?, "
            "said_offset = NULL, settled = 0 WHERE number = ?",
            (
                event.title,
                json.dumps(event.source_items),
                json.dumps([part.part for part in event.parts]),
                event.revision,
                offset,
                event.attempt,
                document_no,
            ),
        )
        if was_listed is None:
            db.execute("UPDATE imports SET parsed = parsed + 1 WHERE number = ?", (import_no,))
        index = 0
        for part in event.parts:
            mark = db.execute(
                "SELECT revision FROM marks WHERE document_id = ? AND part = ?",
                (event.document_id.bytes, part.part),
            ).fetchone()
            is_superseded = mark is not None and mark[0] > event.revision
            for chunk_id in part.chunk_ids:
                self._list_chunk(db, import_no, document_no, chunk_id, part.part, index, is_superseded)
                index += 1

    def _list_chunk(
        self,
        db: sqlite3.Connection,
        import_no: int,
        document_no: int,
        chunk_id: ChunkId,
        part: Part,
        index: int,
        is_superseded: bool,
    ) -> None:
        row = db.execute(
            "SELECT listed, outcome, tokens, reused FROM chunks WHERE import_no = ? AND chunk_id = ?",
            (import_no, chunk_id.bytes),
        ).fetchone()
        if row is None:
            outcome = _SUPERSEDED if is_superseded else None
            db.execute(
                "INSERT INTO chunks (import_no, chunk_id, document_no, part, chunk_index, listed, outcome) "
                "VALUES (?, ?, ?, ?, ?, 1, ?)",
                (import_no, chunk_id.bytes, document_no, part, index, outcome),
            )
            self._count(import_no, document_no, outcome, 1, total=1)
            return
        listed, outcome, tokens, reused = row
        if listed:
            return
        if outcome is None and is_superseded:
            outcome = _SUPERSEDED
        db.execute(
            "UPDATE chunks SET listed = 1, part = ?, chunk_index = ?, outcome = ? WHERE import_no = ? AND chunk_id = ?",
            (part, index, outcome, import_no, chunk_id.bytes),
        )
        self._deltas.imports[import_no]["seen"] -= 1
        self._count(import_no, document_no, outcome, 1, total=1, tokens=tokens or 0, reused=reused or 0)

    def _count(
        self,
        import_no: int,
        document_no: int,
        outcome: int | None,
        sign: int,
        *,
        total: int = 0,
        tokens: int = 0,
        reused: int = 0,
    ) -> None:
        """A listed chunk enters (`sign` 1) or leaves (-1) the tally of `outcome`; null is open."""
        counters = self._deltas.imports[import_no]
        counters["total"] += total
        counters["tokens"] += tokens
        counters["reused"] += reused
        if outcome is None:
            self._deltas.open_by_document[document_no] += sign
        else:
            counters[_OUTCOMES[outcome].value] += sign
            if _OUTCOMES[outcome] in (ChunkOutcome.STORED, ChunkOutcome.SUPERSEDED):
                counters["embedded"] += sign
        self._deltas.changed.add(import_no)

    def _settle_chunks(self, db: sqlite3.Connection, import_no: int, event: ChunksSettled) -> None:
        documents: dict[DocumentId, int] = {}
        for chunk in event.chunks:
            if chunk.outcome not in _CODE:
                continue  # An outcome of a newer version settles nothing here; the row stays open and shows it.
            if chunk.document_id not in documents:
                documents[chunk.document_id] = self._document_no(db, import_no, chunk.document_id)
            self._settle_chunk(db, import_no, documents[chunk.document_id], chunk)
        self._deltas.changed.add(import_no)

    def _settle_chunk(
        self, db: sqlite3.Connection, import_no: int, document_no: int, chunk: SettledChunk
    ) -> None:
        outcome = _CODE[chunk.outcome]
        reason = None if chunk.reason is ChunkRejectionReason.UNKNOWN else chunk.reason
        row = db.execute(
            "SELECT listed, outcome, tokens, partition FROM chunks WHERE import_no = ? AND chunk_id = ?",
            (import_no, chunk.chunk_id.bytes),
        ).fetchone()
        if row is None:
            db.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, NULL, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                (
                    import_no,
                    chunk.chunk_id.bytes,
                    document_no,
                    chunk.chunk_index,
                    outcome,
                    reason,
                    chunk.partition,
                    chunk.offset,
                    chunk.tokens_billed,
                    chunk.is_reused,
                    chunk.content_hash,
                ),
            )
            self._deltas.imports[import_no]["seen"] += 1
            return
        listed, before, tokens, _partition = row
        # The first settlement counts the tokens; a repeat under a later attempt was reused and bills nothing.
        is_first = tokens is None
        db.execute(
            'UPDATE chunks SET outcome = ?, reason = ?, partition = ?, "offset" = ?, content_hash = ?, '
            "tokens = COALESCE(tokens, ?), reused = COALESCE(reused, ?) WHERE import_no = ? AND chunk_id = ?",
            (
                outcome,
                reason,
                chunk.partition,
                chunk.offset,
                chunk.content_hash,
                chunk.tokens_billed,
                chunk.is_reused,
                import_no,
                chunk.chunk_id.bytes,
            ),
        )
        if listed:
            self._count(import_no, document_no, before, -1)
            self._count(
                import_no,
                document_no,
                outcome,
                1,
                tokens=chunk.tokens_billed if is_first else 0,
                reused=int(chunk.is_reused) if is_first else 0,
            )

    def _take_back(self, db: sqlite3.Connection, event: StoreOpened) -> None:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('store_id', ?)", (str(event.store_id),))
        db.execute("DELETE FROM meta WHERE key = 'writer_paused'")
        lowest: dict[tuple[str, int], int] = {}
        for position in event.positions:
            at = (position.topic, position.partition)
            lowest[at] = min(position.offset, lowest.get(at, position.offset))
        for (topic, partition), offset in lowest.items():
            if topic.endswith(EMBEDDINGS):
                rows = db.execute(
                    "SELECT import_no, document_no, outcome, listed FROM chunks "
                    'WHERE partition = ? AND "offset" >= ? AND outcome IS NOT NULL',
                    (partition, offset),
                )
                for import_no, document_no, outcome, listed in rows:
                    if listed:
                        self._count(import_no, document_no, outcome, -1)
                        self._count(import_no, document_no, None, 1)
                db.execute(
                    'UPDATE chunks SET outcome = NULL, partition = NULL, "offset" = NULL '
                    'WHERE partition = ? AND "offset" >= ? AND outcome IS NOT NULL',
                    (partition, offset),
                )
            elif topic.endswith(IMPORTS):
                db.execute("UPDATE documents SET settled = 0 WHERE said_offset >= ?", (offset,))

    def _mark(
        self, db: sqlite3.Connection, import_no: int, offset: int, event: DocumentChunksSettled
    ) -> None:
        document = event.document_id.bytes
        db.execute(
            "UPDATE documents SET said_offset = ?, settled = 0 "
            "WHERE import_no = ? AND document_id = ? AND parsed_offset = ?",
            (offset, import_no, document, event.parsed_offset),
        )
        for part in event.parts:
            db.execute(
                "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (document_id, part) "
                "DO UPDATE SET revision = max(revision, excluded.revision)",
                (document, part, event.revision),
            )
            older = db.execute(
                "SELECT c.import_no, c.document_no, c.chunk_id FROM documents d "
                "JOIN chunks c ON c.document_no = d.number "
                "WHERE d.document_id = ? AND d.revision < ? AND c.part = ? AND c.listed AND c.outcome IS NULL",
                (document, event.revision, part),
            ).fetchall()
            for other_no, document_no, chunk_id in older:
                db.execute(
                    "UPDATE chunks SET outcome = ? WHERE import_no = ? AND chunk_id = ?",
                    (_SUPERSEDED, other_no, chunk_id),
                )
                self._count(other_no, document_no, None, -1)
                self._count(other_no, document_no, _SUPERSEDED, 1)

    def _reject(self, db: sqlite3.Connection, import_no: int, event: DocumentRejected) -> bool:
        cursor = db.execute(
            "INSERT OR IGNORE INTO rejections (import_no, item, reason, message) VALUES (?, ?, ?, ?)",
            (import_no, event.item, event.reason, event.message),
        )
        return cursor.rowcount > 0

    def _forget_failures(self, db: sqlite3.Connection, import_no: int, before: Import | None) -> None:
        """A resume drives what is missing: all of a completed import (its store lacked something), else what failed."""
        db.execute("DELETE FROM rejections WHERE import_no = ?", (import_no,))
        was_complete = before is not None and before.state in COMPLETE
        kept = () if was_complete else (_CODE[ChunkOutcome.STORED], _SUPERSEDED)
        rows = db.execute(
            "SELECT chunk_id, document_no, outcome FROM chunks WHERE import_no = ? AND listed "
            f"AND outcome IS NOT NULL AND outcome NOT IN ({', '.join(str(code) for code in kept)})",
            (import_no,),
        ).fetchall()
        for chunk_id, document_no, outcome in rows:
            db.execute(
                'UPDATE chunks SET outcome = NULL, partition = NULL, "offset" = NULL '
                "WHERE import_no = ? AND chunk_id = ?",
                (import_no, chunk_id),
            )
            self._count(import_no, document_no, outcome, -1)
            self._count(import_no, document_no, None, 1)

    def _write_deltas(self, db: sqlite3.Connection, position: int) -> None:
        deltas, self._deltas = (
            self._deltas,
            _Deltas(defaultdict(lambda: defaultdict(int)), defaultdict(int), set()),
        )
        for document_no, delta in deltas.open_by_document.items():
            if delta:
                db.execute("UPDATE documents SET open = open + ? WHERE number = ?", (delta, document_no))
        assignments = ", ".join(f"{name} = {name} + ?" for name in _COUNTERS)
        for import_no, counters in deltas.imports.items():
            values = [counters.get(name, 0) for name in _COUNTERS]
            db.execute(f"UPDATE imports SET {assignments} WHERE number = ?", (*values, import_no))
        for import_no in deltas.changed:
            row = db.execute(
                "SELECT summary, parsed, stored + rejected + dead_lettered + superseded + seen, total + seen "
                "FROM imports WHERE number = ?",
                (import_no,),
            ).fetchone()
            now = progress(_load(row[0]), parsed=row[1], settled=row[2], chunks_so_far=row[3])
            db.execute(
                "UPDATE imports SET progress = max(progress, ?), changed_at = ? WHERE number = ?",
                (now, position - 1, import_no),
            )

    # --- what HTTP reads -----------------------------------------------------------------------------------------

    _STATUS = (
        "SELECT number, summary, changed_at, parsed, progress, total, stored, rejected, dead_lettered, superseded, "
        "embedded, reused, tokens FROM imports"
    )

    def status(self, import_id: ImportId) -> ImportStatus | None:
        row = self._read.execute(f"{self._STATUS} WHERE import_id = ?", (import_id.bytes,)).fetchone()
        return None if row is None else self._status(row)

    def statuses(
        self, *, before: int | None, limit: int, project_id: ProjectId | None = None
    ) -> list[ImportStatus]:
        """Newest first; `before` is the `cursor` of the last one of the page before."""
        where, values = ["number < ?"], [before if before is not None else 1 << 62]
        project: list[bytes] = []
        if project_id is not None:
            where.append("project_id = ?")
            project.append(project_id.bytes)
        rows = self._read.execute(
            f"{self._STATUS} WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?",
            (*values, *project, limit),
        ).fetchall()
        return [self._status(row) for row in rows]

    def _status(
        self, row: tuple[int, str, int, int, float, int, int, int, int, int, int, int, int]
    ) -> ImportStatus:
        state = _load(row[1])
        live = ChunkCounts(
            total=row[5],
            stored=row[6],
            rejected=row[7],
            dead_lettered=row[8],
            superseded=row[9],
            embedded=row[10],
            reused=row[11],
        )
        stored = self._read.execute(
            "SELECT count(*) FROM documents WHERE import_no = ? AND parsed_offset IS NOT NULL AND settled = 1",
            (row[0],),
        ).fetchone()[0]
        is_complete = state.chunks is not None
        return ImportStatus(
            import_id=state.import_id,
            project_id=state.project_id,
            project=state.project_name,
            state=state.state,
            waiting=self._waiting(state),
            attempt=state.attempt,
            progress=1.0 if is_complete else row[4],
            documents=DocumentCounts(
                found=max(state.item_count, row[3] + state.rejected_count + state.merged_count),
                parsed=row[3],
                merged=state.merged_count,
                stored=state.document_count if is_complete else stored,
                rejected=state.rejected_count,
            ),
            chunks=state.chunks or live,
            warnings=state.warning_count,
            tokens_billed=row[12] if state.tokens_billed is None else state.tokens_billed,
            space=state.space,
            requested_at=state.requested_at,
            finished_at=state.finished_at,
            digest=state.digest,
            problem=state.problem,
            position=row[2],
            cursor=row[0],
        )

    def _waiting(self, state: Import) -> str | None:
        if not state.is_open:
            return None
        row = self._read.execute("SELECT reason FROM paused WHERE space = ?", (state.space,)).fetchone()
        if row is not None:
            return str(row[0])
        return "store_down" if self._meta("writer_paused") else None

    def _meta(self, key: str) -> str | int | None:
        row = self._read.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def source(self, import_id: ImportId) -> tuple[Source, str] | None:
        """The source and the request's hash, empty while the command is undecided."""
        row = self._read.execute(
            "SELECT source, summary FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return None if row is None else (_load_source(row[0]), _load(row[1]).request_sha256)

    def options(self, import_id: ImportId) -> dict[str, str]:
        row = self._read.execute(
            "SELECT options FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return {} if row is None else dict(json.loads(row[0]))

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

    def documents(self, import_id: ImportId, *, after: int, limit: int) -> list[DocumentRow]:
        rows = self._read.execute(
            "SELECT d.number, d.document_id, d.title, d.items, d.parts, d.open, d.settled, d.revision "
            "FROM documents d "
            "JOIN imports i ON i.number = d.import_no "
            "WHERE i.import_id = ? AND d.number > ? AND d.parsed_offset IS NOT NULL ORDER BY d.number LIMIT ?",
            (import_id.bytes, after, limit),
        ).fetchall()
        return [
            DocumentRow(
                number=row[0],
                document_id=DocumentId(UUID(bytes=row[1])),
                title=row[2],
                state="stored" if row[6] and not row[5] else "settled" if not row[5] else "parsed",
                source_items=tuple(json.loads(row[3])),
                parts=tuple(Part(part) for part in json.loads(row[4])),
                open_count=row[5],
                revision=row[7],
            )
            for row in rows
        ]

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

    _CHUNKS = (
        "SELECT d.number, c.chunk_id, d.document_id, c.part, c.chunk_index, c.outcome, c.reason, c.content_hash "
        "FROM chunks c JOIN documents d ON d.number = c.document_no JOIN imports i ON i.number = c.import_no "
        "WHERE i.import_id = ? AND c.listed"
    )

    def chunks(
        self, import_id: ImportId, *, outcome: ChunkOutcome | None, after: int, limit: int
    ) -> list[ChunkRow]:
        """Chunks of documents whose number is greater than `after`; a page ends with a whole document."""
        condition = "" if outcome is None else f" AND c.outcome = {_CODE[outcome]}"
        rows = self._read.execute(
            f"{self._CHUNKS}{condition} AND d.number > ? ORDER BY d.number, c.chunk_index LIMIT ?",
            (import_id.bytes, after, limit),
        ).fetchall()
        if len(rows) == limit and rows[0][0] != rows[-1][0]:
            rows = [row for row in rows if row[0] != rows[-1][0]]
        elif len(rows) == limit:
            rows = self._read.execute(
                f"{self._CHUNKS}{condition} AND d.number = ? ORDER BY c.chunk_index",
                (import_id.bytes, rows[0][0]),
            ).fetchall()
        return [_chunk(row) for row in rows]

    def chunks_of(self, import_id: ImportId, document_id: DocumentId) -> list[ChunkRow]:
        rows = self._read.execute(
            f"{self._CHUNKS} AND d.document_id = ? ORDER BY c.chunk_index",
            (import_id.bytes, document_id.bytes),
        ).fetchall()
        return [_chunk(row) for row in rows]

    # --- what the leader asks ------------------------------------------------------------------------------------

    def find(self, import_id: ImportId) -> Import | None:
        """The import as decided; null while only the command is known."""
        row = self._read.execute(
            "SELECT summary FROM imports WHERE import_id = ? AND state != 'accepted'", (import_id.bytes,)
        ).fetchone()
        if row is None:
            return None
        state = _load(row[0])
        return state if state.is_decided else None

    def is_refused(self, command_id: str) -> bool:
        return (
            self._read.execute("SELECT 1 FROM refusals WHERE command_id = ?", (command_id,)).fetchone()
            is not None
        )

    def open_imports(self) -> list[Import]:
        """In the order in which they were requested."""
        rows = self._read.execute(
            f"SELECT summary FROM imports WHERE state IN ({', '.join(repr(s.value) for s in OPEN)}) ORDER BY number"
        ).fetchall()
        return [_load(row[0]) for row in rows]

    def missing_count(self, import_id: ImportId) -> int:
        row = self._read.execute(
            "SELECT total - stored - superseded FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def is_driven(self, state: Import, document_id: DocumentId) -> bool:
        """Whether this attempt has nothing to do for the document: published, or settled by an earlier one."""
        row = self._read.execute(
            "SELECT d.attempt, d.open FROM documents d JOIN imports i ON i.number = d.import_no "
            "WHERE i.import_id = ? AND d.document_id = ? AND d.parsed_offset IS NOT NULL",
            (state.import_id.bytes, document_id.bytes),
        ).fetchone()
        return row is not None and (row[0] >= state.attempt or row[1] == 0)

    def is_rejected(self, import_id: ImportId, item: str) -> bool:
        row = self._read.execute(
            "SELECT 1 FROM rejections r JOIN imports i ON i.number = r.import_no WHERE i.import_id = ? AND r.item = ?",
            (import_id.bytes, item),
        ).fetchone()
        return row is not None

    def listed_counts(self, import_id: ImportId) -> tuple[int, int]:
        """Documents and chunks that the import lists so far."""
        row = self._read.execute(
            "SELECT parsed, total FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def documents_to_settle(self, limit: int) -> list[DocumentTally]:
        """Documents whose chunks all have an outcome that nobody has said yet."""
        rows = self._read.execute(
            "SELECT d.number, i.summary, d.document_id, d.revision, d.parsed_offset, d.parts, d.attempt "
            "FROM documents d JOIN imports i ON i.number = d.import_no "
            "WHERE d.parsed_offset IS NOT NULL AND d.open = 0 AND d.said_offset IS NULL ORDER BY d.number LIMIT ?",
            (limit,),
        ).fetchall()
        out = []
        for number, summary, document, revision, parsed_offset, parts, attempt in rows:
            state = _load(summary)
            tallies: dict[Part, dict[ChunkOutcome, int]] = {Part(part): {} for part in json.loads(parts)}
            counts = self._read.execute(
                "SELECT part, outcome, count(*) FROM chunks WHERE document_no = ? AND listed GROUP BY part, outcome",
                (number,),
            )
            for part, outcome, count in counts:
                tallies.setdefault(Part(part), {})[_OUTCOMES[outcome]] = count
            out.append(
                DocumentTally(
                    import_id=state.import_id,
                    project_id=state.project_id,
                    attempt=attempt,
                    document_id=DocumentId(UUID(bytes=document)),
                    revision=revision,
                    parsed_offset=parsed_offset,
                    parts=tallies,
                )
            )
        return out

    def complete_imports(self) -> list[Import]:
        """Open imports for which every condition of completion holds."""
        return [
            state
            for state in self.open_imports()
            if state.sealed_attempt == state.attempt
            and is_complete(state, open_documents=self._open_documents(state.import_id))
        ]

    def _open_documents(self, import_id: ImportId) -> int:
        """0 or 1: whether any listed document is not settled."""
        row = self._read.execute(
            "SELECT count(*) FROM (SELECT 1 FROM documents d JOIN imports i ON i.number = d.import_no "
            "WHERE i.import_id = ? AND d.parsed_offset IS NOT NULL AND (d.open > 0 OR d.settled = 0) LIMIT 1)",
            (import_id.bytes,),
        ).fetchone()
        return int(row[0])

    def totals(self, import_id: ImportId) -> tuple[ChunkCounts, int, str]:
        """Counts, tokens billed and the digest of what is stored now."""
        row = self._read.execute(
            "SELECT number, total, stored, rejected, dead_lettered, superseded, embedded, reused, tokens "
            "FROM imports WHERE import_id = ?",
            (import_id.bytes,),
        ).fetchone()
        hashes: Iterable[bytes] = (
            one
            for (one,) in self._read.execute(
                "SELECT DISTINCT content_hash FROM chunks WHERE import_no = ? AND listed AND outcome = ?",
                (row[0], _CODE[ChunkOutcome.STORED]),
            )
            if one
        )
        counts = ChunkCounts(
            total=row[1],
            stored=row[2],
            rejected=row[3],
            dead_lettered=row[4],
            superseded=row[5],
            embedded=row[6],
            reused=row[7],
        )
        return counts, int(row[8]), digest(hashes)

    def store_id(self) -> StoreId | None:
        value = self._meta("store_id")
        return None if value is None else StoreId(UUID(str(value)))


def _connect(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time: `apply` by the fold's, reads by the event loop's.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")  # a lost file is folded again
    db.execute("PRAGMA cache_size = -4096")  # kilobytes: memory does not grow with history (P5)
    db.execute("PRAGMA temp_store = FILE")
    return db


def _project(row: tuple[bytes, str, str]) -> Project:
    return Project(project_id=ProjectId(UUID(bytes=row[0])), name=row[1], space=row[2])


def _chunk(row: tuple[int, bytes, bytes, str, int, int | None, str | None, bytes | None]) -> ChunkRow:
    return ChunkRow(
        number=row[0],
        chunk_id=ChunkId(UUID(bytes=row[1])),
        document_id=DocumentId(UUID(bytes=row[2])),
        part=Part(row[3]),
        chunk_index=row[4],
        outcome=None if row[5] is None else _OUTCOMES[row[5]],
        reason=ChunkRejectionReason(row[6]) if row[6] else ChunkRejectionReason.UNKNOWN,
        content_hash=row[7] or b"",
    )
