"""Records that this consumer cannot process: kept byte for byte, once, and counted.

Many in a row mean that we are wrong, not the data: then the consumer stops taking more until an operator says so. The
count stands in the store, so that a restart does not drain the topic in slices.
"""

import asyncio
import hashlib
from dataclasses import replace

from eventlog.clock import Clock
from eventlog.envelope import dead_letter
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import Names
from graph_writer.health import Health
from graph_writer.opened import OpenedStore
from graph_writer.sender import Sender

GROUP = "graph-writer"
TOPIC = f"{GROUP}-dlq"
IN_ROW_MAX = 20

_log = Logger("graph_writer.dead_letters")
_Place = tuple[str, str, str, bytes]


class DeadLetters:
    def __init__(
        self, *, log: Log, names: Names, sender: Sender, opened: OpenedStore, clock: Clock, health: Health
    ) -> None:
        self._names = names
        self._kafka = log
        self._sender = sender
        self._opened = opened
        self._clock = clock
        self._health = health
        self._there: set[_Place] | None = None
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()
        self.in_row = 0
        self.total = 0

    async def open(self) -> None:
        self.in_row = await self._opened.dead_letters_in_row()
        self._look_at_count()

    async def put(self, record: Record, *, reason: str, message: str) -> None:
        """Returns when the record is in the dead letters; one that an earlier try left there is not put or counted again."""
        if self._there is None:
            self._there = await self._read_places()
        letter = dead_letter(
            replace(record, topic=self._names.of(record.topic)),
            topic=TOPIC,
            reason=reason,
            message=message,
            consumer=self._names.of(GROUP),
            at=self._clock.now(),
        )
        place = _place(letter.headers, letter.value)
        if place in self._there:
            return
        await self._sender.send([letter])
        self._there.add(place)
        self.total += 1
        _log.warning(
            "record.dead_lettered",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
        )
        await self._count(self.in_row + 1)

    async def saw_good(self) -> None:
        if self.in_row:
            await self._count(0)

    async def go_on(self) -> None:
        """An operator has decided."""
        await self._count(0)

    async def wait_until_allowed(self) -> None:
        await self._may_go_on.wait()

    async def _count(self, count: int) -> None:
        self.in_row = count
        await self._opened.keep_dead_letters_in_row(count)
        self._look_at_count()

    def _look_at_count(self) -> None:
        if self.in_row > IN_ROW_MAX:
            self._may_go_on.clear()
            self._health.add("dead_letters")
        else:
            self._may_go_on.set()
            self._health.remove("dead_letters")

    async def _read_places(self) -> set[_Place]:
        """Where the letters already there came from. Read when the first one of this process is to be put."""
        begin = (await self._kafka.begins(TOPIC))[0]
        end = (await self._kafka.ends(TOPIC))[0]
        places: set[_Place] = set()
        at = TopicPartition(TOPIC, 0)
        reader = await self._kafka.reader({at: begin})
        try:
            while await reader.position(at) < end:
                for record in await reader.poll(records_max=200, timeout_s=1.0):
                    places.add(_place(record.headers, record.value))
        finally:
            await reader.close()
        return places


def _place(headers: tuple[tuple[str, bytes], ...], value: bytes | None) -> _Place:
    """Coordinates and content: a log that was wiped uses the same coordinates again."""
    found = {name: one for name, one in headers if name.startswith("dlq_")}
    digest = hashlib.sha256(value or b"").digest()[:16]
    return (
        found.get("dlq_topic", b"").decode("utf-8", "replace"),
        found.get("dlq_partition", b"").decode("utf-8", "replace"),
        found.get("dlq_offset", b"").decode("utf-8", "replace"),
        digest,
    )
