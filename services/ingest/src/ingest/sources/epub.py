"""EPUB: a zip with XHTML chapters in an order that its package document gives, and what that says of the book.

Chapters are read one at a time as HTML, whatever their state; scripts, styles and pictures are not. It runs in the
parser's child only.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from lxml import etree

from eventlog.events import Creator, CreatorRole, DocumentRejectionReason, Tag
from ingest import limits
from ingest.chunking import Heading, told_heading
from ingest.cleaning import clean, html_to_text, one_line
from ingest.document import Body
from ingest.scan_index import ScanIndex
from ingest.sources.export import person
from ingest.sources.item import BodyUnreadable, Item, Rejection, find_doi, find_isbns, find_year
from ingest.sources.package import Package, damaged, encrypted, opened

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"
_OCF = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_CIPHER = "{http://www.w3.org/2001/04/xmlenc#}CipherReference"
_CHAPTERS = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_CHAPTERS_MAX = 5_000
_ENCODING = re.compile(rb"""encoding=["']([A-Za-z0-9._-]{2,30})["']""")
_BLOCKS = frozenset(
    [
        "p",
        "div",
        "li",
        "ul",
        "ol",
        "dl",
        "dt",
        "dd",
        "tr",
        "table",
        "blockquote",
        "section",
        "article",
        "aside",
        "header",
        "footer",
        "figure",
        "figcaption",
        "pre",
        "body",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
    ]
)
_HIDDEN = frozenset({"script", "style", "head", "template", "svg"})
_HEADINGS = {f"h{depth}": depth for depth in range(1, 7)}
_ROLES = {
    "aut": CreatorRole.AUTHOR,
    "edt": CreatorRole.EDITOR,
    "trl": CreatorRole.TRANSLATOR,
    "ctb": CreatorRole.CONTRIBUTOR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book:
    metadata: etree._Element | None
    chapters: tuple[str, ...]
    """Names in the zip, in reading order."""


def identify(index: ScanIndex, path: str) -> None:
    """Adds a lone EPUB as an item, or as a rejection."""
    local = index.local(path)
    assert local is not None
    sha256 = index.sha256(path)
    try:
        with opened(local) as package:
            book = _book(package)
            _text(package, book)
    except BodyUnreadable as error:
        index.reject(Rejection(item=path, reason=error.reason, message=str(error), file_sha256=sha256))
        return
    index.add_item(_item(book, path, sha256))


def read_body(path: Path) -> Body:
    """Raises BodyUnreadable."""
    with opened(path) as package:
        text = _text(package, _book(package))
    return Body(text="\n\n".join(text.pieces), headings=tuple(text.headings))


# --- what it says of itself ----------------------------------------------------------------------------------------


def _book(package: Package) -> _Book:
    """Raises BodyUnreadable."""
    root = package.xml(_CONTAINER).find(f".//{_OCF}rootfile")
    name = root.get("full-path", "") if root is not None else ""
    described = package.xml(name)
    folder = posixpath.dirname(name)
    hrefs = {
        one.get("id"): posixpath.normpath(
            posixpath.join(folder, unquote(one.get("href", "")).partition("#")[0])
        )
        for one in described.iter(f"{_OPF}item")
        if one.get("media-type") in _CHAPTERS and "nav" not in one.get("properties", "").split()
    }
    order = [hrefs[one.get("idref")] for one in described.iter(f"{_OPF}itemref") if one.get("idref") in hrefs]
    chapters = tuple(dict.fromkeys(order))[:_CHAPTERS_MAX]
    if not chapters:
        raise damaged("it names no chapters")
    _refuse_encrypted(package, chapters)
    return _Book(metadata=described.find(f"{_OPF}metadata"), chapters=chapters)


def _refuse_encrypted(package: Package, chapters: tuple[str, ...]) -> None:
    """Copy protection encrypts the chapters; fonts alone are often disguised, which harms nobody."""
    if _ENCRYPTION not in package:
        return
    hidden = {unquote(one.get("URI", "")) for one in package.xml(_ENCRYPTION).iter(_CIPHER)}
    if hidden & set(chapters):
        raise encrypted()


def _item(book: _Book, path: str, sha256: str) -> Item:
    identifiers = _all(book, "identifier")
    date = next(iter(_all(book, "date")), "")
    return Item(
        name=path,
        item_type="book",
        title=next(iter(_all(book, "title")), "") or PurePosixPath(path).stem,
        creators=tuple(_creators(book)),
        year=find_year(date),
        date=date,
        doi=next((doi for text in identifiers if (doi := find_doi(text))), None),
        isbns=tuple(
            isbn for text in identifiers for isbn in find_isbns(text.lower().removeprefix("urn:isbn:"))
        ),
        uri=f"sha256:{sha256}",
        publisher=next(iter(_all(book, "publisher")), ""),
        language=next(iter(_all(book, "language")), ""),
        abstract=html_to_text(next(iter(_all(book, "description")), "")),
        tags=tuple(Tag(name=text) for text in _all(book, "subject")),
        bodies=(path,),
    )


def _all(book: _Book, name: str) -> list[str]:
    if book.metadata is None:
        return []
    texts = (clean("".join(one.itertext())).strip() for one in book.metadata.iter(_DC + name))
    return [text for text in texts if text]


def _creators(book: _Book) -> Iterator[Creator]:
    if book.metadata is None:
        return
    # EPUB 3 says roles and sortable names in elements of their own, EPUB 2 in attributes.
    told = {
        (one.get("refines", "").removeprefix("#"), one.get("property", "")): (one.text or "").strip()
        for one in book.metadata.iter(f"{_OPF}meta")
    }
    for kind, default in (("creator", CreatorRole.AUTHOR), ("contributor", CreatorRole.CONTRIBUTOR)):
        for one in book.metadata.iter(_DC + kind):
            id_ = one.get("id", "")
            role = told.get((id_, "role")) or one.get(f"{_OPF}role", "")
            name = one_line("".join(one.itertext()), 300)
            sortable = told.get((id_, "file-as")) or one.get(f"{_OPF}file-as", "")
            if "," not in sortable:
                given, _, family = name.rpartition(" ")
                sortable = f"{family}, {given}" if given else name
            as_role = _ROLES.get(role, default if not role else CreatorRole.OTHER)
            if role != "bkp" and (
                found := person(sortable, as_role)
            ):  # the program that made the file is no creator
                yield found


# --- its text ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Text:
    pieces: list[str] = field(default_factory=list)
    length: int = 0
    headings: list[Heading] = field(default_factory=list)

    def add(self, words: str, depth: int) -> None:
        line = " ".join(clean(words).split())
        if not line:
            return
        if depth:
            self.headings.append(told_heading(self.length, one_line(line, 200), depth))
        self.pieces.append(line)
        self.length += len(line) + 2
        if self.length > limits.BODY_CHARACTERS_MAX:
            raise BodyUnreadable(
                DocumentRejectionReason.TEXT_TOO_LONG, f"over {limits.BODY_CHARACTERS_MAX} characters"
            )


def _text(package: Package, book: _Book) -> _Text:
    """Raises BodyUnreadable where a chapter is missing, or none has a text."""
    text = _Text()
    for name in book.chapters:
        reader = _Chapter(text)
        reader.feed(_decoded(package.read(name)))
        reader.close()
        reader.end_line()
    if not text.pieces:
        raise BodyUnreadable(DocumentRejectionReason.FILE_EMPTY, "there is no text in it")
    return text


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    declared = _ENCODING.search(data[:200])
    for encoding in ("utf-8-sig", declared[1].decode("ascii") if declared else "cp1252"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1")


class _Chapter(HTMLParser):
    """Blocks become lines, headings are known by their elements; what is hidden stays so."""

    def __init__(self, text: _Text) -> None:
        super().__init__(convert_charrefs=True)
        self._text = text
        self._words: list[str] = []
        self._depth = 0
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag in _BLOCKS:
            self.end_line()
            self._depth = _HEADINGS.get(tag, self._depth)
        elif tag == "br":
            self._words.append(" ")
        elif tag in ("td", "th") and self._words:
            self._words.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
        elif tag in _BLOCKS:
            self.end_line()
            if tag in _HEADINGS:
                self._depth = 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._words.append(data)

    def end_line(self) -> None:
        self._text.add("".join(self._words), self._depth)
        self._words.clear()
