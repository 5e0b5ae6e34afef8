import pytest

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
