"""Bodies as streams: a raw one or the files of a form go into the blob store piece by piece, hashed on the way.

Memory holds one piece, whatever is sent, and nothing is published before the whole request has come: one that breaks
off leaves nothing. What the fields mean is not known here.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ingest.blobs import CHUNK_BYTES, Blob, Blobs, BlobTooLarge, Received
from ingest.http.metrics import UPLOADED_BYTES
from ingest.http.problems import UNREAD, Problem
from ingest.requests import FILES_MAX
from ingest.uploads import (
    FILE_BYTES_MAX,
    REQUEST_BYTES_MAX,
    UploadRefused,
    file_too_large,
    is_ignored,
    request_too_large,
    safe_name,
    too_many_files,
)

JSON_BYTES_MAX = 4 * 1024**2
FIELD_BYTES_MAX = 64 * 1024
FIELDS_MAX = 20
FORM_OVERHEAD_BYTES_MAX = 32 * 1024**2
"""Boundaries and headers of a form's parts; what goes beyond the files themselves."""


async def pieces(request: Request, bytes_max: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Problem 413 when it is, or says that it is, larger than allowed."""
    problem = Problem(
        413,
        "request_too_large",
        f"The request is larger than {bytes_max // 1024**2} MiB.",
        "Send less at once; a library can be split into several imports of one project.",
    )
    request.scope[UNREAD] = True
    claimed = request.headers.get("content-length", "")
    if claimed.isascii() and claimed.isdigit() and int(claimed) > bytes_max:
        raise problem
    seen = 0
    async for piece in request.stream():
        seen += len(piece)
        if seen > bytes_max:
            raise problem
        yield piece


async def read_json(request: Request) -> bytes:
    """A small body as a whole."""
    body = bytearray()
    async for piece in pieces(request, JSON_BYTES_MAX):
        body += piece
    return bytes(body)


class _Filling:
    """Gathers small pieces for one file, so that a thread is asked for a megabyte at a time."""

    def __init__(self, name: str, received: Received) -> None:
        self.name = name
        self.received = received
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        try:
            await asyncio.to_thread(self.received.write, data)
        except BlobTooLarge:
            raise file_too_large(self.name) from None
        UPLOADED_BYTES.inc(len(data))

    async def done(self) -> Blob:
        await self._flush()
        return await asyncio.to_thread(self.received.close)


async def receive_raw(request: Request, received: Received) -> Blob:
    """The whole body as one file. Raises UploadRefused, Problem."""
    filling = _Filling("the file", received)
    async for piece in pieces(request, REQUEST_BYTES_MAX):
        await filling.write(piece)
    return await filling.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRules:
    """What the parts with files are called, and how large all of them may be together."""

    files_field: str = "files"
    files_bytes_max: int = field(default_factory=lambda: REQUEST_BYTES_MAX)


@dataclass(slots=True)
class Form:
    """What came. Leaving the context drops every file that was not published."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, Received, Blob]] = field(default_factory=list)
    open: list[Received] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for received in self.open:
            received.drop()


def _malformed(detail: str) -> UploadRefused:
    return UploadRefused("form_invalid", detail, "Send multipart/form-data with its boundary, whole.")


class _Parts:
    """Turns the parser's callbacks into a list of what happened, to be carried out where one can await."""

    def __init__(self, boundary: bytes) -> None:
        self.happened: list[tuple[str, bytes]] = []
        self.is_whole = False
        self._name = bytearray()
        self._value = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header_end,
                "on_part_begin": lambda: self.happened.append(("begin", b"")),
                "on_part_data": lambda data, start, end: self.happened.append(("data", data[start:end])),
                "on_part_end": lambda: self.happened.append(("end", b"")),
                "on_headers_finished": lambda: self.happened.append(("headers", b"")),
                "on_end": self._on_end,
            },
        )

    def feed(self, piece: bytes) -> list[tuple[str, bytes]]:
        try:
            self._parser.write(piece)
        except FormParserError:
            raise _malformed("The form is damaged.") from None
        happened, self.happened = self.happened, []
        return happened

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self.happened.append(("disposition", bytes(self._value)))
        self._name, self._value = bytearray(), bytearray()

    def _on_end(self) -> None:
        self.is_whole = True


class _Reading:
    """One form being read: which part is open, and how much came."""

    def __init__(self, form: Form, blobs: Blobs, rules: FormRules) -> None:
        self._form = form
        self._blobs = blobs
        self._rules = rules
        self._disposition = b""
        self._file: _Filling | None = None
        self._field = ""
        self._value = bytearray()
        self._file_bytes = 0

    async def take(self, what: str, data: bytes) -> None:
        match what:
            case "begin":
                self._disposition = b""
            case "disposition":
                self._disposition = data
            case "headers":
                self._open()
            case "data":
                await self._take_data(data)
            case "end":
                await self._close()

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        try:
            name = options.get(b"name", b"").decode()
            filename = options[b"filename"].decode() if b"filename" in options else None
        except UnicodeDecodeError:
            raise UploadRefused("name_invalid", "A file's name is not UTF-8.", "Rename the file.") from None
        self._file, self._field, self._value = None, "", bytearray()
        if filename is None:
            self._field = name
            if len(self._form.fields) >= FIELDS_MAX or name in self._form.fields:
                raise _malformed("A field comes twice, or there are too many.")
        elif name != self._rules.files_field:
            raise _malformed(f"Files come in parts called “{self._rules.files_field}”.")
        elif filename:
            if len(self._form.files) >= FILES_MAX:
                raise too_many_files()
            received = self._blobs.receive(FILE_BYTES_MAX)
            self._form.open.append(received)
            # Browsers escape what a header cannot hold.
            path = safe_name(filename.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n"))
            self._file = _Filling(path, received)

    async def _take_data(self, data: bytes) -> None:
        if self._file is not None:
            self._file_bytes += len(data)
            if self._file_bytes > self._rules.files_bytes_max:
                raise request_too_large(self._rules.files_bytes_max)
            await self._file.write(data)
            return
        self._value += data
        if len(self._value) > FIELD_BYTES_MAX:
            raise _malformed("A field is too long.")

    async def _close(self) -> None:
        if self._file is not None:
            blob = await self._file.done()
            if is_ignored(self._file.name):
                self._file.received.drop()
            else:
                self._form.files.append((self._file.name, self._file.received, blob))
        elif self._field:
            try:
                self._form.fields[self._field] = self._value.decode()
            except UnicodeDecodeError:
                raise _malformed("A field is not UTF-8.") from None
        self._file = None


async def read_form(request: Request, form: Form, blobs: Blobs, rules: FormRules | None = None) -> None:
    """Fills `form` from the request. Raises UploadRefused, Problem."""
    rules = rules or FormRules()
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    try:
        parts = _Parts(boundary)
    except FormParserError:
        raise _malformed("The form's boundary is too long.") from None
    if not boundary:
        raise _malformed("The form names no boundary.")
    reading = _Reading(form, blobs, rules)
    async for piece in pieces(request, rules.files_bytes_max + FORM_OVERHEAD_BYTES_MAX):
        for what, data in parts.feed(piece):
            await reading.take(what, data)
    if not parts.is_whole:
        raise _malformed("The form ends too early.")
