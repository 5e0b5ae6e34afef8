"""What may come in: names and numbers of files, and zips taken apart entry by entry.

Names are relative posix paths that stay inside their library; they name nothing on this machine, since content goes to
the blob store under its hash. A zip is believed in nothing but the bytes that come out of it: its sizes, names and flags
are checked, and the counting happens while it streams. What the files mean is the parser's business.
"""

import asyncio
import errno
import json
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from eventlog.events import Source, SourceFile, SourceKind
from ingest.blobs import CHUNK_BYTES, Blob, Blobs, BlobTooLarge, Received
from ingest.requests import FILES_MAX, PROJECT_NAME_MAX, is_project_name

FILE_BYTES_MAX = 2 * 1024**3
REQUEST_BYTES_MAX = 4 * 1024**3
"""All files of one request together, and all entries of one zip."""
NAME_BYTES_MAX = 500
NAME_DEPTH_MAX = 20
INLINE_FILES_MAX = 200
"""Up to so many files stand in the event itself; more become a manifest in the blob store."""

ZIP_ENTRIES_MAX = 10_000
ZIP_RATIO_MAX = 200
ZIP_RATIO_FREE_BYTES = 10 * 1024**2
"""Below this, a high ratio harms nobody: tables of zeros compress well."""
ZIP_DIRECTORY_BYTES_MAX = 4 * 1024**2
"""zipfile reads the list of entries as a whole, and a hostile one may claim any size."""

_EXPORTS = (".rdf", ".json", ".bib", ".ris", ".nbib", ".ciw", ".csv")
_IGNORED = (".DS_Store", "Thumbs.db", "desktop.ini")
_IGNORED_FOLDERS = ("__MACOSX",)
_DRIVE = re.compile(r"[A-Za-z]:")
_ENCRYPTED = 0x1
_UTF8_NAMES = 0x800
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    ValueError,
    NotImplementedError,
)
"""What zipfile raises for bytes that are no zip; UnicodeDecodeError is a ValueError."""


