"""Brings files into the blob store: hash each, ask, send what is not there. Knows hashes and bytes, not imports."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from eventlog.ids import project_id
from paperlog.failures import Failure, Refused
from paperlog.local_files import LocalFile, Selection, pieces_of, sha256_of
from paperlog.service import Json, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    file: LocalFile
    sha256: str

    def to_json(self) -> Json:
        return {"path": self.file.name, "sha256": self.sha256, "size_bytes": self.file.size_bytes}


def upload(
    service: Service, selection: Selection, on_file: Callable[[LocalFile, bool], None]
) -> list[Uploaded]:
    """Every file is in the blob store afterwards. `on_file` hears of each, and whether it was sent."""
    uploaded, there = [], set()
    for file in selection.files:
        sha256 = sha256_of(file)
        path = f"/api/blobs/{sha256}"
        is_sent = sha256 not in there and not service.has(path)
        if is_sent:
            _send(service, path, file)
        there.add(sha256)
        uploaded.append(Uploaded(file=file, sha256=sha256))
        on_file(file, is_sent)
    return uploaded


def _send(service: Service, path: str, file: LocalFile) -> None:
    try:
        service.put(path, lambda: pieces_of(file), file.size_bytes)
    except Refused as refused:
        if refused.problem_code == "hash_mismatch":
            raise Failure(
                f"{file.path} has changed while it was sent",
                todo="Give the command again when nothing writes to it.",
            ) from refused
        refused.what = f"{file.name}: {refused.what}"
        raise


def source_of(kind: str, uploaded: list[Uploaded]) -> Json:
    return {"kind": kind, "files": [each.to_json() for each in uploaded]}


def default_key(kind: str, project: str, uploaded: list[Uploaded]) -> str:
    """The same files under the same names into the same project are the same import, whoever sends them and when."""
    lines = sorted(f"{each.file.name}\x1f{each.sha256}" for each in uploaded)
    digest = hashlib.sha256("\x1e".join([kind, str(project_id(project)), *lines]).encode()).hexdigest()
    return f"files-{digest}"
