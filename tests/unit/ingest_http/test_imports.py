"""Asking for an import: one import for one key, nothing accepted and lost, errors that say what to do."""

import asyncio
import json

from tests.unit.ingest_http.world import LOCAL, OTHER, T0, FoundProblem, World, a_zip, sha256

from eventlog.events import FailureReason, ImportFailed, RequestImport
from eventlog.ids import import_id_of_key, project_id
from ingest.http import accepting


async def test_a_request_is_answered_with_the_import_it_made(world: World):
    answer = await world.ask({"Library/a.pdf": b"a"})
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/imports/{body['import_id']}"
    assert (body["project"], body["is_new"], body["space"]) == ("a", True, LOCAL)
    assert (await world.http.get(answer.headers["Location"])).json()["import_id"] == body["import_id"]


async def test_the_same_key_and_body_is_one_import(world: World):
    first = await world.ask({"a.pdf": b"a"}, key="k")
    second = await world.ask({"a.pdf": b"a"}, key="k")
    assert [first.json()["is_new"], second.json()["is_new"]] == [True, False]
    assert first.json()["import_id"] == second.json()["import_id"] == str(import_id_of_key("anonymous", "k"))
    assert second.status_code == 202
    assert len(world.commands.appended) == 1


async def test_the_same_key_twice_at_once_is_one_command(world: World):
    answers = await asyncio.gather(*(world.ask({"a.pdf": b"a"}, key="k") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(answer.json()["is_new"] for answer in answers) == [False] * 7 + [True]
    assert len(world.commands.appended) == 1


async def test_the_same_key_with_another_body_is_refused(world: World):
    await world.ask({"a.pdf": b"a"}, key="k")
    answer = await world.ask({"a.pdf": b"other"}, key="k")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert len(world.commands.appended) == 1


async def test_a_key_is_known_before_its_command_is_folded(world: World, monkeypatch):
    monkeypatch.setattr(accepting, "FOLDED_WITHIN_S", 0.05)
    world.commands.is_folding = False
    first = await world.ask({"a.pdf": b"a"}, key="k")
    assert first.json()["state"] == "accepted"
    assert (await world.http.get(first.headers["Location"])).json()["state"] == "accepted"
    assert (await world.ask({"a.pdf": b"a"}, key="k")).json()["is_new"] is False
    assert (await world.ask({"a.pdf": b"b"}, key="k")).status_code == 422
    assert len(world.commands.appended) == 1


async def test_what_the_log_does_not_take_is_not_accepted(world: World):
    world.commands.is_down = True
    answer = await world.ask({"a.pdf": b"a"}, key="k")
    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    assert answer.json()["retryable"] is True
    assert answer.headers["content-type"] == "application/problem+json"
    world.commands.is_down = False
    assert (await world.ask({"a.pdf": b"a"}, key="k")).json()["is_new"] is True


async def test_a_fatal_problem_is_refused_before_anything_is_written(world: World):
    world.found.problems = (
        FoundProblem(code="xml_damaged", subject="x.rdf", message="Line 3 ends too early."),
    )
    answer = await world.ask({"x.rdf": b"<"})
    assert (answer.status_code, answer.json()["code"]) == (422, "xml_damaged")
    assert "x.rdf" in answer.json()["detail"]
    assert world.commands.appended == []


async def test_files_that_the_store_lacks_are_named(world: World):
    answer = await world.http.post(
        "/api/imports", json={"source": {"files": [{"path": "a.pdf", "sha256": sha256(b"never sent")}]}}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "files_missing")
    assert answer.json()["files"] == ["a.pdf"]


async def test_a_project_keeps_its_space(world: World):
    await world.ask({"a.pdf": b"a"}, project="P", space=LOCAL)
    answer = await world.ask({"b.pdf": b"b"}, project="P", space=OTHER)
    assert (answer.status_code, answer.json()["code"]) == (422, "space_mismatch")
    answer = await world.ask({"b.pdf": b"b"}, project="Q", space="nobody/knows")
    assert (answer.status_code, answer.json()["code"]) == (422, "space_unknown")


async def test_many_files_become_a_manifest_with_one_hash(world: World):
    files = {f"L/{number:03}.pdf": b"%d" % number for number in range(201)}
    first = await world.ask(files, key="k")
    second = await world.ask(dict(reversed(files.items())), key="k")
    assert (first.status_code, second.json()["is_new"]) == (202, False)
    command = world.commands.appended[0]
    assert isinstance(command, RequestImport)
    assert (command.source.files, command.source.file_count) == ((), 201)
    path = await world.blobs.local(command.source.manifest_sha256 or "")
    rows = json.loads(path.read_bytes())
    assert rows[0] == {"path": "L/000.pdf", "sha256": sha256(b"0"), "size_bytes": 1}


async def test_a_zip_becomes_its_files_and_gives_its_name(world: World):
    answer = await world.ask(
        {"My Library.zip": a_zip({"x/a.pdf": b"a", "x/b.pdf": b"b", "__MACOSX/._a": b""})}
    )
    assert answer.json()["project"] == "My Library"
    command = world.commands.appended[0]
    assert isinstance(command, RequestImport)
    assert [file.path for file in command.source.files] == ["x/a.pdf", "x/b.pdf"]


async def test_a_form_is_an_import_too(world: World):
    answer = await world.http.post(
        "/api/imports",
        files=[("files", ("Lib/ä b.pdf", b"a")), ("files", ("Lib/b.pdf", b"b" * 3_000_000))],
        data={"project": "Mine", "options": '{"language": "de"}'},
    )
    assert answer.status_code == 202, answer.text
    command = world.commands.appended[0]
    assert isinstance(command, RequestImport)
    assert [(file.path, file.size_bytes) for file in command.source.files] == [
        ("Lib/b.pdf", 3_000_000),
        ("Lib/ä b.pdf", 1),
    ]
    assert (command.project_name, command.options) == ("Mine", {"language": "de"})
    assert world.blob_files() == sorted([sha256(b"a"), sha256(b"b" * 3_000_000)])


async def test_a_zip_in_a_form_leaves_only_its_files(world: World):
    answer = await world.http.post("/api/imports", files=[("files", ("L.zip", a_zip({"a.pdf": b"a"})))])
    assert answer.status_code == 202, answer.text
    assert world.blob_files() == [sha256(b"a")]


async def test_validate_tells_and_writes_no_command(world: World):
    world.found.problems = (FoundProblem(code="pdf_missing", subject="b.pdf", is_fatal=False),)
    answer = await world.http.post(
        "/api/imports/validate", files=[("files", ("L.zip", a_zip({"a.pdf": b"a"})))]
    )
    assert answer.status_code == 200
    assert answer.json()["kind"] == "pdf"
    assert answer.json()["problems"][0]["code"] == "pdf_missing"
    assert world.commands.appended == []


async def test_cancel_answers_by_what_the_import_is(world: World):
    made = (await world.ask({"a.pdf": b"a"})).json()
    url = f"/api/imports/{made['import_id']}/cancel"
    first = await world.http.post(url)
    assert (first.status_code, first.json()["state"]) == (202, "cancelled")
    assert (await world.http.post(url)).status_code == 200
    other = (await world.ask({"b.pdf": b"b"})).json()
    status = world.projection.statuses(before=None, limit=1)[0]
    await world.commands.happen(
        ImportFailed(
            import_id=status.import_id,
            project_id=status.project_id,
            attempt=1,
            occurred_at=T0,
            reason=FailureReason.SOURCE_EMPTY,
        )
    )
    answer = await world.http.post(f"/api/imports/{other['import_id']}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "import_finished")


async def test_the_list_is_paged_newest_first(world: World):
    ids = [(await world.ask({f"{n}.pdf": b"%d" % n}, project="P")).json()["import_id"] for n in range(5)]
    seen, before = [], None
    while True:
        params = {"limit": 2} | ({"before": before} if before else {})
        page = (await world.http.get("/api/imports", params=params)).json()
        seen += [row["import_id"] for row in page["imports"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ids[::-1]
    assert (await world.http.get("/api/imports", params={"project": "nobody"})).json()["imports"] == []


async def test_an_unknown_import_is_a_problem_document(world: World):
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("GET", "/documents"),
        ("GET", "/warnings"),
        ("GET", "/chunks"),
    ):
        answer = await world.http.request(method, f"/api/imports/{project_id('x')}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "import_unknown"), path
        assert set(answer.json()) >= {"type", "title", "status", "detail", "code", "retryable", "action"}


async def test_while_what_is_known_is_read_again_nothing_older_is_told(world: World):
    answer = await world.ask({"a.pdf": b"a"}, key="k")
    where = answer.headers["Location"]
    world.is_rebuilding = True
    for path in (
        where,
        "/api/imports",
        f"{where}/events",
        f"{where}/documents",
        f"/api/import/status/{where[-36:]}",
    ):
        refused = await world.http.get(path)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1"), path
    assert refused.json()["code"] == "catching_up"
    assert (await world.http.post(f"{where}/cancel")).status_code == 503
    assert (await world.ask({"a.pdf": b"a"}, key="k")).status_code == 202
    assert (await world.http.get("/livez")).status_code == 200
    world.is_rebuilding = False
    assert (await world.http.get(where)).status_code == 200
