"""Zotero's RDF export: every item with its people, notes, collections and attachments, in whatever order they come.

An item's notes and attachments are resources of their own and may stand anywhere; so is what it is part of, which
holds its ISBN, volume and even its DOI. What has an item type is an item; a journal or a book that only holds one is
its venue.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

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
from ingest.sources.export import BODY_SUFFIXES
from ingest.sources.item import Item, Rejection, SourceUnreadable, find_doi, find_isbns, find_issns, find_year
from ingest.sources.rdf_graph import BASE, FILE, RDF, Graph, as_object

_Z = "http://www.zotero.org/namespaces/export#"
_DC = "http://purl.org/dc/elements/1.1/"
_TERMS = "http://purl.org/dc/terms/"
_BIB = "http://purl.org/net/biblio#"
_FOAF = "http://xmlns.com/foaf/0.1/"
_PRISM = "http://prismstandard.org/namespaces/1.2/basic/"
_LINK = "http://purl.org/rss/1.0/modules/link/"
_TYPE = f"{RDF}type"
_VALUE = f"{RDF}value"

_AUTHORS = (
    "presenters", "programmers", "artists", "directors", "inventors", "interviewees", "podcasters", "composers",
    "cartographers", "performers",
)  # fmt: skip
_ROLES = {
    f"{_BIB}authors": CreatorRole.AUTHOR,
    **{f"{_Z}{name}": CreatorRole.AUTHOR for name in _AUTHORS},
    f"{_BIB}editors": CreatorRole.EDITOR,
    f"{_Z}translators": CreatorRole.TRANSLATOR,
    f"{_BIB}contributors": CreatorRole.CONTRIBUTOR,
    f"{_Z}seriesEditors": CreatorRole.SERIES_EDITOR,
}
"""Whoever else stands in a sequence of people is a creator of the role `other`."""
_TITLES = (f"{_DC}title", *(f"{_Z}{name}" for name in ("displayTitle", "shortTitle", "caseName", "subject")))
_NOT_ITEMS = {"attachment", "note", "annotation"}
_LEGACY_TYPES = {
    f"{_BIB}{name}": kind
    for name, kind in {
        "Article": "journalArticle", "Book": "book", "BookSection": "bookSection", "Report": "report",
        "Thesis": "thesis", "Document": "document", "ConferenceProceedings": "conferencePaper", "Patent": "patent",
        "Manuscript": "manuscript", "Letter": "letter", "Interview": "interview", "Recording": "audioRecording",
    }.items()
}  # fmt: skip
_EXTRA_DOI = re.compile(r"^[ \t]{0,20}DOI:?[ \t]{1,20}(10\..+)$", re.IGNORECASE | re.MULTILINE)
_LINKED_URL = "3"
"""`z:linkMode` of an attachment that never had a file."""
_CONTAINERS_MAX = 8
_KEPT = {
    _TYPE, _VALUE, FILE, f"{_BIB}pages", f"{_BIB}doi", f"{_PRISM}doi", f"{_PRISM}volume", f"{_PRISM}number",
    f"{_TERMS}abstract", f"{_TERMS}issued", f"{_TERMS}alternative", f"{_LINK}type",
    *(f"{_DC}{name}" for name in ("title", "date", "identifier", "publisher", "language", "description", "subject")),
    *(f"{_FOAF}{name}" for name in ("surname", "familyName", "name", "givenName", "givenname", "firstName")),
    *(
        f"{_Z}{name}"
        for name in (
            "itemType", "displayTitle", "shortTitle", "caseName", "subject", "language", "publicationTitle",
            "proceedingsTitle", "conferenceName", "path", "linkMode",
        )
    ),
}  # fmt: skip
"""Predicates whose literals are read below; whatever else an export says is left out by name."""
_FIELDS_NAMED_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attached:
    """One attachment; `remark` says what is wrong with it."""

    attachment: Attachment
    remark: Remark | None = None


def scan(index: ScanIndex, rdf: str, work: Path) -> None:
    """Adds every item of the export. Raises SourceUnreadable when it is no RDF that can be read."""
    local = index.local(rdf)
    assert local is not None
    index.use(rdf)
    path = work.with_name(work.name + ".triples")
    path.unlink(missing_ok=True)
    graph = Graph(path)
    try:
        with local.open("rb") as file:
            graph.load(file)
        _Reader(index, graph, rdf).read()
    except SourceUnreadable as error:
        raise error.within(rdf) from None
    finally:
        graph.close()
        path.unlink(missing_ok=True)


def _unusable(identifiers: list[str]) -> Iterator[Remark]:
    """Those that name no DOI, ISBN with a right check digit, or ISSN."""
    for text in dict.fromkeys(identifiers):
        if not (find_doi(text) or find_issns(text) or find_isbns(text[4:])):
            message = "it is no DOI, ISSN, or ISBN with a right check digit"
            yield Remark(code="identifier_not_kept", subject=one_line(text, 200), message=message)


class _Reader:
    def __init__(self, index: ScanIndex, graph: Graph, rdf: str) -> None:
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
        found += self._read_orphans()
        self._name_fields_left_out()
        if not found:
            raise SourceUnreadable(
                "rdf_without_items", "it holds no Zotero items; export with format Zotero RDF"
            )

    def _items(self) -> Iterator[tuple[str, str]]:
        for subject, kind in self._graph.subjects(f"{_Z}itemType"):
            if kind not in _NOT_ITEMS:
                yield subject, kind
        for subject, rdf_type in self._graph.subjects(_TYPE):
            # Exports of old versions name no item types; a container is no item, it is some item's venue.
            is_item = rdf_type in _LEGACY_TYPES and not self._graph.first(subject, f"{_Z}itemType")
            if (
                is_item
                and not subject.startswith("_:")
                and not self._graph.referrers(subject, f"{_TERMS}isPartOf")
            ):
                yield subject, _LEGACY_TYPES[rdf_type]

    def _name_fields_left_out(self) -> None:
        left_out = [one for one in self._graph.literal_predicates() if one[0] not in _KEPT]
        for predicate, count in left_out[:_FIELDS_NAMED_MAX]:
            message = f"{count} values were left out: no part of a document holds them"
            self._index.warn(Remark(code="field_not_kept", subject=one_line(predicate, 200), message=message))

    def _name(self, subject: str) -> str:
        return f"{self._rdf}: {as_object(subject).removeprefix(BASE)}"

    def _read_item(self, subject: str, item_type: str) -> None:
        item = self._item(subject, item_type)
        if item.title or item.creators or item.abstract or item.bodies or item.notes or item.url:
            self._index.add_item(item)
            return
        message = "the item has no title, no creator, no text and no file"
        self._index.reject(
            Rejection(item=item.name, reason=DocumentRejectionReason.ITEM_EMPTY, message=message)
        )

    def _item(self, subject: str, item_type: str) -> Item:
        graph = self._graph
        containers = self._containers(subject)
        identifiers = [value for node in (subject, *containers) for value in self._identifiers(node)]
        isbns = [isbn for text in identifiers if "ISBN" in text.upper() for isbn in find_isbns(text[4:])]
        issns = [issn for text in identifiers if "ISSN" in text.upper() for issn in find_issns(text)]
        date = graph.first(subject, f"{_DC}date", f"{_TERMS}issued")
        attachments, bodies, warnings = self._attachments(subject)
        url = self._url(subject)
        return Item(
            name=self._name(subject),
            item_type=item_type,
            title=graph.first(subject, *_TITLES),
            creators=tuple(self._creators(subject)),
            year=find_year(date),
            date=date,
            doi=self._doi(subject, containers, url),
            isbns=tuple(dict.fromkeys(isbns)),
            issns=tuple(dict.fromkeys(issns)),
            uri=self._uri(subject),
            url=url,
            venue=self._venue(subject, containers),
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
            warnings=(*warnings, *_unusable(identifiers)),
        )

    def _containers(self, subject: str) -> list[str]:
        """What the item is part of, and what that is part of: a section of a journal of a series."""
        found: list[str] = []
        nodes = [subject]
        while nodes and len(found) < _CONTAINERS_MAX:
            parents = (parent for node in nodes for parent in self._graph.links(node, f"{_TERMS}isPartOf"))
            nodes = [node for node in dict.fromkeys(parents) if node not in found and node != subject]
            found.extend(nodes)
        return found[:_CONTAINERS_MAX]

    def _venue(self, subject: str, containers: list[str]) -> str:
        """The journal or book; a section of it is none, and a series only where there is nothing else."""
        last = ""
        for node in containers:
            types = self._graph.values(node, _TYPE)
            title = self._graph.first(node, f"{_DC}title", f"{_TERMS}alternative")
            if f"{_BIB}Series" in types:
                last = last or title
            elif title and f"{_BIB}Part" not in types:
                return title
        told = (f"{_Z}{name}" for name in ("publicationTitle", "proceedingsTitle", "conferenceName"))
        meetings = self._graph.links(subject, f"{_BIB}presentedAt")
        meeting = next((v for node in meetings if (v := self._graph.first(node, f"{_DC}title"))), "")
        return self._graph.first(subject, *told) or meeting or last

    def _identifiers(self, subject: str) -> list[str]:
        return self._graph.literals(subject, f"{_DC}identifier", f"{_PRISM}doi", f"{_BIB}doi")

    def _doi(self, subject: str, containers: list[str], url: str) -> str | None:
        """Zotero writes an article's DOI into its journal; one that several items share is nobody's."""
        own = [node for node in containers if len(self._graph.referrers(node, f"{_TERMS}isPartOf")) == 1]
        told = [text for node in (subject, *own) for text in self._identifiers(node)]
        told.sort(key=lambda text: not text.upper().startswith("DOI"))
        extra = self._graph.literals(subject, f"{_DC}description")
        told.extend(doi for text in extra for doi in _EXTRA_DOI.findall(text))
        return next((doi for text in (*told, url) if (doi := find_doi(text))), None)

    def _uri(self, subject: str) -> str:
        """A name that is the same in every export; `#item_42` belongs to one file alone."""
        value = as_object(subject)
        is_global = subject.startswith("<") and not value.startswith(BASE) and ":" in value
        return value if is_global else ""

    def _url(self, subject: str) -> str:
        for node in self._graph.links(subject, f"{_DC}identifier"):
            if value := self._graph.first(node, _VALUE):
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
        for predicate, sequence in self._graph.sequences(subject):
            if predicate not in _ROLES:
                for person in self._graph.sequence(sequence):
                    yield from self._person(person, CreatorRole.OTHER)

    def _person(self, node: str, role: CreatorRole, depth: int = 0) -> Iterator[Creator]:
        graph = self._graph
        family = graph.first(node, f"{_FOAF}surname", f"{_FOAF}familyName", f"{_FOAF}name")
        given = graph.first(node, f"{_FOAF}givenName", f"{_FOAF}givenname", f"{_FOAF}firstName")
        if family or given:
            yield Creator(family=family or given, given=given if family else "", role=role)
        elif depth < 3:  # some exports nest a person in a person
            for predicate in (f"{_FOAF}Person", f"{_FOAF}member", f"{RDF}li"):
                for inner in graph.links(node, predicate):
                    yield from self._person(inner, role, depth + 1)

    def _tags(self, subject: str) -> Iterator[Tag]:
        for value in self._graph.literals(subject, f"{_DC}subject"):
            yield Tag(name=value)
        for node in self._graph.links(subject, f"{_DC}subject"):
            kind = self._graph.first(node, _TYPE)
            value = self._graph.first(node, _VALUE)
            if value and kind != f"{_TERMS}LCC":  # a call number stands among the subjects, but is none
                yield Tag(name=value, is_automatic=kind == f"{_Z}AutomaticTag")

    def _collections(self, subject: str) -> Iterator[str]:
        for node in self._graph.referrers(subject, f"{_TERMS}hasPart"):
            if title := self._graph.first(node, f"{_DC}title"):
                yield title

    def _notes(self, subject: str) -> Iterator[str]:
        for node in self._graph.links(subject, f"{_TERMS}isReferencedBy"):
            if text := html_to_text(self._graph.first(node, _VALUE)):
                yield text
        extra = self._graph.literals(subject, f"{_DC}description")
        yield from (text for value in extra if (text := clean(value).strip()))
        for node in self._graph.links(subject, f"{_LINK}link"):
            if text := html_to_text(self._graph.first(node, f"{_DC}description")):
                yield text

    # --- attachments ---------------------------------------------------------------------------------------------

    def _attachments(
        self, subject: str
    ) -> tuple[tuple[Attachment, ...], tuple[str, ...], tuple[Remark, ...]]:
        """Those of the item, the paths among them that may hold its text (PDFs first), and what is wrong."""
        found = [self._attached(node) for node in self._graph.links(subject, f"{_LINK}link")]
        bodies = [one.attachment.path for one in found if one.attachment.status is AttachmentStatus.FOUND]
        bodies.sort(key=lambda path: not path.lower().endswith(".pdf"))
        remarks = tuple(one.remark for one in found if one.remark is not None)
        return tuple(one.attachment for one in found), tuple(bodies), remarks

    def _attached(self, node: str) -> _Attached:
        graph = self._graph
        file = graph.first(node, FILE, f"{_Z}path")
        if not file:
            return self._without_file(node)
        named = clean(file.removeprefix(BASE)).removeprefix("storage:").removeprefix("attachments:")
        path = self._index.find_attached(self._folder, named)
        path = path or self._index.find_attached(self._folder, clean(unquote(named)))
        if path is None:
            message = "the export names this file, but it is not among the files"
            remark = Remark(code="attachment_missing", subject=unquote(named)[:300], message=message)
            return _Attached(
                attachment=Attachment(path=unquote(named), status=AttachmentStatus.MISSING), remark=remark
            )
        self._index.use(path)
        sha256 = self._index.sha256(path)
        if not path.lower().endswith(BODY_SUFFIXES):
            message = "PDFs, texts, DOCX and EPUB are read"
            remark = Remark(code="attachment_unsupported", subject=path[:300], message=message)
            unsupported = Attachment(path=path, sha256=sha256, status=AttachmentStatus.UNSUPPORTED)
            return _Attached(attachment=unsupported, remark=remark)
        return _Attached(attachment=Attachment(path=path, sha256=sha256, status=AttachmentStatus.FOUND))

    def _without_file(self, node: str) -> _Attached:
        """A link to a page, or a file that the export was made without."""
        title = self._graph.first(node, f"{_DC}title")
        path = self._url(node) or title
        mode = self._graph.first(node, f"{_Z}linkMode")
        kind = self._graph.first(node, f"{_LINK}type")
        if mode == _LINKED_URL or not (mode or kind):
            return _Attached(attachment=Attachment(path=path, status=AttachmentStatus.LINK))
        remark = Remark(
            code="attachment_missing" if kind == "application/pdf" else "snapshot_missing",
            subject=(title or path)[:300],
            message="it was exported without its file; export with files",
        )
        return _Attached(attachment=Attachment(path=path, status=AttachmentStatus.MISSING), remark=remark)

    def _read_orphans(self) -> int:
        """Attachments and notes that no item names: a file is a document of its own, the rest is said by name."""
        count = 0
        for node, kind in self._graph.subjects(f"{_Z}itemType"):
            if kind == "attachment" and not self._graph.referrers(node, f"{_LINK}link"):
                self._orphan_attachment(node)
                count += 1
        for node, rdf_type in self._graph.subjects(_TYPE):
            if rdf_type == f"{_BIB}Memo" and not self._graph.referrers(node, f"{_TERMS}isReferencedBy"):
                self._orphan_note(node)
                count += 1
        return count

    def _orphan_attachment(self, node: str) -> None:
        attached = self._attached(node)
        path = attached.attachment.path
        name = self._name(node)
        match attached.attachment.status:
            case AttachmentStatus.FOUND:
                self._index.add_lone(path)
            case AttachmentStatus.MISSING:
                reason = DocumentRejectionReason.FILE_MISSING
                message = f"{path[:300]} is not there" if path else "its file is not there"
                self._index.reject(Rejection(item=name, reason=reason, message=message))
            case AttachmentStatus.UNSUPPORTED:
                reason = DocumentRejectionReason.FILE_UNSUPPORTED
                sha256 = attached.attachment.sha256
                self._index.reject(
                    Rejection(item=name, reason=reason, message=path[:300], file_sha256=sha256)
                )
            case _:
                message = "an attachment without an item, and without a file"
                self._index.warn(Remark(code="attachment_without_item", subject=name[:300], message=message))

    def _orphan_note(self, node: str) -> None:
        text = html_to_text(self._graph.first(node, _VALUE))
        if not text:
            self._index.warn(Remark(code="note_empty", subject=self._name(node)[:300], message="no text"))
            return
        first, _, _ = text.partition("\n")
        self._index.add_item(
            Item(
                name=self._name(node),
                item_type="note",
                title=one_line(first, 200),
                tags=tuple(self._tags(node)),
                collections=tuple(self._collections(node)),
                notes=(text,),
            )
        )
