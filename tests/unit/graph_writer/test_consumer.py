"""Which records are handed on, and what is committed for the group, which shows lag to people and decides nothing."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from eventlog.log import TopicPartition
from eventlog.topics import Names
from graph_writer.consumer import Reading, _Client

FIRST, SECOND, FOREIGN = TP("embeddings", 0), TP("embeddings", 1), TP("embeddings", 2)


class Kafka:
    def __init__(self) -> None:
        self.is_away = False
        self.commits: list[dict[Any, int]] = []

    async def commit(self, offsets: dict[Any, int]) -> None:
        if self.is_away:
            raise ConnectionError("away")
        self.commits.append({TP(one.topic, one.partition): offset for one, offset in offsets.items()})


class Client(_Client):
    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self._committed = {}

    def _ensure_consumer(self) -> Any:
        return self.kafka

    def assignment(self) -> set[TP]:
        return {FIRST, SECOND}


async def test_only_what_has_changed_is_committed_and_an_outage_ends_nothing():
    client = Client(kafka := Kafka())
    assert await client._commit({FIRST: 5, SECOND: 0, FOREIGN: 7})
    assert not await client._commit({FIRST: 5, SECOND: 0})
    assert await client._commit({FIRST: 5, SECOND: 3})
    kafka.is_away = True
    assert not await client._commit({FIRST: 9, SECOND: 3})
    kafka.is_away = False
    assert await client._commit({FIRST: 9, SECOND: 3})
    assert kafka.commits == [{FIRST: 5, SECOND: 0}, {SECOND: 3}, {FIRST: 9}]


def a_batch(*offsets: int, generation: int = 1, topic: str = "embeddings") -> Any:
    records = [
        SimpleNamespace(topic=topic, partition=0, offset=one, key=b"", value=b"", headers=(), timestamp=0)
        for one in offsets
    ]
    value = SimpleNamespace(records=records)
    return SimpleNamespace(topic=topic, partition=0, generation_id=generation, value=value)


def test_what_was_left_over_or_done_is_dropped_and_a_hole_is_an_error():
    reading = Reading.__new__(Reading)
    reading._names, reading._generation = Names(""), 1
    reading._logical = {"embeddings": "embeddings", "imports": "imports"}
    embeddings, imports = TopicPartition("embeddings", 0), TopicPartition("imports", 0)
    reading._next = {embeddings: 5, imports: 5}
    assert reading._expected(a_batch(5, 6, generation=0)) == []
    assert [one.offset for one in reading._expected(a_batch(3, 4, 5, 6))] == [5, 6]
    assert reading._next[embeddings] == 7
    with pytest.raises(LookupError, match="goes on at 9, not at 8"):
        reading._expected(a_batch(7, 9))
    assert [one.offset for one in reading._expected(a_batch(6, 8, topic="imports"))] == [6, 8]
    assert reading._next[imports] == 9
