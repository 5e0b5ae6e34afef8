"""What must follow from a text, a document and a record: ids, payloads, hashes, vectors. Written down a second time.

The system derives the same in its own code; where the two disagree, one of them is wrong, and the run says so.
"""

import hashlib
import json
import re
import unicodedata
import uuid
from typing import Any
from uuid import UUID

import numpy as np

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:paperlog")
TEXT_LENGTH_MAX = 4_000
ORDER = ("revision", "attempt", "content_hash")


def _uuid5(namespace: str | UUID, *parts: object) -> str:
    within = namespace if isinstance(namespace, UUID) else UUID(namespace)
    return str(uuid.uuid5(within, "\x1f".join(map(str, parts))))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def folded(name: str) -> str:
    once = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(unicodedata.normalize("NFKC", once).split())


def embedding_key(project: str, text: str) -> str:
    return _uuid5(project, "text", sha256(text))


def chunk_id(document: str, version: str, part: str, index: int, text: str) -> str:
    return _uuid5(document, "chunk", version, part, index, sha256(text))


def concept_id(project: str, name: str) -> str:
    return _uuid5(project, "Concept", folded(name))


def document_of_text(project: str, text: str) -> str:
    """Of a plain text file whose first line is its title and that names no DOI."""
    title = re.sub(r"\s+", " ", text.split("\n", 1)[0]).strip()[:200]
    return _uuid5(project, "document", f"uri:sha256:{sha256(text)}|{folded(title)}")


def marker_id(chunk: str, space: str) -> str:
    return _uuid5(chunk, "marker", space)


def edge_id(source: str, type_: str, target: str, document: str, part: str) -> str:
    return _uuid5(source, "edge", type_, target, document, part)


def author_id(project: str, creator: dict[str, str]) -> str | None:
    if creator["orcid"]:
        return _uuid5(project, "Author", "orcid", creator["orcid"].upper())
    names = (" ".join(re.sub(r"[^\w]+", " ", folded(creator[one])).split()) for one in ("family", "given"))
    person = ", ".join(name for name in names if name)
    return _uuid5(project, "Author", person) if person else None


def slug(space: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", space.lower()).strip("-")


def vector(text: str, space: str) -> bytes:
    """What the fake provider answers for the text, brought to unit length in double precision as anyone would."""
    model, _, rest = space.partition("/")[2].partition("@")
    dims = int(rest.partition(":")[0])
    drawn = hashlib.shake_128(f"{model}\x1f{text}".encode()).digest(dims)
    wide = np.frombuffer(drawn, dtype=np.int8).astype(np.float64)
    return (wide / np.sqrt(wide @ wide)).astype("<f4").tobytes()


def payload(chunk: dict[str, Any]) -> dict[str, Any]:
    """Of the point of a `ChunkExtracted`, without what orders it and without its hash."""
    if chunk["concept_id"] is not None:
        text = folded(chunk["text"])[:TEXT_LENGTH_MAX]
        return {"project_id": chunk["project_id"], "kind": "concept", "text": text}
    said = {name: chunk[name] for name in ("project_id", "document_id", "kind", "part", "chunk_index")}
    said |= {"text": chunk["text"][:TEXT_LENGTH_MAX], "title": chunk["title"], "section": chunk["section"]}
    said["creators"] = [
        ", ".join(part for part in (one["family"], one["given"]) if part) for one in chunk["creators"]
    ]
    optional = {name: chunk[name] for name in ("year", "doi", "page_first", "page_last")}
    return said | {name: value for name, value in optional.items() if value is not None}


def content_hash(vector_: bytes, payload_: dict[str, Any]) -> str:
    said = {name: value for name, value in payload_.items() if name not in ORDER}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(vector_ + text.encode()).hexdigest()


def digest(hashes: set[str]) -> str:
    """Of an import: the sum of its distinct content hashes modulo 2^256."""
    return f"{sum(int(one, 16) for one in hashes) % (1 << 256):064x}"


def edges(parsed: dict[str, Any]) -> dict[str, str]:
    """Ids of the edges of a `DocumentParsed`, with the part of each."""
    document, found = parsed["document_id"], {}
    places = [(part["part"], chunk) for part in parsed["parts"] for chunk in part["chunk_ids"]]
    for creator in parsed["creators"]:
        author = author_id(parsed["project_id"], creator)
        if author is not None:
            found[edge_id(document, "HAS_AUTHOR", author, document, "bibliographic")] = "bibliographic"
    for concept in parsed["concepts"]:
        to = concept["concept_id"]
        found[edge_id(document, "DISCUSSES_CONCEPT", to, document, "bibliographic")] = "bibliographic"
        for index in concept["chunk_indexes"]:
            if index < len(places):
                part, chunk = places[index]
                found[edge_id(chunk, "MENTIONS", to, document, part)] = part
    return found


def gaps(text: str, chunks: list[str]) -> int:
    """Characters of a text, white space apart, that stand in none of its chunks, taken in order."""
    whole = "".join(unicodedata.normalize("NFC", text).split())
    covered = start = missing = 0
    for chunk in chunks:
        piece = "".join(chunk.split())
        at = whole.find(piece, start)
        if at < 0:
            missing += len(piece)
            continue
        missing += max(0, at - covered)
        start, covered = at, max(covered, at + len(piece))
    return missing + len(whole) - covered
