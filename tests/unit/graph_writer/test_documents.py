"""Documents that come again: new before old, part by part, whatever comes twice, late, or in another order."""

from dataclasses import replace
from uuid import UUID

import pytest
from tests.unit.graph_writer.story import BIB, DARWIN, PROJECT, SPACE, TEXT, Content, document
from tests.unit.graph_writer.world import Process, World, points_of

from eventlog import ids
from eventlog.events import ChunkOutcome, ChunksSettled, Creator, DocumentSettled
from eventlog.log import TopicPartition
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.core import marker_id
from graph_writer.graph import HAS_AUTHOR
from graph_writer.opened import GRAPH, collection_of
from graph_writer.stores.store import Where

COLLECTION = collection_of(SPACE).name
FIRST = Content(bib=("A title",), text=("one", "two"), concepts={"Finch": (0,)})
SECOND = replace(FIRST, bib=("Another title",), text=("two", "three"), concepts={})


async def bring(world: World, process: Process, content: Content, *parts: str) -> tuple[Content, int]:
    """The whole of it, closed for those parts."""
    content = content.at(await world.request())
    offset = await world.bring(content)
    await process.catch_up()
    if parts:
        await close(world, process, content, offset, *parts)
    return content, offset


async def close(
    world: World, process: Process, content: Content, offset: int, *parts: str
) -> DocumentSettled:
    await world.say(content.settled(offset, *parts))  # type: ignore[arg-type]  # parts are strings, too
    await process.catch_up()
    answer: DocumentSettled = world.said(DocumentSettled)[-1]
    return answer


async def texts(process: Process, name: str = "origin") -> list[str]:
    found, _ = await process.store.scroll(COLLECTION, Where(document_ids=(document(name),)), limit=100)
    return sorted(one.payload["text"] for one in found)


async def edges(process: Process, kind: str, name: str = "origin") -> int:
    where = Where(document_ids=(document(name),), kinds=(kind,))
    return len((await process.store.scroll(GRAPH.name, where, limit=100))[0])


async def label(process: Process) -> str:
    found = await process.store.get(GRAPH.name, [document("origin")])
    return str(found[document("origin")].payload["label"])


async def test_new_content_replaces_old_only_once_it_is_whole(world: World, process: Process):
    await bring(world, process, FIRST, BIB, TEXT)
    second, offset = await bring(world, process, SECOND)
    assert await texts(process) == ["A title", "Another title", "one", "three", "two", "two"]
    answer = await close(world, process, second, offset, BIB, TEXT)
    assert await texts(process) == ["Another title", "three", "two"]
    assert (answer.outcome, answer.revision) == (ChunkOutcome.STORED, second.revision)
    assert answer.swept_count > 0
    assert await label(process) == "Another title"


async def test_new_stands_before_old_goes(world: World, process: Process):
    await bring(world, process, FIRST, BIB, TEXT)
    second, offset = await bring(world, process, SECOND)
    process.store.calls.clear()
    await close(world, process, second, offset, BIB, TEXT)
    writing = process.store.calls[: process.store.calls.index("flush")]
    assert writing[0] == "upsert", "the mark comes before the sweep"
    assert "delete" in writing
    assert "upsert" not in writing[writing.index("delete") :]


async def test_a_metadata_only_import_takes_no_passage_away(world: World, process: Process):
    await bring(world, process, FIRST, BIB, TEXT)
    await bring(world, process, replace(SECOND, text=None), BIB)
    assert await texts(process) == ["Another title", "one", "two"]


async def test_a_part_that_failed_takes_no_good_one_away(world: World, process: Process):
    await bring(world, process, FIRST, BIB, TEXT)
    await bring(world, process, SECOND, BIB)
    assert await texts(process) == ["Another title", "one", "three", "two", "two"]


async def test_an_old_chunk_that_comes_late_is_superseded_and_not_written(world: World, process: Process):
    first = FIRST.at(await world.request())
    (offset,) = await world.say(first.parsed())
    await bring(world, process, SECOND, BIB, TEXT)
    before = await points_of(process)
    await world.embed(*first.chunks())
    await process.catch_up()
    said = [one for event in world.said(ChunksSettled) for one in event.chunks]
    late = [one for one in said if one.revision == first.revision]
    assert {one.outcome for one in late} == {ChunkOutcome.SUPERSEDED}
    assert await texts(process) == ["Another title", "three", "two"]
    after = await points_of(process)
    assert after[COLLECTION] == before[COLLECTION]
    answer = await close(world, process, first, offset, BIB, TEXT)
    assert answer.outcome is ChunkOutcome.SUPERSEDED
    assert await texts(process) == ["Another title", "three", "two"], "a mark never goes down"


async def test_two_revisions_closed_in_the_wrong_order_end_at_the_newer(world: World, process: Process):
    first, one = await bring(world, process, FIRST)
    second, two = await bring(world, process, SECOND)
    await close(world, process, second, two, BIB, TEXT)
    assert (await close(world, process, first, one, BIB, TEXT)).outcome is ChunkOutcome.SUPERSEDED
    assert await texts(process) == ["Another title", "three", "two"]
    assert await label(process) == "Another title"


@pytest.mark.parametrize("later", [1, 2])
async def test_a_closing_that_comes_twice_changes_nothing_and_is_answered_each_time(
    world: World, process: Process, later: int
):
    content, offset = await bring(world, process, FIRST, BIB, TEXT)
    before = await points_of(process)
    for _ in range(later):
        await close(world, process, content, offset, BIB, TEXT)
    assert await points_of(process) == before
    hashes = {one.content_hash for one in world.said(DocumentSettled)}
    assert len(hashes) == 1


