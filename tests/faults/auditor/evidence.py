"""What the auditor has seen, as plain values: records, points, bills, answers over HTTP, files. It judges nothing.

Nothing here or beside it is shared with the system: names of fields are those of `schemas/*.avsc` and of the HTTP
interface, and what follows from them (ids, hashes, vectors) is computed anew in `derive.py`.
"""

from dataclasses import dataclass, field
from typing import Any

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A record that says what its schema says it may; `content` is a digest of its body without `occurred_at`."""

    topic: str
    partition: int
    offset: int
    type: str
    id: str
    """`ce_id`."""
    content: bytes
    body: dict[str, Any]
    is_repeat: bool = False
    """The run itself has put it there once more: it says nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """`source` is the place that its headers name; `chunk` and `import_id` where the record said whose it was."""

    topic: str
    source: tuple[str, int, int]
    reason: str
    chunk_id: str = ""
    import_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    payload: Payload
    vector: bytes
    """Float32, little-endian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One text billed; `met` names the fault that kept its answer from being of use, if any did."""

    sha256: str
    met: str
    at: float = 0.0
    """Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`via` is one client's connection: what two of them see need not be in one order."""

    import_id: str
    via: str
    attempt: int
    progress: float
    settled: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the live store answered when `ImportCompleted` had become readable."""

    import_id: str
    attempt: int
    stored: int
    """As the event says."""
    checked: int
    missing: int
    answered: bool
    is_current: bool = True
    """False where the import had gone on to another attempt before the store was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The run killed a service, stopped it, or cut it from its log, at `since`; `until` is when that was over."""

    name: str
    since: float
    until: float

    @property
    def is_costly(self) -> bool:
        """Whether it may cost what is under way at the provider."""
        return self.name.startswith(("embedder", "kafka", "all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """After every local file but the log's and the blob store's was deleted and the stack had caught up."""

    points: dict[str, dict[str, Point]]
    statuses: dict[str, dict[str, Any]]
    bills_count: int
    """Texts billed by the rebuilding."""


@dataclass(slots=True, kw_only=True)
class Evidence:
    facts: list[Fact] = field(default_factory=list)
    """In the order of their partitions."""
    unreadable: list[tuple[str, int, int]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    points: dict[str, dict[str, Point]] = field(default_factory=dict)
    """By collection (`graph`, or the space's slug) and id."""
    bills: list[Bill] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)
    memory_kb: list[dict[str, int]] = field(default_factory=list)
    """Anonymous memory by service, children included, at one moment each."""
    deaths: list[Death] = field(default_factory=list)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    """By import: path and text of each file that is plain text."""
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By import, as HTTP answered at the end."""
    finished_in_s: float | None = None
    finish_s_max: float = 600.0
    memory_mb_max: int = 300
    rebuilt: Rebuilt | None = None
    secrets: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    """By name: logs, problem documents, headers of dead letters; where neither a key nor a document's text may be."""

    def of(self, *types: str) -> list[Fact]:
        return [fact for fact in self.facts if fact.type in types]
