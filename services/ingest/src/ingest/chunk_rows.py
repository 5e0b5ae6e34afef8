# ruff: noqa: S608 - what is put into statements are constants; values are always bound
"""What listing, settling, taking back and superseding do to the rows of documents and chunks, within one batch.

* A chunk's row is made by whichever comes first, its settlement or the list that names it; only listed rows count.
* A settlement is a coordinate: what stands at or behind the position of a store that opened is lost, and all of it
  when another store opened, for it will come again. What is lost and stands before the position of a store that opens
  later is in that one: a newer copy was brought back.
* A document that is driven again is settled by that attempt alone: what an earlier one left behind may be taken away
  by it. Of two attempts the later one's settlement counts, in whatever order they come, as in the store.
* A failed chunk that turns out to be stored after its document was said is said with it once more: the part may replace
  now what is older.
* A listed chunk of a part that a newer revision has replaced is superseded, whatever its settlement says or said: it
  is not in the store any more. Such a row has an outcome without coordinates, and keeps it for ever.

Rows that a batch touches are kept until its end and written once. What an import is told of them are sums.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from eventlog.events import (
    AttachmentStatus,
    ChunkRejectionReason,
    ChunksSettled,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentSettled,
    Part,
    SettledChunk,
)
from eventlog.ids import DocumentId
from ingest.tables import CODE, FAILED, OUTCOMES, STORED, SUPERSEDED
from ingest.warning_rows import replace_warnings

ROWS_MAX = 10_000
"""Kept in memory at a time, whatever a batch lists."""
UNDRIVEN = "parsed_offset IS NOT NULL AND attempt = 0"
"""Documents that a resume asked for and that its attempt has not listed yet. What opens later, because a store lost it,
is not among them: it comes again from the log.
"""
_COLUMNS = 'part, chunk_index, listed, outcome, reason, partition, "offset", tokens, reused, content_hash, attempt, lost'
_NOT_MARKED = f"(outcome IS NOT {SUPERSEDED} OR partition IS NOT NULL)"
_LOST = '"offset" >= (SELECT opened_at FROM places p WHERE p.partition = chunks.partition)'


@dataclass(slots=True)
class _Row:
    part: str | None = None
    chunk_index: int = 0
    listed: int = 0
    outcome: int | None = None
    reason: str | None = None
    partition: int | None = None
    offset: int | None = None
    tokens: int | None = None
    reused: int | None = None
    content_hash: bytes | None = None
    attempt: int | None = None
    lost: int | None = None
    is_new: bool = False
    is_dirty: bool = False

    @property
    def is_marked(self) -> bool:
        """Superseded by a newer revision, for ever."""
        return self.outcome == SUPERSEDED and self.partition is None and bool(self.listed)

    def supersede(self) -> None:
        self.open()
        self.outcome = SUPERSEDED

    def open(self) -> None:
        self.outcome = self.partition = self.offset = None
        self.is_dirty = True

    def values(self) -> tuple[object, ...]:
        return (
            self.part, self.chunk_index, self.listed, self.outcome, self.reason, self.partition, self.offset,
            self.tokens, self.reused, self.content_hash, self.attempt, self.lost,
        )  # fmt: skip


@dataclass(slots=True)
class _Document:
    number: int
    import_no: int
    attempt: int = 0
    """That listed it last; 0 is none."""
    is_new: bool = False
    """No row of it is in the file yet."""
    open_delta: int = 0
    rows: dict[bytes, _Row] = field(default_factory=dict)


class ChunkRows:
    """For one batch of events; `write` ends it. `deltas` are what it adds to each import's counters, by number."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._documents: dict[tuple[int, UUID], _Document] = {}
        self._rows_count = 0
        self._settled_to: dict[int, int] = {}
        self.deltas: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))

    # --- listing -------------------------------------------------------------------------------------------------

    def list_document(self, import_no: int, offset: int, event: DocumentParsed) -> None:
        document = self._document(import_no, event.document_id)
        was_listed, was_settled = self._db.execute(
            "SELECT parsed_offset IS NOT NULL, settled FROM documents WHERE number = ?",
            (document.number,),
        ).fetchone()
        counters = self.deltas[import_no]
        counters["parsed"] += not was_listed
        counters["settled"] -= was_settled
        counters["warnings"] += replace_warnings(self._db, import_no, document.number, event.warnings)
        self._db.execute(
            "UPDATE documents SET title = ?, items = ?, parts = ?, revision = ?, parsed_offset = ?, attempt = ?, "
            "has_refused = ?, authors = ?, concepts = ?, said_offset = NULL, settled = 0 WHERE number = ?",
            (
                event.title,
                json.dumps(event.source_items),
                json.dumps([part.part for part in event.parts]),
                event.revision,
                offset,
                event.attempt,
                any(one.status is AttachmentStatus.REJECTED for one in event.attachments),
                len(event.creators),
                len(event.concepts),
                document.number,
            ),
        )
        document.attempt = event.attempt
        self._list_chunks(document, event)

    def _list_chunks(self, document: _Document, event: DocumentParsed) -> None:
        before = self._all_rows(document)
        index = 0
        for part in event.parts:
            is_superseded = self._mark_of(event.document_id, part.part) > event.revision
            for chunk_id in part.chunk_ids:
                row = before.pop(chunk_id.bytes, None)
                if row is None:
                    row = document.rows.setdefault(chunk_id.bytes, _Row(is_new=True))
                if not row.listed:
                    self._enlist(document, row)
                if row.attempt is not None and row.attempt < event.attempt and not row.is_marked:
                    self._count(document, row.outcome, -1)
                    self._count(document, None, 1)
                    row.open()
                row.part, row.chunk_index, row.is_dirty = part.part, index, True
                if is_superseded and not row.is_marked:
                    self._count(document, row.outcome, -1)
                    row.supersede()
                    self._count(document, row.outcome, 1)
                index += 1
        self._drop(document, {key: row for key, row in before.items() if row.listed})
        self._rows_count += index
        if self._rows_count > ROWS_MAX:
            self.write()

    def _enlist(self, document: _Document, row: _Row) -> None:
        counters = self.deltas[document.import_no]
        counters["total"] += 1
        counters["tokens"] += row.tokens or 0
        counters["reused"] += row.reused or 0
        counters["unlisted"] -= not row.is_new or row.tokens is not None
        row.listed = 1
        self._count(document, row.outcome, 1)

    def _drop(self, document: _Document, rows: Mapping[bytes, _Row]) -> None:
        """What a newer list of the document (another chunker's) names no more; its bill stays."""
        for chunk_id, row in rows.items():
            self._count(document, row.outcome, -1)
            self.deltas[document.import_no]["total"] -= 1
            document.rows.pop(chunk_id)
            self._db.execute(
                "DELETE FROM chunks WHERE document_no = ? AND chunk_id = ?", (document.number, chunk_id)
            )

    def drop_undriven(self, import_no: int) -> None:
        """At the seal: a document that this attempt did not find again is listed no more, so nobody waits for it.

        A parser that was upgraded since may reject it, or know it under another id.
        """
        self.write()
        documents = self._db.execute(
            f"SELECT number, settled FROM documents WHERE import_no = ? AND {UNDRIVEN}", (import_no,)
        ).fetchall()
        counters = self.deltas[import_no]
        for number, was_settled in documents:
            for _, outcome, count in outcomes_of(self._db, number):
                if outcome is not None:
                    counters[OUTCOMES[outcome].value] -= count
                counters["total"] -= count
                counters["unlisted"] += count
            self._db.execute("UPDATE chunks SET listed = 0 WHERE document_no = ?", (number,))
            self._db.execute(
                "UPDATE documents SET parsed_offset = NULL, said_offset = NULL, settled = 0, open = 0 WHERE number = ?",
                (number,),
            )
            counters["parsed"] -= 1
            counters["warnings"] += replace_warnings(self._db, import_no, number, ())
            counters["settled"] -= was_settled

    def _mark_of(self, document_id: DocumentId, part: Part) -> int:
        row = self._db.execute(
            "SELECT revision FROM marks WHERE document_id = ? AND part = ?", (document_id.bytes, part)
        ).fetchone()
        return -1 if row is None else int(row[0])

    # --- settling ------------------------------------------------------------------------------------------------

    def settle(self, import_no: int, event: ChunksSettled) -> None:
        for chunk in event.chunks:
            code = CODE.get(chunk.outcome)
            if code is None:
                continue  # An outcome of a newer version settles nothing here; the row stays open and shows it.
            document = self._document(import_no, chunk.document_id)
            self._settle(document, self._row(document, chunk.chunk_id.bytes), chunk, code, event.attempt)
            if chunk.offset > self._settled_to.get(chunk.partition, -1):
                self._settled_to[chunk.partition] = chunk.offset

    def _settle(self, document: _Document, row: _Row, chunk: SettledChunk, code: int, attempt: int) -> None:
        row.is_dirty = True
        counters = self.deltas[document.import_no]
        # The first settlement counts the tokens; a repeat under a later attempt was reused and bills nothing.
        if row.tokens is None:
            row.tokens, row.reused = chunk.tokens_billed, int(chunk.is_reused)
            if row.listed:
                counters["tokens"] += row.tokens
                counters["reused"] += row.reused
            elif row.is_new:
                counters["unlisted"] += 1
                row.chunk_index = chunk.chunk_index
        is_late = attempt < document.attempt or (row.outcome is not None and attempt < (row.attempt or 0))
        if row.is_marked or is_late:
            return
        if row.listed:
            self._count(document, row.outcome, -1)
            self._count(document, code, 1)
            if code == STORED and row.outcome in FAILED:
                self._say_again(document.import_no, document.number)
        row.outcome, row.partition, row.offset = code, chunk.partition, chunk.offset
        row.attempt, row.lost = attempt, None
        row.reason = None if chunk.reason is ChunkRejectionReason.UNKNOWN else chunk.reason
        row.content_hash = chunk.content_hash

    def _say_again(self, import_no: int, document_no: int) -> None:
        (was_settled,) = self._db.execute(
            "SELECT settled FROM documents WHERE number = ?", (document_no,)
        ).fetchone()
        self.deltas[import_no]["settled"] -= was_settled
        self._db.execute(
            "UPDATE documents SET said_offset = NULL, settled = 0, lost = 0 WHERE number = ?", (document_no,)
        )

    def settle_document(self, import_no: int, event: DocumentSettled) -> None:
        """Only the answer to what was said last counts."""
        cursor = self._db.execute(
            "UPDATE documents SET settled = 1, lost = 0, nodes = ?, edges = ? "
            "WHERE import_no = ? AND document_id = ? AND said_offset = ? AND settled = 0",
            (event.node_count, event.edge_count, import_no, event.document_id.bytes, event.offset),
        )
        self.deltas[import_no]["settled"] += cursor.rowcount

    # --- superseding ---------------------------------------------------------------------------------------------

    def mark(self, import_no: int, offset: int, event: DocumentChunksSettled) -> set[int]:
        """Notes what was said and closes older revisions of its parts. Answers the imports that it changed."""
        id_ = event.document_id.bytes
        said = self._db.execute(
            "UPDATE documents SET said_offset = ? WHERE import_no = ? AND document_id = ? AND parsed_offset = ? "
            "RETURNING number, settled",
            (offset, import_no, id_, event.parsed_offset),
        ).fetchall()
        for number, was_settled in said:
            self.deltas[import_no]["settled"] -= was_settled
            self._db.execute("UPDATE documents SET settled = 0, lost = 0 WHERE number = ?", (number,))
            if (event.rejected_count or event.dead_lettered_count) and (
                self._stored_count(number) > event.stored_count
            ):
                self._say_again(import_no, number)  # the leader did not know it yet
        self._db.executemany(
            "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (document_id, part) "
            "DO UPDATE SET revision = max(revision, excluded.revision)",
            [(id_, part, event.revision) for part in event.parts],
        )
        older = self._db.execute(
            "SELECT number, import_no FROM documents "
            "WHERE document_id = ? AND revision < ? AND parsed_offset IS NOT NULL",
            (id_, event.revision),
        ).fetchall()
        if older:
            self.write()
        return {
            other for number, other in older for part in event.parts if self._supersede(number, other, part)
        }

    def _stored_count(self, document_no: int) -> int:
        self.write()
        return sum(count for _, code, count in outcomes_of(self._db, document_no) if code == STORED)

    def _supersede(self, document_no: int, import_no: int, part: Part) -> bool:
        where = f"document_no = ? AND part = ? AND listed AND {_NOT_MARKED}"
        found = self._db.execute(
            f"SELECT outcome, count(*) FROM chunks WHERE {where} GROUP BY outcome", (document_no, part)
        ).fetchall()
        self._db.execute(
            f'UPDATE chunks SET outcome = {SUPERSEDED}, partition = NULL, "offset" = NULL WHERE {where}',
            (document_no, part),
        )
        document = _Document(document_no, import_no)
        for outcome, count in found:
            self._count(document, outcome, -count)
            self._count(document, SUPERSEDED, count)
        self._write_open(document)
        return bool(found)

    # --- taking back, and giving back ----------------------------------------------------------------------------

    def take_back_chunks(self, positions: Mapping[int, int], *, is_other_store: bool) -> set[int]:
        """Loses what is settled at or behind each partition's position. Answers the imports that it changed."""
        self.write()
        places = dict(self._db.execute("SELECT partition, settled_to FROM places").fetchall())
        opened = dict.fromkeys(places, 0) if is_other_store else positions
        opened = {one: at for one, at in opened.items() if at <= places.get(one, -1)}
        if not opened:
            return set()  # The usual case: nothing was lost, so nothing is looked through.
        self._db.execute("UPDATE places SET opened_at = NULL")
        self._db.executemany(
            "UPDATE places SET opened_at = ? WHERE partition = ?", [(at, one) for one, at in opened.items()]
        )
        where = f"outcome IS NOT NULL AND partition IS NOT NULL AND {_LOST}"
        return self._become("NULL", where, (), "lost = outcome")

    def give_back_chunks(self, positions: Mapping[int, int]) -> set[int]:
        """What was lost and stands before each partition's position. Answers the imports that it changed."""
        self.write()
        where = 'lost IS NOT NULL AND partition = ? AND "offset" < ?'
        changed = [self._become("lost", where, at, "lost = NULL") for at in positions.items()]
        return set().union(*changed)

    def take_back_documents(self, offset: int) -> set[int]:
        """The graph of what was said at or behind `offset` of `imports` will be written again."""
        return self._documents_become("settled = 0, lost = 1", "settled AND said_offset >= ?", offset, -1)

    def give_back_documents(self, offset: int) -> set[int]:
        """The graph of what was said before `offset` of `imports` is there."""
        return self._documents_become("settled = 1, lost = 0", "lost AND said_offset < ?", offset, 1)

    def _documents_become(self, assignments: str, where: str, offset: int, settled: int) -> set[int]:
        rows = self._db.execute(
            f"UPDATE documents SET {assignments} WHERE {where} RETURNING import_no", (offset,)
        ).fetchall()
        for (import_no,) in rows:
            self.deltas[import_no]["settled"] += settled
        return {import_no for (import_no,) in rows}

    def forget_failures(self, import_no: int, *, is_everything: bool) -> None:
        """For a resume: what has to be driven again is open. `is_everything`: the store may lack any of it."""
        self.write()
        if is_everything:
            cursor = self._db.execute(
                "UPDATE documents SET settled = 0 WHERE import_no = ? AND settled = 1", (import_no,)
            )
            self.deltas[import_no]["settled"] -= cursor.rowcount
            self._db.execute("UPDATE documents SET lost = 0 WHERE import_no = ?", (import_no,))
        again = _NOT_MARKED if is_everything else f"outcome NOT IN ({STORED}, {SUPERSEDED})"
        where = f"document_no IN (SELECT number FROM documents WHERE import_no = ?) AND listed AND {again}"
        self._become("NULL", where, (import_no,), 'partition = NULL, "offset" = NULL')
        # A rejection ends with its attempt, and only parsing the document again can say that of one of its files.
        self._db.execute(
            "UPDATE documents SET attempt = 0 WHERE import_no = ? AND (open > 0 OR has_refused OR ?)",
            (import_no, is_everything),
        )

    def _become(self, outcome: str, where: str, values: tuple[object, ...], assignments: str) -> set[int]:
        """The rows in question get the outcome, an expression in SQL, and the listed ones are counted over to it.

        Answers the imports that it changed.
        """
        changed: set[int] = set()
        for number, import_no, before, after, count in self._db.execute(
            "SELECT c.document_no, d.import_no, c.before, c.after, c.count FROM (SELECT document_no, "
            f"outcome AS before, {outcome} AS after, count(*) AS count FROM chunks WHERE listed AND {where} "
            "GROUP BY document_no, before, after) c JOIN documents d ON d.number = c.document_no",
            values,
        ).fetchall():
            document = _Document(number, import_no)
            self._count(document, before, -count)
            self._count(document, after, count)
            self._write_open(document)
            changed.add(import_no)
        self._db.execute(f"UPDATE chunks SET outcome = {outcome}, {assignments} WHERE {where}", values)
        return changed

    # --- rows ----------------------------------------------------------------------------------------------------

    def _count(self, document: _Document, outcome: int | None, count: int) -> None:
        """Listed chunks enter, or with a negative count leave, the tally of an outcome; null is open."""
        if outcome is None:
            document.open_delta += count
        else:
            self.deltas[document.import_no][OUTCOMES[outcome].value] += count

    def _document(self, import_no: int, document_id: DocumentId) -> _Document:
        key = (import_no, document_id)
        found = self._documents.get(key)
        if found is None:
            row = self._db.execute(
                "SELECT number, attempt FROM documents WHERE import_no = ? AND document_id = ?",
                (import_no, document_id.bytes),
            ).fetchone()
            if row is None:
                cursor = self._db.execute(
                    "INSERT INTO documents (import_no, document_id) VALUES (?, ?)",
                    (import_no, document_id.bytes),
                )
                assert cursor.lastrowid is not None, "an insert has a row"
                found = _Document(cursor.lastrowid, import_no, is_new=True)
            else:
                found = _Document(int(row[0]), import_no, attempt=int(row[1]))
            self._documents[key] = found
        return found

    def _row(self, document: _Document, chunk_id: bytes) -> _Row:
        found = document.rows.get(chunk_id)
        if found is None:
            row = None
            if not document.is_new:
                row = self._db.execute(
                    f"SELECT {_COLUMNS} FROM chunks WHERE document_no = ? AND chunk_id = ?",
                    (document.number, chunk_id),
                ).fetchone()
            found = document.rows[chunk_id] = _Row(is_new=True) if row is None else _Row(*row)
            self._rows_count += 1
        return found

    def _all_rows(self, document: _Document) -> dict[bytes, _Row]:
        if not document.is_new:
            for chunk_id, *values in self._db.execute(
                f"SELECT chunk_id, {_COLUMNS} FROM chunks WHERE document_no = ?", (document.number,)
            ):
                document.rows.setdefault(chunk_id, _Row(*values))
        return dict(document.rows)

    def write(self) -> None:
        """Writes every touched row once; also before a statement that looks at many rows."""
        dirty = [
            ((document.number, chunk_id), row)
            for document in self._documents.values()
            for chunk_id, row in document.rows.items()
            if row.is_dirty
        ]
        self._db.executemany(
            f"INSERT INTO chunks (document_no, chunk_id, {_COLUMNS}) VALUES ({', '.join('?' * 14)})",
            [(*key, *row.values()) for key, row in dirty if row.is_new],
        )
        self._db.executemany(
            'UPDATE chunks SET part = ?, chunk_index = ?, listed = ?, outcome = ?, reason = ?, partition = ?, "offset" = ?, '
            "tokens = ?, reused = ?, content_hash = ?, attempt = ?, lost = ? WHERE document_no = ? AND chunk_id = ?",
            [(*row.values(), *key) for key, row in dirty if not row.is_new],
        )
        self._rows_count = 0
        for document in self._documents.values():
            self._write_open(document)
        self._documents.clear()
        self._db.executemany(
            "INSERT INTO places VALUES (?, ?, NULL) ON CONFLICT (partition) "
            "DO UPDATE SET settled_to = max(settled_to, excluded.settled_to)",
            list(self._settled_to.items()),
        )
        self._settled_to.clear()

    def _write_open(self, document: _Document) -> None:
        if document.open_delta:
            self._db.execute(
                "UPDATE documents SET open = open + ? WHERE number = ?",
                (document.open_delta, document.number),
            )
            document.open_delta = 0


def outcomes_of(db: sqlite3.Connection, document_no: int) -> Iterator[tuple[Part, int | None, int]]:
    """Of the listed chunks of a document: part, outcome's code, how many."""
    for part, outcome, count in db.execute(
        "SELECT part, outcome, count(*) FROM chunks WHERE document_no = ? AND listed GROUP BY part, outcome",
        (document_no,),
    ):
        yield Part(part), outcome, count
