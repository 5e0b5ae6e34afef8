"""`paperlog import` and `validate`: what is sent, what is printed where, how it ends."""

import hashlib
import json
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_service import DROP, IMPORT_ID, FakeService, a_problem, a_status

from ingest.uploads import FILES_MAX
from paperlog import local_files

ACCEPTED = (202, {**a_status("accepted"), "is_new": True})


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "Soil"
    (folder / "files").mkdir(parents=True)
    (folder / "library.rdf").write_bytes(b"<rdf/>")
    (folder / "files" / "a.pdf").write_bytes(b"%PDF a")
    (folder / "files" / "same.pdf").write_bytes(b"%PDF a")
    return folder


def test_a_folder_is_uploaded_by_hash_and_requested_by_name(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    ran = run("import", str(library), "--no-wait")
    assert (ran.code, ran.out) == (0, f"{IMPORT_ID}\n")
    assert sorted(service.blobs.values()) == [b"%PDF a", b"<rdf/>"]
    pdf, rdf = (hashlib.sha256(content).hexdigest() for content in (b"%PDF a", b"<rdf/>"))
    assert service.bodies == [
        {
            "source": {
                "kind": "auto",
                "files": [
                    {"path": "files/a.pdf", "sha256": pdf, "size_bytes": 6},
                    {"path": "files/same.pdf", "sha256": pdf, "size_bytes": 6},
                    {"path": "library.rdf", "sha256": rdf, "size_bytes": 6},
                ],
            },
            "project": "Soil",
        }
    ]
    assert service.keys[0].startswith("files-")
    assert f"paperlog watch {IMPORT_ID}" in ran.err


def test_what_the_blob_store_has_is_not_sent_again(run: Run, service: FakeService, library: Path):
    before = {**a_status("completed_with_rejections"), "is_new": False}
    service.answers["POST", "/api/imports"] = [ACCEPTED, (202, before)]
    run("import", str(library), "--no-wait")
    ran = run("import", str(library), "--no-wait")
    assert len(service.said("PUT")) == 2
    assert service.keys[0] == service.keys[1]
    assert "already imported" in ran.err
    assert f"paperlog resume {IMPORT_ID}" in ran.err
    assert f"it has ended before; look with: paperlog status {IMPORT_ID}" in ran.err


def test_the_words_of_the_user_rule(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    run(
        "import",
        str(library / "files" / "a.pdf"),
        "--project",
        "수면",
        "--kind",
        "pdf",
        "--idempotency-key",
        "k1",
        "--no-wait",
    )
    body = service.bodies[0]
    assert (body["project"], body["source"]["kind"], service.keys) == ("수면", "pdf", ["k1"])
    assert [file["path"] for file in body["source"]["files"]] == ["a.pdf"]


def test_a_key_that_no_header_takes_is_wrong_usage(run: Run, service: FakeService, library: Path):
    assert run("import", str(library), "--idempotency-key", "수면").code == 2
    assert service.requests == []


def test_an_export_without_its_folder_gets_a_hint(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    ran = run("import", str(library / "library.rdf"), "--no-wait")
    assert "to import its PDFs too" in ran.err


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("completed_with_rejections", 3), ("failed", 1), ("cancelled", 1)]
)
def test_waiting_ends_with_the_exit_code_of_the_end(
    run: Run, service: FakeService, library: Path, state: str, code: int
):
    service.answers["POST", "/api/imports"] = ACCEPTED
    service.streams = [
        [("1", "status", a_status()), ("2", "status", a_status(state, progress=1.0)), ("2", "end", {})]
    ]
    ran = run("import", str(library), "--wait")
    assert (ran.code, ran.out) == (code, f"{IMPORT_ID}\n")
    assert "embedding  50%" in ran.err


def test_rejected_items_are_named(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    end = a_status("completed_with_rejections", documents={"found": 2, "stored": 1, "rejected": 1})
    service.streams = [[("1", "status", end)]]
    service.answers["GET", f"/api/imports/{IMPORT_ID}/documents"] = {
        "documents": [],
        "rejections": [{"item": "files/x.pdf", "reason": "pdf_damaged", "message": "not a PDF\x1b[2J"}],
    }
    ran = run("import", str(library), "--wait")
    assert "files/x.pdf" in ran.err
    assert "pdf_damaged" in ran.err
    assert "\x1b[2J" not in ran.err


def test_json_prints_the_final_status_and_nothing_else(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    service.streams = [[("1", "status", a_status("completed"))]]
    ran = run("import", str(library), "--wait", "--json")
    assert json.loads(ran.out) == a_status("completed")


def test_waits_are_said_in_words(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    service.streams = [
        [("1", "status", a_status(waiting="provider_quota")), ("2", "status", a_status("completed"))]
    ]
    assert "waiting: the provider says that the quota is used up" in run("import", str(library), "--wait").err


def test_a_refusal_says_what_why_and_what_to_do(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = a_problem(
        422,
        "source_unknown",
        "This is no library",
        detail="damaged XML in line 1",
        problems=[{"subject": "library.rdf", "message": "damaged XML in line 1"}],
        action="Export it again from Zotero.",
    )
    ran = run("import", str(library), "--no-wait")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-3:] == [
        "paperlog: This is no library",
        "  why: library.rdf: damaged XML in line 1",
        "  what to do: Export it again from Zotero.",
    ]


def test_a_file_that_changes_while_it_is_sent_is_named(
    run: Run, service: FakeService, library: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("paperlog.uploading.sha256_of", lambda _file: "0" * 64)
    ran = run("import", str(library / "library.rdf"), "--no-wait")
    assert ran.code == 1
    assert "has changed while it was sent" in ran.err


def test_a_service_that_drops_a_connection_is_asked_again(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = ACCEPTED
    drops = {("PUT", 1), ("POST", 1)}

    def drop_once(method: str, _path: str) -> object:
        now = (method, len(service.said(method)))
        return DROP if now in drops else None

    service.before = drop_once
    ran = run("import", str(library), "--no-wait")
    assert (ran.code, ran.out) == (0, f"{IMPORT_ID}\n")
    assert len(set(service.keys)) == 1


def test_a_service_that_is_not_there_is_said_with_how_to_start_it(run: Run, library: Path):
    ran = run("import", str(library), "--url", "http://127.0.0.1:9")
    assert (ran.code, ran.out) == (1, "")
    assert "paperlog up" in ran.err
    assert "Traceback" not in ran.err


def test_another_program_on_the_port_is_said(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports"] = (200, b"<html>hello</html>")
    ran = run("import", str(library), "--no-wait")
    assert ran.code == 1
    assert "is not Paperlog" in ran.err


def test_validate_says_what_is_in_it(run: Run, service: FakeService, library: Path):
    service.answers["POST", "/api/imports/validate"] = {
        "kind": "zotero_rdf",
        "items": 12,
        "pdfs_found": 5,
        "pdfs_missing": 1,
        "problems": [
            {"code": "pdf_missing", "subject": "files/9/x.pdf", "message": "is not there", "is_fatal": False}
        ],
    }
    ran = run("validate", str(library))
    assert ran.code == 0
    assert "zotero_rdf" in ran.out
    assert "files/9/x.pdf" in ran.out
    assert service.said("POST") == ["/api/imports/validate"]


def test_validate_fails_where_an_import_would_be_refused(run: Run, service: FakeService, library: Path):
    answer = {
        "kind": "auto",
        "items": 0,
        "problems": [{"code": "x", "subject": "", "message": "no", "is_fatal": True}],
    }
    service.answers["POST", "/api/imports/validate"] = answer
    ran = run("validate", str(library), "--json")
    assert (ran.code, json.loads(ran.out)) == (1, answer)


def test_more_files_than_the_service_takes_are_refused_before_one_is_sent(
    run: Run, service: FakeService, library: Path, monkeypatch: pytest.MonkeyPatch
):
    assert local_files.FILES_MAX == FILES_MAX, "what the command refuses is what the service would refuse"
    monkeypatch.setattr(local_files, "FILES_MAX", 1)
    ran = run("import", str(library))
    assert (ran.code, ran.out, service.requests) == (1, "", [])
    assert "3 files are too many" in ran.err


def test_a_service_that_is_away_says_what_is(run: Run, service: FakeService):
    away = a_problem(
        503, "store_down", "Not available", detail="The graph-writer does not answer.", retryable=True
    )
    service.answers["GET", "/api/search"] = [away, {"results": [], "mode": "hybrid", "message": None}]
    assert "The graph-writer does not answer; trying for 60 s" in run("search", "x").err
