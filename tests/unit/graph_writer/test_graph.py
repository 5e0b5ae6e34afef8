from dataclasses import replace

from tests.unit.graph_writer.story import BIB, DARWIN, PROJECT, TEXT, Content

from eventlog import ids
from eventlog.events import Creator, CreatorRole
from graph_writer import graph
from graph_writer.graph import AUTHOR, CONCEPT, DISCUSSES_CONCEPT, HAS_AUTHOR, MENTIONS, PAPER, plan_graph

WALLACE = Creator(family="Wallace", given="Alfred R.")
CONTENT = Content(
    revision=5,
    bib=("On the Origin", "An abstract"),
    text=("one", "two"),
    creators=(DARWIN, WALLACE),
    concepts={"Natural Selection": (1, 3)},
)


def edges(plan: graph.DocumentGraph, type_: str):
    return [one for one in plan.edges if one.payload["kind"] == type_]


def test_a_document_is_a_paper_with_its_authors_and_concepts():
    plan = plan_graph(CONTENT.parsed())
    assert plan.paper.payload["kind"] == PAPER
    assert (plan.paper.id, plan.paper.payload["label"]) == (CONTENT.document_id, "On the Origin")
    assert sorted(one.payload["kind"] for one in plan.shared) == [AUTHOR, AUTHOR, CONCEPT]
    assert plan.node_count == 4
    assert [one.payload["position"] for one in edges(plan, HAS_AUTHOR)] == [0, 1]


def test_the_same_author_or_concept_in_two_papers_is_one_node_whatever_its_spelling():
    other = replace(
        CONTENT,
        name="voyage",
        creators=(replace(DARWIN, family="DARWIN", role=CreatorRole.EDITOR),),
        concepts={"natural  selection": ()},
    )
    here, there = (
        {one.id: one.payload for one in plan_graph(content.parsed()).shared} for content in (CONTENT, other)
    )
    darwin, selection = (
        ids.author_id(PROJECT, "Darwin", "Charles"),
        ids.concept_id(PROJECT, "Natural Selection"),
    )
    assert here[darwin] == there[darwin]
    assert here[selection] == there[selection]
    assert set(here[darwin]) == {"project_id", "kind", "label"}


def test_spellings_roles_and_scores_stand_on_the_edges():
    plan = plan_graph(CONTENT.parsed())
    first = edges(plan, HAS_AUTHOR)[0].payload
    assert (first["name"], first["role"], first["source"]) == (
        "Darwin, Charles",
        "author",
        str(CONTENT.document_id),
    )
    (discussed,) = edges(plan, DISCUSSES_CONCEPT)
    assert (discussed.payload["name"], discussed.payload["score"]) == ("Natural Selection", 0.5)


def test_a_mention_belongs_to_the_part_of_its_chunk():
    mentions = {
        one.payload["source"]: one.payload["part"] for one in edges(plan_graph(CONTENT.parsed()), MENTIONS)
    }
    assert mentions == {str(CONTENT.chunk_id(1)): BIB, str(CONTENT.chunk_id(3)): TEXT}


def test_a_mention_of_a_chunk_that_is_not_listed_is_left_out():
    content = replace(CONTENT, concepts={"Natural Selection": (1, 99)})
    assert len(edges(plan_graph(content.parsed()), MENTIONS)) == 1
    assert graph.part_of_index(content.parsed().parts, 99) is None


def test_an_author_who_stands_twice_in_a_list_has_one_edge_and_a_nameless_one_has_none():
    creators = (DARWIN, Creator(family="", given=""), DARWIN, Creator(family="!?"))
    plan = plan_graph(replace(CONTENT, creators=creators).parsed())
    assert [one.payload["position"] for one in edges(plan, HAS_AUTHOR)] == [0]


def test_an_orcid_identifies_before_a_name():
    orcid = replace(DARWIN, orcid="0000-0002-1825-009x")
    (author,) = plan_graph(replace(CONTENT, creators=(orcid,), concepts={}).parsed()).shared
    assert author.id == ids.author_id(PROJECT, "other", "name", "0000-0002-1825-009X")
    assert author.payload["label"] == "orcid:0000-0002-1825-009X"


def test_the_same_facts_of_another_revision_have_the_same_ids_and_hash():
    plans = [plan_graph(CONTENT.at(one).parsed()) for one in (5, 9)]
    assert [one.id for one in plans[0].edges] == [one.id for one in plans[1].edges]
    assert graph.graph_hash(plans[0], (BIB, TEXT)) == graph.graph_hash(plans[1], (BIB, TEXT))
    other = plan_graph(replace(CONTENT, bib=("Another", "An abstract")).parsed())
    assert graph.graph_hash(plans[0], (BIB,)) != graph.graph_hash(other, (BIB,))


def test_without_a_bibliographic_part_a_paper_says_only_that_it_is_there():
    plan = plan_graph(replace(CONTENT, bib=None, concepts={}).parsed())
    assert set(plan.paper.payload) == {"project_id", "document_id", "kind", "revision", "attempt"}
    assert plan.paper.payload["revision"] < 0, "whatever has facts stands above it"
