"""Two members of the graph-writer's group in one process, which says as JSON what became of each.

`python -m tests.integration.two_members BOOTSTRAP PREFIX FOLDER`. The second joins while the first reads; the first
then says where to read on only after a call for records that was under way has come back, as one does that asks a slow
store; at the end it leaves. A process of its own, because a member is never stopped gracefully.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eventlog.log import Record, TopicPartition
from eventlog.settings import ServiceSettings
from graph_writer.consumer import Reading
from graph_writer.opened import TOPICS

WAIT_S = 40.0


class Member:
    def __init__(self, settings: ServiceSettings) -> None:
        self.counts: list[int] = []
        """Of partitions, by assignment."""
        self.crashes: list[BaseException] = []
        self.is_asked = False
        self.calls_under_way = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.reading = Reading(
            settings=settings,
            group="graph-writer",
            instance="",
            topics=TOPICS,
            assigned=self._assigned,
            handle=self._handle,
            crash=self.crashes.append,
        )

    async def _assigned(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.is_asked = True
        await self.may_answer.wait()
        self.is_asked = False
        self.counts.append(len(partitions))
        return dict.fromkeys(partitions, 0)

    async def _handle(self, records: Sequence[Record]) -> None:
        del records

    def count_calls(self) -> None:
        """For records, those under way."""
        thread = self.reading._thread
        fetch = thread._fetch_records

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls_under_way += 1
            try:
                return await fetch(*args, **kwargs)
            finally:
                self.calls_under_way -= 1

        thread._fetch_records = counted  # type: ignore[method-assign]  # the calls are what is waited for

    async def leave(self) -> None:
        """While a request of its client has just been made: cancelling that comes out of the client's own `stop`."""
        consumer = self.reading._thread._ensure_consumer()
        stop = consumer.stop

        async def stopping() -> None:
            consumer._fetcher._pending_tasks.add(asyncio.ensure_future(asyncio.sleep(WAIT_S)))
            await stop()

        consumer.stop = stopping
        await self.reading.leave()


async def until(is_true: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_true():  # noqa: ASYNC110 - another thread does it
            await asyncio.sleep(0.05)


async def main(bootstrap: str, prefix: str, folder: str) -> None:
    first, second = (
        Member(
            ServiceSettings(
                KAFKA_BOOTSTRAP_SERVERS=bootstrap,
                PAPERLOG_PREFIX=prefix,
                PAPERLOG_HTTP_PORT=0,
                PAPERLOG_DATA_DIR=Path(folder) / name,
            )  # type: ignore[call-arg]  # the names of the environment
        )
        for name in ("one", "two")
    )
    await first.reading.start()
    first.count_calls()
    await until(lambda: first.counts and first.calls_under_way)
    first.may_answer.clear()
    await second.reading.start()
    await until(lambda: first.crashes or (first.is_asked and not first.calls_under_way))
    first.may_answer.set()
    await until(
        lambda: (
            first.crashes
            or second.crashes
            or (second.counts and first.counts[-1] + second.counts[-1] == first.counts[0])
        )
    )
    said = [
        {"counts": one.counts, "crashes": [repr(each) for each in one.crashes]} for one in (first, second)
    ]
    if not first.crashes:
        await first.leave()  # Faust calls that a crash
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
