"""What the writer and the reads need of a store, and nothing else: points by id, a few filters, nearest points.

A store knows collections, points, vectors and payloads. It does not know documents, marks or positions: these are
payloads, and `core` says what they mean. One contract suite runs against every implementation.

What a caller does with a failure: `StoreAway` is retried where it stands; `StoreLost` ends the process at once, so
that the next one opens what is there; `StoreMismatch` refuses to start until an operator decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from eventlog.errors import TransientFailure

Order = tuple[int, int]
"""(revision, attempt): a lower one never overwrites a higher one."""

Payload = dict[str, Any]


class StoreAway(TransientFailure):
    """The store does not answer now; nothing is known to be lost. `retry_after_s` where it said when to come back."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreLost(Exception):  # noqa: N818 - the name says what happened; only a new process can go on
    """What was opened is not what is there any more (deleted, replaced, restored from a copy), or this machine has no room
    to open it.
    """


class StoreMismatch(Exception):  # noqa: N818 - the name says what happened; an operator decides
    """The store was made with other settings, for another log, or cannot be read at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """`dims` of the dense vector; `space` and `keywords` are checked on opening, for vectors of two kinds never mix."""

    name: str
    dims: int
    space: str = ""
    keywords: str = ""

    @property
    def has_words(self) -> bool:
        return bool(self.keywords)


@dataclass(frozen=True, slots=True)
class Words:
    """A sparse vector: which words, and how much each counts."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`vector` holds little-endian float32; empty where there is none or where it was not asked for."""

    id: UUID
    payload: Payload
    vector: bytes = b""
    words: Words | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """All that is given must hold; an empty tuple asks for nothing."""

    project_id: UUID | None = None
    document_ids: tuple[UUID, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    id: UUID
    score: float
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Writes `new` where the field still has the value last seen; None: where there is no such point yet."""

    id: UUID
    field: str
    expected: int | None
    new: Payload


class Store(Protocol):
    @property
    def is_shared(self) -> bool:
        """Whether other processes may write at the same time."""

    async def open(self, collection: Collection) -> None:
        """Makes it where it is missing. Raises StoreMismatch when it was made with other settings."""

    async def get(
        self,
        collection: str,
        ids: Iterable[UUID],
        *,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> dict[UUID, Point]:
        """Those that are there, with all of the payload or the fields named."""

    async def scroll(
        self,
        collection: str,
        where: Where,
        *,
        limit: int,
        after: UUID | None = None,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> tuple[list[Point], UUID | None]:
        """Points in the order of their ids, and from where to go on."""

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        """Returns when written. With `order`, what stands there under a higher (revision, attempt) stays."""

    async def delete(self, collection: str, ids: Sequence[UUID], *, order: Order | None = None) -> None:
        """Returns when deleted. With `order`, what stands there under a higher (revision, attempt) stays."""

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        """False, and nobody may go on, when one of them had another value than expected.

        `new` holds the field with another value than `expected`, so that a repeat of what was written is no failure.
        """

    async def nearest(
        self, collection: str, query: bytes | Words, where: Where, *, limit: int, fields: Sequence[str]
    ) -> list[Hit]:
        """By dot product, or by words with Qdrant's IDF; best first, without what has no word in common."""

    async def count(self, collection: str) -> int: ...

    async def flush(self) -> None:
        """After it, what was written outlives the process. Raises StoreLost when this is not the store opened."""

    async def check(self) -> None:
        """Raises StoreLost when this is not the store that was opened."""

    async def close(self) -> None: ...
