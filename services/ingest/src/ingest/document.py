"""From an item and its body of text to a document with its chunks. Pure: the same input gives the same bytes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from eventlog import ids
from eventlog.events import (
    Attachment,
    AttachmentStatus,
    ChunkKind,
    Concept,
    DocumentPart,
    Part,
    Remark,
    Section,
)
from eventlog.ids import ConceptId, DocumentId, ProjectId, SectionId
from ingest import limits
from ingest.chunking import (
    CHUNKER_VERSION,
    BodySection,
    Heading,
    Span,
    divide,
    estimate_tokens,
    pages_of,
    split,
)
from ingest.concepts import Named, mentions, name_concepts
from ingest.sources.item import Item, first_warnings
from ingest.spool import SpooledChunk, SpooledDocument

_FACTS = (
    "item_type", "title", "creators", "year", "date", "doi", "isbns", "issns", "url", "venue", "volume", "issue",
    "pages", "publisher", "language", "abstract", "tags", "collections",
)  # fmt: skip
"""What an item and a document call by one name."""
PASSAGE_BYTES_MIN = 40
"""Of a section, such as a heading that its first subheading follows at once; bytes, as a Chinese sentence is short."""
CONCEPT_TEXT_CHARACTERS = 1_500
"""Of a body's beginning, read for keyphrases where there is no abstract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The cleaned full text; `page_starts` are the offsets at which its pages begin, empty without pages.

    `unread_pages` are the numbers of those that gave no text because they are damaged; `headings` are those that the
    format itself tells. `warnings` say what of the file was not read as it stands.
    """

    text: str
    page_starts: tuple[int, ...] = ()
    unread_pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    warnings: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A chunk before its index and ids are known; its place and not its text, since a body's chunks are a second body."""

    kind: ChunkKind
    part: Part
    source: str
    span: Span | None = None
    """Of the source; None where that is the chunk."""
    section_no: int | None = None
    concept_id: ConceptId | None = None

    @property
    def text(self) -> str:
        return self.source if self.span is None else self.source[self.span.start : self.span.end]


def build(
    project: ProjectId,
    document: DocumentId,
    item: Item,
    body: Body | None,
    *,
    source_items: Sequence[str],
    body_path: str = "",
    unreadable: frozenset[str] = frozenset(),
) -> tuple[SpooledDocument, Iterator[SpooledChunk]]:
    """The document and its chunks, made one at a time; `body_path` is the file that the body came from."""
    sections = divide(body.text, body.headings) if body else []
    named = name_concepts(
        [tag.name for tag in item.tags],
        item.title,
        item.abstract or (body.text[:CONCEPT_TEXT_CHARACTERS] if body else ""),
    )
    drafts = [*_bibliographic(project, item, named), *(_passages(body, sections) if body else ())]
    first_passage = sum(draft.part is Part.BIBLIOGRAPHIC for draft in drafts)
    chunk_ids = [
        ids.chunk_id(
            document,
            CHUNKER_VERSION,
            draft.part,
            index if index < first_passage else index - first_passage,
            draft.text,
        )
        for index, draft in enumerate(drafts)
    ]
    section_ids = [ids.section_id(document, index, section.title) for index, section in enumerate(sections)]
    parts = [DocumentPart(part=Part.BIBLIOGRAPHIC, chunk_ids=tuple(chunk_ids[:first_passage]))]
    if body is not None:
        parts.append(DocumentPart(part=Part.FULL_TEXT, chunk_ids=tuple(chunk_ids[first_passage:])))
    facts = {name: getattr(item, name) for name in _FACTS}
    spooled = SpooledDocument(
        document_id=document,
        content_hash=_content_hash(facts, chunk_ids),
        parts=tuple(parts),
        source_items=tuple(source_items),
        notes=tuple(note[: limits.NOTE_CHARACTERS_IN_EVENT] for note in item.notes),
        attachments=tuple(_attachments(item, unreadable)),
        sections=tuple(_sections(sections, section_ids)),
        concepts=tuple(_concepts(project, named, drafts)),
        warnings=first_warnings((*item.warnings, *_unread(item, body, body_path, unreadable)), item.name),
        **facts,
    )
    starts = body.page_starts if body else ()
    return spooled, _chunks(project, drafts, chunk_ids, sections, section_ids, starts)


