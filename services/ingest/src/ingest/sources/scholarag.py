"""A ScholaRAG folder: its project file, the screened papers as CSV, and their PDFs (BASELINE.md section 3)."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from eventlog.events import Attachment, AttachmentStatus, Creator, DocumentRejectionReason, Remark, Tag
from eventlog.ids import normalise_name
from ingest import limits
from ingest.cleaning import clean, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.item import Item, Rejection, SourceUnreadable, find_doi, find_year

CONFIG = "config.yaml"
CONFIG_BYTES_MAX = 1024 * 1024
_TABLES = (
    "relevant_papers.csv",
    "all_screened_papers.csv",
    "screening_progress.csv",
    "deduplicated.csv",
    "deduplicated_papers.csv",
)
"""In the order in which they are looked for: the screened ones say most."""
_EXCLUDED = {"no", "exclude", "excluded", "reject", "rejected", "auto-exclude"}
_KEPT = {
    "decision", "final_decision", "screening_decision", "title", "doi", "abstract", "paperid", "paper_id",
    "openalex_id", "id", "pdf_path", "pdf", "pdf_filename", "type", "publication_type", "authors", "author", "year",
    "publication_year", "date", "publication_date", "url", "link", "pdf_url", "venue", "journal", "source_title",
    "volume", "issue", "pages", "publisher", "language", "keywords", "tags",
}  # fmt: skip
"""Columns that are read below; whatever else a table has is left out by name."""
_COLUMNS_NAMED_MAX = 50
_NOT_WORD = re.compile(r"[\W_]+")


def find_config(paths: Iterator[str]) -> str | None:
    found = [path for path in paths if path.rpartition("/")[2] in (CONFIG, "config.yml")]
    return min(found, key=lambda path: (path.count("/"), path)) if found else None


def find_table(index: ScanIndex) -> str | None:
    for name in _TABLES:
        if found := index.named(name):
            return found[0]
    return None


def scan(index: ScanIndex) -> None:
    """Adds every paper that screening kept. Raises SourceUnreadable without a config or a table of papers."""
    config = find_config(index.paths())
    if config is None:
        raise SourceUnreadable("config_missing", f"a ScholaRAG folder has a {CONFIG}; this one has none")
    _check_config(index, config)
    table = find_table(index)
    if table is None:
        message = f"it has none of {', '.join(_TABLES)}; run the screening first"
        raise SourceUnreadable("papers_missing", message)
    for path in (config, table):
        index.use(path)
    local = index.local(table)
    assert local is not None
    count, failure = _scan_rows(index, table, local)
    if not count:
        raise failure or SourceUnreadable("papers_empty", "it has no rows", table)
    if failure is not None:
        reason = DocumentRejectionReason.FILE_DAMAGED
        where = f"{table}: after row {count}"
        index.reject(
            Rejection(item=where, reason=reason, message=str(failure), file_sha256=index.sha256(table))
        )
    _leave_alone(index)


def _scan_rows(index: ScanIndex, table: str, local: Path) -> tuple[int, SourceUnreadable | None]:
    """How many rows it took, and what ended it early: what came before the damage is worth having."""
    pdfs = _Pdfs(index)
    count = 0
    try:
        for count, (row, surplus) in enumerate(_rows(local), start=1):
            if count > limits.ITEMS_MAX:
                return count - 1, SourceUnreadable(
                    "items_too_many", f"more than {limits.ITEMS_MAX} rows", table
                )
            if count == 1:
                _name_columns_left_out(index, row)
            name = f"{table}: row {count}"
            _add(index, row, name, pdfs, _left_out(name, surplus))
    except SourceUnreadable as error:
        return count, error.within(table)
    return count, None


def _name_columns_left_out(index: ScanIndex, row: dict[str, str]) -> None:
    for column in sorted(row.keys() - _KEPT)[:_COLUMNS_NAMED_MAX]:
        message = "this column was left out: no part of a document holds it"
        index.warn(Remark(code="field_not_kept", subject=one_line(column, 200), message=message))


def _leave_alone(index: ScanIndex) -> None:
    """PDFs that no row names are documents; logs, scripts, other tables and the old vector store are none."""
    others = []
    for path in index.unused():
        if path.lower().endswith(".pdf"):
            index.add_lone(path)
        else:
            index.use(path)
            others.append(path)
    if others:
        message = f"{len(others)} files beside the papers were left alone, {others[0][:200]} first"
        index.warn(Remark(code="files_not_read", subject=others[0][:300], message=message))


def _check_config(index: ScanIndex, config: str) -> None:
    local = index.local(config)
    assert local is not None
    if index.size_bytes(config) > CONFIG_BYTES_MAX:
        raise SourceUnreadable("config_damaged", "it is larger than a configuration", config)
    text = local.read_text(encoding="utf-8", errors="replace")
    try:
        # Aliases could make a small file huge; a project file needs none.
        has_alias = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        found = None if has_alias else yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise SourceUnreadable("config_damaged", "it is not YAML that can be read", config) from None
    if has_alias:
        raise SourceUnreadable("config_damaged", "it uses YAML aliases, which are not followed", config)
    if not isinstance(found, dict):
        raise SourceUnreadable("config_damaged", "it is not a mapping of settings", config)


def _left_out(name: str, surplus: list[str]) -> tuple[Remark, ...]:
    cells = [one_line(cell, 100) for cell in surplus if cell.strip()]
    if not cells:
        return ()
    message = f"{len(cells)} cells beyond the last column were left out, “{cells[0]}” first"
    return (Remark(code="cells_not_kept", subject=name, message=message),)


def _rows(path: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Each row by its columns' names, and its cells that stand under none."""
    csv.field_size_limit(limits.ITEM_CHARACTERS_MAX)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            row: dict[Any, Any]
            for row in csv.DictReader((line.replace("\x00", "") for line in file), strict=True):
                surplus = row.pop(None, [])
                yield {key.strip().casefold(): (value or "").strip() for key, value in row.items()}, surplus
        except csv.Error as error:
            raise SourceUnreadable(
                "papers_damaged", f"the table breaks off or is wrong ({error}); save it again as CSV"
            ) from None


