"""The embedder as a process: reading `run` from top to bottom is reading the deployment. Nothing else builds a client."""

import asyncio
import os
import signal
import sqlite3
import sys
import uuid
from datetime import timedelta
from pathlib import Path

from aiohttp import web

from embedder.consumer import Consumer
from embedder.core import Pause
from embedder.dead_letters import DeadLetters
from embedder.gate import Gate
from embedder.http import HttpParts, build_app
from embedder.index import Index
from embedder.models.model import Misconfigured, Model
from embedder.publisher import Publisher
from embedder.settings import EmbedderSettings
from embedder.story import SNAPSHOT_VERSION, Story
from embedder.worker import WorkerParts
from eventlog import process
from eventlog.avro import Schemas, schemas_dir
from eventlog.clock import SystemClock
from eventlog.envelope import seal
from eventlog.errors import TransientFailure
from eventlog.events import EmbeddingContinued, EmbeddingPaused, PauseReason
from eventlog.kafka import KafkaLog
from eventlog.logs import Logger, configure
from eventlog.settings import load
from eventlog.snapshot import SnapshotFile
from eventlog.spaces import Space
from eventlog.topics import CHUNKS, EMBEDDINGS, IMPORTS, topics_of

logger = Logger("embedder")

EXIT_CRASHED = 70
START_RETRY_S = 1.0
STOP_S_MAX = 8.0
WATCH_S = 5.0
OBEYED_S_MAX = 600.0
"""Another clock may be wrong."""


class WrongSetting(Exception):  # noqa: N818 - it says what the operator has to look at
    """Only the log or the model could prove it wrong."""


def build_model(settings: EmbedderSettings) -> Model:
    """Only the provider that is asked for is imported: each costs 50 MB."""
    space = settings.space
    match space.provider:
        case "openai":
            from embedder.models.openai import OpenAIModel  # noqa: PLC0415 - 49 MB that others need not carry

            return OpenAIModel(
                space,
                api_key=settings.openai_api_key.get_secret_value(),
                base_url=settings.openai_base_url,
                timeout_s=settings.request_s_max,
            )
        case "cohere":
            from embedder.models.cohere import CohereModel  # noqa: PLC0415 - 52 MB that others need not carry

            return CohereModel(
                space,
                api_key=settings.co_api_key.get_secret_value(),
                base_url=settings.co_api_url,
                timeout_s=settings.request_s_max,
            )
        case _:
            from embedder.models.local import LocalModel  # noqa: PLC0415 - weights that others need not carry

            return LocalModel(space)


async def _make_topics(log: KafkaLog, group: str) -> None:
    """Waits for the brokers; raises WrongSetting where partition counts differ, for ours are the ones read."""
    while True:
        try:
            await log.ensure_topics(topics_of("embedder", group))
            chunks, embeddings = await log.partitions(CHUNKS), await log.partitions(EMBEDDINGS)
        except TransientFailure as failure:
            logger.warning("log.unavailable", why=failure)
            await asyncio.sleep(START_RETRY_S)
            continue
        except ValueError as error:
            raise WrongSetting(str(error)) from None
        if chunks != embeddings:
            raise WrongSetting(
                f"{CHUNKS} has {chunks} partitions and {EMBEDDINGS} {embeddings}; they must be as many"
            )
        return


async def _watch(log: KafkaLog, connected: asyncio.Event) -> None:
    """Asks, because aiokafka says nothing while the brokers are away."""
    while True:
        try:
            await log.ends(IMPORTS)
        except TransientFailure as failure:
            logger.warning("log.unavailable", why=failure)
            connected.clear()
            await asyncio.sleep(START_RETRY_S)
        else:
            connected.set()
            await asyncio.sleep(WATCH_S)


class _Announcer:
    """Says pauses of the space on `imports`, for users to see and for other instances to obey."""

    def __init__(
        self, space: Space, source: str, schemas: Schemas, publisher: Publisher, clock: SystemClock
    ) -> None:
        self._space = space
        self._source = source
        self._schemas = schemas
        self._publisher = publisher
        self._clock = clock

    async def __call__(self, pause: Pause | None) -> None:
        now = self._clock.now()
        event: EmbeddingPaused | EmbeddingContinued = EmbeddingContinued(
            occurred_at=now, space=str(self._space)
        )
        if pause is not None:
            monotonic_s = self._clock.monotonic_s()
            event = EmbeddingPaused(
                occurred_at=now,
                space=str(self._space),
                reason=pause.reason,
                paused_since=now - timedelta(seconds=monotonic_s - pause.since_s),
                next_try_at=now + timedelta(seconds=max(0.0, pause.next_try_s - monotonic_s)),
                message=pause.message,
            )
        record = seal(self._schemas, event, topic=IMPORTS, source=self._source, partition=0)
        await self._publisher.publish([record])


