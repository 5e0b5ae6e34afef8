"""What the embedder knows of `imports` after a restart over a long history, read from its end alone."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from embedder.story import SNAPSHOT_VERSION, Story
from eventlog import snapshot
from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import EmbeddingPaused, ImportCancelled, Message, PauseReason, WritingContinued
from eventlog.ids import ImportId, ProjectId, StoreId
from eventlog.log import Reader, TopicPartition
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.snapshot import SnapshotFile
from eventlog.topics import IMPORTS, topic_table

SCHEMAS = Schemas(schemas_dir())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = "local/wordllama@256"
IMPORT, OTHER = ImportId(UUID(int=1)), ImportId(UUID(int=2))


class WatchedLog(MemoryLog):
    starts: list[int]

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        self.starts = list(starts.values())
        return await super().reader(starts)


def cancelled(import_id: ImportId) -> ImportCancelled:
    return ImportCancelled(occurred_at=NOW, import_id=import_id, project_id=ProjectId(UUID(int=9)), attempt=1)


def say(broker: MemoryBroker, event: Message) -> None:
    broker.append(seal(SCHEMAS, event, topic=IMPORTS, source="test", partition=0))


async def caught_up(broker: MemoryBroker, path: Path) -> tuple[Story, list[object], int]:
    """A story that has read to the end, what it heard of pauses, and where it began to read."""
    log, heard = WatchedLog(broker), []
    story = Story(
        log,
        SCHEMAS,
        space=SPACE,
        source="me",
        on_pause=heard.append,
        snapshot=SnapshotFile(path, SNAPSHOT_VERSION),
    )
    running = asyncio.create_task(story.run())
    async with asyncio.timeout(10):
        await story.caught_up.wait()
    running.cancel()
    await asyncio.wait([running])
    return story, heard, log.starts[0]


async def test_a_restart_reads_what_came_after_the_snapshot_and_knows_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "RECORDS_BETWEEN", 100)
    broker, path = MemoryBroker(topic_table().values()), tmp_path / "story.json"
    paused = EmbeddingPaused(
        occurred_at=NOW, space=SPACE, reason=PauseReason.PROVIDER_QUOTA, paused_since=NOW, message="empty"
    )
    say(broker, cancelled(IMPORT))
    say(broker, paused)
    for number in range(200):
        say(broker, WritingContinued(occurred_at=NOW, store_id=StoreId(UUID(int=number + 1))))
    _, heard, began_at = await caught_up(broker, path)
    assert (heard, began_at) == ([paused], 0)

    say(broker, cancelled(OTHER))
    story, heard, began_at = await caught_up(broker, path)
    assert began_at > 100
    assert story.is_over(IMPORT, 1)
    assert story.is_over(OTHER, 1)
    assert not story.is_over(IMPORT, 2)
    assert heard == [paused], "a pause that nobody has ended still stands"

    path.unlink()
    story, heard, began_at = await caught_up(broker, path)
    assert began_at == 0
    assert story.is_over(IMPORT, 1)
    assert heard == [paused]
