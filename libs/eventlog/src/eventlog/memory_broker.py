"""What a broker holds, in memory: partitions with transactions, groups with their offsets, and faults placed by hand.

Behaves as Kafka does where services could notice: a transaction's marker takes an offset, readers stop before the
first open transaction, a newer decider aborts what the older left open. Time is the event loop's and the given
clock's, chance is nobody's, so a run under a virtual clock repeats exactly. Knows no service and no schema.
"""

import asyncio
import contextlib
import contextvars
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from eventlog.clock import Clock, SystemClock
from eventlog.errors import RecordGone, TransientFailure
from eventlog.log import NewRecord, Position, Record, TopicPartition
from eventlog.topics import Topic

if TYPE_CHECKING:
    from eventlog.memory_group import Group

TRANSACTION_TIMEOUT_S = 10.0


class Crash(BaseException):
    """The process dies here: a death, no error, so that nothing which catches Exception survives it.

    Whoever runs it throws its clients away (`MemoryLog.kill`) and starts anew.
    """


class Fault(Enum):
    """What happens to the next append, or the next end of a transaction."""

    NONE = "all goes well"
    REFUSE = "it fails and nothing is written"
    LOSE_ACK = "it is written and the acknowledgement is lost"
    CRASH_BEFORE = "the process dies before it is written"
    CRASH_AFTER = "the process dies after it was written"


class TransactionState(Enum):
    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True)
class Transaction:
    transactional_id: str
    epoch: int
    state: TransactionState = TransactionState.OPEN
    touched: set[TopicPartition] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Slot:
    """One offset: a record, or None for a transaction's marker."""

    record: Record | None
    transaction: Transaction | None = None

    @property
    def is_visible(self) -> bool:
        return self.record is not None and (
            self.transaction is None or self.transaction.state is TransactionState.COMMITTED
        )


@dataclass(slots=True)
class Partition:
    slots: list[_Slot] = field(default_factory=list)
    begin: int = 0
    transactions: list[tuple[int, Transaction]] = field(default_factory=list)
    """Where each that may be open began here."""

    @property
    def end(self) -> int:
        """Where readers stop: the first offset of an open transaction, or the end of the log."""
        self.transactions = [one for one in self.transactions if one[1].state is TransactionState.OPEN]
        return min((offset for offset, _ in self.transactions), default=len(self.slots))

    def read(self, offset: int, records_max: int) -> tuple[list[Record], int]:
        """The records from `offset` on that a reader may see, and the next offset to read."""
        found: list[Record] = []
        end = self.end
        while offset < end and len(found) < records_max:
            slot = self.slots[offset]
            offset += 1
            if slot.is_visible and slot.record is not None:
                found.append(slot.record)
        return found, offset


