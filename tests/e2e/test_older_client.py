"""A client of the replaced system, as it was written: its calls in its order, against the whole stack.

It looks at a Zotero export, uploads it with loose file names as browsers send them, asks for the status every so often,
lists the jobs, and asks what a resume would do and for the resume.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.stack import Stack, until

LIBRARY = Path(__file__).resolve().parents[2] / "examples" / "library"
POLL_S = 0.5
"""The client's own was 2 s."""

VALIDATED = {
    "valid": bool, "folder_path": str, "rdf_file": str, "items_count": int, "pdfs_available": int,
    "has_files_dir": bool, "errors": list, "warnings": list,
}  # fmt: skip
STARTED = {"job_id": str, "status": str, "message": str, "project_id": str, "reliability_summary": type(None)}
JOB = {
    **STARTED, "progress": float, "stats": dict, "result": dict | None, "created_at": str, "updated_at": str,
    "metadata": dict | None,
}  # fmt: skip
RESUME_INFO = {
    "job_id": str, "status": str, "can_resume": bool, "checkpoint": dict, "error": str | None, "message": str,
}  # fmt: skip
CHECKPOINT = {
    "processed_count": int, "total_papers": int, "last_processed_index": int, "project_id": str, "stage": str,
    "updated_at": str,
}  # fmt: skip
STATS = {
    "papers_imported": int, "papers_failed": int, "pdfs_processed": int, "authors_extracted": int,
    "concepts_extracted": int, "chunks_created": int, "relationships_created": int, "errors": list, "warnings": list,
}  # fmt: skip
RESULT = {"project_id": str, "nodes_created": int, "edges_created": int}
STATUSES = {
    "pending", "validating", "extracting", "processing", "building_graph", "completed", "failed", "interrupted",
}  # fmt: skip

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


def check(answer: Any, shape: dict[str, Any]) -> dict[str, Any]:
    assert set(answer) == set(shape), answer
    for key, kind in shape.items():
        assert isinstance(answer[key], kind), f"{key}: {answer[key]!r}"
    return dict(answer)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{stack.http}/api/import", timeout=60) as made:
        yield made


def loose() -> list[tuple[str, tuple[str, bytes]]]:
    """The export's files without their folders: the `.rdf`, and every PDF by its own name."""
    paths = sorted(path for path in LIBRARY.rglob("*") if path.is_file())
    return [("files", (path.name, path.read_bytes())) for path in paths]


def poll(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Until the job has ended; progress never goes back."""
    seen = [0.0]
    last: dict[str, Any] = {}

    def has_ended() -> bool:
        last.update(check(client.get(f"/status/{job_id}").json(), JOB))
        assert last["status"] in STATUSES
        assert last["progress"] >= seen[-1]
        seen.append(last["progress"])
        if last["status"] in ("completed", "failed", "interrupted"):
            return True
        time.sleep(POLL_S)  # as the client waits between two looks
        return False

    until(has_ended, 180, lambda: last)
    return last


def test_the_whole_sequence_of_an_older_client(client: httpx.Client):
    looked_at = check(client.post("/zotero/validate", files=loose()).json(), VALIDATED)
    assert (looked_at["valid"], looked_at["errors"]) == (True, [])
    assert looked_at["items_count"] >= 9
    assert looked_at["pdfs_available"] == 7

    answer = client.post(
        "/zotero", files=loose(), params={"project_name": "Old friends", "extract_concepts": True}
    )
    assert answer.status_code == 200, answer.text
    started = check(answer.json(), {**STARTED, "items_count": int})
    job_id = started["job_id"]

    done = poll(client, job_id)
    assert (done["status"], done["progress"]) == ("completed", 1.0)
    assert done["project_id"] == started["project_id"]
    stats = check(done["stats"], STATS)
    assert stats["papers_imported"] >= 9
    assert stats["pdfs_processed"] >= 5, "loose PDFs find their items"
    assert min(stats[key] for key in ("authors_extracted", "concepts_extracted", "chunks_created")) > 9
    assert any("14" in one or "Ribeiro" in one for one in stats["errors"]), "the broken PDF is named"
    result = check(done["result"], RESULT)
    assert result["nodes_created"] > 20
    assert result["edges_created"] > 20

    (listed,) = [
        job for job in client.get("/jobs", params={"status": "completed"}).json() if job["job_id"] == job_id
    ]
    check(listed, {key: kind for key, kind in JOB.items() if key != "result"})
    check(listed["metadata"], {"project_name": str, "checkpoint": dict})
    assert listed["metadata"]["project_name"] == "Old friends"

    info = check(client.get(f"/resume/{job_id}/info").json(), RESUME_INFO)
    checkpoint = check(info["checkpoint"], CHECKPOINT)
    assert checkpoint["project_id"] == started["project_id"]
    assert checkpoint["processed_count"] == checkpoint["total_papers"]

    resumed = client.post(f"/resume/{job_id}")
    assert resumed.status_code == 200, resumed.text  # the broken PDF is tried once more
    assert check(resumed.json(), JOB)["job_id"] == job_id
    assert poll(client, job_id)["status"] == "completed"

    assert client.delete("/jobs/interrupted").json()["deleted_count"] == 0


def test_a_job_that_was_stopped_is_resumed_without_an_upload(stack: Stack, client: httpx.Client):
    pdf = next(LIBRARY.rglob("Halonen*.pdf"))
    answer = client.post(
        "/pdf", files={"file": (pdf.name, pdf.read_bytes())}, params={"project_name": "One paper"}
    )
    job_id = check(answer.json(), {**STARTED, "filename": str})["job_id"]
    stack.request("POST", f"/api/imports/{job_id}/cancel")
    if poll(client, job_id)["status"] == "failed":  # else it was faster than the word to stop
        assert client.get(f"/resume/{job_id}/info").json()["can_resume"] is True
        answer = client.post(f"/resume/{job_id}")
        assert answer.status_code == 200, answer.text
        assert "project_id" not in answer.json()["message"]
    assert poll(client, job_id)["status"] == "completed"
    refused = client.post(f"/resume/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (400, "nothing_to_resume")
    assert isinstance(refused.json()["detail"], str)
