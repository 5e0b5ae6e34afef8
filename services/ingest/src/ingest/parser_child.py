"""The process that opens strangers' files: small, limited, and nothing is lost when it dies.

It reads requests as JSON lines from standard input and answers each with one line; before it opens a file that may end
it, it says so on a line of its own, so that its parent knows whom to blame. Its limits are set before anything else is
imported; processor time is granted anew for every request. It knows no network, no log and no blob store.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any
from uuid import UUID

PR_SET_PDEATHSIG = 1
PROBLEMS_MAX = 500

_OURS = {
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOENT, errno.EACCES, errno.EROFS,
    errno.ESTALE, errno.EPERM,
}  # fmt: skip
"""Troubles of this machine, not of the file: it is worth another try later."""


def confine(address_space: int, file_size: int, parent: int) -> None:
    """Address space and file size; and an end when the parent ends, even if that has happened already."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C in a terminal is for the parent, who ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def grant(cpu_s: int) -> None:
    """So many seconds of processor time more; past them the kernel ends us."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


class Answers:
    """Lines to the parent."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.cpu_s = 0

    def say(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def reading(self, path: str) -> None:
        """From now on it is this file that may end us, and it has the time that a file may take."""
        self.say({"reading": path})
        grant(self.cpu_s)


def main() -> None:
    from ingest import limits  # noqa: PLC0415 - figures only, and the limits below come before all other imports

    confine(limits.ADDRESS_SPACE_BYTES, limits.SPOOL_BYTES, int(sys.argv[1]))
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what a library prints must not look like an answer
    serve(answers)


def serve(answers: Answers) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        answers.cpu_s = request.pop("cpu_s")
        grant(answers.cpu_s)
        try:
            answers.say(answer(request, answers))
        except MemoryError:
            # What is left of this process is not to be trusted with the next file.
            answers.say({"error": "out_of_memory"})
            os._exit(3)


def answer(request: dict[str, Any], answers: Answers) -> dict[str, Any]:
    """What the operation gives, or what was wrong with the file. Raises MemoryError."""
    try:
        return {"ok": _OPERATIONS[request.pop("op")](answers, **request)}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's file raises anything; it costs this file, not the import
        return _explain(error)


def _explain(error: Exception) -> dict[str, str]:
    from eventlog.events import DocumentRejectionReason  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.item import BodyUnreadable, SourceUnreadable  # noqa: PLC0415 - the child imports what the request needs

    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case SourceUnreadable():
                return {
                    "error": "unreadable", "code": cause.code, "message": str(cause), "subject": cause.subject
                }  # fmt: skip
            case BodyUnreadable():
                return {"error": "unreadable", "code": cause.reason, "message": str(cause)}
            case OSError(errno=errno.EFBIG):
                message = "what it holds does not fit on the disk space that a file may have"
                return {
                    "error": "unreadable", "code": DocumentRejectionReason.TEXT_TOO_LONG, "message": message
                }  # fmt: skip
            case OSError() if cause.errno in _OURS:
                return {"error": "environment", "message": f"{type(cause).__name__}: {cause.strerror}"}
            case sqlite3.OperationalError(sqlite_errorcode=sqlite3.SQLITE_FULL):
                return {"error": "environment", "message": str(cause)}
            case sqlite3.OperationalError(sqlite_errorcode=sqlite3.SQLITE_IOERR_WRITE):
                # The limit on the size of a file: a disk that is full says so.
                message = "the library is larger than can be taken at once; divide it"
                return {"error": "unreadable", "code": "library_too_large", "message": message}
            case _:
                cause = cause.__cause__ or cause.__context__
    traceback.print_exception(error, limit=-8)
    return {
        "error": "unreadable",
        "code": DocumentRejectionReason.PARSER_CRASHED,
        "message": f"{type(error).__name__} in the parser",
    }


# --- requests ----------------------------------------------------------------------------------------------------


def _scan(_answers: Answers, out: str, kind: str, files: str) -> dict[str, Any]:
    """`files` names a JSON-lines file: path, local path, SHA-256 and size of each."""
    from eventlog import allocator  # noqa: PLC0415 - the child imports what the request needs
    from eventlog.events import SourceKind  # noqa: PLC0415 - the child imports what the request needs
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.kinds import scan  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(out))
    try:
        with Path(files).open(encoding="utf-8") as lines:
            index.add_files(tuple(json.loads(line)) for line in lines)
        found = scan(index, SourceKind(kind), Path(out))
        index.commit()
        return {"kind": found, "lone": index.count("lone"), "items": index.count("items")}
    finally:
        index.close()
        allocator.trim()  # a large library's cross-references take more than any document after it


