"""An item: what a source says of one work, before it is known which document it is and what its files hold.

Every source makes items, and nothing but items, rejections and warnings. Here is also how items become one document:
by their identity, and by a merge in which what came first wins and nothing is lost.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

from eventlog.events import (
    Attachment,
    AttachmentStatus,
    Creator,
    CreatorRole,
    DocumentRejectionReason,
    Remark,
    Tag,
)
from eventlog.ids import normalise_name, normalise_person
from ingest import limits
from ingest.cleaning import clean, one_line

_DOI = re.compile(
    r"\b(10\.\d{4,9}/(?:[^\s\"<>{}|\\^`]|<\d+::[^\s<>]{1,20}>){1,300})",  # the last as in a SICI: `<693::AID-ASI4>`
    re.IGNORECASE,
)
_DOI_TAIL = re.compile(r"[.,;:'\"\])}>]+$")
_YEAR = re.compile(r"(?<!\d)(1[0-9]{3}|20[0-9]{2}|21[0-4][0-9])(?=[01]\d[0-3]\d(?!\d)|(?!\d))")
"""Four digits alone, or eight as 20150312."""
_ISSN = re.compile(r"\b\d{4}-?\d{3}[\dXx]\b")
_NOT_ISBN = re.compile(r"[^0-9Xx]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """`name` is what the source calls it; `uri` is globally unique or empty; `body` names the file of its full text."""

    name: str
    item_type: str = "document"
    title: str = ""
    creators: tuple[Creator, ...] = ()
    year: int | None = None
    date: str = ""
    doi: str | None = None
    isbns: tuple[str, ...] = ()
    issns: tuple[str, ...] = ()
    uri: str = ""
    url: str = ""
    venue: str = ""
    volume: str = ""
    issue: str = ""
    pages: str = ""
    publisher: str = ""
    language: str = ""
    abstract: str = ""
    tags: tuple[Tag, ...] = ()
    collections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    bodies: tuple[str, ...] = ()
    """Paths of files that may hold the full text, best first."""
    warnings: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    item: str
    reason: DocumentRejectionReason
    message: str = ""
    file_sha256: str | None = None


class SourceUnreadable(Exception):  # noqa: N818 - the name says what a user is told
    """Nothing of the source can be used; `code` is one word, the message says what to do.

    `subject` is the file, with the place in it where that is known.
    """

    def __init__(self, code: str, message: str, subject: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.subject = subject

    def within(self, path: str) -> "SourceUnreadable":
        """The same, said by somebody who knows the file."""
        return SourceUnreadable(self.code, str(self), f"{path}: {self.subject}" if self.subject else path)


class BodyUnreadable(Exception):  # noqa: N818 - the name says what happened to the file
    """A file that gives no text; `reason` is what `DocumentRejected` says."""

    def __init__(self, reason: DocumentRejectionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def find_doi(text: str) -> str | None:
    """The first DOI in a text, lower case and without trailing punctuation."""
    match = _DOI.search(text)
    return _trim_doi(match[1]) if match else None


def find_dois(text: str) -> list[str]:
    """Every distinct DOI of a text in order."""
    return list(dict.fromkeys(_trim_doi(match) for match in _DOI.findall(text)))


def _trim_doi(doi: str) -> str:
    doi = _DOI_TAIL.sub("", doi)
    while doi.endswith(")") and doi.count("(") < doi.count(")"):
        doi = _DOI_TAIL.sub("", doi[:-1])
    return doi.lower()


def find_year(date: str) -> int | None:
    """The first year from 1000 to 2149 in any form of date, in any script's digits."""
    digits = "".join(
        str(unicodedata.digit(c)) if c.isdigit() and unicodedata.digit(c, -1) >= 0 else c for c in date[:200]
    )
    match = _YEAR.search(digits)
    return int(match[1]) if match else None


def find_isbns(text: str) -> tuple[str, ...]:
    """ISBNs with a right check digit, as 13 digits."""
    found = []
    for word in re.split(r"[,;/]|\s+(?=(?:97[89])?[0-9-]{9,})|\s{2,}", text[:2_000]):
        digits = _NOT_ISBN.sub("", word).upper()
        if isbn := _isbn13(digits):
            found.append(isbn)
    return tuple(dict.fromkeys(found))


def find_issns(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_ISSN.findall(text)))


def _isbn13(digits: str) -> str:
    if len(digits) == 10 and digits[:9].isdigit():
        total = sum((10 - n) * (10 if c == "X" else int(c)) for n, c in enumerate(digits))
        if total % 11 == 0:
            stem = "978" + digits[:9]
            return stem + str(-sum(int(c) * (1, 3)[n % 2] for n, c in enumerate(stem)) % 10)
    is_long = len(digits) == 13 and digits.isdigit()
    return digits if is_long and sum(int(c) * (1, 3)[n % 2] for n, c in enumerate(digits)) % 10 == 0 else ""


def identity(item: Item) -> str:
    """DOI, ISBN with title, globally unique URI with title, or the record itself (DESIGN.md, Ids)."""
    if item.doi:
        return f"doi:{item.doi}"
    title = normalise_name(item.title)
    if item.isbns and title:
        return f"isbn:{item.isbns[0]}|{title}"
    if item.uri:
        return f"uri:{item.uri}|{title}"
    record = [
        item.item_type,
        title,
        [normalise_person(one.family, one.given) for one in item.creators],
        item.year,
        normalise_name(item.venue),
        item.volume,
        item.issue,
        item.pages,
    ]
    return "sha256:" + hashlib.sha256(json.dumps(record, ensure_ascii=False).encode()).hexdigest()


