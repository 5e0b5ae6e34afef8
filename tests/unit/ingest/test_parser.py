"""Files that make the parser hang, crash or eat memory: each costs itself, and its neighbours go through."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import PROJECT, local_files, read_by_child, validated

from eventlog.errors import TransientFailure
from eventlog.events import AttachmentStatus, ChunkKind, DocumentRejectionReason, FailureReason, SourceKind
from ingest import limits
from ingest.parser import Parsed, Parser, Problem, Rejected, ScanFailed, read_documents

WELL = b"A text that is well\n\nMarsh sediments hold most of the carbon below one metre."
HOSTILE = """
import os, signal, sys, time
from pathlib import Path
from ingest.sources import text
read = text.read_text
def read_text(path):
    data = path.read_bytes()
    if data.startswith(b"SPIN"):
        while True: pass
    if data.startswith(b"SLEEP"):
        time.sleep(600)
    if data.startswith(b"CRASH"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.startswith(b"EAT"):
        eaten = []
        while True: eaten.append(bytearray(8_000_000))
    if data.startswith(b"ONCE"):
        mark = Path(data[4:].decode())
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return read(path)
text.read_text = read_text
from ingest.parser_child import main
main()
"""


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CPU_S_PER_DOCUMENT", 1)
    monkeypatch.setattr(limits, "WALL_S_PER_DOCUMENT", 4.0)


@pytest.mark.usefixtures("_impatient")
async def test_a_file_that_ends_the_parser_is_rejected_and_its_neighbours_go_through(tmp_path: Path) -> None:
    files = {
        "a.txt": WELL,
        "b.txt": b"SPIN",
        "c.txt": b"SLEEP",
        "d.txt": b"CRASH",
        "e.txt": b"EAT",
        "f.txt": WELL + b"!",
    }
    read = await read_by_child(tmp_path, files, HOSTILE)
    assert {name: rejected.reason for name, rejected in read.rejected.items()} == {
        "b.txt": DocumentRejectionReason.PARSER_TIMEOUT,
        "c.txt": DocumentRejectionReason.PARSER_TIMEOUT,
        "d.txt": DocumentRejectionReason.PARSER_CRASHED,
        "e.txt": DocumentRejectionReason.PARSER_OUT_OF_MEMORY,
    }
    assert all(rejected.file_sha256 for rejected in read.rejected.values())
    assert read.documents.keys() == {"a.txt", "f.txt"}


async def test_a_parser_that_somebody_kills_once_costs_no_document(tmp_path: Path) -> None:
    files = {"a.txt": b"ONCE" + os.fsencode(tmp_path / "killed")}
    read = await read_by_child(tmp_path, files, HOSTILE)
    assert (tmp_path / "killed").exists()
    assert read.documents.keys() == {"a.txt"}


async def test_an_item_keeps_its_facts_and_its_other_file_when_one_file_ends_the_parser(
    tmp_path: Path,
) -> None:
    library = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
        xmlns:z="http://www.zotero.org/namespaces/export#" xmlns:dc="http://purl.org/dc/elements/1.1/"
        xmlns:link="http://purl.org/rss/1.0/modules/link/" xmlns:bib="http://purl.org/net/biblio#">
      <bib:Article rdf:about="#item_1"><z:itemType>journalArticle</z:itemType><dc:title>Carbon</dc:title>
        <link:link rdf:resource="#item_2"/><link:link rdf:resource="#item_3"/></bib:Article>
      <z:Attachment rdf:about="#item_2"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/2/a.txt"/></z:Attachment>
      <z:Attachment rdf:about="#item_3"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/3/b.txt"/></z:Attachment>
    </rdf:RDF>"""
    files = {"l.rdf": library, "files/2/a.txt": b"CRASH", "files/3/b.txt": WELL}
    read = await read_by_child(tmp_path, files, HOSTILE)
    assert read.document.title == "Carbon"
    assert [one.status for one in read.document.attachments] == [
        AttachmentStatus.REJECTED,
        AttachmentStatus.FOUND,
    ]
    assert {one.code for one in read.document.warnings} == {"parser_crashed"}
    assert read.texts("l.rdf: #item_1", ChunkKind.PASSAGE) == [WELL.decode()]
    assert read.rejected["files/2/a.txt"].reason is DocumentRejectionReason.PARSER_CRASHED
    assert read.rejected["files/2/a.txt"].file_sha256


async def test_a_file_that_is_gone_is_no_fault_of_the_document(tmp_path: Path) -> None:
    files = local_files(tmp_path / "blobs", {"a.txt": WELL})
    scan = tmp_path / "scan.sqlite"
    async with Parser() as parser:
        await parser.scan(project_id=PROJECT, kind=SourceKind.AUTO, files=files, options={}, out=scan)
        files[0].local.unlink()
        with pytest.raises(TransientFailure, match="this machine"):
            await parser.parse(scan=scan, number=1, out=tmp_path / "out", project_id=PROJECT)


async def test_the_same_document_is_written_the_same_way_twice(tmp_path: Path) -> None:
    scan = tmp_path / "scan.sqlite"
    async with Parser() as one, Parser() as other:
        files = local_files(tmp_path / "blobs", {"a.txt": WELL})
        await one.scan(project_id=PROJECT, kind=SourceKind.AUTO, files=files, options={}, out=scan)
        for parser, name in ((one, "1"), (other, "2")):
            answer = await parser.parse(scan=scan, number=1, out=tmp_path / name, project_id=PROJECT)
            assert isinstance(answer, Parsed)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


async def test_a_library_that_outgrows_its_file_says_that_it_is_too_large(tmp_path: Path) -> None:
    items = b",".join(b'{"id": "%d", "title": "%b"}' % (n, b"x" * 900) for n in range(900))
    small = "from ingest import limits; limits.SPOOL_BYTES = 200_000; from ingest.parser_child import main; main()"
    with pytest.raises(ScanFailed) as failed:
        await read_by_child(tmp_path, {"a.json": b"[" + items + b"]"}, small)
    assert failed.value.code == "library_too_large"
    assert failed.value.reason is FailureReason.SOURCE_UNREADABLE


async def test_a_document_that_outgrows_its_file_is_rejected(tmp_path: Path) -> None:
    small = "from ingest import limits; limits.SPOOL_BYTES = 300_000; from ingest.parser_child import main; main()"
    long = " ".join(f"word{n}" for n in range(60_000)).encode()
    read = await read_by_child(tmp_path, {"a.txt": long, "b.txt": WELL}, small)
    assert read.rejected["a.txt"].reason is DocumentRejectionReason.TEXT_TOO_LONG
    assert read.documents.keys() == {"b.txt"}


async def test_a_child_sees_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    looking = "import os; assert 'AWS_SECRET_ACCESS_KEY' not in os.environ; from ingest.parser_child import main; main()"
    assert (await read_by_child(tmp_path, {"a.txt": WELL}, looking)).documents


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    program = """
import asyncio
from ingest.parser import Parser
async def main():
    async with Parser() as parser:
        print((await parser._started()).pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while _is_alive(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_a_child_is_ended_with_its_parser(tmp_path: Path) -> None:
    async with Parser() as parser:
        files = local_files(tmp_path / "blobs", {"a.txt": WELL})
        await parser.validate(files=files, kind=SourceKind.AUTO, out=tmp_path / "scan.sqlite")
        child = parser._process
        assert child is not None
        os.kill(child.pid, 0)
    assert child.returncode == -signal.SIGKILL


async def test_a_child_that_nobody_asks_is_ended_and_the_next_question_starts_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.parser._IDLE_S_MAX", 0.01)
    files = local_files(tmp_path / "blobs", {"a.txt": WELL})
    async with Parser() as parser:
        first = await parser.validate(files=files, kind=SourceKind.AUTO, out=tmp_path / "scan.sqlite")
        async with asyncio.timeout(30):
            while parser._process is not None:  # noqa: ASYNC110 - the child tells nobody
                await asyncio.sleep(0.01)
        assert await parser.validate(files=files, kind=SourceKind.AUTO, out=tmp_path / "scan.sqlite") == first


def test_a_validation_says_what_is_in_a_folder_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    found = validated(tmp_path, {"a.txt": WELL, "b.txt": b"", "c.exe": b"MZ"})
    assert found.kind is SourceKind.TEXT
    assert found.items == 1
    assert {(one.code, one.subject, one.is_fatal) for one in found.problems} == {
        ("file_empty", "b.txt", False),
        ("file_unsupported", "c.exe", False),
    }


@pytest.mark.parametrize(
    ("files", "code", "where"),
    [
        ({"a.exe": b"MZ"}, "kind_unknown", ""),
        ({"a.rdf": b"no XML"}, "rdf_damaged", "a.rdf: line 1, column 1"),
        ({"a.rdf": b"<html></html>"}, "rdf_damaged", "a.rdf"),
        (
            {"a.rdf": b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF>'},
            "rdf_without_items",
            "a.rdf",
        ),
        ({"a.rdf": b""}, "rdf_without_items", "a.rdf"),
        ({"a.json": b'[{"title": "a"'}, "json_damaged", "a.json"),
        ({"a/config.yaml": b"[", "a/deduplicated.csv": b"title\nA\n"}, "config_damaged", "a/config.yaml"),
        ({"config.yaml": b"{}", "deduplicated.csv": b'title\n"A'}, "papers_damaged", "deduplicated.csv"),
        ({"a.pdf": b""}, "source_empty", ""),
    ],
)
def test_a_library_of_which_nothing_can_be_used_is_refused_before_it_is_accepted(
    tmp_path: Path, files: dict[str, bytes], code: str, where: str
) -> None:
    found = validated(tmp_path, files)
    fatal: list[Problem] = [one for one in found.problems if one.is_fatal]
    assert [(one.code, one.subject) for one in fatal] == [(code, where)]
    assert fatal[0].message


async def test_an_answer_names_documents_in_the_order_of_the_paths(tmp_path: Path) -> None:
    files = {f"{name}.txt": WELL + name.encode() for name in ("b", "c", "a")}
    scan = tmp_path / "scan.sqlite"
    async with Parser() as parser:
        local = local_files(tmp_path / "blobs", files)
        await parser.scan(project_id=PROJECT, kind=SourceKind.AUTO, files=local, options={}, out=scan)
        await parser.scan(project_id=PROJECT, kind=SourceKind.AUTO, files=local, options={}, out=scan)
        assert [name for _, _, name in read_documents(scan)] == ["a.txt", "b.txt", "c.txt"]
        answer = await parser.parse(scan=scan, number=1, out=tmp_path / "out", project_id=PROJECT)
    assert not isinstance(answer, Rejected)
