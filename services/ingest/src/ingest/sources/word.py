"""Word's DOCX by python-docx: styles say what is a heading, Word's own marks where a page began when it last laid it out.

Macros, pictures and what revisions deleted are not read. It runs in the parser's child only.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from docx.document import Document
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.part import PartFactory
from docx.oxml.ns import qn
from docx.package import Package as WordPackage
from docx.parts.document import DocumentPart
from lxml import etree

from eventlog.events import Creator, DocumentRejectionReason, Tag
from ingest import limits
from ingest.chunking import Heading, told_heading
from ingest.cleaning import clean, one_line
from ingest.document import Body
from ingest.scan_index import ScanIndex
from ingest.sources.item import BodyUnreadable, Item, Rejection, find_dois
from ingest.sources.package import Package, damaged, opened

_MAIN_TYPES = (
    "application/vnd.ms-word.document.macroEnabled.main+xml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
)
"""Documents with macros and templates are documents all the same."""
for _type in _MAIN_TYPES:
    PartFactory.part_type_for[_type] = DocumentPart

_P, _T, _TBL, _TR, _TC = qn("w:p"), qn("w:t"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_WORDS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_PAGE_BREAK = qn("w:lastRenderedPageBreak")
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""The same text box again, for programs that do not know the first form."""
_SKIPPED = {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr"), _FALLBACK}
_STYLE, _VAL = f"{qn('w:pPr')}/{qn('w:pStyle')}", qn("w:val")
_NOTE, _NOTE_TYPE = {qn("w:footnote"), qn("w:endnote")}, qn("w:type")
_NOTES = {RELATIONSHIP_TYPE.FOOTNOTES, RELATIONSHIP_TYPE.ENDNOTES}
_NO_TEXT = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body/></w:document>'
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)
_JUNK_TITLE = re.compile(
    r"^(untitled|document\d*|dokument\d*|microsoft word.*|.*\.docx?|\W*)$", re.IGNORECASE
)
_JUNK_AUTHOR = re.compile(
    r"\W*(anonymous|unknown|author|admin(istrator)?|user|owner|python-docx|microsoft( office)?( user)?)\W*",
    re.IGNORECASE,
)
_NOT_READ = (
    "word/theme/",
    "word/embeddings/",
    "word/stylesWithEffects",
    "word/glossary/",
    "word/footnotes",
    "word/endnotes",
    "word/comments",
    "customXml/",
)
_FRONT_CHARACTERS = 2_000
_NESTED_MAX = 200
_STYLES_DEPTH_MAX = 10


