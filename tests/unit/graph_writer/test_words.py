import math

import pytest
from tests.languages.papers import language

from graph_writer.words import Keywords


@pytest.fixture(scope="module")
def keywords() -> Keywords:
    return Keywords()


def finds(keywords: Keywords, query: str, text: str) -> bool:
    return bool(set(keywords.of_query(query).indices) & set(keywords.of_text(text).indices))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("WAS", "The gene was found"),
        ("the", "The gene"),
        ("studies", "one study"),
        ("COVID", "COVID-19 基因"),
        ("19", "COVID-19 基因"),
        ("2019", "基因 2019 年"),
        ("基因", "人类基因组"),
        ("naive", "a naïve reader"),
        ("naïve", "a naive reader"),
        ("10.1000/182", "doi 10.1000/182"),
        ("ДНК", "структура днк"),
    ],
)
def test_a_query_finds_a_text_that_has_its_word(keywords: Keywords, query: str, text: str):
    assert finds(keywords, query, text)


def test_another_word_finds_nothing(keywords: Keywords):
    assert not finds(keywords, "protein", "The gene was found in 2019")
    assert list(keywords.of_text("").indices) == list(keywords.of_query("?!").indices) == []


def test_ascii_takes_a_shorter_way_to_the_same_words(keywords: Keywords):
    text = "The WAS gene, in 2019: studies of running cells"
    plain, folded = keywords.of_text(text), keywords.of_text(text + " é")
    assert set(plain.indices) < set(folded.indices)


def test_each_word_of_a_query_counts_once_and_alike(keywords: Keywords):
    asked = keywords.of_query("gene gene genes 基因 基因")
    assert len(asked.indices) == len(set(asked.indices))
    assert set(asked.values) == {1.0}


def test_a_word_that_stands_often_weighs_more_in_a_text(keywords: Keywords):
    (gene,) = keywords.of_query("gene").indices
    once, often = keywords.of_text("gene cell"), keywords.of_text("gene gene gene cell")
    weight = [dict(zip(one.indices, one.values, strict=True))[gene] for one in (once, often)]
    assert weight[0] < weight[1]


def test_matched_words_are_told_as_the_text_spells_them_in_the_order_of_the_query(keywords: Keywords):
    text = "Studies of the naïve gene; the Study of Genes"
    assert keywords.matched("genes naive studying absent", text) == ["gene", "naïve", "studies"]
    assert keywords.matched("absent", text) == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("수면", "수면은 기억을 굳힌다"),
        ("수면과 기억", "수면이 기억에 미치는 영향"),
        ("자원봉사자의", "자원봉사자들이 세었다"),
        ("\u1109\u116e\u1106\u1167\u11ab", "수면"),  # decomposed, as some systems type it
        ("ذاكرة", "والذاكرة"),
        ("الذاكرة", "ذَاكِرَة"),
        ("المعلمين", "معلم"),
        ("بالمجسات", "المجسات"),
        ("النوم والذاكرة", "ذاكرة"),
        ("اشجار", "أشجار المدينة"),
        ("ري 2019", "الري في سنة 2019"),
    ],
)
def test_what_a_script_hangs_onto_a_word_does_not_hide_it(keywords: Keywords, query: str, text: str):
    assert finds(keywords, query, text)


def test_other_words_of_these_scripts_find_nothing(keywords: Keywords):
    assert not finds(keywords, "기억", "수면은 좋다")
    assert not finds(keywords, "ذاكرة", "النوم مفيد")


def test_a_word_of_one_syllable_is_a_word(keywords: Keywords):
    assert finds(keywords, "새", "새 조사")


# Found first of eight, by words alone. German has forms that English stems do not join, and long compounds.
@pytest.mark.parametrize(("name", "first"), [("en", 8), ("ko", 8), ("zh", 8), ("ar", 8), ("de", 5)])
def test_papers_are_found_by_their_words(keywords: Keywords, name: str, first: int):
    papers = language(name).papers
    texts = [f"{paper.title}\n{paper.abstract}" for paper in papers]
    weights = [dict(zip(one.indices, one.values, strict=True)) for one in map(keywords.of_text, texts)]
    rarity = {
        index: math.log(1 + len(texts) / sum(index in one for one in weights))
        for index in {index for one in weights for index in one}
    }
    hits = 0
    for number, paper in enumerate(papers):
        asked = keywords.of_query(paper.words).indices
        scores = [sum(rarity.get(index, 0.0) * one.get(index, 0.0) for index in asked) for one in weights]
        hits += scores[number] > 0 and scores.index(max(scores)) == number
    assert hits >= first
