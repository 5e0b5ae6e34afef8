"""What becomes of chunks: embedded, reused, rejected, skipped or buried; and what is paid for them."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.unit.embedder.world import (
    FIRST,
    SCHEMAS,
    SECOND,
    SPACE,
    World,
    play,
    vector_of,
)

from embedder.core import TEXT_CHARACTERS_MAX
from embedder.models.model import Misconfigured, RateLimited
from embedder.sharing import GATHER_S, TEXTS_MAX
from eventlog.envelope import header, unseal
from eventlog.events import ChunkEmbedded, ChunkRejectionReason
from eventlog.ids import import_id_of_key
from eventlog.log import NewRecord
from eventlog.topics import CHUNKS, EMBEDDINGS

OTHER_SPACE = "local/wordllama@256:1"
TWIN_SPACE = "openai/twin-embedding@4:1"


async def paid(world: World, count: int) -> list[str]:
    """So many texts of partition 0, whose vectors are in the log."""
    texts = [f"text {number}" for number in range(count)]
    world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)), partition=0)
    await world.answered(count)
    return texts


def test_each_chunk_has_its_vector_on_its_own_partition(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        texts = [f"text {number}" for number in range(60)]
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)))
        await world.answered(60)
        assert {one.text: one.vector for one in world.embedded()} == {one: vector_of(one) for one in texts}
        at = {one.record.key: one.record.partition for one in world.envelopes()}
        assert at == {one.key: one.partition for one in world.broker.records(CHUNKS)}
        assert world.provider.billed == dict.fromkeys(texts, 1)
        assert all(len(one.texts) <= TEXTS_MAX for one in world.provider.requests)
        assert {one.tokens_billed for one in world.embedded()} == {7}

    play(tmp_path, scenario)


def test_an_event_names_the_record_that_caused_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(world.chunk("one"), world.chunk(" ", index=1))
        await world.answered(2)
        given = {header(one, "ce_subject"): header(one, "ce_id") for one in world.broker.records(CHUNKS)}
        for one in world.envelopes():
            assert header(one.record, "causationid") == given[header(one.record, "ce_subject")]
            assert header(one.record, "correlationid") == str(FIRST)

    play(tmp_path, scenario)


def test_the_same_text_in_one_batch_is_paid_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.give(*(world.chunk("again", index=n) for n in range(4)))
        await world.start()
        await world.answered(4)
        assert world.provider.billed == {"again": 1}
        assert [one.is_reused for one in world.embedded()] == [False, True, True, True]
        assert [one.tokens_billed for one in world.embedded()] == [7, 0, 0, 0]
        assert {one.vector for one in world.embedded()} == {vector_of("again")}

    play(tmp_path, scenario)


def test_the_same_text_is_paid_once_while_it_is_still_on_its_way_into_the_log(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.give(*(world.chunk(f"again {n % 7}", index=n) for n in range(28)), partition=3)
        await world.start()
        await world.answered(28)
        assert world.provider.billed == {f"again {n}": 1 for n in range(7)}
        assert sum(one.tokens_billed for one in world.embedded()) == 49

    play(tmp_path, scenario)


def test_a_second_import_of_the_same_texts_bills_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        texts = await paid(world, 20)
        asked = len(world.provider.requests)
        world.give(*(world.chunk(text, SECOND, index=n) for n, text in enumerate(texts)), partition=0)
        await world.answered(40)
        assert len(world.provider.requests) == asked
        again = [one for one in world.embedded() if one.import_id == SECOND]
        assert all(one.is_reused and not one.tokens_billed for one in again)
        assert {one.text: one.vector for one in again} == {one: vector_of(one) for one in texts}

    play(tmp_path, scenario)


def test_a_resume_has_events_of_its_own_and_bills_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(world.chunk("one"))
        await world.answered(1)
        world.give(world.chunk("one", attempt=2))
        await world.answered(2)
        assert [(one.attempt, one.is_reused) for one in world.embedded()] == [(1, False), (2, True)]
        assert world.provider.billed == {"one": 1}

    play(tmp_path, scenario)


@pytest.mark.parametrize("is_index_kept", [True, False])
def test_what_is_delivered_again_after_a_restart_has_one_event(tmp_path: Path, is_index_kept: bool) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        chunks = [world.chunk(f"text {number}", index=number) for number in range(30)]
        world.give(*chunks)
        await world.answered(30)
        await world.stop()
        world.broker.committed.clear()
        if not is_index_kept:
            shutil.rmtree(world.data("a"))
        asked = len(world.provider.requests)
        await world.start()
        world.give(world.chunk("one more", index=31))
        await world.answered(31)
        await asyncio.sleep(5.0)
        assert len(world.events()) == 31
        assert world.provider.requests[asked].texts == ("one more",)
        assert len(world.provider.requests) == asked + 1

    play(tmp_path, scenario)


def test_an_index_that_is_damaged_is_built_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(200)))
        await world.answered(200)
        await world.stop()
        file = world.data("a") / "index.sqlite"
        content = bytearray(file.read_bytes())
        assert len(content) > 3 * 4096
        content[2 * 4096 :] = b"\xa5" * (len(content) - 2 * 4096)
        file.write_bytes(content)
        await world.start()
        world.give(*(world.chunk(f"text {number}", SECOND, index=number) for number in range(200)))
        await world.answered(400)
        assert world.provider.billed.total() == 200

    play(tmp_path, scenario)


def test_a_vector_that_the_log_does_not_hold_any_more_is_paid_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(world.chunk("one"), partition=0)
        await world.answered(1)
        world.give(world.chunk("two"), partition=0)
        await world.answered(2)
        world.broker.cut(EMBEDDINGS, 0, 1)
        world.give(world.chunk("one", SECOND), partition=0)
        await world.until(lambda: len(world.events()) == 2)
        assert world.provider.billed == {"one": 2, "two": 1}
        assert [one.is_reused for one in world.embedded()] == [False, False]

    play(tmp_path, scenario)


def test_a_record_that_cannot_be_read_hides_no_vector_that_stands_behind_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(world.chunk("one"), partition=0)
        await world.answered(1)
        await world.stop()
        good = world.broker.records(EMBEDDINGS)[0]
        world.broker.cut(EMBEDDINGS, 0, 1)
        for value in (b"\0", good.value):
            world.broker.append(
                NewRecord(topic=EMBEDDINGS, key=good.key, value=value, headers=good.headers, partition=0)
            )
        (world.data("a") / "index.sqlite").unlink()
        await world.start()
        world.give(world.chunk("one", SECOND), partition=0)
        await world.until(lambda: len(world.broker.records(EMBEDDINGS)) == 3)
        last = unseal(SCHEMAS, world.broker.records(EMBEDDINGS)[-1]).event
        assert isinstance(last, ChunkEmbedded)
        assert (last.is_reused, last.vector) == (True, vector_of("one"))
        assert world.provider.billed == {"one": 1}

    play(tmp_path, scenario)


def test_a_vector_is_never_taken_from_another_texts_record(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(world.chunk("one"), world.chunk("two", index=1), partition=0)
        await world.answered(2)
        await world.stop()
        with contextlib.closing(sqlite3.connect(world.data("a") / "index.sqlite")) as db:
            db.execute('UPDATE paid SET "offset" = 1 - "offset"')
            db.commit()
        await world.start()
        world.give(world.chunk("one", SECOND), world.chunk("two", SECOND, index=1), partition=0)
        await world.answered(4)
        assert all(one.vector == vector_of(one.text) for one in world.embedded())
        assert not any(one.is_reused for one in world.embedded())
        # What it has learnt, it keeps: the third import costs nothing.
        third = import_id_of_key("anonymous", "third")
        world.give(world.chunk("one", third), world.chunk("two", third, index=1), partition=0)
        await world.answered(6)
        assert world.provider.billed == {"one": 2, "two": 2}

    play(tmp_path, scenario)


def test_an_index_of_another_log_is_not_believed(tmp_path: Path) -> None:
    """The embedded log goes back to its last flushed position when the power goes."""

    async def first(world: World) -> None:
        await world.start()
        world.give(*(world.chunk(f"text {n}", index=n) for n in range(5)), partition=0)
        await world.answered(5)

    async def second(world: World) -> None:
        await world.start("b")
        world.give(*(world.chunk(f"other {n}", index=n + 10) for n in range(8)), partition=0)
        await world.answered(8)
        await world.stop("b")
        world.give(*(world.chunk(f"text {n}", index=n) for n in range(5)), partition=0)
        await world.start("a")
        await world.answered(13)
        texts = [*(f"other {n}" for n in range(8)), *(f"text {n}" for n in range(5))]
        assert {one.text: one.vector for one in world.embedded()} == {one: vector_of(one) for one in texts}
        assert world.provider.billed == dict.fromkeys(texts, 1)

    play(tmp_path, first)
    play(tmp_path, second)


def test_another_space_is_none_of_its_business(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(world.chunk("theirs", space=OTHER_SPACE), world.chunk("ours", index=1), partition=0)
        await world.answered(1)
        await world.until(lambda: world.committed(0) == 2)
        assert [one.text for one in world.embedded()] == ["ours"]
        assert not world.letters()

    play(tmp_path, scenario)


def test_two_spaces_pay_for_their_own_vectors_and_share_the_log(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start("a")
        await world.start("b", space=TWIN_SPACE)
        texts = [f"text {number}" for number in range(40)]
        for import_id in (FIRST, SECOND):
            for number, text in enumerate(texts):
                world.give(
                    world.chunk(text, import_id, index=number),
                    world.chunk(text, import_id, index=number, space=TWIN_SPACE),
                )
        await world.answered(160)
        for name, space in (("a", SPACE), ("b", TWIN_SPACE)):
            asked = [text for one in world.provider.paid if one.who == name for text in one.texts]
            assert sorted(asked) == sorted(texts)
            own = [one for one in world.embedded() if one.space == space]
            assert len(own) == 80
            assert sum(one.is_reused for one in own) == 40
        # A restart, with and without its index, finds its own and only its own.
        await world.stop("a")
        await world.stop("b")
        shutil.rmtree(world.data("b"))
        world.broker.committed.clear()
        await world.start("a")
        await world.start("b", space=TWIN_SPACE)
        await asyncio.sleep(20.0)
        assert len(world.events()) == 160
        assert world.provider.billed.total() == 80

    play(tmp_path, scenario)


def test_a_blocked_space_does_not_hold_up_another(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start("a")
        await world.start("b", space=TWIN_SPACE)
        world.provider.fails_for = {"a": lambda _: Misconfigured("401")}
        for number in range(40):
            for space in (SPACE, TWIN_SPACE):
                world.give(world.chunk(f"text {number}", index=number, space=space))
        await world.answered(40)
        assert {one.space for one in world.embedded()} == {TWIN_SPACE}
        assert {one.space for one in world.said()} == {SPACE}

    play(tmp_path, scenario)


def test_no_more_batches_are_asked_for_at_once_than_the_setting_allows(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start(requests_max=3)
        for number in range(500):
            world.give(world.chunk(f"text {number}", index=number), partition=number % 10)
        await world.answered(500)
        assert world.provider.texts_in_flight_max == 3 * 5

    play(tmp_path, scenario)


def test_workers_that_ask_at_the_same_moment_share_a_request(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(500):
            world.give(world.chunk(f"text {number}", index=number), partition=number % 10)
        await world.start()
        await world.answered(500)
        assert len(world.provider.requests) == 500 / TEXTS_MAX

    play(tmp_path, scenario)


def test_two_batches_of_a_partition_are_asked_for_at_one_time_and_the_third_waits_for_the_log(
    tmp_path: Path,
) -> None:
    async def scenario(world: World) -> None:
        world.provider.latency_s = 5.0
        world.may_be_slow = world.is_log_slow = True
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(15)), partition=0)
        await world.until(lambda: world.provider.billed.total() == 10, 2.0)  # before the first answer
        await asyncio.sleep(20.0)
        assert world.provider.billed.total() == 10
        assert not world.events()
        assert world.committed(0) == 0
        world.is_log_slow = False
        await world.answered(15)

    play(tmp_path, scenario)


def test_a_partition_asks_again_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    """What latency allows is reached: nothing but the provider is waited for between two requests, and, for a
    hundredth of that, others that could share.
    """

    async def scenario(world: World) -> None:
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(200)), partition=0)
        await world.answered(200)
        times = [one.at_s for one in world.provider.requests]
        assert len(times) == 20
        assert times[-1] - times[0] < 19 * (world.provider.latency_s + GATHER_S) + 0.01

    play(tmp_path, scenario)


def test_a_chunk_that_comes_again_in_the_next_batch_is_asked_for_and_said_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.provider.latency_s = 5.0
        chunks = [world.chunk(f"text {number}", index=number) for number in range(5)]
        world.give(*chunks, *chunks, partition=0)
        await world.start()
        await world.until(lambda: world.committed(0) == 10)
        assert len(world.events()) == 5
        assert world.provider.billed == {f"text {number}": 1 for number in range(5)}

    play(tmp_path, scenario)


def test_what_was_not_asked_for_is_not_passed_over_by_the_batch_behind_it(tmp_path: Path) -> None:
    """The batch behind needs no provider, and is whole when the process is told to stop."""

    async def scenario(world: World) -> None:
        await world.start()
        texts = await paid(world, 5)
        world.provider.fails = lambda _: RateLimited("429", retry_after_s=60.0, is_quota=False)
        new = [world.chunk(f"new {number}", index=10 + number) for number in range(5)]
        again = [world.chunk(text, SECOND, index=n) for n, text in enumerate(texts)]
        world.give(*new, *again, partition=0)
        await asyncio.sleep(5.0)
        await world.stop()
        assert len(world.events()) == 10, "what was paid before is said again without the provider"
        assert world.committed(0) == 5
        world.provider.fails = lambda _: None
        await world.start()
        await world.answered(15, 120.0)

    play(tmp_path, scenario)


def test_nothing_is_committed_before_its_events_are_in_the_log(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.may_be_slow = world.is_log_slow = True
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(10)), partition=0)
        await asyncio.sleep(20.0)
        assert world.committed(0) == 0
        await world.kill()
        world.is_log_slow = False
        await world.start()
        await world.answered(10, 60.0)
        assert {one.text for one in world.embedded()} == {f"text {number}" for number in range(10)}
        assert set(world.provider.billed.values()) == {2}, "both requests were lost, and no more"

    play(tmp_path, scenario)


def test_what_no_provider_takes_is_rejected_without_a_request(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.give(
            world.chunk("", index=0),
            world.chunk(" \n\t\u00a0", index=1),
            world.chunk("x" * (TEXT_CHARACTERS_MAX + 1), index=2),
            world.chunk("fine", index=3),
            partition=0,
        )
        await world.answered(4)
        assert [one.reason for one in world.rejected()] == [
            ChunkRejectionReason.TEXT_EMPTY,
            ChunkRejectionReason.TEXT_EMPTY,
            ChunkRejectionReason.TEXT_TOO_LONG,
        ]
        assert [one.texts for one in world.provider.requests] == [("fine",)]

    play(tmp_path, scenario)
