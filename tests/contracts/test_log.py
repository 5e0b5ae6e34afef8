"""What every implementation of the log keeps. Each test runs in memory and on a real Kafka."""

import asyncio
import gc

import pytest
from tests.contracts.containers import NEEDS_DOCKER, kafka_image
from tests.contracts.worlds import (
    MANY,
    ONE,
    TOPICS,
    Member,
    World,
    kafka_world,
    memory_world,
    read_all,
    record,
    texts,
    until,
    write,
)

from eventlog.errors import Fenced, RecordGone, TransientFailure, UnprocessableRecord
from eventlog.log import NewRecord, Record, TopicPartition, records_at
from eventlog.topics import RECORD_BYTES_MAX, Topic

HERE = TopicPartition(ONE, 0)


__all__ = ["kafka_image"]  # a fixture

LOGS = [
    "memory",
    pytest.param("kafka", marks=pytest.mark.kafka),
    pytest.param("image", marks=NEEDS_DOCKER),
]


@pytest.fixture(params=LOGS)
async def world(request: pytest.FixtureRequest):
    match request.param:
        case "memory":
            world = memory_world()
        case "kafka":
            world = kafka_world(
                request.getfixturevalue("kafka").bootstrap, request.getfixturevalue("kafka_prefix")
            )
        case "image":
            world = kafka_world(
                request.getfixturevalue("kafka_image"), request.getfixturevalue("kafka_prefix")
            )
    yield world
    await world.close()


# --- writing and reading


async def test_an_acknowledged_record_stands_where_the_acknowledgement_says(world: World):
    log = await world.log()
    sent = NewRecord(
        topic=MANY, key=b"k", value=b"v", headers=(("a", b"1"), ("a", b"2"), ("b", b"")), partition=2
    )
    (position,) = await write(log, sent)
    found = await log.read_at(position.topic, position.partition, position.offset)
    assert (found.topic, found.partition, found.offset) == (MANY, 2, 0)
    assert (found.key, found.value, found.headers) == (sent.key, sent.value, sent.headers)
    assert found.timestamp_ms > 0


async def test_records_of_one_partition_keep_the_order_in_which_they_were_sent(world: World):
    log = await world.log()
    positions = await write(log, *(record(str(number)) for number in range(200)))
    assert [one.offset for one in positions] == list(range(200))
    assert texts(await read_all(log)) == [str(number) for number in range(200)]


async def test_records_with_one_key_meet_in_one_partition(world: World):
    log = await world.log()
    positions = await write(
        log, *(record("v", topic=MANY, partition=None, key=f"k{n % 8}") for n in range(32))
    )
    homes = {n: {one.partition for one in positions[n::8]} for n in range(8)}
    assert all(len(home) == 1 for home in homes.values())
    assert len(set.union(*homes.values())) > 1


async def test_a_null_value_is_delivered_as_null(world: World):
    log = await world.log()
    await write(log, NewRecord(topic=ONE, key=b"k", value=None, partition=0))
    assert [one.value for one in await read_all(log)] == [None]


async def test_a_record_that_is_too_large_is_refused_and_the_writer_goes_on(world: World):
    log = await world.log()
    writer = await log.writer()
    with pytest.raises(UnprocessableRecord, match="record_too_large"):
        await writer.send(record("x" * RECORD_BYTES_MAX))
    position = await (await writer.send(record("small")))
    await writer.close()
    assert position.offset == 0


async def test_the_largest_record_that_is_taken_can_be_read(world: World):
    log = await world.log()
    empty = record("", key="k").size_bytes
    noise = bytes((n * n * 7919 + n) % 251 for n in range(RECORD_BYTES_MAX - empty))
    await write(log, NewRecord(topic=ONE, key=b"k", value=noise, partition=0), record("after"))
    found = await read_all(log)
    assert found[0].value == noise
    assert texts(found[1:]) == ["after"]


async def test_a_closed_writer_takes_nothing(world: World):
    log = await world.log()
    writer = await log.writer()
    await writer.close()
    with pytest.raises(TransientFailure):
        await writer.send(record("late"))
    await writer.close()


