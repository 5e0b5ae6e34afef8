"""The index of one library: a SQLite file that the parser's child writes and its parent reads.

It holds what cross-references need, on disk and not in memory: items as the source says them, the documents they make,
what was rejected and what could not be used, and where each file stands on this machine.
"""

import json
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import UUID

from eventlog.events import DocumentRejectionReason, Remark
from eventlog.ids import DocumentId, ProjectId, document_id
from ingest import limits
from ingest.sources.item import Item, Rejection, bounded, dump_item, identity, load_item, merge
from ingest.sources.works import DOCUMENTS_MAX, Known, best_known, joined, work_key

_TABLES = """
CREATE TABLE files (path TEXT PRIMARY KEY, local TEXT, sha256 TEXT, size_bytes INTEGER, composed TEXT, name TEXT,
    is_used INTEGER DEFAULT 0);
CREATE INDEX files_by_composed ON files (composed);
CREATE INDEX files_by_name ON files (name);
CREATE TABLE items (number INTEGER PRIMARY KEY, document_id BLOB, work TEXT, item TEXT);
CREATE INDEX items_by_document ON items (document_id);
CREATE INDEX items_by_work ON items (work) WHERE work <> '';
CREATE TABLE documents (number INTEGER PRIMARY KEY, document_id BLOB UNIQUE);
CREATE TABLE rejections (number INTEGER PRIMARY KEY, item TEXT UNIQUE, reason TEXT, message TEXT, file_sha256 TEXT);
CREATE TABLE warnings (number INTEGER PRIMARY KEY, code TEXT, subject TEXT, message TEXT);
CREATE TABLE lone (path TEXT PRIMARY KEY);
"""


