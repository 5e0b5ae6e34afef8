"""Records that ingest cannot process: kept byte for byte, once, with the reason. Many in a row stop the commands.

What is there already is read from the topic itself, so that a restart, or another leader, buries nothing twice and
goes on counting where the one before stopped.
"""

import asyncio
from dataclasses import dataclass, replace

from eventlog.envelope import dead_letter, header
from eventlog.errors import RecordGone
from eventlog.log import Record, TopicPartition
from eventlog.logs import Logger
from eventlog.topics import DLQ, IMPORT_REQUESTS, IMPORTS
from ingest.fold import POISON_IN_A_ROW_MAX
from ingest.term import LeaderParts, Term

logger = Logger("ingest.dead_letters")

GROUP = "ingest"
TOPIC = f"{GROUP}-{DLQ}"


@dataclass(slots=True)
class _Buried:
    """Of one source topic: the last offset that is there, and where the unbroken row that it ends begins."""

    last: int = -1
    first: int = 0

    def add(self, offset: int) -> None:
        if offset != self.last + 1:
            self.first = offset
        self.last = max(self.last, offset)


class DeadLetters:
    def __init__(self, parts: LeaderParts) -> None:
        self._parts = parts
        self._buried: dict[str, _Buried] = {}
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()

    @property
    def is_paused(self) -> bool:
        return not self._may_go_on.is_set()

    def go_on(self) -> None:
        """An operator has decided: the row begins anew."""
        self._parts.projection.note_went_on(self._of(IMPORT_REQUESTS).last + 1)
        self._may_go_on.set()

    async def open(self, position: int) -> None:
        """Reads what is there. `position` is the next command: a good one before it has ended the row."""
        begin, end = (await self._parts.log.begins(TOPIC))[0], (await self._parts.log.ends(TOPIC))[0]
        at = TopicPartition(TOPIC, 0)
        self._buried.clear()
        reader = await self._parts.log.reader({at: begin})
        try:
            while await reader.position(at) < end:
                for record in await reader.poll(records_max=100, timeout_s=1.0):
                    if (offset := header(record, "dlq_offset")).isdigit():
                        self._of(self._parts.names.bare(header(record, "dlq_topic"))).add(int(offset))
        finally:
            await asyncio.shield(reader.close())
        self._look(position)

    def _look(self, position: int) -> None:
        row = self._of(IMPORT_REQUESTS)
        in_a_row = position - max(row.first, self._parts.projection.went_on_at)
        if row.last == position - 1 and in_a_row > POISON_IN_A_ROW_MAX:
            logger.error("leader.paused", poison_in_a_row=in_a_row)
            self._may_go_on.clear()

    async def bury_command(self, term: Term, record: Record, reason: str, message: str) -> None:
        await self._bury(term, record, reason, message)
        self._look(record.offset + 1)

    async def bury_facts(self, term: Term) -> None:
        """What the fold could not read, on this instance."""
        for offset, reason, message in self._parts.projection.poison():
            if offset > self._of(IMPORTS).last:
                try:
                    record = await self._parts.log.read_at(IMPORTS, 0, offset)
                except RecordGone:
                    continue
                await self._bury(term, record, reason, message)
            await asyncio.to_thread(self._parts.projection.forget_poison, offset)

    async def _bury(self, term: Term, record: Record, reason: str, message: str) -> None:
        row = self._of(record.topic)
        if record.offset <= row.last:
            return
        names = self._parts.names
        letter = dead_letter(
            replace(record, topic=names.of(record.topic)),
            topic=TOPIC,
            reason=reason,
            message=message,
            consumer=names.of(GROUP),
            at=self._parts.clock.now(),
        )
        await (await term.writer.send(letter))
        row.add(record.offset)

    def _of(self, topic: str) -> _Buried:
        return self._buried.setdefault(topic, _Buried())
