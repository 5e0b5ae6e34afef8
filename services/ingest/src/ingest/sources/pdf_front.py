"""What a lone PDF says of itself: by its metadata, and where these are silent or junk, by its first pages.

Metadata name the program as often as the paper, so they are believed only where they look like a title or a person.
"""

import re
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import pypdfium2
from pypdfium2 import raw

from eventlog.events import Creator
from ingest.chunking import find_headings
from ingest.cleaning import clean, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.item import BodyUnreadable, Item, Rejection, find_doi, find_dois, find_year
from ingest.sources.pdf import opened, page_text

_ABSTRACT = re.compile(
    r"^[ \t]{0,40}(?:(?:abstract|a b s t r a c t|summary|zusammenfassung|kurzfassung|résumé|resumen)\b|"
    r"(?:국문 ?)?초 ?록|(?:국문 ?)?요 ?약|[【\[]?摘[ \u3000]?要|(?:ال)?(?:ملخص|مستخلص)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_AFTER_ABSTRACT = re.compile(
    r"\n\s{0,20}(?:keywords?|key words|index terms|schlüsselwörter|introduction|(?:1|i)[.\s]{1,5}introduction|"
    r"(?:1[.\s]{1,5})?einleitung|schlagwörter|stichwörter|ccs concepts|jel)\b|"
    r"\n\s{0,20}[.【\[]?(?:[1I\u2160一\u0661][.、\s]{0,5})?(?:주제어|핵심어|키워드|서 ?론|关键词|关键字|關鍵詞|關鍵字|引 ?言|绪 ?论|緒 ?論|前 ?言|"
    r"(?:ال)?كلمات (?:ال)?(?:مفتاحية|دالة)|(?:ال)?مقدمة)",
    re.IGNORECASE,
)
_JUNK_TITLE = re.compile(
    r"^(untitled|microsoft word|document\d*|.*\.(docx?|tex|dvi|pdf|qxd|indd|rtf|odt)$|\W*$)", re.IGNORECASE
)
_JUNK_AUTHOR = re.compile(
    r"\W*(anonymous|unspecified|unknown|author|admin(istrator)?|user|owner|root|guest|scanner)\W*",
    re.IGNORECASE,
)
_PERSON = re.compile(r"[^\W\d_][^\d@()\[\]]{1,80}")
_NAME = re.compile(
    r"(?:(?:[^\W\d_a-z][\w.'\u2019-]*|van|von|de|der|den|da|di|la|le|el|al|bin|ten)\s+){1,4}[^\W\d_a-z][\w'\u2019-]+"
)
_NOTE_MARKS = re.compile(r"[\d*†‡§¶\u2217\u00b9\u00b2\u00b3\u2070-\u2079]+(?:,[\d*†‡§¶\u2217]+)*")
_DATED = re.compile(
    r"(?:©|\(c\)|copyright|published|accepted|arxiv:)[^\n]{0,40}?(?<!\d)(?P<year>(?:19|20)\d\d)(?!\.?\d)",
    re.IGNORECASE,
)
_STAMP = re.compile(r"arxiv:|https?://|doi\b|@", re.IGNORECASE)
_METADATA = ("Title", "Author", "Subject", "Keywords", "CreationDate")
ABSTRACT_CHARACTERS_MIN = 100
ABSTRACT_CHARACTERS_MAX = 2_000
ABSTRACT_SEARCHED_CHARACTERS = 4_100
FIRST_PAGES_CHARACTERS = 20_000
TITLE_SEARCHED_CHARACTERS = 2_500
TITLE_LETTERS_MIN = 10
TITLE_CHARACTERS_MAX = 300
AUTHOR_LINES_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Front:
    metadata: dict[str, str]
    large: str
    """What stands in the largest letters of the first page, if anything does."""
    first_page: str
    text: str


def identify(index: ScanIndex, path: str) -> None:
    """Adds a lone PDF as an item, or as a rejection."""
    local = index.local(path)
    assert local is not None
    sha256 = index.sha256(path)
    try:
        front = _read(local)
    except BodyUnreadable as error:
        index.reject(Rejection(item=path, reason=error.reason, message=str(error), file_sha256=sha256))
        return
    title = _title(front, path)
    index.add_item(
        Item(
            name=path,
            title=title,
            creators=_creators_told(front.metadata["Author"]) or _creators_seen(front.first_page, title),
            year=_year(front),
            doi=_doi(front),
            uri=f"sha256:{sha256}",
            abstract=_abstract(front.text),
            bodies=(path,),
        )
    )


def _read(path: Path) -> _Front:
    with opened(path) as document:
        metadata = {key: _metadata(document, key) for key in _METADATA}
        first = page_text(document, 0) or ""
        second = (page_text(document, 1) or "") if len(document) > 1 else ""
        return _Front(
            metadata=metadata,
            large=_largest(document),
            first_page=first,
            text=f"{first}\n{second}"[:FIRST_PAGES_CHARACTERS],
        )


def _metadata(document: pypdfium2.PdfDocument, key: str) -> str:
    try:
        return clean(str(document.get_metadata_value(key))).strip()
    except (pypdfium2.PdfiumError, UnicodeDecodeError):
        return ""


