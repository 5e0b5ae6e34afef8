"""What is known of an import: its state, its counts, and what is shown of it. Plain values without behaviour."""

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from eventlog.ids import ImportId, ProjectId


class State(StrEnum):
    ACCEPTED = "accepted"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    COMPLETED = "completed"
    COMPLETED_WITH_REJECTIONS = "completed_with_rejections"
    CANCELLED = "cancelled"
    FAILED = "failed"


OPEN = (State.PARSING, State.EMBEDDING)
TERMINAL = (State.COMPLETED, State.COMPLETED_WITH_REJECTIONS, State.CANCELLED, State.FAILED)
COMPLETE = (State.COMPLETED, State.COMPLETED_WITH_REJECTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkCounts:
    """Of the chunks that an import's documents list; `embedded` are those that have a vector."""

    total: int = 0
    embedded: int = 0
    reused: int = 0
    stored: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    superseded: int = 0

    @property
    def settled(self) -> int:
        return self.stored + self.rejected + self.dead_lettered + self.superseded


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentCounts:
    found: int = 0
    parsed: int = 0
    merged: int = 0
    stored: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """The story of one import so far, without its rows."""

    import_id: ImportId
    project_id: ProjectId
    project_name: str
    space: str
    state: State
    attempt: int
    revision: int
    request_sha256: str
    requested_at: datetime
    item_count: int = 0
    sealed_attempt: int = 0
    document_count: int = 0
    rejected_count: int = 0
    merged_count: int = 0
    finished_at: datetime | None = None
    digest: str | None = None
    problem: str | None = None
    chunks: ChunkCounts | None = None
    """As `ImportCompleted` counted them; null while the import is open."""
    tokens_billed: int | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_decided(self) -> bool:
        """Only a command is known, or one that was refused, while this is false."""
        return self.revision >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportStatus:
    """What `GET /api/imports/{id}` says; `position` is the offset of `imports` that last changed it."""

    import_id: ImportId
    project_id: ProjectId
    project: str
    state: State
    waiting: str | None
    attempt: int
    progress: float
    documents: DocumentCounts
    chunks: ChunkCounts
    warnings: int
    tokens_billed: int
    space: str
    requested_at: datetime
    finished_at: datetime | None
    digest: str | None
    problem: str | None
    position: int
    cursor: int

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = asdict(self)
        del out["position"], out["cursor"]
        out["import_id"] = str(self.import_id)
        out["project_id"] = str(self.project_id)
        out["requested_at"] = self.requested_at.isoformat()
        out["finished_at"] = self.finished_at.isoformat() if self.finished_at else None
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    project_id: ProjectId
    name: str
    space: str
