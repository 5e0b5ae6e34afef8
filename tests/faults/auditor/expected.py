"""What must be in the store, worked out from the log alone: the newest settled content of each part of each document.

The mark of a part is the newest `DocumentChunksSettled` that names it; what its `DocumentParsed` lists must be there.
What an import that did not complete has brought may stand beside it, and nothing else may.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.auditor import derive
from tests.faults.auditor.evidence import Evidence, Fact

PARTS = ("bibliographic", "full_text")
TERMINAL = ("ImportCompleted", "ImportFailed", "ImportCancelled")
Body = dict[str, Any]


@dataclass(slots=True)
class Import:
    project: str
    space: str
    revision: int
    chunker_version: str
    ended: dict[int, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    """Terminal events by attempt."""
    attempt: int = 1
    parsed: dict[str, Fact] = field(default_factory=dict)
    """By document: the newest `DocumentParsed`."""
    sealed: Fact | None = None

    @property
    def completed(self) -> Fact | None:
        """Of the newest attempt."""
        return next((one for one in self.ended[self.attempt] if one.type == "ImportCompleted"), None)

    @property
    def listed(self) -> set[str]:
        return {chunk for fact in self.parsed.values() for chunk in chunks_of(fact.body)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A chunk that the newest content of a part lists."""

    document: str
    part: str
    space: str
    revision: int


@dataclass(slots=True)
class Expected:
    imports: dict[str, Import] = field(default_factory=dict)
    chunks: dict[str, Place] = field(default_factory=dict)
    edges: set[str] = field(default_factory=set)
    edges_tolerated: set[str] = field(default_factory=set)
    tolerated: set[str] = field(default_factory=set)
    """Chunks of imports that did not complete."""
    extracted: dict[str, dict[int, Body]] = field(default_factory=lambda: defaultdict(dict))
    """By chunk and revision."""
    arrived: dict[str, Fact] = field(default_factory=dict)
    """By chunk: of the records of the highest (revision, attempt) the first `ChunkEmbedded`, or else the last `ChunkRejected`."""
    dead: set[str] = field(default_factory=set)
    concepts: set[str] = field(default_factory=set)

    def fate(self, chunk: str) -> str:
        arrival = self.arrived.get(chunk)
        if arrival is not None and arrival.body["revision"] >= self.chunks[chunk].revision:
            return "stored" if arrival.type == "ChunkEmbedded" else "rejected"
        return "dead_lettered" if chunk in self.dead else "lost"

    def source(self, chunk: str) -> Body | None:
        """What was extracted for the content that is stored; the concept and its spelling are all that revisions share."""
        arrival = self.arrived.get(chunk)
        return self.extracted[chunk].get(arrival.body["revision"]) if arrival is not None else None


def chunks_of(parsed: Body, part: str | None = None) -> list[str]:
    return [
        chunk for one in parsed["parts"] if part is None or one["part"] == part for chunk in one["chunk_ids"]
    ]


def work_out(evidence: Evidence) -> Expected:
    out = Expected()
    _fold_imports(evidence, out)
    _fold_chunks(evidence, out)
    by_offset = {fact.offset: fact for fact in evidence.of("DocumentParsed")}
    marks = _marks(evidence.of("DocumentChunksSettled"))
    for (document, part), settled in marks.items():
        parsed = by_offset[settled["parsed_offset"]].body
        _expect(out, document, part, out.imports[settled["import_id"]], parsed)
        out.edges |= {id_ for id_, of in derive.edges(parsed).items() if of == part}
    for import_ in sorted(out.imports.values(), key=lambda one: one.revision):
        for document, fact in import_.parsed.items():
            for part in (one["part"] for one in fact.body["parts"]):
                mark = marks.get((document, part))
                if import_.completed is None or (mark is not None and mark["revision"] < import_.revision):
                    out.tolerated.update(chunks_of(fact.body, part))
                elif mark is None:  # nothing of it was stored, so it replaces nothing and is all there is
                    _expect(out, document, part, import_, fact.body)
            if any(
                import_.revision > marks.get((document, part), {"revision": -1})["revision"] for part in PARTS
            ):
                out.edges_tolerated |= derive.edges(fact.body).keys()
    open_ids = {id_ for id_, one in out.imports.items() if one.completed is None}
    out.tolerated |= {
        fact.body["chunk_id"] for fact in evidence.of("ChunkExtracted") if fact.body["import_id"] in open_ids
    }
    return out


def _expect(out: Expected, document: str, part: str, import_: Import, parsed: Body) -> None:
    for chunk in chunks_of(parsed, part):
        out.chunks[chunk] = Place(
            document=document, part=part, space=import_.space, revision=import_.revision
        )


def _fold_imports(evidence: Evidence, out: Expected) -> None:
    for fact in evidence.facts:
        if fact.topic != "imports" or fact.is_repeat:
            continue
        body = fact.body
        if fact.type == "ImportRequested":
            out.imports[body["import_id"]] = Import(
                body["project_id"], body["space"], fact.offset, body["chunker_version"]
            )
            continue
        import_ = out.imports.get(body.get("import_id", ""))
        if import_ is None:
            continue
        match fact.type:
            case "ImportResumed":
                import_.attempt = max(import_.attempt, body["attempt"])
            case "DocumentParsed":
                import_.parsed[body["document_id"]] = fact
            case "ImportSealed":
                import_.sealed = fact
            case _ if fact.type in TERMINAL:
                import_.ended[body["attempt"]].append(fact)


def _fold_chunks(evidence: Evidence, out: Expected) -> None:
    for fact in evidence.facts:
        body = fact.body
        if fact.type == "ChunkExtracted":
            out.extracted[body["chunk_id"]][body["revision"]] = body
        elif fact.type in ("ChunkEmbedded", "ChunkRejected"):
            there = out.arrived.get(body["chunk_id"])
            is_embedded = fact.type == "ChunkEmbedded"
            is_first = (
                there is not None and there.type == "ChunkEmbedded" and _order(body) == _order(there.body)
            )
            if there is None or (_order(body) >= _order(there.body) and not is_first):
                out.arrived[body["chunk_id"]] = fact
            if body.get("concept_id") and is_embedded:
                out.concepts.add(body["concept_id"])
    out.dead = {one.chunk_id for one in evidence.dead_letters if one.chunk_id}


def _order(body: Body) -> tuple[int, int]:
    return body["revision"], body["attempt"]


def _marks(settled: Iterable[Fact]) -> dict[tuple[str, str], Body]:
    found: dict[tuple[str, str], Body] = {}
    for fact in settled:
        for part in fact.body["parts"]:
            key = (fact.body["document_id"], part)
            there = found.get(key)
            order = (fact.body["revision"], fact.body["parsed_offset"])
            if there is None or order >= (there["revision"], there["parsed_offset"]):
                found[key] = fact.body
    return found
