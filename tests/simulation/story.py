"""What people do in one simulated story: libraries, the requests to import them, cancels, resumes, repeats.

Drawn from the seed alone, before anything runs, so that the disturbed and the undisturbed run are of the same story.
Documents are in several imports, in several versions; a text may be one that the provider refuses.
"""

import hashlib
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eventlog import ids
from eventlog.events import (
    CancelImport,
    ChunkKind,
    Command,
    Concept,
    Creator,
    DocumentPart,
    Part,
    RequestImport,
    ResumeImport,
    Source,
    SourceFile,
    SourceKind,
)
from ingest.sources.item import Item, identity
from ingest.spool import SpooledChunk, SpooledDocument

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = "openai/test-embedding@4:1"
REFUSED = "refused"
"""A text with this word is one that the provider never takes."""
REJECTED = "broken"
"""A document of this name cannot be parsed."""
BEGIN_S_MAX = 8.0


@dataclass(frozen=True, kw_only=True)
class Content:
    """A document as one library has it; None where a part is not in it."""

    name: str
    bib: tuple[str, ...] | None
    text: tuple[str, ...] | None
    concepts: tuple[str, ...] = ()
    creators: tuple[Creator, ...] = ()

    def document_id(self, project: ids.ProjectId) -> ids.DocumentId:
        return ids.document_id(project, identity(self.item))

    @property
    def item(self) -> Item:
        return Item(name=self.name, doi=f"10.1000/{self.name}")

    def spooled(self, project: ids.ProjectId) -> tuple[SpooledDocument, list[SpooledChunk]]:
        """As the parser's child would write it down."""
        document = self.document_id(project)
        chunks: list[SpooledChunk] = []
        parts: list[DocumentPart] = []
        bib = [(ChunkKind.ABSTRACT if n else ChunkKind.TITLE, text) for n, text in enumerate(self.bib or ())]
        bib += [(ChunkKind.CONCEPT, ids.normalise_name(one)) for one in self.concepts]
        text = [(ChunkKind.PASSAGE, one) for one in self.text or ()]
        for part, there, pieces in (
            (Part.BIBLIOGRAPHIC, self.bib, bib),
            (Part.FULL_TEXT, self.text, text),
        ):
            if there is None:
                continue
            of_part = [
                SpooledChunk(
                    chunk_id=ids.chunk_id(document, "1", part, index, piece),
                    chunk_index=len(chunks) + index,
                    kind=kind,
                    part=part,
                    text=piece,
                    embedding_key=ids.embedding_key(project, piece),
                    concept_id=ids.concept_id(project, piece) if kind is ChunkKind.CONCEPT else None,
                )
                for index, (kind, piece) in enumerate(pieces)
            ]
            chunks += of_part
            parts.append(DocumentPart(part=part, chunk_ids=tuple(one.chunk_id for one in of_part)))
        facts: dict[str, Any] = {**dict.fromkeys(SpooledDocument.__slots__, ()), **dict.fromkeys(_TEXTS, "")}
        facts |= {
            "document_id": document,
            "parts": tuple(parts),
            "title": (self.bib or ("",))[0],
            "creators": self.creators,
            "year": None,
            "doi": self.item.doi,
            "concepts": tuple(
                Concept(concept_id=ids.concept_id(project, one), name=one, score=0.5, chunk_indexes=(0,))
                for one in self.concepts
            ),
        }
        return SpooledDocument(**facts), chunks


