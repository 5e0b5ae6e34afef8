"""The order of write, flush, say, advance; and waiting out a store that does not answer."""

import asyncio
import shutil
from collections.abc import Mapping

import pytest
from tests.unit.graph_writer.story import Content
from tests.unit.graph_writer.world import PARTITIONS, Process, World

from eventlog.events import ChunksSettled, StoreOpened, WritingContinued, WritingPaused
from eventlog.log import TopicPartition
from eventlog.memory import Crash, Fault
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.opened import GRAPH
from graph_writer.publish import PENDING_MAX
from graph_writer.stores.store import StoreAway, StoreLost

AT = TopicPartition(EMBEDDINGS, 0)


async def brought(world: World, process: Process, count: int = 2) -> None:
    content = Content(text=tuple(f"text {n}" for n in range(count - 1)), revision=await world.request())
    await world.bring(content)
    process.store.calls.clear()


def offset(process: Process) -> int:
    return process.opened.positions[GRAPH.name][AT].offset


async def test_nothing_is_said_before_the_store_has_flushed(world: World, process: Process):
    await brought(world, process)
    await process.take_all()
    assert world.said(ChunksSettled) == []
    process.store.faults["flush"] = [StoreLost("gone")]
    with pytest.raises(StoreLost):
        await process.publisher.cycle()
    assert world.said(ChunksSettled) == []
    assert offset(process) == 0


async def test_a_position_advances_only_after_the_log_has_what_was_said(world: World, process: Process):
    await brought(world, process)
    await process.take_all()
    world.broker.fail(IMPORTS, Fault.CRASH_BEFORE)
    with pytest.raises(Crash):
        await process.publisher.cycle()
    assert process.store.calls[-1] == "flush"
    process = await world.restart(process)
    assert process.next[AT] == 0
    await process.catch_up()
    assert len(world.said(ChunksSettled)) == 1
    assert offset(process) == 2


async def test_a_death_between_saying_and_advancing_says_it_twice(world: World, process: Process):
    await brought(world, process)
    await process.take_all()
    world.broker.fail(IMPORTS, Fault.CRASH_AFTER)
    with pytest.raises(Crash):
        await process.publisher.cycle()
    process = await world.restart(process)
    await process.catch_up()
    first, second = world.said(ChunksSettled)
    assert first.chunks == second.chunks


async def test_what_the_log_refuses_is_sent_again_until_it_has_it(world: World, process: Process):
    await brought(world, process)
    await process.take_all()
    world.broker.fail(IMPORTS, Fault.REFUSE)
    await process.publisher.cycle()
    assert len(world.said(ChunksSettled)) == 1
    assert process.health.is_ready is False
    assert "log_down" not in process.health.reasons


async def test_after_a_new_assignment_what_was_not_said_comes_again(world: World, process: Process):
    await brought(world, process)
    await process.take_all()
    starts = await process.writer.assigned(frozenset({AT}))
    assert starts == {AT: 0}
    await process.publisher.cycle()
    assert world.said(ChunksSettled) == []


async def test_a_store_that_is_gone_is_not_said_to_be_open(world: World, process: Process):
    """Also where the assignment comes before the next flush could notice."""
    await brought(world, process)
    await process.catch_up()
    opened = len(world.said(StoreOpened))
    shutil.rmtree(world.folder)
    with pytest.raises(StoreLost):
        await process.writer.assigned(frozenset({AT}))
    assert len(world.said(StoreOpened)) == opened


async def test_a_batch_from_before_an_assignment_changes_nothing(world: World, process: Process):
    await brought(world, process)
    records, _ = world.broker.partition(EMBEDDINGS, 0).read(0, 5)
    async with process.writer._batch:
        late = asyncio.create_task(process.writer.handle(records))
        await asyncio.sleep(0)
        process.writer._epoch += 1
    await late
    assert "upsert" not in process.store.calls


class Reassigned:
    """While the writer asks how far it is, all partitions but one go to another member; nothing comes after that."""

    is_busy = False
    next_offsets: Mapping[TopicPartition, int] = {}

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asked_count = 0
        self.asked_thrice = asyncio.Event()

    async def passed(self) -> dict[TopicPartition, tuple[int, int]]:
        self._asked_count += 1
        if self._asked_count > 2:
            self.asked_thrice.set()
        if self._asked_count > 1:
            return {}
        await self._process.writer.assigned(frozenset({AT}))
        return dict.fromkeys(PARTITIONS, (1_000, 0))

    def is_stuck(self) -> bool:
        return False


async def test_a_writer_that_is_assigned_anew_while_it_asks_how_far_it_is_goes_by_the_new_ends(
    world: World, process: Process
):
    await brought(world, process)
    await process.writer.assigned(PARTITIONS)
    process.writer.reading = reading = Reassigned(process)  # type: ignore[assignment]  # what `watch` needs of it
    watching = asyncio.create_task(process.writer.watch())
    asking = asyncio.create_task(reading.asked_thrice.wait())
    await asyncio.wait({watching, asking}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert asking.done(), "it goes on asking"
    assert not watching.done(), "nothing was wrong"
    assert "catching_up" in process.health.reasons
    watching.cancel()


async def test_too_much_that_waits_to_be_said_holds_the_next_batch_back(world: World, process: Process):
    await brought(world, process)
    records, _ = world.broker.partition(EMBEDDINGS, 0).read(0, 1)
    applied = await process.applier.apply(records)
    many = type(applied)(read_to=applied.read_to, settlements=applied.settlements * PENDING_MAX)
    await process.publisher.add(many)
    waiting = asyncio.create_task(process.publisher.add(applied))
    await asyncio.sleep(0)
    assert not waiting.done()
    await process.publisher.cycle()
    await asyncio.wait_for(waiting, 5)
    assert sum(len(one.chunks) for one in world.said(ChunksSettled)) == PENDING_MAX


async def test_a_store_that_is_away_is_waited_for_inside_the_batch_and_said_once_it_lasts(
    world: World, process: Process
):
    await brought(world, process)
    process.store.faults["upsert"] = [StoreAway("x", retry_after_s=0.0) for _ in range(3)]
    waits: list[list[str]] = []
    take = asyncio.create_task(process.take(AT))
    while not take.done():
        waits.append(process.health.reasons)
        process.clock.advance(1.5)
        await asyncio.sleep(0)
    await take
    assert any("store_down" in one for one in waits)
    assert "store_down" not in process.health.reasons
    (paused,), (continued,) = world.said(WritingPaused), world.said(WritingContinued)
    assert paused.store_id == continued.store_id == process.opened.id
    await process.publisher.cycle()
    assert sum(len(one.chunks) for one in world.said(ChunksSettled)) == 2


async def test_a_short_absence_is_not_said(world: World, process: Process):
    await brought(world, process)
    process.store.faults["upsert"] = [StoreAway("x", retry_after_s=0.0)]
    await process.take(AT)
    assert world.said(WritingPaused) == world.said(WritingContinued) == []


async def test_a_store_that_is_lost_is_not_waited_for(world: World, process: Process):
    await brought(world, process)
    process.store.faults["upsert"] = [StoreLost("x")]
    with pytest.raises(StoreLost):
        await process.take(AT)
