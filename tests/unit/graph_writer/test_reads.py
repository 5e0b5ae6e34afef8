"""Search, graph and verify over HTTP, on a store that the writer filled."""

import base64
import io
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from tests.unit.graph_writer.story import BIB, DARWIN, PROJECT, SPACE, TEXT, Content, document, vector_of
from tests.unit.graph_writer.world import Process, World

from eventlog import ids
from eventlog.events import ChunkOutcome, ChunksSettled, Creator
from graph_writer.core import content_hash, marker_id
from graph_writer.graph_read import CONCEPTS_PER_DOCUMENT_MAX
from graph_writer.health import Health
from graph_writer.opened import GRAPH, collection_of
from graph_writer.reads import BODY_BYTES_MAX, Reads
from graph_writer.search import Search
from graph_writer.stores.store import Point

COLLECTION = collection_of(SPACE).name
ORIGIN = Content(
    bib=("On the Origin of Species", "Species change by selection"),
    text=("beaks of finches", "finches of the islands", "an island finch", "barnacles are tedious"),
    concepts={"Selection": (1,), "Finch": (2, 3)},
)
VOYAGE = Content(
    name="voyage",
    bib=("The Voyage of the Beagle",),
    text=("a finch with a thick beak", "the coast of Chile"),
    creators=(DARWIN, Creator(family="FitzRoy")),
    concepts={"finch": (0,), "Chile": (), "Selection": ()},
)


@asynccontextmanager
async def serving(reads: Reads) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(reads.app())) as client:
        yield client


@pytest.fixture
async def library(world: World, process: Process) -> dict[str, Content]:
    """Both documents, closed."""
    brought = {}
    for content in (ORIGIN, VOYAGE):
        content = content.at(await world.request())  # noqa: PLW2901 - the same document with its revision
        offset = await world.bring(content)
        await process.catch_up()
        await world.say(content.settled(offset, *(part.part for part in content.parsed().parts)))
        await process.catch_up()
        brought[content.name] = content
    process.health.remove("catching_up")
    return brought


@pytest.fixture
async def client(process: Process, library: dict[str, Content]) -> AsyncIterator[TestClient[Any, Any]]:
    async with serving(process.reads()) as client:
        yield client


async def search(client: TestClient[Any, Any], text: str, **asked: Any) -> dict[str, Any]:
    body = {"project_id": str(PROJECT), "space": SPACE, "text": text, **asked}
    answer = await client.post("/search", json=body)
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


def meaning(text: str) -> str:
    return base64.b64encode(vector_of(text)).decode()


def titles(found: dict[str, Any]) -> list[str]:
    return [one["title"] for one in found["results"]]


# --- search


async def test_words_find_what_has_them_and_say_which(client: TestClient[Any, Any]):
    found = await search(client, "finches", mode="words", limit=20)
    assert found["mode"] == "words"
    assert {one["text"] for one in found["results"]} >= {"a finch with a thick beak"}
    assert all(one["found_by"] == ["words"] for one in found["results"])
    first = found["results"][0]
    assert first["words"][0] in {"finch", "finches"}
    assert {"chunk_id", "document_id", "score", "kind", "part", "section", "year", "creators"} <= first.keys()


async def test_at_most_two_passages_of_one_document_are_shown(client: TestClient[Any, Any]):
    found = await search(client, "finch island beak barnacles", mode="words", limit=20)
    documents = [one["document_id"] for one in found["results"]]
    assert documents.count(str(document("origin"))) == 2
    assert documents.count(str(document("voyage"))) >= 1


