"""Which dead letters name nobody, and that each is looked at once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tests.schemas.examples import example
from tests.unit.ingest.story import NOW, SPACE

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import dead_letter, seal
from eventlog.events import ChunkExtracted
from eventlog.log import Header, Record
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.topics import DLQ, Names, topic_table
from ingest.nameless import NamelessLetters

EMBEDDER, WRITER = "embedder-local-wordllama-256-1-dlq", "graph-writer-dlq"
BEFORE, AFTER = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
NAMED = seal(Schemas(schemas_dir()), example(ChunkExtracted), topic="chunks", source="t").headers


class World:
    def __init__(self, *topics: str) -> None:
        letters = topic_table()[DLQ]
        self.log = MemoryLog(MemoryBroker(replace(letters, name=name) for name in topics))
        self.letters = NamelessLetters(self.log, Names(""))

    async def bury(
        self, topic: str, at: datetime, headers: Sequence[Header] = (), source: str = "chunks"
    ) -> None:
        record = Record(topic=source, partition=3, offset=7, key=b"k", value=b"\x00", headers=tuple(headers))
        letter = dead_letter(record, topic=topic, reason="r", message="m", consumer="c", at=at)
        await (await (await self.log.writer()).send(letter))

    async def is_there(self) -> bool:
        return await self.letters.any_since(SPACE, NOW)


async def test_a_letter_that_says_whose_it_is_was_accounted_for() -> None:
    world = World(EMBEDDER, WRITER)
    await world.bury(EMBEDDER, AFTER, NAMED)
    assert not await world.is_there()
    await world.bury(EMBEDDER, AFTER, NAMED[:-1])
    assert await world.is_there()


async def test_a_letter_of_the_graph_writer_counts_too_and_one_of_another_topic_does_not() -> None:
    world = World(EMBEDDER, WRITER)
    await world.bury(WRITER, AFTER, source="imports")
    assert not await world.is_there()
    await world.bury(WRITER, AFTER, source="embeddings")
    assert await world.is_there()


async def test_a_letter_from_before_is_none_of_it_and_a_newer_one_is_found_later() -> None:
    world = World(EMBEDDER, WRITER)
    await world.bury(EMBEDDER, BEFORE)
    assert not await world.is_there()
    await world.bury(EMBEDDER, NOW)
    assert await world.is_there()


async def test_a_log_that_was_wiped_is_read_from_its_beginning() -> None:
    world = World(EMBEDDER, WRITER)
    for _ in range(3):
        await world.bury(EMBEDDER, AFTER)
    assert await world.is_there()
    world.letters._log = World(EMBEDDER, WRITER).log
    assert not await world.is_there()


async def test_without_a_log_or_a_topic_nothing_is_claimed() -> None:
    world = World(EMBEDDER)
    await world.bury(EMBEDDER, AFTER)
    assert not await world.is_there()
