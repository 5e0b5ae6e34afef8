"""One parsed document on disk: a line for the document, then a line for each chunk; read back one line at a time."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from eventlog.events import (
    Attachment,
    AttachmentStatus,
    ChunkKind,
    Concept,
    Creator,
    CreatorRole,
    DocumentPart,
    DocumentRejectionReason,
    Part,
    Remark,
    Section,
    SectionKind,
    Tag,
)
from eventlog.ids import ChunkId, ConceptId, DocumentId, EmbeddingKey, SectionId
from ingest import limits
from ingest.sources.item import BodyUnreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledDocument:
    """What `DocumentParsed` says, without what only the import knows."""

    document_id: DocumentId
    content_hash: str
    parts: tuple[DocumentPart, ...]
    source_items: tuple[str, ...]
    item_type: str
    title: str
    creators: tuple[Creator, ...]
    year: int | None
    date: str
    doi: str | None
    isbns: tuple[str, ...]
    issns: tuple[str, ...]
    url: str
    venue: str
    volume: str
    issue: str
    pages: str
    publisher: str
    language: str
    abstract: str
    tags: tuple[Tag, ...]
    collections: tuple[str, ...]
    notes: tuple[str, ...]
    attachments: tuple[Attachment, ...]
    sections: tuple[Section, ...]
    concepts: tuple[Concept, ...]
    warnings: tuple[Remark, ...]

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledChunk:
    """What `ChunkExtracted` says, without what the import and the document add."""

    chunk_id: ChunkId
    chunk_index: int
    kind: ChunkKind
    part: Part
    text: str
    embedding_key: EmbeddingKey
    concept_id: ConceptId | None = None
    section_id: SectionId | None = None
    section: str = ""
    parent_section: str | None = None
    char_start: int = 0
    char_end: int = 0
    page_first: int | None = None
    page_last: int | None = None
    token_count: int = 0

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def _plain(value: Any) -> Any:
    """What JSON has no form for: ids, and the dataclasses of a document."""
    if isinstance(value, UUID):
        return str(value)
    return {name: getattr(value, name) for name in value.__slots__}


def write_spool(path: Path, document: SpooledDocument, chunks: Iterator[SpooledChunk]) -> None:
    """Raises BodyUnreadable when the document alone is more than the log takes in one record."""
    line = json.dumps(document.fields(), default=_plain, ensure_ascii=False)
    size = len(line.encode())
    if size > limits.DOCUMENT_LINE_BYTES_MAX:
        message = (
            f"{size // 1_000_000} MB are more than one document's facts may have; shorten its notes or fields"
        )
        raise BodyUnreadable(DocumentRejectionReason.ITEM_TOO_LARGE, message)
    with path.open("w", encoding="utf-8") as file:
        file.write(line + "\n")
        for chunk in chunks:
            file.write(json.dumps(chunk.fields(), default=_plain, ensure_ascii=False) + "\n")


def read_document(path: Path) -> SpooledDocument:
    with path.open(encoding="utf-8") as file:
        values = json.loads(file.readline())
    return SpooledDocument(**_typed_document(values))


def read_chunks(path: Path) -> Iterator[SpooledChunk]:
    with path.open(encoding="utf-8") as file:
        file.readline()
        for line in file:
            values = json.loads(line)
            yield SpooledChunk(
                **{
                    **values,
                    "chunk_id": ChunkId(UUID(values["chunk_id"])),
                    "kind": ChunkKind(values["kind"]),
                    "part": Part(values["part"]),
                    "embedding_key": EmbeddingKey(UUID(values["embedding_key"])),
                    "concept_id": _optional(values["concept_id"]),
                    "section_id": _optional(values["section_id"]),
                }
            )


def _optional(value: str | None) -> Any:
    return None if value is None else UUID(value)


def _typed_document(values: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(values)
    out["document_id"] = DocumentId(UUID(values["document_id"]))
    out["parts"] = tuple(
        DocumentPart(part=Part(one["part"]), chunk_ids=tuple(ChunkId(UUID(id_)) for id_ in one["chunk_ids"]))
        for one in values["parts"]
    )
    out["creators"] = tuple(
        Creator(**{**one, "role": CreatorRole(one["role"])}) for one in values["creators"]
    )
    out["tags"] = tuple(Tag(**one) for one in values["tags"])
    out["attachments"] = tuple(
        Attachment(**{**one, "status": AttachmentStatus(one["status"])}) for one in values["attachments"]
    )
    out["sections"] = tuple(
        Section(
            section_id=SectionId(UUID(one["section_id"])),
            parent_id=_optional(one["parent_id"]),
            title=one["title"],
            kind=SectionKind(one["kind"]),
        )
        for one in values["sections"]
    )
    out["concepts"] = tuple(
        Concept(
            concept_id=ConceptId(UUID(one["concept_id"])),
            name=one["name"],
            score=one["score"],
            chunk_indexes=tuple(one["chunk_indexes"]),
        )
        for one in values["concepts"]
    )
    out["warnings"] = tuple(Remark(**one) for one in values["warnings"])
    for name in ("source_items", "isbns", "issns", "collections", "notes"):
        out[name] = tuple(values[name])
    return out
