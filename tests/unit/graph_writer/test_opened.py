import shutil
from dataclasses import replace

import pytest
from tests.unit.graph_writer.story import SPACE, Content
from tests.unit.graph_writer.world import PARTITIONS, World, points_of

from eventlog.events import ChunksSettled, StoreOpened
from eventlog.log import NewRecord, TopicPartition
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.core import ReadTo
from graph_writer.opened import GRAPH, OpenedStore, collection_of
from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import StoreLost, StoreMismatch

AT = TopicPartition(EMBEDDINGS, 0)
COLLECTION = collection_of(SPACE).name


async def brought(world: World, **said: object) -> Content:
    content = replace(Content(text=("one", "two")), revision=await world.request(), **said)
    await world.bring(content)
    return content


async def test_a_store_keeps_its_id_and_a_new_one_has_another(world: World):
    first = await world.start()
    again = await world.restart(first)
    assert again.opened.id == first.opened.id
    await again.die()
    shutil.rmtree(world.folder)
    assert (await world.start()).opened.id != first.opened.id


async def test_store_opened_names_exactly_the_assigned_partitions_of_every_collection(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    assigned = frozenset({TopicPartition(EMBEDDINGS, one) for one in (0, 3, 47)})
    starts = await process.writer.assigned(assigned)
    said = world.said(StoreOpened)[-1]
    assert said.store_id == process.opened.id
    assert {(at.collection, at.partition) for at in said.positions if at.topic == EMBEDDINGS} == {
        (name, one) for name in (GRAPH.name, COLLECTION) for one in (0, 3, 47)
    }
    assert len(said.positions) == 6
    assert starts == {AT: 3, TopicPartition(EMBEDDINGS, 3): 0, TopicPartition(EMBEDDINGS, 47): 0}


async def test_a_new_process_goes_on_where_the_store_is(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    process = await world.restart(process)
    assert process.next[AT] == 3
    assert {one.offset for one in world.said(StoreOpened)[-1].positions if one.partition == 0} >= {3}


async def test_what_was_written_and_not_yet_said_comes_again(world: World):
    process = await world.start()
    await brought(world)
    await process.take_all()
    process = await world.restart(process)
    assert process.next[AT] == 0


async def test_a_collection_that_is_listed_but_gone_begins_at_the_beginning(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    before = await points_of(process)
    await process.die()
    shutil.rmtree(world.folder / COLLECTION)
    process = await world.start()
    assert process.next[AT] == 0
    assert {at.offset for at in world.said(StoreOpened)[-1].positions if at.collection == COLLECTION} == {0}
    await process.catch_up()
    assert await points_of(process) == before


async def test_a_new_collection_starts_where_the_graph_is(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    process = await world.restart(process)
    positions = process.opened.positions
    assert positions[COLLECTION] == positions[GRAPH.name]


async def test_a_position_moves_only_from_the_value_last_seen(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    other = ReadTo(offset=1, record_offset=0, record_id="x")
    stale = OpenedStore(process.store)
    await stale.open(PARTITIONS)
    process.opened.positions[GRAPH.name][AT] = other  # type: ignore[index]  # a store restored under this process
    with pytest.raises(StoreLost):
        await process.opened.advance({AT: ReadTo(offset=9, record_offset=8, record_id="y")})


async def test_a_log_that_was_wiped_under_a_kept_store_is_refused(world: World, tmp_path):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    other = World(tmp_path / "other")
    await other.project()
    with pytest.raises(StoreMismatch, match="ends before"):
        await process.opened.check_log(other._log)
    await other.request()
    for _ in range(3):
        await brought(other, name="voyage")
    with pytest.raises(StoreMismatch, match="another record"):
        await process.opened.check_log(other._log)


async def test_a_log_that_has_no_record_where_the_store_read_one_is_refused(world: World):
    process = await world.start()
    decider = await process.log.decider("other")
    (position,) = await decider.commit([NewRecord(topic=IMPORTS, key=None, value=b"?", partition=0)])
    mark = ReadTo(offset=position.offset + 2, record_offset=position.offset + 1, record_id="x")
    process.opened.positions[GRAPH.name][TopicPartition(IMPORTS, 0)] = mark  # type: ignore[index]  # as another log left it
    with pytest.raises(StoreMismatch, match="does not hold"):
        await process.opened.check_log(process.log)


async def test_history_that_retention_took_proves_nothing_and_is_no_mismatch(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    world.broker.cut(EMBEDDINGS, 0, 3)
    await process.opened.check_log(process.log)


async def test_a_store_behind_the_begin_of_the_log_goes_on_from_there_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
):
    await brought(world)
    world.broker.cut(EMBEDDINGS, 0, 2)
    process = await world.start()
    assert process.next[AT] == 2
    (line,) = [one for one in caplog.records if one.msg == "history.gone"]
    assert (line.fields["partition"], line.fields["position"], line.fields["begin"]) == (0, 0, 2)


async def test_a_collection_of_other_keywords_is_refused(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    await process.die()
    lock = FolderLock(world.folder)
    assert lock.take()
    store = EdgeStore(world.folder, lock)
    with pytest.raises(StoreMismatch, match="keywords"):
        await store.open(replace(collection_of(SPACE), keywords="other"))
    await store.close()


async def test_a_damaged_shard_is_refused_with_its_name(world: World):
    process = await world.start()
    await brought(world)
    await process.catch_up()
    await process.die()
    for path in (world.folder / GRAPH.name / "segments").rglob("*.json"):
        path.write_text("{")
    with pytest.raises(StoreMismatch, match="graph cannot be read"):
        await world.start()


async def test_a_folder_restored_in_place_is_not_the_one_that_was_opened(world: World):
    process = await world.start()
    world.save()
    for _ in range(20):  # the number of a deleted folder is soon given to another
        world.restore()
        with pytest.raises(StoreLost):
            await process.store.check()


async def test_the_folder_has_one_holder(world: World):
    process = await world.start()
    second = FolderLock(world.folder)
    assert not second.take()
    await process.die()
    assert second.take()
    second.release()
    await world.start()


def test_a_collection_says_its_space_and_what_is_no_space_is_refused():
    assert collection_of(SPACE).space == SPACE
    assert collection_of(SPACE).dims == 8
    with pytest.raises(ValueError, match="not a model"):
        collection_of("nonsense")


async def test_a_copy_that_is_brought_back_after_another_store_says_everything_again(world: World):
    """What it had settled was forgotten when the other one opened, and stands before its positions."""
    process = await world.start()
    await brought(world)
    await process.catch_up()
    store_id = process.opened.id
    world.save()
    shutil.rmtree(world.folder)
    process = await world.restart(process)
    assert process.opened.id != store_id
    world.restore()
    process = await world.restart(process)
    opened = world.said(StoreOpened)[-1]
    assert opened.store_id == store_id
    assert {one.offset for one in opened.positions} == {0}
    await process.catch_up()
    settled = [one for one in world.said(ChunksSettled) if one.store_id == store_id]
    assert settled[0].chunks == settled[-1].chunks
    assert len(settled) == 2
    process = await world.restart(process)
    assert max(one.offset for one in world.said(StoreOpened)[-1].positions) > 0, "once is enough"