# --- transactions


async def test_a_decision_is_appended_whole_and_in_order(world: World):
    log = await world.log()
    decider = await log.decider("leader")
    positions = await decider.commit([record("a"), record("b"), record("c", topic=MANY, partition=3)])
    await decider.close()
    assert [one.offset for one in positions] == [0, 1, 0]
    await visible(log, 2)
    assert texts(await read_all(log)) == ["a", "b"]
    assert texts(await read_all(log, MANY)) == ["c"]


async def visible(log, offset: int) -> None:
    """A decision is visible a moment after it was made: wait until readers may pass `offset`."""
    async with asyncio.timeout(10):
        while (await log.ends(ONE))[0] <= offset:  # noqa: ASYNC110 - the broker tells nobody when it is visible
            await asyncio.sleep(0.01)


async def test_a_reader_at_the_end_stands_at_the_end_although_a_marker_is_the_last(world: World):
    log = await world.log()
    decider = await log.decider("leader")
    await decider.commit([record("a")])
    await visible(log, 1)
    assert await log.ends(ONE) == {0: 2}
    assert texts(await read_all(log)) == ["a"]  # would find no end, were the marker not passed
    with pytest.raises(RecordGone):
        await log.read_at(ONE, 0, 1)
    await decider.close()


async def test_a_newer_decider_fences_the_older(world: World):
    log, other = await world.log(), await world.log()
    older = await log.decider("leader")
    await older.commit([record("old")])
    newer = await other.decider("leader")
    with pytest.raises(Fenced):
        await older.commit([record("lost")])
    await newer.commit([record("new")])
    with pytest.raises(Fenced):
        await older.commit([record("lost again")])
    await visible(log, 3)
    assert "lost" not in " ".join(texts(await read_all(log)))
    assert texts(await read_all(log)) == ["old", "new"]
    await older.close()
    await newer.close()


async def test_deciders_under_different_ids_do_not_meet(world: World):
    log = await world.log()
    one, two = await log.decider("one"), await log.decider("two")
    await one.commit([record("a")])
    await two.commit([record("b")])
    await one.commit([record("c")])
    assert texts(await read_all(log)) == ["a", "b", "c"]
    await one.close()
    await two.close()


async def test_a_decision_under_way_while_another_takes_over_is_made_wholly_or_not_at_all(world: World):
    log, other = await world.log(), await world.log()
    older = await log.decider("leader")

    async def decide() -> set[int]:
        """How many records may stand in the log."""
        try:
            await older.commit([record(str(number)) for number in range(2000)])
        except Fenced:
            return {0}
        except TransientFailure:
            # Rarely, Kafka answers the end of a transaction that is being fenced with UNKNOWN_SERVER_ERROR.
            return {0, 2000}
        return {2000}

    under_way = asyncio.create_task(decide())
    await asyncio.sleep(0)
    newer = await other.decider("leader")
    made = await under_way
    (winner,) = await newer.commit([record("winner")])
    await visible(log, winner.offset + 1)
    assert len(await read_all(log)) - 1 in made
    await older.close()
    await newer.close()


async def test_a_decision_that_is_too_large_breaks_nothing(world: World):
    log = await world.log()
    decider = await log.decider("leader")
    with pytest.raises(UnprocessableRecord):
        await decider.commit([record("small"), record("x" * RECORD_BYTES_MAX)])
    (position,) = await decider.commit([record("next")])
    assert position.offset == 0
    await decider.close()


async def test_deciding_nothing_writes_nothing(world: World):
    log = await world.log()
    decider = await log.decider("leader")
    assert await decider.commit([]) == []
    assert await log.ends(ONE) == {0: 0}
    await decider.close()


async def test_two_tasks_may_decide_through_one_decider(world: World):
    log = await world.log()
    decider = await log.decider("leader")
    await asyncio.gather(*(decider.commit([record(str(number))]) for number in range(5)))
    await visible(log, 9)
    assert sorted(texts(await read_all(log))) == ["0", "1", "2", "3", "4"]
    await decider.close()


# --- readers


