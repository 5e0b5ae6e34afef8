"""Dead letters of the other consumers whose headers do not say whose they are: nobody could say an outcome for them.

An import that misses such a chunk waits, and only the letter can tell why. Each letter is looked at once, its headers
alone. Whether an import misses anything is not known here.
"""

import asyncio
from datetime import datetime

from eventlog.envelope import header, read_chunk_headers
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.spaces import parse_space
from eventlog.topics import CHUNKS, DLQ, EMBEDDINGS, Names

logger = Logger("ingest.nameless")

ASKED_S_MAX = 5.0
"""What was looked at until then is kept for the next time."""


class NamelessLetters:
    def __init__(self, log: Log, names: Names) -> None:
        self._log = log
        self._names = names
        self._one_at_a_time = asyncio.Lock()
        self._seen: dict[str, tuple[int, datetime | None]] = {}
        """By topic: the next offset, and when the newest nameless one before it was buried."""

    async def any_since(self, space: str, at: datetime) -> bool:
        """Of what the embedder of that space, or the graph-writer, has buried. False where the log does not answer."""
        topics = (f"embedder-{parse_space(space).slug}-{DLQ}", f"graph-writer-{DLQ}")
        try:
            async with asyncio.timeout(ASKED_S_MAX), self._one_at_a_time:
                found = [await self._newest(topic) for topic in topics]
        except (TransientFailure, TimeoutError) as failure:
            logger.warning("dead_letters.not_read", why=failure)
            return False
        return any(one is not None and one >= at for one in found)

    async def _newest(self, topic: str) -> datetime | None:
        begin, end = (await self._log.begins(topic))[0], (await self._log.ends(topic))[0]
        offset, newest = self._seen.get(topic, (0, None))
        if offset > end:
            offset, newest = 0, None  # The log is another one.
        offset = max(offset, begin)
        if offset == end:
            return newest
        at = TopicPartition(topic, 0)
        reader = await self._log.reader({at: offset})
        try:
            while await reader.position(at) < end:
                for record in await reader.poll(records_max=100, timeout_s=1.0):
                    newest = self._buried_at(record) or newest
                    self._seen[topic] = (record.offset + 1, newest)
        finally:
            await asyncio.shield(reader.close())
        return newest

    def _buried_at(self, letter: Record) -> datetime | None:
        """Null where the letter is no chunk's, or says which one's it is."""
        if self._names.bare(header(letter, "dlq_topic")) not in (CHUNKS, EMBEDDINGS):
            return None
        try:
            read_chunk_headers(letter)
        except UnprocessableRecord:
            try:
                return datetime.fromisoformat(header(letter, "dlq_at"))
            except ValueError:
                return None  # No consumer of ours wrote it.
        return None