def bounded(item: Item) -> Item:
    """Every field cleaned and within its limit; what is cut is said by name."""

    def line(text: str, length_max: int = limits.FIELD_CHARACTERS_MAX) -> str:
        return one_line(text, length_max)

    creators = (
        replace(one, family=line(one.family, 300), given=line(one.given, 300), orcid=line(one.orcid, 30))
        for one in item.creators[: limits.CREATORS_MAX]
    )
    tags = dict.fromkeys((line(tag.name, 200), tag.is_automatic) for tag in item.tags[: limits.TAGS_MAX])
    return replace(
        item,
        name=line(item.name),
        title=line(item.title),
        creators=tuple(one for one in creators if one.family or one.given),
        date=line(item.date, 100),
        isbns=item.isbns[: limits.IDENTIFIERS_MAX],
        issns=item.issns[: limits.IDENTIFIERS_MAX],
        url=line(item.url),
        venue=line(item.venue),
        volume=line(item.volume, 100),
        issue=line(item.issue, 100),
        pages=line(item.pages, 100),
        publisher=line(item.publisher),
        language=line(item.language, 100),
        abstract=clean(item.abstract[: limits.ABSTRACT_CHARACTERS_MAX]).strip(),
        tags=tuple(Tag(name=name, is_automatic=auto) for name, auto in tags if name),
        collections=tuple(line(name, 300) for name in item.collections[: limits.COLLECTIONS_MAX]),
        notes=tuple(clean(note[: limits.NOTE_CHARACTERS_MAX]) for note in item.notes[: limits.NOTES_MAX]),
        attachments=item.attachments[: limits.ATTACHMENTS_MAX],
        warnings=first_warnings((*item.warnings, *_cuts(item)), item.name),
    )


def first_warnings(
    warnings: Iterable[Remark], subject: str, count_max: int = limits.WARNINGS_PER_DOCUMENT_MAX
) -> tuple[Remark, ...]:
    """At most `count_max` of them; where there are more, the last one says how many."""
    rest = iter(warnings)
    first = tuple(islice(rest, count_max))
    count = sum(1 for _ in rest)
    if not count:
        return first
    return (*first[:-1], Remark(code="warnings_cut", subject=subject[:200], message=f"and {count + 1} more"))


def _cuts(item: Item) -> Iterator[Remark]:
    longest_note = max((len(note) for note in item.notes), default=0)
    for name, count, count_max in (
        ("title", len(item.title), limits.FIELD_CHARACTERS_MAX),
        ("creators", len(item.creators), limits.CREATORS_MAX),
        ("tags", len(item.tags), limits.TAGS_MAX),
        ("notes", len(item.notes), limits.NOTES_MAX),
        ("identifiers", max(len(item.isbns), len(item.issns)), limits.IDENTIFIERS_MAX),
        ("collections", len(item.collections), limits.COLLECTIONS_MAX),
        ("attachments", len(item.attachments), limits.ATTACHMENTS_MAX),
        ("abstract", len(item.abstract), limits.ABSTRACT_CHARACTERS_MAX),
        ("note", longest_note, limits.NOTE_CHARACTERS_MAX),
    ):
        if count > count_max:
            yield Remark(code=f"{name}_cut", subject=item.name[:200], message=f"{count} → {count_max}")


_SETS = ("isbns", "issns", "collections", "notes", "attachments", "bodies", "warnings")
_FIRST = (
    "title", "creators", "year", "date", "doi", "uri", "url", "venue", "volume", "issue", "pages", "publisher",
    "language", "abstract",
)  # fmt: skip


def merge(items: Sequence[Item]) -> Item:
    """One document of several items: the first that says something is believed, lists are united in order."""
    merged = items[0]
    for other in items[1:]:
        changes: dict[str, object] = {name: getattr(merged, name) or getattr(other, name) for name in _FIRST}
        for name in _SETS:
            changes[name] = tuple(dict.fromkeys(getattr(merged, name) + getattr(other, name)))
        by_name = {tag.name: tag for tag in (*reversed(other.tags), *reversed(merged.tags))}
        changes["tags"] = tuple(reversed(list(by_name.values())))
        merged = replace(merged, **changes)  # type: ignore[arg-type]  # names are Item's own fields
    return merged


def dump_item(item: Item) -> str:
    return json.dumps(asdict(item), ensure_ascii=False)


def load_item(text: str) -> Item:
    values = json.loads(text)
    values["creators"] = tuple(
        Creator(**{**one, "role": CreatorRole(one["role"])}) for one in values["creators"]
    )
    values["tags"] = tuple(Tag(**one) for one in values["tags"])
    values["attachments"] = tuple(
        Attachment(**{**one, "status": AttachmentStatus(one["status"])}) for one in values["attachments"]
    )
    values["warnings"] = tuple(Remark(**one) for one in values["warnings"])
    for name in ("isbns", "issns", "collections", "notes", "bodies"):
        values[name] = tuple(values[name])
    return Item(**values)