def _identify(answers: Answers, out: str, path: str) -> dict[str, Any]:
    """Looks into a lone file and adds what it is."""
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.kinds import identify  # noqa: PLC0415 - the child imports what the request needs

    answers.reading(path)
    index = ScanIndex(Path(out))
    try:
        identify(index, path)
        index.commit()
        return {}
    finally:
        index.close()


def _make_documents(_answers: Answers, out: str, project_id: str) -> dict[str, Any]:
    from eventlog import allocator  # noqa: PLC0415 - the child imports what the request needs
    from eventlog.ids import ProjectId  # noqa: PLC0415 - the child imports what the request needs
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(out))
    try:
        merged = index.make_documents(ProjectId(UUID(project_id)))
        return {
            "merged_count": merged,
            "document_count": index.count("documents"),
            "item_count": index.count("items") + index.count("rejections"),
        }
    finally:
        index.close()
        allocator.trim()


def _parse(
    answers: Answers,
    scan: str,
    number: int,
    out: str,
    project_id: str,
    failed: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Writes the document's spool file; names the attachments that could not be read.

    `failed` are paths that ended an earlier child, with reason and message.
    """
    from eventlog.events import Remark  # noqa: PLC0415 - the child imports what the request needs
    from eventlog.ids import ProjectId  # noqa: PLC0415 - the child imports what the request needs
    from ingest.document import build  # noqa: PLC0415 - the child imports what the request needs
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs
    from ingest.spool import write_spool  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(scan))
    try:
        document_id, item, names = index.document(number)
        path, body, refused = _first_body(answers, index, item, failed)
        warnings = [
            Remark(code=one["reason"], subject=one["item"], message=one["message"]) for one in refused
        ]
        document, chunks = build(
            ProjectId(UUID(project_id)),
            document_id,
            replace(item, warnings=(*item.warnings, *warnings)),
            body,
            source_items=names,
            body_path=path,
            unreadable=frozenset(one["item"] for one in refused),
        )
        write_spool(Path(out), document, chunks)
        return {"rejected_attachments": refused}
    finally:
        index.close()


def _first_body(
    answers: Answers, index: Any, item: Any, failed: Mapping[str, Sequence[str]]
) -> tuple[str, Any, list[dict[str, str]]]:
    """The first of the item's files that gives a text, and those before it that gave none."""
    from ingest import limits  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.item import BodyUnreadable  # noqa: PLC0415 - the child imports what the request needs

    refused: list[dict[str, str]] = []
    first: BodyUnreadable | None = None
    for path in item.bodies[: limits.BODIES_TRIED_MAX]:
        try:
            return path, _read_body(answers, index, path, failed), refused
        except BodyUnreadable as error:
            first = first or error
            sha256 = index.sha256(path)
            refused.append(
                {"item": path, "reason": error.reason, "message": str(error), "file_sha256": sha256}
            )
    if first is not None and item.name in item.bodies:
        raise first  # The file is the document.
    return "", None, refused


def _read_body(answers: Answers, index: Any, path: str, failed: Mapping[str, Sequence[str]]) -> Any:
    from eventlog.events import DocumentRejectionReason  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.item import BodyUnreadable  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.kinds import read_body  # noqa: PLC0415 - the child imports what the request needs

    answers.reading(path)
    if path in failed:
        reason, message = failed[path]
        raise BodyUnreadable(DocumentRejectionReason(reason), message)
    return read_body(index, path)


def _problems(_answers: Answers, out: str) -> dict[str, Any]:
    """For a validation: counts, and the first of what is wrong."""
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(out))
    try:
        rejected = (
            {"code": one.reason, "subject": one.item, "message": one.message} for one in index.rejections()
        )
        remarked = (asdict(one) for one in index.warnings())
        return {
            "pdfs_missing": index.missing_attachments_count(),
            "problems": list(islice(chain(rejected, remarked), PROBLEMS_MAX)),
            "items": index.count("items"),
            "lone": index.count("lone"),
        }
    finally:
        index.close()


_OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "scan": _scan,
    "identify": _identify,
    "make_documents": _make_documents,
    "parse": _parse,
    "problems": _problems,
}

if __name__ == "__main__":
    main()
