"""Records that cannot be processed: kept byte for byte, once, with the reason. Many in a row stop the consumer.

The count stands in the index's folder, so that a restart does not drain the topic in slices.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from embedder.metrics import DEAD_LETTERS
from embedder.publisher import Publisher
from eventlog.clock import Clock
from eventlog.envelope import dead_letter, header
from eventlog.errors import TransientFailure
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import Names

logger = Logger("embedder.dead_letters")

IN_ROW_MAX = 20
RETRY_S = 1.0


class DeadLetters:
    def __init__(
        self, *, log: Log, names: Names, publisher: Publisher, group: str, clock: Clock, path: Path
    ) -> None:
        self._log = log
        self._names = names
        self._publisher = publisher
        self._group = group
        self._clock = clock
        self._path = path
        self._last: dict[int, int] | None = None
        self._lock = asyncio.Lock()
        self._may_go_on = asyncio.Event()
        self.in_row = _read(path)
        self._look()

    @property
    def topic(self) -> str:
        return f"{self._group}-dlq"

    @property
    def is_paused(self) -> bool:
        return not self._may_go_on.is_set()

    async def wait_until_allowed(self) -> None:
        await self._may_go_on.wait()

    def saw_good(self) -> None:
        if self.in_row:
            self._count(0)

    def go_on(self) -> None:
        """An operator has decided."""
        self._count(0)

    async def put(self, record: Record, *, reason: str, message: str) -> None:
        """Returns when it is there, which may be after an operator's decision; what is there is not put again."""
        async with self._lock:
            if self._last is None:
                self._last = await self._read_last_patiently()
            if record.offset <= self._last.get(record.partition, -1):
                return
            await self._may_go_on.wait()
            letter = dead_letter(
                replace(record, topic=self._names.of(record.topic)),
                topic=self.topic,
                reason=reason,
                message=message,
                consumer=self._names.of(self._group),
                at=self._clock.now(),
            )
            # A worker that is told to stop in between leaves a letter that is on its way, not half a note of it.
            self._last[record.partition] = record.offset
            self._count(self.in_row + 1)
            await asyncio.shield(self._publisher.publish([letter]))
        DEAD_LETTERS.inc()
        logger.warning(
            "record.dead_lettered", partition=record.partition, offset=record.offset, reason=reason
        )

    async def _read_last_patiently(self) -> dict[int, int]:
        while True:
            try:
                return await self._read_last()
            except TransientFailure as failure:
                logger.warning("dead_letters.not_read", why=failure)
                await asyncio.sleep(RETRY_S)

    async def _read_last(self) -> dict[int, int]:
        """The last offset of each source partition that is there already; a partition's records come in order."""
        begin, end = (await self._log.begins(self.topic))[0], (await self._log.ends(self.topic))[0]
        last: dict[int, int] = {}
        at = TopicPartition(self.topic, 0)
        reader = await self._log.reader({at: begin})
        try:
            while await reader.position(at) < end:
                for record in await reader.poll(records_max=200, timeout_s=1.0):
                    partition, offset = header(record, "dlq_partition"), header(record, "dlq_offset")
                    if partition.isdigit() and offset.isdigit():
                        last[int(partition)] = max(int(offset), last.get(int(partition), -1))
        finally:
            await reader.close()
        return last

    def _count(self, count: int) -> None:
        self.in_row = count
        self._path.write_text(json.dumps(count), encoding="utf-8")
        self._look()

    def _look(self) -> None:
        if self.in_row > IN_ROW_MAX:
            if self._may_go_on.is_set():
                logger.error("consumer.paused", dead_letters_in_row=self.in_row)
            self._may_go_on.clear()
        else:
            self._may_go_on.set()


def _read(path: Path) -> int:
    try:
        return int(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return 0
