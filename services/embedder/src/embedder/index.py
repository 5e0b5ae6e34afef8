"""What is in the log of `embeddings` already: which texts have a vector and where, which chunks have their event.

Built from headers alone, one partition at a time, before the first request of an assignment; a SQLite file, so that it
costs no memory, and a cache, so that it may be deleted or damaged at any time. It is bound to one space.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from eventlog.envelope import ChunkHeaders, header, read_chunk_headers
from eventlog.errors import UnprocessableRecord
from eventlog.events import ChunkMessage
from eventlog.ids import ChunkId, EmbeddingKey, ImportId
from eventlog.log import Log, Record, TopicPartition, records_at
from eventlog.topics import EMBEDDINGS

VERSION = 3
BATCH_RECORDS = 1_000
_EMBEDDED = "paperlog.ChunkEmbedded"

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE positions (partition INTEGER PRIMARY KEY, "offset" INTEGER, ce_id TEXT);
CREATE TABLE paid (key BLOB, "offset" INTEGER, partition INTEGER, PRIMARY KEY (key, "offset")) WITHOUT ROWID;
CREATE TABLE published (
    import_id BLOB, chunk_id BLOB, attempt INTEGER, partition INTEGER,
    PRIMARY KEY (import_id, chunk_id, attempt)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Published:
    """An event that the log has acknowledged, and where."""

    event: ChunkMessage
    offset: int
    ce_id: str
    has_vector: bool


class Index:
    def __init__(self, path: Path, space: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._space = space
        if not self._is_usable():
            self.discard()
            with contextlib.closing(_connect(path)) as db:
                db.executescript(_TABLES)
                db.executemany("INSERT INTO meta VALUES (?, ?)", [("version", VERSION), ("space", space)])
        self._db = _connect(path)
        self._db.isolation_level = "DEFERRED"  # a commit for each five chunks would cost as much as the rest

    def _is_usable(self) -> bool:
        """Whole, of this version and of this space. What is damaged later is found where it is read, and ends the
        process, which discards it.
        """
        if not self._path.exists():
            return False
        try:
            with contextlib.closing(_connect(self._path)) as db:
                meta = dict(db.execute("SELECT key, value FROM meta"))
                [damage] = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError:
            return False
        return meta == {"version": VERSION, "space": self._space} and damage == "ok"

    def discard(self) -> None:
        """The next process builds it anew."""
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        self.commit()
        self._db.close()

    def place_of(self, key: EmbeddingKey) -> tuple[int, int] | None:
        """Partition and offset of the first event with the text's vector in this space."""
        row = self._db.execute(
            'SELECT partition, "offset" FROM paid WHERE key = ? ORDER BY "offset" LIMIT 1', (key.bytes,)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def forget(self, key: EmbeddingKey, offset: int) -> None:
        """The log does not hold there what the index says: the next place counts, and without one the text is paid."""
        self._db.execute('DELETE FROM paid WHERE key = ? AND "offset" <= ?', (key.bytes, offset))

    def is_published(self, import_id: ImportId, attempt: int, chunk_id: ChunkId) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM published WHERE import_id = ? AND chunk_id = ? AND attempt = ?",
            (import_id.bytes, chunk_id.bytes, attempt),
        ).fetchone()
        return row is not None

    def add_published(self, partition: int, published: Sequence[Published]) -> None:
        """What this process has just published and the log has acknowledged, in order; kept from the next `commit` on."""
        position, ce_id = self._position(partition)
        for one in published:
            event = one.event
            self._add(partition, event.import_id, event.attempt, event.chunk_id)
            if one.has_vector:
                self._add_paid(event.embedding_key, partition, one.offset)
            if position == one.offset:  # nobody else wrote in between
                position, ce_id = one.offset + 1, one.ce_id
        self._set_position(partition, position, ce_id)

    def commit(self) -> None:
        """A death before it costs that the log is read again from the positions that stand with the rest."""
        self._db.commit()

    def _add(self, partition: int, import_id: UUID, attempt: int, chunk_id: UUID) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO published VALUES (?, ?, ?, ?)",
            (import_id.bytes, chunk_id.bytes, attempt, partition),
        )

    def _add_paid(self, key: UUID, partition: int, offset: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO paid VALUES (?, ?, ?)", (key.bytes, offset, partition))

    def _position(self, partition: int) -> tuple[int, str]:
        row = self._db.execute(
            'SELECT "offset", ce_id FROM positions WHERE partition = ?', (partition,)
        ).fetchone()
        return (0, "") if row is None else (row[0], row[1])

    def _set_position(self, partition: int, offset: int, ce_id: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (partition, offset, ce_id))

    def _reset(self, partition: int) -> None:
        for table in ("positions", "paid", "published"):
            self._db.execute(f"DELETE FROM {table} WHERE partition = ?", (partition,))  # noqa: S608 - one of three names

    async def catch_up(self, log: Log, partitions: Iterable[int]) -> None:
        """Reads what it has not read yet of these partitions, up to their ends as they are now."""
        begins, ends = await log.begins(EMBEDDINGS), await log.ends(EMBEDDINGS)
        starts: dict[TopicPartition, int] = {}
        for partition, start in (await self._starts(log, partitions, begins)).items():
            if start < ends[partition]:
                starts[TopicPartition(EMBEDDINGS, partition)] = start
        if not starts:
            return
        reader = await log.reader(starts)
        try:
            waiting = dict(starts)
            while waiting:
                records = await reader.poll(records_max=BATCH_RECORDS, timeout_s=1.0)
                self._take(records)
                for at in list(waiting):
                    if await reader.position(at) >= ends[at.partition]:
                        del waiting[at]
        finally:
            await reader.close()

    async def _starts(self, log: Log, partitions: Iterable[int], begins: Mapping[int, int]) -> dict[int, int]:
        """Where to read on; from the beginning when the log is not the one that was indexed."""
        positions = {partition: self._position(partition) for partition in partitions}
        held = await records_at(
            log,
            {
                TopicPartition(EMBEDDINGS, partition): offset - 1
                for partition, (offset, _) in positions.items()
                if offset > 0
            },
        )
        starts: dict[int, int] = {}
        for partition, (offset, ce_id) in positions.items():
            last = held.get(TopicPartition(EMBEDDINGS, partition))
            if last is not None and header(last, "ce_id") == ce_id:
                starts[partition] = offset
                continue
            if offset > 0:
                self._reset(partition)
            starts[partition] = begins[partition]
        return starts

    def _take(self, records: list[Record]) -> None:
        last: dict[int, Record] = {}
        for record in records:
            last[record.partition] = record
            try:
                headers = read_chunk_headers(record)
            except UnprocessableRecord:
                continue  # Whoever reads the record itself dead-letters it; it proves nothing to us.
            if headers.space == self._space:
                self._take_one(record, headers)
        for record in last.values():
            self._set_position(record.partition, record.offset + 1, header(record, "ce_id"))
        self.commit()

    def _take_one(self, record: Record, headers: ChunkHeaders) -> None:
        self._add(record.partition, headers.import_id, headers.attempt, headers.chunk_id)
        if header(record, "ce_type") == _EMBEDDED:
            self._add_paid(headers.embedding_key, record.partition, record.offset)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")  # a lost file is built again
        db.execute("PRAGMA cache_size = -4096")
        db.execute("PRAGMA temp_store = FILE")
    except sqlite3.DatabaseError:  # the file is read here for the first time
        db.close()
        raise
    return db
