"""What ingest is told at start. Which space is embedded where may change while it runs; all else is read once."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AnyHttpUrl, Field, TypeAdapter, field_validator

from eventlog.settings import ServiceSettings
from eventlog.spaces import DEFAULT_SPACE, parse_space


def _space_id(name: str) -> str:
    return str(parse_space(name))


def parse_embedders(text: str) -> dict[str, str]:
    """Space to URL, from a JSON object. Raises ValueError that says which entry is wrong."""
    found: Any = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("embedders are a JSON object of space and URL")  # noqa: TRY004 - pydantic collects ValueError
    urls = TypeAdapter(AnyHttpUrl)
    out: dict[str, str] = {}
    for space, url in found.items():
        try:
            out[_space_id(space)] = str(urls.validate_python(url)).rstrip("/")
        except ValueError:
            raise ValueError(f"the entry for {space[:120]!r} is not a space with an http URL") from None
    return out


class Embedders:
    """Which embedder answers for a space; a file is read at each use, so that a new one is found without a restart."""

    def __init__(self, value: str) -> None:
        self._value = value

    def urls(self) -> dict[str, str]:
        """Raises ValueError or OSError when the file is away or wrong."""
        if self._value.lstrip().startswith("{"):
            return parse_embedders(self._value)
        return parse_embedders(Path(self._value).read_text(encoding="utf-8"))

    def url_of(self, space: str) -> str | None:
        """Null when nothing is known for that space; a wrong file is as good as none while we run."""
        try:
            return self.urls().get(space)
        except (ValueError, OSError):
            return None


class IngestSettings(ServiceSettings):
    blobs: str = Field(
        min_length=1, validation_alias="PAPERLOG_BLOBS", description="where files are kept: a folder or a URL"
    )
    embedders_json: str = Field(
        "{}",
        validation_alias="PAPERLOG_EMBEDDERS",
        description="embedders by space: a JSON object, or a file with one, read at each use",
    )
    graph_writer_url: AnyHttpUrl = Field(
        validation_alias="PAPERLOG_GRAPH_WRITER_URL", description="who answers search, graph and verify"
    )
    default_space: Annotated[str, AfterValidator(_space_id)] = Field(
        str(DEFAULT_SPACE),
        validation_alias="PAPERLOG_DEFAULT_SPACE",
        description="the embedding space of a new project",
    )
    allowed_roots_raw: str = Field(
        "",
        validation_alias="PAPERLOG_ALLOWED_ROOTS",
        description="folders that imports by server path may read, separated as in PATH; none means no such imports",
    )
    http_names_raw: str = Field(
        "",
        validation_alias="PAPERLOG_HTTP_NAMES",
        pattern=r"^[^\s/,]*(,[^\s/,]+)*$",
        description="host names that requests may come for, comma separated; none means loopback's where it listens"
        " there, any elsewhere",
    )

    @field_validator("embedders_json")
    @classmethod
    def _embedders_are_readable(cls, value: str) -> str:
        # A file may come later than we do; a wrong inline object never gets right.
        if value.lstrip().startswith("{"):
            parse_embedders(value)
        return value

    @field_validator("allowed_roots_raw")
    @classmethod
    def _roots_are_folders(cls, value: str) -> str:
        for part in filter(None, value.split(os.pathsep)):
            if not Path(part).is_absolute() or not Path(part).is_dir():
                raise ValueError(f"{part[:200]!r} is not an absolute path of a folder")
        return value

    @cached_property
    def embedders(self) -> Embedders:
        return Embedders(self.embedders_json)

    @cached_property
    def http_names(self) -> tuple[str, ...]:
        return tuple(name.lower() for name in self.http_names_raw.split(",") if name)

    @cached_property
    def allowed_roots(self) -> tuple[Path, ...]:
        return tuple(Path(part).resolve() for part in self.allowed_roots_raw.split(os.pathsep) if part)
