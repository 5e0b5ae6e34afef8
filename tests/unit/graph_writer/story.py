"""What ingest and the embedder would have said, as short calls: documents in revisions, their chunks and vectors."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from eventlog import ids
from eventlog.events import (
    ChunkEmbedded,
    ChunkKind,
    ChunkRejected,
    ChunkRejectionReason,
    Concept,
    Creator,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentPart,
    Part,
)
from eventlog.spaces import parse_space

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPACE = "openai/test-embedding@8:1"
OTHER_SPACE = "openai/other-embedding@8:1"
PROJECT = ids.project_id("Reading")
BIB, TEXT = Part.BIBLIOGRAPHIC, Part.FULL_TEXT
DARWIN = Creator(family="Darwin", given="Charles")


def vector_of(text: str, dims: int = 8) -> bytes:
    """Of length 1, and the same for the same text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=dims)
    return (vector / np.linalg.norm(vector)).astype("<f4").tobytes()


def document(name: str) -> ids.DocumentId:
    return ids.document_id(PROJECT, f"doi:{name}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """A document as one import brings it. `bib` and `text` are chunk texts; None where the part is not in it."""

    name: str = "origin"
    revision: int = 1
    attempt: int = 1
    bib: tuple[str, ...] | None = ("On the Origin of Species",)
    text: tuple[str, ...] | None = None
    creators: tuple[Creator, ...] = (DARWIN,)
    concepts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By name, with the chunk indexes that mention it; each is a chunk of the bibliographic part, too."""
    space: str = SPACE

    def at(self, revision: int, *, attempt: int = 1) -> "Content":
        return replace(self, revision=revision, attempt=attempt)

    @property
    def document_id(self) -> ids.DocumentId:
        return document(self.name)

    @property
    def head(self) -> dict[str, Any]:
        import_id = ids.ImportId(uuid.uuid5(ids.NAMESPACE, f"import {self.revision}"))
        return {
            "occurred_at": NOW,
            "import_id": import_id,
            "project_id": PROJECT,
            "attempt": self.attempt,
        }

    def _texts(self) -> list[tuple[Part, ChunkKind, str]]:
        found = []
        if self.bib is not None:
            found += [
                (BIB, ChunkKind.ABSTRACT if index else ChunkKind.TITLE, text)
                for index, text in enumerate(self.bib)
            ]
            found += [(BIB, ChunkKind.CONCEPT, ids.normalise_name(name)) for name in self.concepts]
        return found + [(TEXT, ChunkKind.PASSAGE, text) for text in self.text or ()]

    def chunk_id(self, index: int) -> ids.ChunkId:
        texts = self._texts()
        part, _, text = texts[index]
        within = sum(one is part for one, _, _ in texts[:index])
        return ids.chunk_id(self.document_id, "1", part, within, text)

    def parsed(self) -> DocumentParsed:
        texts = self._texts()
        there = [part for part, given in ((BIB, self.bib), (TEXT, self.text)) if given is not None]
        return DocumentParsed(
            **self.head,
            document_id=self.document_id,
            revision=self.revision,
            content_hash="",
            parts=tuple(
                DocumentPart(
                    part=part,
                    chunk_ids=tuple(self.chunk_id(n) for n, one in enumerate(texts) if one[0] is part),
                )
                for part in there
            ),
            title=self.bib[0] if self.bib else "",
            creators=self.creators if self.bib is not None else (),
            year=1859,
            concepts=tuple(
                Concept(concept_id=ids.concept_id(PROJECT, name), name=name, score=0.5, chunk_indexes=indexes)
                for name, indexes in self.concepts.items()
            ),
        )

    def _chunk(self, index: int) -> dict[str, Any]:
        part, kind, text = self._texts()[index]
        return {
            **self.head,
            "chunk_id": self.chunk_id(index),
            "document_id": self.document_id,
            "embedding_key": ids.embedding_key(PROJECT, text),
            "space": self.space,
            "revision": self.revision,
            "chunk_index": index,
            "kind": kind,
            "part": part,
        }

    def chunks(self) -> list[ChunkEmbedded]:
        return [self.embedded(index) for index in range(len(self._texts()))]

    def embedded(self, index: int, **changed: Any) -> ChunkEmbedded:
        _, kind, text = self._texts()[index]
        dims = parse_space(self.space).dims
        said: dict[str, Any] = {
            **self._chunk(index),
            "text": text,
            "concept_id": ids.concept_id(PROJECT, text) if kind is ChunkKind.CONCEPT else None,
            "title": self.bib[0] if self.bib else "",
            "creators": self.creators,
            "year": 1859,
            "dims": dims,
            "vector": vector_of(text, dims),
            "tokens_billed": 3,
        }
        return ChunkEmbedded(**(said | changed))

    def rejected(self, index: int) -> ChunkRejected:
        return ChunkRejected(
            **self._chunk(index), reason=ChunkRejectionReason.PROVIDER_REFUSED, tries_count=1
        )

    def settled(self, parsed_offset: int, *parts: Part) -> DocumentChunksSettled:
        return DocumentChunksSettled(
            **self.head,
            document_id=self.document_id,
            revision=self.revision,
            parsed_offset=parsed_offset,
            parts=parts,
        )
