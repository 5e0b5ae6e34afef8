"""Sections and chunks of a body of text. Pure: the same text gives the same chunks, character for character.

A section is a parent and holds no text of its own; a chunk belongs to one section. Sections divide the body without
gap or overlap, chunks cover their section with an overlap, so every character of the body lies in some chunk:
text before the first heading, a short tail and a paragraph without an end included (BASELINE.md section 10).

Tokens are estimated at four bytes of UTF-8 each: counting them exactly takes 800 µs a chunk, more than all the rest
of the pipeline (docs/decisions/0009). That is right within a quarter for English, and on the safe side elsewhere.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from eventlog.events import SectionKind
from ingest import limits

CHUNKER_VERSION = "1"
"""Part of every chunk's id: a change of anything here that moves a boundary needs a new one."""

BYTES_PER_TOKEN = 4

_KINDS = {
    SectionKind.ABSTRACT: ("abstract", "summary", "zusammenfassung", "résumé", "resumen", "초록", "摘要"),
    SectionKind.INTRODUCTION: ("introduction", "einleitung", "einführung", "서론", "引言", "introducción"),
    SectionKind.BACKGROUND: ("background", "theoretical background", "theory", "preliminaries", "hintergrund"),
    SectionKind.LITERATURE_REVIEW: ("literature review", "related work", "previous work", "state of the art"),
    SectionKind.METHODOLOGY: (
        "method", "methods", "methodology", "materials and methods", "methods and materials", "experimental setup",
        "study design", "data and methods", "methoden", "approach", "experiments",
    ),
    SectionKind.RESULTS: ("results", "findings", "results and discussion", "ergebnisse", "evaluation", "결과"),
    SectionKind.DISCUSSION: ("discussion", "general discussion", "diskussion", "limitations", "논의"),
    SectionKind.CONCLUSION: (
        "conclusion", "conclusions", "concluding remarks", "conclusion and future work", "future work", "fazit", "결론",
    ),
    SectionKind.REFERENCES: ("references", "bibliography", "works cited", "literature cited", "literatur", "참고문헌"),
    SectionKind.APPENDIX: ("appendix", "appendices", "supplementary material", "supporting information", "anhang"),
    SectionKind.ACKNOWLEDGMENTS: ("acknowledgments", "acknowledgements", "acknowledgment", "funding", "danksagung"),
}  # fmt: skip
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_NUMBERED = re.compile(
    r"(?P<number>(?:\d{1,2}\.){0,3}\d{1,2}|[IVX]{1,5})[.)]?[ \t]+(?P<title>[^\W\d_].{1,90})"
)
_MARKDOWN = re.compile(r"(?P<marks>#{1,6})[ \t]+(?P<title>.{1,100}?)[ \t]*#*")
_APPENDIX = re.compile(r"appendix(\s+[A-Z0-9])?([.:].*)?", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?;,]$|[.!?] [A-Z]")
_TABLE = re.compile(r"(table|tabelle|표)\s+\d+\s*[.:]", re.IGNORECASE)


_ENDS = tuple(
    tuple(end.encode() for end in ends)
    for ends in (
        ("\n\n",),
        (". ", ".\n", "? ", "?\n", "! ", "!\n", "。", "！", "？", "؟ ", "۔ ", "।"),  # noqa: RUF001 - punctuation of other scripts is meant
        ("\n", "; ", "；", "、", "，"),  # noqa: RUF001 - punctuation of other scripts is meant
        (" ", "\t", "\u3000"),
    )
)
"""Strongest first: paragraphs, sentences, lines and clauses, words."""
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    start: int
    title: str
    kind: SectionKind
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySection:
    """`start` to `end` of the body, heading included; `parent` is an index into the list, or null."""

    start: int
    end: int
    title: str
    kind: SectionKind
    parent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    start: int
    end: int


