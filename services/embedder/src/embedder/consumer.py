"""The member of the group: a worker for each assigned partition, offsets on a timer, and a drain before partitions go."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from embedder.worker import Worker, WorkerParts
from eventlog.errors import TransientFailure
from eventlog.log import GroupReader, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import CHUNKS

logger = Logger("embedder.consumer")

COMMIT_S = 0.5
DRAIN_S_MAX = 10.0
RETRY_S = 1.0


class Consumer:
    def __init__(self, parts: WorkerParts, *, group: str, crash: Callable[[BaseException], None]) -> None:
        self._parts = parts
        self._group = group
        self._crash = crash
        self._reader: GroupReader | None = None
        self._opened = asyncio.Event()
        self._workers: dict[TopicPartition, tuple[Worker, asyncio.Task[None]]] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._starting: asyncio.Task[None] | None = None
        self._done: dict[TopicPartition, int | None] = {}
        self.has_caught_up = False

    @property
    def partitions_count(self) -> int:
        return len(self._workers)

    async def run(self) -> None:
        """Until cancelled; then it drains and leaves the group."""
        try:
            while True:
                try:
                    await self._take_part()
                except TransientFailure as failure:
                    logger.warning("group.interrupted", why=failure)
                    await asyncio.sleep(RETRY_S)
        finally:
            await asyncio.shield(self._stop_workers())

    async def _take_part(self) -> None:
        self._opened.clear()
        reader = await self._parts.log.group(
            self._group, CHUNKS, assigned=self._on_assigned, revoked=self._on_revoked
        )
        self._reader = reader
        self._opened.set()
        try:
            while True:
                await asyncio.sleep(COMMIT_S)
                await self._commit()
        finally:
            await asyncio.shield(self._leave(reader))

    async def _leave(self, reader: GroupReader) -> None:
        await self._stop_workers()
        with contextlib.suppress(
            TransientFailure
        ):  # the next one starts a little earlier, and finds it in the index
            await self._commit()
        await reader.close()

    async def _on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        await self._opened.wait()
        self.has_caught_up = False
        self._starting = asyncio.create_task(self._guarded(lambda: self._start(partitions)))

    async def _on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        del partitions  # Every rebalance takes all.
        await self._stop_workers()
        with contextlib.suppress(TransientFailure):
            await self._commit()
        self._committed.clear()

    async def _start(self, partitions: frozenset[TopicPartition]) -> None:
        assert self._reader is not None
        await self._parts.story.caught_up.wait()
        while True:
            try:
                await self._parts.index.catch_up(self._parts.log, sorted(one.partition for one in partitions))
            except TransientFailure as failure:
                logger.warning("index.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)
            else:
                break
        for partition in sorted(partitions, key=lambda one: one.partition):
            worker = Worker(self._parts, self._reader, partition)
            self._workers[partition] = (worker, asyncio.create_task(self._guarded(worker.run)))
        self.has_caught_up = True
        logger.info("partitions.assigned", count=len(partitions))

    async def _guarded(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await run()
            except asyncio.CancelledError:
                raise
            except TransientFailure as failure:
                logger.warning("worker.interrupted", why=failure)
                await asyncio.sleep(RETRY_S)
            except BaseException as error:
                self._crash(error)
                raise

    async def _stop_workers(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            self._starting = None
        workers = list(self._workers.items())
        for _, (_, task) in workers:
            task.cancel()
        if workers:
            await asyncio.wait([task for _, (_, task) in workers])
        # What is paid for goes into the log before the partition goes.
        drains = [asyncio.ensure_future(worker.drain()) for _, (worker, _) in workers]
        if drains:
            _, late = await asyncio.wait(drains, timeout=DRAIN_S_MAX)
            for task in late:
                task.cancel()
        self._done = {partition: worker.done_offset for partition, (worker, _) in workers}
        self._workers.clear()

    async def _commit(self) -> None:
        if self._reader is None:
            return
        done = self._done | {
            partition: worker.done_offset for partition, (worker, _) in self._workers.items()
        }
        changed = {
            partition: offset
            for partition, offset in done.items()
            if offset is not None and self._committed.get(partition) != offset
        }
        if changed:
            await self._reader.commit(changed)
            self._committed.update(changed)
        self._done = {}
