"""The graph-writer, built top to bottom: reading `run` is reading the deployment.

It ends in three ways: 0 after SIGTERM or SIGINT, with everything said that the store holds; 2 for settings or a store
that an operator must look at; 70 at once for anything unexpected, so that the next process starts from the store.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web

from eventlog import logs, process
from eventlog.avro import Schemas, schemas_dir
from eventlog.clock import SystemClock
from eventlog.errors import TransientFailure
from eventlog.kafka import KafkaLog
from eventlog.log import TopicPartition
from eventlog.logs import Logger
from eventlog.settings import load
from eventlog.snapshot import SnapshotFile
from eventlog.topics import topic_table, topics_of
from graph_writer.apply import Applier
from graph_writer.consumer import Reading
from graph_writer.dead_letters import GROUP, DeadLetters
from graph_writer.health import Health
from graph_writer.opened import TOPICS, OpenedStore
from graph_writer.patience import Patience
from graph_writer.projects import SNAPSHOT_VERSION, Projects
from graph_writer.publish import Publisher
from graph_writer.reads import Reads
from graph_writer.sender import Sender
from graph_writer.settings import Settings, StoreKind
from graph_writer.stores.edge import EdgeStore, FolderLock
from graph_writer.stores.store import StoreAway, StoreMismatch
from graph_writer.words import Keywords
from graph_writer.writer import Writer

_log = Logger("graph_writer.app")
_LOCK_POLL_S = 0.2
_RETRY_S = 0.5


class WrongSetting(Exception):  # noqa: N818 - it says what the operator has to look at
    """Only the log could prove it wrong."""


def crash(error: BaseException) -> NoReturn:
    _log.error("process.crashed", error=f"{type(error).__name__}: {error}")
    logs_flush()
    os._exit(70)


def logs_flush() -> None:
    sys.stderr.flush()


def guarded(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """A task without which the process is no use: its failure, or its end, is the process's."""

    async def run() -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, the next process starts from the store
            _log.exception("task.failed", task=name)
            crash(error)

    return asyncio.create_task(run(), name=name)


async def open_log(settings: Settings, health: Health) -> KafkaLog:
    """Waits for the broker; makes the topics that are missing. Raises WrongSetting where one cannot be used."""
    log = KafkaLog(settings)
    while True:
        try:
            await log.ensure_topics(topics_of(GROUP, GROUP))
        except TransientFailure as error:
            health.add("log_down")
            _log.warning("log.away", error=error)
            await asyncio.sleep(_RETRY_S)
        except ValueError as error:
            raise WrongSetting(str(error)) from None
        else:
            health.remove("log_down")
            return log


async def open_edge(folder: Path, health: Health) -> EdgeStore:
    """Waits as a standby while another process holds the folder."""
    lock = FolderLock(folder)
    if not lock.take():
        health.add("standby")
        _log.info("process.standby", folder=folder.name)
        while not lock.take():  # noqa: ASYNC110 - the kernel tells nobody that a lock is free
            await asyncio.sleep(_LOCK_POLL_S)
        health.remove("standby")
    return EdgeStore(folder, lock)


async def open_store(settings: Settings, log: KafkaLog, health: Health) -> OpenedStore:
    table = topic_table()
    partitions = [TopicPartition(name, one) for name in TOPICS for one in range(table[name].partitions)]
    if settings.store is StoreKind.EDGE:
        assert settings.store_dir is not None, "the settings have checked it"
        opened = OpenedStore(await open_edge(settings.store_dir, health))
        try:
            await opened.open(partitions)
            await opened.check_log(log)
        except StoreMismatch as error:
            # The embedded stack has one log and one store, and the store is only a projection of it: build it anew.
            _log.warning("store.set_aside", reason=error)
            await opened.store.close()
            set_aside(settings.store_dir)
            opened = OpenedStore(await open_edge(settings.store_dir, health))
            await opened.open(partitions)
        return opened
    from graph_writer.stores.qdrant import connect  # noqa: PLC0415 - its client takes 80 MB that edge does not need

    opened = OpenedStore(connect(settings))
    while True:
        try:
            await opened.open(partitions)
        except StoreAway as error:
            health.add("store_down")
            _log.warning("store.away", error=error)
            await asyncio.sleep(error.retry_after_s or _RETRY_S)
        else:
            health.remove("store_down")
            break
    try:
        await opened.check_log(log)
    except StoreMismatch as error:
        raise StoreMismatch(
            f"{error}: the collections under this prefix on the Qdrant server were filled from another log. "
            "Take another PAPERLOG_PREFIX, or delete them: they are filled again from this log"
        ) from None
    return opened


