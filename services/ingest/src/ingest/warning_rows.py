"""Which warnings stand with an import and with its documents. The newest list replaces the one before."""

import sqlite3
from collections.abc import Sequence

from eventlog.events import Remark


def replace_warnings(
    db: sqlite3.Connection, import_no: int, document_no: int | None, warnings: Sequence[Remark]
) -> int:
    """Of a document, or of the import as a whole where that is null. Returns by how many there are more now."""
    before = db.execute(
        "DELETE FROM warnings WHERE document_no IS ? AND import_no = ?", (document_no, import_no)
    )
    db.executemany(
        "INSERT INTO warnings (import_no, document_no, code, subject, message) VALUES (?, ?, ?, ?, ?)",
        [(import_no, document_no, one.code, one.subject, one.message) for one in warnings],
    )
    return len(warnings) - before.rowcount