@dataclass(slots=True)
class _Text:
    """The body as it grows, paragraph by paragraph."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    headings: list[Heading] = field(default_factory=list)
    page_starts: list[int] = field(default_factory=lambda: [0])
    title: str = ""

    def add(self, text: str, breaks: list[int], depth: int, *, is_title: bool) -> None:
        """`breaks` are characters of the paragraph before which a page begins; depth 0 is no heading."""
        self.page_starts += [self.length + len(clean(text[:at]).lstrip()) for at in breaks]
        paragraph = clean(text).strip()
        if not paragraph:
            return
        if depth:
            self.headings.append(told_heading(self.length, one_line(paragraph, 200), depth))
        if is_title and not self.title:
            self.title = one_line(paragraph, 300)
        self.pieces.append(paragraph)
        self.length += len(paragraph) + 2
        if self.length > limits.BODY_CHARACTERS_MAX:
            raise BodyUnreadable(
                DocumentRejectionReason.TEXT_TOO_LONG, f"over {limits.BODY_CHARACTERS_MAX} characters"
            )


def identify(index: ScanIndex, path: str) -> None:
    """Adds a lone DOCX as an item, or as a rejection."""
    local = index.local(path)
    assert local is not None
    sha256 = index.sha256(path)
    try:
        document, text = _read(local)
    except BodyUnreadable as error:
        index.reject(Rejection(item=path, reason=error.reason, message=str(error), file_sha256=sha256))
        return
    told = document.core_properties
    title = one_line(told.title or "", 300)
    dois = find_dois("\n\n".join(text.pieces[:200])[:_FRONT_CHARACTERS])
    index.add_item(
        Item(
            name=path,
            title=title if title and not _JUNK_TITLE.match(title) else _first_words(text, path),
            creators=tuple(_creators(told.author or "")),
            year=told.created.year if told.created else None,
            date=told.created.date().isoformat() if told.created else "",
            doi=dois[0] if len(dois) == 1 else None,
            uri=f"sha256:{sha256}",
            language=one_line(told.language or "", 100),
            tags=tuple(Tag(name=word) for word in re.split(r"[;,]", told.keywords or "") if word.strip()),
            bodies=(path,),
        )
    )


def read_body(path: Path) -> Body:
    """Raises BodyUnreadable."""
    _, text = _read(path)
    return Body(
        text="\n\n".join(text.pieces),
        page_starts=tuple(text.page_starts) if len(text.page_starts) > 1 else (),
        headings=tuple(text.headings),
    )


def _first_words(text: _Text, path: str) -> str:
    """What has the style of a title, the first heading, the first line that could be one, or the file's name."""
    if text.title:
        return text.title
    first = (
        text.headings[0].title
        if text.headings and text.headings[0].start == 0
        else one_line(text.pieces[0], 301)
    )
    return first if 3 <= len(first) <= 300 else PurePosixPath(path).stem


def _creators(author: str) -> Iterator[Creator]:
    for name in re.split(r";|,|\band\b|&", author) if ";" not in author else author.split(";"):
        name = one_line(name, 200)  # noqa: PLW2901 - the same name, cleaned
        if not name or _JUNK_AUTHOR.fullmatch(name):
            continue
        if "," in name:
            family, _, given = name.partition(",")
        else:
            given, _, family = name.rpartition(" ")
        yield Creator(family=family.strip(), given=given.strip())


# --- reading -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Document, _Text]:
    """Raises BodyUnreadable."""
    with opened(path) as package:
        try:
            main = _main_part(package)
            document = WordPackage.open(_without_text(package, main)).main_document_part.document
            text = _body_text(package, main, document)
        except (KeyError, ValueError, AttributeError, TypeError, SyntaxError, LookupError):
            # Whatever python-docx raises for a package that lacks a part or holds another kind of one.
            raise damaged("it is no Word document") from None
    if not text.pieces:
        raise BodyUnreadable(DocumentRejectionReason.FILE_EMPTY, "there is no text in it")
    return document, text


def _main_part(package: Package) -> str:
    """The name of the part that holds the text."""
    for relation in package.xml("_rels/.rels"):
        if relation.get("Type", "").endswith("/officeDocument"):
            return str(relation.get("Target", "")).lstrip("/")
    raise damaged("it is no Word document")


def _without_text(package: Package, main: str) -> io.BytesIO:
    """The same package in memory, as python-docx wants it: styles and properties, but no text, which is read as it comes.

    Pictures, fonts and macros are there, and empty.
    """
    slim = io.BytesIO()
    with zipfile.ZipFile(slim, "w") as copy:
        for name in dict.fromkeys(package.names()):
            is_read = name.endswith(".rels") or (name.endswith(".xml") and not name.startswith(_NOT_READ))
            if name == main:
                data = _NO_TEXT
            else:
                data = package.read(name, limits.PACKAGE_TREE_BYTES_MAX) if is_read else b""
            copy.writestr(name, data)
    slim.seek(0)
    return slim


