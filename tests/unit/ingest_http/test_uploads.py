"""Names and zips from people who mean no good, and from people whose programs are odd."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.ingest_http.world import a_zip, sha256

from eventlog.events import SourceFile
from ingest import uploads
from ingest.blobs import FolderBlobs
from ingest.requests import FILES_MAX
from ingest.uploads import (
    UploadRefused,
    checked_files,
    checked_project_name,
    default_project_name,
    expand_zip,
    safe_name,
    walk,
)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FolderBlobs]:
    made = FolderBlobs(tmp_path / "blobs")
    yield made
    made.close()


def left(blobs: FolderBlobs) -> list[str]:
    return [path.name for path in blobs._folder.rglob("*") if path.is_file() and path.name != ".lock"]


async def refused(data: bytes, blobs: FolderBlobs, tmp_path: Path) -> str:
    path = tmp_path / "given.zip"
    path.write_bytes(data)
    with pytest.raises(UploadRefused) as caught:
        await expand_zip(path, blobs)
    assert left(blobs) == [], "what is refused leaves nothing"
    assert caught.value.action
    return caught.value.code


async def expanded(data: bytes, blobs: FolderBlobs, tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "given.zip"
    path.write_bytes(data)
    return {file.path: file.sha256 for file in await expand_zip(path, blobs)}


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../x", "a/../../x", "a/..", "/etc/passwd", "\\\\host\\share", "C:\\x", "c:/x", "..\\x", "", ".", "/", "a\x00b",
        "a\nb", "a\x7fb", "a\u0085b", "x" * 501, "ä" * 251, "/".join("d" * 21), "a\udc80b",
    ],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(name: str):
    with pytest.raises(UploadRefused) as caught:
        safe_name(name)
    assert caught.value.code == "name_invalid"
    assert caught.value.detail.isprintable(), "a problem never carries what it refuses"
    caught.value.detail.encode()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.pdf", "a.pdf"),
        ("./a//b.pdf", "a/b.pdf"),
        ("a\\b.pdf", "a/b.pdf"),
        ("..a/b..pdf", "..a/b..pdf"),
        ("مكتبة/كتاب.pdf", "مكتبة/كتاب.pdf"),
        ("/".join("d" * 20), "/".join("d" * 20)),
        ("x" * 500, "x" * 500),
    ],
)
def test_an_odd_name_is_taken_as_it_is(name: str, path: str):
    assert safe_name(name) == path


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["Lib/a.pdf", "Lib/files/b.pdf"], "Lib"),
        (["deep/one/My Paper.pdf"], "My Paper"),
        (["Export.rdf", "files/1/a.pdf", "files/2/b.pdf"], "Export"),
        (["b.pdf", "a.pdf"], "a and 1 more"),
        ([f"{'n' * 300}.pdf"], "n" * 100),
        (["  spaced   out .pdf"], "spaced out"),
    ],
)
def test_a_project_is_called_after_its_files(paths: list[str], name: str):
    assert default_project_name(paths) == name


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\nb", "a\x00"])
def test_a_project_name_is_short_and_visible(name: str):
    with pytest.raises(UploadRefused):
        checked_project_name(name)


def a_file(path: str, content: str = "x", size_bytes: int = 1) -> SourceFile:
    return SourceFile(path=path, sha256=sha256(content.encode()), size_bytes=size_bytes)


def test_the_same_file_twice_is_one_and_another_under_its_name_is_refused():
    assert checked_files([a_file("b"), a_file("a"), a_file("b")]) == (a_file("a"), a_file("b"))
    with pytest.raises(UploadRefused, match="Two different"):
        checked_files([a_file("a"), a_file("a", "y")])


def test_too_many_and_too_much_and_nothing_are_refused():
    assert len(checked_files(a_file(str(n)) for n in range(FILES_MAX))) == 9_999
    for files, code in (
        ([a_file(str(n)) for n in range(10_000)], "files_too_many"),
        ([a_file("a", size_bytes=3 * 1024**3), a_file("b", size_bytes=3 * 1024**3)], "request_too_large"),
        ([a_file(".DS_Store")], "source_empty"),
    ):
        with pytest.raises(UploadRefused) as caught:
            checked_files(files)
        assert caught.value.code == code


def test_links_and_pipes_on_the_servers_disk_are_not_followed(tmp_path: Path):
    library = tmp_path / "lib"
    (library / "sub").mkdir(parents=True)
    (library / "sub" / "a.pdf").write_bytes(b"a")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"k")
    (library / "link").symlink_to(tmp_path / "secret")
    (library / "key.pdf").symlink_to(tmp_path / "secret" / "key")
    import os

    os.mkfifo(library / "pipe")
    assert [name for name, _ in walk(library)] == ["lib/sub/a.pdf"]


# --- zips --------------------------------------------------------------------------------------------------------


async def test_a_zip_gives_its_files_with_their_names(blobs: FolderBlobs, tmp_path: Path):
    data = a_zip({"L/a.pdf": b"a", "L/ü.pdf": b"u", "L/empty.txt": b"", "L/inner.zip": a_zip({"../x": b"x"})})
    files = await expanded(data, blobs, tmp_path)
    assert files["L/a.pdf"] == sha256(b"a")
    assert set(files) == {"L/a.pdf", "L/ü.pdf", "L/empty.txt", "L/inner.zip"}, "a zip inside stays a file"
    assert (await blobs.local(sha256(b"u"))).read_bytes() == b"u"


async def test_utf8_names_are_read_where_the_zip_does_not_say_so(blobs: FolderBlobs, tmp_path: Path):
    data = a_zip({"fil\u00e9.pdf": b"a"})
    unflagged = bytearray(data)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        where = data.index(signature) + at
        unflagged[where : where + 2] = struct.pack(
            "<H", struct.unpack("<H", data[where : where + 2])[0] & ~0x800
        )
    assert set(await expanded(bytes(unflagged), blobs, tmp_path)) == {"filé.pdf"}


async def test_a_zip_that_climbs_out_is_refused(blobs: FolderBlobs, tmp_path: Path):
    for name in ("../x", "/x", "a/../../x", "C:/x", "..\\x"):
        assert await refused(a_zip({"ok.pdf": b"1", name: b"x"}), blobs, tmp_path) == "name_invalid"


async def test_a_link_in_a_zip_is_refused(blobs: FolderBlobs, tmp_path: Path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("link.pdf")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert await refused(out.getvalue(), blobs, tmp_path) == "zip_entry_special"


async def test_an_encrypted_zip_is_refused(blobs: FolderBlobs, tmp_path: Path):
    data = bytearray(a_zip({"a.pdf": b"a"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert await refused(bytes(data), blobs, tmp_path) == "zip_encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_a_method_that_may_eat_memory_is_refused(method: int, blobs: FolderBlobs, tmp_path: Path):
    assert await refused(a_zip({"a.pdf": b"a"}, method), blobs, tmp_path) == "zip_method_unsupported"


async def test_a_bomb_is_stopped_while_it_streams(blobs: FolderBlobs, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(uploads, "ZIP_RATIO_FREE_BYTES", 100_000)
    assert await refused(a_zip({"bomb": bytes(3_000_000)}), blobs, tmp_path) == "zip_ratio"


async def test_a_bomb_whose_directory_lies_is_stopped_too(blobs: FolderBlobs, tmp_path: Path, monkeypatch):
    """The directory claims a compressed size that makes the ratio look fine; the file itself is small."""
    monkeypatch.setattr(uploads, "ZIP_RATIO_FREE_BYTES", 100_000)
    data = bytearray(a_zip({"bomb": bytes(3_000_000)}))
    at = data.index(b"PK\x01\x02") + 20
    data[at : at + 4] = struct.pack("<I", 2_000_000)
    assert await refused(bytes(data), blobs, tmp_path) in ("zip_ratio", "zip_damaged")


async def test_many_small_bombs_are_one_bomb(blobs: FolderBlobs, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(uploads, "ZIP_RATIO_FREE_BYTES", 100_000)
    data = a_zip({f"{n}": bytes(99_000) for n in range(50)})
    assert await refused(data, blobs, tmp_path) == "zip_ratio"


async def test_the_total_is_counted_over_all_entries(blobs: FolderBlobs, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(uploads, "REQUEST_BYTES_MAX", 250)
    data = a_zip({f"{n}": bytes([n]) * 100 for n in range(3)}, zipfile.ZIP_STORED)
    assert await refused(data, blobs, tmp_path) == "request_too_large"


async def test_an_entry_that_is_longer_than_it_says_is_damaged(blobs: FolderBlobs, tmp_path: Path):
    data = bytearray(a_zip({"a.pdf": b"x" * 1000}))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 10)
    assert await refused(bytes(data), blobs, tmp_path) == "zip_damaged"


async def test_too_many_entries_are_refused(blobs: FolderBlobs, tmp_path: Path):
    data = a_zip({f"{n}": b"" for n in range(10_001)}, zipfile.ZIP_STORED)
    assert await refused(data, blobs, tmp_path) == "zip_too_many_entries"


async def test_a_directory_that_claims_gigabytes_is_never_read(blobs: FolderBlobs, tmp_path: Path):
    data = bytearray(6_000_000) + bytearray(a_zip({"a": b"a"}))
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 20] = struct.pack("<II", end, 0)
    assert await refused(bytes(data), blobs, tmp_path) == "zip_too_many_entries"


async def test_two_entries_of_one_name_are_refused(blobs: FolderBlobs, tmp_path: Path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.pdf", b"1")
        archive.writestr("a.pdf", b"2")
    assert await refused(out.getvalue(), blobs, tmp_path) == "name_twice"


async def test_whatever_is_flipped_or_cut_is_refused_or_whole(blobs: FolderBlobs, tmp_path: Path):
    """Every cut and every flipped byte of a small zip: an answer with a code, or the right files; never another error."""
    whole = {"a/b.pdf": zlib.compress(bytes(range(64))), "c.txt": b"text " * 9}
    data = a_zip(whole)
    path = tmp_path / "given.zip"
    outcomes = {"refused": 0, "taken": 0}
    variants = [data[:n] for n in range(0, len(data), 3)]
    variants += [data[:n] + bytes([data[n] ^ 0xFF]) + data[n + 1 :] for n in range(len(data))]
    for variant in variants:
        path.write_bytes(variant)
        try:
            files = await expand_zip(path, blobs)
        except UploadRefused:
            outcomes["refused"] += 1
        else:
            outcomes["taken"] += 1
            assert {file.sha256 for file in files} <= {sha256(one) for one in whole.values()}
    assert outcomes["refused"] > 100
    assert outcomes["taken"] > 10