class ScanIndex:
    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA cache_size = -2048")
        self._db.execute("PRAGMA temp_store = FILE")
        self._db.execute("PRAGMA synchronous = OFF")  # it is made again by the next scan
        if is_new:
            self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    def commit(self) -> None:
        self._db.commit()

    # --- files ---------------------------------------------------------------------------------------------------

    def add_files(self, files: Iterable[tuple[str, str, str, int]]) -> None:
        """Path, local path, SHA-256, size. Of two files with one path the first is taken, and the other named."""
        for path, local, sha256, size_bytes in files:
            composed = unicodedata.normalize("NFC", path)
            row = (path, local, sha256, size_bytes, composed, composed.rpartition("/")[2])
            done = self._db.execute(
                "INSERT OR IGNORE INTO files (path, local, sha256, size_bytes, composed, name) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            if not done.rowcount and self.sha256(path) != sha256:
                message = "another file of this library has the same path, and was taken instead"
                self.reject(
                    Rejection(
                        item=f"{path} ({sha256[:12]})",
                        reason=DocumentRejectionReason.FILE_UNSUPPORTED,
                        message=message,
                        file_sha256=sha256,
                    )
                )

    def paths(self) -> Iterator[str]:
        """In the order of their names, whatever order they came in: the same library gives the same documents."""
        for (path,) in self._db.execute("SELECT path FROM files ORDER BY path"):
            yield path

    def local(self, path: str) -> Path | None:
        row = self._db.execute("SELECT local FROM files WHERE path = ?", (path,)).fetchone()
        return None if row is None else Path(row[0])

    def sha256(self, path: str) -> str:
        row = self._db.execute("SELECT sha256 FROM files WHERE path = ?", (path,)).fetchone()
        return "" if row is None else str(row[0])

    def size_bytes(self, path: str) -> int:
        row = self._db.execute("SELECT size_bytes FROM files WHERE path = ?", (path,)).fetchone()
        return 0 if row is None else int(row[0])

    def find(self, path: str) -> str | None:
        """The file of this path, however its diacritics are encoded: a disk may decompose what an export composes."""
        if self.local(path) is not None:
            return path
        composed = unicodedata.normalize("NFC", path)
        row = self._db.execute("SELECT min(path) FROM files WHERE composed = ?", (composed,)).fetchone()
        return None if row[0] is None else str(row[0])

    def find_attached(self, folder: str, named: str) -> str | None:
        """The file that an export in `folder` means: by its path, by folder and name, or lying loose beside the export.

        Never by the name alone: every folder of a library may hold a `Full text.pdf`.
        """
        named = named.replace("\\", "/")
        beside = f"{folder}/" if folder else ""
        for path in (beside + named, named):
            if (found := self.find(path)) is not None:
                return found
        parts = named.split("/")
        tail = "/" + "/".join(parts[-2:])
        by_folder = [path for path in self.named(parts[-1]) if f"/{path}".endswith(tail)]
        return by_folder[0] if len(by_folder) == 1 else self.find(beside + parts[-1])

    def named(self, name: str) -> list[str]:
        """Paths whose last part is `name`."""
        composed = unicodedata.normalize("NFC", name)
        rows = self._db.execute("SELECT path FROM files WHERE name = ? ORDER BY path", (composed,))
        return [row[0] for row in rows]

    def use(self, path: str) -> None:
        self._db.execute("UPDATE files SET is_used = 1 WHERE path = ?", (path,))

    def is_used(self, path: str) -> bool:
        row = self._db.execute("SELECT is_used FROM files WHERE path = ?", (path,)).fetchone()
        return bool(row and row[0])

    def unused(self) -> Iterator[str]:
        for (path,) in self._db.execute("SELECT path FROM files WHERE is_used = 0 ORDER BY path").fetchall():
            yield path

    # --- what the sources say ------------------------------------------------------------------------------------

    def add_item(self, item: Item) -> None:
        self._db.execute("INSERT INTO items (item) VALUES (?)", (dump_item(bounded(item)),))

    def add_lone(self, path: str) -> None:
        """A file that is a document of its own, once something has looked into it."""
        self.use(path)
        self._db.execute("INSERT OR IGNORE INTO lone VALUES (?)", (path,))

    def lone(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT path FROM lone ORDER BY path")]

    def reject(self, rejection: Rejection) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO rejections (item, reason, message, file_sha256) VALUES (?, ?, ?, ?)",
            (rejection.item, rejection.reason, rejection.message, rejection.file_sha256),
        )

    def warn(self, remark: Remark) -> None:
        self._db.execute(
            "INSERT INTO warnings (code, subject, message) VALUES (?, ?, ?)",
            (remark.code, remark.subject, remark.message),
        )

    def count(self, table: str) -> int:
        assert table in {"items", "documents", "rejections", "warnings", "lone", "files"}
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - one of six names

    def missing_attachments_count(self) -> int:
        """PDFs and texts that items name and that are not there; snapshots of web pages are not among them."""
        rows = self._db.execute("SELECT item FROM items")
        return sum(
            one["code"] == "attachment_missing" for (text,) in rows for one in json.loads(text)["warnings"]
        )

    # --- documents -----------------------------------------------------------------------------------------------

    def make_documents(self, project: ProjectId) -> int:
        """Items with one identity are one document, and so are items of one work; says by name what was merged.

        Returns how many items were.
        """
        rows = self._db.execute("SELECT number, item FROM items ORDER BY number")
        while batch := rows.fetchmany(500):
            for number, text in batch:
                item = load_item(text)
                document = document_id(project, identity(item))
                self._db.execute(
                    "UPDATE items SET document_id = ?, work = ? WHERE number = ?",
                    (document.bytes, work_key(item), number),
                )
        self._join_works()
        self._db.execute(
            "INSERT INTO documents (document_id) SELECT document_id FROM items GROUP BY document_id ORDER BY min(number)"
        )
        merged = 0
        doubles = self._db.execute(
            "SELECT document_id FROM items GROUP BY document_id HAVING count(*) > 1 ORDER BY min(number)"
        ).fetchall()
        for (document_bytes,) in doubles:
            items = self._items(document_bytes)
            merged += len(items) - 1
            for other in items[1:]:
                message = f"is the same document as {items[0].name[:200]}"
                self.warn(Remark(code="item_merged", subject=other.name[:300], message=message))
        self._db.commit()
        return merged

    def _join_works(self) -> None:
        """Documents that are one work become the one of them that is best known."""
        doubles = self._db.execute(
            "SELECT work FROM items WHERE work <> '' GROUP BY work HAVING count(DISTINCT document_id) > 1"
        ).fetchall()
        for (work,) in doubles:
            rows = self._db.execute(
                "SELECT document_id FROM items WHERE work = ? GROUP BY document_id ORDER BY min(number) LIMIT ?",
                (work, DOCUMENTS_MAX + 1),
            ).fetchall()
            known = [Known(id=document, items=tuple(self._items(document))) for (document,) in rows]
            for works in joined(known):
                best = best_known(works)
                for other in works:
                    if other.id != best:
                        self._db.execute(
                            "UPDATE items SET document_id = ? WHERE document_id = ?", (best, other.id)
                        )

    def _items(self, document: bytes) -> list[Item]:
        rows = self._db.execute("SELECT item FROM items WHERE document_id = ? ORDER BY number", (document,))
        return [load_item(row[0]) for row in rows]

    def document(self, number: int) -> tuple[DocumentId, Item, tuple[str, ...]]:
        """The document's id, its items merged into one, and their names."""
        row = self._db.execute("SELECT document_id FROM documents WHERE number = ?", (number,)).fetchone()
        items = self._items(row[0])
        merged = merge(items)
        # Each item was bounded; together they are again.
        return (
            DocumentId(UUID(bytes=row[0])),
            bounded(merged),
            tuple(item.name for item in items[: limits.SOURCE_ITEMS_MAX]),
        )

    def documents(self) -> Iterator[tuple[int, DocumentId, str]]:
        """Number, id and the name of its first item."""
        rows = self._db.execute(
            "SELECT d.number, d.document_id, (SELECT item FROM items i WHERE i.document_id = d.document_id "
            "ORDER BY i.number LIMIT 1) FROM documents d ORDER BY d.number"
        )
        while batch := rows.fetchmany(100):
            for number, document, text in batch:
                yield number, DocumentId(UUID(bytes=document)), str(json.loads(text)["name"])

    def rejections(self) -> Iterator[Rejection]:
        rows = self._db.execute("SELECT item, reason, message, file_sha256 FROM rejections ORDER BY number")
        while batch := rows.fetchmany(100):
            for item, reason, message, sha256 in batch:
                yield Rejection(
                    item=item, reason=DocumentRejectionReason(reason), message=message, file_sha256=sha256
                )

    def warnings(self) -> Iterator[Remark]:
        rows = self._db.execute("SELECT code, subject, message FROM warnings ORDER BY number")
        while batch := rows.fetchmany(100):
            for code, subject, message in batch:
                yield Remark(code=code, subject=subject, message=message)
