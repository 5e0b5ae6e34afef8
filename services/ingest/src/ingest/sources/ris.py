"""References as lines with tags: RIS of any program, PubMed's `.nbib` and the Web of Science's `.ciw`.

Three dialects of one form: a tag, what it says, and lines without a tag that go on. References come one at a time, each
with its line; one that is odd costs itself. Why no library reads them: docs/decisions/0013.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from eventlog.events import CreatorRole, DocumentRejectionReason, Remark, Tag
from ingest import limits
from ingest.cleaning import html_to_text, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.export import (
    Attached,
    add_or_reject,
    attach,
    lines_of,
    name_left_out,
    open_export,
    others_remark,
    people,
    take_each,
)
from ingest.sources.item import (
    Item,
    Rejection,
    SourceUnreadable,
    find_doi,
    find_isbns,
    find_issns,
    find_year,
)

_RIS_TYPES = {
    "JOUR": "journalArticle", "EJOUR": "journalArticle", "JFULL": "journalArticle", "INPR": "journalArticle",
    "ABST": "journalArticle", "MGZN": "magazineArticle", "NEWS": "newspaperArticle", "BOOK": "book", "EBOOK": "book",
    "EDBOOK": "book", "SER": "book", "CONF": "book", "CHAP": "bookSection", "ECHAP": "bookSection",
    "ENCYC": "encyclopediaArticle", "DICT": "dictionaryEntry", "CPAPER": "conferencePaper", "THES": "thesis",
    "RPRT": "report", "GOVDOC": "report", "STAND": "standard", "PAT": "patent", "ELEC": "webpage", "BLOG": "blogPost",
    "COMP": "computerProgram", "DATA": "dataset", "AGGR": "dataset", "MANSCPT": "manuscript", "UNPB": "manuscript",
    "PCOMM": "letter", "ICOMM": "email", "VIDEO": "videoRecording", "MPCT": "film", "SOUND": "audioRecording", "MAP": "map",
    "ART": "artwork", "SLIDE": "presentation", "CASE": "case", "BILL": "bill", "STAT": "statute", "HEAR": "hearing",
}  # fmt: skip
_WITHIN = {
    "journalArticle",
    "magazineArticle",
    "newspaperArticle",
    "bookSection",
    "conferencePaper",
    "encyclopediaArticle",
}
"""Types whose T2 is where they appeared; that of others is a series."""
_WOS_TYPES = {"J": "journalArticle", "B": "book", "C": "conferencePaper", "S": "bookSection", "P": "patent"}
_PUBMED_TYPES = {"book": "book", "book chapter": "bookSection", "preprint": "preprint", "dataset": "dataset"}
_WORDS = re.compile(r"[;\n]")
_RANGE = re.compile(r"\s*(?:-{1,3}|\u2013)\s*")
_FRAME = {"FN", "VR", "EF", "ER"}
"""Lines of the Web of Science around its references."""


@dataclass(slots=True)
class _Reference:
    line: int
    has_ended: bool
    fields: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0
    last: str = ""

    def first(self, *tags: str) -> str:
        return next((value for tag in tags for value in self.fields.get(tag, ()) if value), "")

    def all(self, *tags: str) -> list[str]:
        return [value for tag in tags for value in self.fields.get(tag, ()) if value]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """`line` finds tag and value; a reference begins with the tag `begin`, and ends with `end` or before the next one."""

    line: re.Pattern[str]
    begin: str
    end: str
    named: tuple[str, ...]
    kept: frozenset[str]
    """Tags that are read; whatever else a reference says is left out by name."""
    lists: frozenset[str]
    """Tags of which a line that goes on is a value more."""
    between: str
    """What stands between a value and the line that goes on with it."""
    files: tuple[str, ...]
    item: Callable[[str, _Reference], Item]


# --- the three dialects --------------------------------------------------------------------------------------------


def _ris(name: str, one: _Reference) -> Item:
    item_type = _RIS_TYPES.get(one.first("TY").upper()[:6], "document")
    is_within = item_type in _WITHIN
    url = next((text for text in one.all("UR", "LK", "L2") if text.startswith(("http://", "https://"))), "")
    start, _, end = one.first("SP").partition("-")
    end = one.first("EP") or end
    abstract, other = html_to_text(one.first("AB", "N2")), html_to_text(one.first("N2"))
    return Item(
        name=name,
        item_type=item_type,
        title=html_to_text(one.first("TI", "T1", "CT", *(() if is_within else ("BT",)), "ST")),
        creators=(
            *people(one.all("AU", "A1")),
            *people(one.all("A2", "ED"), CreatorRole.EDITOR),
            *people(one.all("A3"), CreatorRole.SERIES_EDITOR),
            *people(one.all("A4"), CreatorRole.TRANSLATOR),
        ),
        year=find_year(one.first("PY", "Y1", "DA")),
        date=_ris_date(one),
        doi=next(
            (doi for text in one.all("DO", "M3", "L3", "UR", "LK", "SP") if (doi := find_doi(text))), None
        ),
        isbns=find_isbns("; ".join(one.all("SN"))),
        issns=find_issns("; ".join(one.all("SN"))),
        uri=url,
        url=url,
        venue=one.first("JF", "T2", *(("BT",) if is_within else ()), "JO", "JA", "J2", "J1", "T3"),
        volume=one.first("VL"),
        issue=one.first("IS", "CP"),
        pages="-".join(part.strip() for part in (start, end) if part.strip()) or one.first("C7", "C8"),
        publisher=one.first("PB"),
        language=one.first("LA"),
        abstract=abstract,
        tags=tuple(Tag(name=word) for word in _words(one.all("KW"))),
        notes=tuple(
            text
            for note in (*one.all("N1", "RN"), other if other != abstract else "")
            if (text := html_to_text(note))
        ),
        warnings=tuple(others_remark(one.all("AU", "A1", "A2", "ED"), name)),
    )


def _ris_date(one: _Reference) -> str:
    """`2020/03/15/` and its like, with the parts that are there."""
    dates = one.all("DA", "PY", "Y1")
    date = next((text for text in dates if find_year(text)), dates[0] if dates else "")
    return "-".join(part.strip() for part in date.split("/")[:3] if part.strip())


def _pubmed(name: str, one: _Reference) -> Item:
    types = [text.casefold() for text in one.all("PT")]
    start, _, end = one.first("PG").partition("-")
    pmid = one.first("PMID")
    url = f"https://pubmed.ncbi.nlm.nih.gov/{pmid}/" if pmid.isdecimal() else ""
    subjects = dict.fromkeys(text.lstrip("*").partition("/")[0].strip() for text in one.all("MH"))
    return Item(
        name=name,
        item_type=next((_PUBMED_TYPES[text] for text in types if text in _PUBMED_TYPES), "journalArticle"),
        title=one.first("TI", "BTI", "CTI"),
        creators=(
            *people(one.all("FAU") or one.all("AU")),
            *people(one.all("CN")),
            *people(one.all("FED") or one.all("ED"), CreatorRole.EDITOR),
        ),
        year=find_year(one.first("DP", "DEP")),
        date=one.first("DP", "DEP"),
        doi=next((doi for text in one.all("LID", "AID", "SO") if (doi := find_doi(text))), None),
        isbns=find_isbns("; ".join(text.partition(" ")[0] for text in one.all("ISBN"))),
        issns=find_issns("; ".join(one.all("IS"))),
        uri=url,
        url=url,
        venue=one.first("JT", "TA") or (one.first("BTI", "CTI") if one.first("TI") else ""),
        volume=one.first("VI"),
        issue=one.first("IP"),
        pages=f"{start.strip()}-{end.strip()}" if end.strip() else start.strip(),
        publisher=one.first("PB"),
        language=one.first("LA"),
        abstract=html_to_text(one.first("AB", "OAB")),
        tags=(
            *(Tag(name=word) for word in _words(one.all("OT"))),
            *(Tag(name=word, is_automatic=True) for word in subjects if word),
        ),
    )


def _web_of_science(name: str, one: _Reference) -> Item:
    start, end = one.first("BP"), one.first("EP")
    return Item(
        name=name,
        item_type=_WOS_TYPES.get(one.first("PT"), "document"),
        title=one.first("TI"),
        creators=(
            *people(one.all("AF") or one.all("AU")),
            *people(one.all("CA", "GP")),
            *people(one.all("BF") or one.all("BE"), CreatorRole.EDITOR),
        ),
        year=find_year(one.first("PY", "EY")),
        date=" ".join(part for part in (one.first("PD"), one.first("PY")) if part),
        doi=find_doi(one.first("DI")),
        isbns=find_isbns("; ".join(one.all("BN"))),
        issns=find_issns("; ".join(one.all("SN", "EI"))),
        venue=one.first("SO", "SE"),
        volume=one.first("VL"),
        issue=one.first("IS"),
        pages="-".join(part for part in (start, end) if part) or one.first("AR"),
        publisher=one.first("PU"),
        language=one.first("LA"),
        abstract=one.first("AB"),
        tags=(
            *(Tag(name=word) for word in _words(one.all("DE"))),
            *(Tag(name=word, is_automatic=True) for word in _words(one.all("ID"))),
        ),
    )


def _words(values: list[str]) -> Iterator[str]:
    for value in values:
        yield from (word.strip() for word in _WORDS.split(value) if word.strip())


_RIS = _Dialect(
    line=re.compile(r"\s{0,3}([A-Z][A-Z0-9])  -(?: (.*))?$"),
    begin="TY",
    end="ER",
    named=("ID", "AN"),
    kept=frozenset(
        [
            "TY",
            "ER",
            "TI",
            "T1",
            "CT",
            "BT",
            "ST",
            "T2",
            "T3",
            "JO",
            "JF",
            "JA",
            "J1",
            "J2",
            "AU",
            "A1",
            "A2",
            "A3",
            "A4",
            "ED",
            "PY",
            "Y1",
            "DA",
            "DO",
            "SN",
            "VL",
            "IS",
            "CP",
            "SP",
            "EP",
            "PB",
            "LA",
            "AB",
            "N2",
            "KW",
            "N1",
            "RN",
            "UR",
            "LK",
            "L1",
            "L2",
            "L3",
            "L4",
            "ID",
            "AN",
            "C7",
            "C8",
        ]
    ),
    lists=frozenset({"KW", "AU", "A1", "UR", "L1", "L2"}),
    between="\n",
    files=("L1", "L2", "L4"),
    item=_ris,
)
_LOOSE = replace(_RIS, line=re.compile(r"([A-Z][A-Z0-9]) -(?: (.*))?$"))
"""With one blank where RIS has two: only for files that begin so, for in an abstract `IL - 6` is no tag."""
_PUBMED = _Dialect(
    line=re.compile(r"([A-Z]{2,4}) {0,2}- (.*)$"),
    begin="PMID",
    end="",
    named=("PMID",),
    kept=frozenset(
        [
            "PMID",
            "TI",
            "BTI",
            "CTI",
            "JT",
            "TA",
            "AU",
            "FAU",
            "ED",
            "FED",
            "CN",
            "DP",
            "DEP",
            "LID",
            "AID",
            "SO",
            "IS",
            "ISBN",
            "VI",
            "IP",
            "PG",
            "LA",
            "AB",
            "OAB",
            "PT",
            "MH",
            "OT",
            "PB",
        ]
    ),
    lists=frozenset(),
    between=" ",
    files=(),
    item=_pubmed,
)
_WEB_OF_SCIENCE = _Dialect(
    line=re.compile(r"([A-Z][A-Z0-9])(?: (.*))?$"),
    begin="PT",
    end="ER",
    named=("UT",),
    kept=frozenset(
        [
            "PT",
            "ER",
            "EF",
            "TI",
            "SO",
            "SE",
            "CT",
            "AU",
            "AF",
            "BE",
            "BF",
            "CA",
            "GP",
            "PY",
            "EY",
            "PD",
            "DI",
            "SN",
            "EI",
            "BN",
            "VL",
            "IS",
            "BP",
            "EP",
            "AR",
            "PU",
            "LA",
            "AB",
            "DE",
            "ID",
            "UT",
        ]
    ),
    lists=frozenset({"AU", "AF", "BE", "BF", "CA"}),
    between=" ",
    files=(),
    item=_web_of_science,
)


# --- reading -------------------------------------------------------------------------------------------------------


def scan(index: ScanIndex, path: str) -> None:
    """Adds every reference. Raises SourceUnreadable when there is none."""
    left_out: Counter[str] = Counter()
    dialect = _dialect(index, path)

    def take(one: _Reference, _number: int) -> None:
        _take(index, path, dialect, one)
        left_out.update(tag for tag, values in one.fields.items() if any(values) and tag not in dialect.kept)

    if_none = SourceUnreadable(
        "ris_without_references", "there is no reference in it; export it again as RIS"
    )
    take_each(index, path, _references(index, path, dialect), take, unit="reference", if_none=if_none)
    name_left_out(index, left_out)


def _dialect(index: ScanIndex, path: str) -> _Dialect:
    """By the first line that can begin a reference."""
    with open_export(index, path) as file:
        for text in lines_of(file):
            if text.startswith("PMID"):
                return _PUBMED
            if text.startswith(("FN ", "PT ")):
                return _WEB_OF_SCIENCE
            if text.startswith("TY - "):
                return _LOOSE
            if (match := _RIS.line.match(text)) and match[1] == _RIS.begin:
                break
    return _RIS


def _references(index: ScanIndex, path: str, dialect: _Dialect) -> Iterator[_Reference]:
    current: _Reference | None = None
    found = outside = 0
    with open_export(index, path, is_again=True) as file:
        for number, text in enumerate(lines_of(file), start=1):
            match = dialect.line.match(text)
            if match and match[1] == dialect.begin:
                if current is not None:
                    yield current
                current = _Reference(line=number, has_ended=not dialect.end)
                found += 1
            if current is None:
                outside += bool(text.strip()) and not (match and match[1] in _FRAME)
            elif match and match[1] == dialect.end:
                current.has_ended = True
                yield current
                current = None
            elif text.strip():
                _add(current, dialect, text, match)
    if current is not None:
        yield current
    if found and outside:
        message = f"{outside} lines before, between or behind the references belong to none of them"
        index.warn(Remark(code="lines_not_read", subject=path[:300], message=message))


def _add(one: _Reference, dialect: _Dialect, text: str, match: re.Match[str] | None) -> None:
    one.size += len(text)
    if one.size > limits.ITEM_CHARACTERS_MAX:
        return  # It is rejected, once it has ended.
    if match:
        one.last = match[1]
        one.fields.setdefault(one.last, []).append((match[2] or "").strip())
    elif one.last in dialect.lists:
        one.fields[one.last].append(text.strip())
    else:
        values = one.fields[one.last]
        values[-1] = f"{values[-1]}{dialect.between}{text.strip()}".strip()


def _take(index: ScanIndex, path: str, dialect: _Dialect, one: _Reference) -> None:
    named = one_line(one.first(*dialect.named), 200)
    name = f"{path}: line {one.line}" + (f" ({named})" if named else "")
    if one.size > limits.ITEM_CHARACTERS_MAX:
        message = f"the reference has over {limits.ITEM_CHARACTERS_MAX} characters"
        index.reject(Rejection(item=name, reason=DocumentRejectionReason.ITEM_TOO_LARGE, message=message))
        return
    item = dialect.item(name, one)
    attached = _attached(index, path, dialect, one, item.url)
    warnings = (*item.warnings, *attached.warnings)
    if not one.has_ended:
        message = f"the reference has no {dialect.end} at its end; perhaps something was cut"
        warnings = (*warnings, Remark(code="reference_not_ended", subject=name[:300], message=message))
    item = replace(item, attachments=attached.attachments, bodies=attached.bodies, warnings=warnings)
    add_or_reject(index, item)


def _attached(index: ScanIndex, path: str, dialect: _Dialect, one: _Reference, url: str) -> Attached:
    named = [value for value in one.all(*dialect.files) if value != url]
    named += [value for value in one.all("UR") if value.lower().startswith("file:")]
    return attach(index, path.rpartition("/")[0], named)
