"""What every store keeps. Each test runs on qdrant-edge, on Qdrant's client in memory, and on a server where one is."""

import asyncio
import os
import random
import uuid
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from tests.contracts.containers import qdrant_image
from tests.contracts.stores import (
    CHUNKS,
    DIMS,
    GRAPH,
    SPACE,
    STORES,
    EdgeWorld,
    World,
    make_world,
    point,
    store,
    unit,
    world,
)

from graph_writer.fusion import fuse, scaled
from graph_writer.stores.edge import DENSE, WORDS
from graph_writer.stores.store import Collection, Store, StoreLost, StoreMismatch, Swap, Where, Words
from graph_writer.words import Keywords

__all__ = ["qdrant_image", "store", "world"]  # fixtures


async def ids(store: Store, where: Where, *, limit: int = 100) -> list[int]:
    found, after = await store.scroll(CHUNKS.name, where, limit=limit)
    assert after is None
    return [one.id.int for one in found]


@pytest.mark.skipif("QDRANT_URL" not in os.environ, reason="QDRANT_URL names no Qdrant server")
def test_a_server_is_held_to_the_contract_where_one_is_named():
    assert "server" in STORES


# --- points


async def test_a_point_comes_back_byte_for_byte(store: Store):
    vector = unit(0.1, 0.2, 0.7)
    said = {
        "project_id": str(uuid.UUID(int=7)),
        "text": "naïve 基因 \U0001f9ec",
        "creators": ["a", "b"],
        "n": 3,
    }
    said |= {"marks": {"full_text": [12, 9_007_199_254_740_991]}, "year": None, "score": 0.25}
    written = point(10, vector=vector, words=Words([4, 9], [0.5, 1.5]), **said)
    await store.upsert(CHUNKS.name, [written])
    (found,) = (await store.get(CHUNKS.name, [written.id], with_vector=True)).values()
    assert (found.payload, found.vector) == (said, vector)


async def test_only_the_fields_asked_for_come_and_no_vector_unasked(store: Store):
    await store.upsert(CHUNKS.name, [point(10, vector=unit(1.0), text="t", kind="passage")])
    (found,) = (await store.get(CHUNKS.name, [uuid.UUID(int=10)], fields=("kind",))).values()
    assert (found.payload, found.vector) == ({"kind": "passage"}, b"")


async def test_what_is_not_there_is_left_out(store: Store):
    await store.upsert(GRAPH.name, [point(10, kind="Paper")])
    assert set(await store.get(GRAPH.name, [uuid.UUID(int=10), uuid.UUID(int=11)])) == {uuid.UUID(int=10)}
    assert await store.get(GRAPH.name, []) == {}
    await store.upsert(GRAPH.name, [])
    await store.delete(GRAPH.name, [])
    await store.delete(GRAPH.name, [uuid.UUID(int=404)])


async def test_a_point_written_again_is_replaced_whole(store: Store):
    await store.upsert(CHUNKS.name, [point(10, vector=unit(1.0), words=Words([4], [1.0]), text="t", doi="d")])
    await store.upsert(CHUNKS.name, [point(10, vector=unit(0, 1.0), text="u")])
    (found,) = (await store.get(CHUNKS.name, [uuid.UUID(int=10)], with_vector=True)).values()
    assert (found.payload, found.vector) == ({"text": "u"}, unit(0, 1.0))
    assert await store.nearest(CHUNKS.name, Words([4], [1.0]), Where(), limit=5, fields=()) == []


async def test_points_are_counted(store: Store):
    before = await store.count(CHUNKS.name)
    await store.upsert(CHUNKS.name, [point(number, vector=unit(1.0)) for number in range(10, 15)])
    await store.delete(CHUNKS.name, [uuid.UUID(int=10)])
    assert await store.count(CHUNKS.name) == before + 4


# --- order


