"""The older paths keep their limits, names and statuses, and go through the same accepting code as /api/imports."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.ingest_http.world import FoundProblem, World

from eventlog.events import RequestImport, ResumeImport, SourceKind
from eventlog.ids import new_import_id, project_id
from ingest.http import older

JOB = {
    "job_id", "status", "progress", "message", "project_id", "stats", "result", "reliability_summary", "created_at",
    "updated_at", "metadata",
}  # fmt: skip
ACCEPTED = {"job_id", "status", "message", "project_id", "reliability_summary"}
PROBLEM = {"type", "title", "status", "detail", "code", "retryable", "action", "instance"}


async def pdf(world: World, name: str = "A paper.pdf", **params: Any) -> httpx.Response:
    return await world.http.post("/api/import/pdf", files={"file": (name, b"%PDF-1.7 a")}, params=params)


def command(world: World) -> RequestImport:
    found = world.commands.appended[-1]
    assert isinstance(found, RequestImport)
    return found


async def test_a_pdf_becomes_an_import_whose_id_is_the_job(world: World):
    answer = await pdf(world, project_name="My: papers!", research_question="why?", extract_concepts=False)
    body = answer.json()
    assert (answer.status_code, set(body)) == (200, ACCEPTED | {"filename"})
    assert (body["filename"], body["project_id"]) == ("A paper.pdf", str(project_id("My papers")))
    assert (await world.http.get(f"/api/imports/{body['job_id']}")).json()["project"] == "My papers"
    asked = command(world)
    assert (asked.source.kind, str(asked.import_id)) == (SourceKind.PDF, body["job_id"])
    assert asked.options == {"research_question": "why?", "extract_concepts": "false"}


async def test_the_same_idempotency_key_is_the_same_job(world: World):
    ask = {"files": {"file": ("a.pdf", b"%PDF-")}, "headers": {"Idempotency-Key": "k"}}
    first, second = [(await world.http.post("/api/import/pdf", **ask)).json() for _ in range(2)]
    assert first["job_id"] == second["job_id"]
    assert len(world.commands.appended) == 1


async def test_several_pdfs_go_into_one_project(world: World):
    files = [("files", (name, name.encode())) for name in ("a.pdf", "b.PDF")]
    body = (await world.http.post("/api/import/pdf/multiple", files=files)).json()
    assert set(body) == ACCEPTED | {"filename"}
    assert body["project_id"] == str(project_id("Uploaded PDFs"))


@pytest.mark.parametrize(
    ("path", "field", "names"),
    [
        ("pdf", "file", ["a.txt"]),
        ("pdf", "file", ["a.pdf", "b.pdf"]),
        ("pdf", "files", ["a.pdf"]),
        ("pdf/multiple", "files", ["a.pdf", "b.txt"]),
        ("zotero", "files", ["a.pdf"]),
        ("zotero/validate", "file", ["a.rdf"]),
    ],
)
async def test_files_that_do_not_fit_are_400_and_nothing_is_kept(
    world: World, path: str, field: str, names: list[str]
):
    files = [(field, (name, b"x")) for name in names]
    answer = await world.http.post(f"/api/import/{path}", files=files)
    assert (answer.status_code, set(answer.json())) == (400, PROBLEM)
    assert isinstance(answer.json()["detail"], str)
    assert world.commands.appended == []
    assert world.blob_files() == []


@pytest.mark.parametrize("path", ["pdf/multiple", "zotero", "zotero/validate"])
async def test_a_form_without_files_is_400(world: World, path: str):
    answer = await world.http.post(f"/api/import/{path}", files={"note": (None, "x")})
    assert (answer.status_code, answer.json()["detail"]) == (400, "No files provided.")


@pytest.mark.parametrize(
    ("path", "field", "limit"),
    [("pdf", "file", "PDF_BYTES_MAX"), ("pdf/multiple", "files", "PDFS_BYTES_MAX"), ("zotero", "files", "ZOTERO_BYTES_MAX")],
)  # fmt: skip
async def test_too_much_is_400_before_all_of_it_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, field: str, limit: str
):
    assert getattr(older, limit) // older.MIB in (50, 200, 500)
    monkeypatch.setattr(older, limit, 1000)
    files = [(field, ("a.pdf", b"x" * 600)), (field, ("b.rdf" if path == "zotero" else "b.pdf", b"x" * 600))]
    if path == "pdf":
        files = [(field, ("a.pdf", b"x" * 1001))]
    answer = await world.http.post(f"/api/import/{path}", files=files)
    assert (answer.status_code, answer.json()["code"]) == (400, "request_too_large")
    assert world.blob_files() == []


async def test_a_library_that_cannot_be_read_is_400_and_no_job(world: World):
    world.found.problems = (
        FoundProblem(code="xml_damaged", subject="x.rdf", message="Line 3 ends too early."),
    )
    files = [("files", ("x.rdf", b"<"))]
    answer = await world.http.post("/api/import/zotero", files=files)
    assert (answer.status_code, answer.json()["code"]) == (400, "xml_damaged")
    checked = (await world.http.post("/api/import/zotero/validate", files=files)).json()
    assert (checked["valid"], checked["errors"]) == (False, ["x.rdf: Line 3 ends too early."])
    assert world.commands.appended == []


async def test_an_export_is_looked_at_without_importing_it(world: World):
    world.found.items = 12
    world.found.problems = (FoundProblem(code="attachment_missing", message="not there", is_fatal=False),)
    names = ("Lib/Lib.rdf", "Lib/files/3/a.pdf", "Lib/files/4/b.pdf")
    answer = await world.http.post(
        "/api/import/zotero/validate", files=[("files", (name, name.encode())) for name in names]
    )
    assert answer.json() == {
        "valid": True,
        "folder_path": "Lib",
        "rdf_file": "Lib.rdf",
        "items_count": 12,
        "pdfs_available": 2,
        "has_files_dir": True,
        "errors": [],
        "warnings": ["not there"],
    }
    assert world.commands.appended == []


# --- folders of the service's machine -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "root" / "Review"
    (made / "data" / "02_screening").mkdir(parents=True)
    (made / "config.yaml").write_text("project: {}\n")
    (made / ".scholarag").write_text("{}")
    (made / "data" / "02_screening" / "relevant_papers.csv").write_text("title\nA\n")
    return made


@pytest.fixture
def rooted(tmp_path: Path, folder: Path):
    made = World(tmp_path / "w", allowed_roots_raw=str(folder.parent))
    yield made
    made.close()


async def ask_folder(world: World, path: str, what: str = "scholarag", **more: Any) -> httpx.Response:
    return await world.http.post(f"/api/import/{what}", json={"folder_path": path, **more})


async def test_a_folder_is_looked_at_and_imported(rooted: World, folder: Path):
    checked = (await ask_folder(rooted, str(folder), "scholarag/validate")).json()
    assert checked == {
        "valid": True,
        "folder_path": str(folder),
        "config_found": True,
        "scholarag_metadata_found": True,
        "papers_csv_found": True,
        "papers_count": 1,
        "pdfs_count": 0,
        "chroma_db_found": False,
        "errors": [],
        "warnings": [],
    }
    answer = await ask_folder(rooted, str(folder), project_name="Review 1", extract_entities=False)
    assert (answer.status_code, set(answer.json())) == (200, JOB)
    asked = command(rooted)
    assert (asked.source.kind, asked.project_name) == (SourceKind.SCHOLARAG, "Review 1")


async def test_a_folder_that_is_not_there_is_not_valid(rooted: World, folder: Path):
    checked = (await ask_folder(rooted, f"{folder}-2", "scholarag/validate")).json()
    assert (checked["valid"], checked["errors"]) == (False, ["Folder not found."])
    assert (await ask_folder(rooted, f"{folder}-2")).status_code == 400


@pytest.mark.parametrize("what", ["scholarag", "scholarag/validate"])
async def test_paths_keep_the_older_rules(
    world: World, rooted: World, folder: Path, tmp_path: Path, what: str
):
    async def status(asked: World, path: str) -> int:
        return (await ask_folder(asked, path, what)).status_code

    assert await status(world, str(folder)) == 503, "no root is set"
    assert await status(rooted, "Review") == 400, "relative"
    assert await status(rooted, "/a" * older.PATH_PARTS_MAX) == 400, "too deep"
    assert await status(rooted, str(tmp_path)) == 403, "outside"
    os.symlink(tmp_path, folder.parent / "link")  # noqa: PTH211 - the same call for what pathlib would name twice
    assert await status(rooted, str(folder.parent / "link")) == 403, "a link that leads outside"
    climbing = await ask_folder(rooted, f"{folder.parent}/../w", what)
    assert climbing.status_code == 400 or climbing.json()["errors"] == ["Folder not found."], "“..” is “.”"
    assert await status(rooted, str(folder).replace("/", "\\") + "\u0007") == 200, "cleaned first"


# --- jobs ---------------------------------------------------------------------------------------------------------


async def test_a_job_is_looked_up_by_its_id(world: World):
    job_id = (await pdf(world)).json()["job_id"]
    body = (await world.http.get(f"/api/import/status/{job_id}")).json()
    assert set(body) == JOB
    assert (body["job_id"], body["status"], body["progress"]) == (job_id, "extracting", 0.0)
    for unknown in ("nonsense", str(new_import_id())):
        for path in (f"status/{unknown}", f"resume/{unknown}/info"):
            assert (await world.http.get(f"/api/import/{path}")).status_code == 404
        assert (await world.http.post(f"/api/import/resume/{unknown}")).status_code == 404


async def cancel(world: World, job_id: str) -> None:
    assert (await world.http.post(f"/api/imports/{job_id}/cancel")).status_code == 202


async def test_jobs_are_listed_newest_first_and_filtered(world: World):
    ids = [(await pdf(world, f"{name}.pdf")).json()["job_id"] for name in "abc"]
    await cancel(world, ids[1])

    async def listed(**params: Any) -> list[dict[str, Any]]:
        return (await world.http.get("/api/import/jobs", params=params)).json()

    rows = await listed()
    assert [row["job_id"] for row in rows] == ids[::-1]
    assert all(set(row) == JOB - {"result"} for row in rows)
    assert set(rows[0]["metadata"]) == {"project_name", "checkpoint"}
    assert rows[0]["metadata"]["checkpoint"]["project_id"] == rows[0]["project_id"]
    assert [row["job_id"] for row in await listed(status="failed")] == [ids[1]]
    assert [row["job_id"] for row in await listed(status="cancelled")] == [ids[1]]
    assert [row["job_id"] for row in await listed(status="running", limit=1)] == [ids[2]]
    assert await listed(status="interrupted") == []
    assert len(await listed(status="no-such-status")) == 3
    assert len(await listed(limit=10**30)) == 3


async def test_an_open_job_is_resumed_by_doing_nothing(world: World):
    job_id = (await pdf(world)).json()["job_id"]
    info = (await world.http.get(f"/api/import/resume/{job_id}/info")).json()
    assert set(info) == {"job_id", "status", "can_resume", "checkpoint", "error", "message"}
    assert set(info["checkpoint"]) == {
        "processed_count", "total_papers", "last_processed_index", "project_id", "stage", "updated_at",
    }  # fmt: skip
    assert info["can_resume"] is False
    answer = await world.http.post(f"/api/import/resume/{job_id}")
    assert (answer.status_code, set(answer.json()), answer.json()["job_id"]) == (200, JOB, job_id)
    assert len(world.commands.appended) == 1


async def test_a_resume_needs_no_upload_and_no_checkpoint(world: World):
    """The older service answered 400 here: “re-upload”, or “Checkpoint is missing project_id”."""
    files = [("files", ("Library.rdf", b"<rdf:RDF/>"))]
    body = (await world.http.post("/api/import/zotero", files=files)).json()
    job_id = body["job_id"]
    assert set(body) == ACCEPTED | {"items_count"}
    await cancel(world, job_id)
    info = (await world.http.get(f"/api/import/resume/{job_id}/info")).json()
    assert (info["status"], info["can_resume"]) == ("failed", True)
    assert info["checkpoint"]["project_id"] == body["project_id"]
    answer = await world.http.post(f"/api/import/resume/{job_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "extracting")
    assert answer.json()["project_id"] == body["project_id"]
    assert isinstance(world.commands.appended[-1], ResumeImport)


async def test_a_job_that_nobody_has_decided_yet_is_pending(world: World):
    world.commands.is_folding = False
    job_id = (await pdf(world)).json()["job_id"]
    assert (await world.http.get(f"/api/import/status/{job_id}")).json()["status"] == "pending"


async def test_nothing_is_ever_interrupted(world: World):
    body = (await world.http.request("DELETE", "/api/import/jobs/interrupted")).json()
    assert (set(body), body["deleted_count"]) == ({"deleted_count", "message"}, 0)


async def test_csv_says_where_to_send_it(world: World):
    answer = await world.http.post("/api/import/csv?project_id=x", files={"file": ("a.csv", b"a,b")})
    assert (answer.status_code, set(answer.json())) == (501, PROBLEM)
    assert "POST /api/imports" in answer.json()["action"]


async def test_the_older_paths_are_marked_deprecated(world: World):
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    older_ones = {path: each for path, each in paths.items() if path.startswith("/api/import/")}
    assert len(older_ones) == 12
    for path, methods in older_ones.items():
        assert all(each.get("deprecated") for each in methods.values()), path
