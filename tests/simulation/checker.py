"""What must be true of a run, computed from the story, the log, the disk and the provider's ledger alone.

It shares no code with the services: records are read with fastavro and the schema files, what must be stored follows
from the story. Checks during the run are made in the moment in which a fact becomes visible.
"""

import io
import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
from tests.simulation.provider import Provider
from tests.simulation.services import SOURCES
from tests.simulation.store import Disk
from tests.simulation.story import REFUSED, REJECTED, Content, Library, Story

from eventlog.log import NewRecord, Record
from eventlog.memory import MemoryBroker

SPACE_COLLECTION = "openai-test-embedding-4-1"
GRAPH = "graph"
LOST_BY_DEATH_MAX = 10
"""Of one partition: two batches of five texts."""
FOLDED_WITHIN_MS = 1_000
"""Of a document a leader may say what it does not know yet to be gone, and says it again; of an import it may not."""
DECIDED_WITHIN_MS = 400
"""But for the time between its last look at the log's end and its commit, while the fold comes up to it: no look can be so
late that nothing opens after it.
"""
PAUSES_A_SECOND_MAX = 6
"""Of a space with two processes, each of which may say each of the three reasons once; a process says none twice."""
EXPECTED_CRASHES = {
    "graph-writer": {"StoreLost", "TransientFailure"},
    "ingest": {"Fenced"},
    "embedder": set[str](),
}
_NOT_CONTENT = {"revision", "attempt", "marks", "content_hash", "version"}
_BOOKS = {"position", "settings", "store", "collection", "dead_letters"}
_SHARED = {"Author", "Concept", "concept"}
Points = dict[str, dict[str, tuple[Any, ...]]]


def _schemas() -> dict[str, Any]:
    folder = Path(__file__).parents[2] / "schemas"
    paths = sorted(folder.glob("*.avsc"), key=lambda path: int(path.stem.rpartition(".v")[2]))
    found = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    # A simulated log is written by today's code alone: the newest version of each.
    return {raw["name"]: fastavro.parse_schema(raw) for raw in found}


SCHEMAS = _schemas()


def read(record: Record) -> tuple[str, dict[str, Any]]:
    """The event's name and fields; empty for what is none."""
    name = dict(record.headers).get("ce_type", b"").decode().removeprefix("paperlog.")
    return read_value(name, record.value)


def read_value(name: str, value: bytes | None) -> tuple[str, dict[str, Any]]:
    if name not in SCHEMAS or not value or value[:1] != b"\x00" or b"no schema explains" in value:
        return "", {}
    fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), SCHEMAS[name], None)
    assert isinstance(fields, dict)
    return name, fields


@dataclass
class Seen:
    """One import, as the log tells it."""

    revision: int
    attempt: int = 1
    state: str = "open"
    failed_count: int = 0
    """Of its chunks, those that failed though their text is good: a resume drives them again."""
    completions: Counter[int] = field(default_factory=Counter)
    completed: Mapping[str, Any] | None = None
    """Its `ImportCompleted`, until it is resumed."""