async def test_a_reader_begins_where_it_is_told_and_moves_by_seek(world: World):
    log = await world.log()
    await write(log, *(record(str(number)) for number in range(10)))
    reader = await log.reader({HERE: 7})
    assert await reader.position(HERE) == 7
    assert texts(await polled(reader, 3)) == ["7", "8", "9"]
    reader.seek(HERE, 2)
    assert await reader.position(HERE) == 2
    assert texts(await polled(reader, 1)) == ["2"]
    assert await reader.position(HERE) == 3
    await reader.close()


async def polled(reader, count: int) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await reader.poll(records_max=count - len(found), timeout_s=0.1)
    return found


async def test_a_poll_waits_for_what_comes(world: World):
    log = await world.log()
    reader = await log.reader({HERE: 0})
    assert await reader.poll(records_max=5, timeout_s=0.05) == []
    waiting = asyncio.create_task(reader.poll(records_max=5, timeout_s=20))
    await write(log, record("late"))
    assert texts(await waiting) == ["late"]
    await reader.close()


async def test_a_poll_does_not_wait_behind_the_mark_of_a_transaction(world: World):
    """Whoever reads to the end would else wait as long as a poll may last, for the end stands behind the mark."""
    log = await world.log()
    decider = await log.decider("leader")
    await decider.commit([record("a")])
    reader = await log.reader({HERE: 0})
    found = await polled(reader, 1)
    async with asyncio.timeout(20):
        while await reader.position(HERE) < (await log.ends(HERE.topic))[HERE.partition]:
            found += await reader.poll(records_max=5, timeout_s=60)
    assert texts(found) == ["a"]
    await reader.close()
    await decider.close()


async def test_a_reader_outside_the_log_is_told_until_it_seeks(world: World):
    log = await world.log()
    await write(log, record("a"))
    reader = await log.reader({HERE: 5})
    for _ in range(2):
        with pytest.raises(RecordGone):
            await polled(reader, 1)
    reader.seek(HERE, 0)
    assert texts(await polled(reader, 1)) == ["a"]
    await reader.close()


@pytest.mark.parametrize("offset", [-1, 1, 99])
async def test_reading_one_record_outside_the_log_raises(world: World, offset: int):
    log = await world.log()
    await write(log, record("a"))
    with pytest.raises(RecordGone):
        await log.read_at(ONE, 0, offset)


