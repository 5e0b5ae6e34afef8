"""The member of the group: a worker for each assigned partition, offsets on a timer, and a drain before partitions go."""

import asyncio
import contextlib
from collections.abc import Callable

from embedder.worker import Worker, WorkerParts
from eventlog.errors import TransientFailure
from eventlog.log import GroupReader, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import CHUNKS

logger = Logger("embedder.consumer")

COMMIT_S = 0.5
DRAIN_S_MAX = 30.0
"""Half of what a rebalance allows; a request may take longer, and is then lost to it."""
LEAVE_S_MAX = 5.0
"""A process that is told to stop has 10 s for everything."""
RETRY_S = 1.0
_NOWHERE = TopicPartition(CHUNKS, 1 << 20)
"""Asking for it hands out nothing, and raises what the group's callbacks have raised, while every worker waits."""


class Consumer:
    def __init__(self, parts: WorkerParts, *, group: str, crash: Callable[[BaseException], None]) -> None:
        self._parts = parts
        self._group = group
        self._crash = crash
        self._reader: GroupReader | None = None
        self._opened = asyncio.Event()
        self._workers: dict[TopicPartition, Worker] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._starting: asyncio.Task[None] | None = None
        self.has_caught_up = False

    @property
    def partitions(self) -> list[int]:
        return sorted(one.partition for one in self._workers)

    async def run(self) -> None:
        """Until cancelled; then it drains and leaves the group."""
        reader = await self._joined()
        self._reader = reader
        self._opened.set()
        try:
            while True:
                await asyncio.sleep(COMMIT_S)
                self._parts.index.commit()
                try:
                    await reader.poll(_NOWHERE, records_max=1, timeout_s=0.0)
                    await self._commit()
                except TransientFailure as failure:  # the next try commits them all
                    logger.warning("commit.failed", why=failure)
        finally:
            await asyncio.shield(self._leave(reader))

    async def _joined(self) -> GroupReader:
        while True:
            try:
                return await self._parts.log.group(
                    self._group, CHUNKS, assigned=self._on_assigned, revoked=self._on_revoked
                )
            except TransientFailure as failure:
                logger.warning("group.not_joined", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _leave(self, reader: GroupReader) -> None:
        await self._stop_workers(LEAVE_S_MAX)
        await reader.close()

    async def _on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        await self._opened.wait()
        self._starting = asyncio.create_task(self._start(partitions))
        self._starting.add_done_callback(self._look)

    def _look(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)

    async def _on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        del partitions  # Every rebalance takes all.
        await self._stop_workers(DRAIN_S_MAX)

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
            worker = Worker(self._parts, self._reader, partition, crash=self._crash)
            self._workers[partition] = worker
            worker.start()
        self.has_caught_up = True
        logger.info("partitions.assigned", count=len(partitions))

    async def _stop_workers(self, timeout_s: float) -> None:
        """What is paid for goes into the log, and its offsets to the group, before the partitions go."""
        self.has_caught_up = False
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            self._starting = None
        if self._workers:
            await asyncio.gather(*(worker.stop(timeout_s) for worker in self._workers.values()))
        with contextlib.suppress(
            TransientFailure
        ):  # the next owner starts earlier, and finds it in the index
            await self._commit()
        self._workers.clear()
        self._committed.clear()

    async def _commit(self) -> None:
        changed = {
            partition: worker.done_offset
            for partition, worker in self._workers.items()
            if worker.done_offset is not None and self._committed.get(partition) != worker.done_offset
        }
        if changed and self._reader is not None:
            await self._reader.commit(changed)
            self._committed.update(changed)
