"""A graph-writer as a process of its own against the session's broker, its store's files, and what the log says of it."""

import shutil
from pathlib import Path
from typing import Any

from tests.e2e.edge_files import read_collection
from tests.integration.embedder_process import SCHEMAS, Embedder, Library, until
from tests.unit.graph_writer.story import Content
from tests.unit.graph_writer.world import embeddings_record, imports_record

from eventlog.envelope import unseal
from eventlog.errors import UnprocessableRecord
from eventlog.events import (
    ChunkOutcome,
    ChunksSettled,
    ImportRequested,
    Message,
    Source,
    SourceKind,
    StoreOpened,
)
from eventlog.ids import ChunkId
from eventlog.log import NewRecord, Record
from eventlog.topics import EMBEDDINGS, IMPORTS
from graph_writer.core import marker_id

Coordinates = tuple[int, int]


class GraphWriter(Embedder):
    """The same handle on another program; its store stands in `store`."""

    module = "graph_writer.app"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    async def until_dead(self) -> int:
        await until(
            lambda: self._process is not None and self._process.poll() is not None,
            lambda: self.log_text[-3000:],
        )
        return self.wait(1)

    def points(self) -> dict[str, dict[str, Any]]:
        """Read from the files, while no process holds them."""
        return {
            folder.name: {id_: (payload, vector) for id_, payload, vector in read_collection(folder)}
            for folder in sorted(self.store.iterdir())
            if (folder / "edge_config.json").is_file()
        }

    def lose(self) -> None:
        shutil.rmtree(self.store)


def environment(bootstrap: str, prefix: str, folder: Path) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "PAPERLOG_PREFIX": prefix,
        "PAPERLOG_STORE_DIR": str(folder / "store"),
    }


class Log:
    """What ingest and the embedder write, and what the writer answered."""

    def __init__(self, library: Library) -> None:
        self._library = library

    async def request(self, space: str) -> int:
        """The revision of a new import."""
        source = Source(kind=SourceKind.PDF, files=())
        await self.say(ImportRequested(**Content().head, source=source, request_sha256="", space=space))
        return (await self._library.log.ends(IMPORTS))[0] - 1

    async def say(self, *messages: Message) -> None:
        await self._library.write(imports_record(one) for one in messages)

    async def embed(self, *messages: tuple[Message, int]) -> None:
        await self._library.write(embeddings_record(event, partition) for event, partition in messages)

    async def write(self, *records: NewRecord) -> None:
        await self._library.write(records)

    async def read(self, topic: str) -> list[Record]:
        return await self._library.read(topic)

    async def events(self, type_: type[Message] = Message) -> list[tuple[int, Any]]:
        found = []
        for record in await self.read(IMPORTS):
            try:
                event = unseal(SCHEMAS, record).event
            except UnprocessableRecord:
                continue
            if isinstance(event, type_):
                found.append((record.offset, event))
        return found

    async def settled(self) -> dict[tuple[ChunkId, int], ChunkOutcome]:
        """What counts as settled: a later `StoreOpened` takes back what its store will give again."""
        at: dict[tuple[ChunkId, int], tuple[Coordinates, ChunkOutcome]] = {}
        for _, event in await self.events():
            if isinstance(event, ChunksSettled):
                for one in event.chunks:
                    at[one.chunk_id, one.revision] = ((one.partition, one.offset), one.outcome)
            elif isinstance(event, StoreOpened):
                lowest: dict[int, int] = {}
                for place in event.positions:
                    if place.topic == EMBEDDINGS:
                        lowest[place.partition] = min(place.offset, lowest.get(place.partition, place.offset))
                at = {
                    key: found
                    for key, found in at.items()
                    if found[0][1] < lowest.get(found[0][0], found[0][1] + 1)
                }
        return {key: outcome for key, (_, outcome) in at.items()}


def missing(
    settled: dict[tuple[ChunkId, int], ChunkOutcome], points: dict[str, dict[str, Any]], space: str
) -> list[str]:
    """What was said to be stored and is not in the files. Nothing was replaced yet when this is asked."""
    there = {id_ for found in points.values() for id_ in found}
    return [
        f"{chunk} of {revision}"
        for (chunk, revision), outcome in settled.items()
        if outcome is ChunkOutcome.STORED and not {str(chunk), str(marker_id(chunk, space))} & there
    ]
