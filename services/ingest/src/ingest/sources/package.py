"""A zip that is a document: DOCX or EPUB. It is believed in nothing but the bytes that come out of it.

Nothing is unpacked to disk, so names lead nowhere; what is read is counted as it comes.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

    def read(self, name: str) -> bytes:
        """Raises BodyUnreadable where it is not there, encrypted or damaged, or where all together is too much."""
        entry = self._entries.get(name)
        if entry is None:
            raise damaged(f"it has no {name[:100]}")
        if entry.flag_bits & _ENCRYPTED:
            raise encrypted()
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others may ask for gigabytes of memory before the first byte comes out.
            raise damaged("it is packed in an uncommon way")
        pieces = []
        with self._archive.open(entry) as stream:
            while data := stream.read(_READ_BYTES):
                pieces.append(data)
                self._read_bytes += len(data)
                if self._read_bytes > limits.PACKAGE_TEXT_BYTES_MAX:
                    message = f"it unpacks to more than {limits.PACKAGE_TEXT_BYTES_MAX // 1024**2} MB of text; divide it"
                    raise BodyUnreadable(DocumentRejectionReason.TEXT_TOO_LONG, message)
        return b"".join(pieces)

    def xml(self, name: str) -> etree._Element:
        """Without entities, DTDs or anything from elsewhere. Raises BodyUnreadable."""
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            return etree.fromstring(self.read(name), parser)
        except etree.XMLSyntaxError:
            raise damaged(f"{name[:100]} is no XML") from None


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
