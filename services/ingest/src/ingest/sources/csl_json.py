"""CSL-JSON, which most reference managers write: a list of items, read one item at a time."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from eventlog.events import (
    Creator,
    CreatorRole,
    DocumentRejectionReason,
    Tag,
)
from ingest import limits
from ingest.cleaning import html_to_text, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.export import BODY_SUFFIXES, add_or_reject, attach, name_left_out, open_export, take_each
from ingest.sources.item import Item, Rejection, SourceUnreadable, find_doi, find_isbns, find_issns, find_year

_ROLES = {
    "author": CreatorRole.AUTHOR,
    "editor": CreatorRole.EDITOR,
    "translator": CreatorRole.TRANSLATOR,
    "collection-editor": CreatorRole.SERIES_EDITOR,
    "contributor": CreatorRole.CONTRIBUTOR,
    "container-author": CreatorRole.OTHER,
    "interviewer": CreatorRole.OTHER,
    "director": CreatorRole.AUTHOR,
}
_KEPT = {
    "id", "type", "title", "title-short", "DOI", "ISBN", "ISSN", "URL", "container-title", "event-title", "event",
    "volume", "issue", "number", "page", "publisher", "language", "abstract", "note", "annote", "keyword", "keywords",
    "tags", "issued", "published", "published-print", "published-online", "original-date", "submitted", "file", "PDF",
    "pdf", *_ROLES,
}  # fmt: skip
"""Keys that are read below; whatever else an item says is left out by name."""
_KEYS_NAMED_MAX = 50
_READ_CHARACTERS = 64 * 1024
_BETWEEN = ", \t\r\n"
_DECODER = json.JSONDecoder()


def _values(index: ScanIndex, path: str) -> Iterator[Any]:
    """The members of the list, one at a time; an object alone is a list of one. Raises SourceUnreadable."""
    with open_export(index, path) as file:
        text = file.read(_READ_CHARACTERS).lstrip()
        if text[:1] not in ("[", "{"):
            raise SourceUnreadable("json_unexpected", "it is not a list of CSL items")
        is_list = text.startswith("[")
        text = text.removeprefix("[")
        while True:
            text = text.lstrip(_BETWEEN) or file.read(_READ_CHARACTERS).lstrip(_BETWEEN)
            if text.startswith("]"):
                return
            value, text = _next(file, text)
            yield value
            if not is_list:
                return


def _next(file: IO[str], text: str) -> tuple[Any, str]:
    """The first value of the text, as much of the file as it needs, and what follows. Raises SourceUnreadable."""
    while True:
        try:
            value, end = _DECODER.raw_decode(text)
        except RecursionError:
            raise SourceUnreadable("json_nested", "it is nested deeper than any CSL item") from None
        except ValueError as error:
            more = file.read(_READ_CHARACTERS)
            said = (
                one_line(str(error), 120)
                if not more
                else f"or an item is over {limits.ITEM_CHARACTERS_MAX} characters"
            )
            if not more or len(text) > limits.ITEM_CHARACTERS_MAX:
                message = f"the JSON breaks off or is wrong ({said}); export it again"
                raise SourceUnreadable("json_damaged", message) from None
            text += more
        else:
            return value, text[end:]


def scan(index: ScanIndex, path: str) -> None:
    """Adds every item of the list. Raises SourceUnreadable when there is none."""
    left_out: Counter[str] = Counter()

    def take(value: Any, number: int) -> None:
        _take(index, value, f"{path}: {_name(value, number)}", path.rpartition("/")[0])
        if isinstance(value, dict) and len(left_out) < _KEYS_NAMED_MAX:
            left_out.update(value.keys() - _KEPT)

    if_none = SourceUnreadable("json_without_items", "the list is empty")
    take_each(index, path, _values(index, path), take, unit="item", if_none=if_none)
    name_left_out(index, left_out)


def _take(index: ScanIndex, value: Any, name: str, folder: str) -> None:
    if isinstance(value, dict):
        _add(index, value, name, folder)
        return
    message = f"a {type(value).__name__} is no CSL item"
    index.reject(Rejection(item=name, reason=DocumentRejectionReason.ITEM_INVALID, message=message))


def _name(value: Any, number: int) -> str:
    id_ = value.get("id") if isinstance(value, dict) else None
    return one_line(str(id_), 200) if id_ not in (None, "") else f"item {number}"


def _text(value: dict[str, Any], *keys: str) -> str:
    for key in keys:
        found = value.get(key)
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, str | int | float) and not isinstance(found, bool) and str(found).strip():
            return str(found)
    return ""


def _all(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return "; ".join(str(one) for one in found) if isinstance(found, list) else _text(value, key)


def _add(index: ScanIndex, value: dict[str, Any], name: str, folder: str) -> None:
    date, year = _date(value)
    url = _text(value, "URL")
    attached = attach(index, folder, _files(value))
    item = Item(
        name=name,
        item_type=_text(value, "type") or "document",
        title=html_to_text(_text(value, "title", "title-short")),
        creators=tuple(one for key, role in _ROLES.items() for one in _creators(value.get(key), role)),
        year=year,
        date=date,
        doi=find_doi(_text(value, "DOI")) or find_doi(url),
        isbns=find_isbns(_all(value, "ISBN")),
        issns=find_issns(_all(value, "ISSN")),
        uri=url if url.startswith(("http://", "https://")) else "",
        url=url,
        venue=_text(value, "container-title", "event-title", "event"),
        volume=_text(value, "volume"),
        issue=_text(value, "issue", "number"),
        pages=_text(value, "page"),
        publisher=_text(value, "publisher"),
        language=_text(value, "language"),
        abstract=html_to_text(_text(value, "abstract")),
        tags=tuple(Tag(name=tag) for tag in _keywords(value)),
        notes=tuple(filter(None, (html_to_text(_text(value, "note")), html_to_text(_text(value, "annote"))))),
        attachments=attached.attachments,
        bodies=attached.bodies,
        warnings=attached.warnings,
    )
    add_or_reject(index, item)


def _creators(value: Any, role: CreatorRole) -> Iterator[Creator]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.strip():
            family, _, given = one.partition(",")
            yield Creator(family=family.strip(), given=given.strip(), role=role)
        elif isinstance(one, dict):
            family = " ".join(filter(None, (_text(one, "non-dropping-particle"), _text(one, "family"))))
            family = family or _text(one, "literal", "name")
            given = " ".join(
                filter(None, (_text(one, "given"), _text(one, "dropping-particle"), _text(one, "suffix")))
            )
            orcid = _text(one, "ORCID", "orcid").rpartition("/")[2]
            if family or given:
                yield Creator(family=family or given, given=given if family else "", role=role, orcid=orcid)


def _date(value: dict[str, Any]) -> tuple[str, int | None]:
    for key in ("issued", "published", "published-print", "published-online", "original-date", "submitted"):
        date = value.get(key)
        if isinstance(date, str | int):
            return str(date), find_year(str(date))
        if isinstance(date, dict):
            parts = date.get("date-parts")
            if isinstance(parts, list) and parts and isinstance(parts[0], list) and parts[0]:
                text = "-".join(str(part).zfill(2) for part in parts[0][:3])
                return text, find_year(text)
            text = _text(date, "literal", "raw", "season")
            if text:
                return text, find_year(text)
    return "", None


def _keywords(value: dict[str, Any]) -> Iterator[str]:
    found = value.get("keyword", value.get("keywords", value.get("tags")))
    if isinstance(found, str):
        yield from (word.strip() for word in found.replace(";", ",").split(",") if word.strip())
    elif isinstance(found, list):
        yield from (str(word) for word in found if isinstance(word, str | int))


def _files(value: dict[str, Any]) -> Iterator[str]:
    """What the item names as `file` or `PDF`, as Better BibTeX and others do."""
    for key in ("file", "PDF", "pdf"):
        named = _text(value, key)
        if named.lower().endswith(BODY_SUFFIXES):
            yield named
