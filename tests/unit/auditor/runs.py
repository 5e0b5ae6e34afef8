"""A run as the auditor would have seen it, made by hand: one import of one text, everything as it should be."""

import hashlib
import uuid
from typing import Any

from tests.faults.auditor import derive
from tests.faults.auditor.evidence import Bill, Counted, Evidence, Fact, Point, Progress, Rebuilt

PROJECT = "6f1c7a32-9d3e-4b65-8a44-0d8f0d1f1a11"
IMPORT = "0b1f6d55-5e0a-4f0c-9a63-5f3f6a7a2b22"
STORE = "c0a5f1f0-2f0e-4c35-9d5b-1a2b3c4d5e6f"
SPACE = "openai/test-embedding@8:1"
COLLECTION = derive.slug(SPACE)
TEXT = "On herons\n\nThey wait. " + "Reeds move in the wind and the water stands. " * 3
DOCUMENT = derive.document_of_text(PROJECT, TEXT)
CONCEPT = derive.concept_id(PROJECT, "heron")


def _chunk(
    part: str, kind: str, index: int, at: int, text: str, concept: str | None = None
) -> dict[str, Any]:
    return {
        "import_id": IMPORT, "project_id": PROJECT, "attempt": 1, "revision": 1, "space": SPACE,
        "chunk_id": derive.chunk_id(DOCUMENT, "1", part, at, text), "document_id": DOCUMENT,
        "embedding_key": derive.embedding_key(PROJECT, text), "chunk_index": index, "kind": kind, "part": part,
        "text": text, "concept_id": concept, "section": "", "title": "On herons", "year": None, "doi": None,
        "page_first": None, "page_last": None, "creators": [],
    }  # fmt: skip


CHUNKS = (
    _chunk("bibliographic", "title", 0, 0, "On herons"),
    _chunk("bibliographic", "concept", 1, 1, "heron", CONCEPT),
    _chunk("full_text", "passage", 2, 0, TEXT[:60]),
    _chunk("full_text", "passage", 3, 1, TEXT[50:]),
)
TITLE, CONCEPT_CHUNK, FIRST, SECOND = (one["chunk_id"] for one in CHUNKS)
HEAD = {"import_id": IMPORT, "project_id": PROJECT, "attempt": 1}


class Log:
    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def add(self, type_: str, body: dict[str, Any], topic: str = "imports") -> Fact:
        offset = sum(one.topic == topic for one in self.facts)
        content = hashlib.sha256(repr(body).encode()).digest()
        id_ = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{type_}{content.hex()}"))
        fact = Fact(
            topic=topic, partition=0, offset=offset, type=type_, id=id_, content=content, body=dict(body)
        )
        self.facts.append(fact)
        return fact


def sound() -> Evidence:
    log = Log()
    log.add("ProjectCreated", HEAD | {"name": "Herons", "space": SPACE})
    log.add("ImportRequested", HEAD | {"space": SPACE, "chunker_version": "1"})
    for chunk in CHUNKS:
        log.add("ChunkExtracted", chunk, "chunks")
    _document(log)
    log.add("ImportSealed", HEAD | {"document_count": 1, "chunk_count": len(CHUNKS)})
    points, markers = _stored(log)
    evidence = Evidence(facts=log.facts, points={COLLECTION: points, "graph": markers})
    settled = [
        {"chunk_id": one["chunk_id"], "revision": 1, "outcome": "stored", "partition": 0, "offset": at}
        for at, one in enumerate(CHUNKS)
    ]
    log.add("StoreOpened", {"store_id": STORE, "positions": []})
    log.add("ChunksSettled", HEAD | {"space": SPACE, "store_id": STORE, "chunks": settled})
    parts = ["bibliographic", "full_text"]
    log.add(
        "DocumentChunksSettled",
        HEAD | {"document_id": DOCUMENT, "revision": 1, "parsed_offset": 2, "parts": parts},
    )
    hashes = {point.payload["content_hash"] for point in points.values()}
    log.add("ImportCompleted", HEAD | _totals() | {"digest": derive.digest(hashes)})
    evidence.bills = [Bill(sha256=derive.sha256(one["text"]), met="") for one in CHUNKS]
    _watched(evidence)
    return evidence


def _document(log: Log) -> None:
    parts = [
        {"part": "bibliographic", "chunk_ids": [TITLE, CONCEPT_CHUNK]},
        {"part": "full_text", "chunk_ids": [FIRST, SECOND]},
    ]
    concepts = [{"concept_id": CONCEPT, "name": "heron", "chunk_indexes": [0, 2]}]
    log.add(
        "DocumentParsed",
        HEAD | {"document_id": DOCUMENT, "revision": 1, "parts": parts, "creators": [], "concepts": concepts},
    )


def _stored(log: Log) -> tuple[dict[str, Point], dict[str, Point]]:
    points, graph = {}, {}
    for chunk in CHUNKS:
        vector = derive.vector(chunk["text"], SPACE)
        log.add("ChunkEmbedded", chunk | {"vector": vector}, "embeddings")
        said = derive.payload(chunk)
        payload = said | {"revision": 1, "attempt": 1, "content_hash": derive.content_hash(vector, said)}
        points[chunk["concept_id"] or chunk["chunk_id"]] = Point(payload=payload, vector=vector)
    graph[derive.marker_id(CONCEPT_CHUNK, SPACE)] = Point(payload={"kind": "concept_chunk"}, vector=b"")
    parsed = next(one for one in log.facts if one.type == "DocumentParsed")
    for id_ in derive.edges(parsed.body):
        graph[id_] = Point(payload={"kind": "MENTIONS"}, vector=b"")
    return points, graph


def _totals() -> dict[str, int]:
    return {
        "chunk_count": len(CHUNKS), "stored_count": len(CHUNKS), "rejected_count": 0,
        "dead_lettered_count": 0, "superseded_count": 0,
    }  # fmt: skip


def _watched(evidence: Evidence) -> None:
    common = {"import_id": IMPORT, "via": "sse", "attempt": 1, "total": 4}
    evidence.progress = [
        Progress(**common, progress=0.5, settled=2),
        Progress(**common, progress=1.0, settled=4),
    ]
    evidence.counted = [
        Counted(import_id=IMPORT, attempt=1, stored=4, checked=4, missing=0, answered=True),
    ]
    evidence.memory_kb = [{"ingest": 70_000, "embedder": 60_000, "graph-writer": 60_000}]
    evidence.sources = {IMPORT: {"herons.txt": TEXT}}
    evidence.statuses = {IMPORT: {"state": "completed"}}
    evidence.finished_in_s, evidence.finish_s_max = 3.0, 60.0
    evidence.rebuilt = Rebuilt(points=evidence.points, statuses=dict(evidence.statuses), bills_count=0)
    evidence.secrets = ("sk-secret",)
    evidence.words = {"ingest.log": "import.accepted"}