async def test_a_lower_revision_or_attempt_never_overwrites_a_higher_one(store: Store):
    there = uuid.UUID(int=10)
    tries = [((5, 2), 1), ((5, 1), 1), ((4, 9), 1), ((5, 2), 2), ((5, 3), 3), ((6, 1), 4), ((5, 9), 4)]
    for (revision, attempt), stands in tries:
        said = {"revision": revision, "attempt": attempt, "try": stands}
        if stands in (1, 4) and (revision, attempt) not in ((5, 2), (6, 1)):
            said["try"] = 0  # must not be seen
        await store.upsert(GRAPH.name, [point(10, **said)], order=(revision, attempt))
        (found,) = (await store.get(GRAPH.name, [there])).values()
        assert found.payload["try"] == stands, (revision, attempt)


async def test_an_ordered_write_inserts_what_is_new_beside_what_it_may_not_touch(store: Store):
    await store.upsert(GRAPH.name, [point(10, revision=9, attempt=1)], order=(9, 1))
    both = [point(10, revision=8, attempt=1), point(11, revision=8, attempt=1)]
    await store.upsert(GRAPH.name, both, order=(8, 1))
    found = await store.get(GRAPH.name, [uuid.UUID(int=10), uuid.UUID(int=11)])
    assert [found[uuid.UUID(int=one)].payload["revision"] for one in (10, 11)] == [9, 8]


async def test_an_ordered_delete_leaves_what_is_newer(store: Store):
    for number, order in ((10, (3, 1)), (11, (4, 1)), (12, (4, 2)), (13, (5, 1))):
        await store.upsert(GRAPH.name, [point(number, revision=order[0], attempt=order[1])], order=order)
    await store.delete(GRAPH.name, [uuid.UUID(int=one) for one in range(10, 14)], order=(4, 1))
    found = await store.get(GRAPH.name, [uuid.UUID(int=one) for one in range(10, 14)])
    assert sorted(one.int for one in found) == [12, 13]


async def test_writers_at_once_end_at_the_highest_revision(store: Store):
    orders = [(revision, attempt) for revision in range(1, 21) for attempt in (1, 2)]
    random.Random(3).shuffle(orders)
    writes = [store.upsert(GRAPH.name, [point(10, revision=r, attempt=a)], order=(r, a)) for r, a in orders]
    await asyncio.gather(*writes)
    (found,) = (await store.get(GRAPH.name, [uuid.UUID(int=10)])).values()
    assert found.payload == {"revision": 20, "attempt": 2}


# --- conditional writes


async def test_a_position_moves_only_from_the_value_last_seen(store: Store):
    def swap(expected: int | None, offset: int) -> Swap:
        new = {"kind": "position", "offset": offset}
        return Swap(id=uuid.UUID(int=10), field="offset", expected=expected, new=new)

    assert not await store.swap(GRAPH.name, [swap(4, 5)]), "there is none yet"
    assert await store.swap(GRAPH.name, [swap(None, 5)])
    assert not await store.swap(GRAPH.name, [swap(None, 6)]), "there is one"
    assert await store.swap(GRAPH.name, [swap(5, 9)])
    assert await store.swap(GRAPH.name, [swap(5, 9)]), "the answer to the first try may have been lost"
    assert not await store.swap(GRAPH.name, [swap(5, 10)])
    (found,) = (await store.get(GRAPH.name, [uuid.UUID(int=10)])).values()
    assert found.payload["offset"] == 9


async def test_one_wrong_value_among_several_is_told(store: Store):
    await store.upsert(GRAPH.name, [point(10, offset=1), point(11, offset=7)])
    swaps = [
        Swap(id=uuid.UUID(int=10), field="offset", expected=1, new={"offset": 2}),
        Swap(id=uuid.UUID(int=11), field="offset", expected=6, new={"offset": 8}),
    ]
    assert not await store.swap(GRAPH.name, swaps)
    assert (await store.get(GRAPH.name, [uuid.UUID(int=11)]))[uuid.UUID(int=11)].payload == {"offset": 7}


# --- filters and pages


async def test_pages_hold_every_point_once_in_the_order_of_ids(store: Store):
    numbers = [random.Random(n).randrange(10, 2**100) for n in range(57)]
    await store.upsert(CHUNKS.name, [point(one, vector=unit(1.0), kind="passage") for one in numbers])
    found: list[int] = []
    after = None
    while True:
        page, after = await store.scroll(CHUNKS.name, Where(kinds=("passage",)), limit=10, after=after)
        assert len(page) <= 10
        found += [one.id.int for one in page]
        if after is None:
            break
    assert found == sorted(numbers)