async def test_meaning_finds_the_nearest_vector(client: TestClient[Any, Any]):
    found = await search(client, "whatever", mode="meaning", vector=meaning("the coast of Chile"))
    assert found["results"][0]["text"] == "the coast of Chile"
    assert found["results"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert found["results"][0]["found_by"] == ["meaning"]


async def test_hybrid_ranks_what_both_found_first(client: TestClient[Any, Any]):
    found = await search(client, "barnacles", vector=meaning("barnacles are tedious"))
    assert found["mode"] == "hybrid"
    assert found["results"][0]["text"] == "barnacles are tedious"
    assert found["results"][0]["found_by"] == ["meaning", "words"]


async def test_without_a_vector_a_hybrid_search_answers_by_words_and_says_so(client: TestClient[Any, Any]):
    found = await search(client, "Chile", mode="hybrid")
    assert found["mode"] == "words"
    assert found["results"][0]["text"] == "the coast of Chile"


async def test_a_title_is_found_by_author_and_year(client: TestClient[Any, Any]):
    assert titles(await search(client, "FitzRoy 1859", mode="words"))[0] == "The Voyage of the Beagle"


async def test_concepts_are_not_shown_among_passages(client: TestClient[Any, Any]):
    found = await search(client, "selection", mode="words", limit=20)
    assert {one["kind"] for one in found["results"]} == {"abstract"}


async def test_search_keeps_to_the_project_and_to_the_documents_asked_for(client: TestClient[Any, Any]):
    assert (await search(client, "finch", project_id=str(ids.project_id("Other"))))["results"] == []
    found = await search(client, "finch", mode="words", document_ids=[str(document("voyage"))])
    assert {one["document_id"] for one in found["results"]} == {str(document("voyage"))}
    everywhere = await search(client, "finch", mode="words", project_id=None)
    assert len(everywhere["results"]) >= 3


async def test_a_space_without_a_collection_has_nothing_to_find(client: TestClient[Any, Any]):
    assert (await search(client, "finch", space="local/wordllama@256:1"))["results"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"space": "nonsense"},
        {"vector": "AAAA"},
        {"vector": "not base64!"},
        {"limit": 0},
        {"limit": 101},
        {"limit": "many"},
        {"mode": "magic"},
        {"mode": "meaning"},
        {"project_id": "nobody"},
        {"document_ids": ["x"]},
        {"vector": base64.b64encode(b"\x00\x00\xc0\x7f" * 8).decode()},
        {"text": None},
        {"text": "x" * 10_001},
        {"document_ids": [str(PROJECT)] * 1_001},
        {"document_ids": None},
        {"space": None},
        {"space": 5},
        {"project_id": 5},
        {"document_ids": [5]},
        {"limit": math.inf},
        {"text": "\ud800"},
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(client: TestClient[Any, Any], wrong: dict[str, Any]):
    body = {"project_id": str(PROJECT), "space": SPACE, "text": "finch", **wrong}
    answer = await client.post("/search", json=body)
    assert answer.status == 400
    assert (await answer.json())["code"] == "request_invalid"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"text": "x"}', b"[" * 100_000])
async def test_a_body_that_is_no_question_is_refused(client: TestClient[Any, Any], body: bytes):
    answer = await client.post("/search", data=body)
    assert answer.status == 400
    assert (await answer.json())["code"] == "request_invalid"


async def test_a_body_has_a_limit(client: TestClient[Any, Any]):
    answer = await client.post("/search", data=io.BytesIO(b" " * (BODY_BYTES_MAX + 1)))
    assert answer.status == 413


# --- graph


async def graph_of(
    client: TestClient[Any, Any], project: ids.ProjectId = PROJECT, **query: str
) -> dict[str, Any]:
    answer = await client.get(f"/projects/{project}/graph", params=query)
    assert answer.status == 200
    found: dict[str, Any] = await answer.json()
    return found


def by_type(found: dict[str, Any], part: str, type_: str) -> list[dict[str, Any]]:
    return [one for one in found[part] if one["type"] == type_]


async def test_an_author_or_a_concept_of_two_papers_is_one_node(client: TestClient[Any, Any]):
    found = await graph_of(client)
    assert len(by_type(found, "nodes", "Paper")) == 2
    assert sorted(one["label"] for one in by_type(found, "nodes", "Author")) == ["Darwin, Charles", "FitzRoy"]
    assert sorted(one["label"] for one in by_type(found, "nodes", "Concept")) == [
        "Chile",
        "Finch",
        "Selection",
    ]
    assert len(by_type(found, "edges", "HAS_AUTHOR")) == 3
    assert found["truncated"] is False
    nodes = {one["id"] for one in found["nodes"]}
    assert {end for one in found["edges"] for end in (one["source"], one["target"])} <= nodes


