"""What the leader asks of the projection: what is still to be driven, and what is ready to be decided."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

from eventlog.events import ChunkOutcome, Part
from eventlog.ids import DocumentId, ImportId, StoreId
from ingest.chunk_rows import UNDRIVEN, outcomes_of
from ingest.core import DocumentTally, digest, is_complete
from ingest.reads import Reads, chunk_counts
from ingest.state import OPEN, ChunkCounts, Import
from ingest.tables import OUTCOMES, STORED, connect, load_import

_OPEN_IMPORTS = f"FROM imports WHERE state IN ({', '.join(repr(one.value) for one in OPEN)}) ORDER BY number"


class Prospects(Reads):
    def __init__(self, read: sqlite3.Connection, path: Path) -> None:
        super().__init__(read)
        self._path = path

    def is_refused(self, command_id: str) -> bool:
        found = self._read.execute("SELECT 1 FROM refusals WHERE command_id = ?", (command_id,)).fetchone()
        return found is not None

    def options(self, import_id: ImportId) -> dict[str, str]:
        row = self._read.execute(
            "SELECT options FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return {} if row is None else dict(json.loads(row[0]))

    def open_imports(self) -> list[Import]:
        """In the order in which they were requested."""
        return [
            load_import(row[0]) for row in self._read.execute(f"SELECT summary {_OPEN_IMPORTS}").fetchall()
        ]

    def missing_count(self, import_id: ImportId) -> int:
        row = self._read.execute(
            "SELECT total - stored - superseded FROM imports WHERE import_id = ?", (import_id.bytes,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def is_driven(self, state: Import, document_id: DocumentId) -> bool:
        """Whether this attempt has nothing to do for the document: listed by it, or settled in an earlier one."""
        row = self._read.execute(
            "SELECT d.attempt FROM documents d JOIN imports i ON i.number = d.import_no "
            "WHERE i.import_id = ? AND d.document_id = ? AND d.parsed_offset IS NOT NULL",
            (state.import_id.bytes, document_id.bytes),
        ).fetchone()
        return row is not None and row[0] > 0

    def is_rejected(self, import_id: ImportId, item: str) -> bool:
        row = self._read.execute(
            "SELECT 1 FROM rejections r JOIN imports i ON i.number = r.import_no WHERE i.import_id = ? AND r.item = ?",
            (import_id.bytes, item),
        ).fetchone()
        return row is not None

    def counts_to_seal(self, state: Import) -> tuple[int, int]:
        """Documents and chunks that the import lists, without those that this attempt did not find again."""
        number, documents, chunks = self._read.execute(
            "SELECT number, parsed, total FROM imports WHERE import_id = ?", (state.import_id.bytes,)
        ).fetchone()
        gone = self._read.execute(
            f"SELECT number FROM documents WHERE import_no = ? AND {UNDRIVEN}",  # noqa: S608 - a constant
            (number,),
        ).fetchall()
        lost = sum(count for (one,) in gone for _, _, count in outcomes_of(self._read, one))
        return documents - len(gone), chunks - lost

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
            state = load_import(summary)
            tallies: dict[Part, dict[ChunkOutcome, int]] = {Part(part): {} for part in json.loads(parts)}
            for part, outcome, count in outcomes_of(self._read, number):
                assert outcome is not None, "a document is ready when no chunk of it is open"
                tallies[part][OUTCOMES[outcome]] = count
            out.append(
                DocumentTally(
                    import_id=state.import_id,
                    project_id=state.project_id,
                    attempt=attempt or state.attempt,
                    document_id=DocumentId(UUID(bytes=document)),
                    revision=revision,
                    parsed_offset=parsed_offset,
                    parts=tallies,
                )
            )
        return out

    def complete_imports(self) -> list[Import]:
        """Open imports for which every condition of completion holds."""
        rows = self._read.execute(
            "SELECT summary, parsed - settled, total - stored - rejected - dead_lettered - superseded "
            + _OPEN_IMPORTS
        ).fetchall()
        return [
            state
            for summary, open_documents, open_chunks in rows
            if is_complete(
                state := load_import(summary), open_documents=open_documents, open_chunks=open_chunks
            )
        ]

    def totals(self, import_id: ImportId) -> tuple[ChunkCounts, int, str]:
        """Counts, tokens billed and the digest of what is stored now. Looks at every chunk: ask it in a thread."""
        with closing(connect(self._path)) as db:
            number, tokens, *counts = db.execute(
                "SELECT number, tokens, total, stored, rejected, dead_lettered, superseded, reused FROM imports "
                "WHERE import_id = ?",
                (import_id.bytes,),
            ).fetchone()
            hashes = db.execute(
                "SELECT DISTINCT content_hash FROM documents d CROSS JOIN chunks c ON c.document_no = d.number "
                "WHERE d.import_no = ? AND c.listed AND c.outcome = ? AND length(c.content_hash) > 0",
                (number, STORED),
            )
            return chunk_counts(counts), int(tokens), digest(one for (one,) in hashes)

    def store_id(self) -> StoreId | None:
        value = self.meta("store_id")
        return None if value is None else StoreId(UUID(str(value)))

    def poison(self) -> list[tuple[int, str, str]]:
        """Offsets on `imports` of records that were none of ours, with reason and message; not yet dead-lettered."""
        return self._read.execute(
            'SELECT "offset", reason, message FROM poison ORDER BY "offset" LIMIT 100'
        ).fetchall()
