"""One suite for both blob stores: a folder, and an object store with copies in front of it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.ingest_http.world import sha256

from eventlog.errors import TransientFailure
from ingest import blobs as module
from ingest.blobs import BlobTooLarge, FolderBlobs, ObjectBlobs, open_blobs

Any = FolderBlobs | ObjectBlobs


@pytest.fixture(params=["folder", "object store"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = open_blobs(
        str(tmp_path / "blobs") if request.param == "folder" else "memory:///", tmp_path / "cache"
    )
    yield made
    made.close()


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


async def put(blobs: Any, data: bytes) -> str:
    with blobs.receive(len(data)) as received:
        received.write(data)
        blob = received.close()
        await received.publish(blob)
    assert blob.size_bytes == len(data)
    return blob.sha256


async def test_what_was_published_is_found_under_its_hash(blobs: Any):
    for data in (b"", b"content", b"x" * 3_000_000):
        assert await put(blobs, data) == sha256(data)
        assert await blobs.exists(sha256(data))
        assert await blobs.size(sha256(data)) == len(data)
        assert (await blobs.local(sha256(data))).read_bytes() == data


async def test_what_is_not_there_is_not_there(blobs: Any):
    assert await blobs.size(sha256(b"never")) is None
    with pytest.raises(FileNotFoundError):
        await blobs.local(sha256(b"never"))


async def test_nothing_is_seen_before_it_is_published_and_nothing_left_if_it_never_is(
    blobs: Any, tmp_path: Path
):
    with blobs.receive(100) as received:
        received.write(b"half")
        assert not await blobs.exists(sha256(b"half"))
    assert files(tmp_path) == []


async def test_more_than_allowed_is_stopped(blobs: Any, tmp_path: Path):
    with blobs.receive(3) as received, pytest.raises(BlobTooLarge):
        received.write(b"four")
    assert files(tmp_path) == []


async def test_the_same_content_many_times_at_once_is_one_file(blobs: Any, tmp_path: Path):
    await asyncio.gather(*(put(blobs, b"same") for _ in range(20)))
    assert files(tmp_path) == [sha256(b"same")]


async def test_a_copy_that_was_deleted_is_fetched_again(tmp_path: Path):
    blobs = open_blobs("memory:///", tmp_path / "cache")
    name = await put(blobs, b"content")
    (await blobs.local(name)).unlink()
    assert (await blobs.local(name)).read_bytes() == b"content"
    blobs.close()


async def test_copies_go_when_there_are_too_many_and_none_that_is_in_use(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES_MAX", 10)
    monkeypatch.setattr(module, "CACHE_LOOKED_AT_S", 0.0)
    blobs = open_blobs("memory:///", tmp_path / "cache")
    old, fresh = await put(blobs, b"12345678"), await put(blobs, b"87654321")
    assert len(files(tmp_path)) == 2, "both were just used"
    path = await blobs.local(old)
    import os

    long_ago = time.time() - 2 * module.CACHE_KEPT_S
    os.utime(path, (long_ago, long_ago))
    await put(blobs, b"x")
    assert set(files(tmp_path)) == {fresh, sha256(b"x")}
    assert (await blobs.local(old)).read_bytes() == b"12345678"
    blobs.close()


async def test_a_store_with_other_content_is_not_believed(tmp_path: Path):
    import obstore

    blobs = open_blobs("memory:///", tmp_path / "cache")
    assert isinstance(blobs, ObjectBlobs)
    name = sha256(b"right")
    await obstore.put_async(blobs._store, f"{name[:2]}/{name}", b"wrong")
    with pytest.raises(TransientFailure):
        await blobs.local(name)
    assert files(tmp_path) == []
    blobs.close()


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path):
    program = (
        "import sys, pathlib; from ingest.blobs import FolderBlobs\n"
        "blobs = FolderBlobs(pathlib.Path(sys.argv[1])); one = blobs.receive(100); one.write(b'half')\n"
        "print('written', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"written"
        assert len(files(tmp_path)) == 1
        FolderBlobs(tmp_path).close()
        assert len(files(tmp_path)) == 1, "its owner lives"
        writer.kill()
        writer.wait()
    FolderBlobs(tmp_path).close()
    assert files(tmp_path) == []


def test_a_url_that_names_no_store_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="PAPERLOG_BLOBS"):
        open_blobs("nonsense://x", tmp_path)
