"""What a snapshot promises: a fold goes on from it on the log that it was made of, and begins anew wherever in doubt."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import WritingPaused
from eventlog.ids import StoreId
from eventlog.log import Record
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.snapshot import RECORDS_BETWEEN, SnapshotFile
from eventlog.topics import IMPORTS, topic_table

SCHEMAS = Schemas(schemas_dir())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def log_of(count: int, *, first: int = 0) -> MemoryLog:
    broker = MemoryBroker(topic_table().values())
    for number in range(first, first + count):
        event = WritingPaused(occurred_at=NOW, store_id=StoreId(UUID(int=number + 1)))
        broker.append(seal(SCHEMAS, event, topic=IMPORTS, source="test", partition=0))
    return MemoryLog(broker)


async def last_of(log: MemoryLog, offset: int) -> Record:
    return await log.read_at(IMPORTS, 0, offset)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fold.json"


async def kept(path: Path, log: MemoryLog, version: int = 1) -> None:
    SnapshotFile(path, version).keep(3, await last_of(log, 2), {"over": {"a": 1}})


def change(path: Path, damage: Callable[[bytes], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes()))


async def test_a_fold_goes_on_where_its_snapshot_ends(path: Path) -> None:
    log = log_of(5)
    await kept(path, log)
    assert await SnapshotFile(path, 1).load(log) == (3, {"over": {"a": 1}})


async def test_without_a_file_it_begins_at_the_beginning(path: Path) -> None:
    assert await SnapshotFile(path, 1).load(log_of(5)) is None


async def test_another_version_is_not_read(path: Path) -> None:
    log = log_of(5)
    await kept(path, log, version=1)
    assert await SnapshotFile(path, 2).load(log) is None


async def test_a_damaged_file_is_not_read(path: Path) -> None:
    log = log_of(5)
    for damage in (
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole.replace(b'"a": 1', b'"a": 2'),
        lambda whole: b"\xff" + whole,
    ):
        await kept(path, log)
        change(path, damage)
        assert await SnapshotFile(path, 1).load(log) is None


async def test_a_snapshot_of_another_log_is_not_read(path: Path) -> None:
    await kept(path, log_of(5))
    assert await SnapshotFile(path, 1).load(log_of(5, first=100)) is None
    assert await SnapshotFile(path, 1).load(log_of(2)) is None, "cut before it"
    assert await SnapshotFile(path, 1).load(log_of(0)) is None, "wiped"


async def test_a_snapshot_is_kept_once_in_so_many_records(path: Path) -> None:
    log = log_of(5)
    snapshot = SnapshotFile(path, 1)
    assert not snapshot.is_due(RECORDS_BETWEEN - 1)
    assert snapshot.is_due(RECORDS_BETWEEN)
    snapshot.keep(RECORDS_BETWEEN, await last_of(log, 2), {})
    assert not snapshot.is_due(RECORDS_BETWEEN + 1)


async def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    SnapshotFile(tmp_path / "file" / "fold.json", 1).keep(3, await last_of(log_of(5), 2), {})