class Checker:
    def __init__(self, story: Story, broker: MemoryBroker, disk: Disk, provider: Provider) -> None:
        self._story = story
        self._broker = broker
        self._disk = disk
        self._provider = provider
        self.violations: list[str] = []
        self.imports: dict[UUID, Seen] = {}
        self._marks: dict[tuple[UUID, str], int] = {}
        self._replaced: set[tuple[str, int]] = set()
        """Partitions in which nobody has said yet where the store that is there now goes on."""
        self._opened_ms = 0
        self._garbled: set[UUID] = set()
        self._progress: dict[tuple[int, UUID, int], float] = {}
        self._paused_ms: deque[int] = deque(maxlen=PAUSES_A_SECOND_MAX)
        self.poison_count = 0
        self.completions_checked = 0
        self.completions_excused = 0
        self._lists = {one.import_id: list(_chunks(one)) for one in story.libraries}

    def _violated(self, what: str) -> None:
        self.violations.append(what)

    # --- while it runs

    def store_is_replaced(self) -> None:
        """Until the writer says what it opened, nobody can know."""
        self._replaced = {(at.topic, at.partition) for at in SOURCES}

    @property
    def _is_replaced(self) -> bool:
        return bool(self._replaced)

    def garbled(self, record: NewRecord) -> None:
        """Nobody can read it, but its headers say whose it is; a vector in it is lost, and may be paid again."""
        headers = dict(record.headers)
        self._garbled.add(UUID(headers["paperlog_chunk"].decode()))
        name = headers["ce_type"].decode().removeprefix("paperlog.")
        if name == "ChunkEmbedded":
            _, fields = read_value(name, record.value)
            self._provider.excused[fields["text"]] += 1

    def crashed(self, name: str, error: BaseException | None) -> None:
        expected = EXPECTED_CRASHES[name.rpartition("-")[0]]
        for one in _leaves(error):
            if type(one).__name__ not in expected:
                self._violated(f"P3: {name} crashed: {type(one).__name__}: {one}")

    def lost_with(self, life: int, *, paid_since_s: float | None = None) -> None:
        """An embedder's process is gone: what it has paid and not said may be paid again, and it is not much.

        With `paid_since_s`: it was stopped, is back, and has paid what it held, for it could not yet know that others
        have said it.
        """
        said = {text for name, text in self._embedded() if name == "ChunkEmbedded"}
        lost = Counter[int]()
        for bill in self._provider.bills:
            if bill.life != life or bill.is_excused or bill.at_s < (paid_since_s or 0.0):
                continue
            texts = [text for text in bill.texts if paid_since_s is not None or text not in said]
            self._provider.excuse(bill, texts)
            lost.update(self._partition_of(text) for text in texts)
        if max(lost.values(), default=0) > LOST_BY_DEATH_MAX:
            self._violated(f"P4: a death has lost {dict(lost)} paid texts by partition")

    def _partition_of(self, text: str) -> int:
        """Where the text's chunks stand."""
        for number, part in enumerate(self._broker.topic("chunks")):
            for slot in part.slots:
                if slot.record is not None:
                    name, fields = read(slot.record)
                    if name and fields["text"] == text:
                        return number
        return -1

    def _embedded(self) -> Iterator[tuple[str, str]]:
        for record in self._broker.records("embeddings"):
            name, fields = read(record)
            if name:
                yield name, fields.get("text", "")

    def saw_statuses(self, life: int, statuses: Sequence[Any]) -> None:
        for one in statuses:
            key = (life, one.import_id, one.attempt)
            if one.progress < self._progress.get(key, 0.0):
                self._violated(f"I8: the progress of {one.import_id} fell to {one.progress}")
            self._progress[key] = one.progress
            if not (0 <= one.progress <= 1 and one.chunks.settled <= one.chunks.total):
                self._violated(f"I8: {one.import_id} shows more settled than there is: {one.chunks}")

    def saw_fact(self, record: Record) -> str:
        """A fact of `imports` is visible from now on. Returns it in a few words."""
        name, fields = read(record)
        if not name:
            return "(poison)"
        seen = self.imports.get(fields.get("import_id", UUID(int=0)))
        match name:
            case "ImportRequested":
                if seen is not None:
                    self._violated("P2: one import was requested twice")
                self.imports[fields["import_id"]] = Seen(record.offset)
            case "StoreOpened":
                self._replaced -= {(one["topic"], one["partition"]) for one in fields["positions"]}
                self._opened_ms = record.timestamp_ms
            case "EmbeddingPaused":
                self._paused(record.timestamp_ms)
            case "DocumentChunksSettled":
                if record.timestamp_ms - self._opened_ms > FOLDED_WITHIN_MS:
                    self._chunks_settled(fields)
                for part in fields["parts"]:
                    key = (fields["document_id"], part)
                    self._marks[key] = max(fields["revision"], self._marks.get(key, -1))
            case "ImportCancelled" | "ImportFailed" if seen is not None:
                seen.state = "cancelled" if name == "ImportCancelled" else "failed"
            case "ImportResumed" if seen is not None:
                seen.attempt, seen.state, seen.completed = fields["attempt"], "open", None
            case "ImportCompleted" if seen is not None:
                self._completed(seen, fields, since_opened_ms=record.timestamp_ms - self._opened_ms)
        who = str(fields.get("import_id", ""))[:8]
        return (
            f"{name} {who}" + (f" attempt {fields['attempt']}" if "attempt" in fields else "") + _more(fields)
        )

    def _paused(self, at_ms: int) -> None:
        """Processes that take each other's pauses for news of their own say them in turn, for as long as both last."""
        if len(self._paused_ms) == PAUSES_A_SECOND_MAX and at_ms - self._paused_ms[0] < 1_000:
            self._violated(
                f"I6: more than {PAUSES_A_SECOND_MAX} pauses of one space were said within a second"
            )
        self._paused_ms.append(at_ms)

    def _chunks_settled(self, fields: Mapping[str, Any]) -> None:
        """What it counts as stored is there before anything older is swept."""
        there = set() if self._is_replaced else self._there()
        listed = [one for one in self._lists[fields["import_id"]] if one.document == fields["document_id"]]
        present = sum(one.id in there for one in listed)
        swept = sum(self._marks.get((one.document, one.part), -1) > fields["revision"] for one in listed)
        if not self._is_replaced and fields["stored_count"] > present + swept:
            self._violated(
                f"P2: of a document {fields['stored_count']} chunks are said to be stored, and {present} are there"
            )

    def _completed(self, seen: Seen, fields: Mapping[str, Any], *, since_opened_ms: int) -> None:
        seen.state = "completed"
        seen.completions[fields["attempt"]] += 1
        if seen.completions[fields["attempt"]] > 1:
            self._violated(f"P2: {fields['import_id']} completed twice in attempt {fields['attempt']}")
        listed = self._lists[fields["import_id"]]
        counts = [fields[f"{one}_count"] for one in ("stored", "rejected", "dead_lettered", "superseded")]
        if (fields["chunk_count"], sum(counts)) != (len(listed), len(listed)):
            self._violated(f"P2: {counts} were counted of {len(listed)} chunks")
        refused = sum(REFUSED in one.text for one in listed)
        garbled = sum(one.id in self._garbled for one in listed)
        there = self._there()
        current = [one for one in listed if self._marks.get((one.document, one.part), -1) <= seen.revision]
        seen.failed_count = max(0, counts[1] + counts[2] - sum(REFUSED in one.text for one in current))
        if counts[3] < len(listed) - len(current):
            self._violated(
                f"P2: {counts}, and {len(listed) - len(current)} are of parts that newer ones closed"
            )
        if counts[1] + counts[2] > refused + garbled:
            self._violated(f"P6: {counts}, and only {refused} texts are refused, {garbled} records garbled")
        if self._is_replaced or since_opened_ms <= DECIDED_WITHIN_MS:
            self.completions_excused += 1
            return
        self.completions_checked += 1
        present = [one for one in listed if one.id in there]
        missing = [
            one
            for one in current
            if one.id not in there and REFUSED not in one.text and one.id not in self._garbled
        ]
        if missing or fields["stored_count"] > len(present):
            self._violated(
                f"P2: {fields['import_id']} counts {fields['stored_count']} as stored; {len(present)} are there, "
                f"missing {[one.text for one in missing]}"
            )
        seen.completed = fields
        self._check_digest(seen)

    def _check_digest(self, seen: Seen) -> None:
        """Where the store holds what this import has brought, and nothing that a newer one has put in its place."""
        if seen.completed is None:
            return
        hashes = self._hashes(seen.revision)
        own = [
            hashes[one.id]
            for one in self._lists[seen.completed["import_id"]]
            if one.id in hashes and self._marks.get((one.document, one.part), -1) <= seen.revision
        ]
        digest = f"{sum(int(one, 16) for one in set(own)) % (1 << 256):064x}"
        if len(own) == seen.completed["stored_count"] and digest != seen.completed["digest"]:
            self._violated(
                f"P2: {seen.completed['import_id']} names another digest than that of what is stored"
            )

    def _there(self) -> set[UUID]:
        """Ids of chunks for which the flushed store answers."""
        points = self._disk.flushed.get(SPACE_COLLECTION, {})
        graph = self._disk.flushed.get(GRAPH, {}).values()
        concepts = {
            UUID(one.payload["chunk_id"])
            for one in graph
            if one.payload.get("kind") == "concept_chunk" and UUID(one.payload["concept_id"]) in points
        }
        return set(points) | concepts

    def _hashes(self, revision: int) -> dict[UUID, str]:
        """By chunk, of what `_there` names, where this revision has written it."""
        points = self._disk.flushed.get(SPACE_COLLECTION, {})
        found = {
            id_: one.payload["content_hash"]
            for id_, one in points.items()
            if one.payload.get("revision") == revision
        }
        for one in self._disk.flushed.get(GRAPH, {}).values():
            if one.payload.get("kind") == "concept_chunk" and one.payload["revision"] == revision:
                concept = points.get(UUID(one.payload["concept_id"]))
                if concept is not None:
                    found[UUID(one.payload["chunk_id"])] = concept.payload["content_hash"]
        return found

    # --- what is still to come

    def to_resume(self) -> list[tuple[Any, int]]:
        """Imports that were cancelled, or are complete but for what was garbled in this attempt."""
        return [
            (id_, one.attempt)
            for id_, one in self.imports.items()
            if one.state == "cancelled" or (one.state == "completed" and one.failed_count)
        ]

    def open_imports(self) -> list[str]:
        unknown = [one.name for one in self._story.libraries if one.import_id not in self.imports]
        return unknown + [
            f"{self._story.library(id_).name} {one.state}"
            for id_, one in self.imports.items()
            if one.state != "completed" or one.failed_count
        ]

    # --- at the end

    def check_end(self) -> None:
        self._check_bill()
        self._check_store()
        for seen in self.imports.values():
            self._check_digest(seen)
        for where in self._provider.too_early:
            self._violated(f"P4: a request at {where}, as Retry-After had said")

    def _check_bill(self) -> None:
        """Distinct texts, each of one project, and what a late or wrong answer or a death has cost."""
        for text, count in self._provider.billed.items():
            bound = 1 + self._provider.excused[text]
            if count > bound:
                self._violated(f"P4: {text!r} was paid {count} times, at most {bound} were allowed")

    def _check_store(self) -> None:
        """Of each part of a document, what its newest content that could replace it brings."""
        expected: set[UUID] = set()
        contents: dict[tuple[UUID, str], list[tuple[int, list[Chunk]]]] = defaultdict(list)
        for library in self._story.libraries:
            for document, part, chunks in _parts(library):
                contents[document, part].append((self.imports[library.import_id].revision, chunks))
        for versions in contents.values():
            for _, chunks in sorted(versions, key=lambda one: one[0], reverse=True):
                stored = [one for one in chunks if REFUSED not in one.text]
                expected |= {one.id for one in stored if not one.is_concept}
                if stored or not chunks:
                    break
        points = self._disk.flushed.get(SPACE_COLLECTION, {})
        there = {id_ for id_, one in points.items() if "document_id" in one.payload}
        if there != expected:
            lost, stale = len(expected - there), len(there - expected)
            self._violated(f"P1: the store lacks {lost} chunks and holds {stale} that are superseded")

    def readable(self) -> Points:
        """What a reader of the flushed store sees: without books, and shared points only where an edge reaches them.

        A vector is told by its text, for it is not quite the same each time.
        """
        graph = self._disk.flushed.get(GRAPH, {})
        reached = {one.payload.get("target") for one in graph.values()}
        found: Points = {}
        for name, points in self._disk.flushed.items():
            found[name] = {
                str(id_): (
                    *sorted((k, repr(v)) for k, v in one.payload.items() if k not in _NOT_CONTENT),
                    self._provider.text_of[one.vector] if one.vector else "",
                )
                for id_, one in points.items()
                if one.payload.get("kind") not in _BOOKS
                and not (
                    one.payload.get("kind") in _SHARED
                    and "part" not in one.payload
                    and str(id_) not in reached
                )
            }
        return found


