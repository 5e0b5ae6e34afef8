"""The read model of `imports`: one SQLite file per instance, with the offset up to which it has folded.

The file may be deleted at any time; the log makes it again. It answers HTTP's reads (`reads`) and tells the leader what
is ready to be decided (`prospects`). It holds rows, so memory does not grow with the size of an import or the length
of history. Here is the file's life: opening it, one transaction for one batch of events, and who waits for the next.
"""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from eventlog.events import Message, RequestImport
from eventlog.ids import ImportId, project_id
from ingest.folding import Folding
from ingest.prospects import Prospects
from ingest.reads import ChunkRow, DocumentRow, RejectionRow
from ingest.state import Import, State
from ingest.tables import TABLES, VERSION, connect, create, delete, dump_import, dump_source, is_current

__all__ = ["ChunkRow", "DocumentRow", "Poison", "Projection", "RejectionRow", "Requested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A record of `imports` that is none of ours."""

    offset: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A command as it stands on `import-requests`, decided or not; `space` is what it is embedded in, as far as one knows."""

    import_id: ImportId
    command_id: str
    command: RequestImport
    space: str


class Projection(Prospects):
    """Reads belong to the event loop's thread; what writes may be called in any, one at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_current(path):
            delete(path)
            with closing(connect(path)) as db:
                create(db)
        super().__init__(connect(path), path)
        self._write = connect(path)
        self._lock = threading.Lock()
        self._changed = asyncio.Condition()
        self.position = int(self.meta("position") or 0)
        self.requests_position = int(self.meta("requests_position") or 0)
        self.poison_in_a_row = int(self.meta("poison_in_a_row") or 0)
        self.went_on_at = int(self.meta("went_on_at") or 0)
        """The offset on `import-requests` up to which an operator has seen the dead letters."""

    def close(self) -> None:
        # Whoever awaited a batch may be cancelled, its thread is not: SQLite crashes when closed under it.
        with self._lock:
            self._write.close()
        self._read.close()

    def discard(self) -> None:
        """The file is damaged: the next process makes it again."""
        delete(self._path)

    def apply(
        self,
        events: Sequence[tuple[int, Message]],
        position: int,
        last: tuple[int, str] | None = None,
        *,
        poison: Sequence[Poison] = (),
        poison_in_a_row: int = 0,
    ) -> None:
        """Folds events with their offsets on `imports`, in order, and moves the position: all or nothing.

        `last` is the offset and `ce_id` of the last record read, by which a wiped log is known again.
        """
        with self._transaction() as db:
            folding = Folding(db)
            for offset, event in events:
                folding.fold(offset, event)
            folding.write()
            db.executemany(
                "INSERT OR IGNORE INTO poison VALUES (?, ?, ?)",
                [(one.offset, one.reason, one.message) for one in poison],
            )
            _set(db, "position", position)
            if events:
                _set(db, "moved_at", events[-1][1].occurred_at.isoformat())
            if poison_in_a_row != self.poison_in_a_row:
                _set(db, "poison_in_a_row", poison_in_a_row)
            if last is not None:
                _set(db, "last_record", json.dumps(last))
        self.position = position
        self.poison_in_a_row = poison_in_a_row

    def apply_requests(self, requests: Sequence[Requested], position: int) -> None:
        """Commands that nobody decided yet are shown as accepted, refused ones as failed; a decision overrides both."""
        with self._transaction() as db:
            for one in requests:
                refused = db.execute(
                    "SELECT problem, refused_at FROM refusals WHERE command_id = ?", (one.command_id,)
                ).fetchone()
                state = _undecided(one, refused)
                db.execute(
                    "INSERT OR IGNORE INTO imports "
                    "(import_id, project_id, state, summary, source, options, changed_at) VALUES (?, ?, ?, ?, ?, '{}', ?)",
                    (
                        state.import_id.bytes,
                        state.project_id.bytes,
                        state.state,
                        dump_import(state),
                        dump_source(one.command.source),
                        self.position,
                    ),
                )
            _set(db, "requests_position", position)
        self.requests_position = position

    def last_record(self) -> tuple[int | None, str]:
        """Offset and `ce_id` of the last record folded; null before the first."""
        value = self.meta("last_record")
        return tuple(json.loads(value)) if isinstance(value, str) else (None, "")

    def reset(self) -> None:
        """Forgets everything, because the log is another one."""
        with self._transaction() as db:
            for table in TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
            _set(db, "version", VERSION)
        self.position = self.requests_position = self.poison_in_a_row = self.went_on_at = 0

    def forget_poison(self, offset: int) -> None:
        """It is dead-lettered, up to this offset."""
        with self._transaction() as db:
            db.execute('DELETE FROM poison WHERE "offset" <= ?', (offset,))

    def forget_poison_in_a_row(self) -> None:
        """An operator said go on."""
        with self._transaction() as db:
            _set(db, "poison_in_a_row", 0)
        self.poison_in_a_row = 0

    def note_went_on(self, position: int) -> None:
        """An operator said go on with the commands, after those before `position`."""
        with self._transaction() as db:
            _set(db, "went_on_at", position)
        self.went_on_at = position

    async def notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait_for_change(self, position: int, timeout_s: float) -> int:
        """Returns the present position, at once when it is not `position` any more."""
        async with self._changed:
            with suppress(TimeoutError):  # the caller looks at the position; a heartbeat is due
                # Not asyncio.wait_for: in 3.11 it loses a cancellation that comes together with the change.
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(lambda: self.position != position)
        return self.position

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # The folds of both topics write, each in a thread of its own.
        with self._lock:
            self._write.execute("BEGIN IMMEDIATE")
            try:
                yield self._write
            except BaseException:
                with suppress(sqlite3.DatabaseError):  # the first error is the one to be told
                    self._write.execute("ROLLBACK")
                raise
            self._write.execute("COMMIT")


def _set(db: sqlite3.Connection, key: str, value: str | int) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _undecided(requested: Requested, refused: tuple[str, str] | None) -> Import:
    command = requested.command
    return Import(
        import_id=requested.import_id,
        project_id=project_id(command.project_name),
        project_name=command.project_name,
        space=requested.space,
        state=State.ACCEPTED if refused is None else State.FAILED,
        attempt=0,
        revision=-1,
        request_sha256="",
        requested_at=command.occurred_at,
        item_count=command.item_count,
        problem=None if refused is None else refused[0],
        finished_at=None if refused is None else datetime.fromisoformat(refused[1]),
    )