class UploadRefused(Exception):  # noqa: N818 - the name says what happened
    """Nothing of it is taken. `subject` names the file, shortened and printable; `action` says what to do."""

    def __init__(self, code: str, detail: str, action: str, *, is_too_large: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.action = action
        self.is_too_large = is_too_large


def shown(name: str) -> str:
    """A name that is safe to show: escapes for what does not print, and an end."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[:120])
    return f"{text}…" if len(name) > 120 else text


def safe_name(raw: str) -> str:
    """The relative posix path that a client's name means. Raises UploadRefused."""
    name = raw.replace("\\", "/")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise _refused_name(raw, "holds control characters", "Rename the file.")
    if name.startswith("/") or _DRIVE.match(name):
        raise _refused_name(raw, "is an absolute path", "Send paths relative to the library's folder.")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts:
        raise _refused_name(raw, "is empty", "Give every file a name.")
    if ".." in parts:
        raise _refused_name(raw, "climbs out of its folder", "Send paths without “..”.")
    if len(parts) > NAME_DEPTH_MAX:
        raise _refused_name(raw, f"is more than {NAME_DEPTH_MAX} folders deep", "Move it further up.")
    name = "/".join(parts)
    if len(name.encode()) > NAME_BYTES_MAX:
        raise _refused_name(
            raw, f"is longer than {NAME_BYTES_MAX} bytes", "Shorten its name or its folders'."
        )
    return name


def _refused_name(raw: str, what: str, action: str) -> UploadRefused:
    return UploadRefused("name_invalid", f"The name “{shown(raw)}” {what}.", action)


def is_ignored(name: str) -> bool:
    """What operating systems leave behind; never part of a library."""
    parts = PurePosixPath(name).parts
    return parts[-1] in _IGNORED or parts[-1].startswith("._") or any(p in _IGNORED_FOLDERS for p in parts)


def too_many_files() -> UploadRefused:
    return UploadRefused(
        "files_too_many",
        f"More than {FILES_MAX} files came in one request.",
        "Split the library into several imports of the same project.",
        is_too_large=True,
    )


def file_too_large(name: str) -> UploadRefused:
    return UploadRefused(
        "file_too_large",
        f"“{shown(name)}” is larger than {FILE_BYTES_MAX // 1024**3} GiB.",
        "Leave it out, or split it.",
        is_too_large=True,
    )


def request_too_large(bytes_max: int = REQUEST_BYTES_MAX) -> UploadRefused:
    return UploadRefused(
        "request_too_large",
        f"The files are larger than {bytes_max // 1024**2:,} MiB together.",
        "Split the library into several imports of the same project.",
        is_too_large=True,
    )


def checked_files(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """In the order of their paths, each once. Raises UploadRefused for two contents under one path, or too much."""
    by_path: dict[str, SourceFile] = {}
    for file in files:
        if is_ignored(file.path):
            continue
        other = by_path.setdefault(file.path, file)
        if other.sha256 != file.sha256:
            raise UploadRefused(
                "name_twice",
                f"Two different files are called “{shown(file.path)}”.",
                "Rename one of them, or send them with their folders.",
            )
        if len(by_path) > FILES_MAX:
            raise too_many_files()
    if not by_path:
        raise UploadRefused("source_empty", "There is no file in it.", "Send at least one file.")
    if sum(file.size_bytes for file in by_path.values()) > REQUEST_BYTES_MAX:
        raise request_too_large()
    return tuple(by_path[path] for path in sorted(by_path))


# --- sources -----------------------------------------------------------------------------------------------------


async def build_source(kind: SourceKind, files: Sequence[SourceFile], blobs: Blobs) -> Source:
    """The source of a request. Many files become a manifest, the same bytes for the same files."""
    size_bytes = sum(file.size_bytes for file in files)
    if len(files) <= INLINE_FILES_MAX:
        return Source(kind=kind, files=tuple(files), file_count=len(files), size_bytes=size_bytes)
    rows = [{"path": file.path, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in files]
    data = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    with blobs.receive(len(data)) as received:
        await asyncio.to_thread(received.write, data)
        blob = await asyncio.to_thread(received.close)
        await received.publish(blob)
    return Source(
        kind=kind, files=(), manifest_sha256=blob.sha256, file_count=len(files), size_bytes=size_bytes
    )


def default_project_name(paths: Sequence[str]) -> str:
    """From the one file, or the folder that all share, or the first file; never from the date."""
    assert paths, "checked_files lets no empty request through"
    if len(paths) == 1:
        return _project_name(PurePosixPath(paths[0]).stem)
    tops = {PurePosixPath(path).parts[0] for path in paths}
    if len(tops) == 1:
        return _project_name(tops.pop())
    loose = sorted(path for path in paths if "/" not in path)
    # An export beside its folder of attachments is called like the export.
    exports = [path for path in loose if PurePosixPath(path).suffix.casefold() in _EXPORTS]
    if len(exports) == 1:
        return _project_name(PurePosixPath(exports[0]).stem)
    first = PurePosixPath(min(paths))
    return _project_name(
        f"{first.stem if len(first.parts) == 1 else first.parts[0]} and {len(paths) - 1} more"
    )


def _project_name(text: str) -> str:
    return " ".join(text.split())[:PROJECT_NAME_MAX].strip() or "Library"


def checked_project_name(raw: str) -> str:
    """The name as given, without white space around it. Raises UploadRefused."""
    name = raw.strip()
    if not is_project_name(name):
        raise UploadRefused(
            "project_invalid",
            f"A project's name has 1 to {PROJECT_NAME_MAX} characters and no control characters.",
            "Choose another name.",
        )
    return name


# --- the server's own disk ---------------------------------------------------------------------------------------


def walk(path: Path) -> list[tuple[str, Path]]:
    """Regular files under a resolved path with their names; links and devices are never followed.

    Raises UploadRefused for a name or a number that is not allowed.
    """
    if path.is_file():
        return [(safe_name(path.name), path)]
    found: list[tuple[str, Path]] = []
    for folder, folders, names in os.walk(path, followlinks=False):
        folders[:] = sorted(one for one in folders if not Path(folder, one).is_symlink())
        for name in sorted(names):
            file = Path(folder, name)
            if not stat.S_ISREG(file.lstat().st_mode):
                continue
            found.append((safe_name(f"{path.name}/{file.relative_to(path).as_posix()}"), file))
            if len(found) > FILES_MAX:
                raise too_many_files()
    return found


async def take_file(name: str, path: Path, blobs: Blobs) -> SourceFile:
    """Copies a file of this machine into the blob store. Raises UploadRefused, or OSError when it cannot be read."""
    with blobs.receive(FILE_BYTES_MAX) as received:
        blob = await asyncio.to_thread(_copy, path, received, name)
        await received.publish(blob)
    return SourceFile(path=name, sha256=blob.sha256, size_bytes=blob.size_bytes)


def _copy(path: Path, received: Received, name: str) -> Blob:
    # Between the look and the open somebody may have put a link there.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        try:
            while data := file.read(CHUNK_BYTES):
                received.write(data)
        except BlobTooLarge:
            raise file_too_large(name) from None
    return received.close()


# --- zips --------------------------------------------------------------------------------------------------------


def is_zip(name: str) -> bool:
    return PurePosixPath(name).suffix.casefold() == ".zip"


async def expand_zip(path: Path, blobs: Blobs) -> tuple[SourceFile, ...]:
    """Every file of a zip, published in the blob store once all are known to be good. Raises UploadRefused."""
    received: list[tuple[str, Received, Blob]] = []
    try:
        await asyncio.to_thread(_expand, path, blobs, received)
        files = [
            SourceFile(path=name, sha256=blob.sha256, size_bytes=blob.size_bytes)
            for name, _, blob in received
        ]
        checked = checked_files(files)
        for _, one, blob in received:
            await one.publish(blob)
    finally:
        for _, one, _ in received:
            one.drop()
    return checked


class _BoundedReads:
    """A file that refuses to be read in one large piece, which only a lying directory asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(
            ZIP_DIRECTORY_BYTES_MAX + 1 if size < 0 else min(size, ZIP_DIRECTORY_BYTES_MAX + 1)
        )
        if len(data) > ZIP_DIRECTORY_BYTES_MAX:
            raise _refused_zip(
                "zip_too_many_entries",
                f"The zip's list of entries is larger than {ZIP_DIRECTORY_BYTES_MAX // 1024**2} MiB.",
                "Split it into several zips.",
            )
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()


def _refused_zip(code: str, detail: str, action: str) -> UploadRefused:
    return UploadRefused(code, detail, action)


def _damaged() -> UploadRefused:
    return _refused_zip("zip_damaged", "The zip is damaged or is no zip.", "Make it again and send it whole.")


def _expand(path: Path, blobs: Blobs, received: list[tuple[str, Received, Blob]]) -> None:
    try:
        with path.open("rb") as file, zipfile.ZipFile(_BoundedReads(file)) as archive:
            entries = archive.infolist()
            if len(entries) > ZIP_ENTRIES_MAX:
                raise _refused_zip(
                    "zip_too_many_entries",
                    f"The zip has {len(entries)} entries; {ZIP_ENTRIES_MAX} are allowed.",
                    "Split it into several zips.",
                )
            total_bytes = 0
            for entry in entries:
                name = _entry_name(entry)
                if entry.is_dir() or is_ignored(name):
                    continue
                _check_entry(entry, name)
                one = blobs.receive(FILE_BYTES_MAX)
                received.append((name, one, Blob(sha256="", size_bytes=0)))
                total_bytes = _extract(archive, entry, name, one, total_bytes, path.stat().st_size)
                received[-1] = (name, one, one.close())
    except _DAMAGED:
        raise _damaged() from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a seek to a place that a lying header names
            raise
        raise _damaged() from None


def _entry_name(entry: zipfile.ZipInfo) -> str:
    raw = entry.orig_filename
    if not entry.flag_bits & _UTF8_NAMES:
        # Many programs write UTF-8 without saying so; zipfile has read it as the zip's old code page.
        try:
            raw = raw.encode("cp437").decode("utf-8")
        except UnicodeError:
            raw = entry.orig_filename
    return safe_name(raw)


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refused_zip(
            "zip_entry_special",
            f"“{shown(name)}” is a link or a device, not a file.",
            "Make the zip with the files themselves.",
        )
    if entry.flag_bits & _ENCRYPTED:
        raise _refused_zip(
            "zip_encrypted", f"“{shown(name)}” is encrypted.", "Make the zip again without a password."
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others may ask for gigabytes of memory before the first byte comes out.
        raise _refused_zip(
            "zip_method_unsupported",
            f"“{shown(name)}” is packed in an uncommon way.",
            "Make the zip with the usual method (deflate).",
        )


def _extract(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, one: Received, before: int, packed_bytes: int
) -> int:
    """The bytes of all entries so far. Believes no header: what comes out is counted as it comes."""
    out = 0
    with archive.open(entry) as stream:
        while data := stream.read(CHUNK_BYTES):
            out += len(data)
            if out > ZIP_RATIO_FREE_BYTES and out > ZIP_RATIO_MAX * entry.compress_size:
                raise _bomb(name)
            if before + out > ZIP_RATIO_FREE_BYTES and before + out > ZIP_RATIO_MAX * packed_bytes:
                raise _bomb(name)
            if before + out > REQUEST_BYTES_MAX:
                raise request_too_large()
            try:
                one.write(data)
            except BlobTooLarge:
                raise file_too_large(name) from None
    return before + out


def _bomb(name: str) -> UploadRefused:
    return _refused_zip(
        "zip_ratio",
        f"“{shown(name)}” unpacks to more than {ZIP_RATIO_MAX} times its size.",
        "If it is a real file, send it without the zip.",
    )
