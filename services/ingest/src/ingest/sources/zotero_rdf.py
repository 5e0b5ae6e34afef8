"""Zotero's RDF export: every item with its people, notes, collections and attachments, in whatever order they come.

The triples stream through pyoxigraph (lenient: real exports carry IRIs with spaces) into a SQLite file, since an item's
notes and attachments are resources of their own and may stand anywhere; then items are read one by one. What has an
item type is an item; a journal or a book that only holds one is its venue.
"""

import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import pyoxigraph

from eventlog.events import (
    Attachment,
    AttachmentStatus,
    Creator,
    CreatorRole,
    DocumentRejectionReason,
    Remark,
    Tag,
)
from ingest import limits
from ingest.cleaning import clean, html_to_text, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.item import Item, Rejection, SourceUnreadable, find_doi, find_isbns, find_year

BASE = "paperlog://library/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_Z = "http://www.zotero.org/namespaces/export#"
_DC = "http://purl.org/dc/elements/1.1/"
_TERMS = "http://purl.org/dc/terms/"
_BIB = "http://purl.org/net/biblio#"
_FOAF = "http://xmlns.com/foaf/0.1/"
_PRISM = "http://prismstandard.org/namespaces/1.2/basic/"
_LINK = "http://purl.org/rss/1.0/modules/link/"
_FILE = _RDF + "paperlogFile"
"""Stands for the element `rdf:resource`, with which Zotero names a file and which RDF/XML forbids."""

_ROLES = {
    f"{_BIB}authors": CreatorRole.AUTHOR,
    f"{_Z}presenters": CreatorRole.AUTHOR,
    f"{_Z}programmers": CreatorRole.AUTHOR,
    f"{_Z}artists": CreatorRole.AUTHOR,
    f"{_Z}directors": CreatorRole.AUTHOR,
    f"{_Z}inventors": CreatorRole.AUTHOR,
    f"{_Z}interviewees": CreatorRole.AUTHOR,
    f"{_Z}podcasters": CreatorRole.AUTHOR,
    f"{_Z}composers": CreatorRole.AUTHOR,
    f"{_Z}cartographers": CreatorRole.AUTHOR,
    f"{_BIB}editors": CreatorRole.EDITOR,
    f"{_Z}translators": CreatorRole.TRANSLATOR,
    f"{_BIB}contributors": CreatorRole.CONTRIBUTOR,
    f"{_Z}seriesEditors": CreatorRole.SERIES_EDITOR,
    f"{_Z}interviewers": CreatorRole.OTHER,
    f"{_Z}bookAuthors": CreatorRole.OTHER,
    f"{_Z}reviewedAuthors": CreatorRole.OTHER,
    f"{_Z}recipients": CreatorRole.OTHER,
}
_NOT_ITEMS = {"attachment", "note", "annotation"}
_LEGACY_TYPES = {
    f"{_BIB}{name}": kind
    for name, kind in {
        "Article": "journalArticle", "Book": "book", "BookSection": "bookSection", "Report": "report",
        "Thesis": "thesis", "Document": "document", "ConferenceProceedings": "conferencePaper", "Patent": "patent",
        "Manuscript": "manuscript", "Letter": "letter", "Interview": "interview", "Recording": "audioRecording",
    }.items()
}  # fmt: skip
_RESOURCE_OPEN = re.compile(rb"<(/?)rdf:resource(?=[\s>/])")
_FORBIDDEN = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_ISSN = re.compile(r"\b\d{4}-?\d{3}[\dXx]\b")
_READ_BYTES = 256 * 1024
_KEPT_BYTES = 64


