"""Every character of a body is in some chunk, whatever the body: no heading, no blank, no end, any script."""

import random
import unicodedata
from itertools import pairwise

import pytest

from eventlog.events import SectionKind
from ingest import limits
from ingest.chunking import Span, divide, estimate_tokens, pages_of, split
from ingest.cleaning import clean

SEEDS = range(60)
SENTENCE = "Marsh sediments hold most of the carbon below one metre, and have for a thousand years. "
BODIES = {
    "empty": "",
    "blank": " \n\t\n ",
    "short": "A tail.",
    "no heading": SENTENCE * 80,
    "one paragraph of a book": SENTENCE.replace(". ", ", ") * 4_000,
    "no white space": "x" * 20_000,
    "no white space, two bytes each": "ж" * 9_999,
    "chinese": "盐沼的沉积物在一米以下储存了大部分碳\u3002" * 700,
    "chinese without punctuation": "盐沼沉积物储存碳" * 1_500,
    "emoji with joiners": "👩‍🔬👨‍👩‍👧‍👦" * 900,
    "marks upon marks": ("a" + "\u0301\u0323" * 40) * 90,
    "marks alone": "\u0301" * 5_000,
    "hebrew with points": "בְּרֵאשִׁית בָּרָא אֱלֹהִים " * 500,
    "text before the first heading": SENTENCE * 40 + "\n1 Introduction\n" + SENTENCE * 40,
    "heading upon heading": "1 Introduction\n1.1 Background\n1.1.1 History\n" + SENTENCE,
    "headings alone": "# One\n## Two\n### Three\n" * 300,
    "a short tail": SENTENCE * 40 + "\nReferences\nSmith.",
    "blanks between": SENTENCE * 10 + " " * 700 + SENTENCE * 30,
    "no last line end, tabs": "\t".join(["0.25", "1.75", "n.s."] * 2_000),
    "control characters and lone surrogates": clean("a\x00b\ud800c\x1bd\ufffe " * 3_000),
    "line ends of all kinds": clean("one\r\ntwo\rthree\x0cfour\x0bfive\n" * 2_000),
}
ALPHABETS = (
    "abc de. f\n",
    "абв \n.",
    "漢字\u3002仮名\n",
    "e\u0301a\u0323 ",
    "👩\u200d🔬😀 \n",
    "# 1\nResults\n xyz",
    "\u0e01\u0e31\u0e19",
)


def chunks_of(body: str) -> list[Span]:
    """As `document` makes them, but for sections too short to stand alone."""
    return [
        Span(start=section.start + span.start, end=section.start + span.end)
        for section in divide(body)
        for span in split(body[section.start : section.end])
    ]


def assert_covered(body: str) -> None:
    spans = chunks_of(body)
    covered = bytearray(len(body))
    for span in spans:
        assert 0 <= span.start < span.end <= len(body)
        text = body[span.start : span.end]
        assert text.strip()
        assert len(text.encode()) <= limits.CHUNK_BYTES
        covered[span.start : span.end] = b"\x01" * (span.end - span.start)
    lost = [at for at, is_in in enumerate(covered) if not is_in and not body[at].isspace()]
    assert not lost, f"{len(lost)} characters are in no chunk, the first at {lost[0]}"
    assert [span.start for span in spans] == sorted(span.start for span in spans)