class MemoryBroker:
    """Shared by the `MemoryLog`s of several processes. Faults are placed by `fail` and `crash_at`."""

    def __init__(self, topics: Iterable[Topic] = (), *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._topics: dict[str, list[Partition]] = {}
        self._epochs: Counter[str] = Counter()
        self._open: dict[str, Transaction] = {}
        self._faults: dict[str, list[Fault]] = {}
        self._crashes: set[tuple[str, int, int]] = set()
        self._changed: dict[asyncio.Future[None], None] = {}  # in the order in which they came to wait
        self.committed: dict[str, dict[TopicPartition, int]] = {}
        self.groups: dict[str, Group] = {}
        self.is_down = False
        for topic in topics:
            self.create(topic)

    # --- what an operator or a test does

    def create(self, topic: Topic) -> None:
        """Raises ValueError where it exists with another number of partitions."""
        found = self._topics.setdefault(topic.name, [Partition() for _ in range(topic.partitions)])
        if len(found) != topic.partitions:
            raise ValueError(f"{topic.name} has {len(found)} partitions, not {topic.partitions}")

    def fail(self, name: str, *faults: Fault) -> None:
        """The next appends to the topic, or commits under the transactional id, meet these, one each, in order."""
        self._faults.setdefault(name, []).extend(faults)

    def crash_at(self, topic: str, partition: int, offset: int) -> None:
        """Whoever is about to read this record dies, once."""
        self._crashes.add((topic, partition, offset))

    def cut(self, topic: str, partition: int, begin: int) -> None:
        """Retention: what stands before `begin` is gone."""
        self.partition(topic, partition).begin = begin

    def stop(self) -> None:
        self.is_down = True

    def start(self) -> None:
        self.is_down = False
        self.wake()

    def records(self, topic: str) -> list[Record]:
        """All that a reader of the whole topic sees."""
        parts = self.topic(topic)
        return [record for part in parts for record in part.read(part.begin, len(part.slots))[0]]

    # --- what clients ask

    def check_up(self) -> None:
        if self.is_down:
            raise TransientFailure("the broker is away")

    def topic(self, name: str) -> list[Partition]:
        if name not in self._topics:
            raise TransientFailure(f"topic {name} is not there")
        return self._topics[name]

    def partition(self, topic: str, number: int) -> Partition:
        return self.topic(topic)[number]

    def append(self, record: NewRecord, transaction: Transaction | None = None) -> Position:
        """Raises what the next fault says; TransientFailure leaves the writer broken."""
        with self._fault(record.topic):
            position = self._append(record, transaction)
            self.wake()
        return position

    @contextlib.contextmanager
    def _fault(self, name: str) -> Iterator[None]:
        fault = self._faults[name].pop(0) if self._faults.get(name) else Fault.NONE
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.REFUSE:
            raise TransientFailure("refused by a fault")
        yield
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is Fault.LOSE_ACK:
            raise TransientFailure("the acknowledgement was lost by a fault")

    def _append(self, record: NewRecord, transaction: Transaction | None) -> Position:
        parts = self.topic(record.topic)
        number = record.partition
        if number is None:
            number = zlib.crc32(record.key or b"") % len(parts)
        slots = parts[number].slots
        written = Record(
            topic=record.topic,
            partition=number,
            offset=len(slots),
            key=record.key,
            value=record.value,
            headers=record.headers,
            timestamp_ms=int(self._clock.now().timestamp() * 1000),
        )
        at = TopicPartition(record.topic, number)
        if transaction is not None and at not in transaction.touched:
            transaction.touched.add(at)
            parts[number].transactions.append((len(slots), transaction))
        slots.append(_Slot(written, transaction))
        return Position(record.topic, number, written.offset)

    def read(self, at: TopicPartition, offset: int, records_max: int) -> tuple[list[Record], int]:
        """Raises RecordGone outside the log, and Crash where a test said so."""
        part = self.partition(at.topic, at.partition)
        if not part.begin <= offset <= len(part.slots):
            raise RecordGone(at.topic, at.partition, offset)
        records, following = part.read(offset, records_max)
        for record in records:
            place = (at.topic, at.partition, record.offset)
            if place in self._crashes:
                self._crashes.discard(place)
                raise Crash
        return records, following

    def at(self, at: TopicPartition, offset: int) -> Record:
        part = self.partition(at.topic, at.partition)
        if part.begin <= offset < part.end:
            slot = part.slots[offset]
            if slot.is_visible and slot.record is not None:
                return slot.record
        raise RecordGone(at.topic, at.partition, offset)

    # --- transactions

    def fence(self, transactional_id: str) -> int:
        """A new decider: what an older one left open is aborted, and it can commit no more."""
        self._epochs[transactional_id] += 1
        left = self._open.pop(transactional_id, None)
        if left is not None:
            self._end(left, TransactionState.ABORTED)
        return self._epochs[transactional_id]

    def is_fenced(self, transactional_id: str, epoch: int) -> bool:
        return self._epochs[transactional_id] != epoch

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        transaction = Transaction(transactional_id, epoch)
        transaction.timer = asyncio.get_running_loop().call_later(
            TRANSACTION_TIMEOUT_S, self.fence, transactional_id, context=contextvars.Context()
        )  # the broker's own: it goes off whatever becomes of the process that began
        self._open[transactional_id] = transaction
        return transaction

    def commit(self, transaction: Transaction) -> None:
        with self._fault(transaction.transactional_id):
            self._end(transaction, TransactionState.COMMITTED)

    def _end(self, transaction: Transaction, state: TransactionState) -> None:
        transaction.state = state
        if transaction.timer is not None:
            transaction.timer.cancel()
        if self._open.get(transaction.transactional_id) is transaction:
            del self._open[transaction.transactional_id]
        for at in sorted(transaction.touched, key=lambda one: (one.topic, one.partition)):
            self.partition(at.topic, at.partition).slots.append(_Slot(None))
        self.wake()

    # --- waiting

    def wake(self) -> None:
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.clear()

    async def changed(self) -> None:
        """Returns when anything was appended, ended or reassigned."""
        waiter = asyncio.get_running_loop().create_future()
        self._changed[waiter] = None
        try:
            await waiter
        finally:
            self._changed.pop(waiter, None)

    async def up(self) -> None:
        while self.is_down:
            await self.changed()
