"""What a request to import may hold, whoever sends it, and what makes two of them one."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from eventlog.events import RequestImport, Source, SourceFile, SourceKind
from eventlog.ids import project_id
from eventlog.spaces import parse_space

PROJECT_NAME_MAX = 100
FILES_MAX = 9_999


def request_sha256(command: RequestImport) -> str:
    """What makes two requests one: kind, files by path and content, project, space, options; not who or when."""
    source = command.source
    body = {
        "kind": source.kind,
        "files": sorted((file.path, file.sha256) for file in source.files),
        "manifest": source.manifest_sha256,
        "project": str(project_id(command.project_name)),
        "space": command.space,
        "options": command.options,
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def is_project_name(name: str) -> bool:
    """1 to 100 characters and no control characters."""
    is_printable = not any(unicodedata.category(c) in ("Cc", "Cs") for c in name)
    return bool(name.strip()) and len(name) <= PROJECT_NAME_MAX and is_printable


def request_problem(command: RequestImport) -> str:
    """What is wrong with a request as such, in a sentence; empty when nothing is."""
    if not is_project_name(command.project_name):
        return f"a project's name has 1 to {PROJECT_NAME_MAX} characters and no control characters"
    return source_problem(command.source)


def source_problem(source: Source) -> str:
    if source.kind is SourceKind.UNKNOWN:
        return "the source is of a kind that is not known here"
    if not source.files and source.manifest_sha256 is None:
        return "the source names no files"
    if source.manifest_sha256 is not None and not _is_sha256(source.manifest_sha256):
        return "the manifest's sha256 is not 64 hexadecimal digits"
    return files_problem(source.files)


def files_problem(files: Sequence[SourceFile]) -> str:
    if len(files) > FILES_MAX:
        return f"the source names more than {FILES_MAX} files"
    for file in files:
        if not _is_sha256(file.sha256):
            return "a file's sha256 is not 64 hexadecimal digits"
        parts = file.path.split("/")
        if not file.path or ".." in parts or file.path.startswith("/") or not file.path.isprintable():
            return f"{file.path[:80]!r} is not a relative path inside the library"
    return ""


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def is_space(name: str) -> bool:
    try:
        return str(parse_space(name)) == name
    except ValueError:
        return False
