"""Single records by offset, exactly: a vector that was paid for is read back from where it stands.

One consumer without a group is moved about, one read at a time; a few neighbours of each read are kept, because a
library that is imported again asks for what stands side by side. Nothing here waits for a record that is not there.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from eventlog.errors import TransientFailure
from eventlog.kafka_client import (
    REQUEST_TIMEOUT_S,
    consumer_options,
    introduced,
    started,
    stopped,
    to_record,
    translated,
)
from eventlog.log import Record
from eventlog.topics import Names

_PARTITIONS_MAX = 64
_SLICE_S = 0.05
_FETCH_BYTES = 64 * 1024
"""Of each partition that is kept: 4 MB at most, larger records apart."""


class Lookup:
    def __init__(self, connection: dict[str, Any], names: Names) -> None:
        self._connection = connection
        self._names = names
        self._lock = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self._seen: OrderedDict[tuple[str, int], dict[int, Record]] = OrderedDict()
        self._ends: dict[tuple[str, int], int] = {}

    async def read(self, topic: str, partition: int, offset: int) -> Record | None:
        """None where the log does not hold it: before its start, behind its end, or a control record."""
        async with self._lock:
            at = (topic, partition)
            found = self._seen.get(at, {}).get(offset)
            if found is not None:
                return found
            with translated(self._names):
                records = await self._fetch(topic, partition, offset)
            self._seen[at] = {record.offset: record for record in records}
            self._seen.move_to_end(at)
            if len(self._seen) > _PARTITIONS_MAX:
                self._seen.popitem(last=False)
            return self._seen[at].get(offset)

    async def _fetch(self, topic: str, partition: int, offset: int) -> list[Record]:
        consumer = await self._started()
        at = KafkaTopicPartition(self._names.of(topic), partition)
        if offset < 0 or offset >= await self._end(consumer, at, offset):
            return []  # a consumer would wait for a record that may come one day
        self._turn_to(consumer, at)
        try:
            consumer.seek(at, offset)
            deadline = time.monotonic() + REQUEST_TIMEOUT_S
            while time.monotonic() < deadline:
                # All of the answer: one that is left half read keeps its bytes in a cycle until the collector comes by.
                batches = await consumer.getmany(at, timeout_ms=int(_SLICE_S * 1000))
                if batches:
                    return [to_record(message, self._names) for message in batches[at]]
                if await consumer.position(at) > offset:
                    return []  # nothing but control records or aborted ones from here on
        except OffsetOutOfRangeError:
            return []
        finally:
            consumer.pause(at)
            consumer.seek(at, 0)  # drops what was fetched beyond; left there, it would hold up the next fetch
        raise TransientFailure(f"no answer for {topic}[{partition}]@{offset}")

    def _turn_to(self, consumer: AIOKafkaConsumer, at: KafkaTopicPartition) -> None:
        """All partitions ever asked for stay assigned and paused: assigning anew costs twice the read itself."""
        if at not in consumer.assignment():
            consumer.assign([*consumer.assignment(), at])
            for one in consumer.assignment():
                consumer.seek(one, 0)
                consumer.pause(one)
        consumer.resume(at)

    async def _end(self, consumer: AIOKafkaConsumer, at: KafkaTopicPartition, offset: int) -> int:
        """The end as last seen where that suffices: it only grows, so most reads ask the broker once."""
        known = self._ends.get(at, 0)
        if offset >= known:
            await introduced(consumer, at.topic)
            known = self._ends[at] = (await consumer.end_offsets([at]))[at]
        return known

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            narrow = {"fetch_max_bytes": _FETCH_BYTES, "max_partition_fetch_bytes": _FETCH_BYTES}
            self._consumer = await started(
                AIOKafkaConsumer(**self._connection, **{**consumer_options(), **narrow}), self._names
            )
        return self._consumer

    async def close(self) -> None:
        if self._consumer is not None:
            await stopped(self._consumer)
            self._consumer = None
