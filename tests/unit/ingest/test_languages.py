# ruff: noqa: RUF001 - punctuation, digits and letters of other scripts are meant
"""Papers in English, German, Korean, Chinese and Arabic: their sections, sentences and concepts, from text and from PDF."""

import re
import unicodedata
from pathlib import Path

import pytest
from tests.languages.papers import LANGUAGES, language, sentences
from tests.unit.ingest.raw_pdf import any_script

from ingest.chunking import divide, find_headings, split
from ingest.cleaning import clean
from ingest.concepts import keyphrases, mentions
from ingest.sources.pdf import read_body
from ingest.sources.pdf_front import _abstract, _as_title

each_language = pytest.mark.parametrize("name", LANGUAGES)


def kinds_of(text: str) -> list[str]:
    return [section.kind.value for section in divide(text)]


@each_language
def test_sections_are_told_by_their_headings(name: str):
    one = language(name)
    assert all(f"\n{heading}\n" in f"\n{one.body}\n" for heading in one.headings)
    assert kinds_of(one.body) == list(one.kinds)


@each_language
def test_decomposed_letters_are_the_same_text(name: str):
    one = language(name)
    decomposed = unicodedata.normalize("NFD", one.body)
    assert clean(decomposed) == clean(one.body) == one.body
    assert kinds_of(clean(decomposed)) == list(one.kinds)


@each_language
def test_chunks_end_where_a_sentence_does(name: str):
    one = language(name)
    text = (" " if name != "zh" else "").join(sentences(" ".join(paper.abstract for paper in one.papers)) * 6)
    spans = split(text)
    assert len(spans) > 3
    for span in spans[:-1]:
        assert text[: span.end].rstrip()[-1] in ".!?\u3002\u061f", text[span.end - 40 : span.end]


@each_language
def test_questions_end_a_sentence_too(name: str):
    mark = {"zh": "\uff1f", "ar": "\u061f "}.get(name, "? ")
    word = language(name).concepts[0].replace(" ", "")
    text = (word * 4 + mark) * 200
    assert all(text[: span.end].rstrip().endswith(mark.strip()) for span in split(text)[:-1])


@each_language
def test_concepts_of_title_and_abstract_are_named(name: str):
    one = language(name)
    found = [phrase.key for phrase in keyphrases(one.papers[0].title, one.papers[0].abstract)]
    assert set(one.concepts) <= set(found), found


@each_language
def test_no_concept_is_a_sentence(name: str):
    for paper in language(name).papers:
        for phrase in keyphrases(paper.title, paper.abstract):
            assert len(phrase.name.split()) <= 4
            assert len(phrase.name) <= (12 if name == "zh" else 45), phrase.name


@each_language
def test_every_paper_has_a_concept_that_stands_in_it(name: str):
    for paper in language(name).papers:
        found = keyphrases(paper.title, paper.abstract)
        assert found, paper.title
        text = [(0, re.sub(r"\s+", " ", f"{paper.title}\n{paper.abstract}"))]
        places = mentions([phrase.key for phrase in found], text)
        assert any(places.values()), f"{paper.title}: {list(places)}"


@pytest.mark.parametrize(
    ("title", "text", "concept"),
    [
        ("기억의 공고화", "수면은 기억을 굳힌다. 수면이 모자라면 기억이 흐려진다. 수면과 기억.", "수면"),
        ("Über Schlaf", "Der Schlaf ist gut. Der Schlaf und die Erholung.", "schlaf"),
        ("النَّوْمُ والذَّاكِرَةُ", "النوم يثبت الذاكرة. الذاكرة والنوم.", "الذاكرة"),
        ("记忆与睡眠", "睡眠和记忆。", "睡眠"),
    ],
)
def test_a_concept_is_without_what_hangs_on_it(title: str, text: str, concept: str):
    assert concept in [phrase.key for phrase in keyphrases(title, text)]


@pytest.mark.parametrize("word", ["평가", "재평가", "고속도로", "어린이", "전문가", "연구결과"])
def test_a_noun_that_ends_like_a_particle_stays_whole(word: str):
    assert word in [phrase.key for phrase in keyphrases(word, f"{word}. {word}.")]


def test_an_arabic_word_is_mentioned_with_a_letter_hung_onto_it():
    found = mentions(["الذاكرة", "نوم"], [(0, "بالذاكرة"), (1, "والذاكرة"), (2, "ذاكرة"), (3, "المنوم")])
    assert found == {"الذاكرة": (0, 1), "نوم": ()}


