"""Zotero's CSV export: a row is an item, its columns are Zotero's fields. A spreadsheet may have saved it anew."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from eventlog.events import CreatorRole, Remark, Tag
from ingest import limits
from ingest.cleaning import clean, html_to_text, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.export import (
    add_or_reject,
    attach,
    name_left_out,
    open_export,
    people,
    table_lines,
    take_each,
)
from ingest.sources.item import Item, SourceUnreadable, find_doi, find_isbns, find_issns, find_year

_NEEDED = {"key", "item type", "title"}
_AUTHORS = (
    "author", "artist", "cartographer", "composer", "director", "interviewee", "inventor", "performer", "podcaster",
    "presenter", "programmer", "sponsor", "contributor",
)  # fmt: skip
_ROLES = {
    **dict.fromkeys(_AUTHORS, CreatorRole.AUTHOR),
    "contributor": CreatorRole.CONTRIBUTOR,
    "editor": CreatorRole.EDITOR,
    "translator": CreatorRole.TRANSLATOR,
    "series editor": CreatorRole.SERIES_EDITOR,
    "book author": CreatorRole.OTHER,
}
_TITLES = ("title", "short title")
_VENUES = (
    "publication title", "book title", "proceedings title", "encyclopedia title", "website title", "blog title",
    "journal abbreviation", "conference name", "meeting name",
)  # fmt: skip
_KEPT = {
    "key", "item type", "publication year", "isbn", "issn", "doi", "url", "abstract note", "date", "pages", "issue",
    "number", "volume", "language", "publisher", "university", "institution", "extra", "notes", "file attachments",
    "link attachments", "manual tags", "automatic tags", *_TITLES, *_VENUES, *_ROLES,
}  # fmt: skip
"""Columns that are read below; whatever else a row says is left out by name."""
_EXTRA_DOI = re.compile(r"^[ \t]{0,20}DOI:?[ \t]{1,20}(10\..+)$", re.IGNORECASE | re.MULTILINE)
_Row = tuple[int, dict[str, str], list[str]]
"""The line on which it begins, its cells by column, and those that stand under none."""


def scan(index: ScanIndex, path: str) -> None:
    """Adds every row. Raises SourceUnreadable when there is none, or the columns are not Zotero's."""
    left_out: Counter[str] = Counter()

    def take(row: _Row, _number: int) -> None:
        _add(index, path, row)
        left_out.update(name for name, text in row[1].items() if text and name not in _KEPT)

    if_none = SourceUnreadable("csv_without_items", "it has no rows")
    take_each(index, path, _rows(index, path), take, unit="row", if_none=if_none)
    name_left_out(index, left_out)


def _rows(index: ScanIndex, path: str) -> Iterator[_Row]:
    csv.field_size_limit(limits.ITEM_CHARACTERS_MAX)
    with open_export(index, path, newline="") as file:
        head = file.readline(limits.FIELD_CHARACTERS_MAX * 10)
        file.seek(0)
        # Spreadsheets divide by semicolons where the comma is a decimal point.
        delimiter = max(",;\t", key=head.count)
        rows = csv.DictReader(table_lines(file), strict=True, delimiter=delimiter)
        try:
            names = {(name or "").strip().casefold() for name in rows.fieldnames or ()}
            if not names >= _NEEDED:
                message = "it has no columns Key, Item Type and Title; export with format CSV from Zotero"
                raise SourceUnreadable("csv_unexpected", message)
            line = rows.line_num + 1
            row: dict[Any, Any]
            for row in rows:
                surplus = row.pop(None, [])
                cells = {name.strip().casefold(): (text or "").strip() for name, text in row.items()}
                yield line, cells, surplus
                line = rows.line_num + 1
        except csv.Error as error:
            message = f"the table breaks off or is wrong ({error}); export it again"
            raise SourceUnreadable("csv_damaged", message) from None


def _first(row: dict[str, str], *names: str) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _listed(text: str) -> list[str]:
    return [one for part in text.split(";") if (one := part.strip())]


def _add(index: ScanIndex, path: str, found: _Row) -> None:
    line, row, surplus = found
    key = one_line(row.get("key", ""), 100)
    name = f"{path}: line {line}" + (f" ({key})" if key else "")
    url, extra = row.get("url", ""), row.get("extra", "")
    date = _first(row, "date", "publication year")
    named = (*_listed(row.get("file attachments", "")), *_listed(row.get("link attachments", "")))
    attached = attach(index, path.rpartition("/")[0], named)
    item = Item(
        name=name,
        item_type=row.get("item type", "") or "document",
        title=html_to_text(_first(row, *_TITLES)),
        creators=tuple(
            one for field, role in _ROLES.items() for one in people(_listed(row.get(field, "")), role)
        ),
        year=find_year(_first(row, "publication year", "date")) or find_year(date),
        date=date,
        doi=next(
            (
                doi
                for text in (row.get("doi", ""), *_EXTRA_DOI.findall(extra), url)
                if (doi := find_doi(text))
            ),
            None,
        ),
        isbns=find_isbns(row.get("isbn", "")),
        issns=find_issns(row.get("issn", "")),
        uri=url if url.startswith(("http://", "https://")) else "",
        url=url,
        venue=_first(row, *_VENUES),
        volume=row.get("volume", ""),
        issue=_first(row, "issue", "number"),
        pages=row.get("pages", ""),
        publisher=_first(row, "publisher", "university", "institution"),
        language=row.get("language", ""),
        abstract=html_to_text(row.get("abstract note", "")),
        tags=(
            *(Tag(name=tag) for tag in _listed(row.get("manual tags", ""))),
            *(Tag(name=tag, is_automatic=True) for tag in _listed(row.get("automatic tags", ""))),
        ),
        notes=tuple(filter(None, (html_to_text(row.get("notes", "")), clean(extra).strip()))),
        attachments=attached.attachments,
        bodies=attached.bodies,
        warnings=(*attached.warnings, *_surplus(name, surplus)),
    )
    add_or_reject(index, item)


def _surplus(name: str, cells: list[str]) -> Iterator[Remark]:
    if told := [one_line(cell, 100) for cell in cells if cell.strip()]:
        message = f"{len(told)} cells beyond the last column were left out, “{told[0]}” first"
        yield Remark(code="cells_not_kept", subject=name[:300], message=message)
