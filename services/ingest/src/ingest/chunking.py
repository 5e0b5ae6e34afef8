"""Sections and chunks of a body of text. Pure: the same text gives the same chunks, character for character.

A section is a parent and holds no text of its own; a chunk belongs to one section. Sections divide the body without
gap or overlap, chunks cover their section with an overlap, so every character of the body lies in some chunk:
text before the first heading, a short tail and a paragraph without an end included (BASELINE.md section 10).

Tokens are estimated at four bytes of UTF-8 each: counting them exactly takes 800 µs a chunk, more than all the rest
of the pipeline (docs/decisions/0009). That is right within a quarter for English, and on the safe side elsewhere.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from semantic_text_splitter import TextSplitter

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


def divide(body: str) -> list[BodySection]:
    """Sections that cover the body; the first has no title when the text does not begin with a heading."""
    headings = list(find_headings(body))[: limits.SECTIONS_MAX]
    sections: list[BodySection] = []
    if not headings or body[: headings[0].start].strip():
        end = headings[0].start if headings else len(body)
        sections.append(BodySection(start=0, end=end, title="", kind=SectionKind.OTHER, parent=None))
    elif headings:
        headings[0] = Heading(
            start=0, title=headings[0].title, kind=headings[0].kind, depth=headings[0].depth
        )
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


@lru_cache(maxsize=64)
def _splitter(capacity: int, overlap: int) -> TextSplitter:
    return TextSplitter(capacity, overlap, trim=False)


def split(text: str) -> list[Span]:
    """Spans of about `CHUNK_BYTES`, at paragraph, sentence or word ends where there are some; they cover the text.

    A span of white space alone joins its neighbour, since no model can do anything with it.
    """
    if not text.strip():
        return []
    size = len(text.encode())
    if size <= limits.CHUNK_BYTES:
        return [Span(start=0, end=len(text))]
    # Steps of 25 keep the number of splitters small while scripts mix.
    capacity = max(200, round(limits.CHUNK_BYTES * len(text) / size / 25) * 25)
    overlap = capacity * limits.CHUNK_OVERLAP_BYTES // limits.CHUNK_BYTES
    spans: list[Span] = []
    for start, piece in _splitter(capacity, overlap).chunk_indices(text):
        end = start + len(piece)
        if spans and (not text[spans[-1].end : end].strip() or not piece.strip()):
            spans[-1] = Span(start=spans[-1].start, end=max(end, spans[-1].end))
        else:
            spans.append(Span(start=start if spans else 0, end=end))
    return [one for span in spans for one in _short(span)]


def _short(span: Span) -> Iterator[Span]:
    """Cuts what no boundary ended, such as a long run of blanks that joined its neighbours."""
    for start in range(span.start, span.end, limits.CHUNK_CHARACTERS_MAX):
        yield Span(start=start, end=min(start + limits.CHUNK_CHARACTERS_MAX, span.end))


def pages_of(span: Span, page_starts: Sequence[int]) -> tuple[int | None, int | None]:
    """First and last page, counted from 1; nulls when the text has no pages."""
    if not page_starts:
        return None, None
    return bisect_right(page_starts, span.start) or 1, bisect_right(
        page_starts, max(span.start, span.end - 1)
    ) or 1
