"""The log is slow, away or takes nothing, and partitions change hands: what is paid for is held until it is said."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.embedder.world import (
    World,
    play,
)

from embedder.app import WrongSetting
from eventlog.envelope import header
from eventlog.memory import Fault
from eventlog.topics import EMBEDDINGS, Topic, topic_table


def test_a_broker_that_is_away_for_minutes_loses_no_paid_vector(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        texts = [f"text {number}" for number in range(600)]
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)))
        await world.until(lambda: len(world.events()) > 60)
        world.broker.stop()
        await asyncio.sleep(180.0)
        world.look()
        world.broker.start()
        await world.answered(600)
        assert world.provider.billed == dict.fromkeys(texts, 1)
        assert len(world.events()) == 600

    play(tmp_path, scenario)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.LOSE_ACK])
def test_a_broken_writer_is_replaced_and_what_it_held_is_sent_again(tmp_path: Path, fault: Fault) -> None:
    async def scenario(world: World) -> None:
        await world.start()
        world.broker.fail(EMBEDDINGS, *([Fault.NONE] * 7), fault, Fault.NONE, fault, fault)
        texts = [f"text {number}" for number in range(100)]
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)))
        await world.until(lambda: {one.text for one in world.embedded()} == set(texts))
        assert world.provider.billed == dict.fromkeys(texts, 1)
        ids: dict[str, set[str]] = {}
        for one in world.envelopes():
            ids.setdefault(header(one.record, "ce_subject"), set()).add(one.id)
        assert all(len(each) == 1 for each in ids.values()), "a repeat is the same event"

    play(tmp_path, scenario)


def test_partitions_that_change_hands_are_paid_once_and_said_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.provider.latency_s = 1.0
        await world.start("a")
        texts = [f"text {number}" for number in range(3000)]
        world.give(*(world.chunk(text, index=n) for n, text in enumerate(texts)))
        await world.until(lambda: len(world.events()) > 100)
        await world.start("b")
        await world.until(lambda: len(world.events()) > 300)
        await world.start("c")
        await world.until(lambda: len(world.events()) > 500)
        await world.stop("a")
        await world.answered(3000)
        await asyncio.sleep(5.0)
        assert len(world.events()) == 3000
        assert world.provider.billed == dict.fromkeys(texts, 1)
        assert {one.who for one in world.provider.requests} == {"a", "b", "c"}

    play(tmp_path, scenario)


def test_what_is_asked_for_is_waited_for_and_said_before_the_process_goes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.provider.latency_s = 3.0
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(20)), partition=0)
        await world.until(lambda: bool(world.provider.requests))
        await world.stop()
        assert len(world.provider.requests) == 1
        assert world.provider.billed.total() == 10, "two batches of five, and nothing behind them"
        assert len(world.events()) == 10
        assert world.committed(0) == 10

    play(tmp_path, scenario)


def test_no_more_than_two_batches_of_a_partition_are_outside_the_log(tmp_path: Path) -> None:
    """P4: two batches of five per partition are what a death can cost."""

    async def scenario(world: World) -> None:
        world.may_be_slow = world.is_log_slow = True
        await world.start()
        world.give(*(world.chunk(f"text {number}", index=number) for number in range(30)), partition=0)
        await asyncio.sleep(60.0)
        assert world.provider.billed.total() == 10
        assert not world.events()
        world.is_log_slow = False
        await world.answered(30)
        assert world.provider.billed.total() == 30

    play(tmp_path, scenario)


def test_topics_whose_partitions_differ_are_refused(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        table = topic_table()
        world.broker._topics.pop(EMBEDDINGS)
        world.broker.create(
            Topic(name=EMBEDDINGS, partitions=12, retention_ms=-1, events=table[EMBEDDINGS].events)
        )
        with pytest.raises(WrongSetting, match=r"12.*48|48.*12"):
            await world.start()
        world.forget()

    play(tmp_path, scenario)
