"""A zip that is a document: DOCX or EPUB. It is believed in nothing but the bytes that come out of it.

Nothing is unpacked to disk, so names lead nowhere; what is read is counted as it comes.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lxml import etree

from eventlog.events import DocumentRejectionReason
from ingest import limits
from ingest.sources.item import BodyUnreadable

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    ValueError,
    NotImplementedError,
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_ENCRYPTED = 0x1
_READ_BYTES = 256 * 1024


class Package:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        self._read_bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str, size_max: int = limits.PACKAGE_CHAPTER_BYTES_MAX) -> bytes:
        """Raises BodyUnreadable where it is not there, encrypted or damaged, or too much by itself or with the others."""
        pieces: list[bytes] = []
        size = 0
        with self.stream(name) as stream:
            while data := stream.read(_READ_BYTES):
                size += len(data)
                if size > size_max:
                    raise _too_long(size_max)
                pieces.append(data)
        return b"".join(pieces)

    @contextmanager
    def stream(self, name: str) -> Iterator["_Counted"]:
        """The same, a piece at a time."""
        entry = self._entries.get(name)
        if entry is None:
            raise damaged(f"it has no {name[:100]}")
        if entry.flag_bits & _ENCRYPTED:
            raise encrypted()
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others may ask for gigabytes of memory before the first byte comes out.
            raise damaged("it is packed in an uncommon way")
        with self._archive.open(entry) as file:
            yield _Counted(self, file)

    def count(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes > limits.PACKAGE_TEXT_BYTES_MAX:
            raise _too_long(limits.PACKAGE_TEXT_BYTES_MAX)

    def xml(self, name: str) -> etree._Element:
        """Without entities, DTDs or anything from elsewhere. Raises BodyUnreadable."""
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            return etree.fromstring(self.read(name, limits.PACKAGE_TREE_BYTES_MAX), parser)
        except etree.XMLSyntaxError:
            raise damaged(f"{name[:100]} is no XML") from None


class _Counted:
    """A part as it unpacks."""

    def __init__(self, package: Package, file: IO[bytes]) -> None:
        self._package = package
        self._file = file

    def read(self, size: int = _READ_BYTES) -> bytes:
        data = self._file.read(size if size > 0 else _READ_BYTES)
        self._package.count(len(data))
        return data


def _too_long(size_max: int) -> BodyUnreadable:
    message = f"a part of it unpacks to more than {size_max // 1024**2} MB; divide it"
    return BodyUnreadable(DocumentRejectionReason.TEXT_TOO_LONG, message)


def damaged(what: str) -> BodyUnreadable:
    return BodyUnreadable(DocumentRejectionReason.FILE_DAMAGED, f"{what}; download or save it again")


def encrypted() -> BodyUnreadable:
    message = "it is encrypted; save a copy without a password or copy protection"
    return BodyUnreadable(DocumentRejectionReason.FILE_ENCRYPTED, message)


@contextmanager
def opened(path: Path) -> Iterator[Package]:
    """Raises BodyUnreadable for what is no zip, encrypted, damaged, empty or too large, inside the block too."""
    size = path.stat().st_size
    if size == 0:
        raise BodyUnreadable(DocumentRejectionReason.FILE_EMPTY, "the file is empty")
    if size > limits.PACKAGE_BYTES_MAX:
        message = (
            f"{size // 1_000_000} MB are more than the {limits.PACKAGE_BYTES_MAX // 1_000_000} MB it may have"
        )
        raise BodyUnreadable(DocumentRejectionReason.FILE_TOO_LARGE, message)
    _refuse_ole(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > limits.PACKAGE_ENTRIES_MAX:
                raise damaged(f"it has {len(archive.infolist())} parts")
            yield Package(archive)
    except _DAMAGED:
        raise damaged("it is damaged") from None


def _refuse_ole(path: Path) -> None:
    """Word keeps an encrypted DOCX in the container of its old format."""
    with path.open("rb") as file:
        head = file.read(_READ_BYTES)
    if not head.startswith(_OLE):
        return
    if _ENCRYPTED_PACKAGE in head or _ENCRYPTED_PACKAGE in _tail(path):
        raise encrypted()
    message = "it is Word's old format under another name; save it as .docx or PDF"
    raise BodyUnreadable(DocumentRejectionReason.FILE_UNSUPPORTED, message)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _READ_BYTES))
        return file.read()
