"""BibTeX and BibLaTeX, as Zotero, JabRef, Mendeley and publishers write them, a piece of the file at a time.

bibtexparser divides a piece into its blocks and goes on after a damaged one; what a field says is made out here: macros
and joined strings, names, TeX. What an entry inherits by `crossref` it takes from the entry named, wherever that stands.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from bibtexparser.entrypoint import parse_string
from bibtexparser.middlewares.names import (
    InvalidNameError,
    parse_single_name_into_parts,
    split_multiple_persons_names,
)
from bibtexparser.model import (
    Block,
    DuplicateBlockKeyBlock,
    DuplicateFieldKeyBlock,
    Entry,
    ImplicitComment,
    ParsingFailedBlock,
    String,
)

from eventlog.events import Creator, CreatorRole, DocumentRejectionReason, Remark, Tag
from ingest import limits
from ingest.cleaning import one_line
from ingest.scan_index import ScanIndex
from ingest.sources.export import (
    add_or_reject,
    attach,
    lines_of,
    name_left_out,
    open_export,
    others_remark,
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
from ingest.sources.tex import tex_to_text, unescaped

logging.getLogger("bibtexparser").setLevel(
    logging.CRITICAL + 1
)  # it says what we say by name, with the text of the entry

_TYPES = {
    "article": "journalArticle", "periodical": "journalArticle", "suppperiodical": "journalArticle", "book": "book",
    "mvbook": "book", "collection": "book", "mvcollection": "book", "reference": "book", "mvreference": "book",
    "booklet": "book", "proceedings": "book", "mvproceedings": "book", "inbook": "bookSection", "bookinbook": "bookSection",
    "suppbook": "bookSection", "incollection": "bookSection", "suppcollection": "bookSection",
    "inreference": "encyclopediaArticle", "inproceedings": "conferencePaper", "conference": "conferencePaper",
    "phdthesis": "thesis", "mastersthesis": "thesis", "thesis": "thesis", "techreport": "report", "report": "report",
    "manual": "report", "online": "webpage", "electronic": "webpage", "www": "webpage", "patent": "patent",
    "unpublished": "manuscript", "software": "computerProgram", "dataset": "dataset", "artwork": "artwork",
    "audio": "audioRecording", "video": "videoRecording", "letter": "letter", "misc": "document",
}  # fmt: skip
_MONTHS = {
    name: f"{number:02}"
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_INHERITED_AS = {
    "title": "booktitle", "subtitle": "booksubtitle", "journaltitle": "journaltitle", "editor": "editor", "year": "year",
    "date": "date", "publisher": "publisher", "isbn": "isbn", "issn": "issn", "series": "series", "booktitle": "booktitle",
    "volume": "volume", "number": "number", "eventtitle": "eventtitle", "language": "language", "langid": "langid",
    "school": "school", "institution": "institution", "organization": "organization",
}  # fmt: skip
"""What an entry takes from the one that it names by `crossref`, and under which name (biblatex manual, appendix B)."""
_ROLES = {
    "author": CreatorRole.AUTHOR,
    "editor": CreatorRole.EDITOR,
    "translator": CreatorRole.TRANSLATOR,
    "bookauthor": CreatorRole.OTHER,
}
_PUBLISHERS = ("publisher", "institution", "school", "organization")
_TAGS = ("keywords", "keyword", "mendeley-tags")
_GROUPS = ("groups", "mendeley-groups")
_NOTES = ("note", "annote", "annotation", "addendum")
_TEXTS = {
    "title", "subtitle", "journal", "journaltitle", "journalsubtitle", "booktitle", "booksubtitle", "eventtitle", "volume",
    "number", "issue", "pages", "eid", "language", "langid", "abstract", *_PUBLISHERS, *_TAGS, *_GROUPS, *_NOTES,
}  # fmt: skip
_KEPT = {
    *_TEXTS, *_ROLES, "year", "month", "date", "doi", "isbn", "issn", "url", "howpublished", "eprint", "archiveprefix",
    "eprinttype", "file", "pdf", "crossref", "xdata",
}  # fmt: skip
"""Fields that are read below; whatever else an entry says is left out by name."""
_BLOCK = re.compile(r"@[A-Za-z]+\s*[{(]")
_CROSSREF = re.compile(r"\b(?:crossref|xdata)\s*=\s*[{\"]([^}\"]+)", re.IGNORECASE)
_PIECE_CHARACTERS = 256 * 1024
_PASSED_ON = {*_INHERITED_AS, "crossref", "xdata"}
_WAITING_CHARACTERS_MAX = 16 * 1024 * 1024
"""Of entries that wait for the one that they inherit from; where there are more, the one must stand before them."""
_PARENTS_MAX = 10
"""So many entries one may inherit from, over all generations."""
_FIELD_LIKE = re.compile(r"=\s*[{\"]")
_NAMED_PART = re.compile(r"\s*(family|given|prefix|suffix)(?:-i)?\s*=\s*", re.IGNORECASE)
_BARE = re.compile(r'[^\s#{"]+')
_DELIMITER = re.compile(r'(?<!\\)[{}"]')
_SEMICOLON = re.compile(r"(?<!\\);")
_COLON = re.compile(r"(?<!\\):(?!//)")
_FILE_ESCAPE = re.compile(r"\\([:;\\])")
_HTTP = re.compile(r"https?://[^\s{}]+")
_DASHES = re.compile(r"\s*(?:-{1,3}|\u2013|\u2014)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One entry; `fields` by their names in small letters, as they are written, the first of each."""

    key: str
    entry_type: str
    line: int
    fields: dict[str, str]
    remarks: tuple[Remark, ...] = ()