async def test_an_older_parsing_that_comes_late_does_not_take_the_facts_back(world: World, process: Process):
    first = replace(FIRST, creators=(DARWIN, Creator(family="Wallace"))).at(await world.request())
    await bring(world, process, SECOND, BIB, TEXT)
    await world.say(first.parsed())
    await process.catch_up()
    assert await label(process) == "Another title"
    assert await edges(process, HAS_AUTHOR) == 1, "edges below the mark are not written"


async def test_facts_come_from_whoever_has_some(world: World, process: Process):
    first = FIRST.at(await world.request())
    passages = replace(SECOND, bib=None).at(await world.request())
    await world.say(passages.parsed(), first.parsed())
    await process.catch_up()
    assert await label(process) == "A title"
    await world.say(passages.parsed())
    await process.catch_up()
    assert await label(process) == "A title"


async def test_documents_that_share_a_text_and_a_concept_do_not_share_their_fate(
    world: World, process: Process
):
    other = replace(FIRST, name="voyage")
    await bring(world, process, FIRST, BIB, TEXT)
    await bring(world, process, other, BIB, TEXT)
    finch = ids.concept_id(PROJECT, "Finch")
    await bring(world, process, SECOND, BIB, TEXT)
    assert await texts(process, "voyage") == ["A title", "one", "two"]
    assert finch in await process.store.get(COLLECTION, [finch])
    assert finch in await process.store.get(GRAPH.name, [finch])
    assert await edges(process, "DISCUSSES_CONCEPT") == 0
    assert await edges(process, "DISCUSSES_CONCEPT", "voyage") == 1


async def test_an_author_of_two_documents_stays_while_one_of_them_drops_the_name(
    world: World, process: Process
):
    await bring(world, process, FIRST, BIB, TEXT)
    await bring(world, process, replace(FIRST, name="voyage"), BIB, TEXT)
    await bring(world, process, replace(FIRST, creators=()), BIB, TEXT)
    darwin = ids.author_id(PROJECT, "Darwin", "Charles")
    assert darwin in await process.store.get(GRAPH.name, [darwin])
    assert await edges(process, HAS_AUTHOR) == 0
    assert await edges(process, HAS_AUTHOR, "voyage") == 1


async def test_a_rejected_chunk_of_an_older_content_goes_with_it(world: World, process: Process):
    first = FIRST.at(await world.request())
    (offset,) = await world.say(first.parsed())
    await world.embed(*first.chunks()[:-1], first.rejected(3))
    await process.catch_up()
    marker = marker_id(first.chunk_id(3), SPACE)
    assert marker in await process.store.get(GRAPH.name, [marker])
    await close(world, process, first, offset, BIB, TEXT)
    assert marker in await process.store.get(GRAPH.name, [marker]), "the newest content keeps it, for verify"
    await bring(world, process, SECOND, BIB, TEXT)
    assert marker not in await process.store.get(GRAPH.name, [marker])


async def test_a_second_attempt_stores_what_the_first_could_not(world: World, process: Process):
    first = FIRST.at(await world.request())
    (offset,) = await world.say(first.parsed())
    await world.embed(*first.chunks()[:-1], first.rejected(3))
    await process.catch_up()
    again = first.at(first.revision, attempt=2)
    await world.embed(again.chunks()[3])
    await process.catch_up()
    await close(world, process, again, offset, BIB, TEXT)
    assert await texts(process) == ["A title", "one", "two"]
    await world.embed(first.rejected(3))
    await process.catch_up()
    assert await texts(process) == ["A title", "one", "two"], "the first attempt's word comes too late"


async def test_a_store_restored_between_its_flush_and_what_is_said_next_gives_it_again(
    world: World, process: Process
):
    content = FIRST.at(await world.request())
    offset = await world.bring(content)
    world.save()
    await process.catch_up()
    await close(world, process, content, offset, BIB, TEXT)
    whole = await points_of(process)
    await process.die()
    world.restore()
    process = await world.start()
    assert process.next[TopicPartition(EMBEDDINGS, 0)] == 0
    assert process.next[TopicPartition(IMPORTS, 0)] < offset
    await process.catch_up()
    await process.catch_up()
    assert await points_of(process) == whole


async def test_points_deleted_behind_the_back_come_back_with_a_replay(world: World, process: Process):
    content, offset = await bring(world, process, FIRST, BIB, TEXT)
    whole = await points_of(process)
    await process.store.delete(COLLECTION, [content.chunk_id(2)])
    await world.embed(content.at(content.revision, attempt=2).embedded(2))
    await process.catch_up()
    await close(world, process, content, offset, BIB, TEXT)
    assert await points_of(process) == whole


async def test_a_sweep_leaves_what_another_writer_has_meanwhile_put_there(world: World, process: Process):
    """The other writer is played by a write between the look of the sweep and its delete."""
    first, _ = await bring(world, process, FIRST, BIB, TEXT)
    second, offset = await bring(world, process, SECOND)
    third = FIRST.at(await world.request())
    looks, looked = process.applier.held, list[str]()

    async def held_then_written(collection: str, document_id: ids.DocumentId) -> object:
        found = await looks(collection, document_id)
        looked.append(collection)
        if looked.count(COLLECTION) == 1:  # it is looked once for both parts
            records = await world.embed(third.embedded(2))
            await process.applier.apply([await process.log.read_at(EMBEDDINGS, 0, records[0])])
        return found

    process.applier.held = held_then_written  # type: ignore[method-assign, assignment]  # the one place to step between
    await close(world, process, second, offset, BIB, TEXT)
    there = await process.store.get(COLLECTION, [first.chunk_id(2)])
    assert there[UUID(str(first.chunk_id(2)))].payload["revision"] == third.revision
