"""The parent side of parsing: asks a child process, ends it when it takes too long, starts another when it dies.

A file that kills the child costs one document. Nothing is parsed in this process; it reads back, a line at a time,
what the child has written to disk.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eventlog.errors import TransientFailure
from eventlog.events import DocumentRejectionReason, FailureReason, Remark, SourceKind
from eventlog.ids import DocumentId, ProjectId
from eventlog.logs import Logger
from ingest import limits
from ingest.scan_index import ScanIndex
from ingest.sources.item import Rejection
from ingest.spool import SpooledChunk, SpooledDocument, read_chunks, read_document

__all__ = [
    "LocalFile", "Parsed", "Parser", "Problem", "Rejected", "ScanFailed", "ScanSummary", "SpooledChunk",
    "SpooledDocument", "Validation", "read_chunks", "read_document", "read_documents", "read_rejections",
    "read_warnings",
]  # fmt: skip

logger = Logger("ingest.parser")

_LINE_BYTES_MAX = 4 * 1024 * 1024
_IDLE_S_MAX = 5.0
"""A child that nobody asks for so long gives its memory back; the next request starts another, in a third of a second."""
_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""Else the threshold grows with what was freed, and a body's free place stays (the longest text: 50 and not 34 MB)."""
_VALIDATED_FILES_MAX = 200
"""A validation looks into so many lone files; an import looks into all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    path: str
    local: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSummary:
    kind: SourceKind
    document_count: int
    item_count: int
    merged_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    reason: DocumentRejectionReason
    message: str = ""
    item: str = ""
    file_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    rejected_attachments: tuple[Rejected, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    code: str
    subject: str
    message: str
    is_fatal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    kind: SourceKind
    items: int
    pdfs_found: int
    pdfs_missing: int
    problems: tuple[Problem, ...]


class ScanFailed(Exception):  # noqa: N818 - the name says what happened to the import
    """Nothing of the library can be used; `code` is one word, `subject` the file and the place in it, where there is
    one; the message says what to do.
    """

    def __init__(self, reason: FailureReason, code: str, message: str, subject: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.subject = subject


class _FileFailed(Exception):  # noqa: N818 - not an error of ours: a stranger's file
    """`path` is what the child was reading, where it said so; `code` is a reason, or a scan's word."""

    def __init__(self, code: str, message: str, path: str) -> None:
        super().__init__(message)
        self.code = code
        self.path = path

    @property
    def reason(self) -> DocumentRejectionReason:
        try:
            return DocumentRejectionReason(self.code)
        except ValueError:  # a scan's word
            return DocumentRejectionReason.PARSER_CRASHED


class _ChildDied(_FileFailed):
    """The file ended the child."""