def estimate_tokens(text: str) -> int:
    return max(1, -(-len(text.encode()) // BYTES_PER_TOKEN))


def told_heading(start: int, title: str, depth: int) -> Heading:
    """One that the format itself calls a heading; `depth` from 1."""
    return Heading(start=start, title=title, kind=_kind(title), depth=depth)


def find_headings(body: str) -> Iterator[Heading]:
    """Known names, numbered titles and Markdown's marks, on a line of their own."""
    at = 0
    for line in body.split("\n"):
        text = line.strip()
        if 3 <= len(text) <= 100 and (found := _heading(text)):
            title, kind, depth = found
            yield Heading(start=at, title=title, kind=kind, depth=depth)
        at += len(line) + 1


def _heading(text: str) -> tuple[str, SectionKind, int] | None:
    if mark := _MARKDOWN.fullmatch(text):
        return mark["title"], _kind(mark["title"]), len(mark["marks"])
    if text.rstrip(".:").casefold() in _KIND_OF:
        return text.rstrip(".:"), _kind(text), 1
    if _APPENDIX.fullmatch(text):
        return text, SectionKind.APPENDIX, 1
    if (number := _NUMBERED.fullmatch(text)) and not _SENTENCE.search(number["title"]):
        title = number["title"].strip()
        kind = _kind(title)
        # "2 patients were excluded" is no heading: a number alone needs a capital and few words.
        if kind is not SectionKind.OTHER or (
            (title[0].isupper() or not title[0].isascii()) and len(title.split()) <= 10
        ):
            return title, kind, number["number"].count(".") + 1
    return None


def _kind(title: str) -> SectionKind:
    name = title.strip().rstrip(".:").casefold()
    if _TABLE.match(title):
        return SectionKind.TABLE
    return _KIND_OF.get(name, SectionKind.OTHER)


def divide(body: str, told: Sequence[Heading] = ()) -> list[BodySection]:
    """Sections that cover the body; the first has no title when the text does not begin with a heading.

    `told` are the headings where the format knows them, in their order; otherwise they are looked for.
    """
    headings = list(told or find_headings(body))[: limits.SECTIONS_MAX]
    sections: list[BodySection] = []
    if not headings or body[: headings[0].start].strip():
        end = headings[0].start if headings else len(body)
        sections.append(BodySection(start=0, end=end, title="", kind=SectionKind.OTHER, parent=None))
    elif headings:
        headings[0] = replace(headings[0], start=0)
    path: list[tuple[int, int]] = []
    for number, heading in enumerate(headings):
        end = headings[number + 1].start if number + 1 < len(headings) else len(body)
        while path and path[-1][0] >= heading.depth:
            path.pop()
        parent = path[-1][1] if path else None
        sections.append(
            BodySection(start=heading.start, end=end, title=heading.title, kind=heading.kind, parent=parent)
        )
        path.append((heading.depth, len(sections) - 1))
    return [section for section in sections if section.end > section.start or len(sections) == 1]


def split(text: str) -> list[Span]:
    """Spans of at most `CHUNK_BYTES` of UTF-8; every character is in one, but for white space that would fill a chunk.

    Each ends where a paragraph, a sentence, a line or a word does, if one ends in its last third, and begins with the
    end of the one before it, two thirds of `CHUNK_OVERLAP_BYTES` or more. Lone surrogates must have been cleaned away.
    """
    data = text.encode()
    spans: list[Span] = []
    start_byte = start = 0
    while len(data) - start_byte > limits.CHUNK_BYTES:
        high = start_byte + limits.CHUNK_BYTES
        end_byte = _boundary(data, high - limits.CHUNK_BYTES // 3, high)
        spans.append(Span(start=start, end=start + _length(data, start_byte, end_byte)))
        next_byte = _boundary(
            data, end_byte - limits.CHUNK_OVERLAP_BYTES, end_byte - limits.CHUNK_OVERLAP_BYTES * 2 // 3
        )
        start += _length(data, start_byte, next_byte)
        start_byte = next_byte
    spans.append(Span(start=start, end=len(text)))
    return [span for span in spans if text[span.start : span.end].strip()]


def _length(data: bytes, start_byte: int, end_byte: int) -> int:
    return len(data[start_byte:end_byte].decode())


def _boundary(data: bytes, low: int, high: int) -> int:
    """Where the last of the strongest kind of end lies between two offsets, or else the last whole character."""
    for ends in _ENDS:
        if (found := max(data.rfind(end, low, high) + len(end) for end in ends)) > low:
            return found
    return _character_boundary(data, low, high)


def _character_boundary(data: bytes, low: int, high: int) -> int:
    """Not within a character, nor between a letter and its marks, as far as `low`."""
    whole = cut = _character_start(data, high)
    while cut > low:
        following = data[cut : cut + 4].decode(errors="ignore")[:1]
        if following != _JOINER and unicodedata.category(following)[0] != "M":
            return cut
        cut = _character_start(data, cut - 1)
    return whole


def _character_start(data: bytes, at: int) -> int:
    while data[at] & 0b1100_0000 == 0b1000_0000:
        at -= 1
    return at


def pages_of(span: Span, page_starts: Sequence[int]) -> tuple[int | None, int | None]:
    """First and last page, counted from 1; nulls when the text has no pages."""
    if not page_starts:
        return None, None
    last = max(span.start, span.end - 1)
    return bisect_right(page_starts, span.start) or 1, bisect_right(page_starts, last) or 1