def scan(index: ScanIndex, path: str) -> None:
    """Adds every entry. Raises SourceUnreadable when there is none."""
    reader = _Reader(index, path)
    if_none = SourceUnreadable("bibtex_without_entries", "there is no entry in it that can be read")
    take_each(index, path, reader.entries(), reader.take, unit="entry", if_none=if_none)
    reader.take_waiting()
    name_left_out(index, reader.left_out)


class _Reader:
    def __init__(self, index: ScanIndex, path: str) -> None:
        self._index = index
        self._path = path
        self._macros = dict(_MONTHS)
        self._keys: set[str] = set()
        self._parents: dict[str, dict[str, str]] = {}
        self._named_as_parent: set[str] = set()
        self._waiting: list[_Entry] = []
        self._waiting_characters = 0
        self.left_out: Counter[str] = Counter()

    # --- entries ---------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[_Entry]:
        """In their order; what is damaged is rejected by its line. Raises SourceUnreadable."""
        self._find_parents()
        for first_line, text in self._pieces():
            was_damaged = False
            for block in parse_string(text, parse_stack=()).blocks:
                line = first_line + (block.start_line or 0)
                if isinstance(block, String):
                    self._macros[block.key.casefold()] = self._value(block.value)[
                        : limits.FIELD_CHARACTERS_MAX
                    ]
                elif (found := _entry(block, line, self._path)) is not None:
                    yield found
                elif isinstance(block, ParsingFailedBlock):
                    self._reject(line, block)
                elif isinstance(block, ImplicitComment) and not was_damaged:
                    self._warn_text(line, block.comment)
                # Words behind a damaged entry are its rest.
                was_damaged = isinstance(block, ParsingFailedBlock)

    def _find_parents(self) -> None:
        with open_export(self._index, self._path) as file:
            for line in lines_of(file):
                for found in _CROSSREF.finditer(line):
                    if len(self._named_as_parent) < limits.ITEMS_MAX:
                        self._named_as_parent.update(key.strip().casefold() for key in found[1].split(","))

    def _pieces(self) -> Iterator[tuple[int, str]]:
        """Whole blocks, with the number of their first line. To bibtexparser too a line may begin a block anywhere."""
        lines: list[str] = []
        length, first = 0, 1
        with open_export(self._index, self._path, is_again=True) as file:
            for number, line in enumerate(lines_of(file), start=1):
                if length > _PIECE_CHARACTERS and _BLOCK.match(line):
                    yield first, "\n".join(lines)
                    lines, length, first = [], 0, number
                length += len(line) + 1
                lines.append(line)
                if length > limits.ITEM_CHARACTERS_MAX + _PIECE_CHARACTERS:
                    message = f"an entry has over {limits.ITEM_CHARACTERS_MAX} characters, or its braces never close"
                    raise SourceUnreadable("bibtex_damaged", message, f"line {first}")
        yield first, "\n".join(lines)

    def _reject(self, line: int, block: ParsingFailedBlock) -> None:
        said = one_line(getattr(block.error, "abort_reason", "") or type(block.error).__name__, 200)
        message = f"the entry is damaged ({said}); its neighbours were read"
        reason = DocumentRejectionReason.ITEM_INVALID
        self._index.reject(Rejection(item=f"{self._path}: line {line}", reason=reason, message=message))

    def _warn_text(self, line: int, text: str) -> None:
        if not _FIELD_LIKE.search(text):
            return  # a program's greeting, a remark
        message = "between two entries stands what looks like one, but does not begin with an @"
        subject = f"{self._path}: line {line}"
        self._index.warn(Remark(code="text_not_read", subject=subject[:300], message=message))

    # --- inheritance -----------------------------------------------------------------------------------------------

    def take(self, entry: _Entry, _number: int) -> None:
        key = entry.key.casefold()
        if key in self._keys:
            message = f"an entry before it has the key {one_line(entry.key, 200)} too"
            remark = Remark(
                code="key_twice", subject=f"{self._path}: line {entry.line}"[:300], message=message
            )
            entry = replace(entry, remarks=(*entry.remarks, remark))
        self._keys.add(key)
        fields = {name: self._value(value) for name, value in entry.fields.items()}
        entry = replace(entry, fields=fields)
        is_xdata = entry.entry_type == "xdata"
        if key in self._named_as_parent:
            told = {name: value for name, value in fields.items() if is_xdata or name in _PASSED_ON}
            self._parents.setdefault(key, told)
        if is_xdata:
            return  # It holds fields for others, and is no work.
        if not any(self._parents_of(fields)):
            self._add(entry)
            return
        self._waiting.append(entry)
        self._waiting_characters += sum(len(value) for value in fields.values())
        if self._waiting_characters > _WAITING_CHARACTERS_MAX:
            self.take_waiting()

    def take_waiting(self) -> None:
        """Entries that inherit: BibTeX wants the one that they name behind them."""
        for entry in self._waiting:
            self._add(self._inherited(entry))
        self._waiting.clear()
        self._waiting_characters = 0

    def _inherited(self, entry: _Entry) -> _Entry:
        """With what it takes from the entries that it names, and from those that they name."""
        fields = dict(entry.fields)
        remarks = list(entry.remarks)
        asked = list(islice(self._parents_of(fields), _PARENTS_MAX))
        for name, is_whole in asked:
            parent = self._parents.get(name)
            if parent is None:
                message = "the entry that it inherits from is not in this file"
                remarks.append(Remark(code="crossref_missing", subject=name[:300], message=message))
                continue
            for field, value in parent.items():
                if as_named := field if is_whole else _INHERITED_AS.get(field):
                    fields.setdefault(as_named, value)
            # The list grows as it is walked, and each is asked once.
            more = [one for one in self._parents_of(parent) if one not in asked]
            asked.extend(more[: _PARENTS_MAX - len(asked)] if len(asked) < _PARENTS_MAX else ())
        return replace(entry, fields=fields, remarks=tuple(remarks))

    def _parents_of(self, fields: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
        """Their keys, and whether all of their fields are taken as they are."""
        for field, is_whole in (("crossref", False), ("xdata", True)):
            for key in fields.get(field, "").split(","):
                if key.strip():
                    yield key.strip().casefold(), is_whole

    # --- values ----------------------------------------------------------------------------------------------------

    def _value(self, raw: str) -> str:
        """What stands in braces or quotes, and what macros stand for, joined where `#` joins them."""
        pieces: list[str] = []
        at = length = 0
        while at < len(raw) and length <= limits.ITEM_CHARACTERS_MAX:
            character = raw[at]
            if character.isspace() or character == "#":
                at += 1
            elif character in '{"':
                end = _closing(raw, at)
                pieces.append(raw[at + 1 : end])
                at = end + 1
            else:
                word = _BARE.match(raw, at)
                assert word is not None
                pieces.append(self._macros.get(word[0].casefold(), word[0]))
                length += len(pieces[-1])
                at = word.end()
        return "".join(pieces)

    def _add(self, entry: _Entry) -> None:
        fields = {name: value for name, value in entry.fields.items() if value.strip()}
        self.left_out.update(fields.keys() - _KEPT)
        name = f"{self._path}: line {entry.line}" + (f" ({one_line(entry.key, 200)})" if entry.key else "")
        text = {field: tex_to_text(value) for field, value in fields.items() if field in _TEXTS}
        creators, remarks = _creators(fields, name)
        date = _date(fields)
        url = _url(fields)
        attached = attach(self._index, self._path.rpartition("/")[0], _files(fields))
        item = Item(
            name=name,
            item_type=_TYPES.get(entry.entry_type, "document"),
            title=_joined(text, "title", "subtitle"),
            creators=creators,
            year=find_year(date),
            date=date,
            doi=find_doi(unescaped(fields.get("doi", ""))) or find_doi(url),
            isbns=find_isbns(fields.get("isbn", "")),
            issns=find_issns(fields.get("issn", "")),
            uri=url if url.startswith(("http://", "https://")) else "",
            url=url,
            venue=_joined(text, "journaltitle", "journalsubtitle")
            or text.get("journal", "")
            or _joined(text, "booktitle", "booksubtitle")
            or text.get("eventtitle", ""),
            volume=text.get("volume", ""),
            issue=text.get("number", "") or text.get("issue", ""),
            pages=_DASHES.sub("-", text.get("pages", "")) or text.get("eid", ""),
            publisher=next((text[one] for one in _PUBLISHERS if text.get(one)), ""),
            language=text.get("langid", "") or text.get("language", ""),
            abstract=text.get("abstract", ""),
            tags=tuple(Tag(name=tag) for field in _TAGS for tag in _listed(text.get(field, ""))),
            collections=tuple(one for field in _GROUPS for one in _listed(text.get(field, ""))),
            notes=tuple(text[field] for field in _NOTES if text.get(field)),
            attachments=attached.attachments,
            bodies=attached.bodies,
            warnings=(*entry.remarks, *remarks, *attached.warnings),
        )
        add_or_reject(self._index, item)


def _entry(block: Block, line: int, path: str) -> _Entry | None:
    remarks: list[Remark] = []
    if isinstance(block, DuplicateBlockKeyBlock):
        block = block.ignore_error_block or block  # we look at keys ourselves, over the whole file
    if isinstance(block, DuplicateFieldKeyBlock):
        message = f"{', '.join(sorted(block.duplicate_keys))}: the first was taken"
        remarks.append(
            Remark(code="field_twice", subject=f"{path}: line {line}"[:300], message=message[:300])
        )
        block = block.ignore_error_block or block
    if not isinstance(block, Entry):
        return None
    fields: dict[str, str] = {}
    for one in block.fields:
        fields.setdefault(one.key.casefold(), str(one.value))
    kind = block.entry_type.casefold()
    return _Entry(key=block.key, entry_type=kind, line=line, fields=fields, remarks=tuple(remarks))


def _closing(raw: str, at: int) -> int:
    """Where what opens at `at` closes, or the end of the text."""
    depth = 0
    quoted = raw[at] == '"'
    for mark in _DELIMITER.finditer(raw, at + 1):
        if mark[0] == "{":
            depth += 1
        elif mark[0] == "}":
            depth -= 1
            if depth < 0 and not quoted:
                return mark.start()
        elif quoted and depth <= 0:
            return mark.start()
    return len(raw)


def _joined(text: Mapping[str, str], title: str, subtitle: str) -> str:
    return ": ".join(part for part in (text.get(title, ""), text.get(subtitle, "")) if part)


def _listed(text: str) -> Iterator[str]:
    for one in text.split(";" if ";" in text else ","):
        if one.strip():
            yield one.strip()


def _date(fields: Mapping[str, str]) -> str:
    """`date` as BibLaTeX has it, or year and month."""
    if date := tex_to_text(fields.get("date", "")):
        return date
    year, month = tex_to_text(fields.get("year", "")), tex_to_text(fields.get("month", ""))
    number = _MONTHS.get(month[:3].casefold()) or (month.zfill(2) if month.isdecimal() else "")
    return f"{year}-{number}" if year and number else year


def _url(fields: Mapping[str, str]) -> str:
    if url := unescaped(fields.get("url", "")).strip():
        return url.removeprefix("\\url{").removesuffix("}")
    if found := _HTTP.search(unescaped(fields.get("howpublished", ""))):
        return found[0]
    archive = fields.get("eprinttype", "") or fields.get("archiveprefix", "")
    eprint = fields.get("eprint", "").strip()
    return f"https://arxiv.org/abs/{eprint}" if archive.strip().casefold() == "arxiv" and eprint else ""


# --- people --------------------------------------------------------------------------------------------------------


def _creators(fields: Mapping[str, str], item: str) -> tuple[tuple[Creator, ...], tuple[Remark, ...]]:
    creators: list[Creator] = []
    remarks: list[Remark] = []
    for field, role in _ROLES.items():
        names = split_multiple_persons_names(
            one_line(fields.get(field, ""), limits.FIELD_CHARACTERS_MAX * 50)
        )
        remarks.extend(others_remark(names, item))
        creators.extend(_person(name, role) for name in names if name.strip().casefold() != "others")
    return tuple(one for one in creators if one.family), tuple(remarks)


def _person(name: str, role: CreatorRole) -> Creator:
    """Von, last, first and Jr as BibTeX divides them; braces keep an institution whole."""
    if _NAMED_PART.match(name):
        parts = {
            key.strip().casefold().removesuffix("-i"): tex_to_text(value)
            for key, _, value in (part.partition("=") for part in name.split(","))
        }
        family = " ".join(filter(None, (parts.get("prefix", ""), parts.get("family", ""))))
        given = ", ".join(filter(None, (parts.get("given", ""), parts.get("suffix", ""))))
        return Creator(family=family or given, given=given if family else "", role=role)
    try:
        divided = parse_single_name_into_parts(name, strict=False)
    except InvalidNameError:
        return Creator(family=tex_to_text(name), role=role)
    family = tex_to_text(" ".join((*divided.von, *divided.last)))
    given = ", ".join(filter(None, (tex_to_text(" ".join(part)) for part in (divided.first, divided.jr))))
    return Creator(family=family or given, given=given if family else "", role=role)


# --- files ---------------------------------------------------------------------------------------------------------


def _files(fields: Mapping[str, str]) -> Iterator[str]:
    """Paths in `file`: alone, or as `description:path:type`, divided by semicolons (Zotero, JabRef, Mendeley)."""
    for field in ("file", "pdf"):
        for one in _SEMICOLON.split(unescaped(fields.get(field, ""))):
            parts = _COLON.split(one)
            path = ":".join(parts[1:-1]) if len(parts) > 2 else max(parts, key=len)
            yield _FILE_ESCAPE.sub(r"\1", path).strip()
