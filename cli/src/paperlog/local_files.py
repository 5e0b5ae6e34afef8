"""What of this machine's disk goes into an import: which files, under which names, and what is left out and why.

Follows no symbolic link, takes no hidden file, and says both. Reads nothing but folders and, where asked, the bytes of
one file at a time; what a file is, the service decides.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from paperlog.failures import WRONG_USAGE, Failure

FILES_MAX = 9_999
"""So many files the service takes in one import; that is said before the first is sent."""
_READ_BYTES = 1 << 18
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    path: Path
    name: str
    """Relative and posix; what the service knows the file by."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    path: Path
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    files: tuple[LocalFile, ...]
    left_out: tuple[LeftOut, ...]
    project: str
    """The name of the file, the folder, or the folder that all of them share."""


def select(paths: Sequence[Path]) -> Selection:
    """Raises Failure for a path that is not there, and for a selection without any file or with too many."""
    for path in paths:
        if not os.path.lexists(path):
            raise Failure(f"There is no {path}", todo="Look at the spelling of the path.", code=WRONG_USAGE)
    base = _base(paths)
    files: dict[str, LocalFile] = {}
    left_out: list[LeftOut] = []
    for path in paths:
        for each in _found(path, is_named=True):
            if isinstance(each, LeftOut):
                left_out.append(each)
                continue
            name = PurePath(os.path.relpath(_absolute(each), base)).as_posix()
            if why := _why_not_a_name(name):
                left_out.append(LeftOut(path=each, why=f"{why}; rename it"))
                continue
            files[name] = LocalFile(path=each, name=name, size_bytes=each.stat().st_size)
    if not files:
        raise Failure(
            "There is nothing to import in " + ", ".join(str(path) for path in paths),
            why="\n".join(f"{each.path}: {each.why}" for each in left_out[:20]),
            todo="Name an export (.rdf, .bib, .ris, .csv, .json), PDFs, DOCX, EPUB or texts, or a folder or zip of them.",
        )
    if len(files) > FILES_MAX:
        raise Failure(
            f"{len(files):,} files are too many for one import; it takes {FILES_MAX:,}",
            todo="Import the folders in it one by one, into the same project (--project NAME).",
        )
    return Selection(
        files=tuple(files[name] for name in sorted(files)),
        left_out=tuple(left_out),
        project=_project(paths, base),
    )


def sha256_of(file: LocalFile) -> str:
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(file.path, error) from error


def pieces_of(file: LocalFile) -> Iterator[bytes]:
    """The file's bytes, piece by piece: memory does not depend on its size."""
    try:
        with file.path.open("rb") as stream:
            while piece := stream.read(_READ_BYTES):
                yield piece
    except OSError as error:
        raise unreadable(file.path, error) from error


def unreadable(path: Path, error: OSError) -> Failure:
    return Failure(
        f"{path} cannot be read",
        why=error.strerror or str(error),
        todo="Make it readable, or move it out of the folder.",
    )


def _absolute(path: Path) -> Path:
    # Not resolve(): a link in the way to the folder is the user's business, and names stay as they were typed.
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() keeps the dots


def _base(paths: Sequence[Path]) -> Path:
    """Names are relative to this: the one folder itself, otherwise what holds all of the paths."""
    if len(paths) == 1 and paths[0].is_dir():
        return _absolute(paths[0])
    return Path(os.path.commonpath([_absolute(path).parent for path in paths]))


def _project(paths: Sequence[Path], base: Path) -> str:
    if len(paths) == 1 and not paths[0].is_dir():
        return _absolute(paths[0]).stem
    return base.name or _absolute(paths[0]).stem or "library"


def _found(path: Path, *, is_named: bool) -> Iterator[Path | LeftOut]:
    """Depth first in the order of names, with one open folder per level."""
    if path.is_symlink():
        yield LeftOut(path=path, why="a symbolic link is not followed; name its target instead")
    elif not is_named and path.name.startswith("."):
        yield LeftOut(path=path, why="hidden")
    elif path.is_dir():
        try:
            inside = sorted(os.listdir(path))  # noqa: PTH208 - names alone, sorted without making a Path of each twice
        except OSError as error:
            raise unreadable(path, error) from error
        for name in inside:
            yield from _found(path / name, is_named=False)
    elif path.is_file():
        yield path
    else:
        yield LeftOut(path=path, why="neither a file nor a folder")


def _why_not_a_name(name: str) -> str:
    """Empty where the service can know a file by this name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return "its name holds control characters" if _CONTROLS.search(name) else ""
