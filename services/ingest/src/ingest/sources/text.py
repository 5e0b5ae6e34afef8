"""Plain text and Markdown: a file is a document, its first line the title."""

from pathlib import Path

from eventlog.events import DocumentRejectionReason
from ingest import limits
from ingest.cleaning import clean, one_line
from ingest.document import Body
from ingest.scan_index import ScanIndex
from ingest.sources.item import BodyUnreadable, Item, Rejection, find_dois

SUFFIXES = (".txt", ".md", ".markdown")
TITLE_CHARACTERS_MAX = 200
FRONT_CHARACTERS = 2_000
"""Where a text may name itself by a DOI, if it is the only one there: lists of references name many."""


def read_text(path: Path) -> str:
    """UTF-8, or UTF-16 by its mark, or Latin-1 when it is neither; raises BodyUnreadable."""
    size = path.stat().st_size
    if size > limits.TEXT_FILE_BYTES_MAX:
        raise BodyUnreadable(
            DocumentRejectionReason.FILE_TOO_LARGE, f"{size} bytes are more than a text may have"
        )
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    if text.count("\x00") > len(text) // 100:
        raise BodyUnreadable(
            DocumentRejectionReason.FILE_UNSUPPORTED, "this is no text, whatever its name says"
        )
    cleaned = clean(text)
    if not cleaned.strip():
        raise BodyUnreadable(DocumentRejectionReason.FILE_EMPTY, "there is no text in it")
    if len(cleaned) > limits.BODY_CHARACTERS_MAX:
        raise BodyUnreadable(DocumentRejectionReason.TEXT_TOO_LONG, f"{len(cleaned)} characters")
    return cleaned


def read_body(path: Path) -> Body:
    return Body(text=read_text(path))


def identify(index: ScanIndex, path: str) -> None:
    """Adds the file as an item, or as a rejection."""
    local = index.local(path)
    assert local is not None
    try:
        text = read_text(local)
    except BodyUnreadable as error:
        index.reject(
            Rejection(item=path, reason=error.reason, message=str(error), file_sha256=index.sha256(path))
        )
        return
    lines = (line.strip().lstrip("#").strip() for line in text[:20_000].split("\n"))
    first = next((line for line in lines if line), "")
    dois = find_dois(text[:FRONT_CHARACTERS])
    is_title = 3 <= len(first) <= TITLE_CHARACTERS_MAX
    index.add_item(
        Item(
            name=path,
            item_type="document",
            title=one_line(first if is_title else Path(path).stem, TITLE_CHARACTERS_MAX),
            doi=dois[0] if len(dois) == 1 else None,
            uri=f"sha256:{index.sha256(path)}",
            bodies=(path,),
        )
    )
