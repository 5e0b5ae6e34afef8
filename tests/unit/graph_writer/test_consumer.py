"""What is committed for the group, which shows lag to people and decides nothing."""

from typing import Any

from faust.types import TP

from graph_writer.consumer import _Client

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