class Parser:
    """One child at a time; requests wait for each other."""

    def __init__(self, *, argv: Sequence[str] = (sys.executable, "-m", "ingest.parser_child")) -> None:
        self._argv = argv
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._resting: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def scan(
        self,
        *,
        project_id: ProjectId,
        kind: SourceKind,
        files: Sequence[LocalFile],
        options: Mapping[str, str],
        out: Path,
    ) -> ScanSummary:
        """Writes the index of the library to `out`. Raises ScanFailed when nothing of it can be used."""
        del options  # None changes what is read yet; they are part of what makes a request.
        found = await self._look(kind, files, out, files_max=None)
        made = await self._ask_scan({"op": "make_documents", "out": str(out), "project_id": str(project_id)})
        return ScanSummary(
            kind=found,
            document_count=made["document_count"],
            item_count=made["item_count"],
            merged_count=made["merged_count"],
        )

    async def validate(self, *, files: Sequence[LocalFile], kind: SourceKind, out: Path) -> Validation:
        """What is in the files; a fatal problem means that an import would fail. Writes an index to `out`."""
        try:
            found = await self._look(kind, files, out, files_max=_VALIDATED_FILES_MAX)
            said = await self._ask_scan({"op": "problems", "out": str(out)})
        except ScanFailed as failure:
            fatal = Problem(code=failure.code, subject=failure.subject, message=str(failure), is_fatal=True)
            return Validation(kind=kind, items=0, pdfs_found=0, pdfs_missing=0, problems=(fatal,))
        problems = [Problem(**one) for one in said["problems"]]
        items = said["items"] + max(0, said["lone"] - _VALIDATED_FILES_MAX)
        if not items:
            message = "nothing in it can be imported; see the other problems"
            problems.insert(0, Problem(code="source_empty", subject="", message=message, is_fatal=True))
        return Validation(
            kind=found,
            items=items,
            pdfs_found=sum(file.path.lower().endswith(".pdf") for file in files),
            pdfs_missing=said["pdfs_missing"],
            problems=tuple(problems),
        )

    async def parse(self, *, scan: Path, number: int, out: Path, project_id: ProjectId) -> Parsed | Rejected:
        """Writes one document to `out`, whole, or says why it cannot be."""
        failed: dict[str, tuple[str, str]] = {}
        request = {
            "op": "parse",
            "scan": str(scan),
            "number": number,
            "out": str(out),
            "project_id": str(project_id),
            "failed": failed,
        }
        while True:
            try:
                said = await self._ask_document(request)
                break
            except _ChildDied as death:
                if not death.path or death.path in failed:
                    return _rejected(scan, death)
                # Its neighbours among the item's files, and what the library says of it, are worth having.
                failed[death.path] = (death.code, str(death))
            except _FileFailed as failure:
                return _rejected(scan, failure)
        return Parsed(
            rejected_attachments=tuple(
                Rejected(**{**one, "reason": DocumentRejectionReason(one["reason"])})
                for one in said["rejected_attachments"]
            )
        )

    async def _look(
        self, kind: SourceKind, files: Sequence[LocalFile], out: Path, *, files_max: int | None
    ) -> SourceKind:
        listing = await asyncio.to_thread(_write_listing, files, out)
        said = await self._ask_scan({"op": "scan", "out": str(out), "kind": kind, "files": str(listing)})
        for path in _lone(out)[:files_max]:
            await self._identify(out, path)
        return SourceKind(said["kind"])

    async def _identify(self, out: Path, path: str) -> None:
        try:
            await self._ask_document({"op": "identify", "out": str(out), "path": path})
        except _FileFailed as failure:
            with _opened(out) as index:
                index.reject(
                    Rejection(
                        item=path,
                        reason=failure.reason,
                        message=str(failure),
                        file_sha256=index.sha256(path),
                    )
                )
                index.commit()

    async def _ask_document(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._ask(request, cpu_s=limits.CPU_S_PER_DOCUMENT, wall_s=limits.WALL_S_PER_DOCUMENT)

    async def _ask_scan(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._ask(request, cpu_s=limits.WALL_S_PER_SCAN, wall_s=limits.WALL_S_PER_SCAN)
        except _ChildDied as death:
            raise ScanFailed(FailureReason.PARSER_FAILED, death.code, str(death)) from None
        except _FileFailed as error:
            raise ScanFailed(FailureReason.SOURCE_UNREADABLE, error.code, str(error), error.path) from None

    # --- the child -----------------------------------------------------------------------------------------------

    async def _ask(self, request: dict[str, Any], *, cpu_s: int, wall_s: float) -> dict[str, Any]:
        """The answer. Raises _FileFailed when the file could not be read, TransientFailure when this machine cannot.

        A child that dies is asked once more, fresh: what came before may have worn it out, or somebody ended it.
        """
        line = json.dumps({**request, "cpu_s": cpu_s}).encode() + b"\n"
        async with self._one_at_a_time:
            try:
                answer, path = await self._answer(line, wall_s)
            except _ChildDied as death:
                if death.code == DocumentRejectionReason.PARSER_TIMEOUT:
                    raise
                logger.info("parser.again", path=death.path, why=death)
                answer, path = await self._answer(line, wall_s)
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(_IDLE_S_MAX, self._let_go)
        match answer.get("error"):
            case None:
                return dict(answer["ok"])
            case "environment":
                raise TransientFailure(f"the parser cannot work on this machine: {answer['message']}")
            case _:
                raise _FileFailed(answer["code"], answer["message"], answer.get("subject") or path)

    async def _answer(self, line: bytes, wall_s: float) -> tuple[dict[str, Any], str]:
        """The answer, and the file that was being read. Raises _ChildDied."""
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        path = ""
        try:
            process.stdin.write(line)
            await process.stdin.drain()
            while True:
                async with asyncio.timeout(wall_s):
                    answer = json.loads(await process.stdout.readline() or b'{"died": true}')
                if "reading" not in answer:
                    break
                path = answer["reading"]
        except TimeoutError:
            await self._end()
            reason = DocumentRejectionReason.PARSER_TIMEOUT
            raise _ChildDied(reason, f"it took more than {wall_s:.0f} s", path) from None
        except (ConnectionError, ValueError):
            answer = {"died": True}
        except asyncio.CancelledError:
            await self._end()
            raise
        if "died" in answer:
            raise _ChildDied(*_cause_of_death(await self._reaped()), path)
        if answer.get("error") == "out_of_memory":
            await self._reaped()
            reason = DocumentRejectionReason.PARSER_OUT_OF_MEMORY
            raise _ChildDied(reason, "it needs more memory than a file may have", path)
        return answer, path

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES_MAX,
                env={**_environment(), **_ALLOCATOR, "PYTHONHASHSEED": "0"},
            )
        return self._process

    async def _reaped(self) -> int | None:
        """The exit code of a child that has ended or is about to."""
        process, self._process = self._process, None
        if process is None:
            return None
        with suppress(TimeoutError):
            return await asyncio.wait_for(process.wait(), 5)
        process.kill()
        return await process.wait()

    def _let_go(self) -> None:
        if self._process is not None and not self._one_at_a_time.locked():
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                process.kill()

    async def _end(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())


def _environment() -> dict[str, str]:
    """Who opens strangers' files has no need of our passwords."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "TMPDIR") if name in os.environ}


def _cause_of_death(code: int | None) -> tuple[DocumentRejectionReason, str]:
    match code:
        case None | 0:
            return DocumentRejectionReason.PARSER_CRASHED, "the parser ended without an answer, twice"
        case _ if -code == signal.SIGXCPU:
            return DocumentRejectionReason.PARSER_TIMEOUT, "it took more processor time than a file may"
        case _ if -code in (signal.SIGKILL, signal.SIGABRT):
            # The kernel's answer where a container is full, and pdfium's where it is refused an allocation.
            reason = DocumentRejectionReason.PARSER_OUT_OF_MEMORY
            return reason, f"the parser ended with {code}, twice, most likely for want of memory"
        case _:
            return DocumentRejectionReason.PARSER_CRASHED, f"the parser ended with {code}, twice"


def _opened(path: Path) -> AbstractContextManager[ScanIndex]:
    return closing(ScanIndex(path))


def _write_listing(files: Sequence[LocalFile], out: Path) -> Path:
    out.unlink(missing_ok=True)
    listing = out.with_name(out.name + ".files")
    with listing.open("w", encoding="utf-8") as lines:
        for file in files:
            lines.write(json.dumps([file.path, str(file.local), file.sha256, file.size_bytes]) + "\n")
    return listing


def _rejected(scan: Path, failure: _FileFailed) -> Rejected:
    with _opened(scan) as index:
        sha256 = index.sha256(failure.path) or None
    return Rejected(reason=failure.reason, message=str(failure), file_sha256=sha256)


def _lone(path: Path) -> list[str]:
    with _opened(path) as index:
        return index.lone()


def read_documents(path: Path) -> Iterator[tuple[int, DocumentId, str]]:
    """Number, id and name of each document of a scan."""
    with _opened(path) as index:
        yield from index.documents()


def read_rejections(path: Path) -> Iterator[Rejection]:
    with _opened(path) as index:
        yield from index.rejections()


def read_warnings(path: Path) -> Iterator[Remark]:
    with _opened(path) as index:
        yield from index.warnings()
