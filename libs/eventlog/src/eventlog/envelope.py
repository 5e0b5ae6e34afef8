"""The envelope around a message: CloudEvents headers (binary mode), correlation and causation, derived ids.

`seal` makes a record of a message, `unseal` a message of a record. `ce_id` follows from what the fact says, so a
repeat has the same id and never another content. `ChunkHeaders` is what stands in the headers of `chunks` and
`embeddings`, so that an index is built, and a record that cannot be read is accounted for, without its value.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from eventlog.avro import Schemas
from eventlog.errors import UnprocessableRecord
from eventlog.events import ChunkKind, ChunkMessage, ImportMessage, Message, Part, subject_of
from eventlog.ids import ChunkId, DocumentId, EmbeddingKey, EventId, ImportId, ProjectId, event_id, id_text
from eventlog.log import Header, NewRecord, Record
from eventlog.topics import RECORD_BYTES_MAX

_CUT_HEADER_BYTES = 256
CONTENT_TYPE = b"application/vnd.confluent.avro"
_CHUNK_HEADERS = (
    "paperlog_import",
    "paperlog_project",
    "paperlog_attempt",
    "paperlog_document",
    "paperlog_chunk",
    "paperlog_revision",
    "paperlog_chunk_index",
    "paperlog_kind",
    "paperlog_part",
    "paperlog_embedding_key",
    "paperlog_space",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """`event` with what its record said around it; `id` is `ce_id` where there is one."""

    event: Message
    record: Record
    id: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkHeaders:
    import_id: ImportId
    project_id: ProjectId
    attempt: int
    document_id: DocumentId
    chunk_id: ChunkId
    revision: int
    chunk_index: int
    kind: ChunkKind
    part: Part
    embedding_key: EmbeddingKey
    space: str


def event_id_of(message: Message, body: bytes) -> EventId:
    attempt = message.attempt if isinstance(message, ImportMessage) else 0
    return event_id(type(message).__name__, subject_of(message), attempt, body)


def key_of(message: Message) -> bytes:
    """What decides order and locality: see `schemas/topics.toml`."""
    if isinstance(message, ChunkMessage):
        return id_text(message.embedding_key).encode()
    for name in ("import_id", "space", "store_id"):
        value = getattr(message, name, None)
        if value is not None:
            return _text(value).encode()
    return subject_of(message).encode()


def _text(value: object) -> str:
    return id_text(value) if isinstance(value, UUID) else str(value)


def seal(
    schemas: Schemas,
    message: Message,
    *,
    topic: str,
    source: str,
    causation_id: str = "",
    partition: int | None = None,
) -> NewRecord:
    """The record of a message. Raises UnprocessableRecord when the message does not fit its schema."""
    value, body = schemas.encode(message)
    id_ = event_id_of(message, body)
    name = type(message).__name__
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(id_).encode()),
        ("ce_type", f"paperlog.{name}".encode()),
        ("ce_source", source.encode()),
        ("ce_subject", subject_of(message).encode()),
        ("ce_time", message.occurred_at.astimezone(UTC).isoformat().encode()),
        ("ce_dataschema", f"urn:paperlog:schema:{schemas.newest(name).id}".encode()),
        ("content-type", CONTENT_TYPE),
    ]
    import_id: UUID | None = getattr(message, "import_id", None)
    if import_id is not None:
        headers.append(("traceparent", f"00-{import_id.hex}-{id_.hex[:16]}-01".encode()))
        headers.append(("correlationid", id_text(import_id).encode()))
    if causation_id:
        headers.append(("causationid", causation_id.encode()))
    if isinstance(message, ChunkMessage):
        headers.extend(chunk_headers(message))
    return NewRecord(
        topic=topic, key=key_of(message), value=value, headers=tuple(headers), partition=partition
    )


def chunk_headers(message: ChunkMessage) -> list[Header]:
    values = (
        message.import_id,
        message.project_id,
        message.attempt,
        message.document_id,
        message.chunk_id,
        message.revision,
        message.chunk_index,
        message.kind,
        message.part,
        message.embedding_key,
        message.space,
    )
    return [(name, _text(value).encode()) for name, value in zip(_CHUNK_HEADERS, values, strict=True)]


def read_chunk_headers(record: Record) -> ChunkHeaders:
    """Raises UnprocessableRecord when a header is missing or is not of its type."""
    found = dict(record.headers)
    try:
        raw = [found[name].decode() for name in _CHUNK_HEADERS]
        headers = ChunkHeaders(
            import_id=ImportId(UUID(raw[0])),
            project_id=ProjectId(UUID(raw[1])),
            attempt=int(raw[2]),
            document_id=DocumentId(UUID(raw[3])),
            chunk_id=ChunkId(UUID(raw[4])),
            revision=int(raw[5]),
            chunk_index=int(raw[6]),
            kind=ChunkKind(raw[7]),
            part=Part(raw[8]),
            embedding_key=EmbeddingKey(UUID(raw[9])),
            space=raw[10],
        )
    except (AttributeError, KeyError, ValueError) as error:  # a foreign producer's header may be null
        raise UnprocessableRecord("headers_invalid", type(error).__name__) from None
    if not headers.space:
        raise UnprocessableRecord("headers_invalid", "no space")
    return headers


def header(record: Record, name: str) -> str:
    """The first header of that name as text, or an empty string."""
    for key, value in record.headers:
        if key == name and value:
            return value.decode("utf-8", "replace")
    return ""


def unseal(schemas: Schemas, record: Record) -> Envelope:
    """Raises UnprocessableRecord when the value is not one of our messages, whatever its headers say."""
    return Envelope(
        event=schemas.decode(record.value),
        record=record,
        id=header(record, "ce_id"),
        source=header(record, "ce_source"),
    )


def dead_letter(
    record: Record, *, topic: str, reason: str, message: str, consumer: str, at: datetime
) -> NewRecord:
    """The record byte for byte, its headers kept, with the reason and its coordinates added; in them, never its content.

    A foreign producer's record may leave no room for these: then its end is missing, and `dlq_cut_at` says so.
    """
    added: list[Header] = [
        ("dlq_reason", reason.encode()),
        ("dlq_message", message[:500].encode("utf-8", "replace")),
        ("dlq_topic", record.topic.encode()),
        ("dlq_partition", str(record.partition).encode()),
        ("dlq_offset", str(record.offset).encode()),
        ("dlq_consumer", consumer.encode()),
        ("dlq_at", at.isoformat().encode()),
    ]
    whole = NewRecord(
        topic=topic,
        key=_kept_key(record),
        value=record.value,
        headers=record.headers + tuple(added),
        partition=0,
    )
    return whole if whole.size_bytes <= RECORD_BYTES_MAX else _fitting(whole, tuple(added))


def _fitting(letter: NewRecord, added: tuple[Header, ...]) -> NewRecord:
    value = letter.value or b""
    cut = max(0, len(value) - (letter.size_bytes - RECORD_BYTES_MAX) - _CUT_HEADER_BYTES)
    cut_at = ("dlq_cut_at", str(cut).encode())
    fits = replace(letter, value=value[:cut], headers=(*letter.headers, cut_at))
    # Where key and headers alone are too much, the coordinates are what is left of it.
    return fits if fits.size_bytes <= RECORD_BYTES_MAX else replace(fits, key=b"", headers=(*added, cut_at))


def _kept_key(record: Record) -> bytes | None:
    # aiokafka sends no record without key and value (an assertion); an empty key stands for none there.
    return b"" if record.key is None and record.value is None else record.key
