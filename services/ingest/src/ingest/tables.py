"""How the projection's file looks: its tables, the codes in their columns, and an import as one row holds it.

It knows no events and asks nothing; what is written where, and what it means, stands in `folding` and `chunk_rows`.
"""

import json
import sqlite3
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from uuid import UUID

from eventlog.events import ChunkOutcome, Source, SourceFile, SourceKind
from eventlog.ids import ImportId, ProjectId
from ingest.state import ChunkCounts, Import, State

VERSION = 8
"""A file of another version is thrown away and folded again."""

OUTCOMES = (ChunkOutcome.STORED, ChunkOutcome.REJECTED, ChunkOutcome.DEAD_LETTERED, ChunkOutcome.SUPERSEDED)
CODE = {outcome: code for code, outcome in enumerate(OUTCOMES)}
STORED, SUPERSEDED = CODE[ChunkOutcome.STORED], CODE[ChunkOutcome.SUPERSEDED]
FAILED = (CODE[ChunkOutcome.REJECTED], CODE[ChunkOutcome.DEAD_LETTERED])

COUNTERS = (
    "parsed", "settled", "warnings", "total", *(one.value for one in OUTCOMES), "reused", "tokens", "unlisted",
)  # fmt: skip
"""Of an import: documents listed and settled, warnings, listed chunks by outcome, and chunks that were settled
before a list named them."""

TABLES = {
    "meta": "key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "projects": "project_id BLOB PRIMARY KEY, name TEXT, folded TEXT, space TEXT) WITHOUT ROWID",
    "imports": "number INTEGER PRIMARY KEY, import_id BLOB UNIQUE, project_id BLOB, state TEXT, summary TEXT, "
    "source TEXT, options TEXT, changed_at INTEGER, progress REAL DEFAULT 0, "
    + ", ".join(f"{name} INTEGER DEFAULT 0" for name in COUNTERS)
    + ")",
    # `open` counts listed chunks without an outcome; `said_offset` is where DocumentChunksSettled stands;
    # an `attempt` of 0 is to be driven again, whatever is settled; `has_refused`: one of its files was rejected;
    # `lost`: what was said at
    # `said_offset` was settled, in a store that then went on before it.
    "documents": "number INTEGER PRIMARY KEY, import_no INTEGER, document_id BLOB, title TEXT, items TEXT, "
    "parts TEXT, revision INTEGER, parsed_offset INTEGER, attempt INTEGER DEFAULT 0, open INTEGER DEFAULT 0, "
    "said_offset INTEGER, settled INTEGER DEFAULT 0, lost INTEGER DEFAULT 0, has_refused INTEGER DEFAULT 0, authors INTEGER DEFAULT 0, "
    "concepts INTEGER DEFAULT 0, nodes INTEGER DEFAULT 0, edges INTEGER DEFAULT 0, "
    "UNIQUE (import_no, document_id))",
    # By document, so that what is settled together lies together and needs no second index. `attempt` is the one that
    # settled it; `lost` the outcome it had at its coordinate until a store went on before that.
    "chunks": "document_no INTEGER, chunk_id BLOB, part TEXT, chunk_index INTEGER, listed INTEGER, outcome INTEGER, "
    'reason TEXT, partition INTEGER, "offset" INTEGER, tokens INTEGER, reused INTEGER, content_hash BLOB, '
    "attempt INTEGER, lost INTEGER, PRIMARY KEY (document_no, chunk_id)) WITHOUT ROWID",
    # The last settled offset of each partition of `embeddings`, and where a store that just opened goes on there.
    "places": "partition INTEGER PRIMARY KEY, settled_to INTEGER, opened_at INTEGER)",
    "openings": "event_sha256 BLOB PRIMARY KEY) WITHOUT ROWID",
    "marks": "document_id BLOB, part TEXT, revision INTEGER, PRIMARY KEY (document_id, part)) WITHOUT ROWID",
    "rejections": "number INTEGER PRIMARY KEY, import_no INTEGER, item TEXT, reason TEXT, message TEXT, "
    "UNIQUE (import_no, item))",
    # Of a document, or of the import as a whole where that is null.
    "warnings": "number INTEGER PRIMARY KEY, import_no INTEGER, document_no INTEGER, code TEXT, subject TEXT, message TEXT)",
    "refusals": "command_id TEXT PRIMARY KEY, problem TEXT, refused_at TEXT) WITHOUT ROWID",
    "paused": "space TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID",
    "poison": '"offset" INTEGER PRIMARY KEY, reason TEXT, message TEXT)',
}
_INDEXES = """
CREATE INDEX imports_open ON imports (state) WHERE state IN ('parsing', 'embedding');
CREATE INDEX imports_project ON imports (project_id, number);
CREATE INDEX documents_of_import ON documents (import_no);
CREATE INDEX documents_by_id ON documents (document_id);
CREATE INDEX warnings_of_import ON warnings (import_no);
CREATE INDEX warnings_of_document ON warnings (document_no, import_no);
CREATE INDEX chunks_lost ON chunks (partition, "offset") WHERE lost IS NOT NULL;
CREATE INDEX documents_ready ON documents (number)
    WHERE parsed_offset IS NOT NULL AND open = 0 AND said_offset IS NULL;
"""


def connect(path: Path) -> sqlite3.Connection:
    """For one thread at a time; statements outside `BEGIN` are their own transactions."""
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=30, cached_statements=256
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")  # a lost file is folded again
        db.execute("PRAGMA cache_size = -4096")  # kilobytes: memory does not grow with history (P5)
        db.execute("PRAGMA temp_store = FILE")
    except sqlite3.DatabaseError:  # the file is read here for the first time
        db.close()
        raise
    return db


def create(db: sqlite3.Connection) -> None:
    db.executescript(
        "".join(f"CREATE TABLE {name} ({columns};" for name, columns in TABLES.items()) + _INDEXES
    )
    db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))


def is_current(path: Path) -> bool:
    """Whether the file can be gone on with, as far as its first pages say."""
    if not path.exists():
        return False
    try:
        db = connect(path)
        try:
            row = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        finally:
            db.close()
    except sqlite3.DatabaseError:
        return False
    return row is not None and row[0] == VERSION


def delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def dump_import(state: Import) -> str:
    values = {name: getattr(state, name) for name in Import.__slots__}
    for name in ("import_id", "project_id"):
        values[name] = str(values[name])
    for name in ("requested_at", "finished_at"):
        values[name] = values[name].isoformat() if values[name] else None
    values["chunks"] = asdict(state.chunks) if state.chunks else None
    return json.dumps(values)


def load_import(text: str) -> Import:
    values = json.loads(text)
    values["import_id"] = ImportId(UUID(values["import_id"]))
    values["project_id"] = ProjectId(UUID(values["project_id"]))
    values["state"] = State(values["state"])
    for name in ("requested_at", "finished_at"):
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    values["chunks"] = ChunkCounts(**values["chunks"]) if values["chunks"] else None
    return Import(**values)


def dump_source(source: Source) -> str:
    return json.dumps(asdict(source))


def load_source(text: str) -> Source:
    values = json.loads(text)
    values["kind"] = SourceKind(values["kind"])
    values["files"] = tuple(SourceFile(**file) for file in values["files"])
    return Source(**values)
