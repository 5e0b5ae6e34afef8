"""What a request to import means: its files in the blob store, its kind, project, space and options.

Three ways in (files by hash, files in the body, paths on this machine) lead to one thing; a single zip is taken apart.
Whether the request is carried out is decided elsewhere.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from eventlog.events import SourceFile, SourceKind
from eventlog.spaces import parse_space
from ingest.blobs import Blob, Blobs, Received, sizes
from ingest.http.forms import Form, read_form, read_json
from ingest.http.parts import HttpParts
from ingest.http.problems import Problem
from ingest.requests import FILES_MAX
from ingest.uploads import (
    UploadRefused,
    checked_files,
    checked_project_name,
    default_project_name,
    expand_zip,
    is_ignored,
    is_zip,
    safe_name,
    shown,
    take_file,
    walk,
)

NAMED_MAX = 100
"""So many missing files a problem names."""

_Option = Annotated[str, StringConstraints(max_length=500)]
Options = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,50}$")], _Option], Field(max_length=20)
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileIn(_Body):
    path: Annotated[str, Field(min_length=1, max_length=2000, examples=["My Library/My Library.rdf"])]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int | None, Field(ge=0, lt=2**62)] = None


class SourceIn(_Body):
    kind: SourceKind = SourceKind.AUTO
    files: Annotated[list[FileIn], Field(min_length=1, max_length=FILES_MAX)]


class ImportIn(_Body):
    """Either `source`, with files that stand in the blob store, or `paths` on this machine."""

    source: SourceIn | None = None
    paths: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4000)]] | None, Field(min_length=1, max_length=100)
    ] = None
    kind: SourceKind = SourceKind.AUTO
    project: str | None = None
    space: str | None = None
    options: Options = {}

    @model_validator(mode="after")
    def _one_of_both(self) -> "ImportIn":
        if (self.source is None) == (self.paths is None):
            raise ValueError("give either source or paths")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    kind: SourceKind
    files: tuple[SourceFile, ...]
    project: str
    space: str | None
    options: dict[str, str]


async def read_asked(request: Request, parts: HttpParts) -> Asked:
    """Raises Problem or UploadRefused, each saying what to do."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        return await _from_form(request, parts)
    if content_type == "application/json":
        body = ImportIn.model_validate_json(await read_json(request))
        if body.paths is not None:
            files, name = await take_paths(body.paths, parts)
            return build_asked(files, name, body.kind, body.project, body.space, body.options)
        assert body.source is not None, "the body's own check lets one of both through"
        files, name = await _from_hashes(body.source.files, parts.blobs)
        kind = body.source.kind if body.source.kind is not SourceKind.AUTO else body.kind
        return build_asked(files, name, kind, body.project, body.space, body.options)
    raise Problem(
        415,
        "type_unsupported",
        "An import is asked for in JSON or with a form of files.",
        "Send application/json or multipart/form-data.",
    )


def build_asked(
    files: tuple[SourceFile, ...],
    default_name: str,
    kind: SourceKind,
    project: str | None,
    space: str | None,
    options: dict[str, str],
) -> Asked:
    if kind is SourceKind.UNKNOWN:
        raise Problem(
            422, "kind_unknown", "There is no such kind of source.", f"Use one of {', '.join(_KINDS)}."
        )
    return Asked(
        kind=kind,
        files=files,
        project=checked_project_name(project) if project and project.strip() else default_name,
        space=_checked_space(space) if space else None,
        options=options,
    )


_KINDS = [kind.value for kind in SourceKind if kind is not SourceKind.UNKNOWN]


def _checked_space(name: str) -> str:
    try:
        return str(parse_space(name))
    except ValueError as error:
        raise Problem(422, "space_unknown", str(error), "Name a model as provider/model[@dims].") from None


# --- files of a form ---------------------------------------------------------------------------------------------

_FIELDS = ("project", "kind", "space", "options")


async def _from_form(request: Request, parts: HttpParts) -> Asked:
    with Form() as form:
        await read_form(request, form, parts.blobs)
        unknown = sorted(set(form.fields) - set(_FIELDS))
        if unknown:
            raise Problem(
                422,
                "field_unknown",
                f"There is no field “{shown(unknown[0])}”.",
                f"The fields are {', '.join(_FIELDS)}, and files.",
            )
        options = TypeAdapter(Options).validate_json(form.fields.get("options") or "{}")
        kind = _kind(form.fields.get("kind") or SourceKind.AUTO)
        project, space = form.fields.get("project"), form.fields.get("space")
        files, name = await publish_form(form.files, parts.blobs)
        return build_asked(files, name, kind, project, space, options)


