"""Verify and resume: what the log lists for an import, held against what the store answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from eventlog.events import ResumeImport
from eventlog.ids import ImportId
from ingest.blobs import sizes
from ingest.http.accepting import CALLER, Accepting
from ingest.http.asked import files_missing
from ingest.http.parts import HttpParts
from ingest.http.problems import Problem
from ingest.library import source_files
from ingest.neighbours import GraphWriterClient, NeighbourAway, NeighbourRefused
from ingest.projection import DocumentRow
from ingest.state import Import, ImportStatus, State

LISTED_MAX = 1_000
"""Findings named of each sort; the counts are exact."""
PAGE_DOCUMENTS_MAX = 100
PAGE_CHUNKS_MAX = 5_000
"""What one question to the graph-writer holds, so that memory does not grow with the import."""

IsGone = Callable[[], Awaitable[bool]]

_SORTS = ("missing", "extra", "different")


@dataclass(slots=True)
class Compared:
    checked_count: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SORTS, 0))
    findings: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {sort: [] for sort in _SORTS})

    @property
    def is_clean(self) -> bool:
        return not any(self.counts.values())

    def add(self, answer: dict[str, Any], titles: dict[str, str]) -> None:
        self.checked_count += int(answer["checked_count"])
        for sort in _SORTS:
            found = answer[sort]
            self.counts[sort] += len(found)
            for one in found[: max(LISTED_MAX - len(self.findings[sort]), 0)]:
                title = one.get("title") or titles.get(str(one.get("document_id")), "")
                self.findings[sort].append({**one, "title": title})

    def to_json(self, import_id: ImportId) -> dict[str, Any]:
        return {
            "import_id": str(import_id),
            "is_clean": self.is_clean,
            "checked_count": self.checked_count,
            **{f"{sort}_count": count for sort, count in self.counts.items()},
            **self.findings,
        }


def store_away(error: NeighbourAway) -> Problem:
    why = f" ({', '.join(error.reasons)})" if error.reasons else ""
    return Problem(
        503,
        "store_unavailable",
        f"The service that keeps the store does not answer{why}.",
        "Try again in a few seconds; what was imported is not lost.",
        retryable=True,
        retry_after_s=2,
        reasons=list(error.reasons),
    )


def store_refused(error: NeighbourRefused) -> Problem:
    return Problem(
        502,
        "store_refused",
        f"The service that keeps the store answered {error.status} {error.code}".rstrip() + ".",
        "Look into the graph-writer's log.",
    )


async def _never() -> bool:
    return False


class Comparing:
    def __init__(self, parts: HttpParts, accepting: Accepting, writer: GraphWriterClient) -> None:
        self._parts = parts
        self._accepting = accepting
        self._writer = writer

    async def verify(self, status: ImportStatus, is_caller_gone: IsGone = _never) -> Compared:
        """Raises Problem when the store does not answer, and when nobody waits any more for what it answers."""
        compared = Compared()
        decided = self._parts.projection.find(status.import_id)
        if decided is None:
            return compared  # not decided yet, or refused: nothing of it can be in the store
        after = 0
        while rows := self._parts.projection.documents(
            status.import_id, after=after, limit=PAGE_DOCUMENTS_MAX
        ):
            page: list[dict[str, Any]] = []
            chunks_count = 0
            for row in rows:
                document = self._document(decided, row)
                page.append(document)
                chunks_count += len(document["chunks"])
                after = row.number
                if chunks_count >= PAGE_CHUNKS_MAX:
                    break
            if await is_caller_gone():
                raise Problem(499, "caller_gone", "The caller has gone.", "Ask again.", retryable=True)
            compared.add(await self._ask(status, page), {str(row.document_id): row.title for row in rows})
        return compared

    def _document(self, decided: Import, row: DocumentRow) -> dict[str, Any]:
        return {
            "document_id": str(row.document_id),
            "revision": decided.revision,
            "chunks": [
                {
                    "chunk_id": str(chunk.chunk_id),
                    "part": chunk.part,
                    "outcome": "unknown" if chunk.outcome is None else chunk.outcome.value,
                    "content_hash": chunk.content_hash.hex(),
                }
                for chunk in self._parts.projection.chunks_of(decided.import_id, row.document_id)
            ],
        }

    async def _ask(self, status: ImportStatus, page: list[dict[str, Any]]) -> dict[str, Any]:
        project = self._parts.projection.project(str(status.project_id))
        question = {
            "import_id": str(status.import_id),
            "project_id": str(status.project_id),
            "space": project.space if project else status.space,
            "documents": page,
        }
        try:
            return await self._writer.verify(question)
        except NeighbourAway as error:
            raise store_away(error) from None
        except NeighbourRefused as error:
            raise store_refused(error) from None

    async def resume(self, status: ImportStatus) -> tuple[ImportStatus, bool]:
        """The status, and whether the import goes on. Raises Problem, TransientFailure."""
        if not status.is_terminal:
            return status, True  # Interrupted or not, it goes on by itself.
        if self._parts.projection.find(status.import_id) is None:
            raise Problem(
                409,
                "import_refused",
                f"This request was refused ({status.problem or 'without a reason'}) and never became an import.",
                "Correct it and import again, with a new Idempotency-Key.",
            )
        if status.state is State.COMPLETED and (await self.verify(status)).is_clean:
            return status, False
        missing = await self._missing_files(status.import_id)
        if missing:
            raise files_missing(409, missing)
        await self._parts.commands.append(
            ResumeImport(
                occurred_at=self._parts.clock.now(),
                import_id=status.import_id,
                attempt_seen=status.attempt,
                requested_by=CALLER,
            )
        )
        now = await self._accepting.folded(status.import_id, lambda one: one.attempt > status.attempt)
        return now or status, True

    async def _missing_files(self, import_id: ImportId) -> list[str]:
        found = self._parts.projection.source(import_id)
        if found is None:
            return []
        source, _ = found
        try:
            files = await source_files(self._parts.blobs, source)
        except FileNotFoundError:
            return ["the list of the import's files"]
        there = await sizes(self._parts.blobs, [file.sha256 for file in files])
        return [file.path for file, size in zip(files, there, strict=True) if size is None]
