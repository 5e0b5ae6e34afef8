"""PDF by pypdfium2: text by page, and what a lone file says of itself in its metadata and on its first page.

It runs in the parser's child only: a file may make it hang, crash or eat memory.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pypdfium2

from eventlog.events import Creator, DocumentRejectionReason
from ingest import limits
from ingest.cleaning import clean, one_line
from ingest.document import Body
from ingest.scan_index import ScanIndex
from ingest.sources.item import BodyUnreadable, Item, Rejection, find_doi, find_dois, find_year

_PASSWORD_ERROR = 4
"""FPDF_ERR_PASSWORD in pdfium's public headers."""
_HYPHENATED = re.compile(r"(?<=[a-zäöüß])[-\u00ad\u0002\ufffe]\n(?=[a-zäöüß])")
_ABSTRACT = re.compile(
    r"\babstract\b[\s.:\u2014-]*(?P<text>.{100,4000}?)(?=\n\s*(?:keywords?|index terms|1[.\s]+introduction|introduction|"
    r"i\.\s+introduction|ccs concepts|jel)\b)",
    re.IGNORECASE | re.DOTALL,
)
_JUNK_TITLE = re.compile(
    r"^(untitled|microsoft word|document\d*|.*\.(docx?|tex|dvi|pdf|qxd|indd)$|\W*$)", re.IGNORECASE
)
_PERSON = re.compile(r"[^\W\d_][^\d@()\[\]]{1,80}")
ABSTRACT_CHARACTERS_MAX = 2_000
FIRST_PAGES_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Front:
    """What the metadata and the first two pages hold."""

    metadata: dict[str, str]
    first_page: str
    text: str


def _open(path: Path) -> pypdfium2.PdfDocument:
    size = path.stat().st_size
    if size == 0:
        raise BodyUnreadable(DocumentRejectionReason.PDF_EMPTY, "the file is empty")
    if size > limits.PDF_BYTES_MAX:
        message = (
            f"{size // 1_000_000} MB are more than the {limits.PDF_BYTES_MAX // 1_000_000} MB a PDF may have"
        )
        raise BodyUnreadable(DocumentRejectionReason.FILE_TOO_LARGE, message)
    try:
        document = pypdfium2.PdfDocument(str(path))
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD_ERROR or "password" in str(error).lower():
            message = "it is encrypted; save a copy without a password"
            raise BodyUnreadable(DocumentRejectionReason.PDF_ENCRYPTED, message) from None
        message = "it is not a PDF that can be read; download or export it again"
        raise BodyUnreadable(DocumentRejectionReason.PDF_DAMAGED, message) from None
    pages = len(document)
    if pages == 0:
        raise BodyUnreadable(DocumentRejectionReason.PDF_EMPTY, "it has no pages")
    if pages > limits.PDF_PAGES_MAX:
        message = f"{pages} pages are more than {limits.PDF_PAGES_MAX}; split it"
        raise BodyUnreadable(DocumentRejectionReason.PDF_TOO_MANY_PAGES, message)
    return document


def _page_text(document: pypdfium2.PdfDocument, number: int) -> str:
    """Empty for a page that cannot be read: its neighbours are worth having."""
    try:
        page = document[number]
        try:
            textpage = page.get_textpage()
            try:
                return clean(str(textpage.get_text_range()))
            finally:
                textpage.close()
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return ""


def read_body(path: Path) -> Body:
    """Pages joined by blank lines, words hyphenated at line ends made whole. Raises BodyUnreadable."""
    document = _open(path)
    try:
        pages: list[str] = []
        starts: list[int] = []
        length = 0
        for number in range(len(document)):
            text = _HYPHENATED.sub("", _page_text(document, number)).strip()
            starts.append(length)
            pages.append(text)
            length += len(text) + 2
            if length > limits.BODY_CHARACTERS_MAX:
                raise BodyUnreadable(
                    DocumentRejectionReason.TEXT_TOO_LONG, f"over {limits.BODY_CHARACTERS_MAX} characters"
                )
    finally:
        document.close()
    text = "\n\n".join(pages)
    if len(text.strip()) < limits.TEXT_CHARACTERS_MIN:
        message = "it has no text, perhaps it is scanned; run text recognition (OCR) over it"
        raise BodyUnreadable(DocumentRejectionReason.PDF_NO_TEXT, message)
    return Body(text=text, page_starts=tuple(starts))


def identify(index: ScanIndex, path: str) -> None:
    """Adds a lone PDF as an item, or as a rejection."""
    local = index.local(path)
    assert local is not None
    try:
        front = _front(local)
    except BodyUnreadable as error:
        index.reject(
            Rejection(item=path, reason=error.reason, message=str(error), file_sha256=index.sha256(path))
        )
        return
    index.add_item(_item(front, path, index.sha256(path)))


def _front(path: Path) -> _Front:
    document = _open(path)
    try:
        try:
            metadata = {key: clean(str(value)).strip() for key, value in document.get_metadata_dict().items()}
        except pypdfium2.PdfiumError:
            metadata = {}
        first = _page_text(document, 0)
        second = _page_text(document, 1) if len(document) > 1 else ""
    finally:
        document.close()
    return _Front(metadata=metadata, first_page=first, text=f"{first}\n{second}"[:FIRST_PAGES_CHARACTERS])


def _item(front: _Front, path: str, sha256: str) -> Item:
    meta = front.metadata
    abstract = _ABSTRACT.search(front.text)
    return Item(
        name=path,
        item_type="document",
        title=_title(front, path),
        creators=_creators(meta.get("Author", "")),
        year=find_year(meta.get("CreationDate", "").removeprefix("D:")[:4]),
        doi=_doi(front),
        uri=f"sha256:{sha256}",
        abstract=one_line(abstract["text"], ABSTRACT_CHARACTERS_MAX) if abstract else "",
        bodies=(path,),
    )


def _doi(front: _Front) -> str | None:
    """From the metadata, or the single one of the first page: a list of references names many."""
    for key in ("Subject", "Title", "Keywords"):
        if found := find_doi(front.metadata.get(key, "")):
            return found
    on_page = find_dois(front.first_page)
    return on_page[0] if len(on_page) == 1 else None


def _title(front: _Front, path: str) -> str:
    title = one_line(front.metadata.get("Title", ""), 500)
    if len(title) >= 5 and not _JUNK_TITLE.match(title) and not find_doi(title):
        return title
    for line in front.first_page.split("\n")[:30]:
        text = one_line(line, 500)
        letters = sum(c.isalpha() for c in text)
        if 10 <= len(text) <= 200 and letters > len(text) // 2 and not find_doi(text) and "http" not in text:
            return text
    return one_line(Path(path).stem.replace("_", " "), 300)


def _creators(author: str) -> tuple[Creator, ...]:
    """Names divided by semicolons, or by commas and "and" where these cannot be within a name."""
    author = one_line(author, 2_000)
    divider = r";" if ";" in author else r",|\band\b|&"
    names = [name.strip() for name in re.split(divider, author)]
    return tuple(_person(name) for name in names if _PERSON.fullmatch(name))


def _person(name: str) -> Creator:
    if "," in name:
        family, given = name.split(",", 1)
        return Creator(family=family.strip(), given=given.strip())
    given, _, family = name.rpartition(" ")
    return Creator(family=family, given=given)
