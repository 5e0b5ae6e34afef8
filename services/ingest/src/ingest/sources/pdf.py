"""PDF by pypdfium2: opened or refused with the reason, and read page by page.

It runs in the parser's child only: a file may make it hang, crash or eat memory.
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pypdfium2
from pypdfium2 import raw

from eventlog.events import DocumentRejectionReason
from ingest import limits
from ingest.cleaning import clean
from ingest.document import Body
from ingest.sources.item import BodyUnreadable

_ENCRYPTED = (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY)
_DIVIDED = re.compile(r"(?<=[^\W\d_])(?:[\ufffe\x02]|[-\u00ad]\r?\n(?=[a-zäöüß]))(?=[^\W\d_])")
"""A hyphen that only ended a line: pdfium's mark for one, which takes the line end away, or one that it left."""
_MARK = re.compile(r"(?<=\w)[\ufffe\x02](?=\w)")


@contextmanager
def opened(path: Path) -> Iterator[pypdfium2.PdfDocument]:
    """Raises BodyUnreadable for what is encrypted, damaged, empty or too large."""
    size = path.stat().st_size
    if size == 0:
        raise BodyUnreadable(DocumentRejectionReason.PDF_EMPTY, "the file is empty")
    if size > limits.PDF_BYTES_MAX:
        told, most = size // 1_000_000, limits.PDF_BYTES_MAX // 1_000_000
        message = f"{told} MB are more than the {most} MB a PDF may have"
        raise BodyUnreadable(DocumentRejectionReason.FILE_TOO_LARGE, message)
    with closing(_load(path)) as document:
        pages = len(document)
        if pages > limits.PDF_PAGES_MAX:
            message = f"{pages} pages are more than {limits.PDF_PAGES_MAX}; split it"
            raise BodyUnreadable(DocumentRejectionReason.PDF_TOO_MANY_PAGES, message)
        yield document


def _load(path: Path) -> pypdfium2.PdfDocument:
    # A document without pages is refused without a reason, and the last file's reason would be taken for it.
    raw.FPDF_LoadDocument(b"", None)
    try:
        return pypdfium2.PdfDocument(str(path))
    except pypdfium2.PdfiumError as error:
        code = error.err_code
    if code in _ENCRYPTED:
        message = "it is encrypted; save a copy without a password"
        raise BodyUnreadable(DocumentRejectionReason.PDF_ENCRYPTED, message)
    if code == raw.FPDF_ERR_FILE:  # that of the line above, for this file is there
        raise BodyUnreadable(DocumentRejectionReason.PDF_EMPTY, "it has no pages")
    message = "it is not a PDF that can be read; download or export it again"
    raise BodyUnreadable(DocumentRejectionReason.PDF_DAMAGED, message)


def page_text(document: pypdfium2.PdfDocument, number: int) -> str | None:
    """Cleaned, words divided at line ends made whole; null for a page that cannot be read."""
    try:
        with closing(document[number]) as page, closing(page.get_textpage()) as textpage:
            text = str(textpage.get_text_range())
    except pypdfium2.PdfiumError:
        return None
    return clean(_MARK.sub("-", _DIVIDED.sub("", text))).strip()


def read_body(path: Path) -> Body:
    """Pages joined by blank lines; those that cannot be read are named. Raises BodyUnreadable."""
    pages: list[str] = []
    starts: list[int] = []
    unread: list[int] = []
    length = 0
    with opened(path) as document:
        for number in range(len(document)):
            text = page_text(document, number)
            if text is None:
                unread.append(number + 1)
            starts.append(length)
            pages.append(text or "")
            length += len(pages[-1]) + 2
            if length > limits.BODY_CHARACTERS_MAX:
                message = f"over {limits.BODY_CHARACTERS_MAX} characters"
                raise BodyUnreadable(DocumentRejectionReason.TEXT_TOO_LONG, message)
    body = "\n\n".join(pages)
    if len(body.strip().encode()) >= limits.TEXT_BYTES_MIN:
        return Body(text=body, page_starts=tuple(starts), unread_pages=tuple(unread))
    if unread:
        message = "its pages cannot be read; download or export it again"
        raise BodyUnreadable(DocumentRejectionReason.PDF_DAMAGED, message)
    message = "it has no text, perhaps it is scanned; run text recognition (OCR) over it"
    raise BodyUnreadable(DocumentRejectionReason.PDF_NO_TEXT, message)
