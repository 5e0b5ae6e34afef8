"""A ScholaRAG folder: its project file, the screened papers as CSV, and their PDFs (BASELINE.md section 3)."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from eventlog.events import Attachment, AttachmentStatus, Creator, DocumentRejectionReason, Remark, Tag
from eventlog.ids import normalise_name
from ingest import limits
from ingest.cleaning import clean, one_line
from ingest.scan_index import ScanIndex
from ingest.sources.export import open_export, table_lines, take_each
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
_SECTIONS = ("project", "search", "prisma")
"""What a project file has (BASELINE.md section 3)."""
_VECTORS = re.compile(r"(^|/)(chroma[^/]*|[^/]*vector_?(?:db|store)[^/]*)/", re.IGNORECASE)
_NOT_WORD = re.compile(r"[\W_]+")


def find_configs(paths: Iterable[str]) -> list[str]:
    """Those that lie in the folder of none before them, the outermost first."""
    named = [path for path in paths if path.rpartition("/")[2] in (CONFIG, "config.yml")]
    found: list[str] = []
    for path in sorted(named, key=lambda path: (path.count("/"), path)):
        if not path.startswith(tuple(_folder(one) for one in found)):
            found.append(path)
    return found


def find_reviews(paths: Iterable[str], tables: Iterable[str]) -> list[str]:
    """The project files of folders that hold a table too: of a `config.yaml` alone anything may be the owner."""
    tables = list(tables)
    return [
        config for config in find_configs(paths) if any(one.startswith(_folder(config)) for one in tables)
    ]


def _folder(config: str) -> str:
    """As what lies in it begins."""
    folder = config.rpartition("/")[0]
    return f"{folder}/" if folder else ""


def find_table(index: ScanIndex, folder: str) -> str | None:
    for name in _TABLES:
        if found := [path for path in index.named(name) if path.startswith(folder)]:
            return found[0]
    return None


def scan(index: ScanIndex, config: str) -> None:
    """Adds every paper that screening kept. Raises SourceUnreadable without a project file or a table of papers."""
    folder = _folder(config)
    _check_config(index, config)
    table = find_table(index, folder)
    if table is None:
        message = f"it has none of {', '.join(_TABLES)}; run the screening first"
        raise SourceUnreadable("papers_missing", message, config)
    for path in (config, table):
        index.use(path)
    _scan_rows(index, table, folder)
    _leave_alone(index, folder)


def _scan_rows(index: ScanIndex, table: str, folder: str) -> None:
    """Raises SourceUnreadable when there is no row."""
    pdfs = _Pdfs(index, folder)

    def take(record: tuple[dict[str, str], list[str]], number: int) -> None:
        row, surplus = record
        if number == 1:
            _name_columns_left_out(index, row)
            _name_columns_repeated(index, table)
        name = f"{table}: row {number}"
        _add(index, row, name, pdfs, _left_out(name, surplus))

    if_none = SourceUnreadable("papers_empty", "it has no rows")
    take_each(index, table, _rows(index, table), take, unit="row", if_none=if_none)


def _name_columns_left_out(index: ScanIndex, row: dict[str, str]) -> None:
    for column in sorted(row.keys() - _KEPT)[:_COLUMNS_NAMED_MAX]:
        message = "this column was left out: no part of a document holds it"
        index.warn(Remark(code="field_not_kept", subject=one_line(column, 200), message=message))


def _name_columns_repeated(index: ScanIndex, table: str) -> None:
    with open_export(index, table, newline="", is_again=True) as file:
        columns = Counter(_column(name) for name in next(csv.reader(table_lines(file))))
    for column in [name for name, count in columns.items() if count > 1][:_COLUMNS_NAMED_MAX]:
        message = "several columns have this name: the last of them is read, the others were left out"
        index.warn(Remark(code="column_repeated", subject=one_line(column, 200), message=message))


def _leave_alone(index: ScanIndex, folder: str) -> None:
    """PDFs that no row names are documents; logs, scripts, other tables and the old vector store are none."""
    others = []
    vectors = 0
    for path in index.unused():
        if not path.startswith(folder):
            continue
        if path.lower().endswith(".pdf"):
            index.add_lone(path)
            continue
        index.use(path)
        if _VECTORS.search(path):
            vectors += 1
        elif not path.rpartition("/")[2].startswith(
            "."
        ):  # `.scholarag` says that it is one, and nothing else
            others.append(path)
    if vectors:
        message = (
            f"a vector store was left alone ({vectors} files): vectors are made anew, in the project's space"
        )
        index.warn(Remark(code="vectors_not_read", subject=folder or CONFIG, message=message))
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
    if missing := [name for name in _SECTIONS if name not in found]:
        message = f"it has no {', '.join(missing)}; its papers were read all the same"
        index.warn(Remark(code="config_incomplete", subject=config[:300], message=message))


def _left_out(name: str, surplus: list[str]) -> tuple[Remark, ...]:
    cells = [one_line(cell, 100) for cell in surplus if cell.strip()]
    if not cells:
        return ()
    message = f"{len(cells)} cells beyond the last column were left out, “{cells[0]}” first"
    return (Remark(code="cells_not_kept", subject=name, message=message),)


def _rows(index: ScanIndex, table: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Each row by its columns' names, and its cells that stand under none. Of two columns of one name the last counts."""
    csv.field_size_limit(limits.ITEM_CHARACTERS_MAX)
    with open_export(index, table, newline="") as file:
        try:
            row: dict[Any, Any]
            for row in csv.DictReader(table_lines(file), strict=True):
                surplus = row.pop(None, [])
                yield {_column(key): (value or "").strip() for key, value in row.items()}, surplus
        except csv.Error as error:
            raise SourceUnreadable(
                "papers_damaged", f"the table breaks off or is wrong ({error}); save it again as CSV"
            ) from None


def _column(name: str) -> str:
    return name.strip().casefold()


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

    def __init__(self, index: ScanIndex, folder: str) -> None:
        self._index = index
        self._by_stem = {
            _key(Path(path).stem): path
            for path in index.paths()
            if path.startswith(folder) and path.lower().endswith(".pdf")
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
