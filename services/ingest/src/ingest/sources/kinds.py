"""What kinds of files there are: how each is told, and who reads it. A new kind is a module here and a line below.

A library may mix them. Its exports (one file, many items) are read first, each by its reader; what no item names and is a
text of its own (a PDF, a DOCX) is a document; whatever remains is named. An export that cannot be read costs itself.
"""

import codecs
import re
from collections.abc import Iterable
from pathlib import Path

from eventlog.events import DocumentRejectionReason, Remark, SourceKind
from ingest.document import Body
from ingest.scan_index import ScanIndex
from ingest.sources.export import DOCX_SUFFIXES, TEXT_SUFFIXES
from ingest.sources.item import Rejection, SourceUnreadable

_HEAD_BYTES = 4_096
_CSL_FIELD = re.compile(
    rb'^[\s\xef\xbb\xbf]*[\[{].*"(type|title|author|issued|DOI|container-title)"\s*:', re.DOTALL
)
_RDF_ROOT = re.compile(rb"<(?:\w+:)?RDF[\s>]")
_TAGGED = re.compile(
    rb"^[\s\xef\xbb\xbf]*(?:TY {1,2}- [A-Z]|PMID- ?\d|FN (?:Clarivate|Thomson|ISI)|PT [A-Z]\r?\nAU )"
)
"""Reference Manager's tags, PubMed's, and the Web of Science's, as programs also save them under `.txt`."""
_BIBTEX = re.compile(rb"^(?:[\s\xef\xbb\xbf]|%[^\n]*\n)*@[A-Za-z]{2,30}\s*[{(]")
_ZOTERO_COLUMNS = re.compile(rb'^[\s\xef\xbb\xbf]*"?Key"?[,;\t]"?Item Type"?[,;\t]')
_IGNORED = re.compile(r"(^|/)(\.|__MACOSX/|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
_SNAPSHOT_SUFFIXES = (".html", ".htm", ".css", ".js", ".png", ".jpg", ".jpeg", ".gif", ".svg")
_TODO = {
    ".doc": "save it as .docx or PDF",
    ".rtf": "save it as .docx or PDF",
    ".odt": "save it as .docx or PDF",
    ".mobi": "convert it to EPUB",
    ".azw3": "convert it to EPUB",
    ".enl": "export it from EndNote as RIS",
    ".enw": "export it from EndNote as RIS",
}

_EXPORTS = (
    SourceKind.ZOTERO_RDF, SourceKind.SCHOLARAG, SourceKind.CSL_JSON, SourceKind.ZOTERO_CSV, SourceKind.BIBTEX,
    SourceKind.RIS,
)  # fmt: skip
"""In the order in which they are read: of two that tell of one work, the first is believed."""
_SUFFIXES = {
    SourceKind.CSL_JSON: (".json",),
    SourceKind.ZOTERO_CSV: (".csv",),
    SourceKind.BIBTEX: (".bib", ".bibtex"),
    SourceKind.RIS: (".ris", ".nbib", ".ciw"),
}
"""What is taken for a kind when a user tells it, whatever it begins with."""
_MISSING = {
    SourceKind.ZOTERO_RDF: ("rdf_missing", "there is no .rdf file; export with format Zotero RDF"),
    SourceKind.SCHOLARAG: ("config_missing", "a ScholaRAG folder has a config.yaml; this one has none"),
    SourceKind.CSL_JSON: ("json_missing", "there is no .json file; export as CSL-JSON"),
    SourceKind.ZOTERO_CSV: ("csv_missing", "there is no .csv file; export with format CSV from Zotero"),
    SourceKind.BIBTEX: ("bibtex_missing", "there is no .bib file; export as BibTeX or BibLaTeX"),
    SourceKind.RIS: ("ris_missing", "there is no .ris, .nbib or .ciw file; export as RIS"),
}


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


def export_kind(path: str, head_of: HeadOf) -> SourceKind | None:
    """Which export a file is; null for what is none. ScholaRAG is a folder and not told here."""
    lower = path.lower()
    if lower.endswith(".rdf"):
        return SourceKind.ZOTERO_RDF
    if lower.endswith((".bib", ".bibtex")):
        return SourceKind.BIBTEX
    if lower.endswith((".ris", ".nbib", ".ciw")):
        return SourceKind.RIS
    if not lower.endswith((".xml", ".json", ".csv", ".txt")):
        return None
    head = head_of(path)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as spreadsheets save
        head = head.decode("utf-16", "ignore").encode()
    if lower.endswith(".xml"):  # only when it says so, for an attached snapshot may be XML too
        return SourceKind.ZOTERO_RDF if _RDF_ROOT.search(head) else None
    if lower.endswith(".json"):  # a folder may hold settings and other JSON too
        return SourceKind.CSL_JSON if _CSL_FIELD.search(head) else None
    if lower.endswith(".csv"):
        return SourceKind.ZOTERO_CSV if _ZOTERO_COLUMNS.search(head) else None
    if _TAGGED.search(head):
        return SourceKind.RIS
    return SourceKind.BIBTEX if _BIBTEX.search(head) else None


def document_kind(path: str, head: bytes) -> SourceKind | None:
    """What a file is that is a document of its own; null for what is none. A PDF is one under any name."""
    lower = path.lower()
    if lower.endswith(".pdf") or head[:5] == b"%PDF-":
        return SourceKind.PDF
    if lower.endswith(DOCX_SUFFIXES):
        return SourceKind.DOCX
    if lower.endswith(".epub"):
        return SourceKind.EPUB
    return SourceKind.TEXT if lower.endswith(TEXT_SUFFIXES) else None


def identify(index: ScanIndex, path: str) -> None:
    """Adds a file that is a document of its own as an item, or as a rejection."""
    # The child imports what the file needs.
    match document_kind(path, HeadOf(index)(path)):
        case SourceKind.PDF:
            from ingest.sources import pdf_front  # noqa: PLC0415 - as said above

            pdf_front.identify(index, path)
        case SourceKind.DOCX:
            from ingest.sources import word  # noqa: PLC0415 - as said above

            word.identify(index, path)
        case SourceKind.EPUB:
            from ingest.sources import epub  # noqa: PLC0415 - as said above

            epub.identify(index, path)
        case _:
            from ingest.sources import text  # noqa: PLC0415 - as said above

            text.identify(index, path)


def read_body(index: ScanIndex, path: str) -> Body:
    """The full text of a file. Raises BodyUnreadable."""
    local = index.local(path)
    assert local is not None
    # The child imports what the file needs.
    match document_kind(path, HeadOf(index)(path)):
        case SourceKind.PDF:
            from ingest.sources import pdf  # noqa: PLC0415 - as said above

            return pdf.read_body(local)
        case SourceKind.DOCX:
            from ingest.sources import word  # noqa: PLC0415 - as said above

            return word.read_body(local)
        case SourceKind.EPUB:
            from ingest.sources import epub  # noqa: PLC0415 - as said above

            return epub.read_body(local)
        case _:
            from ingest.sources import text  # noqa: PLC0415 - as said above

            return text.read_body(local)


def scan(index: ScanIndex, kind: SourceKind, work: Path) -> SourceKind:
    """Adds what the library holds; lone files still have to be looked into. Raises SourceUnreadable.

    Told a kind, exports of that kind alone are read. The answer is what was found: `mixed` where it is several kinds.
    """
    head_of = HeadOf(index)
    if kind in (SourceKind.AUTO, SourceKind.UNKNOWN, SourceKind.MIXED):
        exports = _found(index, head_of)
    elif kind in _EXPORTS:
        exports = _told(index, kind, head_of)
    else:
        exports = []
    failures = _read_exports(index, exports, work)
    lone_kinds = _take_lone_files(index, head_of)
    _name_failures(index, failures, exports)
    if kind not in (SourceKind.AUTO, SourceKind.UNKNOWN, SourceKind.MIXED):
        return kind
    kinds = {one for one, _ in exports} or lone_kinds
    if not kinds:
        raise SourceUnreadable(
            "kind_unknown",
            "none of the files is a library: a Zotero RDF export (.rdf), BibTeX (.bib), RIS (.ris, .nbib, .ciw), Zotero's "
            "CSV, CSL-JSON (.json), a ScholaRAG folder (config.yaml and papers as CSV), PDFs, DOCX, EPUB or text (.txt, "
            ".md) can be imported",
        )
    return kinds.pop() if len(kinds) == 1 else SourceKind.MIXED


def _found(index: ScanIndex, head_of: HeadOf) -> list[tuple[SourceKind, str]]:
    from ingest.sources import scholarag  # noqa: PLC0415 - the child imports what the library needs

    visible = _visible(index)
    kinds = {path: found for path in visible if (found := export_kind(path, head_of))}
    tables = [path for path in visible if path.lower().endswith(".csv") and path not in kinds]
    reviews = scholarag.find_reviews(visible, tables)
    inside = tuple(_within(config) for config in reviews)
    exports: list[tuple[SourceKind, str]] = [(SourceKind.SCHOLARAG, config) for config in reviews]
    exports += [(found, path) for path, found in kinds.items() if not path.startswith(inside)]
    return _without_attached(exports)


def _told(index: ScanIndex, kind: SourceKind, head_of: HeadOf) -> list[tuple[SourceKind, str]]:
    from ingest.sources import scholarag  # noqa: PLC0415 - the child imports what the library needs

    visible = _visible(index)
    if kind is SourceKind.SCHOLARAG:
        paths = scholarag.find_configs(visible)[:1]
    else:
        suffixes = _SUFFIXES.get(kind, ())
        paths = [
            path for path in visible if path.lower().endswith(suffixes) or export_kind(path, head_of) is kind
        ]
    if not paths:
        raise SourceUnreadable(*_MISSING[kind])
    return _without_attached([(kind, path) for path in paths])


def _within(path: str) -> str:
    """The folder of a file, as what lies in it begins."""
    folder = path.rpartition("/")[0]
    return f"{folder}/" if folder else ""


def _without_attached(exports: list[tuple[SourceKind, str]]) -> list[tuple[SourceKind, str]]:
    """In reading order. What lies in an export's own `files/` is an attachment, whatever it is."""
    attached = tuple(f"{_within(path)}files/" for _, path in exports)
    kept = [one for one in exports if not one[1].startswith(attached)]
    return sorted(kept, key=lambda one: (_EXPORTS.index(one[0]), one[1]))


def _visible(index: ScanIndex) -> list[str]:
    """Without what file systems and archivers leave behind."""
    return [path for path in index.paths() if not _IGNORED.search(path)]


def _read_exports(
    index: ScanIndex, exports: Iterable[tuple[SourceKind, str]], work: Path
) -> list[tuple[str, SourceUnreadable]]:
    """Those of which nothing could be used, and why."""
    failures = []
    for kind, path in exports:
        if index.is_used(path):
            continue  # Another export names it as a file of an item.
        try:
            _read_export(index, kind, path, work)
        except SourceUnreadable as failure:
            index.use(path)
            failures.append((path, failure))
    return failures


def _read_export(index: ScanIndex, kind: SourceKind, path: str, work: Path) -> None:
    # The child imports what the library needs.
    match kind:
        case SourceKind.ZOTERO_RDF:
            from ingest.sources import zotero_rdf  # noqa: PLC0415 - as said above

            zotero_rdf.scan(index, path, work)
        case SourceKind.SCHOLARAG:
            from ingest.sources import scholarag  # noqa: PLC0415 - as said above

            scholarag.scan(index, path)
        case SourceKind.CSL_JSON:
            from ingest.sources import csl_json  # noqa: PLC0415 - as said above

            csl_json.scan(index, path)
        case SourceKind.ZOTERO_CSV:
            from ingest.sources import zotero_csv  # noqa: PLC0415 - as said above

            zotero_csv.scan(index, path)
        case SourceKind.BIBTEX:
            from ingest.sources import bibtex  # noqa: PLC0415 - as said above

            bibtex.scan(index, path)
        case _:
            from ingest.sources import ris  # noqa: PLC0415 - as said above

            ris.scan(index, path)


def _name_failures(
    index: ScanIndex, failures: list[tuple[str, SourceUnreadable]], exports: list[tuple[SourceKind, str]]
) -> None:
    """Rejections; but where the exports gave nothing and no other document lies beside them, the library fails."""
    if not failures:
        return
    attached = tuple(f"{_within(path)}files/" for _, path in exports)
    if not index.count("items") and all(path.startswith(attached) for path in index.lone()):
        raise failures[0][1]
    for path, failure in failures:
        reason = DocumentRejectionReason.FILE_DAMAGED
        rejection = Rejection(
            item=failure.subject or path,
            reason=reason,
            message=f"{failure.code}: {failure}",
            file_sha256=index.sha256(path),
        )
        index.reject(rejection)


def _take_lone_files(index: ScanIndex, head_of: HeadOf) -> set[SourceKind]:
    """Whatever no item names: what is a document of its own is looked into later, all else is rejected by name."""
    kinds = set()
    for path in index.unused():
        if _IGNORED.search(path):
            continue
        if kind := document_kind(path, head_of(path)):
            index.add_lone(path)
            kinds.add(kind)
            continue
        lower = path.lower()
        if lower.endswith(_SNAPSHOT_SUFFIXES):
            # Snapshots of web pages bring hundreds of these.
            message = "this kind of file cannot be read; PDFs, texts, DOCX and EPUB can"
            index.warn(Remark(code="file_unsupported", subject=path[:300], message=message))
            continue
        todo = next((todo for suffix, todo in _TODO.items() if lower.endswith(suffix)), "")
        message = f"this kind of file cannot be read; {todo or 'PDFs, texts, DOCX, EPUB and exports can'}"
        reason = DocumentRejectionReason.FILE_UNSUPPORTED
        index.reject(Rejection(item=path, reason=reason, message=message, file_sha256=index.sha256(path)))
    return kinds
