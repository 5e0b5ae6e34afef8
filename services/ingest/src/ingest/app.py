"""Ingest as a process: reading `run` from top to bottom is reading the deployment. Nothing else builds a client."""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path

import httpx
import uvicorn

from eventlog import process
from eventlog.avro import Schemas, schemas_dir
from eventlog.clock import SystemClock
from eventlog.envelope import seal
from eventlog.errors import TransientFailure
from eventlog.events import Command, Source
from eventlog.kafka import KafkaLog
from eventlog.log import Log, Position, Writer
from eventlog.logs import Logger, configure
from eventlog.settings import load
from eventlog.topics import IMPORT_REQUESTS, topics_of
from ingest.blobs import Blobs, open_blobs
from ingest.dead_letters import GROUP
from ingest.fold import Fold
from ingest.http import HttpParts, build_app
from ingest.leader import Leader
from ingest.library import local_files
from ingest.nameless import NamelessLetters
from ingest.parser import Parser, Validation
from ingest.projection import Projection
from ingest.settings import IngestSettings
from ingest.term import SOURCE, LeaderParts

logger = Logger("ingest")

EXIT_CRASHED = 70
APPEND_S_MAX = 10.0
START_RETRY_S = 1.0


class CommandWriter:
    """Writes commands for HTTP: one record, acknowledged, or TransientFailure."""

    def __init__(self, log: Log, schemas: Schemas) -> None:
        self._log = log
        self._schemas = schemas
        self._writer: Writer | None = None

    async def append(self, command: Command) -> None:
        try:
            async with asyncio.timeout(APPEND_S_MAX):
                if self._writer is None:
                    self._writer = await self._log.writer()
                record = seal(self._schemas, command, topic=IMPORT_REQUESTS, source=SOURCE, partition=0)
                acknowledged: Awaitable[Position] = await self._writer.send(record)
                await acknowledged
        except TimeoutError:
            await self.close()  # what is said not to be written is not written later
            raise TransientFailure(f"the log did not take the request within {APPEND_S_MAX:.0f} s") from None
        except TransientFailure:
            await self.close()
            raise

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.shield(writer.close())


class Validator:
    """Looks into a source before it is accepted, with a child of its own so that no import has to wait."""

    def __init__(self, parser: Parser, blobs: Blobs, folder: Path) -> None:
        """`folder` is this process's own; what one that was killed has left in it is removed."""
        self._parser = parser
        self._blobs = blobs
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()
        shutil.rmtree(folder, ignore_errors=True)

    async def __call__(self, source: Source) -> Validation:
        files = await local_files(self._blobs, source)
        async with self._one_at_a_time:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                return await self._parser.validate(
                    files=files, kind=source.kind, out=self._folder / "scan.sqlite"
                )
            finally:
                await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def _make_topics(log: KafkaLog) -> None:
    """Waits for the brokers; raises ValueError where a topic has another number of partitions."""
    while True:
        try:
            await log.ensure_topics(topics_of(GROUP, GROUP))
        except TransientFailure as failure:
            logger.warning("log.unavailable", why=failure)
            await asyncio.sleep(START_RETRY_S)
        else:
            return


async def run(settings: IngestSettings) -> int:
    clock = SystemClock()
    schemas = Schemas(schemas_dir())
    data = Path(settings.data_dir)
    blobs = open_blobs(settings.blobs, data / "blobs-cache")
    projection = Projection(data / "imports.sqlite")
    log = KafkaLog(settings)
    fold = Fold(log=log, schemas=schemas, projection=projection, default_space=settings.default_space)
    commands = CommandWriter(log, schemas)
    stopping, damaged = asyncio.Event(), asyncio.Event()
    async with Parser() as parser, Parser() as validating, httpx.AsyncClient(trust_env=False) as client:
        leader = Leader(
            LeaderParts(
                log=log,
                names=log.names,
                schemas=schemas,
                projection=projection,
                parser=parser,
                blobs=blobs,
                clock=clock,
                default_space=settings.default_space,
                work_dir=data / "spool",
            )
        )

        def log_reasons() -> Sequence[str]:
            if leader.is_paused or fold.is_paused:
                return ["dead_letters"]
            if not fold.is_following:
                return ["log_unavailable"]
            return [] if fold.has_caught_up else ["catching_up"]

        def go_on() -> None:
            leader.go_on()
            fold.go_on()

        http = build_app(
            HttpParts(
                settings=settings,
                projection=projection,
                commands=commands,
                blobs=blobs,
                validate=Validator(validating, blobs, data / "validation"),
                clock=clock,
                schemas=schemas,
                client=client,
                is_rebuilding=lambda: fold.is_rebuilding,
                log_reasons=log_reasons,
                go_on=go_on,
                has_nameless_letter=NamelessLetters(log, log.names).any_since,
                is_stopping=stopping.is_set,
                on_damage=damaged.set,
            )
        )
        server = _Server(
            uvicorn.Config(
                http,
                host=settings.http_host,
                port=settings.http_port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
                server_header=False,
            )
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        serving = asyncio.create_task(server.serve())
        working = asyncio.create_task(_work(log, fold, leader))
        stopped = asyncio.create_task(stopping.wait())
        broken = asyncio.create_task(damaged.wait())
        try:
            await asyncio.wait({serving, working, stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done() or (working.done() and _is_damage(working.exception())):
                logger.error("projection.damaged", action="it is thrown away and folded again")
                projection.discard()
            for task in (working, serving):
                if task.done():
                    task.result()  # a bug, or a port that is taken: said by who runs us
            return 0 if stopping.is_set() else EXIT_CRASHED
        finally:
            stopping.set()
            server.should_exit = True
            working.cancel()
            stopped.cancel()
            broken.cancel()
            await asyncio.wait({serving, working, stopped, broken}, timeout=8)
            await commands.close()
            await log.close()
            projection.close()
            blobs.close()


async def _work(log: KafkaLog, fold: Fold, leader: Leader) -> None:
    await _make_topics(log)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fold.run())
        tasks.create_task(leader.run())


def _is_damage(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(sqlite3.DatabaseError) is not None
    return isinstance(error, sqlite3.DatabaseError)


class _Server(uvicorn.Server):
    """Signals are ours: uvicorn would take them for itself."""

    def install_signal_handlers(self) -> None:
        pass


def main() -> None:
    configure()
    settings = load(IngestSettings)
    try:
        code = process.run(run(settings))
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a setting that only the log could prove wrong
        code = 2
    except Exception:
        # Crash-only: said once, whole, and the next process starts from the log.
        logger.exception("service.crashed")
        code = EXIT_CRASHED
    # Threads of a fold or of a client that waits for an absent broker must not keep the process.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