@pytest.mark.parametrize("name", BODIES)
def test_every_character_is_in_some_chunk(name: str) -> None:
    assert_covered(BODIES[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_character_of_a_random_body_is_in_some_chunk(seed: int) -> None:
    chance = random.Random(seed)
    parts = []
    for _ in range(chance.randint(1, 12)):
        alphabet = chance.choice(ALPHABETS)
        parts.append("".join(chance.choices(alphabet, k=chance.choice((1, 30, 700, 5_000)))))
    assert_covered(clean("\n\n".join(parts)))


def test_white_space_is_covered_too_unless_it_would_fill_a_chunk() -> None:
    body = SENTENCE * 30 + "\n\n\n" + " " * 300 + SENTENCE * 30
    covered = {at for span in chunks_of(body) for at in range(span.start, span.end)}
    assert covered == set(range(len(body)))


def test_a_chunk_begins_with_the_end_of_the_one_before() -> None:
    spans = split(SENTENCE * 200)
    assert len(spans) > 5
    for before, after in pairwise(spans):
        assert limits.CHUNK_OVERLAP_BYTES // 2 <= before.end - after.start <= limits.CHUNK_OVERLAP_BYTES


def test_a_chunk_ends_at_a_paragraph_if_one_ends_near() -> None:
    paragraph = SENTENCE * 6 + "\n\n"
    text = paragraph * 30
    assert all(text[: span.end].endswith("\n\n") for span in split(text))


def test_a_chunk_ends_at_a_sentence_if_no_paragraph_ends_near() -> None:
    text = SENTENCE * 100
    assert all(text[: span.end].endswith(". ") for span in split(text))


def test_a_letter_keeps_its_marks() -> None:
    text = "e\u0323\u0301\u0308" * 4_000
    for span in split(text):
        assert not unicodedata.category(text[span.start]).startswith("M")


def test_chunks_have_about_400_tokens_in_english() -> None:
    sizes = [estimate_tokens((SENTENCE * 100)[span.start : span.end]) for span in split(SENTENCE * 100)]
    assert all(350 <= size <= 450 for size in sizes[:-1])


def test_the_same_text_is_cut_the_same_way() -> None:
    assert split(SENTENCE * 50) == split(SENTENCE * 50)


def test_sections_have_the_kinds_and_the_parents_of_their_headings() -> None:
    body = (
        "Title of it\n\nAbstract\nShort.\n\n1 Introduction\nText.\n\n2 Materials and Methods\n\n2.1 Participants\nForty.\n"
        "2.2 Measures\nTwo.\n\n3 Results\nTable 1. Numbers.\n\n## Danksagung\nThanks.\n\nReferences\nSmith.\n\nAppendix A\nMore."
    )
    found = divide(body)
    titles = {section.title: section for section in found}
    assert {title: section.kind for title, section in titles.items()} == {
        "": SectionKind.OTHER,
        "Abstract": SectionKind.ABSTRACT,
        "Introduction": SectionKind.INTRODUCTION,
        "Materials and Methods": SectionKind.METHODOLOGY,
        "Participants": SectionKind.OTHER,
        "Measures": SectionKind.OTHER,
        "Results": SectionKind.RESULTS,
        "Danksagung": SectionKind.ACKNOWLEDGMENTS,
        "References": SectionKind.REFERENCES,
        "Appendix A": SectionKind.APPENDIX,
    }
    for child in ("Participants", "Measures"):
        parent = titles[child].parent
        assert parent is not None
        assert found[parent].title == "Materials and Methods"
    assert "".join(body[section.start : section.end] for section in found) == body


@pytest.mark.parametrize(
    "line",
    [
        "2 patients were excluded.",
        "12 of them",
        "In 2019, we found more",
        "see Results",
        "3.14159",
        "I am here.",
        "1,000 Trees",
    ],
)
def test_a_line_of_text_is_no_heading(line: str) -> None:
    assert [section.title for section in divide(f"{SENTENCE}\n{line}\n{SENTENCE}")] == [""]


def test_a_body_with_too_many_headings_loses_no_text() -> None:
    body = "".join(f"# Heading {number}\nText {number}.\n" for number in range(limits.SECTIONS_MAX + 500))
    assert len(divide(body)) == limits.SECTIONS_MAX
    assert_covered(body)


def test_a_span_lies_on_the_pages_that_it_touches() -> None:
    starts = (0, 100, 100, 250)
    assert pages_of(Span(start=0, end=100), starts) == (1, 1)
    assert pages_of(Span(start=90, end=110), starts) == (1, 3)
    assert pages_of(Span(start=260, end=300), starts) == (4, 4)
    assert pages_of(Span(start=0, end=10), ()) == (None, None)
