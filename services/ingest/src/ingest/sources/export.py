"""What the readers of bibliographic exports share: text in whatever encoding, files beside the export, what is left out.

An export is one file with many items. What a reader cannot use it names: a whole item as a rejection, a part of one as
a warning, the rest of a file that breaks off as a rejection of that rest.
"""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar
from urllib.parse import unquote

from eventlog.events import (
    Attachment,
    AttachmentStatus,
    Creator,
    CreatorRole,
    DocumentRejectionReason,
    Remark,
)
from ingest import limits
from ingest.cleaning import clean, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.item import Item, Rejection, SourceUnreadable

TEXT_SUFFIXES = (".txt", ".md", ".markdown")
DOCX_SUFFIXES = (".docx", ".docm", ".dotx")
BODY_SUFFIXES = (".pdf", *TEXT_SUFFIXES, *DOCX_SUFFIXES, ".epub")
"""Files that may be the full text of an item."""
_READ_BYTES = 256 * 1024
_FIELDS_NAMED_MAX = 50
_LINE_CHARACTERS_MAX = 8 * limits.ITEM_CHARACTERS_MAX
_SCHEME = re.compile(
    r"^(?:file:/{2,3}(?:localhost/)?|internal-pdf:/{2}|storage:|attachments:)", re.IGNORECASE
)
_R = TypeVar("_R")
_OTHERS = {"others", "et al", "et al."}


# --- text ----------------------------------------------------------------------------------------------------------


def encoding_of(path: Path) -> str:
    """UTF-8, UTF-16 by its mark, or else what Windows and the web call Latin-1, which takes nearly every byte."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        for encoding in ("utf-8-sig", "cp1252"):
            file.seek(0)
            decoder = codecs.getincrementaldecoder(encoding)()
            try:
                while data := file.read(_READ_BYTES):
                    decoder.decode(data)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            return encoding
    return "latin-1"


def encoding_remark(path: str, encoding: str) -> Remark | None:
    """What to say where an encoding was only guessed."""
    if encoding.startswith("utf"):
        return None
    message = f"it is not UTF-8 and was read as {encoding}; where letters are wrong, save it as UTF-8"
    return Remark(code="encoding_guessed", subject=path[:300], message=message)


def open_export(index: ScanIndex, path: str, newline: str | None = None, *, is_again: bool = False) -> TextIO:
    """The export as text; says so where its encoding was guessed, unless it `is_again` that it is opened."""
    local = index.local(path)
    assert local is not None
    index.use(path)
    encoding = encoding_of(local)
    remark = encoding_remark(path, encoding)
    if remark is not None and not is_again:
        index.warn(remark)
    return local.open(encoding=encoding, errors="replace", newline=newline)


def lines_of(file: TextIO) -> Iterator[str]:
    """Without their ends. A line that is longer than an item may be comes in pieces."""
    while line := file.readline(limits.ITEM_CHARACTERS_MAX + 1):
        yield line.rstrip("\r\n")


def table_lines(file: TextIO) -> Iterator[str]:
    """Lines for the csv module, which takes each as it is. Raises SourceUnreadable for an endless one."""
    while line := file.readline(_LINE_CHARACTERS_MAX + 1):
        if len(line) > _LINE_CHARACTERS_MAX:
            raise SourceUnreadable("csv_damaged", f"a line has over {_LINE_CHARACTERS_MAX} characters")
        yield line.replace("\x00", "")


# --- what is left out -----------------------------------------------------------------------------------------------


def name_left_out(index: ScanIndex, left_out: Counter[str]) -> None:
    for field, count in sorted(left_out.items())[:_FIELDS_NAMED_MAX]:
        message = f"{count} values were left out: no part of a document holds them"
        index.warn(Remark(code="field_not_kept", subject=one_line(field, 200), message=message))


def take_each(
    index: ScanIndex,
    path: str,
    records: Iterable[_R],
    take: Callable[[_R, int], None],
    *,
    unit: str,
    if_none: SourceUnreadable,
) -> None:
    """Takes an export record by record, counted from 1, for as far as it can be read.

    What comes before a damage is worth having: only a file that gave nothing fails as a whole. Raises SourceUnreadable.
    """
    count = 0
    failure = None
    try:
        for record in records:
            if count == limits.ITEMS_MAX:
                message = f"more than {limits.ITEMS_MAX} items; divide the export"
                failure = SourceUnreadable("items_too_many", message)
                break
            count += 1
            take(record, count)
    except SourceUnreadable as error:
        failure = error
    if not count:
        raise (failure or if_none).within(path)
    if failure is not None:
        reason = DocumentRejectionReason.FILE_DAMAGED
        sha256 = index.sha256(path)
        where = f"{path}: after {unit} {count}"
        index.reject(Rejection(item=where, reason=reason, message=str(failure), file_sha256=sha256))


def add_or_reject(index: ScanIndex, item: Item) -> None:
    if item.title or item.creators or item.abstract or item.doi:
        index.add_item(item)
        return
    message = "it has no title, no creator, no DOI and no abstract"
    index.reject(Rejection(item=item.name, reason=DocumentRejectionReason.ITEM_EMPTY, message=message))


# --- people ---------------------------------------------------------------------------------------------------------


def person(name: str, role: CreatorRole = CreatorRole.AUTHOR) -> Creator | None:
    """“Last, First” or “Last, First, Suffix”; a name without a comma is one whole, perhaps an institution's."""
    parts = [part.strip() for part in one_line(name, 1_000).split(",")]
    family, given = parts[0], ", ".join(part for part in parts[1:] if part)
    if not family and not given:
        return None
    return Creator(family=family or given, given=given if family else "", role=role)


