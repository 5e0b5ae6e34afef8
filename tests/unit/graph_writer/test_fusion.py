from uuid import UUID

import pytest

from graph_writer.fusion import fuse, spread

A, B, C, D = (UUID(int=number) for number in range(1, 5))


def test_what_both_lists_found_stands_above_what_one_found_equally_well():
    ranked = fuse({"meaning": [(A, 0.9), (B, 0.8), (C, 0.1)], "words": [(B, 9.0), (D, 8.0), (C, 1.0)]})
    assert ranked[0].id == B
    assert {one.id: one.found_by for one in ranked} == {
        A: ("meaning",),
        B: ("meaning", "words"),
        C: ("meaning", "words"),
        D: ("words",),
    }


def test_the_scale_of_a_list_does_not_count():
    lists = {"meaning": [(A, 0.9), (B, 0.5), (C, 0.4)], "words": [(B, 9.0), (C, 8.0), (D, 1.0)]}
    larger = lists | {"words": [(id_, 1000 * score) for id_, score in lists["words"]]}
    assert [(one.id, one.score) for one in fuse(lists)] == [
        (one.id, pytest.approx(one.score)) for one in fuse(larger)
    ]


def test_one_list_alone_keeps_its_scores_and_its_order():
    ranked = fuse({"meaning": [], "words": [(B, 3.0), (A, 1.0)]})
    assert [(one.id, one.score, one.found_by) for one in ranked] == [
        (B, 3.0, ("words",)),
        (A, 1.0, ("words",)),
    ]


def test_lists_that_cannot_be_scaled_count_as_the_middle():
    ranked = fuse({"meaning": [(A, 0.7)], "words": [(B, 2.0), (C, 2.0)]})
    assert [(one.id, one.score) for one in ranked] == [
        (B, pytest.approx(0.65)),
        (C, pytest.approx(0.65)),
        (A, pytest.approx(0.35)),
    ], "ties are in the order of ids"


def test_scores_that_differ_by_the_last_bit_of_a_float32_are_equal():
    """Stores add in different orders, and a server prints decimals: none of that may decide a rank."""
    said = [(A, 3.851778984069824), (B, 3.851778745651245), (C, 3.851778984069824)]
    exact = [(id_, 3.851779) for id_, _ in said]
    meaning = [(A, 0.2), (B, 0.9), (C, 0.5)]
    ranked = [fuse({"meaning": meaning, "words": words}) for words in (said, exact)]
    assert ranked[0] == ranked[1]


def test_what_the_words_found_weighs_more_than_what_is_as_near_in_meaning():
    ranked = fuse({"meaning": [(A, 0.9), (B, 0.1)], "words": [(C, 9.0), (D, 1.0)]})
    assert [one.id for one in ranked] == [C, D, A, B]


def test_nothing_found_is_nothing():
    assert fuse({}) == []
    assert fuse({"meaning": [], "words": []}) == []


def test_at_most_two_of_one_document_and_no_more_than_the_limit():
    ranked = fuse({"words": [(one, 9.0 - n) for n, one in enumerate((A, B, C, D))]})
    documents = {A: "x", B: "x", C: "x", D: "y"}
    assert [one.id for one in spread(ranked, documents, limit=10, each=2)] == [A, B, D]
    assert [one.id for one in spread(ranked, documents, limit=1, each=2)] == [A]