def test_two_ideographs_are_enough_for_a_mention():
    assert mentions(["记忆", "수면"], [(0, "记忆巩固"), (1, "수면은")]) == {"记忆": (0,), "수면": (1,)}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("초 록", "abstract"), ("참 고 문 헌", "references"), ("제1장 서론", "introduction"), ("Ⅲ. 연구방법", "methodology"),
        ("摘　要", "abstract"), ("【摘要】", "abstract"), ("第一章 绪论", "introduction"), ("1引言", "introduction"), ("三、結果", "results"),
        ("参考文献：", "references"), ("2.1 参加者", "other"), ("المـقـدمة", "introduction"), ("النَّتائج", "results"), (".١ مقدمة", "introduction"),
        ("\u200fقائمة المراجع\u200f", "references"), ("٣) الإجراءات", "methodology"), ("Literatur", "references"), ("2.1. Stand der Forschung", "literature_review"),
        ("Anhang B", "appendix"), ("제2절 대상 및 방법", "methodology"),
    ],
)  # fmt: skip
def test_headings_as_papers_write_them(line: str, kind: str):
    (heading,) = find_headings(f"{line}\n")
    assert heading.kind.value == kind


@pytest.mark.parametrize(
    "line",
    [
        "12 명의 학생이 참여하였고 나머지는", "5名患者被排除", "3月气温", "2019年", "第三方支付平台的发展", "一般来说",
        "1 结果表明，睡眠不足会降低记忆。", "서론에서 밝혔듯이", "نتائج الدراسة تدل على ذلك", "Ergebnisse zeigen dies", "的", ". .",
    ],
)  # fmt: skip
def test_lines_that_only_look_like_headings(line: str):
    assert list(find_headings(f"{line}\n")) == []


# --- PDF ----------------------------------------------------------------------------------------------------------


def shape_tables() -> dict[tuple[str, str], str]:
    """Arabic letters by the place where they stand in a word, as fonts have them and PDFs name them."""
    found = {}
    for code in range(0xFE70, 0xFEF5):
        place, *letters = unicodedata.decomposition(chr(code)).split() or [""]
        if len(letters) == 1:
            found[place.strip("<>"), chr(int(letters[0], 16))] = chr(code)
    return found


SHAPES = shape_tables()


def shaped(word: str) -> str:
    out = ""
    for at, letter in enumerate(word):
        joins_before = at > 0 and ("initial", word[at - 1]) in SHAPES and ("final", letter) in SHAPES
        joins_after = (
            at + 1 < len(word) and ("initial", letter) in SHAPES and ("final", word[at + 1]) in SHAPES
        )
        places = {
            (False, False): "isolated",
            (False, True): "initial",
            (True, True): "medial",
            (True, False): "final",
        }
        out += SHAPES.get((places[joins_before, joins_after], letter), letter)
    return out


def as_seen(line: str) -> str:
    """A line of right-to-left text as its glyphs stand from left to right; numbers keep their order."""
    turned = " ".join(shaped(word) for word in line.split())[::-1]
    turned = re.sub(r"\d+(?:[.,]\d+)*", lambda run: run[0][::-1], turned)
    return turned.translate(str.maketrans("()", ")("))


@each_language
def test_a_pdf_says_what_the_text_says(name: str, tmp_path: Path):
    one = language(name)
    lines = one.body.split("\n")
    path = tmp_path / "paper.pdf"
    path.write_bytes(any_script([list(as_seen(line) if name == "ar" else line) for line in lines]))
    read = read_body(path).text
    assert kinds_of(read) == list(one.kinds), read
    for sentence in sentences(one.papers[0].abstract)[:2]:
        assert sentence in re.sub(r"\s+", " ", read)


def test_shapes_of_letters_become_the_letters():
    word = "الذاكرة"
    assert shaped(word) != word
    assert clean(f"{shaped(word)} \ufefb") == f"{word} لا"


AROUND = {
    "en": ("Abstract", "Keywords: sleep"),
    "de": ("Kurzfassung", "Schlagwörter: Schlaf"),
    "ko": ("초 록", "주제어: 수면"),
    "zh": ("【摘要】", "关键词：睡眠"),
    "ar": ("الملخص", "الكلمات المفتاحية: النوم"),
}


@each_language
def test_the_first_page_of_a_pdf_tells_title_and_abstract(name: str):
    heading, keywords = AROUND[name]
    for paper in language(name).papers:
        assert _as_title(paper.title) == paper.title
        assert _abstract(f"{paper.title}\n{heading}\n{paper.abstract}\n{keywords}\n") == paper.abstract


@each_language
def test_an_abstract_ends_where_the_introduction_begins(name: str):
    one = language(name)
    paper = one.papers[0]
    front = f"{paper.title}\n{one.headings[0]}\n{paper.abstract}\n{one.headings[1]}\n{one.body}"
    assert _abstract(front) == paper.abstract
