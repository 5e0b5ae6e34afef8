"""What the process does while it starts, with the log and the store in the place of real ones."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.graph_writer.world import PARTITIONS, SCHEMAS, FaultyStore, World

from eventlog.clock import SystemClock
from eventlog.memory import MemoryLog
from eventlog.topics import Names
from graph_writer import app
from graph_writer.health import Health
from graph_writer.opened import OpenedStore
from graph_writer.reads import Reads
from graph_writer.settings import Settings
from graph_writer.stores.edge import FolderLock
from graph_writer.stores.store import StoreAway


class NoReading:
    def __init__(self, **_: Any) -> None:
        pass

    async def start(self) -> None:
        pass


class AwayOnce(FaultyStore):
    """Answers until it is open, and then not at once."""

    is_away = False

    async def get(self, *asked: Any, **more: Any) -> Any:
        if self.is_away:
            self.is_away = False
            raise StoreAway("the store does not answer", retry_after_s=0.0)
        return await super().get(*asked, **more)


async def test_a_store_that_goes_away_while_the_process_starts_is_waited_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock = FolderLock(tmp_path / "store")
    assert lock.take()
    store = AwayOnce(tmp_path / "store", lock)
    log: Any = MemoryLog(world.broker)
    log.names = Names()

    async def open_log(*_: Any) -> Any:
        return log

    async def open_store(*_: Any) -> OpenedStore:
        opened = OpenedStore(store)
        await opened.open(PARTITIONS)
        store.is_away = True
        return opened

    def guarded(work: Coroutine[Any, Any, None], _name: str) -> None:
        work.close()

    monkeypatch.setattr(app, "open_log", open_log)
    monkeypatch.setattr(app, "open_store", open_store)
    monkeypatch.setattr(app, "guarded", guarded)
    monkeypatch.setattr(app, "Reading", NoReading)
    health = Health()
    settings = Settings(
        kafka_bootstrap_servers="memory:1", http_port=1, data_dir=tmp_path, store_dir=tmp_path / "store"
    )
    _, ends = await app._start(settings, SystemClock(), health, SCHEMAS, Reads(health))
    for end in ends:
        await end
    assert "store_down" not in health.reasons