async def test_every_condition_given_must_hold(store: Store):
    projects, documents = [uuid.uuid4(), uuid.uuid4()], [uuid.uuid4(), uuid.uuid4()]
    for number, (project, document, kind) in enumerate(
        [(0, 0, "passage"), (0, 1, "passage"), (1, 0, "passage"), (0, 0, "concept")], start=10
    ):
        said = {"project_id": str(projects[project]), "document_id": str(documents[document]), "kind": kind}
        await store.upsert(CHUNKS.name, [point(number, vector=unit(1.0), **said)])
    passages = ("passage", "abstract")
    assert await ids(store, Where(project_id=projects[0], kinds=passages)) == [10, 11]
    assert await ids(store, Where(document_ids=(documents[0],), kinds=passages)) == [10, 12]
    assert await ids(store, Where(document_ids=tuple(documents), project_id=projects[0])) == [10, 11, 13]
    assert await ids(store, Where(project_id=uuid.uuid4())) == []


# --- search


async def test_the_nearest_by_dot_product_come_best_first(store: Store):
    vectors = {10: unit(1.0), 11: unit(1.0, 1.0), 12: unit(0, 1.0), 13: unit(-1.0), 14: b""}
    await store.upsert(CHUNKS.name, [point(n, vector=v, kind="k", text="t") for n, v in vectors.items()])
    found = await store.nearest(CHUNKS.name, unit(1.0, 0.1), Where(kinds=("k",)), limit=3, fields=("kind",))
    assert [one.id.int for one in found] == [10, 11, 12]
    assert [one.payload for one in found] == [{"kind": "k"}] * 3
    asked = np.frombuffer(unit(1.0, 0.1), dtype="<f4")
    dots = [float(np.dot(np.frombuffer(vectors[one.id.int], dtype="<f4"), asked)) for one in found]
    assert [one.score for one in found] == pytest.approx(dots, abs=1e-6)


async def test_a_rare_word_counts_more_and_no_common_word_is_no_hit(store: Store):
    often, rare, other = 1, 2, 3
    words = {10: [often, rare], 11: [often], 12: [often], 13: [often, other], 14: [other]}
    await store.upsert(
        CHUNKS.name,
        [point(n, vector=unit(1.0), words=Words(w, [1.0] * len(w)), kind="k") for n, w in words.items()],
    )
    asked = Words([often, rare], [1.0, 1.0])
    found = await store.nearest(CHUNKS.name, asked, Where(kinds=("k",)), limit=10, fields=())
    assert {one.id.int for one in found} == {10, 11, 12, 13}
    assert found[0].id.int == 10
    assert found[0].score > 2 * found[1].score


async def test_search_keeps_to_the_filter(store: Store):
    mine, theirs = uuid.uuid4(), uuid.uuid4()
    for number, project in ((10, mine), (11, theirs)):
        one = point(number, vector=unit(1.0), words=Words([5], [1.0]), project_id=str(project))
        await store.upsert(CHUNKS.name, [one])
    for query in (unit(1.0), Words([5], [1.0])):
        found = await store.nearest(CHUNKS.name, query, Where(project_id=mine), limit=10, fields=())
        assert [one.id.int for one in found] == [10]


# --- opening


async def test_what_was_written_and_flushed_is_there_for_the_next_process(world: World):
    first = await world.store()
    await first.open(CHUNKS)
    await first.upsert(CHUNKS.name, [point(10, vector=unit(1.0), words=Words([5], [1.0]), kind="k")])
    await first.flush()
    second = await world.store()
    await second.open(CHUNKS)
    (found,) = (await second.get(CHUNKS.name, [uuid.UUID(int=10)], with_vector=True)).values()
    assert (found.payload, found.vector) == ({"kind": "k"}, unit(1.0))
    hits = await second.nearest(CHUNKS.name, Words([5], [1.0]), Where(), limit=10, fields=())
    assert [one.id.int for one in hits] == [10]


