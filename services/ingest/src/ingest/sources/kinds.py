"""What kinds of libraries there are: how each is told, and who reads it. A new kind is a module here and a line below."""

import re
from collections.abc import Iterable
from pathlib import Path

from eventlog.events import DocumentRejectionReason, Remark, SourceKind
from ingest.scan_index import ScanIndex
from ingest.sources.item import Rejection, SourceUnreadable

_HEAD_BYTES = 4_096
_CSL_FIELD = re.compile(
    rb'^[\s\xef\xbb\xbf]*[\[{].*"(type|title|author|issued|DOI|container-title)"\s*:', re.DOTALL
)
_RDF_ROOT = re.compile(rb"<(?:\w+:)?RDF[\s>]")
TEXT_SUFFIXES = (".txt", ".md", ".markdown")
_IGNORED = re.compile(r"(^|/)(\.|__MACOSX/|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


def detect_kind(paths: Iterable[str], head_of: "HeadOf") -> SourceKind:
    """What a set of files is; raises SourceUnreadable, saying what can be imported, when it is none of these."""
    names = sorted(path for path in paths if not _IGNORED.search(path))
    lower = [name.lower() for name in names]
    if any(_is_rdf(name, head_of) for name in names):
        return SourceKind.ZOTERO_RDF
    bases = {name.rpartition("/")[2] for name in lower}
    if bases & {"config.yaml", "config.yml"} and any(name.endswith(".csv") for name in lower):
        return SourceKind.SCHOLARAG
    if any(_is_csl(name, head_of) for name in names):
        return SourceKind.CSL_JSON
    if any(
        name.endswith(".pdf") or head_of(original)[:5] == b"%PDF-"
        for name, original in zip(lower, names, strict=True)
    ):
        return SourceKind.PDF
    if any(name.endswith(TEXT_SUFFIXES) for name in lower):
        return SourceKind.TEXT
    raise SourceUnreadable(
        "kind_unknown",
        "none of the files is a library: a Zotero RDF export (.rdf), PDFs, a ScholaRAG folder (config.yaml and "
        "papers as CSV), CSL-JSON (.json) or text (.txt, .md) can be imported",
    )


class HeadOf:
    """The first bytes of a file of the library."""

    def __init__(self, index: ScanIndex) -> None:
        self._index = index

    def __call__(self, path: str) -> bytes:
        local = self._index.local(path)
        if local is None:
            return b""
        with local.open("rb") as file:
            return file.read(_HEAD_BYTES)


def _is_rdf(path: str, head_of: HeadOf) -> bool:
    """By its name; XML only when it says so, for an attached snapshot may be XML too."""
    lower = path.lower()
    return lower.endswith(".rdf") or (lower.endswith(".xml") and bool(_RDF_ROOT.search(head_of(path))))


def _is_csl(path: str, head_of: HeadOf) -> bool:
    """JSON whose beginning names fields of CSL: a folder may hold settings and other JSON too."""
    return path.lower().endswith(".json") and bool(_CSL_FIELD.search(head_of(path)))


def scan(index: ScanIndex, kind: SourceKind, work: Path) -> SourceKind:
    """Adds what the library holds; lone files still have to be looked into. Raises SourceUnreadable."""
    head_of = HeadOf(index)
    is_told = kind not in (SourceKind.AUTO, SourceKind.UNKNOWN)
    if not is_told:
        kind = detect_kind(index.paths(), head_of)
    match kind:
        case SourceKind.ZOTERO_RDF:
            _scan_zotero(index, head_of, work)
        case SourceKind.SCHOLARAG:
            from ingest.sources import scholarag  # noqa: PLC0415 - the child imports what the library needs

            scholarag.scan(index)
        case SourceKind.CSL_JSON:
            from ingest.sources import csl_json  # noqa: PLC0415 - the child imports what the library needs

            named = [path for path in _visible(index) if path.lower().endswith(".json")]
            csl_json.scan(index, [path for path in named if is_told or _is_csl(path, head_of)])
        case _:
            pass  # PDFs and texts are lone files, which come below.
    _take_lone_files(index, head_of)
    return kind


def _visible(index: ScanIndex) -> list[str]:
    """Without what file systems and archivers leave behind."""
    return [path for path in index.paths() if not _IGNORED.search(path)]


def _scan_zotero(index: ScanIndex, head_of: HeadOf, work: Path) -> None:
    from ingest.sources import zotero_rdf  # noqa: PLC0415 - the child imports what the library needs

    exports = [path for path in _visible(index) if _is_rdf(path, head_of)]
    folders = {path.rpartition("/")[0] for path in exports}
    # What lies in an export's own `files/` is an attachment, whatever it is.
    exports = [path for path in exports if not any(path.startswith(_attached_under(one)) for one in folders)]
    if not exports:
        raise SourceUnreadable("rdf_missing", "there is no .rdf file; export with format Zotero RDF")
    for path in exports:
        zotero_rdf.scan(index, path, work)


def _attached_under(folder: str) -> str:
    return f"{folder}/files/" if folder else "files/"


def _take_lone_files(index: ScanIndex, head_of: HeadOf) -> None:
    """Whatever no item names: PDFs and texts are documents of their own, all else is rejected by name."""
    for path in index.unused():
        if _IGNORED.search(path):
            continue
        if path.lower().endswith((".pdf", *TEXT_SUFFIXES)) or head_of(path)[:5] == b"%PDF-":
            index.add_lone(path)
            continue
        message = "this kind of file cannot be read; PDFs and texts can"
        if path.lower().endswith((".html", ".htm", ".css", ".js", ".png", ".jpg", ".jpeg", ".gif", ".svg")):
            # Snapshots of web pages bring hundreds of these.
            index.warn(Remark(code="file_unsupported", subject=path[:300], message=message))
        else:
            reason = DocumentRejectionReason.FILE_UNSUPPORTED
            index.reject(Rejection(item=path, reason=reason, message=message, file_sha256=index.sha256(path)))


def is_pdf(path: str, head: bytes) -> bool:
    return path.lower().endswith(".pdf") or head[:5] == b"%PDF-"