def _first(row: dict[str, str], *keys: str) -> str:
    return next((row[key] for key in keys if row.get(key)), "")


def _add(
    index: ScanIndex, row: dict[str, str], name: str, pdfs: "_Pdfs", left_out: tuple[Remark, ...]
) -> None:
    decision = _first(row, "decision", "final_decision", "screening_decision").casefold()
    title = _first(row, "title")
    if decision in _EXCLUDED:
        index.warn(Remark(code="screened_out", subject=name, message=f"{decision}: {one_line(title, 200)}"))
        return
    if not title and not _first(row, "doi", "abstract"):
        message = "the row has no title, DOI or abstract"
        index.reject(Rejection(item=name, reason=DocumentRejectionReason.ITEM_EMPTY, message=message))
        return
    ids = {key: _first(row, key) for key in ("paperid", "paper_id", "openalex_id", "id")}
    paper_id = next((value for value in ids.values() if value), "")
    named = _first(row, "pdf_path", "pdf", "pdf_filename")
    pdf = pdfs.find(paper_id, _first(row, "doi"), title, named)
    attachments, warnings = _attached(index, pdf, named)
    openalex = ids["openalex_id"]
    index.add_item(
        Item(
            name=f"{name} ({one_line(paper_id, 100)})" if paper_id else name,
            item_type=_first(row, "type", "publication_type") or "journalArticle",
            title=title,
            creators=tuple(_creators(_first(row, "authors", "author"))),
            year=find_year(_first(row, "year", "publication_year", "date")),
            date=_first(row, "date", "publication_date", "year"),
            doi=find_doi(_first(row, "doi")),
            uri=openalex if openalex.startswith("http") else "",
            url=_first(row, "url", "link", "pdf_url"),
            venue=_first(row, "venue", "journal", "source_title"),
            volume=_first(row, "volume"),
            issue=_first(row, "issue"),
            pages=_first(row, "pages"),
            publisher=_first(row, "publisher"),
            language=_first(row, "language"),
            abstract=clean(_first(row, "abstract")),
            tags=tuple(
                Tag(name=tag.strip())
                for tag in re.split(r"[;|]", _first(row, "keywords", "tags"))
                if tag.strip()
            ),
            attachments=attachments,
            bodies=() if pdf is None else (pdf,),
            warnings=(*left_out, *warnings),
        )
    )


def _attached(
    index: ScanIndex, pdf: str | None, named: str
) -> tuple[tuple[Attachment, ...], tuple[Remark, ...]]:
    if pdf is not None:
        return (Attachment(path=pdf, sha256=index.sha256(pdf), status=AttachmentStatus.FOUND),), ()
    if not named:
        return (), ()
    message = "the table names this file, but it is not among the files"
    remark = Remark(code="attachment_missing", subject=one_line(named, 300), message=message)
    return (Attachment(path=one_line(named, 500), status=AttachmentStatus.MISSING),), (remark,)


def _creators(text: str) -> Iterator[Creator]:
    """Divided by semicolons, or by commas where there are none."""
    for name in text.split(";" if ";" in text else ","):
        name = name.strip()  # noqa: PLW2901 - the same name without its blanks
        if "," in name:
            family, given = name.split(",", 1)
            yield Creator(family=family.strip(), given=given.strip())
        elif name:
            given, _, family = name.rpartition(" ")
            yield Creator(family=family, given=given)


class _Pdfs:
    """The folder's PDFs by the letters and digits of their names; a library has at most some thousands of them."""

    def __init__(self, index: ScanIndex) -> None:
        self._index = index
        self._by_stem = {
            _key(Path(path).stem): path for path in index.paths() if path.lower().endswith(".pdf")
        }

    def find(self, paper_id: str, doi: str, title: str, named: str) -> str | None:
        """By the name that the row gives, by id, by DOI, by title."""
        keys: list[Any] = [
            Path(named.replace("\\", "/")).stem if named else "",
            paper_id,
            paper_id.rpartition("/")[2],
            doi,
        ]
        for key in (*(_key(str(one)) for one in keys), _key(normalise_name(title))):
            if key and (path := self._by_stem.get(key)):
                self._index.use(path)
                return path
        title_key = _key(normalise_name(title))[:60]
        if len(title_key) >= 30:
            found = [path for stem, path in self._by_stem.items() if title_key in stem]
            if len(found) == 1:
                self._index.use(found[0])
                return found[0]
        return None


def _key(name: str) -> str:
    return _NOT_WORD.sub("", name.casefold())