class _Guarded(io.RawIOBase):
    """The file as pyoxigraph may read it: without entities, and with `rdf:resource` elements under a legal name."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pending = b""
        self._ready = b""
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # the buffer protocol has no older type
        while not self._ready and not self.has_ended:
            self._refill()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _refill(self) -> None:
        data = self._file.read(_READ_BYTES)
        self.has_ended = not data
        text = self._pending + data
        if _FORBIDDEN.search(text):
            raise SourceUnreadable(
                "xml_entities", "it declares a DTD or entities, which no Zotero export does"
            )
        # What might be the beginning of a name is kept until the rest of it is here.
        cut = len(text) if self.has_ended else max(0, len(text) - _KEPT_BYTES)
        if not self.has_ended:
            cut = max(text.rfind(b"<", 0, cut), 0) if b"<" in text[:cut] else cut
        self._pending = text[cut:]
        self._ready = _RESOURCE_OPEN.sub(rb"<\1rdf:paperlogFile", text[:cut])


class _Graph:
    """The triples by subject, on disk; literals and links apart."""

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
        batch: list[tuple[str, str, str, bool]] = []
        triples = pyoxigraph.parse(
            input=io.BufferedReader(_Guarded(file), _READ_BYTES),
            format=pyoxigraph.RdfFormat.RDF_XML,
            base_iri=BASE,
            lenient=True,
        )
        for triple in triples:
            value = triple.object
            is_literal = isinstance(value, pyoxigraph.Literal)
            batch.append(
                (
                    str(triple.subject),
                    triple.predicate.value,
                    value.value if hasattr(value, "value") else str(value),
                    is_literal,
                )
            )
            if len(batch) >= 5_000:
                self._insert(batch)
        self._insert(batch)
        self._db.execute("CREATE INDEX by_subject ON triples (subject, predicate)")
        self._db.execute("CREATE INDEX by_object ON triples (object, predicate) WHERE NOT is_literal")

    def _insert(self, batch: list[tuple[str, str, str, bool]]) -> None:
        self._db.executemany("INSERT INTO triples VALUES (?, ?, ?, ?)", batch)
        batch.clear()

    def values(self, subject: str, *predicates: str) -> list[str]:
        """Objects in the order of the file, those of the first predicate first."""
        out: list[str] = []
        for predicate in predicates:
            rows = self._db.execute(
                "SELECT object FROM triples WHERE subject = ? AND predicate = ? ORDER BY rowid",
                (subject, predicate),
            )
            out.extend(row[0] for row in rows)
        return out

    def first(self, subject: str, *predicates: str) -> str:
        return next((value for value in self.values(subject, *predicates) if value), "")

    def literals(self, subject: str, *predicates: str) -> list[str]:
        out: list[str] = []
        for predicate in predicates:
            rows = self._db.execute(
                "SELECT object FROM triples WHERE subject = ? AND predicate = ? AND is_literal ORDER BY rowid",
                (subject, predicate),
            )
            out.extend(row[0] for row in rows)
        return out

    def links(self, subject: str, predicate: str) -> list[str]:
        """Subjects that the objects name, as `first` and `values` want them."""
        rows = self._db.execute(
            "SELECT object FROM triples WHERE subject = ? AND predicate = ? AND NOT is_literal ORDER BY rowid",
            (subject, predicate),
        )
        return [_subject(row[0]) for row in rows]

    def sequence(self, subject: str) -> list[str]:
        """The members of an rdf:Seq by their numbers."""
        rows = self._db.execute(
            "SELECT predicate, object FROM triples WHERE subject = ? AND predicate LIKE ? AND NOT is_literal",
            (subject, f"{_RDF}_%"),
        ).fetchall()
        numbered = [(predicate.removeprefix(f"{_RDF}_"), value) for predicate, value in rows]
        return [
            _subject(value)
            for number, value in sorted(
                ((int(number), value) for number, value in numbered if number.isdigit())
            )
        ]

    def subjects(self, predicate: str) -> Iterator[tuple[str, str]]:
        """Subject and object of every triple with the predicate, in the order of the file."""
        rows = self._db.execute(
            "SELECT subject, object FROM triples WHERE predicate = ? ORDER BY rowid", (predicate,)
        )
        while batch := rows.fetchmany(500):
            yield from batch

    def referrers(self, subject: str, predicate: str) -> list[str]:
        rows = self._db.execute(
            "SELECT subject FROM triples WHERE object = ? AND predicate = ? AND NOT is_literal ORDER BY rowid",
            (_object(subject), predicate),
        )
        return [row[0] for row in rows]


def _subject(value: str) -> str:
    """How a named or blank node that stands as an object is written as a subject."""
    return f"<{value}>" if ":" in value else f"_:{value}"


def _object(subject: str) -> str:
    return subject[1:-1] if subject.startswith("<") else subject.removeprefix("_:")


def scan(index: ScanIndex, rdf: str, work: Path) -> None:
    """Adds every item of the export. Raises SourceUnreadable when it is no RDF that can be read."""
    local = index.local(rdf)
    assert local is not None
    index.use(rdf)
    path = work.with_name(work.name + ".triples")
    path.unlink(missing_ok=True)
    graph = _Graph(path)
    try:
        try:
            with local.open("rb") as file:
                graph.load(file)
        except SyntaxError as error:
            message = (
                f"it is not RDF that can be read ({one_line(str(error), 200)}); export it again from Zotero"
            )
            raise SourceUnreadable("rdf_damaged", message) from None
        _Reader(index, graph, rdf).read()
    finally:
        graph.close()
        path.unlink(missing_ok=True)


class _Reader:
    def __init__(self, index: ScanIndex, graph: _Graph, rdf: str) -> None:
        self._index = index
        self._graph = graph
        self._rdf = rdf
        self._folder = rdf.rpartition("/")[0]

    def read(self) -> None:
        found = 0
        for subject, item_type in self._items():
            found += 1
            if found > limits.ITEMS_MAX:
                raise SourceUnreadable(
                    "items_too_many", f"more than {limits.ITEMS_MAX} items; export collections apart"
                )
            self._read_item(subject, item_type)
        self._read_orphans()
        if not found and not self._index.count("lone"):
            raise SourceUnreadable(
                "rdf_without_items", "it holds no Zotero items; export with format Zotero RDF"
            )

    def _items(self) -> Iterator[tuple[str, str]]:
        for subject, kind in self._graph.subjects(f"{_Z}itemType"):
            if kind not in _NOT_ITEMS:
                yield subject, kind
        for subject, rdf_type in self._graph.subjects(f"{_RDF}type"):
            # Exports of old versions name no item types; a container is no item, it is some item's venue.
            is_item = rdf_type in _LEGACY_TYPES and not self._graph.first(subject, f"{_Z}itemType")
            if (
                is_item
                and not subject.startswith("_:")
                and not self._graph.referrers(subject, f"{_TERMS}isPartOf")
            ):
                yield subject, _LEGACY_TYPES[rdf_type]

    def _name(self, subject: str) -> str:
        return f"{self._rdf}: {_object(subject).removeprefix(BASE)}"

    def _read_item(self, subject: str, item_type: str) -> None:
        graph = self._graph
        name = self._name(subject)
        identifiers = self._identifiers(subject)
        containers = graph.links(subject, f"{_TERMS}isPartOf")
        venue = next((v for c in containers if (v := graph.first(c, f"{_DC}title"))), "")
        venue = venue or graph.first(
            subject, f"{_Z}publicationTitle", f"{_Z}proceedingsTitle", f"{_Z}conferenceName"
        )
        around = [value for c in containers for value in self._identifiers(c)]
        date = graph.first(subject, f"{_DC}date", f"{_TERMS}issued")
        title = graph.first(subject, f"{_DC}title", f"{_Z}shortTitle", f"{_Z}caseName", f"{_Z}subject")
        attachments, bodies, warnings = self._attachments(subject, name)
        url = self._url(subject)
        item = Item(
            name=name,
            item_type=item_type,
            title=title,
            creators=tuple(self._creators(subject)),
            year=find_year(date),
            date=date,
            doi=next((doi for text in (*identifiers, url) if (doi := find_doi(text))), None),
            isbns=tuple(
                isbn
                for text in (*identifiers, *around)
                if "ISBN" in text.upper()
                for isbn in find_isbns(text[4:])
            ),
            issns=tuple(
                issn
                for text in (*identifiers, *around)
                if "ISSN" in text.upper()
                for issn in _ISSN.findall(text)
            ),
            uri=self._uri(subject),
            url=url,
            venue=venue,
            volume=self._near(subject, containers, f"{_PRISM}volume"),
            issue=self._near(subject, containers, f"{_PRISM}number"),
            pages=graph.first(subject, f"{_BIB}pages"),
            publisher=self._publisher([subject, *containers]),
            language=graph.first(subject, f"{_Z}language", f"{_DC}language"),
            abstract=html_to_text(graph.first(subject, f"{_TERMS}abstract"))[: limits.ITEM_CHARACTERS_MAX],
            tags=tuple(self._tags(subject)),
            collections=tuple(self._collections(subject)),
            notes=tuple(self._notes(subject)),
            attachments=attachments,
            bodies=bodies,
            warnings=tuple(warnings),
        )
        if not (item.title or item.creators or item.abstract or item.bodies or item.notes or item.url):
            message = "the item has no title, no creator, no text and no file"
            self._index.reject(
                Rejection(item=name, reason=DocumentRejectionReason.ITEM_EMPTY, message=message)
            )
            return
        self._index.add_item(item)

    def _identifiers(self, subject: str) -> list[str]:
        return self._graph.literals(subject, f"{_DC}identifier", f"{_PRISM}doi", f"{_BIB}doi")

    def _uri(self, subject: str) -> str:
        """A name that is the same in every export; `#item_42` belongs to one file alone."""
        value = _object(subject)
        is_global = subject.startswith("<") and not value.startswith(BASE) and ":" in value
        return value if is_global else ""

    def _url(self, subject: str) -> str:
        for node in self._graph.links(subject, f"{_DC}identifier"):
            if value := self._graph.first(node, f"{_RDF}value"):
                return value
        uri = self._uri(subject)
        return uri if uri.startswith(("http://", "https://")) else ""

    def _near(self, subject: str, containers: list[str], predicate: str) -> str:
        return next((v for node in (subject, *containers) if (v := self._graph.first(node, predicate))), "")

    def _publisher(self, nodes: list[str]) -> str:
        for node in nodes:
            for publisher in self._graph.links(node, f"{_DC}publisher"):
                if name := self._graph.first(publisher, f"{_FOAF}name"):
                    return name
            if literals := self._graph.literals(node, f"{_DC}publisher"):
                return literals[0]
        return ""

    def _creators(self, subject: str) -> Iterator[Creator]:
        for predicate, role in _ROLES.items():
            for sequence in self._graph.links(subject, predicate):
                for person in self._graph.sequence(sequence) or [sequence]:
                    yield from self._person(person, role)

    def _person(self, node: str, role: CreatorRole, depth: int = 0) -> Iterator[Creator]:
        graph = self._graph
        family = graph.first(node, f"{_FOAF}surname", f"{_FOAF}familyName", f"{_FOAF}name")
        given = graph.first(node, f"{_FOAF}givenName", f"{_FOAF}givenname", f"{_FOAF}firstName")
        if family or given:
            yield Creator(family=family or given, given=given if family else "", role=role)
        elif depth < 3:  # some exports nest a person in a person
            for predicate in (f"{_FOAF}Person", f"{_FOAF}member", f"{_RDF}li"):
                for inner in graph.links(node, predicate):
                    yield from self._person(inner, role, depth + 1)

    def _tags(self, subject: str) -> Iterator[Tag]:
        for value in self._graph.literals(subject, f"{_DC}subject"):
            yield Tag(name=value)
        for node in self._graph.links(subject, f"{_DC}subject"):
            if value := self._graph.first(node, f"{_RDF}value"):
                is_automatic = self._graph.first(node, f"{_RDF}type") == f"{_Z}AutomaticTag"
                yield Tag(name=value, is_automatic=is_automatic)

    def _collections(self, subject: str) -> Iterator[str]:
        for node in self._graph.referrers(subject, f"{_TERMS}hasPart"):
            if title := self._graph.first(node, f"{_DC}title"):
                yield title

    def _notes(self, subject: str) -> Iterator[str]:
        for node in self._graph.links(subject, f"{_TERMS}isReferencedBy"):
            if text := html_to_text(self._graph.first(node, f"{_RDF}value")):
                yield text
        extra = self._graph.literals(subject, f"{_DC}description")
        yield from (text for value in extra if (text := clean(value).strip()))

    # --- attachments ---------------------------------------------------------------------------------------------

    def _attachments(
        self, subject: str, name: str
    ) -> tuple[tuple[Attachment, ...], tuple[str, ...], list[Remark]]:
        attachments: list[Attachment] = []
        bodies: list[str] = []
        warnings: list[Remark] = []
        for node in self._graph.links(subject, f"{_LINK}link"):
            attachment, remark = self._attachment(node)
            attachments.append(attachment)
            if remark is not None:
                warnings.append(remark)
            if attachment.status is AttachmentStatus.FOUND:
                bodies.append(attachment.path)
        for extra in bodies[1:]:
            message = f"the text comes from another attachment of {name[:200]}"
            warnings.append(Remark(code="attachment_not_indexed", subject=extra, message=message))
        return tuple(attachments), tuple(bodies), warnings

    def _attachment(self, node: str) -> tuple[Attachment, Remark | None]:
        graph = self._graph
        file = graph.first(node, _FILE, f"{_Z}path")
        title = graph.first(node, f"{_DC}title")
        if not file:
            url = self._url(node)
            return Attachment(path=url or title, status=AttachmentStatus.LINK), None
        named = unquote(file.removeprefix(BASE)).removeprefix("storage:").removeprefix("attachments:")
        path = self._find(clean(named))
        if path is None:
            message = "the export names this file, but it is not among the files"
            remark = Remark(code="attachment_missing", subject=named[:300], message=message)
            return Attachment(path=named, status=AttachmentStatus.MISSING), remark
        self._index.use(path)
        sha256 = self._index.sha256(path)
        if not path.lower().endswith(".pdf"):
            remark = Remark(code="attachment_unsupported", subject=path[:300], message="only PDFs are read")
            return Attachment(path=path, sha256=sha256, status=AttachmentStatus.UNSUPPORTED), remark
        return Attachment(path=path, sha256=sha256, status=AttachmentStatus.FOUND), None

    def _find(self, named: str) -> str | None:
        """By its path beside the export, by its last two parts, by its name where that is unique."""
        relative = f"{self._folder}/{named}" if self._folder else named
        for path in (relative, named):
            if self._index.local(path) is not None:
                return path
        candidates = self._index.named(named.replace("\\", "/").rpartition("/")[2])
        if len(candidates) == 1:
            return candidates[0]
        tail = "/".join(named.split("/")[-2:])
        return next((path for path in candidates if path.endswith("/" + tail)), None)

    def _read_orphans(self) -> None:
        """Attachments and notes that no item names: a PDF is a document of its own, the rest is said by name."""
        for node, kind in self._graph.subjects(f"{_Z}itemType"):
            if kind == "attachment" and not self._graph.referrers(node, f"{_LINK}link"):
                self._orphan_attachment(node)
        for node, rdf_type in self._graph.subjects(f"{_RDF}type"):
            if rdf_type == f"{_BIB}Memo" and not self._graph.referrers(node, f"{_TERMS}isReferencedBy"):
                self._orphan_note(node)

    def _orphan_attachment(self, node: str) -> None:
        attachment, remark = self._attachment(node)
        name = self._name(node)
        if attachment.status is AttachmentStatus.FOUND:
            self._index.add_lone(attachment.path)
        elif attachment.status is AttachmentStatus.LINK:
            message = "an attachment without an item, and without a file"
            self._index.warn(Remark(code="attachment_without_item", subject=name[:300], message=message))
        elif attachment.status is AttachmentStatus.MISSING:
            reason = DocumentRejectionReason.FILE_MISSING
            self._index.reject(
                Rejection(item=name, reason=reason, message=f"{attachment.path[:300]} is not there")
            )
        elif remark is not None:
            reason = DocumentRejectionReason.FILE_UNSUPPORTED
            self._index.reject(Rejection(item=name, reason=reason, message=attachment.path[:300]))

    def _orphan_note(self, node: str) -> None:
        text = html_to_text(self._graph.first(node, f"{_RDF}value"))
        if not text:
            return
        first, _, _ = text.partition("\n")
        self._index.add_item(
            Item(name=self._name(node), item_type="note", title=one_line(first, 200), notes=(text,))
        )
