"""Events of one import as short calls, and a projection that folds them: the words of the tests beside."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eventlog import ids
from eventlog.events import (
    ChunkOutcome,
    ChunksSettled,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentPart,
    DocumentRejected,
    DocumentRejectionReason,
    DocumentSettled,
    ImportRequested,
    ImportSealed,
    Message,
    Part,
    ProjectCreated,
    SettledChunk,
    Source,
    SourceFile,
    SourceKind,
    StoreOpened,
    StorePosition,
)
from ingest.projection import Projection

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPACE = "local/wordllama@256:1"
PROJECT = ids.project_id("Reading")
IMPORT = ids.import_id_of_key("anonymous", "one")
OTHER = ids.import_id_of_key("anonymous", "two")
STORE = ids.StoreId(ids.NAMESPACE)
SOURCE = Source(
    kind=SourceKind.PDF,
    files=(SourceFile(path="a.pdf", sha256="0" * 64, size_bytes=1),),
    file_count=1,
    size_bytes=1,
)
BIB, TEXT = Part.BIBLIOGRAPHIC, Part.FULL_TEXT


def document(name: str = "a") -> ids.DocumentId:
    return ids.document_id(PROJECT, f"doi:{name}")


def chunk(name: str, document_name: str = "a") -> ids.ChunkId:
    return ids.chunk_id(document(document_name), "1", "full_text", 0, name)


def head(import_id: ids.ImportId = IMPORT, attempt: int = 1) -> dict[str, Any]:
    return {"import_id": import_id, "project_id": PROJECT, "attempt": attempt, "occurred_at": NOW}


def created() -> ProjectCreated:
    return ProjectCreated(**head(), name="Reading", space=SPACE)


def requested(import_id: ids.ImportId = IMPORT, **more: Any) -> ImportRequested:
    return ImportRequested(
        **head(import_id), source=SOURCE, request_sha256="r", space=SPACE, project_name="Reading", **more
    )


def parsed(
    name: str = "a",
    *,
    bib: tuple[str, ...] = (),
    text: tuple[str, ...] = (),
    revision: int = 1,
    import_id: ids.ImportId = IMPORT,
    attempt: int = 1,
) -> DocumentParsed:
    parts = [DocumentPart(part=BIB, chunk_ids=tuple(chunk(one, name) for one in bib))]
    if text:
        parts.append(DocumentPart(part=TEXT, chunk_ids=tuple(chunk(one, name) for one in text)))
    return DocumentParsed(
        **head(import_id, attempt),
        document_id=document(name),
        revision=revision,
        content_hash="h",
        parts=tuple(parts),
        title=f"Paper {name}",
    )


def rejected(item: str = "b.pdf") -> DocumentRejected:
    return DocumentRejected(**head(), item=item, reason=DocumentRejectionReason.PDF_ENCRYPTED)


def sealed(
    documents: int = 1, chunks: int = 1, *, attempt: int = 1, import_id: ids.ImportId = IMPORT
) -> ImportSealed:
    return ImportSealed(**head(import_id, attempt), document_count=documents, chunk_count=chunks)


def settled(
    *names: str,
    outcome: ChunkOutcome = ChunkOutcome.STORED,
    document_name: str = "a",
    partition: int = 0,
    offset: int = 0,
    import_id: ids.ImportId = IMPORT,
    attempt: int = 1,
    tokens: int = 7,
    is_reused: bool = False,
) -> ChunksSettled:
    """Chunks of one document, at consecutive offsets from `offset`."""
    return ChunksSettled(
        **head(import_id, attempt),
        space=SPACE,
        store_id=STORE,
        chunks=tuple(
            SettledChunk(
                partition=partition,
                offset=offset + index,
                chunk_id=chunk(name, document_name),
                document_id=document(document_name),
                revision=1,
                chunk_index=index,
                outcome=outcome,
                tokens_billed=tokens,
                is_reused=is_reused,
                content_hash=name.encode().ljust(32, b"."),
            )
            for index, name in enumerate(names)
        ),
    )


def chunks_said(
    name: str = "a",
    *,
    parsed_offset: int,
    revision: int = 1,
    parts: tuple[Part, ...] = (BIB, TEXT),
    import_id: ids.ImportId = IMPORT,
    **counts: int,
) -> DocumentChunksSettled:
    return DocumentChunksSettled(
        **head(import_id),
        document_id=document(name),
        revision=revision,
        parsed_offset=parsed_offset,
        parts=parts,
        **counts,
    )


def document_settled(name: str = "a", *, offset: int, import_id: ids.ImportId = IMPORT) -> DocumentSettled:
    return DocumentSettled(
        **head(import_id),
        document_id=document(name),
        revision=1,
        outcome=ChunkOutcome.STORED,
        store_id=STORE,
        offset=offset,
    )


def opened(*positions: tuple[str, int, int]) -> StoreOpened:
    return StoreOpened(
        occurred_at=NOW,
        store_id=STORE,
        positions=tuple(
            StorePosition(collection="c", topic=topic, partition=partition, offset=offset)
            for topic, partition, offset in positions
        ),
    )


class Told:
    """A projection that was told a story, one event an offset."""

    def __init__(self, folder: Path) -> None:
        self.projection = Projection(folder / "imports.sqlite")
        self.log: list[Message] = []

    def tell(self, *events: Message) -> "Told":
        first = len(self.log)
        self.log.extend(events)
        self.projection.apply(list(enumerate(self.log))[first:], len(self.log))
        return self

    @property
    def status(self) -> Any:
        status = self.projection.status(IMPORT)
        assert status is not None
        return status


def at_attempt(event: Any, attempt: int) -> Any:
    return replace(event, attempt=attempt)
