"""Plain text and Markdown: a file is a document, its first line the title, or what its front matter says of it.

Front matter is the YAML between two lines of three hyphens, with which Pandoc, Obsidian and others begin a Markdown file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from eventlog.events import Creator, DocumentRejectionReason, Tag
from ingest import limits
from ingest.cleaning import clean, one_line
from ingest.document import Body
from ingest.scan_index import ScanIndex
from ingest.sources.export import encoding_of, encoding_remark, people
from ingest.sources.item import BodyUnreadable, Item, Rejection, find_doi, find_dois, find_year

TITLE_CHARACTERS_MAX = 200
FRONT_CHARACTERS = 2_000
"""Where a text may name itself by a DOI, if it is the only one there: lists of references name many."""
_FRONT_MATTER_CHARACTERS_MAX = 20_000
_FENCE = "---\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str
    encoding: str
    front: dict[str, Any] = field(default_factory=dict)


def read_text(path: Path) -> Text:
    """Raises BodyUnreadable."""
    size = path.stat().st_size
    if size > limits.TEXT_FILE_BYTES_MAX:
        raise BodyUnreadable(
            DocumentRejectionReason.FILE_TOO_LARGE, f"{size} bytes are more than a text may have"
        )
    encoding = encoding_of(path)
    text = path.read_bytes().decode(encoding, "replace")
    if text.count("\x00") > len(text) // 100:
        raise BodyUnreadable(
            DocumentRejectionReason.FILE_UNSUPPORTED, "this is no text, whatever its name says"
        )
    cleaned = clean(text)
    del text  # as large as what is kept of it
    if not cleaned.strip():
        raise BodyUnreadable(DocumentRejectionReason.FILE_EMPTY, "there is no text in it")
    if len(cleaned) > limits.BODY_CHARACTERS_MAX:
        raise BodyUnreadable(DocumentRejectionReason.TEXT_TOO_LONG, f"{len(cleaned)} characters")
    front, rest = _front_matter(cleaned)
    return Text(text=rest if rest.strip() else cleaned, encoding=encoding, front=front)


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The mapping that the text begins with, and what follows; empty, and the whole, where there is none."""
    if not text.startswith(_FENCE):
        return {}, text
    end = text.find("\n---", len(_FENCE) - 1, _FRONT_MATTER_CHARACTERS_MAX)
    if end < 0:
        return {}, text
    told = text[len(_FENCE) : end + 1]
    try:
        # Aliases could make a small text huge.
        has_alias = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(told, yaml.SafeLoader))
        found = None if has_alias else yaml.safe_load(told)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}, text
    if not isinstance(found, dict):
        return {}, text
    return {str(key).casefold(): value for key, value in found.items()}, text[end + 4 :].lstrip("-\n")


def read_body(path: Path) -> Body:
    """Raises BodyUnreadable."""
    read = read_text(path)
    remark = encoding_remark(path.name, read.encoding)
    return Body(text=read.text, warnings=(remark,) if remark is not None else ())


def identify(index: ScanIndex, path: str) -> None:
    """Adds the file as an item, or as a rejection."""
    local = index.local(path)
    assert local is not None
    try:
        read = read_text(local)
    except BodyUnreadable as error:
        index.reject(
            Rejection(item=path, reason=error.reason, message=str(error), file_sha256=index.sha256(path))
        )
        return
    dois = find_dois(read.text[:FRONT_CHARACTERS])
    date = _word(read.front, "date", "year")
    index.add_item(
        Item(
            name=path,
            item_type="document",
            title=_word(read.front, "title") or _first_line(read.text, path),
            creators=tuple(_creators(read.front)),
            year=find_year(date),
            date=date,
            doi=find_doi(_word(read.front, "doi")) or (dois[0] if len(dois) == 1 else None),
            uri=f"sha256:{index.sha256(path)}",
            language=_word(read.front, "lang", "language"),
            abstract=_word(read.front, "abstract"),
            tags=tuple(Tag(name=word) for word in _words(read.front, "tags", "keywords")),
            bodies=(path,),
        )
    )


def _first_line(text: str, path: str) -> str:
    lines = (line.strip().lstrip("#").strip() for line in text[:20_000].split("\n"))
    first = next((line for line in lines if line), "")
    is_title = 3 <= len(first) <= TITLE_CHARACTERS_MAX
    return one_line(first if is_title else PurePosixPath(path).stem, TITLE_CHARACTERS_MAX)


def _word(front: dict[str, Any], *names: str) -> str:
    values = (front.get(name) for name in names)
    return next(
        (str(value).strip() for value in values if isinstance(value, str | int | float) or _is_date(value)),
        "",
    )


def _is_date(value: Any) -> bool:
    return hasattr(value, "isoformat")


def _words(front: dict[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        value = front.get(name)
        for one in value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ():
            if isinstance(one, str | int | float) and str(one).strip():
                yield str(one).strip().lstrip("#")


def _creators(front: dict[str, Any]) -> Iterator[Creator]:
    """`author` or `authors`: a name, a list of names, or of mappings with one."""
    value = front.get("author", front.get("authors"))
    for one in value if isinstance(value, list) else [value]:
        name = one.get("name") if isinstance(one, dict) else one
        if isinstance(name, str) and name.strip():
            given, _, family = name.strip().rpartition(" ")
            yield from people([name if "," in name or not given else f"{family}, {given}"])
