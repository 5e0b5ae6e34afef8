"""Every event and command as a frozen dataclass; the Avro schemas under `schemas/` say the same (a test compares).

`occurred_at` is the first field of each, so that the body of a fact without its time is a suffix of the bytes and
`ce_id` can be taken from it. Identity fields have no default; every other field has one. Shapes: ids are UUIDs,
times UTC, `vector` little-endian float32 of `dims` numbers. This module knows nothing of Kafka or Avro.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from eventlog.ids import (
    ChunkId,
    ConceptId,
    DocumentId,
    EmbeddingKey,
    ImportId,
    ProjectId,
    SectionId,
    StoreId,
    id_text,
)

Long = Annotated[int, "long"]
"""64 bits in Avro; a bare int has 32."""
Float32 = Annotated[float, "float"]


class SourceKind(StrEnum):
    UNKNOWN = "UNKNOWN"
    AUTO = "auto"
    ZOTERO_RDF = "zotero_rdf"
    PDF = "pdf"
    SCHOLARAG = "scholarag"
    CSL_JSON = "csl_json"
    TEXT = "text"
    BIBTEX = "bibtex"
    RIS = "ris"
    ZOTERO_CSV = "zotero_csv"
    DOCX = "docx"
    EPUB = "epub"
    MIXED = "mixed"


class Part(StrEnum):
    """A document's parts are replaced separately: a record without a PDF takes no passages away."""

    UNKNOWN = "UNKNOWN"
    BIBLIOGRAPHIC = "bibliographic"
    FULL_TEXT = "full_text"


class ChunkKind(StrEnum):
    UNKNOWN = "UNKNOWN"
    PASSAGE = "passage"
    ABSTRACT = "abstract"
    TITLE = "title"
    NOTE = "note"
    CONCEPT = "concept"


class CreatorRole(StrEnum):
    UNKNOWN = "UNKNOWN"
    AUTHOR = "author"
    EDITOR = "editor"
    TRANSLATOR = "translator"
    CONTRIBUTOR = "contributor"
    SERIES_EDITOR = "series_editor"
    OTHER = "other"


class SectionKind(StrEnum):
    UNKNOWN = "UNKNOWN"
    ABSTRACT = "abstract"
    INTRODUCTION = "introduction"
    BACKGROUND = "background"
    LITERATURE_REVIEW = "literature_review"
    METHODOLOGY = "methodology"
    RESULTS = "results"
    DISCUSSION = "discussion"
    CONCLUSION = "conclusion"
    REFERENCES = "references"
    APPENDIX = "appendix"
    ACKNOWLEDGMENTS = "acknowledgments"
    TABLE = "table"
    OTHER = "other"


class AttachmentStatus(StrEnum):
    UNKNOWN = "UNKNOWN"
    FOUND = "found"
    MISSING = "missing"
    REJECTED = "rejected"
    UNSUPPORTED = "unsupported"
    LINK = "link"


class DocumentRejectionReason(StrEnum):
    UNKNOWN = "UNKNOWN"
    PDF_ENCRYPTED = "pdf_encrypted"
    PDF_DAMAGED = "pdf_damaged"
    PDF_EMPTY = "pdf_empty"
    PDF_NO_TEXT = "pdf_no_text"
    PDF_TOO_MANY_PAGES = "pdf_too_many_pages"
    FILE_TOO_LARGE = "file_too_large"
    FILE_EMPTY = "file_empty"
    FILE_MISSING = "file_missing"
    FILE_UNSUPPORTED = "file_unsupported"
    FILE_DAMAGED = "file_damaged"
    TEXT_TOO_LONG = "text_too_long"
    ITEM_EMPTY = "item_empty"
    ITEM_INVALID = "item_invalid"
    ITEM_TOO_LARGE = "item_too_large"
    PARSER_TIMEOUT = "parser_timeout"
    PARSER_CRASHED = "parser_crashed"
    PARSER_OUT_OF_MEMORY = "parser_out_of_memory"
    FILE_ENCRYPTED = "file_encrypted"


class ChunkRejectionReason(StrEnum):
    UNKNOWN = "UNKNOWN"
    TEXT_EMPTY = "text_empty"
    TEXT_TOO_LONG = "text_too_long"
    TEXT_INVALID = "text_invalid"
    PROVIDER_REFUSED = "provider_refused"
    VECTOR_INVALID = "vector_invalid"
    RECORD_TOO_LARGE = "record_too_large"
    DEAD_LETTERED = "dead_lettered"


class ChunkOutcome(StrEnum):
    UNKNOWN = "UNKNOWN"
    STORED = "stored"
    REJECTED = "rejected"
    DEAD_LETTERED = "dead_lettered"
    SUPERSEDED = "superseded"