def _bibliographic(project: ProjectId, item: Item, named: Sequence[Named]) -> Iterator[_Draft]:
    part = Part.BIBLIOGRAPHIC
    for kind, texts in (
        (ChunkKind.TITLE, (item.title,)),
        (ChunkKind.ABSTRACT, (item.abstract,)),
        (ChunkKind.NOTE, item.notes),
    ):
        for text in texts:
            for span in split(text):
                yield _Draft(kind=kind, part=part, source=text, span=span)
    for one in named:
        yield _Draft(
            kind=ChunkKind.CONCEPT, part=part, source=one.key, concept_id=ids.concept_id(project, one.key)
        )


def _passages(body: Body, sections: Sequence[BodySection]) -> Iterator[_Draft]:
    """Chunks of each section; what is too short to be found by itself begins the next section's first chunk."""
    start = 0
    for number, section in enumerate(sections):
        beginning = body.text[start : min(section.end, start + PASSAGE_BYTES_MIN)]
        if len(beginning.encode()) < PASSAGE_BYTES_MIN and number + 1 < len(sections):
            continue
        for span in split(body.text, start, section.end):
            yield _Draft(
                kind=ChunkKind.PASSAGE,
                part=Part.FULL_TEXT,
                source=body.text,
                span=span,
                section_no=number,
            )
        start = section.end


def _attachments(item: Item, unreadable: frozenset[str]) -> Iterator[Attachment]:
    for one in item.attachments:
        yield replace(one, status=AttachmentStatus.REJECTED) if one.path in unreadable else one


def _unread(item: Item, body: Body | None, body_path: str, unreadable: frozenset[str]) -> Iterator[Remark]:
    """Damaged pages, and files that were found and not read: a document has one full text."""
    if body is not None:
        for remark in body.warnings:
            yield replace(remark, subject=body_path[:300])
    if body is not None and body.unread_pages:
        numbers = ", ".join(str(number) for number in body.unread_pages[:50])
        yield Remark(code="pages_not_read", subject=body_path[:300], message=f"damaged: pages {numbers}")
    for path in item.bodies:
        if path != body_path and path not in unreadable:
            message = (
                f"the full text is that of {body_path[:200]}" if body_path else "too many files were tried"
            )
            yield Remark(code="attachment_not_read", subject=path[:300], message=message)


def _sections(sections: Sequence[BodySection], section_ids: Sequence[SectionId]) -> Iterator[Section]:
    for section, id_ in zip(sections, section_ids, strict=True):
        parent = None if section.parent is None else section_ids[section.parent]
        yield Section(section_id=id_, parent_id=parent, title=section.title[:200], kind=section.kind)


def _concepts(project: ProjectId, named: Sequence[Named], drafts: Sequence[_Draft]) -> Iterator[Concept]:
    texts = ((index, draft.text) for index, draft in enumerate(drafts) if draft.kind is not ChunkKind.CONCEPT)
    found = mentions([one.key for one in named], texts)
    for one in named:
        yield Concept(
            concept_id=ids.concept_id(project, one.key),
            name=one.name,
            score=one.score,
            chunk_indexes=found[one.key][: limits.MENTIONS_MAX],
        )


def _chunks(
    project: ProjectId,
    drafts: Sequence[_Draft],
    chunk_ids: Sequence[ids.ChunkId],
    sections: Sequence[BodySection],
    section_ids: Sequence[SectionId],
    page_starts: Sequence[int],
) -> Iterator[SpooledChunk]:
    for index, (draft, chunk_id) in enumerate(zip(drafts, chunk_ids, strict=True)):
        text, span = draft.text, draft.span or Span(start=0, end=0)
        section = None if draft.section_no is None else sections[draft.section_no]
        pages = pages_of(span, page_starts) if section is not None else (None, None)
        parent = None if section is None or section.parent is None else sections[section.parent]
        yield SpooledChunk(
            chunk_id=chunk_id,
            chunk_index=index,
            kind=draft.kind,
            part=draft.part,
            text=text,
            embedding_key=ids.embedding_key(project, text),
            concept_id=draft.concept_id,
            section_id=None if draft.section_no is None else section_ids[draft.section_no],
            section="" if section is None else section.title[:200],
            parent_section=None if parent is None else parent.title[:200],
            char_start=span.start,
            char_end=span.end,
            page_first=pages[0],
            page_last=pages[1],
            token_count=estimate_tokens(text),
        )


def _content_hash(facts: dict[str, object], chunk_ids: Sequence[ids.ChunkId]) -> str:
    plain = json.dumps(
        [{name: _plain(value) for name, value in facts.items()}, [str(one) for one in chunk_ids]],
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(plain.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [asdict(one) if hasattr(one, "__dataclass_fields__") else one for one in value]
    return value