def _body_text(package: Package, main: str, document: Document) -> _Text:
    text = _Text()
    styles = _Styles(document)
    for block in _blocks(package, main):
        if block.tag == _TBL:
            for row in _rows(block):
                text.add(row, [], 0, is_title=False)
            continue
        words, breaks = _words(block)
        named = block.find(_STYLE)
        style = None if named is None else named.get(_VAL)
        text.add(words, breaks, styles.depth(style), is_title=styles.is_title(style))
    for related in document.part.rels.values():
        if related.reltype in _NOTES and not related.is_external:
            for note in _notes(package, str(related.target_part.partname).lstrip("/")):
                text.add(note, [], 0, is_title=False)
    return text


def _blocks(package: Package, name: str) -> Iterator[Any]:
    """Paragraphs and tables in their order, those within content controls and insertions too; each is gone after its turn."""
    within = skipped = 0
    for event, element in _events(package, name):
        if element.tag in _SKIPPED:
            skipped += 1 if event == "start" else -1
        if element.tag not in (_P, _TBL):
            continue
        within += 1 if event == "start" else -1
        if event == "end" and not within:
            if not skipped:
                yield element
            _forget(element)


def _notes(package: Package, name: str) -> Iterator[str]:
    """Foot- or endnotes, without the lines that divide them from the text."""
    for event, element in _events(package, name):
        if event == "end" and element.tag in _NOTE:
            if element.get(_NOTE_TYPE) is None:
                yield " ".join(_words(element)[0].split())
            _forget(element)


def _events(package: Package, name: str) -> Iterator[tuple[str, Any]]:
    with package.stream(name) as stream:
        yield from etree.iterparse(
            stream,
            events=("start", "end"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )


def _forget(element: Any) -> None:
    """What was read of the part so far takes memory no more."""
    element.clear(keep_tail=False)
    while element.getprevious() is not None:
        del element.getparent()[0]


class _Styles:
    """Which styles are headings: by their names, which Word keeps in English whatever its language, or their base's."""

    def __init__(self, document: Document) -> None:
        self._names: dict[str, list[str]] = {}
        for style in document.styles:
            names: list[str] = []
            one: Any = style
            while one is not None and len(names) < _STYLES_DEPTH_MAX:
                names.append(one.name or "")
                one = getattr(one, "base_style", None)
            self._names.setdefault(style.style_id, names)

    def depth(self, style_id: str | None) -> int:
        """1 to 9, and 0 for what is no heading."""
        for name in self._names.get(style_id or "", ()):
            if match := _HEADING.fullmatch(name):
                return int(match[1])
        return 0

    def is_title(self, style_id: str | None) -> bool:
        return "title" in (name.casefold() for name in self._names.get(style_id or "", ()))


def _rows(table: Any) -> Iterator[str]:
    """A line for each row, its cells divided by bars."""
    for row in table.iter(_TR):
        cells = (" ".join(_words(cell)[0].split()) for cell in row.iter(_TC))
        if line := " | ".join(cell for cell in cells if cell):
            yield line


def _words(paragraph: Any) -> tuple[str, list[int]]:
    """The text, and the characters of it before which Word last began a page."""
    pieces: list[str] = []
    breaks: list[int] = []
    length = 0
    for element in _runs(paragraph, 0):
        if element.tag == _PAGE_BREAK:
            breaks.append(length)
            continue
        if element.tag == _P:
            word = "\n"
        else:
            word = element.text or "" if element.tag == _T else _WORDS.get(element.tag, "")
        pieces.append(word)
        length += len(word)
    return "".join(pieces), breaks


def _runs(parent: Any, depth: int) -> Iterator[Any]:
    """What writes something, in order; paragraphs within, as of a text box, begin a line."""
    if depth > _NESTED_MAX:
        raise damaged("it is nested deeper than any document")
    for child in parent:
        if not isinstance(child.tag, str) or child.tag in _SKIPPED:
            continue
        if child.tag in (_T, _PAGE_BREAK) or child.tag in _WORDS:
            yield child
            continue
        if child.tag == _P:
            yield child
        yield from _runs(child, depth + 1)