def set_aside(folder: Path) -> None:
    """Keeps the last store that did not fit its log, for somebody may have pointed us at another cluster."""
    aside = folder / "aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for path in folder.iterdir():
        if path.is_dir() and path != aside:
            path.rename(aside / path.name)


async def serve(settings: Settings, reads: Reads) -> web.AppRunner:
    runner = web.AppRunner(reads.app(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    await web.TCPSite(runner, settings.http_host, settings.http_port).start()
    return runner


async def run(settings: Settings) -> NoReturn:
    clock = SystemClock()
    health = Health()
    schemas = Schemas(schemas_dir())
    reads = Reads(health)
    runner = await serve(settings, reads)
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)

    starting = asyncio.create_task(_start(settings, clock, health, schemas, reads))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        await runner.cleanup()
        logs_flush()
        os._exit(0)  # nothing was begun that would have to be ended
    writer, ends = starting.result()
    await waiting
    _log.info("process.stopping")
    await writer.stop()
    await runner.cleanup()
    for end in ends:
        await end
    _log.info("process.stopped")
    logs_flush()
    os._exit(0)  # Faust's threads and tasks are not waited for: nothing is left to be said


async def _start(
    settings: Settings, clock: SystemClock, health: Health, schemas: Schemas, reads: Reads
) -> tuple[Writer, Sequence[Coroutine[Any, Any, None]]]:
    log = await open_log(settings, health)
    opened = await open_store(settings, log, health)
    sender = Sender(log, schemas, health)
    snapshot = SnapshotFile(settings.data_dir / "projects.json", SNAPSHOT_VERSION)
    projects = Projects(log, schemas, snapshot)
    keywords = Keywords()
    dead_letters = DeadLetters(
        log=log, names=log.names, sender=sender, opened=opened, clock=clock, health=health
    )
    patience = Patience(opened=opened, sender=sender, clock=clock, health=health)
    await patience.wait_out(dead_letters.open)
    publisher = Publisher(opened=opened, sender=sender, clock=clock, patience=patience)
    applier = Applier(
        opened=opened,
        projects=projects,
        dead_letters=dead_letters,
        keywords=keywords,
        schemas=schemas,
        log=log,
        clock=clock,
    )
    writer = Writer(
        applier=applier,
        publisher=publisher,
        opened=opened,
        dead_letters=dead_letters,
        patience=patience,
        projects=projects,
        sender=sender,
        log=log,
        clock=clock,
        health=health,
        crash=crash,
    )
    # With the folder's lock there is one member at most, so a fixed name lets a restart in at once.
    instance = GROUP if settings.store is StoreKind.EDGE else settings.instance
    reading = Reading(
        settings=settings,
        group=GROUP,
        instance=instance,
        topics=TOPICS,
        assigned=writer.assigned,
        handle=writer.handle,
        crash=writer.crashed,
    )
    writer.reading = reading
    reads.serve(opened=opened, applier=applier, keywords=keywords, dead_letters=dead_letters, writer=writer)
    guarded(projects.run(), "projects")
    guarded(publisher.run(), "publisher")
    guarded(writer.watch(), "watch")
    await reading.start()
    health.remove("starting")
    _log.info("process.started", store_id=opened.id, collections=len(opened.collections))
    return writer, (sender.close(), log.close(), opened.store.close())


def main() -> None:
    logs.configure()
    settings = load(Settings)
    started = time.monotonic()
    try:
        process.run(run(settings))
    except StoreMismatch as error:
        _log.error("store.refused", reason=error)
        logs_flush()
        os._exit(2)
    except WrongSetting as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the operator at the terminal
        logs_flush()
        os._exit(2)
    except BaseException as error:  # noqa: BLE001 - the next process starts from the store
        _log.exception("process.failed", after_s=round(time.monotonic() - started, 1))
        crash(error)


if __name__ == "__main__":
    main()
