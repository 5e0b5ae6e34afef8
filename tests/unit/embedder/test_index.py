"""The index is a cache: whatever happens to its file, what it says next agrees with the log."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from tests.unit.embedder.virtual_time import run_virtually
from tests.unit.embedder.world import SCHEMAS, SPACE, World, vector_of

from embedder.index import Index
from eventlog.envelope import seal
from eventlog.errors import TransientFailure
from eventlog.events import ChunkEmbedded, ChunkExtracted
from eventlog.log import Reader, Record, TopicPartition
from eventlog.memory import MemoryLog
from eventlog.topics import EMBEDDINGS

PAGE_BYTES = 4096
PARTITIONS = range(4)
OTHER_SPACE = "local/wordllama@256:1"


def embedded(chunk: ChunkExtracted) -> ChunkEmbedded:
    body = {spec.name: getattr(chunk, spec.name) for spec in fields(ChunkExtracted)}
    return ChunkEmbedded(**body, dims=4, vector=vector_of(chunk.text))


class Told:
    """A log that holds what it was told, and an index of it in a file."""

    def __init__(self, folder: Path, count: int) -> None:
        self.file = folder / "index.sqlite"
        self._world = World(folder)
        self.log = MemoryLog(self._world.broker)
        self.chunks = [self._world.chunk(f"text {number}", index=number) for number in range(count)]
        self.tell(self.chunks)

    def tell(self, chunks: list[ChunkExtracted]) -> None:
        for number, chunk in enumerate(chunks):
            self._world.put(
                seal(
                    SCHEMAS, embedded(chunk), topic=EMBEDDINGS, source="x", partition=number % len(PARTITIONS)
                ),
                EMBEDDINGS,
            )

    def build(self) -> None:
        index = Index(self.file, SPACE)
        asyncio.run(index.catch_up(self.log, PARTITIONS))
        index.close()

    def check(self) -> None:
        """The index opened anew knows each event, and the place of each vector."""
        index = Index(self.file, SPACE)
        asyncio.run(index.catch_up(self.log, PARTITIONS))
        for number, chunk in enumerate(self.chunks):
            place = (number % len(PARTITIONS), number // len(PARTITIONS))
            assert index.place_of(chunk.embedding_key) == place
            assert index.is_published(chunk.import_id, chunk.attempt, chunk.chunk_id)
        index.close()


@pytest.fixture
def told(tmp_path: Path) -> Told:
    async def tell() -> Told:
        return Told(tmp_path, 240)

    told = run_virtually(tell())
    told.build()
    return told


def scratch(content: bytes, page: int) -> bytes:
    begin = page * PAGE_BYTES
    return content[:begin] + b"\xa5" * PAGE_BYTES + content[begin + PAGE_BYTES :]


def blank(content: bytes, page: int) -> bytes:
    begin = page * PAGE_BYTES
    return content[:begin] + bytes(PAGE_BYTES) + content[begin + PAGE_BYTES :]


def cut(content: bytes, page: int) -> bytes:
    return content[: page * PAGE_BYTES]


def tear(content: bytes, page: int) -> bytes:
    """The second half of the page was not written."""
    begin = page * PAGE_BYTES
    return content[: begin + 2048] + bytes(2048) + content[begin + PAGE_BYTES :]


@pytest.mark.parametrize("damage", [scratch, blank, cut, tear])
def test_a_file_with_any_page_damaged_is_built_again(
    told: Told, damage: Callable[[bytes, int], bytes]
) -> None:
    whole = told.file.read_bytes()
    pages = len(whole) // PAGE_BYTES
    assert pages >= 8
    for page in range(pages):
        told.file.write_bytes(damage(whole, page))
        told.check()


class Interrupted(MemoryLog):
    """Its readers fail after so many polls."""

    def __init__(self, log: MemoryLog, polls: int) -> None:
        super().__init__(log.broker)
        self._polls = polls

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        reader = await super().reader(starts)
        poll, left = reader.poll, iter(range(self._polls))

        async def failing(*, records_max: int, timeout_s: float) -> list[Record]:
            if next(left, None) is None:
                raise TransientFailure("the broker went away")
            return await poll(records_max=records_max, timeout_s=timeout_s)

        reader.poll = failing  # type: ignore[method-assign]  # a fault placed by hand
        return reader


@pytest.mark.parametrize("polls", range(7))
def test_a_log_that_was_read_in_part_is_read_on(
    told: Told, monkeypatch: pytest.MonkeyPatch, polls: int
) -> None:
    monkeypatch.setattr("embedder.index.BATCH_RECORDS", 37)
    told.file.unlink()
    index = Index(told.file, SPACE)
    with pytest.raises(TransientFailure):
        asyncio.run(index.catch_up(Interrupted(told.log, polls), PARTITIONS))
    index.close()
    told.check()


def test_a_file_that_is_no_index_is_replaced(told: Told) -> None:
    told.file.write_text("my notes")
    told.check()


def test_an_index_of_another_space_is_replaced(told: Told) -> None:
    Index(told.file, OTHER_SPACE).close()
    told.check()


def test_what_another_space_says_is_no_vector_of_this_one(told: Told) -> None:
    index = Index(told.file, OTHER_SPACE)
    asyncio.run(index.catch_up(told.log, PARTITIONS))
    assert index.place_of(told.chunks[0].embedding_key) is None
    first = told.chunks[0]
    assert not index.is_published(first.import_id, first.attempt, first.chunk_id)
    index.close()
