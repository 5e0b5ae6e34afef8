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

CHUNKER_VERSION = "2"
"""Part of every chunk's id: a change of anything here that moves a boundary needs a new one."""

BYTES_PER_TOKEN = 4

_KINDS = {
    SectionKind.ABSTRACT: """
        abstract, summary, zusammenfassung, kurzfassung, résumé, resumen, 초록, 국문초록, 요약, 국문요약,
        摘要, 中文摘要, 内容摘要, 內容摘要, 提要, ملخص, مستخلص
    """,
    SectionKind.INTRODUCTION: """
        introduction, einleitung, einführung, introducción, 서론, 머리말, 들어가며, 들어가는 말,
        引言, 绪论, 緒論, 前言, 导论, 導論, 导言, مقدمة, تمهيد
    """,
    SectionKind.BACKGROUND: """
        background, theoretical background, theory, preliminaries, hintergrund, theoretischer hintergrund, theorie,
        배경, 이론적 배경, 연구 배경, 背景, 研究背景, 理论背景, 理論背景, 理论基础, خلفية, إطار نظري
    """,
    SectionKind.LITERATURE_REVIEW: """
        literature review, related work, previous work, state of the art, stand der forschung, forschungsstand,
        선행 연구, 문헌 고찰, 관련 연구, 文献综述, 文獻回顧, 相关研究, 相關研究, 相关工作, دراسات سابقة
    """,
    SectionKind.METHODOLOGY: """
        method, methods, methodology, materials and methods, methods and materials, experimental setup, study design,
        data and methods, approach, experiments, methode, methoden, methodik, material und methoden,
        방법, 연구 방법, 연구 설계, 재료 및 방법, 대상 및 방법, 실험, 실험 방법, 方法, 研究方法, 研究设计, 研究設計,
        材料与方法, 材料與方法, 材料和方法, 对象与方法, 對象與方法, 实验, 實驗, 实验方法, منهجية, منهج, منهجية البحث, منهج البحث, منهجية الدراسة,
        طرق, طريقة, طريقة البحث, مواد وطرق, إجراءات
    """,
    SectionKind.RESULTS: """
        results, findings, results and discussion, evaluation, ergebnisse, resultate, ergebnisse und diskussion,
        결과, 연구 결과, 실험 결과, 결과 및 고찰, 结果, 結果, 研究结果, 研究結果, 实验结果, 结果与分析, 结果与讨论, 結果與討論,
        نتائج, نتائج البحث, نتائج الدراسة, عرض النتائج, نتائج ومناقشة, النتائج والمناقشة
    """,
    SectionKind.DISCUSSION: """
        discussion, general discussion, limitations, diskussion, 논의, 고찰, 토의, 讨论, 討論, 分析与讨论, مناقشة, مناقشة النتائج
    """,
    SectionKind.CONCLUSION: """
        conclusion, conclusions, concluding remarks, conclusion and future work, future work, fazit, ausblick,
        schlussfolgerung, schlussfolgerungen, fazit und ausblick, zusammenfassung und ausblick,
        결론, 결론 및 제언, 맺음말, 나가며, 结论, 結論, 结语, 結語, 总结, 总结与展望, 结论与展望,
        خاتمة, خلاصة, استنتاج, استنتاجات, استنتاجات وتوصيات
    """,
    SectionKind.REFERENCES: """
        references, bibliography, works cited, literature cited, literatur, literaturverzeichnis, quellen,
        quellenverzeichnis, 참고문헌, 인용문헌, 参考文献, 參考文獻, 引用文献, مراجع, مصادر, قائمة المراجع, قائمة المصادر, مصادر ومراجع
    """,
    SectionKind.APPENDIX: """
        appendix, appendices, supplementary material, supporting information, anhang, anhänge, 부록, 附录, 附錄, ملحق, ملاحق
    """,
    SectionKind.ACKNOWLEDGMENTS: """
        acknowledgments, acknowledgements, acknowledgment, funding, danksagung, 감사의 글, 사사, 致谢, 致謝, 謝辭, شكر, شكر وتقدير
    """,
}
_NOT_SPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_ARABIC_MARKS = re.compile("[\u0640\u064b-\u065f\u0670\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a name does without: lengthening, vowel signs, and marks of direction."""
_ARABIC_ARTICLE = re.compile(r"(?<!\w)(\u0648?)\u0627\u0644(?=\w\w)")
_ALEFS = str.maketrans("\u0623\u0625\u0622", "\u0627\u0627\u0627")


def _name(title: str) -> str:
    """What a heading is called, whatever its case, blanks between syllables, brackets, article and vowel signs."""
    name = title.strip(" \t.:\uff1a\u3010\u3011[]\u3014\u3015").casefold()
    if _NOT_SPACED.search(name):
        return "".join(name.split())
    name = _ARABIC_ARTICLE.sub(r"\1", _ARABIC_MARKS.sub("", name)).translate(_ALEFS)
    return " ".join(name.split())


_KIND_OF = {_name(name): kind for kind, names in _KINDS.items() for name in names.split(",")}
_NUMBERED = re.compile(
    r"(?P<number>(?:\d{1,2}\.){0,3}\d{1,2}|[IVX]{1,5}|[\u2160-\u216b])(?P<mark>[.)]?)[ \t]+(?P<title>[^\W\d_].{1,90})"
)
_CHAPTER = re.compile(
    r"(?:\u7b2c ?[\u4e00-\u9fff\d]{1,3} ?[\u7ae0\u8282\u7bc0]|\uc81c ?\d{1,2} ?[\uc7a5\uc808]|[\uff08(]?[\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341]{1,3}[\u3001\uff0e.\uff09)])"
    r"[ \t\u3000]*(?P<title>[^\W\d_].{0,40})"
)
"""第一章 …, 제1장 …, 一、…, (二) …"""
_UNSPACED_NUMBER = re.compile(
    r"(?P<number>\d{1,2}(?:[.\uff0e]\d{1,2}){0,3})[.\uff0e\u3001]?[ \t\u3000]*(?P<title>[\u3400-\u9fff\uac00-\ud7a3].{0,40})"
)
"""1引言, 2、方法: taken for a heading by a known name only."""
_TURNED = re.compile(r"([.)])(\d{1,2}) (?=[\u0590-\u08ff])")
"""A number before right-to-left text as it comes out of a PDF: its mark first."""
_MARKDOWN = re.compile(r"(?P<marks>#{1,6})[ \t]+(?P<title>.{1,100}?)[ \t]*#*")
_APPENDIX = re.compile(r"(?:appendix|anhang)(\s+[A-Z0-9])?([.:].*)?", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?;,\u3002\uff01\uff1f\uff1b\uff0c\u061f\u061b\u060c]$|[.!?] [A-Z]|[\u3002\uff0c]")
_TABLE = re.compile(r"(?:(?:table|tabelle|جدول)\s+|[\ud45c\u8868]\s*)\d+\s*[.:\uff1a]?", re.IGNORECASE)


_ENDS = tuple(
    tuple(end.encode() for end in ends)
    for ends in (
        ("\n\n",),
        (". ", ".\n", "? ", "?\n", "! ", "!\n", "。", "！", "？", "؟ ", "؟\n", "۔ ", "।"),  # noqa: RUF001 - punctuation of other scripts is meant
        ("\n", "; ", "；", "、", "，", "؛ ", "، "),  # noqa: RUF001 - punctuation of other scripts is meant
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


_HEADING_LINE_CHARACTERS_MAX = 10_000
"""With the spaces around it; a body of one line is not copied to look."""


def find_headings(body: str) -> Iterator[Heading]:
    """Known names, numbered titles and Markdown's marks, on a line of their own."""
    at = 0
    while at < len(body):  # a list of the lines would be the body once more
        end = body.find("\n", at)
        end = len(body) if end < 0 else end
        text = body[at:end].strip() if end - at < _HEADING_LINE_CHARACTERS_MAX else ""
        if 2 <= len(text) <= 100 and (found := _heading(text)):
            title, kind, depth = found
            yield Heading(start=at, title=title, kind=kind, depth=depth)
        at = end + 1


def _heading(text: str) -> tuple[str, SectionKind, int] | None:
    text = _TURNED.sub(r"\2\1 ", text, count=1) if text[0] in ".)" else text
    if mark := _MARKDOWN.fullmatch(text):
        return mark["title"], _kind(mark["title"]), len(mark["marks"])
    if _name(text) in _KIND_OF:
        return text.rstrip(".:\uff1a"), _kind(text), 1
    if _APPENDIX.fullmatch(text):
        return text, SectionKind.APPENDIX, 1
    if (chapter := _CHAPTER.fullmatch(text)) and not _SENTENCE.search(chapter["title"]):
        return chapter["title"].strip(), _kind(chapter["title"]), 1
    if (number := _NUMBERED.fullmatch(text)) and not _SENTENCE.search(number["title"]):
        title = number["title"].strip()
        kind = _kind(title)
        if kind is not SectionKind.OTHER or _looks_like_a_title(title, number):
            return title, kind, number["number"].count(".") + 1
    if (number := _UNSPACED_NUMBER.fullmatch(text)) and _name(number["title"]) in _KIND_OF:
        depth = number["number"].replace("\uff0e", ".").count(".") + 1
        return number["title"].strip(), _kind(number["title"]), depth
    return None


def _looks_like_a_title(title: str, number: re.Match[str]) -> bool:
    """A number alone needs a capital, or where there are none a mark, and few words: "2 patients were excluded" is none."""
    first = title[0]
    has_case = first.lower() != first.upper()
    is_marked = bool(number["mark"]) or "." in number["number"]
    return (first.isupper() if has_case else is_marked) and len(title.split()) <= 10


def _kind(title: str) -> SectionKind:
    if _TABLE.match(title):
        return SectionKind.TABLE
    return _KIND_OF.get(_name(title), SectionKind.OTHER)


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


def split(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Spans of at most `CHUNK_BYTES` of UTF-8; every character is in one, but for white space that would fill a chunk.

    Each ends where a paragraph, a sentence, a line or a word does, if one ends in its last third, and begins with the
    end of the one before it, two thirds of `CHUNK_OVERLAP_BYTES` or more. Lone surrogates must have been cleaned away.
    """
    end = len(text) if end is None else end
    spans: list[Span] = []
    # A character has a byte or more; a body is as large as its text, so it is not encoded whole.
    while len(data := text[start : min(end, start + limits.CHUNK_BYTES + 1)].encode()) > limits.CHUNK_BYTES:
        high = limits.CHUNK_BYTES
        end_byte = _boundary(data, high - limits.CHUNK_BYTES // 3, high)
        spans.append(Span(start=start, end=start + _length(data, end_byte)))
        next_byte = _boundary(
            data, end_byte - limits.CHUNK_OVERLAP_BYTES, end_byte - limits.CHUNK_OVERLAP_BYTES * 2 // 3
        )
        start += _length(data, next_byte)
    spans.append(Span(start=start, end=end))
    return [span for span in spans if text[span.start : span.end].strip()]


def _length(data: bytes, end_byte: int) -> int:
    return len(data[:end_byte].decode())


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