async def test_what_occurs_together_is_counted_on_reading(client: TestClient[Any, Any]):
    found = await graph_of(client)
    together = {
        frozenset((one["source"], one["target"])): one["weight"]
        for one in by_type(found, "edges", "CO_OCCURS_WITH")
    }
    finch, chile, selection = (str(ids.concept_id(PROJECT, one)) for one in ("Finch", "Chile", "Selection"))
    assert together == {
        frozenset((finch, selection)): 2,
        frozenset((finch, chile)): 1,
        frozenset((selection, chile)): 1,
    }


async def test_mentions_are_counted_by_document(client: TestClient[Any, Any]):
    found = await graph_of(client)
    mentions = {(one["source"], one["target"]): one["weight"] for one in by_type(found, "edges", "MENTIONS")}
    finch = str(ids.concept_id(PROJECT, "Finch"))
    assert mentions[str(document("origin")), finch] == 2
    assert mentions[str(document("voyage")), finch] == 1


async def test_a_node_that_no_edge_reaches_is_left_out(
    world: World, process: Process, client: TestClient[Any, Any], library: dict[str, Content]
):
    again = replace(library["voyage"], creators=(DARWIN,)).at(await world.request())
    offset = await world.bring(again)
    await process.catch_up()
    await world.say(again.settled(offset, BIB, TEXT))
    await process.catch_up()
    fitzroy = ids.author_id(PROJECT, "FitzRoy", "")
    assert fitzroy in await process.store.get(GRAPH.name, [fitzroy]), "a shared point is never taken back"
    found = await graph_of(client)
    assert [one["label"] for one in by_type(found, "nodes", "Author")] == ["Darwin, Charles"]


async def test_a_limit_cuts_the_graph_and_says_so(client: TestClient[Any, Any]):
    found = await graph_of(client, limit="1")
    assert len(by_type(found, "nodes", "Paper")) == 1
    assert found["truncated"] is True


async def test_a_document_with_very_many_concepts_is_cut_and_says_so(
    world: World, process: Process, client: TestClient[Any, Any]
):
    names = {f"concept {n}": () for n in range(CONCEPTS_PER_DOCUMENT_MAX + 5)}
    await world.say(Content(name="long", revision=await world.request(), concepts=names).parsed())
    await process.catch_up()
    assert (await graph_of(client))["truncated"] is True


async def test_an_unknown_project_has_an_empty_graph_and_a_wrong_one_is_refused(client: TestClient[Any, Any]):
    assert await graph_of(client, ids.project_id("Other")) == {"nodes": [], "edges": [], "truncated": False}
    assert (await client.get("/projects/nobody/graph")).status == 400
    assert (await client.get(f"/projects/{PROJECT}/graph", params={"limit": "x"})).status == 400


# --- verify


async def verify(client: TestClient[Any, Any], world: World, *contents: Content) -> dict[str, Any]:
    """As ingest asks: with the outcomes and hashes that were settled."""
    settled = {
        (one.chunk_id, one.revision): one for event in world.said(ChunksSettled) for one in event.chunks
    }
    documents = [
        {
            "document_id": str(content.document_id),
            "revision": content.revision,
            "chunks": [
                {
                    "chunk_id": str(chunk),
                    "part": part.part.value,
                    "outcome": settled[chunk, content.revision].outcome.value,
                    "content_hash": settled[chunk, content.revision].content_hash.hex(),
                }
                for part in content.parsed().parts
                for chunk in part.chunk_ids
            ],
        }
        for content in contents
    ]
    body = {"import_id": str(PROJECT), "project_id": str(PROJECT), "space": SPACE, "documents": documents}
    answer = await client.post("/verify", json=body)
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


