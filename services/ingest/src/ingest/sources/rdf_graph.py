"""RDF/XML as a graph on disk: triples stream in, and are asked for by subject; memory stays that of one answer.

Nothing here knows Zotero, but for one thing: its exports use the element `rdf:resource`, which RDF/XML forbids, and so
it gets another name on the way in. A DTD, entities, and a file that breaks off are refused.
"""

import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.parsers import expat

import pyoxigraph

from ingest.cleaning import one_line
from ingest.sources.item import SourceUnreadable

BASE = "paperlog://library/"
"""What relative names stand on: those that carry it belong to one file alone."""
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
FILE = RDF + "paperlog"
"""Stands for the element `rdf:resource`, with which Zotero names a file; as long, so that columns stay true."""

_RESOURCE_OPEN = re.compile(rb"<(/?)rdf:resource(?=[\s>/])")
_FORBIDDEN = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_ROOT_CLOSED = re.compile(rb"</(?:[\w.-]+:)?RDF\s*>\s*(?:<!--.{0,400}?-->\s*)*\Z", re.DOTALL)
_READ_BYTES = 256 * 1024
_NAME_BYTES = 32
"""No name that is looked for above is as long, with what must stand before and after it."""
_END_BYTES = 1_024
_BATCH = 5_000


class _Guarded(io.RawIOBase):
    """The file as the parser may read it: without entities, and with `rdf:resource` elements under a legal name."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pending = b""
        self._ready = b""
        self._tail = b""
        self._has_ended = False

    def readable(self) -> bool:
        return True

    @property
    def is_whole(self) -> bool:
        """Whether the root element was closed: the parser takes the end of a cut file for its end."""
        return bool(_ROOT_CLOSED.search(self._tail))

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # the buffer protocol has no older type
        while not self._ready and not self._has_ended:
            self._refill()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _refill(self) -> None:
        data = self._file.read(_READ_BYTES)
        self._has_ended = not data
        self._tail = (self._tail + data)[-_END_BYTES:]
        text = self._pending + data
        if _FORBIDDEN.search(text):
            raise SourceUnreadable(
                "xml_entities", "it declares a DTD or entities, which no Zotero export does"
            )
        # What might be the beginning of a name is kept until the rest of it is here.
        last = text.rfind(b"<")
        cut = last if not self._has_ended and last >= 0 and len(text) - last < _NAME_BYTES else len(text)
        self._pending = text[cut:]
        self._ready = _RESOURCE_OPEN.sub(rb"<\1rdf:paperlog", text[:cut])


class Graph:
    """The triples by subject, on disk; literals and links apart. Subjects are written `<iri>` or `_:blank`."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA cache_size = -8192")
        self._db.execute(
            "CREATE TABLE triples (subject TEXT, predicate TEXT, object TEXT, is_literal INTEGER)"
        )

    def close(self) -> None:
        self._db.close()

    def load(self, file: IO[bytes]) -> None:
        """Raises SourceUnreadable where it is no RDF/XML, is damaged, or breaks off."""
        guarded = _Guarded(file)
        triples = pyoxigraph.parse(
            input=io.BufferedReader(guarded, _READ_BYTES),
            format=pyoxigraph.RdfFormat.RDF_XML,
            base_iri=BASE,
            lenient=True,
        )
        try:
            count = self._insert_all(triples)
        except SyntaxError as error:
            said = one_line(str(error), 200)
            message = f"it is not RDF that can be read ({said}); export it again from Zotero"
            raise SourceUnreadable("rdf_damaged", message, _damaged_at(file)) from None
        if count and not guarded.is_whole:
            raise SourceUnreadable(
                "rdf_damaged",
                "it is no RDF export, or breaks off before its end; export it again from Zotero",
                _damaged_at(file),
            )
        self._db.execute("CREATE INDEX by_subject ON triples (subject, predicate)")
        self._db.execute("CREATE INDEX by_object ON triples (object, predicate) WHERE NOT is_literal")

    def _insert_all(self, triples: Iterator[pyoxigraph.Triple | pyoxigraph.Quad]) -> int:
        batch: list[tuple[str, str, str, bool]] = []
        count = 0
        for triple in triples:
            value = triple.object
            batch.append(
                (
                    str(triple.subject),
                    triple.predicate.value,
                    value.value if hasattr(value, "value") else str(value),
                    isinstance(value, pyoxigraph.Literal),
                )
            )
            if len(batch) >= _BATCH:
                count += self._insert(batch)
        return count + self._insert(batch)

    def _insert(self, batch: list[tuple[str, str, str, bool]]) -> int:
        count = len(batch)
        self._db.executemany("INSERT INTO triples VALUES (?, ?, ?, ?)", batch)
        batch.clear()
        return count

    def values(self, subject: str, *predicates: str) -> list[str]:
        """Objects in the order of the file, those of the first predicate first."""
        return self._objects(subject, predicates, "")

    def literals(self, subject: str, *predicates: str) -> list[str]:
        return self._objects(subject, predicates, "AND is_literal")

    def _objects(self, subject: str, predicates: tuple[str, ...], which: str) -> list[str]:
        out: list[str] = []
        for predicate in predicates:
            rows = self._db.execute(
                f"SELECT object FROM triples WHERE subject = ? AND predicate = ? {which} ORDER BY rowid",  # noqa: S608 - one of two constants
                (subject, predicate),
            )
            out.extend(row[0] for row in rows)
        return out

    def first(self, subject: str, *predicates: str) -> str:
        return next((value for value in self.values(subject, *predicates) if value), "")

    def links(self, subject: str, predicate: str) -> list[str]:
        """Subjects that the objects name, as `first` and `values` want them."""
        return [as_subject(value) for value in self._objects(subject, (predicate,), "AND NOT is_literal")]

    def sequence(self, subject: str) -> list[str]:
        """The members of an rdf:Seq by their numbers."""
        rows = self._db.execute(
            "SELECT predicate, object FROM triples WHERE subject = ? AND predicate LIKE ? AND NOT is_literal",
            (subject, f"{RDF}_%"),
        ).fetchall()
        numbered = [(predicate.removeprefix(f"{RDF}_"), value) for predicate, value in rows]
        in_order = sorted((int(number), value) for number, value in numbered if number.isdecimal())
        return [as_subject(value) for _, value in in_order]

    def sequences(self, subject: str) -> list[tuple[str, str]]:
        """Predicate and node of each rdf:Seq that the subject names, in the order of the file."""
        rows = self._db.execute(
            "SELECT predicate, object FROM triples WHERE subject = ? AND NOT is_literal ORDER BY rowid",
            (subject,),
        ).fetchall()
        found = ((predicate, as_subject(value)) for predicate, value in rows)
        return [
            (predicate, node) for predicate, node in found if f"{RDF}Seq" in self.values(node, f"{RDF}type")
        ]

    def subjects(self, predicate: str) -> Iterator[tuple[str, str]]:
        """Subject and object of every triple with the predicate, in the order of the file."""
        rows = self._db.execute(
            "SELECT subject, object FROM triples WHERE predicate = ? ORDER BY rowid", (predicate,)
        )
        while batch := rows.fetchmany(500):
            yield from batch

    def literal_predicates(self) -> list[tuple[str, int]]:
        """What the file says by literals, and how often."""
        rows = self._db.execute(
            "SELECT predicate, count(*) FROM triples WHERE is_literal GROUP BY predicate ORDER BY predicate"
        )
        return list(rows)

    def referrers(self, subject: str, predicate: str) -> list[str]:
        rows = self._db.execute(
            "SELECT subject FROM triples WHERE object = ? AND predicate = ? AND NOT is_literal ORDER BY rowid",
            (as_object(subject), predicate),
        )
        return [row[0] for row in rows]


def _damaged_at(file: IO[bytes]) -> str:
    """Line and column at which the file stops being XML, which pyoxigraph does not tell; empty where it does not."""
    file.seek(0)  # `_Guarded` stands before this parser too: no DTD and no entities reach it.
    try:
        expat.ParserCreate().ParseFile(io.BufferedReader(_Guarded(file), _READ_BYTES))
    except expat.ExpatError as error:
        return f"line {error.lineno}, column {error.offset + 1}"
    return ""


def as_subject(value: str) -> str:
    """How a named or blank node that stands as an object is written as a subject."""
    return f"<{value}>" if ":" in value else f"_:{value}"


def as_object(subject: str) -> str:
    return subject[1:-1] if subject.startswith("<") else subject.removeprefix("_:")