@pytest.mark.parametrize("changed", [{"space": "openai/other@8:1"}, {"keywords": "k2"}])
async def test_a_collection_made_for_another_space_or_other_keywords_is_refused(world: World, changed):
    first = await world.store()
    await first.open(CHUNKS)
    await first.flush()
    other = Collection(name=CHUNKS.name, dims=DIMS, **({"space": SPACE, "keywords": "k1"} | changed))
    with pytest.raises(StoreMismatch, match=next(iter(changed.values()))):
        await (await world.store()).open(other)


async def test_opening_twice_changes_nothing(store: Store):
    await store.upsert(CHUNKS.name, [point(10, vector=unit(1.0))])
    await store.open(CHUNKS)
    await store.flush()
    assert uuid.UUID(int=10) in await store.get(CHUNKS.name, [uuid.UUID(int=10)])


async def test_a_store_that_was_taken_away_is_noticed_before_anything_is_called_flushed(
    world: World, store: Store
):
    await store.upsert(CHUNKS.name, [point(10, vector=unit(1.0))])
    await store.check()
    await world.lose()
    if not isinstance(world, EdgeWorld):
        # In memory a missing collection is no answer of a server: what counts is the one that another makes.
        await (await world.store()).open(GRAPH)
        await (await world.store()).open(CHUNKS)
    with pytest.raises(StoreLost):
        await store.check()
    with pytest.raises(StoreLost):
        await store.flush()


# --- both stores answer alike


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
async def test_both_stores_find_the_same_and_our_scale_is_that_of_the_server(tmp_path: Path):
    """The same sparse vectors, the same lists, and unweighted our fusion is qdrant's own DBSF."""
    keywords, chance = Keywords(), random.Random(11)
    vocabulary = ["gene", "WAS", "protein", "cell", "2019", "folding", "naïve", "基因", "river", "stone"]
    texts = [" ".join(chance.choices(vocabulary, k=chance.randint(3, 20))) for _ in range(80)]
    points = [
        point(10 + n, vector=unit(*(chance.gauss(0, 1) for _ in range(DIMS))), words=keywords.of_text(text))
        for n, text in enumerate(texts)
    ]
    asked = unit(*(chance.gauss(0, 1) for _ in range(DIMS))), keywords.of_query("naive WAS gene")
    lists = []
    for kind in ("edge", "memory"):
        world = make_world(kind, tmp_path)
        store = await world.store()
        await store.open(CHUNKS)
        await store.upsert(CHUNKS.name, points)
        lists.append([await store.nearest(CHUNKS.name, one, Where(), limit=30, fields=()) for one in asked])
        await store.flush()
        await world.close()
    for here, there in zip(*lists, strict=True):
        assert {one.id: one.score for one in here} == pytest.approx(
            {one.id: one.score for one in there}, rel=1e-4
        )
    fused = [
        fuse({"meaning": [(h.id, h.score) for h in m], "words": [(h.id, h.score) for h in w]})
        for m, w in lists
    ]
    assert [one.id for one in fused[0]] == [one.id for one in fused[1]]

    shard = edge.EdgeShard.load(str(tmp_path / "store" / CHUNKS.name))
    dense = edge.Query.Nearest(np.frombuffer(asked[0], dtype="<f4").tolist(), DENSE)
    sparse = edge.Query.Nearest(edge.SparseVector(list(asked[1].indices), list(asked[1].values)), WORDS)
    native = shard.query(
        edge.QueryRequest(
            prefetches=[edge.Prefetch(query=one, limit=30) for one in (dense, sparse)],
            query=edge.Fusion.Dbsf(),
            limit=60,
        )
    )
    shard.close()
    unweighted: dict[uuid.UUID, float] = {}
    for hits in lists[0]:
        for hit, score in zip(hits, scaled([hit.score for hit in hits]), strict=True):
            unweighted[hit.id] = unweighted.get(hit.id, 0.0) + score
    assert {one.id: one.score for one in native} == pytest.approx(unweighted, rel=1e-3)