class RefusalReason(StrEnum):
    UNKNOWN = "UNKNOWN"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    IMPORT_UNKNOWN = "import_unknown"
    IMPORT_FINISHED = "import_finished"
    FILES_MISSING = "files_missing"
    SPACE_MISMATCH = "space_mismatch"
    SPACE_UNKNOWN = "space_unknown"
    REQUEST_INVALID = "request_invalid"


class FailureReason(StrEnum):
    UNKNOWN = "UNKNOWN"
    SOURCE_UNREADABLE = "source_unreadable"
    SOURCE_EMPTY = "source_empty"
    FILES_MISSING = "files_missing"
    PARSER_FAILED = "parser_failed"


class PauseReason(StrEnum):
    UNKNOWN = "UNKNOWN"
    PROVIDER_QUOTA = "provider_quota"
    PROVIDER_DOWN = "provider_down"
    PROVIDER_CONFIG = "provider_config"


class WritingPauseReason(StrEnum):
    UNKNOWN = "UNKNOWN"
    STORE_DOWN = "store_down"
    STORE_READ_ONLY = "store_read_only"


# --- records inside events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of the library: its relative posix path there, and its content in the blob store."""

    path: str
    sha256: str
    size_bytes: Long


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A library of many files is itself a blob: `manifest_sha256` names a JSON list of its files.

    Then `files` is empty; otherwise `manifest_sha256` is null. A record so stays small whatever is imported.
    """

    kind: SourceKind
    files: tuple[SourceFile, ...]
    manifest_sha256: str | None = None
    file_count: int = 0
    size_bytes: Long = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Creator:
    family: str
    given: str = ""
    role: CreatorRole = CreatorRole.AUTHOR
    orcid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    name: str
    is_automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    path: str
    sha256: str = ""
    status: AttachmentStatus = AttachmentStatus.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    section_id: SectionId
    parent_id: SectionId | None = None
    title: str = ""
    kind: SectionKind = SectionKind.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A concept of one document: the project's node, this document's spelling, and the chunks that mention it."""

    concept_id: ConceptId
    name: str
    score: Float32 = 0.0
    chunk_indexes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that could not be used, by name: nothing is dropped silently."""

    code: str
    subject: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPart:
    """The chunks of one part in order; chunk indexes run through the parts of the document in order."""

    part: Part
    chunk_ids: tuple[ChunkId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledChunk:
    """Partition and offset are those of the chunk's record on `embeddings`."""

    partition: int
    offset: Long
    chunk_id: ChunkId
    document_id: DocumentId
    revision: Long
    chunk_index: int
    outcome: ChunkOutcome
    reason: ChunkRejectionReason = ChunkRejectionReason.UNKNOWN
    tokens_billed: Long = 0
    is_reused: bool = False
    content_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePosition:
    collection: str
    topic: str
    partition: int
    offset: Long


# --- bases -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportMessage(Message):
    import_id: ImportId
    project_id: ProjectId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMessage(ImportMessage):
    chunk_id: ChunkId
    document_id: DocumentId
    embedding_key: EmbeddingKey
    space: str
    revision: Long
    chunk_index: int
    kind: ChunkKind
    part: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkBody(ChunkMessage):
    """`char_start` and `char_end` count characters of the document's cleaned text; pages count from 1."""

    text: str
    concept_id: ConceptId | None = None
    section_id: SectionId | None = None
    section: str = ""
    parent_section: str | None = None
    char_start: int = 0
    char_end: int = 0
    page_first: int | None = None
    page_last: int | None = None
    token_count: int = 0
    title: str = ""
    creators: tuple[Creator, ...] = ()
    year: int | None = None
    doi: str | None = None


# --- commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestImport(Message):
    source: Source
    import_id: ImportId | None = None
    project_name: str = ""
    space: str | None = None
    idempotency_key: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    requested_by: str = ""
    item_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelImport(Message):
    import_id: ImportId
    requested_by: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeImport(Message):
    import_id: ImportId
    attempt_seen: int = 0
    requested_by: str = ""