def _largest(document: pypdfium2.PdfDocument) -> str:
    """The first of the largest letters of the first page that are enough for a title; empty where all are of one size."""
    try:
        page = document[0]
        textpage = page.get_textpage()
    except pypdfium2.PdfiumError:
        return ""
    sizes = [
        (_size(textpage, at), at) for at in range(min(textpage.count_chars(), TITLE_SEARCHED_CHARACTERS))
    ]
    runs: list[tuple[float, str]] = []
    # Blanks and line ends that pdfium makes up have no size; they belong to what stands around them.
    for size, run in groupby((one for one in sizes if one[0]), key=lambda one: one[0]):
        places = [at for _, at in run]
        runs.append((size, clean(textpage.get_text_range(places[0], places[-1] - places[0] + 1))))
    textpage.close()
    page.close()
    smallest = min((size for size, _ in runs), default=0.0)
    for size, text in sorted(runs, key=lambda one: -one[0]):
        if size > smallest and (title := _as_title(text)):
            return title
    return ""


def _as_title(text: str) -> str:
    heading = next((one.start for one in find_headings(text) if one.start), len(text))
    title = one_line(text[:heading], 2 * TITLE_CHARACTERS_MAX)
    letters = _letters(title)
    is_title = letters >= TITLE_LETTERS_MIN and len(title) <= TITLE_CHARACTERS_MAX
    return title if is_title and not _STAMP.search(title) else ""


def _letters(text: str) -> int:
    """How much a line says; an ideograph or a Korean syllable as much as two letters and a half."""
    dense = sum("\u3400" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" for c in text)
    return sum(c.isalpha() for c in text) + dense * 3 // 2


def _size(textpage: pypdfium2.PdfTextPage, at: int) -> float:
    """In points as they are seen, to the half; 0 for what is not on the page."""
    matrix = raw.FS_MATRIX()
    if raw.FPDFText_IsGenerated(textpage.raw, at) == 1 or not raw.FPDFText_GetMatrix(
        textpage.raw, at, matrix
    ):
        return 0.0
    scale = float((matrix.c**2 + matrix.d**2) ** 0.5)
    return round(2 * scale * float(raw.FPDFText_GetFontSize(textpage.raw, at))) / 2


def _doi(front: _Front) -> str | None:
    """From the metadata, or the single one of the first page: a list of references names many."""
    for key in ("Subject", "Title", "Keywords"):
        if found := find_doi(front.metadata[key]):
            return found
    on_page = find_dois(front.first_page)
    return on_page[0] if len(on_page) == 1 else None


def _title(front: _Front, path: str) -> str:
    title = one_line(front.metadata["Title"], TITLE_CHARACTERS_MAX)
    if len(title) >= 5 and not _JUNK_TITLE.match(title) and not find_doi(title):
        return title
    if front.large:
        return front.large
    for line in front.first_page.split("\n")[:30]:
        text = one_line(line, 500)
        letters = _letters(text)
        is_long_enough = max(letters, len(text)) >= TITLE_LETTERS_MIN
        if is_long_enough and len(text) <= 200 and letters > len(text) // 2 and not _STAMP.search(text):
            return text
    return one_line(Path(path).stem.replace("_", " "), TITLE_CHARACTERS_MAX)


def _year(front: _Front) -> int | None:
    """What the first page says of its publication; else the year in which the file was made."""
    if found := _DATED.search(front.first_page):
        return int(found["year"])
    return find_year(front.metadata["CreationDate"].removeprefix("D:")[:4])


def _abstract(text: str) -> str:
    """From its heading to what comes next; two searches, since one pattern for both would take minutes on some pages."""
    for heading in islice(_ABSTRACT.finditer(text), 5):
        found = text[heading.end() : heading.end() + ABSTRACT_SEARCHED_CHARACTERS].lstrip(
            " \n\t.:\u2014-\uff1a\u3011]"
        )
        is_dense = _letters(found[:50]) > 50
        if end := _AFTER_ABSTRACT.search(
            found, ABSTRACT_CHARACTERS_MIN * 2 // 5 if is_dense else ABSTRACT_CHARACTERS_MIN
        ):
            return one_line(found[: end.start()], ABSTRACT_CHARACTERS_MAX)
    return ""


def _creators_told(author: str) -> tuple[Creator, ...]:
    """Names divided by semicolons, or by commas and "and" where these cannot be within a name."""
    author = one_line(author, 2_000)
    divider = r";" if ";" in author else r",|\band\b|&"
    names = [name.strip() for name in re.split(divider, author)]
    return tuple(
        _person(name) for name in names if _PERSON.fullmatch(name) and not _JUNK_AUTHOR.fullmatch(name)
    )


def _creators_seen(first_page: str, title: str) -> tuple[Creator, ...]:
    """The lines after the title, as long as they are names and nothing else."""
    lines = [one_line(line, 500) for line in first_page.split("\n")]
    after = next((at + 1 for at, line in enumerate(lines) if line and title.endswith(line)), None)
    found: list[Creator] = []
    for line in lines[after : after + AUTHOR_LINES_MAX] if after is not None else ():
        names = [name.strip() for name in re.split(r",|;|·|\band\b|\bund\b|&", _NOTE_MARKS.sub(" ", line))]
        names = [one_line(name, 100) for name in names if name]
        if not names or not all(_NAME.fullmatch(name) for name in names):
            break
        found.extend(_person(name) for name in names)
    return tuple(found)


def _person(name: str) -> Creator:
    if "," in name:
        family, given = name.split(",", 1)
        return Creator(family=family.strip(), given=given.strip())
    given, _, family = name.rpartition(" ")
    return Creator(family=family, given=given)