async def run(settings: EmbedderSettings) -> int:
    clock = SystemClock()
    schemas = Schemas(schemas_dir())
    space = settings.space
    group = f"embedder-{space.slug}"
    source = f"paperlog/{group}"
    own = f"{source}/{uuid.uuid4().hex[:12]}"  # other processes obey what this one says of the provider
    data = Path(settings.data_dir)
    log = KafkaLog(settings)
    try:
        model = build_model(settings)
    except Misconfigured as error:
        raise WrongSetting(str(error)) from None
    stopping = asyncio.Event()
    crashes: list[BaseException] = []

    def crash(error: BaseException) -> None:
        if isinstance(error, sqlite3.DatabaseError):
            index.discard()  # a damaged cache is no reason to crash twice
        crashes.append(error)
        stopping.set()

    index = Index(data / "index.sqlite", str(space))
    publisher = Publisher(log)
    announcer = _Announcer(space, own, schemas, publisher, clock)
    gate = Gate(model, requests_max=settings.requests_max, clock=clock, said=announcer)
    dead_letters = DeadLetters(
        log=log,
        names=log.names,
        publisher=publisher,
        group=group,
        clock=clock,
        path=data / "dead-letters-in-row.json",
    )

    def on_pause(event: EmbeddingPaused | EmbeddingContinued) -> None:
        if isinstance(event, EmbeddingContinued):
            gate.continued()
            return
        next_try_s = 0.0 if event.next_try_at is None else (event.next_try_at - clock.now()).total_seconds()
        next_try_s = min(next_try_s, OBEYED_S_MAX)
        if story.caught_up.is_set():
            gate.obey(event.reason, next_try_s, event.message)
        else:  # What a restart may have repaired is tried at once.
            is_quota = event.reason is PauseReason.PROVIDER_QUOTA
            gate.inherit(event.reason, next_try_s if is_quota else 0.0, event.message)

    story = Story(
        log,
        schemas,
        space=str(space),
        source=own,
        on_pause=on_pause,
        snapshot=SnapshotFile(data / f"story-{space.slug}.json", SNAPSHOT_VERSION),
    )
    consumer = Consumer(
        WorkerParts(
            space=str(space),
            dims=space.dims,
            source=source,
            log=log,
            schemas=schemas,
            index=index,
            gate=gate,
            story=story,
            publisher=publisher,
            dead_letters=dead_letters,
            clock=clock,
        ),
        group=group,
        crash=crash,
    )
    connected = asyncio.Event()
    http = web.AppRunner(
        build_app(
            HttpParts(
                space=space,
                model=model,
                gate=gate,
                story=story,
                consumer=consumer,
                dead_letters=dead_letters,
                is_connected=connected.is_set,
            )
        ),
        access_log=None,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await http.setup()
    await web.TCPSite(http, settings.http_host, settings.http_port).start()

    async def work() -> None:
        await _make_topics(log, group)
        connected.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_watch(log, connected))
            tasks.create_task(gate.run())
            tasks.create_task(story.run())
            tasks.create_task(consumer.run())

    working = asyncio.create_task(work())
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if crashes:
            raise crashes[0]
        if working.done():
            working.result()
        return 0
    finally:
        working.cancel()
        stopped.cancel()
        await asyncio.wait({working, stopped}, timeout=STOP_S_MAX)
        await http.cleanup()
        await publisher.close()
        await log.close()
        await model.close()
        index.close()


def main() -> None:
    configure()
    settings = load(EmbedderSettings)
    try:
        code = process.run(run(settings))
    except WrongSetting as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the operator at the terminal
        code = 2
    except Exception:
        # Crash-only: said once, whole, and the next process starts from the log.
        logger.exception("service.crashed")
        code = EXIT_CRASHED
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