def ids_of(findings: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((one["kind"], one["id"]) for one in findings)


async def test_a_whole_store_has_nothing_to_tell(
    client: TestClient[Any, Any], world: World, library: dict[str, Content]
):
    found = await verify(client, world, *library.values())
    assert (found["missing"], found["extra"], found["different"]) == ([], [], [])
    assert found["checked_count"] == sum(len(one.chunks()) for one in library.values())


async def test_missing_chunks_edges_and_nodes_are_named(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    origin = library["origin"]
    chunk, finch = origin.chunk_id(5), ids.concept_id(PROJECT, "Finch")
    edge = ids.edge_id(origin.document_id, "DISCUSSES_CONCEPT", finch, origin.document_id, "bibliographic")
    await process.store.delete(COLLECTION, [chunk])
    await process.store.delete(GRAPH.name, [edge, ids.author_id(PROJECT, "Darwin", "Charles")])
    found = await verify(client, world, origin)
    assert ids_of(found["missing"]) == sorted(
        [
            ("chunk", str(chunk)),
            ("edge", str(edge)),
            ("node", str(ids.author_id(PROJECT, "Darwin", "Charles"))),
        ]
    )
    assert {one["title"] for one in found["missing"]} == {"On the Origin of Species"}


async def test_a_missing_concept_is_missing_for_every_chunk_that_stands_for_it(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    await process.store.delete(COLLECTION, [ids.concept_id(PROJECT, "Finch")])
    found = await verify(client, world, *library.values())
    assert ids_of(found["missing"]) == sorted(
        [("chunk", str(library["origin"].chunk_id(3))), ("chunk", str(library["voyage"].chunk_id(1)))]
    )


async def test_a_lost_paper_is_missing(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    await process.store.delete(GRAPH.name, [document("origin")])
    found = await verify(client, world, library["origin"])
    assert ("node", str(document("origin"))) in ids_of(found["missing"])


async def test_a_point_that_is_not_what_its_hash_says_is_different(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    chunk = library["origin"].chunk_id(4)
    (there,) = (await process.store.get(COLLECTION, [chunk], with_vector=True)).values()
    for spoiled in (
        replace(there, payload=there.payload | {"text": "spoiled"}),
        replace(there, vector=vector_of("spoiled")),
    ):
        await process.store.upsert(COLLECTION, [spoiled])
        found = await verify(client, world, library["origin"])
        assert ids_of(found["different"]) == [("chunk", str(chunk))]
        assert found["missing"] == []


async def test_what_was_settled_with_another_hash_is_different(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    origin = library["origin"]
    found = await process.store.get(COLLECTION, [origin.chunk_id(4)], with_vector=True)
    point = found[origin.chunk_id(4)]
    mood = vector_of("another model's mood")
    other = point.payload | {"content_hash": content_hash(mood, point.payload)}
    await process.store.upsert(COLLECTION, [replace(point, payload=other, vector=mood)])
    found = await verify(client, world, origin)
    assert ids_of(found["different"]) == [("chunk", str(origin.chunk_id(4)))]


async def test_extra_points_and_edges_are_named(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    older = replace(library["origin"], revision=1, text=("left over",))
    (stale,) = (one for one in older.chunks() if one.text == "left over")
    payload = {"document_id": str(document("origin")), "kind": "passage", "part": "full_text", "revision": 1}
    await process.store.upsert(COLLECTION, [Point(id=stale.chunk_id, payload=payload, vector=stale.vector)])
    edge = payload | {"kind": "MENTIONS"}
    await process.store.upsert(GRAPH.name, [Point(id=ids.NAMESPACE, payload=edge)])
    found = await verify(client, world, library["origin"])
    assert ids_of(found["extra"]) == sorted([("chunk", str(stale.chunk_id)), ("edge", str(ids.NAMESPACE))])


async def test_what_must_be_there_is_what_the_mark_names_whatever_import_asks(
    client: TestClient[Any, Any], world: World, process: Process, library: dict[str, Content]
):
    newer = replace(library["origin"], text=("a new passage",)).at(await world.request())
    offset = await world.bring(newer)
    await process.catch_up()
    await world.say(newer.settled(offset, BIB, TEXT))
    await process.catch_up()
    asked_by_the_old = await verify(client, world, library["origin"])
    assert (asked_by_the_old["missing"], asked_by_the_old["extra"], asked_by_the_old["different"]) == (
        [],
        [],
        [],
    )
    await process.store.delete(COLLECTION, [newer.chunk_id(4)])
    found = await verify(client, world, library["origin"])
    assert ids_of(found["missing"]) == [("chunk", str(newer.chunk_id(4)))]


async def test_a_document_without_a_mark_is_held_to_what_was_said_to_be_stored(
    client: TestClient[Any, Any], world: World, process: Process
):
    content = Content(name="open", text=("one", "two")).at(await world.request())
    await world.say(content.parsed())
    await world.embed(*content.chunks()[:2], content.rejected(2))
    await process.catch_up()
    assert (await verify(client, world, content))["missing"] == []
    await process.store.delete(COLLECTION, [content.chunk_id(1)])
    assert ids_of((await verify(client, world, content))["missing"]) == [("chunk", str(content.chunk_id(1)))]


async def test_a_rejected_chunk_is_accounted_for_by_its_marker(
    client: TestClient[Any, Any], world: World, process: Process
):
    content = Content(name="half", text=("one", "two")).at(await world.request())
    (offset,) = await world.say(content.parsed())
    await world.embed(*content.chunks()[:2], content.rejected(2))
    await process.catch_up()
    await world.say(content.settled(offset, BIB, TEXT))
    await process.catch_up()
    assert {one.outcome for event in world.said(ChunksSettled) for one in event.chunks} >= {
        ChunkOutcome.REJECTED
    }
    assert (await verify(client, world, content))["missing"] == []
    await process.store.delete(GRAPH.name, [marker_id(content.chunk_id(2), SPACE)])
    assert ids_of((await verify(client, world, content))["missing"]) == [("chunk", str(content.chunk_id(2)))]


async def test_verification_of_history_that_retention_took_is_a_conflict(
    client: TestClient[Any, Any], world: World, library: dict[str, Content]
):
    world.broker.cut("imports", 0, len(world.broker.partition("imports", 0).slots) - 1)
    body = {
        "space": SPACE,
        "documents": [{"document_id": str(document("origin")), "revision": 1, "chunks": []}],
    }
    answer = await client.post("/verify", json=body)
    assert (answer.status, (await answer.json())["code"]) == (409, "history_gone")


@pytest.mark.parametrize(
    "documents",
    [
        5,
        ["x"],
        [{"document_id": 5, "revision": 1, "chunks": []}],
        [{"document_id": str(document("origin")), "revision": math.inf, "chunks": []}],
        [{"document_id": str(document("origin")), "revision": 1, "chunks": [{"chunk_id": "x"}]}],
    ],
)
async def test_a_page_that_is_none_is_refused(client: TestClient[Any, Any], documents: Any):
    answer = await client.post("/verify", json={"space": SPACE, "documents": documents})
    assert (answer.status, (await answer.json())["code"]) == (400, "request_invalid")


async def test_an_error_of_ours_is_not_told_as_the_sender_s(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    """A store whose points lack what they must have, for instance."""

    async def broken(*_: Any) -> None:
        raise KeyError("kind")

    monkeypatch.setattr(Search, "search", broken)
    answer = await client.post("/search", json={"space": SPACE, "text": "finch"})
    assert answer.status == 500


async def test_a_page_has_a_limit(client: TestClient[Any, Any]):
    one = {"document_id": str(document("origin")), "revision": 1, "chunks": []}
    answer = await client.post("/verify", json={"space": SPACE, "documents": [one] * 201})
    assert answer.status == 400


# --- being ready


async def test_before_the_store_has_caught_up_reads_are_refused_with_the_reason(
    world: World, process: Process
):
    process.health.add("catching_up")
    async with serving(process.reads()) as client:
        for answer in (
            await client.post("/search", json={"space": SPACE, "text": "x"}),
            await client.post("/verify", json={}),
            await client.get(f"/projects/{PROJECT}/graph"),
            await client.get("/readyz"),
        ):
            assert answer.status == 503
            assert "catching_up" in (await answer.json())["reasons"]
        assert (await client.get("/livez")).status == 200
    async with serving(Reads(Health())) as client:
        assert (await client.post("/search", json={})).status == 503
        assert (await client.post("/continue")).status == 503
        assert (await (await client.get("/status")).json())["reasons"] == ["starting"]


async def test_a_dead_letter_pause_stops_the_writing_and_not_the_reads(
    process: Process, client: TestClient[Any, Any]
):
    process.health.add("dead_letters")
    assert (await client.get("/readyz")).status == 503
    assert (await search(client, "finch"))["results"]
    answer = await client.post("/continue")
    assert (await answer.json())["reasons"] == []
    assert (await client.get("/readyz")).status == 200