def _kind(text: str) -> SourceKind:
    return SourceKind(text) if text in _KINDS else SourceKind.UNKNOWN


async def publish_form(
    received: Sequence[tuple[str, Received, Blob]], blobs: Blobs
) -> tuple[tuple[SourceFile, ...], str]:
    if len(received) == 1 and is_zip(received[0][0]):
        files = await expand_zip(received[0][1].path, blobs)
        return files, default_project_name([received[0][0]])
    checked = checked_files(
        SourceFile(path=name, sha256=blob.sha256, size_bytes=blob.size_bytes) for name, _, blob in received
    )
    for _, one, blob in received:
        await one.publish(blob)
    return checked, default_project_name([file.path for file in checked])


# --- files that stand in the blob store --------------------------------------------------------------------------


async def _from_hashes(asked: Sequence[FileIn], blobs: Blobs) -> tuple[tuple[SourceFile, ...], str]:
    named = [(safe_name(one.path), one.sha256) for one in asked]
    named = [(path, sha256) for path, sha256 in named if not is_ignored(path)]
    found = await sizes(blobs, [sha256 for _, sha256 in named])
    # What the client says of a size is not believed: the store knows.
    files = [
        SourceFile(path=path, sha256=sha256, size_bytes=size_bytes)
        for (path, sha256), size_bytes in zip(named, found, strict=True)
        if size_bytes is not None
    ]
    missing = [path for (path, _), size_bytes in zip(named, found, strict=True) if size_bytes is None]
    if missing:
        raise files_missing(422, missing)
    if len(files) == 1 and is_zip(files[0].path):
        return await expand_zip(await blobs.local(files[0].sha256), blobs), default_project_name(
            [files[0].path]
        )
    checked = checked_files(files)
    return checked, default_project_name([file.path for file in checked])


def files_missing(status: int, missing: Sequence[str]) -> Problem:
    return Problem(
        status,
        "files_missing",
        f"The blob store does not have {len(missing)} of the files.",
        "Send each with PUT /api/blobs/{sha256}, then ask again.",
        files=[shown(path) for path in missing[:NAMED_MAX]],
        files_count=len(missing),
    )


# --- paths on this machine ---------------------------------------------------------------------------------------


async def take_paths(paths: Sequence[str], parts: HttpParts) -> tuple[tuple[SourceFile, ...], str]:
    roots = parts.settings.allowed_roots
    if not roots:
        raise Problem(
            403,
            "paths_not_allowed",
            "This service reads no paths of its own machine: no folder is allowed.",
            "Set PAPERLOG_ALLOWED_ROOTS, or send the files.",
        )
    found: list[tuple[str, Path]] = []
    for path in paths:
        found.extend(await asyncio.to_thread(lambda one: walk(_under_roots(one, roots)), path))
    names = [name for name, _ in found if not is_ignored(name)]
    files = [await _taken(name, path, parts.blobs) for name, path in found if not is_ignored(name)]
    if len(files) == 1 and is_zip(names[0]):
        zipped = await parts.blobs.local(files[0].sha256)
        return await expand_zip(zipped, parts.blobs), default_project_name(names)
    checked = checked_files(files)
    return checked, default_project_name([file.path for file in checked])


def _under_roots(raw: str, roots: Sequence[Path]) -> Path:
    outside = Problem(
        403,
        "path_outside_roots",
        "The path is not under a folder that this service may read.",
        "Name an absolute path under one of PAPERLOG_ALLOWED_ROOTS.",
    )
    try:
        asked = Path(raw)
        if not asked.is_absolute():
            raise outside
        path = asked.resolve()
    except (ValueError, OSError, RuntimeError):  # NUL, or links in a circle
        raise outside from None
    # Before looking whether it exists: what lies outside is not even confirmed.
    if not any(path == root or root in path.parents for root in roots):
        raise outside
    if not path.exists():
        raise Problem(422, "path_missing", "There is no such file or folder.", "Check the path.")
    return path


async def _taken(name: str, path: Path, blobs: Blobs) -> SourceFile:
    try:
        return await take_file(name, path, blobs)
    except OSError:
        raise UploadRefused(
            "file_unreadable", f"“{shown(name)}” cannot be read.", "Check that the service may read it."
        ) from None
