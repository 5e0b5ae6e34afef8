"""What cannot be read costs itself: it is buried once, its outcome is said, and many in a row stop the consumer."""

import asyncio
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.embedder.world import (
    GROUP,
    SCHEMAS,
    World,
    play,
)

from eventlog.envelope import header, seal
from eventlog.events import ChunkRejectionReason
from eventlog.log import NewRecord
from eventlog.topics import CHUNKS, RECORD_BYTES_MAX


def poison(world: World, kind: str, partition: int = 0) -> NewRecord:
    """A chunk's record with one thing wrong. Its text is never asked for."""
    good = seal(
        SCHEMAS, world.chunk(f"poison {kind}", index=90), topic=CHUNKS, source="x", partition=partition
    )
    assert good.value is not None
    match kind:
        case "random bytes":
            return replace(good, value=b"\x93\x11\xfe\x00 what is this")
        case "unknown schema":
            return replace(good, value=b"\x00" + struct.pack(">I", 7) + good.value[5:])
        case "truncated":
            return replace(good, value=good.value[:-9])
        case "trailing":
            return replace(good, value=good.value + b"\x00")
        case "null":
            return replace(good, value=None)
        case "no headers":
            return replace(good, headers=())
        case "wrong type":
            rejected = world.rejection()
            return replace(good, value=SCHEMAS.encode(rejected)[0])
        case "contradiction":
            other = world.chunk("poison contradiction", index=91)
            return replace(good, value=SCHEMAS.encode(other)[0])
        case "key of the record":
            return replace(good, key=b"another")
        case "no key":
            return replace(good, key=None)
        case "key of another text":
            chunk = replace(
                world.chunk("poison key of another text", index=90),
                embedding_key=world.chunk("before").embedding_key,
            )
            return seal(SCHEMAS, chunk, topic=CHUNKS, source="x", partition=partition)
        case "key header null":
            headers = tuple(
                (name, b"" if name == "paperlog_embedding_key" else value) for name, value in good.headers
            )
            return replace(good, headers=headers)
        case _:
            raise AssertionError(kind)


KINDS = {
    "random bytes": True,
    "unknown schema": True,
    "truncated": True,
    "trailing": True,
    "null": True,
    "no headers": False,
    "wrong type": True,
    "contradiction": True,
    "key of the record": True,
    "no key": True,
    "key of another text": True,
    "key header null": False,
}
"""Whether its headers still say whose it is."""


@pytest.mark.parametrize("kind", KINDS)
def test_poison_is_buried_once_and_its_neighbours_go_through(tmp_path: Path, kind: str) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        bad = poison(world, kind)
        world.give(world.chunk("before"), partition=0)
        world.put(bad, CHUNKS)
        world.give(world.chunk("after", index=1), partition=0)
        await world.until(lambda: world.committed(0) == 3)
        assert sorted(one.text for one in world.embedded()) == ["after", "before"]
        [letter] = world.letters()
        assert (letter.key, letter.value) == (bad.key, bad.value)
        assert letter.headers[: len(bad.headers)] == bad.headers
        assert header(letter, "dlq_reason")
        coordinates = [header(letter, f"dlq_{name}") for name in ("topic", "partition", "offset", "consumer")]
        assert coordinates == [CHUNKS, "0", "1", GROUP]
        reasons = [one.reason for one in world.rejected()]
        assert reasons == ([ChunkRejectionReason.DEAD_LETTERED] if KINDS[kind] else [])
        # Delivered again, by a process that knows nothing of the first: no second letter, no second event.
        await world.stop()
        world.broker.committed.clear()
        await world.start("b")
        await world.until(lambda: world.committed(0) == 3)
        assert len(world.letters()) == 1
        assert len(world.events()) == (3 if KINDS[kind] else 2)

    play(tmp_path, scenario)


def test_many_in_a_row_stop_it_over_restarts_until_an_operator_decides(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        for number in range(40):
            world.put(
                NewRecord(topic=CHUNKS, key=None, value=b"?", partition=number % 3),
                CHUNKS,
            )
        world.give(world.chunk("behind it"), partition=0)
        await asyncio.sleep(60.0)
        world.look()
        held = len(world.letters())
        assert 21 <= held <= 24, "all three workers may have had one in hand"
        await world.stop()
        await world.start()
        await asyncio.sleep(60.0)
        world.look()
        assert len(world.letters()) == held
        assert not world.events()

    play(tmp_path, scenario)


def test_a_good_record_ends_the_row(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        for number in range(60):
            world.put(NewRecord(topic=CHUNKS, key=None, value=b"?", partition=0), CHUNKS)
            if number % 10 == 9:
                world.give(world.chunk(f"good {number}", index=number), partition=0)
        await world.answered(6)
        await world.until(lambda: len(world.letters()) == 60)

    play(tmp_path, scenario)


def test_poison_that_is_delivered_again_is_not_counted_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for _ in range(9):
            world.put(NewRecord(topic=CHUNKS, key=None, value=b"?", partition=0), CHUNKS)
        for _ in range(4):
            await world.start()
            await asyncio.sleep(5.0)
            await world.stop()
            world.broker.committed.clear()
        world.give(world.chunk("good"), partition=0)
        await world.start()
        await world.answered(1)
        assert len(world.letters()) == 9

    play(tmp_path, scenario)


def test_poison_that_is_too_large_for_our_own_limit_stops_nobody(tmp_path: Path) -> None:
    """A foreign producer's batch is measured compressed, ours is not."""

    async def scenario(world: World) -> None:
        await world.start()
        world.put(
            NewRecord(topic=CHUNKS, key=b"k", value=b"?" * (RECORD_BYTES_MAX + 1000), partition=0), CHUNKS
        )
        world.give(world.chunk("behind it"), partition=0)
        await world.answered(1)
        [letter] = world.letters()
        assert header(letter, "dlq_offset") == "0"
        assert header(letter, "dlq_reason")

    play(tmp_path, scenario)
