"""Which nodes and edges a parsed document has. Pure; says nothing of how they are kept or read.

A shared node (an author, a concept) holds only what follows from its normalised key, so the order of arrival decides
nothing; spellings, positions and scores stand on the edges, and every edge belongs to a document and one of its parts.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from eventlog.events import DocumentParsed, DocumentPart, Part
from eventlog.ids import author_id, edge_id, normalise_name, normalise_person
from graph_writer.core import Draft, Payload, display_name

PAPER = "Paper"
AUTHOR = "Author"
CONCEPT = "Concept"
HAS_AUTHOR = "HAS_AUTHOR"
DISCUSSES_CONCEPT = "DISCUSSES_CONCEPT"
MENTIONS = "MENTIONS"
CO_OCCURS_WITH = "CO_OCCURS_WITH"
NODE_KINDS = (PAPER, AUTHOR, CONCEPT)
EDGE_KINDS = (HAS_AUTHOR, DISCUSSES_CONCEPT, MENTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentGraph:
    paper: Draft
    shared: tuple[Draft, ...]
    edges: tuple[Draft, ...]

    @property
    def node_count(self) -> int:
        return 1 + len(self.shared)


def plan_graph(parsed: DocumentParsed) -> DocumentGraph:
    shared: dict[UUID, Draft] = {}
    edges: dict[UUID, Draft] = {}
    for node, edge in [*_authors(parsed), *_concepts(parsed)]:
        if node is not None:
            shared[node.id] = node
        edges.setdefault(edge.id, edge)  # the first naming counts: an author may stand twice in a list
    return DocumentGraph(paper=_paper(parsed), shared=tuple(shared.values()), edges=tuple(edges.values()))


def graph_hash(graph: DocumentGraph, parts: tuple[Part, ...]) -> str:
    """Over what this revision says of those parts, whatever its number is."""
    said = [
        (
            str(draft.id),
            {key: value for key, value in draft.payload.items() if key not in ("revision", "attempt")},
        )
        for draft in (graph.paper, *graph.shared, *graph.edges)
        if draft.payload.get("part", Part.BIBLIOGRAPHIC) in parts
    ]
    text = json.dumps(sorted(said, key=lambda one: one[0]), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def part_of_index(parts: tuple[DocumentPart, ...], index: int) -> tuple[Part, UUID] | None:
    """Chunk indexes run through the parts in order."""
    for part in parts:
        if index < len(part.chunk_ids):
            return part.part, part.chunk_ids[index]
        index -= len(part.chunk_ids)
    return None


def has_facts(parsed: DocumentParsed) -> bool:
    return any(part.part is Part.BIBLIOGRAPHIC for part in parsed.parts)


def _paper(parsed: DocumentParsed) -> Draft:
    """Without the bibliographic part it says no more than that it is there, and whatever has facts stands above."""
    named: Payload = {
        "project_id": str(parsed.project_id),
        "document_id": str(parsed.document_id),
        "kind": PAPER,
    }
    if not has_facts(parsed):
        return Draft(id=parsed.document_id, payload={**named, "revision": -1, "attempt": 0}, order=None)
    facts: Payload = {
        **named,
        "label": parsed.title,
        "item_type": parsed.item_type,
        "creators": [display_name(creator) for creator in parsed.creators],
        "year": parsed.year,
        "date": parsed.date,
        "doi": parsed.doi,
        "isbns": list(parsed.isbns),
        "issns": list(parsed.issns),
        "url": parsed.url,
        "venue": parsed.venue,
        "volume": parsed.volume,
        "issue": parsed.issue,
        "pages": parsed.pages,
        "publisher": parsed.publisher,
        "language": parsed.language,
        "abstract": parsed.abstract,
        "tags": [tag.name for tag in parsed.tags],
        "collections": list(parsed.collections),
    }
    said = {key: value for key, value in facts.items() if value not in (None, "", [])}
    return _draft(parsed, parsed.document_id, said)


def _authors(parsed: DocumentParsed) -> Iterator[tuple[Draft | None, Draft]]:
    for position, creator in enumerate(parsed.creators):
        person = normalise_person(creator.family, creator.given)
        if not person and not creator.orcid:
            continue
        author = author_id(parsed.project_id, creator.family, creator.given, creator.orcid)
        node: Payload = {
            "project_id": str(parsed.project_id),
            "kind": AUTHOR,
            "label": f"orcid:{creator.orcid.upper()}" if creator.orcid else person,
        }
        said: Payload = {"name": display_name(creator), "role": creator.role.value, "position": position}
        yield (
            Draft(id=author, payload=node, order=None),
            _edge(parsed, parsed.document_id, HAS_AUTHOR, author, Part.BIBLIOGRAPHIC, said),
        )


def _concepts(parsed: DocumentParsed) -> Iterator[tuple[Draft | None, Draft]]:
    for concept in parsed.concepts:
        node: Payload = {
            "project_id": str(parsed.project_id),
            "kind": CONCEPT,
            "label": normalise_name(concept.name),
        }
        said: Payload = {"name": concept.name, "score": round(concept.score, 6)}
        yield (
            Draft(id=concept.concept_id, payload=node, order=None),
            _edge(
                parsed, parsed.document_id, DISCUSSES_CONCEPT, concept.concept_id, Part.BIBLIOGRAPHIC, said
            ),
        )
        for index in concept.chunk_indexes:
            place = part_of_index(parsed.parts, index)
            if place is not None:
                part, chunk = place
                yield None, _edge(parsed, chunk, MENTIONS, concept.concept_id, part, {})


def _edge(parsed: DocumentParsed, source: UUID, type_: str, target: UUID, part: Part, said: Payload) -> Draft:
    payload = {
        "project_id": str(parsed.project_id),
        "document_id": str(parsed.document_id),
        "kind": type_,
        "part": part.value,
        "source": str(source),
        "target": str(target),
        **said,
    }
    return _draft(parsed, edge_id(source, type_, target, parsed.document_id, part.value), payload)


def _draft(parsed: DocumentParsed, id_: UUID, said: Payload) -> Draft:
    ordered = {**said, "revision": parsed.revision, "attempt": parsed.attempt}
    return Draft(id=id_, payload=ordered, order=(parsed.revision, parsed.attempt))