async def test_single_reads_in_any_order_give_exactly_the_record_that_was_asked_for(world: World):
    log = await world.log()
    await write(log, *(record(f"{n}", topic=MANY, partition=n % 4) for n in range(400)))
    for number in (399, 0, 7, 8, 250, 251, 3, 399, 12):
        found = await log.read_at(MANY, number % 4, number // 4)
        assert (found.partition, found.offset, texts([found])) == (number % 4, number // 4, [f"{number}"])


async def test_records_of_many_partitions_are_found_side_by_side_and_what_is_not_there_is_left_out(
    world: World,
):
    log = await world.log()
    await write(log, *(record(f"{n}", topic=MANY, partition=n % 3) for n in range(30)))
    decider = await log.decider("leader")
    await decider.commit([record("a")])
    await visible(log, 1)
    places = {TopicPartition(MANY, 0): 9, TopicPartition(MANY, 1): 4, TopicPartition(MANY, 2): 10}
    an_empty_one, a_mark = TopicPartition(MANY, 3), TopicPartition(ONE, 0)
    places |= {an_empty_one: 0, a_mark: 1}
    found = await records_at(log, places)
    assert {at: (one.offset, *texts([one])) for at, one in found.items()} == {
        TopicPartition(MANY, 0): (9, "27"),
        TopicPartition(MANY, 1): (4, "13"),
    }
    assert await records_at(log, {}) == {}
    await decider.close()


async def test_single_reads_leave_no_answers_behind_for_the_collector(world: World):
    log = await world.log()
    await write(log, *(record(f"{n:02}" * 1_000) for n in range(400)))
    gc.collect()
    gc.disable()
    try:
        for offset in range(0, 400, 50):
            await log.read_at(ONE, 0, offset)
        left = [one for one in gc.get_objects() if type(one).__name__ == "PartitionRecords"]
    finally:
        gc.enable()
    assert len(left) <= 1


async def test_a_record_written_after_a_failed_single_read_is_found_by_the_next(world: World):
    log = await world.log()
    await write(log, record("a"))
    with pytest.raises(RecordGone):
        await log.read_at(ONE, 0, 1)
    await write(log, record("b"))
    assert texts([await log.read_at(ONE, 0, 1)]) == ["b"]


async def test_a_topic_tells_its_partitions_begins_and_ends(world: World):
    log = await world.log()
    await write(log, record("a", topic=MANY, partition=1))
    assert await log.partitions(MANY) == 4
    assert await log.begins(MANY) == {0: 0, 1: 0, 2: 0, 3: 0}
    assert await log.ends(MANY) == {0: 0, 1: 1, 2: 0, 3: 0}


async def test_a_topic_that_is_not_there_is_a_transient_failure(world: World):
    log = await world.log()
    with pytest.raises(TransientFailure):
        await log.partitions("nowhere")


async def test_topics_are_made_once_and_never_with_another_number_of_partitions(world: World):
    log = await world.log()
    await log.ensure_topics(TOPICS)
    other = Topic(name=MANY, partitions=5, retention_ms=-1, events=())
    with pytest.raises(ValueError, match="has 4 partitions, not 5"):
        await log.ensure_topics([other])


# --- groups


async def fill(log, count: int) -> set[str]:
    await write(log, *(record(f"r{number}", topic=MANY, partition=number % 4) for number in range(count)))
    return {f"r{number}" for number in range(count)}


async def test_a_new_group_reads_from_the_beginning_and_has_every_partition(world: World):
    log = await world.log()
    expected = await fill(log, 40)
    member = await Member.join(log)
    await member.read(lambda: len(member.got) >= 40)
    assert set(texts(member.got)) == expected
    assert member.events == [("assigned", 4)]
    assert {one.partition for one in member.reader.assignment()} == {0, 1, 2, 3}
    assert await member.reader.committed(TopicPartition(MANY, 0)) is None
    await member.reader.close()


async def test_a_group_goes_on_at_its_commits_and_delivers_again_what_was_not_committed(world: World):
    log = await world.log()
    await fill(log, 40)
    first = await Member.join(log)
    await first.read(lambda: len(first.got) >= 40)
    await first.reader.commit({TopicPartition(MANY, 0): 10, TopicPartition(MANY, 1): 7})
    assert await first.reader.committed(TopicPartition(MANY, 1)) == 7
    await first.reader.close()

    again = await Member.join(await world.log())
    await again.read(lambda: len(again.got) >= 23)
    assert {(one.partition, one.offset) for one in again.got} == (
        {(1, offset) for offset in range(7, 10)}
        | {(number, offset) for number in (2, 3) for offset in range(10)}
    )
    await again.reader.close()


async def test_a_second_member_takes_its_share_only_after_the_first_has_drained(world: World):
    log = await world.log()
    await fill(log, 40)
    drained = asyncio.Event()
    order: list[str] = []

    async def drain(_: frozenset[TopicPartition]) -> None:
        order.append("draining")
        await drained.wait()
        await first.commit_all()
        order.append("drained")

    first = await Member.join(log, on_revoked=drain)
    await first.read(lambda: len(first.got) >= 40)

    async def note(_: frozenset[TopicPartition]) -> None:
        order.append("second assigned")

    second = await Member.join(await world.log(), on_assigned=note)
    await first.read(lambda: "draining" in order)
    assert await second.reader.poll(records_max=5, timeout_s=0.1) == []
    drained.set()
    await until(lambda: len(second.reader.assignment()) == 2, "the second member has no share")
    await until(lambda: len(first.reader.assignment()) == 2, "the first member has too much")
    assert order == ["draining", "drained", "second assigned"]
    assert first.reader.assignment().isdisjoint(second.reader.assignment())

    await write(log, *(record(f"n{number}", topic=MANY, partition=number % 4) for number in range(8)))
    await asyncio.gather(first.read(lambda: len(first.got) >= 44), second.read(lambda: len(second.got) >= 4))
    assert {one for one in texts(first.got + second.got) if one[0] == "n"} == {f"n{n}" for n in range(8)}
    first.on_revoked = None
    await first.reader.close()
    await second.read(lambda: len(second.reader.assignment()) == 4)
    await second.reader.close()


async def test_a_commit_for_a_partition_that_went_to_another_is_a_transient_failure(world: World):
    log = await world.log()
    await fill(log, 4)
    first = await Member.join(log)
    await first.read(lambda: len(first.got) >= 4)
    second = await Member.join(await world.log())
    await first.read(lambda: len(second.reader.assignment()) == 2 and len(first.reader.assignment()) == 2)
    gone = next(iter(second.reader.assignment()))
    with pytest.raises(TransientFailure):
        await first.reader.commit({gone: 1})
    assert await second.reader.committed(gone) is None
    await first.reader.close()
    await second.reader.close()


async def test_an_assigned_callback_may_seek_and_the_first_poll_begins_there(world: World):
    log = await world.log()
    await fill(log, 40)

    async def seek(partitions: frozenset[TopicPartition]) -> None:
        for one in partitions:
            member.reader.seek(one, 8)

    member = await Member.join(log, on_assigned=seek)
    await member.read(lambda: len(member.got) >= 8)
    assert {one.offset for one in member.got} == {8, 9}
    await member.reader.close()


@pytest.mark.parametrize("which", ["assigned", "revoked"])
async def test_what_a_callback_raises_comes_out_of_poll(world: World, which: str):
    async def fail(_: frozenset[TopicPartition]) -> None:
        raise LookupError(which)

    log = await world.log()
    member = await Member.join(log, **{f"on_{which}": fail})
    second = None
    with pytest.raises(LookupError, match=which):
        await member.read(lambda: bool(member.events))
        second = await Member.join(await world.log())
        await member.read(lambda: False)
    await member.reader.close()
    if second is not None:
        await second.reader.close()


async def test_a_poll_of_given_partitions_gives_only_theirs(world: World):
    log = await world.log()
    await fill(log, 40)
    member = await Member.join(log)
    await member.read(lambda: len(member.got) >= 10, TopicPartition(MANY, 2))
    assert {one.partition for one in member.got} == {2}
    await member.read(lambda: len(member.got) >= 40)
    await member.reader.close()


async def test_a_paused_partition_gives_nothing_until_it_is_resumed(world: World):
    log = await world.log()

    async def pause(_: frozenset[TopicPartition]) -> None:
        member.reader.pause(TopicPartition(MANY, 1))

    member = await Member.join(log, on_assigned=pause)
    await member.read(lambda: bool(member.reader.assignment()))
    await fill(log, 8)
    await member.read(lambda: len(member.got) >= 6)
    assert await member.reader.poll(records_max=5, timeout_s=0.2) == []
    member.reader.resume(TopicPartition(MANY, 1))
    await member.read(lambda: len(member.got) >= 8)
    assert {one.partition for one in member.got[6:]} == {1}
    await member.reader.close()


async def test_a_member_that_comes_back_under_its_name_disturbs_nobody(world: World):
    log = await world.log(instance="a")
    other = await world.log(instance="b")
    await fill(log, 40)
    first = await Member.join(log)
    await first.read(lambda: bool(first.reader.assignment()))
    second = await Member.join(other)
    await first.read(lambda: len(second.reader.assignment()) == 2)
    await until(lambda: len(first.reader.assignment()) == 2, "no share")
    mine = first.reader.assignment()
    await first.reader.close()  # a named member says no goodbye
    before = list(second.events)

    back = await Member.join(await world.log(instance="a"))
    await back.read(lambda: bool(back.got))
    assert back.reader.assignment() == mine
    assert second.events == before
    await back.reader.close()
    await second.reader.close()


async def test_closing_twice_is_harmless(world: World):
    log = await world.log()
    member = await Member.join(log)
    reader = await log.reader({HERE: 0})
    decider = await log.decider("leader")
    for one in (member.reader, reader, decider, log):
        await one.close()
        await one.close()
