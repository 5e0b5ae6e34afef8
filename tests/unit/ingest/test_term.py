"""One leadership over the log in memory: who is fenced, from when on it decides, and what the fold says of the log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.ingest.story import IMPORT, NOW, SPACE, created, head, requested

from eventlog.avro import Schemas, schemas_dir
from eventlog.clock import ManualClock
from eventlog.envelope import seal
from eventlog.errors import Fenced
from eventlog.events import ImportCancelled, Message
from eventlog.log import NewRecord
from eventlog.memory import MemoryBroker, MemoryLog
from eventlog.topics import IMPORTS, Names, topic_table
from ingest import fold as fold_module
from ingest.fold import Fold
from ingest.projection import Projection
from ingest.term import LeaderParts, open_term

SCHEMAS = Schemas(schemas_dir())


@dataclass
class Instance:
    parts: LeaderParts
    fold: Fold
    log: MemoryLog

    async def say(self, *records: Message | NewRecord) -> None:
        writer = await self.log.writer()
        for one in records:
            record = one if isinstance(one, NewRecord) else seal(SCHEMAS, one, topic=IMPORTS, source="t")
            await (await writer.send(record))

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the fold runs in a thread
                await asyncio.sleep(0.01)


def a_broker() -> MemoryBroker:
    return MemoryBroker(topic_table().values())


@pytest.fixture
def broker() -> MemoryBroker:
    return a_broker()


@asynccontextmanager
async def instance(broker: MemoryBroker, folder: Path, *, folds: bool = True) -> AsyncIterator[Instance]:
    log = MemoryLog(broker)
    projection = Projection(folder / "imports.sqlite")
    fold = Fold(log=log, schemas=SCHEMAS, projection=projection, default_space=SPACE)
    parts = LeaderParts(
        log=log,
        names=Names(""),
        schemas=SCHEMAS,
        projection=projection,
        parser=cast("Any", None),
        blobs=cast("Any", None),
        clock=ManualClock(NOW),
        default_space=SPACE,
        work_dir=folder,
    )
    folding = asyncio.create_task(fold.run()) if folds else None
    try:
        yield Instance(parts, fold, log)
    finally:
        if folding is not None:
            folding.cancel()
            await asyncio.wait([folding])
        projection.close()


async def test_a_newer_term_fences_the_older_one(broker: MemoryBroker, tmp_path: Path) -> None:
    async with (
        instance(broker, tmp_path / "one") as one,
        instance(broker, tmp_path / "two") as two,
        open_term(one.parts) as old,
    ):
        await old.commit([old.sealed(created()), old.sealed(requested())])
        async with open_term(two.parts) as new:
            with pytest.raises(Fenced):
                await old.commit([old.sealed(ImportCancelled(**head()))])
            await new.commit([new.sealed(ImportCancelled(**head()))])
            found = two.parts.projection.find(IMPORT)
            assert found is not None
            assert found.state == "cancelled"


async def test_a_term_begins_when_all_that_was_said_is_folded(broker: MemoryBroker, tmp_path: Path) -> None:
    async with instance(broker, tmp_path, folds=False) as slow:
        await slow.say(created(), requested())

        async def lead() -> int:
            async with open_term(slow.parts) as term:
                return term.parts.projection.position

        opening = asyncio.create_task(lead())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not opening.done()
        slow.parts.projection.apply([(0, created()), (1, requested())], 2)
        await slow.parts.projection.notify()
        assert await asyncio.wait_for(opening, 10) == 2


async def test_an_absent_log_is_noticed_though_nobody_writes(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_module, "WATCH_S", 0.01)
    monkeypatch.setattr(fold_module, "RETRY_S", 0.01)
    async with instance(broker, tmp_path) as one:
        await one.until(lambda: one.fold.is_following and one.fold.has_caught_up)
        broker.stop()
        await one.until(lambda: not one.fold.is_following)
        broker.start()
        await one.until(lambda: one.fold.is_following)


async def test_twenty_one_strange_facts_in_a_row_pause_the_fold_over_restarts(
    broker: MemoryBroker, tmp_path: Path
) -> None:
    rubbish = NewRecord(topic=IMPORTS, key=b"k", value=b"rubbish", partition=0)
    async with instance(broker, tmp_path) as one:
        await one.say(*[rubbish] * 21)
        await one.until(lambda: one.fold.is_paused)
        assert len(one.parts.projection.poison()) == 21
    async with instance(broker, tmp_path) as again:
        assert again.fold.is_paused
        await again.say(created(), requested())
        again.fold.go_on()
        await again.until(lambda: again.parts.projection.find(IMPORT) is not None)
        assert not again.fold.is_paused


async def test_a_log_that_was_wiped_is_folded_from_its_beginning(tmp_path: Path) -> None:
    async with instance(a_broker(), tmp_path) as one:
        await one.say(created(), requested())
        await one.until(lambda: one.parts.projection.find(IMPORT) is not None)
    async with instance(a_broker(), tmp_path) as other:
        await other.say(created())
        await other.until(lambda: other.fold.has_caught_up)
        await other.until(lambda: other.parts.projection.position == 1)
        assert other.parts.projection.find(IMPORT) is None


@pytest.mark.parametrize("steps", range(8))
async def test_who_waits_for_a_change_hears_a_cancellation_that_comes_together_with_it(
    tmp_path: Path, steps: int
) -> None:
    """Deaf to it, one loop of a term would outlive the others, and nobody would lead."""
    projection = Projection(tmp_path / "imports.sqlite")

    async def wait_for_ever() -> None:
        while True:
            await projection.wait_for_change(projection.position, 5.0)

    waiting = asyncio.create_task(wait_for_ever())
    for _ in range(3):
        await asyncio.sleep(0)
    projection.position += 1
    await projection.notify()
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait([waiting], timeout=2.0)
    assert done, "it waits on"
    assert waiting.cancelled()
    projection.close()


async def test_what_is_folded_from_nothing_is_not_told_until_it_is_all_there(
    tmp_path: Path, broker: MemoryBroker
):
    broker.stop()
    async with instance(broker, tmp_path / "one") as one:
        assert one.fold.is_rebuilding, "nobody knows yet how much there is"
        broker.start()
        await one.say(created(), requested())
        await one.until(lambda: one.fold.has_caught_up)
        assert not one.fold.is_rebuilding
    async with instance(broker, tmp_path / "one", folds=False) as again:
        assert not again.fold.is_rebuilding, "what was kept is what was told"
