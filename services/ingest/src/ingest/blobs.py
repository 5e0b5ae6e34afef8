"""The blob store: files under the SHA-256 of their content, in a folder or in an object store.

A file is first received into a folder of this process, hashed on the way, and only then published under its hash, at
once: a reader sees a whole file or none, and an upload that breaks off leaves nothing. Folders of processes that died
are swept at opening. What a file is called, and to which import it belongs, is not known here.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from eventlog.errors import TransientFailure

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CHUNK_BYTES = 1024 * 1024
"""What an upload holds in memory."""
CACHE_BYTES_MAX = 20 * 1024**3
"""Local copies of what stands in an object store; the least recently used go first."""
CACHE_KEPT_S = 3600.0
"""A copy used within this time is never taken away: a parser may be reading it."""
CACHE_LOOKED_AT_S = 60.0
ASKED_AT_ONCE = 64

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


class BlobTooLarge(Exception):  # noqa: N818 - the name says it, and it is the caller's input, not an error of ours
    """More bytes came than the caller allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    sha256: str
    size_bytes: int


class Received:
    """A file on its way in. `write` until done, then `publish`; leaving the context drops what is not published."""

    def __init__(self, path: Path, size_max: int, publish: Callable[[Path, str], Awaitable[None]]) -> None:
        self.path = path
        self.size_bytes = 0
        self._size_max = size_max
        self._publish = publish
        self._hash = hashlib.sha256()
        self._file = path.open("wb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Blocks on the disk: call it in a thread, with pieces of about `CHUNK_BYTES`. Raises BlobTooLarge."""
        self.size_bytes += len(data)
        if self.size_bytes > self._size_max:
            raise BlobTooLarge
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> Blob:
        """Blocks until the content is on disk. Until it is published it is at `path`, for whoever wants to look in."""
        os.fsync(self._file.fileno())
        self._file.close()
        return Blob(sha256=self._hash.hexdigest(), size_bytes=self.size_bytes)

    async def publish(self, blob: Blob) -> None:
        """From now on everyone finds it, under its hash; a second time is harmless."""
        await self._publish(self.path, blob.sha256)

    def drop(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


class Blobs(Protocol):
    def receive(self, size_max: int) -> Received:
        """A new file on its way in."""

    async def size(self, sha256: str) -> int | None:
        """Bytes, or null when it is not there. Raises TransientFailure when the store does not answer."""

    async def exists(self, sha256: str) -> bool: ...

    async def local(self, sha256: str) -> Path:
        """A path on this machine with that content; raises FileNotFoundError, or TransientFailure."""


async def sizes(blobs: Blobs, hashes: Sequence[str]) -> list[int | None]:
    """The size of each, null for what is not there; some are asked for at once. Raises TransientFailure."""
    found: list[int | None] = []
    for at in range(0, len(hashes), ASKED_AT_ONCE):
        found.extend(await asyncio.gather(*(blobs.size(one) for one in hashes[at : at + ASKED_AT_ONCE])))
    return found


class _Incoming:
    """A process's own folder for what is on its way in; a lock tells the living from the dead."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        self._folder = parent / uuid.uuid4().hex
        self._folder.mkdir()
        self._lock = (self._folder / ".lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def new_path(self) -> Path:
        return self._folder / uuid.uuid4().hex

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        lock = folder / ".lock"
        try:
            with lock.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # its owner lives
        except FileNotFoundError:
            # A folder whose owner is just making it is younger than this.
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > CACHE_KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)


class FolderBlobs:
    """`<folder>/<first two digits>/<sha256>`; several processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._incoming = _Incoming(folder / "incoming")

    def close(self) -> None:
        self._incoming.close()

    def path_of(self, sha256: str) -> Path:
        assert is_sha256(sha256), "a blob is named by its hash, so a name never is a path"
        return self._folder / sha256[:2] / sha256

    def new_path(self) -> Path:
        return self._incoming.new_path()

    def receive(self, size_max: int) -> Received:
        return Received(self.new_path(), size_max, self.publish)

    async def publish(self, path: Path, sha256: str) -> None:
        await asyncio.to_thread(self._move, path, self.path_of(sha256))

    @staticmethod
    def _move(path: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        try:
            path.replace(target)
        except FileNotFoundError:
            if not target.is_file():  # published before: the same hash is the same content
                raise

    async def size(self, sha256: str) -> int | None:
        try:
            return self.path_of(sha256).stat().st_size
        except FileNotFoundError:
            return None

    async def exists(self, sha256: str) -> bool:
        return await self.size(sha256) is not None

    async def local(self, sha256: str) -> Path:
        path = self.path_of(sha256)
        if not path.is_file():
            raise FileNotFoundError(sha256)
        return path


class ObjectBlobs:
    """An object store with a folder of local copies in front of it, since parsers want paths."""

    def __init__(self, store: "ObjectStore", cache: Path) -> None:
        self._store = store
        self._cache = FolderBlobs(cache)
        self._cache_folder = cache
        self._evicted_at_s = float("-inf")

    def close(self) -> None:
        self._cache.close()

    def receive(self, size_max: int) -> Received:
        return Received(self._cache.new_path(), size_max, self._publish)

    async def _publish(self, path: Path, sha256: str) -> None:
        import obstore  # noqa: PLC0415 - 4 MB that a folder does not need

        if await self.size(sha256) is None:
            try:
                await obstore.put_async(self._store, _key(sha256), path)
            except obstore.exceptions.BaseError as error:
                raise TransientFailure(
                    f"the blob store does not take a file: {type(error).__name__}"
                ) from None
        await asyncio.to_thread(self._evict)
        await self._cache.publish(path, sha256)

    async def size(self, sha256: str) -> int | None:
        import obstore  # noqa: PLC0415 - 4 MB that a folder does not need

        try:
            return (await obstore.head_async(self._store, _key(sha256)))["size"]
        except FileNotFoundError:
            return None
        except obstore.exceptions.BaseError as error:
            raise TransientFailure(f"the blob store does not answer: {type(error).__name__}") from None

    async def exists(self, sha256: str) -> bool:
        return await self.size(sha256) is not None

    async def local(self, sha256: str) -> Path:
        path = self._cache.path_of(sha256)
        if not path.is_file():
            with self._cache.receive(2**63) as received:
                async for data in self._download(sha256):
                    await asyncio.to_thread(received.write, data)
                blob = await asyncio.to_thread(received.close)
                if blob.sha256 != sha256:
                    raise TransientFailure(f"the blob store answered other content for {sha256}")
                await asyncio.to_thread(self._evict)
                await received.publish(blob)
        os.utime(path)
        return path

    async def _download(self, sha256: str) -> AsyncIterator[bytes]:
        import obstore  # noqa: PLC0415 - 4 MB that a folder does not need

        try:
            answer = await obstore.get_async(self._store, _key(sha256))
            async for data in answer.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(data)
        except FileNotFoundError:
            raise FileNotFoundError(sha256) from None
        except obstore.exceptions.BaseError as error:
            raise TransientFailure(f"the blob store does not answer: {type(error).__name__}") from None

    def _evict(self) -> None:
        now_s = time.monotonic()
        if now_s - self._evicted_at_s < CACHE_LOOKED_AT_S:
            return
        self._evicted_at_s = now_s
        files = []
        for path in self._cache_folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for used_at, size, path in sorted(files):
            if total <= CACHE_BYTES_MAX or time.time() - used_at < CACHE_KEPT_S:
                return
            path.unlink(missing_ok=True)
            total -= size


def _key(sha256: str) -> str:
    assert is_sha256(sha256), "a blob is named by its hash, so a name never is a path"
    return f"{sha256[:2]}/{sha256}"


def open_blobs(where: str, cache: Path) -> FolderBlobs | ObjectBlobs:
    """`where` is a folder or a URL (`s3://…`, `gs://…`, `az://…`); credentials come from the environment.

    Raises ValueError when a URL names no store that we know.
    """
    if "://" not in where:
        return FolderBlobs(Path(where).resolve())
    if where.startswith("file://"):
        return FolderBlobs(Path(where.removeprefix("file://")).resolve())
    from obstore.exceptions import BaseError  # noqa: PLC0415 - 4 MB that a folder does not need
    from obstore.store import from_url  # noqa: PLC0415 - 4 MB that a folder does not need

    try:
        return ObjectBlobs(from_url(where), cache)
    except (BaseError, ValueError) as error:
        raise ValueError(f"PAPERLOG_BLOBS names no store that can be used: {type(error).__name__}") from None