def people(names: Iterable[str], role: CreatorRole = CreatorRole.AUTHOR) -> Iterator[Creator]:
    for name in names:
        if name.strip().casefold() not in _OTHERS and (found := person(name, role)):
            yield found


def others_remark(names: Iterable[str], item: str) -> Iterator[Remark]:
    if any(name.strip().casefold() in _OTHERS for name in names):
        message = "the source names the first ones and says “and others”"
        yield Remark(code="creators_incomplete", subject=item[:300], message=message)


# --- attachments ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The files that an item names; `bodies` are those that may hold its text, PDFs first."""

    attachments: tuple[Attachment, ...] = ()
    bodies: tuple[str, ...] = ()
    warnings: tuple[Remark, ...] = ()


def attach(index: ScanIndex, folder: str, named: Iterable[str]) -> Attached:
    """Files by the names that an export in `folder` gives them: paths of another machine, URLs of files, links."""
    attachments: list[Attachment] = []
    warnings: list[Remark] = []
    for name in dict.fromkeys(one.strip() for one in named if one.strip()):
        found, remark = _attachment(index, folder, clean(name))
        attachments.append(found)
        if remark is not None:
            warnings.append(remark)
    bodies = [one.path for one in attachments if one.status is AttachmentStatus.FOUND]
    bodies.sort(key=lambda path: not path.lower().endswith(".pdf"))
    return Attached(attachments=tuple(attachments), bodies=tuple(bodies), warnings=tuple(warnings))


def _attachment(index: ScanIndex, folder: str, name: str) -> tuple[Attachment, Remark | None]:
    if name.lower().startswith(("http://", "https://")):
        return Attachment(path=one_line(name, 500), status=AttachmentStatus.LINK), None
    path = _find(index, folder, name)
    if path is None:
        told = one_line(unquote(_SCHEME.sub("", name)), 500)
        message = "the export names this file, but it is not among the files"
        remark = Remark(code="attachment_missing", subject=told[:300], message=message)
        return Attachment(path=told, status=AttachmentStatus.MISSING), remark
    index.use(path)
    sha256 = index.sha256(path)
    if path.lower().endswith(BODY_SUFFIXES):
        return Attachment(path=path, sha256=sha256, status=AttachmentStatus.FOUND), None
    message = "PDFs, texts, DOCX and EPUB are read"
    remark = Remark(code="attachment_unsupported", subject=path[:300], message=message)
    return Attachment(path=path, sha256=sha256, status=AttachmentStatus.UNSUPPORTED), remark


def _find(index: ScanIndex, folder: str, name: str) -> str | None:
    bare = _SCHEME.sub("", name)
    for form in dict.fromkeys((name, bare, unquote(bare))):
        if path := index.find_attached(folder, form):
            return path
    return None
