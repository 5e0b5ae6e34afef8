"""The process that opens strangers' files: small, limited, and nothing is lost when it dies.

It reads requests as JSON lines from standard input and answers each with one line. Its limits are set before anything
else is imported; processor time is granted anew for every request. It knows no network, no log and no blob store.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import UUID

PR_SET_PDEATHSIG = 1


def confine(address_space: int, file_size: int, parent: int) -> None:
    """Address space and file size; and an end when the parent ends, even if that has happened already."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C in a terminal is for the parent, who ends us in order
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def grant(cpu_s: int) -> None:
    """So many seconds of processor time more; past them the kernel ends us."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def main() -> None:
    from ingest import limits  # noqa: PLC0415 - after the limits would be too late only for what it imports: nothing

    confine(limits.ADDRESS_SPACE_BYTES, limits.SPOOL_BYTES, int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    serve(answers)


def serve(answers: Any) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        grant(request.pop("cpu_s"))
        try:
            answer: dict[str, Any] = {"ok": _OPERATIONS[request.pop("op")](**request)}
        except MemoryError:
            # What is left of this process is not to be trusted with the next file.
            answers.write('{"error": "out_of_memory"}\n')
            answers.flush()
            os._exit(3)
        except Exception as error:  # noqa: BLE001 - a stranger's file raises anything; it costs this file, not the import
            answer = {"error": "failed", **_explain(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _explain(error: Exception) -> dict[str, str]:
    from ingest.sources.item import SourceUnreadable  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.text import BodyUnreadable  # noqa: PLC0415 - the child imports what the request needs

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SourceUnreadable):
            return {"error": "unreadable", "code": cause.code, "message": str(cause)}
        if isinstance(cause, BodyUnreadable):
            return {"error": "rejected", "code": cause.reason, "message": str(cause)}
        cause = cause.__cause__ or cause.__context__
    return {
        "error": "failed",
        "code": type(error).__name__,
        "message": f"{type(error).__name__} in the parser",
    }


# --- requests ----------------------------------------------------------------------------------------------------


def _scan(out: str, kind: str, files: str) -> dict[str, Any]:
    """`files` names a JSON-lines file: path, local path, SHA-256 and size of each."""
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


def _identify(out: str, path: str) -> dict[str, Any]:
    """Looks into a lone file and adds what it is."""
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.kinds import HeadOf, is_pdf  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(out))
    try:
        if is_pdf(path, HeadOf(index)(path)):
            from ingest.sources import pdf as source  # noqa: PLC0415 - pdfium only where there are PDFs
        else:
            from ingest.sources import text as source  # type: ignore[no-redef]  # noqa: PLC0415 - one of two modules of one shape
        source.identify(index, path)
        index.commit()
        return {}
    finally:
        index.close()


def _make_documents(out: str, project_id: str) -> dict[str, Any]:
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


def _parse(scan: str, number: int, out: str, project_id: str) -> dict[str, Any]:
    """Writes the document's spool file; names the attachments that could not be read."""
    from eventlog.events import AttachmentStatus, Remark  # noqa: PLC0415 - the child imports what the request needs
    from eventlog.ids import ProjectId  # noqa: PLC0415 - the child imports what the request needs
    from ingest.document import build  # noqa: PLC0415 - the child imports what the request needs
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs
    from ingest.sources.text import BodyUnreadable  # noqa: PLC0415 - the child imports what the request needs
    from ingest.spool import write_spool  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(scan))
    try:
        document_id, item, names = index.document(number)
        attachments = {one.path: one for one in item.attachments}
        rejected: list[dict[str, str | None]] = []
        warnings = list(item.warnings)
        body = None
        for path in item.bodies:
            try:
                body = _read_body(index, path)
                break
            except BodyUnreadable as error:
                if item.name == path:
                    raise  # The file is the document.
                rejected.append(
                    {
                        "item": path,
                        "reason": error.reason,
                        "message": str(error),
                        "file_sha256": index.sha256(path),
                    }
                )
                warnings.append(Remark(code=error.reason, subject=path[:300], message=str(error)))
                if path in attachments:
                    attachments[path] = replace(attachments[path], status=AttachmentStatus.REJECTED)
        document, chunks = build(
            ProjectId(UUID(project_id)),
            document_id,
            item,
            body,
            source_items=names,
            attachments=tuple(attachments.values()),
            warnings=warnings,
        )
        write_spool(Path(out), document, chunks)
        return {"rejected_attachments": rejected}
    finally:
        index.close()


def _read_body(index: Any, path: str) -> Any:
    from ingest.sources.kinds import HeadOf, is_pdf  # noqa: PLC0415 - the child imports what the request needs

    local = index.local(path)
    if is_pdf(path, HeadOf(index)(path)):
        from ingest.sources.pdf import read_body  # noqa: PLC0415 - pdfium only where there are PDFs
    else:
        from ingest.sources.text import read_body  # noqa: PLC0415 - one of two functions of one shape
    return read_body(local)


def _problems(out: str) -> dict[str, Any]:
    """For a validation: counts, and the first of what is wrong."""
    from ingest.scan_index import ScanIndex  # noqa: PLC0415 - the child imports what the request needs

    index = ScanIndex(Path(out))
    try:
        found, missing = index.attachment_counts()
        problems: list[dict[str, str]] = []
        for rejection in index.rejections():
            problems.append(
                {"code": rejection.reason, "subject": rejection.item, "message": rejection.message}
            )
            if len(problems) >= PROBLEMS_MAX:
                break
        for remark in index.warnings():
            if len(problems) >= PROBLEMS_MAX:
                break
            problems.append(asdict(remark))
        return {
            "pdfs_found": found,
            "pdfs_missing": missing,
            "problems": problems,
            "items": index.count("items"),
        }
    finally:
        index.close()


PROBLEMS_MAX = 500
_OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "scan": _scan,
    "identify": _identify,
    "make_documents": _make_documents,
    "parse": _parse,
    "problems": _problems,
}

if __name__ == "__main__":
    main()
