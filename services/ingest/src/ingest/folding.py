"""What a batch of events does to the projection: one instance for one batch and one transaction.

It says which event goes where. What an event means for an import as a whole stands in `core.evolve`, what it means for
rows of documents and chunks in `chunk_rows`. An import's row is read once and written once in a batch.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from eventlog.events import (
    ChunksSettled,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentRejected,
    DocumentSettled,
    EmbeddingContinued,
    EmbeddingPaused,
    ImportMessage,
    ImportRefused,
    ImportRequested,
    ImportResumed,
    ImportSealed,
    Message,
    ProjectCreated,
    ProjectSpaceChanged,
    Remark,
    StoreOpened,
    WritingContinued,
    WritingPaused,
)
from eventlog.ids import ImportId, normalise_name
from eventlog.topics import EMBEDDINGS, IMPORTS
from ingest.chunk_rows import ChunkRows
from ingest.core import evolve, progress
from ingest.state import COMPLETE, Import, State
from ingest.tables import COUNTERS, OUTCOMES, dump_import, dump_source, load_import
from ingest.warning_rows import replace_warnings


@dataclass(slots=True)
class _Row:
    number: int
    state: Import
    progress: float = 0.0
    before: tuple[int, int, int] = (0, 0, 0)
    """Documents listed, chunks settled and chunks known, before this batch."""
    changed_at: int | None = None


class Folding:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._chunks = ChunkRows(db)
        self._imports: dict[ImportId, _Row | None] = {}
        self._by_number: dict[int, _Row] = {}
        row = db.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()
        self._store_id: str | None = None if row is None else str(row[0])

    def fold(self, offset: int, event: Message) -> None:
        match event:
            case ChunksSettled():
                self._settle(offset, event)
            case StoreOpened():
                self._open_store(offset, event)
            case EmbeddingPaused():
                self._db.execute("INSERT OR REPLACE INTO paused VALUES (?, ?)", (event.space, event.reason))
            case EmbeddingContinued():
                self._db.execute("DELETE FROM paused WHERE space = ?", (event.space,))
            case WritingPaused():
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('writer_paused', ?)", (event.reason,))
            case WritingContinued():
                self._db.execute("DELETE FROM meta WHERE key = 'writer_paused'")
            case ProjectCreated():
                self._db.execute(
                    "INSERT OR IGNORE INTO projects VALUES (?, ?, ?, ?)",
                    (event.project_id.bytes, event.name, normalise_name(event.name), event.space),
                )
            case ProjectSpaceChanged():
                self._db.execute(
                    "UPDATE projects SET space = ? WHERE project_id = ?",
                    (event.space, event.project_id.bytes),
                )
            case ImportRefused():
                self._refuse(offset, event)
            case ImportMessage():
                self._fold_import(offset, event)
            case _:
                pass  # A fact that is no part of any import's story.

    def write(self) -> None:
        """Ends the batch: rows, then the sums that imports have of them."""
        self._chunks.write()
        assignments = ", ".join(f"{name} = {name} + ?" for name in COUNTERS)
        for number, counters in self._chunks.deltas.items():
            values = [counters.get(name, 0) for name in COUNTERS]
            self._db.execute(f"UPDATE imports SET {assignments} WHERE number = ?", (*values, number))  # noqa: S608 - constants
        self._db.executemany(
            "UPDATE imports SET state = ?, summary = ?, progress = ?, changed_at = ? WHERE number = ?",
            [
                (row.state.state, dump_import(row.state), row.progress, row.changed_at, row.number)
                for row in self._by_number.values()
                if row.changed_at is not None
            ],
        )

    def _changed(self, row: _Row, offset: int) -> None:
        """Called after each event that changes an import, so that its greatest progress is the same however the log
        falls into batches.
        """
        delta = self._chunks.deltas[row.number].get
        settled = sum(delta(one.value, 0) for one in OUTCOMES) + delta("unlisted", 0)
        parsed_before, settled_before, chunks_before = row.before
        now = progress(
            row.state,
            parsed=parsed_before + delta("parsed", 0),
            settled=settled_before + settled,
            chunks_so_far=chunks_before + delta("total", 0) + delta("unlisted", 0),
        )
        row.progress = max(row.progress, now)
        row.changed_at = offset

    def _all_changed(self, numbers: Iterable[int], offset: int) -> None:
        for number in numbers:
            row = self._by_number.get(number)
            if row is None:
                (id_,) = self._db.execute(
                    "SELECT import_id FROM imports WHERE number = ?", (number,)
                ).fetchone()
                row = self._import(ImportId(UUID(bytes=id_)))
            assert row is not None, "only what was requested has rows"
            self._changed(row, offset)

    # --- stores and their settlements ----------------------------------------------------------------------------

    def _settle(self, offset: int, event: ChunksSettled) -> None:
        row = self._import(event.import_id)
        # Of a project that moves, chunks come in two spaces; an import is complete in its own.
        if row is None or event.space != row.state.space or not self._is_open(event.store_id):
            return
        self._chunks.settle(row.number, event)
        self._changed(row, offset)

    def _is_open(self, store_id: object) -> bool:
        """What another store holds, readers of this one do not find, and this one will settle it again."""
        return self._store_id is None or self._store_id == str(store_id)

    def _open_store(self, offset: int, event: StoreOpened) -> None:
        if not self._is_first_saying(event):
            return  # Said again it is no opening: what was settled since stands.
        is_other_store = not self._is_open(event.store_id)
        self._store_id = str(event.store_id)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('store_id', ?)", (self._store_id,))
        self._db.execute("DELETE FROM meta WHERE key = 'writer_paused'")
        positions: dict[int, int] = {}
        imports_position: int | None = None
        for one in event.positions:
            if one.topic == EMBEDDINGS:
                positions[one.partition] = min(one.offset, positions.get(one.partition, one.offset))
            elif one.topic == IMPORTS and (imports_position is None or one.offset < imports_position):
                imports_position = one.offset
        changed = self._chunks.take_back_chunks(positions, is_other_store=is_other_store)
        changed |= self._chunks.give_back_chunks(positions)
        graph_from = 0 if is_other_store else imports_position
        if graph_from is not None:
            changed |= self._chunks.take_back_documents(graph_from)
        if imports_position is not None:
            changed |= self._chunks.give_back_documents(imports_position)
        self._all_changed(changed, offset)

    def _is_first_saying(self, event: StoreOpened) -> bool:
        """Two openings may be alike but for their time."""
        digest = hashlib.sha256(repr(event).encode()).digest()
        return self._db.execute("INSERT OR IGNORE INTO openings VALUES (?)", (digest,)).rowcount > 0

    # --- imports -------------------------------------------------------------------------------------------------

    def _fold_import(self, offset: int, event: ImportMessage) -> None:
        row = self._import(event.import_id)
        if isinstance(event, ImportRequested) and row is None:
            row = self._insert(offset, event)
        elif row is None or not self._fold_rows(row, offset, event):
            return  # An event of an import that was never requested is nobody's.
        else:
            after = evolve(row.state, event, offset)
            assert after is not None, "an import that was requested stays one"
            row.state = after
        self._changed(row, offset)

    def _fold_rows(self, row: _Row, offset: int, event: ImportMessage) -> bool:
        """Whether the event changes anything."""
        match event:
            case DocumentParsed():
                self._chunks.list_document(row.number, offset, event)
            case DocumentRejected():
                return event.attempt == row.state.attempt and self._reject(row.number, event)
            case DocumentChunksSettled():
                self._all_changed(self._chunks.mark(row.number, offset, event), offset)
            case DocumentSettled():
                if self._is_open(event.store_id):
                    self._chunks.settle_document(row.number, event)
            case ImportSealed() if event.attempt == row.state.attempt:
                self._chunks.drop_undriven(row.number)
                self._warn(row, event.warnings)
            case ImportResumed() if event.attempt > row.state.attempt:
                self._resume(row)
            case _:
                pass  # Its meaning for the import as a whole is core's.
        return True

    def _import(self, import_id: ImportId) -> _Row | None:
        """Null while it is not decided."""
        if import_id in self._imports:
            return self._imports[import_id]
        found = self._db.execute(
            "SELECT number, summary, progress, parsed, stored + rejected + dead_lettered + superseded + unlisted, "
            "total + unlisted FROM imports WHERE import_id = ?",
            (import_id.bytes,),
        ).fetchone()
        state = None if found is None else load_import(found[1])
        row = None
        if state is not None and state.is_decided:
            row = self._by_number[found[0]] = _Row(found[0], state, found[2], found[3:])
        self._imports[import_id] = row
        return row

    def _insert(self, offset: int, event: ImportRequested) -> _Row:
        """A command that was shown as accepted, or refused before, keeps its place among the others."""
        state = evolve(None, event, offset)
        assert state is not None, "a request begins an import"
        (number,) = self._db.execute(
            "INSERT INTO imports (import_id, project_id, source, options, state, summary) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (import_id) DO UPDATE SET project_id = excluded.project_id, source = excluded.source, "
            "options = excluded.options, state = excluded.state, summary = excluded.summary RETURNING number",
            (
                event.import_id.bytes,
                event.project_id.bytes,
                dump_source(event.source),
                json.dumps(event.options),
                state.state,
                dump_import(state),
            ),
        ).fetchone()
        self._imports[event.import_id] = self._by_number[number] = row = _Row(number, state)
        return row

    def _reject(self, import_no: int, event: DocumentRejected) -> bool:
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO rejections (import_no, item, reason, message) VALUES (?, ?, ?, ?)",
            (import_no, event.item, event.reason, event.message),
        )
        return cursor.rowcount > 0

    def _warn(self, row: _Row, warnings: Sequence[Remark]) -> None:
        change = replace_warnings(self._db, row.number, None, warnings)
        self._chunks.deltas[row.number]["warnings"] += change

    def _resume(self, row: _Row) -> None:
        """Of an import that was complete everything is asked again, since then it is the store that lacks something."""
        was_complete = row.state.state in COMPLETE
        self._db.execute("DELETE FROM rejections WHERE import_no = ?", (row.number,))
        self._warn(row, ())
        self._chunks.forget_failures(row.number, is_everything=was_complete)
        if was_complete:
            row.progress = 0.0

    def _refuse(self, offset: int, event: ImportRefused) -> None:
        problem = f"{event.reason}: {event.message}" if event.message else str(event.reason)
        self._db.execute(
            "INSERT OR IGNORE INTO refusals VALUES (?, ?, ?)",
            (event.command_id, problem, event.occurred_at.isoformat()),
        )
        if self._import(event.import_id) is not None:
            return  # The import that was decided before goes its way.
        found = self._db.execute(
            "SELECT number, summary FROM imports WHERE import_id = ?", (event.import_id.bytes,)
        ).fetchone()
        if found is not None:
            state = replace(
                load_import(found[1]), state=State.FAILED, problem=problem, finished_at=event.occurred_at
            )
            self._db.execute(
                "UPDATE imports SET state = ?, summary = ?, changed_at = ? WHERE number = ?",
                (state.state, dump_import(state), offset, found[0]),
            )