# --- events of a project and of an import ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectCreated(ImportMessage):
    name: str
    space: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequested(ImportMessage):
    """The offset of this record on `imports` is the import's revision."""

    source: Source
    request_sha256: str
    space: str
    project_name: str = ""
    idempotency_key: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    requested_by: str = ""
    item_count: int = 0
    chunker_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRefused(Message):
    """`import_id` is the import that the command named or would have had."""

    import_id: ImportId
    command_id: str
    reason: RefusalReason
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentParsed(ImportMessage):
    document_id: DocumentId
    revision: Long
    content_hash: str
    parts: tuple[DocumentPart, ...]
    source_items: tuple[str, ...] = ()
    item_type: str = ""
    title: str = ""
    creators: tuple[Creator, ...] = ()
    year: int | None = None
    date: str = ""
    doi: str | None = None
    isbns: tuple[str, ...] = ()
    issns: tuple[str, ...] = ()
    url: str = ""
    venue: str = ""
    volume: str = ""
    issue: str = ""
    pages: str = ""
    publisher: str = ""
    language: str = ""
    abstract: str = ""
    tags: tuple[Tag, ...] = ()
    collections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    sections: tuple[Section, ...] = ()
    concepts: tuple[Concept, ...] = ()
    warnings: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRejected(ImportMessage):
    item: str
    reason: DocumentRejectionReason
    file_sha256: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSealed(ImportMessage):
    document_count: int
    chunk_count: int
    rejected_count: int = 0
    merged_count: int = 0
    warnings: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChunksSettled(ImportMessage):
    """`parsed_offset` is the offset of the `DocumentParsed` it closes; `parts` may replace what is older."""

    document_id: DocumentId
    revision: Long
    parsed_offset: Long
    parts: tuple[Part, ...]
    stored_count: int = 0
    rejected_count: int = 0
    dead_lettered_count: int = 0
    superseded_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCancelled(ImportMessage):
    requested_by: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResumed(ImportMessage):
    """`attempt` is the new one."""

    requested_by: str = ""
    message: str = ""
    missing_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCompleted(ImportMessage):
    revision: Long
    store_id: StoreId
    digest: str
    document_count: int = 0
    chunk_count: int = 0
    stored_count: int = 0
    rejected_count: int = 0
    dead_lettered_count: int = 0
    superseded_count: int = 0
    reused_count: int = 0
    documents_rejected_count: int = 0
    tokens_billed: Long = 0
    space: str = ""
    project_name: str = ""
    requested_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFailed(ImportMessage):
    reason: FailureReason
    message: str = ""


# --- chunks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkExtracted(ChunkBody):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkEmbedded(ChunkBody):
    dims: int
    vector: bytes
    tokens_billed: Long = 0
    is_reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRejected(ChunkMessage):
    """Without secrets and without the text; a record that only its headers explain is rejected from these."""

    reason: ChunkRejectionReason
    tries_count: int = 0
    message: str = ""


# --- the writer's facts ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunksSettled(ImportMessage):
    space: str
    store_id: StoreId
    chunks: tuple[SettledChunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSettled(ImportMessage):
    """`offset` is that of the `DocumentChunksSettled` it answers."""

    document_id: DocumentId
    revision: Long
    outcome: ChunkOutcome
    store_id: StoreId
    offset: Long
    node_count: int = 0
    edge_count: int = 0
    swept_count: int = 0
    content_hash: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOpened(Message):
    store_id: StoreId
    positions: tuple[StorePosition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingPaused(Message):
    store_id: StoreId
    reason: WritingPauseReason = WritingPauseReason.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingContinued(Message):
    store_id: StoreId
    reason: WritingPauseReason = WritingPauseReason.UNKNOWN


# --- spaces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSpaceMoveStarted(Message):
    project_id: ProjectId
    space: str
    space_before: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSpaceChanged(Message):
    project_id: ProjectId
    space: str
    space_before: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingPaused(Message):
    space: str
    reason: PauseReason
    paused_since: datetime | None = None
    next_try_at: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingContinued(Message):
    space: str


Command = RequestImport | CancelImport | ResumeImport

COMMANDS: tuple[type[Message], ...] = (RequestImport, CancelImport, ResumeImport)
EVENTS: tuple[type[Message], ...] = (
    ProjectCreated,
    ImportRequested,
    ImportRefused,
    DocumentParsed,
    DocumentRejected,
    ImportSealed,
    ChunkExtracted,
    ChunkEmbedded,
    ChunkRejected,
    ChunksSettled,
    DocumentChunksSettled,
    DocumentSettled,
    StoreOpened,
    WritingPaused,
    WritingContinued,
    ImportCancelled,
    ImportResumed,
    ImportCompleted,
    ImportFailed,
    ProjectSpaceMoveStarted,
    ProjectSpaceChanged,
    EmbeddingPaused,
    EmbeddingContinued,
)
MESSAGES: tuple[type[Message], ...] = COMMANDS + EVENTS


def subject_of(message: Message) -> str:
    """What the fact is about: chunk, document, import, space or store; it is `ce_subject`.

    A request whose import has no id yet is about what its producer calls it: its key, or else its project.
    """
    if isinstance(message, RequestImport) and message.import_id is None:
        return message.idempotency_key or message.project_name or "import"
    for name in ("chunk_id", "document_id", "import_id", "space", "store_id"):
        value: UUID | str | None = getattr(message, name, None)
        if value is not None:
            return id_text(value) if isinstance(value, UUID) else value
    raise TypeError(f"{type(message).__name__} names nothing that it is about")
