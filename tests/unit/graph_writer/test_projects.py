"""What the writer knows of projects and stores after a restart over a long history, read from its end alone."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from eventlog import snapshot
from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import Message, ProjectCreated, StoreOpened, StorePosition, WritingContinued
from eventlog.ids import ImportId, ProjectId, StoreId
from eventlog.log import Reader, TopicPartition
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.snapshot import SnapshotFile
from eventlog.topics import EMBEDDINGS, IMPORTS, topic_table
from graph_writer.projects import SNAPSHOT_VERSION, Projects

SCHEMAS = Schemas(schemas_dir())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = "local/wordllama@256"
FIRST, SECOND = ProjectId(UUID(int=1)), ProjectId(UUID(int=2))
STORE = StoreId(UUID(int=7))
PLACE = TopicPartition(EMBEDDINGS, 3)


class WatchedLog(MemoryLog):
    starts: list[int]

    async def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        self.starts = list(starts.values())
        return await super().reader(starts)


def created(project: ProjectId) -> ProjectCreated:
    return ProjectCreated(
        occurred_at=NOW, import_id=ImportId(UUID(int=5)), project_id=project, attempt=1, name="p", space=SPACE
    )


def opened(store: StoreId) -> StoreOpened:
    position = StorePosition(collection="graph", topic=PLACE.topic, partition=PLACE.partition, offset=0)
    return StoreOpened(occurred_at=NOW, store_id=store, positions=(position,))


def say(broker: MemoryBroker, event: Message) -> int:
    return broker.append(seal(SCHEMAS, event, topic=IMPORTS, source="test", partition=0)).offset


async def check(broker: MemoryBroker, path: Path, expected: dict[ProjectId, bool]) -> int:
    """What a new process knows at the end of the log is as expected; returns where it began to read."""
    log = WatchedLog(broker)
    projects = Projects(log, SCHEMAS, SnapshotFile(path, SNAPSHOT_VERSION))
    running = asyncio.create_task(projects.run())
    async with asyncio.timeout(10):
        assert (await projects.stores())[PLACE] == STORE
        for project, is_known in expected.items():
            assert await projects.has_space(project, SPACE, revision=0) is is_known
            assert not await projects.has_space(project, "openai/other@3", revision=0)
    running.cancel()
    await asyncio.wait([running])
    return log.starts[0]


async def test_a_restart_reads_what_came_after_the_snapshot_and_knows_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "RECORDS_BETWEEN", 100)
    broker, path = MemoryBroker(topic_table().values()), tmp_path / "projects.json"
    say(broker, created(FIRST))
    say(broker, opened(STORE))
    for number in range(200):
        say(broker, WritingContinued(occurred_at=NOW, store_id=StoreId(UUID(int=number + 1))))
    assert await check(broker, path, {FIRST: True, SECOND: False}) == 0
    say(broker, created(SECOND))
    assert await check(broker, path, {FIRST: True, SECOND: True}) > 100
    path.unlink()
    assert await check(broker, path, {FIRST: True, SECOND: True}) == 0
