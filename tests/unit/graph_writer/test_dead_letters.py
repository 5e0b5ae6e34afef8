"""Poison: kept byte for byte, settled from its headers, and many in a row stop the consumer."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.graph_writer.story import BIB, OTHER_SPACE, PROJECT, SPACE, Content, vector_of
from tests.unit.graph_writer.world import Process, World, embeddings_record, imports_record

from eventlog.envelope import header
from eventlog.events import (
    ChunkOutcome,
    ChunksSettled,
    DocumentSettled,
    ProjectSpaceMoveStarted,
    SettledChunk,
)
from eventlog.log import NewRecord, TopicPartition
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.dead_letters import IN_ROW_MAX
from graph_writer.opened import GRAPH

AT = TopicPartition(EMBEDDINGS, 0)


def settled(world: World) -> list[SettledChunk]:
    return [chunk for one in world.said(ChunksSettled) for chunk in one.chunks]


def reasons(world: World) -> list[str]:
    return [header(one, "dlq_reason") for one in world.dead_letters()]


def broken(content: Content, value: bytes | None = b"\x00poison") -> NewRecord:
    return replace(embeddings_record(content.embedded(0)), value=value)


async def content_of(world: World, **changed: Any) -> Content:
    return replace(Content(), revision=await world.request(), **changed)


@pytest.mark.parametrize("value", [b"\x00poison", b"", None, b"\xff" * 40])
async def test_a_record_that_cannot_be_read_is_kept_byte_for_byte_and_settled_from_its_headers(
    world: World, process: Process, value: bytes | None
):
    content = await content_of(world)
    record = broken(content, value)
    await world.append(record)
    await world.embed(content.embedded(0))
    await process.catch_up()
    (letter,) = world.dead_letters()
    assert (letter.value, letter.key) == (value, record.key)
    assert letter.headers[: len(record.headers)] == record.headers
    assert (header(letter, "dlq_topic"), header(letter, "dlq_partition"), header(letter, "dlq_offset")) == (
        EMBEDDINGS,
        "0",
        "0",
    )
    dead, stored = settled(world)
    assert (dead.outcome, dead.chunk_id, dead.offset) == (ChunkOutcome.DEAD_LETTERED, content.chunk_id(0), 0)
    assert stored.outcome is ChunkOutcome.STORED


async def test_a_record_that_nothing_names_is_kept_and_passed(world: World, process: Process):
    await world.append(NewRecord(topic=EMBEDDINGS, key=b"k", value=b"noise", partition=0))
    content = await content_of(world)
    await world.embed(content.embedded(0))
    await process.catch_up()
    assert len(world.dead_letters()) == 1
    assert [one.outcome for one in settled(world)] == [ChunkOutcome.STORED]


async def test_the_same_record_is_put_there_once_over_deaths(world: World, process: Process):
    await world.append(broken(await content_of(world)))
    for _ in range(3):
        await process.take_all()
        process = await world.restart(process)
    await process.catch_up()
    assert len(world.dead_letters()) == 1
    assert len(settled(world)) == 1
    assert process.dead_letters.in_row == 1, "a record that comes again is no further one"


VECTOR = np.frombuffer(vector_of("x"), dtype="<f4")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"space": "nonsense"}, "space_invalid"),
        ({"space": "openai/test-embedding@8"}, "space_invalid"),
        ({"space": OTHER_SPACE}, "space_foreign"),
        ({"dims": 7}, "vector_invalid"),
        ({"vector": vector_of("x", 4)}, "vector_invalid"),
        ({"vector": (VECTOR * 2).tobytes()}, "vector_invalid"),
        ({"vector": (VECTOR * 0).tobytes()}, "vector_invalid"),
        ({"vector": np.full(8, np.nan, dtype="<f4").tobytes()}, "vector_invalid"),
        ({"vector": np.full(8, np.inf, dtype="<f4").tobytes()}, "vector_invalid"),
    ],
)
async def test_a_vector_that_does_not_belong_is_refused(
    world: World, process: Process, changed: dict[str, Any], reason: str
):
    content = await content_of(world)
    await world.embed(content.embedded(0, **changed))
    await process.catch_up()
    assert reasons(world) == [reason]
    (only,) = settled(world)
    assert only.outcome is ChunkOutcome.DEAD_LETTERED
    collections = [one.space for one in process.opened.collections if one is not GRAPH]
    assert collections == [], "nothing was made for it"


async def test_a_space_that_the_project_is_being_moved_to_is_not_foreign(world: World, process: Process):
    await world.say(
        ProjectSpaceMoveStarted(
            occurred_at=Content().head["occurred_at"],
            project_id=PROJECT,
            space=OTHER_SPACE,
            space_before=SPACE,
        )
    )
    content = await content_of(world, space=OTHER_SPACE)
    await world.embed(content.embedded(0))
    await process.catch_up()
    assert [one.outcome for one in settled(world)] == [ChunkOutcome.STORED]


async def test_a_revision_at_or_past_the_end_of_imports_is_poison(world: World, process: Process):
    content = await content_of(world)
    ends = await process.log.ends(IMPORTS)
    await world.embed(content.at(ends[0]).embedded(0))
    await process.catch_up()
    assert reasons(world) == ["revision_unknown"]


async def test_a_revision_that_the_fold_has_not_passed_is_waited_for(world: World):
    process = await world.start()
    process._folding.cancel()  # type: ignore[union-attr]  # this test lets the fold run when it says so
    await asyncio.sleep(0)
    content = await content_of(world)
    await world.embed(content.embedded(0))
    taking = asyncio.create_task(process.take(AT))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not taking.done()
    process._folding = asyncio.create_task(process.projects.run())
    await asyncio.wait_for(taking, 10)
    await process.publisher.cycle()
    assert [one.outcome for one in settled(world)] == [ChunkOutcome.STORED]


async def test_a_wrong_type_or_a_missing_header_is_poison(world: World, process: Process):
    content = await content_of(world)
    record = embeddings_record(content.embedded(0))
    bare = replace(record, headers=tuple(one for one in record.headers if one[0] != "paperlog_kind"))
    await world.append(bare, replace(imports_record(content.parsed()), topic=EMBEDDINGS, partition=0))
    await process.catch_up()
    assert reasons(world) == ["headers_invalid", "type_unexpected"]


async def test_poison_on_imports_is_kept_and_the_neighbours_go_through(world: World, process: Process):
    content = await content_of(world)
    offset = await world.bring(content)
    await world.append(
        NewRecord(topic=IMPORTS, key=b"k", value=b"noise", partition=0),
        replace(imports_record(content.parsed()), value=b"\x00"),
        imports_record(content.settled(offset - 1, BIB)),
    )
    await world.say(content.settled(offset, BIB))
    await process.catch_up()
    assert reasons(world) == ["headers_invalid", "frame_invalid", "parsed_offset_invalid"]
    assert [one.outcome for one in world.said(DocumentSettled)] == [ChunkOutcome.STORED]


# --- many in a row


async def test_many_in_a_row_stop_the_consumer_over_a_restart_until_an_operator_decides(
    world: World, process: Process
):
    content = await content_of(world)
    await world.append(*[broken(content, b"\x00%d" % n) for n in range(IN_ROW_MAX + 1)])
    while len(world.dead_letters()) < IN_ROW_MAX + 1:
        await process.take(AT, 1)
    await world.embed(content.embedded(0))
    assert "dead_letters" in process.health.reasons

    process = await world.restart(process)
    assert process.dead_letters.in_row >= IN_ROW_MAX + 1
    taking = asyncio.create_task(process.take(AT, 50))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not taking.done(), "nothing is drained in slices"
    await process.dead_letters.go_on()
    await asyncio.wait_for(taking, 10)
    assert "dead_letters" not in process.health.reasons
    await process.publisher.cycle()
    assert settled(world)[-1].outcome is ChunkOutcome.STORED


async def test_a_good_record_ends_the_row(world: World, process: Process):
    content = await content_of(world)
    for _ in range(2):
        await world.append(*[broken(content, b"\x00%d" % n) for n in range(IN_ROW_MAX)])
        await world.embed(content.embedded(0))
    await process.catch_up()
    assert process.dead_letters.in_row == 0
    assert "dead_letters" not in process.health.reasons