@dataclass(frozen=True)
class Chunk:
    id: UUID
    document: UUID
    part: str
    text: str
    is_concept: bool


def _parts(library: Library) -> Iterator[tuple[UUID, str, list[Chunk]]]:
    for content in library.documents:
        if content.name != REJECTED:
            yield from _parts_of(library, content)


def _parts_of(library: Library, content: Content) -> Iterator[tuple[UUID, str, list[Chunk]]]:
    document, chunks = content.spooled(library.project_id)
    for part in document.parts:
        yield (
            document.document_id,
            part.part.value,
            [
                Chunk(
                    one.chunk_id, document.document_id, one.part.value, one.text, one.concept_id is not None
                )
                for one in chunks
                if one.part is part.part
            ],
        )


def _chunks(library: Library) -> Iterable[Chunk]:
    return [chunk for _, _, chunks in _parts(library) for chunk in chunks]


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error if error is not None else RuntimeError("it ended by itself")]


def _more(fields: Mapping[str, Any]) -> str:
    if "chunks" in fields:
        return " " + ", ".join(
            f"{one['partition']}@{one['offset']} {one['outcome']}" for one in fields["chunks"]
        )
    if "positions" in fields:
        lowest: dict[str, int] = {}
        for one in fields["positions"]:
            at = f"{one['topic']}[{one['partition']}]"
            lowest[at] = min(one["offset"], lowest.get(at, one["offset"]))
        return f" {str(fields['store_id'])[:8]} {lowest}"
    if "document_id" in fields:
        return f" document {str(fields['document_id'])[:8]} revision {fields['revision']}"
    return ""