_TEXTS = (
    "content_hash", "item_type", "date", "url", "venue", "volume", "issue", "pages", "publisher", "language", "abstract",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Library:
    """What one import brings."""

    name: str
    project: str
    documents: tuple[Content, ...]

    @property
    def import_id(self) -> ids.ImportId:
        return ids.import_id_of_key("anonymous", self.name)

    @property
    def project_id(self) -> ids.ProjectId:
        return ids.project_id(self.project)

    @property
    def file_sha256(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def request(self) -> RequestImport:
        file = SourceFile(path=f"{self.name}.rdf", sha256=self.file_sha256, size_bytes=1)
        return RequestImport(
            occurred_at=NOW,
            import_id=self.import_id,
            project_name=self.project,
            space=SPACE,
            source=Source(kind=SourceKind.ZOTERO_RDF, files=(file,), file_count=1, size_bytes=1),
            item_count=len(self.documents),
        )


@dataclass(frozen=True, kw_only=True)
class Story:
    seed: int
    libraries: tuple[Library, ...]
    commands: tuple[tuple[float, Command], ...]
    """With the second at which each is sent."""

    def library(self, import_id: UUID) -> Library:
        return next(one for one in self.libraries if one.import_id == import_id)

    def by_file(self, sha256: str) -> Library:
        return next(one for one in self.libraries if one.file_sha256 == sha256)


@dataclass
class Draw:
    """Of one project: what is paid there is paid for it alone, so its texts are its own."""

    chance: random.Random
    project: str
    texts: list[str] = field(default_factory=list)

    def content(self, name: str) -> Content:
        chance = self.chance
        has_bib, has_text = chance.choice([(True, True), (True, True), (True, False), (False, True)])
        concepts = [f"{self.project} {one}" for one in ("Beak", "Island", "Gene")]
        people = [Creator(family="Darwin", given="Charles"), Creator(family="Wallace", given="Alfred")]
        return Content(
            name=name,
            bib=tuple(self.text() for _ in range(chance.randint(1, 2))) if has_bib else None,
            text=tuple(self.text() for _ in range(chance.randint(0, 6))) if has_text else None,
            concepts=tuple(chance.sample(concepts, chance.randint(0, 2))) if has_bib else (),
            creators=tuple(chance.sample(people, chance.randint(0, 2))) if has_bib else (),
        )

    def text(self) -> str:
        """Often one that was drawn before: what is paid for once serves all."""
        if self.texts and self.chance.random() < 0.35:
            return self.chance.choice(self.texts)
        mark = f" {REFUSED}" if self.chance.random() < 0.06 else ""
        self.texts.append(f"{self.project} {len(self.texts)}{mark}")
        return self.texts[-1]


def draw_story(seed: int) -> Story:
    chance = random.Random(f"story {seed}")
    draws = {one: Draw(chance, one) for one in ("Reading", "Other")}
    projects = [chance.choices(list(draws), [4, 1])[0] for _ in range(chance.randint(2, 3))]
    names = [f"d{n}" for n in range(chance.randint(2, 4))] + ([REJECTED] if chance.random() < 0.3 else [])
    libraries = tuple(
        Library(
            name=f"library {number}",
            project=project,
            documents=tuple(
                draws[project].content(one) for one in chance.sample(names, chance.randint(1, len(names)))
            ),
        )
        for number, project in enumerate(projects)
    )
    commands = [one for library in libraries for one in _commands_of(library, chance)]
    return Story(seed=seed, libraries=libraries, commands=tuple(sorted(commands, key=lambda one: one[0])))


def _commands_of(library: Library, chance: random.Random) -> list[tuple[float, Command]]:
    at = chance.uniform(0.0, BEGIN_S_MAX)
    commands: list[tuple[float, Command]] = [(at, library.request)]
    if chance.random() < 0.3:
        commands.append((at + chance.uniform(0.0, 3.0), library.request))
    cancel = CancelImport(occurred_at=NOW, import_id=library.import_id)
    resume = ResumeImport(occurred_at=NOW, import_id=library.import_id, attempt_seen=1)
    if chance.random() < 0.4:
        at += chance.uniform(0.0, 4.0)
        commands.append((at, cancel))
        if chance.random() < 0.7:
            at += chance.uniform(0.0, 4.0)
            commands += [(at, resume), (at + chance.uniform(0.0, 0.1), resume)]
    if chance.random() < 0.25:  # of one that is complete by then, or is not
        commands.append((at + chance.uniform(1.0, 30.0), resume))
    return commands
