"""Search, graph, verify and resume: what is asked of the neighbours, and what is said when they are away."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from tests.unit.ingest_http.world import LOCAL, OTHER, T0, World

from eventlog.events import (
    ChunkOutcome,
    ChunksSettled,
    DocumentParsed,
    DocumentPart,
    ImportCompleted,
    ImportRefused,
    ImportSealed,
    Part,
    RefusalReason,
    Remark,
    RequestImport,
    SettledChunk,
)
from eventlog.ids import ChunkId, DocumentId, ImportId, StoreId, new_import_id
from ingest.http import comparing
from ingest.http.health import STILL_AFTER_S
from ingest.neighbours import READY_TIMEOUT_S
from ingest.projection import Requested
from ingest.state import ImportStatus

CLEAN = {"checked_count": 1, "missing": [], "extra": [], "different": []}
SEARCH = "POST writer.test /search"
VERIFY = "POST writer.test /verify"
EMBED = "POST embedder.test /embed"


async def a_completed_import(world: World, documents: int = 1, **totals: int) -> ImportStatus:
    """With one stored chunk per document."""
    await world.ask({"a.pdf": b"a"}, project="P")
    status = world.projection.statuses(before=None, limit=1)[0]
    base: dict[str, Any] = {
        "import_id": status.import_id,
        "project_id": status.project_id,
        "attempt": 1,
        "occurred_at": T0,
    }
    store = StoreId(new_import_id())
    for number in range(documents):
        document, chunk = DocumentId(new_import_id()), ChunkId(new_import_id())
        await world.commands.happen(
            DocumentParsed(
                **base,
                document_id=document,
                revision=1,
                content_hash="h",
                parts=(DocumentPart(part=Part.FULL_TEXT, chunk_ids=(chunk,)),),
                title=f"Title {number}",
            ),
            ChunksSettled(
                **base,
                space=LOCAL,
                store_id=store,
                chunks=(
                    SettledChunk(
                        partition=0,
                        offset=number,
                        chunk_id=chunk,
                        document_id=document,
                        revision=1,
                        chunk_index=0,
                        outcome=ChunkOutcome.STORED,
                        content_hash=b"\x01\x02",
                    ),
                ),
            ),
        )
    await world.commands.happen(
        ImportSealed(**base, document_count=documents, chunk_count=documents),
        ImportCompleted(
            **base,
            revision=1,
            store_id=store,
            digest="d",
            chunk_count=documents,
            stored_count=documents,
            **totals,
        ),
    )
    found = world.projection.status(status.import_id)
    assert found is not None
    return found


# --- search ------------------------------------------------------------------------------------------------------


async def test_a_search_asks_for_the_querys_vector_in_the_projects_space(world: World):
    await world.ask({"a.pdf": b"a"}, project="P")
    world.neighbours.answers |= {
        EMBED: {"vector": "AAAA"},
        SEARCH: {"results": [{"title": "T"}], "mode": "hybrid"},
    }
    answer = await world.http.get("/api/search", params={"q": "what is it", "project": "p"})
    assert answer.json() == {"results": [{"title": "T"}], "mode": "hybrid", "space": LOCAL, "message": None}
    asked = dict(world.neighbours.asked)
    assert asked[EMBED] == {"text": "what is it", "side": "query"}
    assert asked[SEARCH]["vector"] == "AAAA"
    assert asked[SEARCH]["project_id"] == str(world.projection.projects()[0].project_id)


@pytest.mark.parametrize("mode", ["hybrid", "meaning"])
async def test_without_an_embedder_words_answer_and_it_is_said(mode: str, world: World):
    world.neighbours.away.add("embedder.test")
    world.neighbours.answers[SEARCH] = lambda asked: {"results": [], "mode": asked["mode"]}
    answer = (await world.http.get("/api/search", params={"q": "x", "mode": mode})).json()
    assert answer["mode"] == "words"
    assert LOCAL in answer["message"]


async def test_a_slow_embedder_is_not_waited_for(world: World, monkeypatch):
    from ingest import neighbours

    monkeypatch.setattr(neighbours, "EMBED_TIMEOUT_S", 0.05)

    async def never(_request: httpx.Request) -> httpx.Response:
        import asyncio

        await asyncio.Event().wait()
        raise AssertionError

    client = httpx.AsyncClient(transport=httpx.MockTransport(never))
    embedder = neighbours.EmbedderClient(client, world.settings.embedders)
    assert await embedder.query_vector(LOCAL, "x") is None


async def test_a_search_across_spaces_is_refused(world: World):
    await world.ask({"a.pdf": b"a"}, project="P")
    await world.ask({"b.pdf": b"b"}, project="Q", space=OTHER)
    answer = await world.http.get("/api/search", params={"q": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "space_ambiguous")
    answer = await world.http.get("/api/search", params={"q": "x", "project": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (404, "project_unknown")


async def test_an_absent_store_is_said_with_its_reasons(world: World):
    world.neighbours.answers[EMBED] = {"vector": "AAAA"}
    world.neighbours.answers[SEARCH] = httpx.Response(
        503, json={"code": "not_ready", "reasons": ["catching_up"]}
    )
    answer = await world.http.get("/api/search", params={"q": "x"})
    assert (answer.status_code, answer.json()["code"], answer.json()["reasons"]) == (
        503,
        "store_unavailable",
        ["catching_up"],
    )
    assert answer.headers["Retry-After"]
    world.neighbours.away.add("writer.test")
    assert (await world.http.get("/api/search", params={"q": "x"})).status_code == 503


async def test_a_graph_is_passed_on_as_it_is(world: World):
    await world.ask({"a.pdf": b"a"}, project="P / Q?")
    project = world.projection.projects()[0]
    world.neighbours.answers[f"GET writer.test /projects/{project.project_id}/graph"] = {
        "nodes": [],
        "edges": [],
    }
    for name in (str(project.project_id), "p / q?"):
        answer = await world.http.get(f"/api/projects/{quote(name, safe='')}/graph")
        assert answer.json() == {"nodes": [], "edges": []}
    assert (await world.http.get("/api/projects/none/graph")).json()["code"] == "project_unknown"


async def test_projects_and_spaces_are_listed(world: World):
    await world.ask({"a.pdf": b"a"}, project="P", space=OTHER)
    projects = (await world.http.get("/api/projects")).json()["projects"]
    assert [(one["name"], one["space"]) for one in projects] == [("P", OTHER)]
    assert (await world.http.get("/api/spaces")).json()["spaces"] == [LOCAL, OTHER]


# --- verify and resume -------------------------------------------------------------------------------------------


async def test_verify_sends_what_the_log_lists_page_by_page(world: World, monkeypatch):
    monkeypatch.setattr(comparing, "PAGE_DOCUMENTS_MAX", 2)
    status = await a_completed_import(world, documents=5)
    world.neighbours.answers[VERIFY] = lambda asked: CLEAN | {"checked_count": len(asked["documents"])}
    answer = (await world.http.post(f"/api/imports/{status.import_id}/verify")).json()
    assert (answer["is_clean"], answer["checked_count"]) == (True, 5)
    pages = [asked for key, asked in world.neighbours.asked if key == VERIFY]
    assert [len(page["documents"]) for page in pages] == [2, 2, 1]
    assert pages[0]["documents"][0]["revision"] == 1, "the offset of ImportRequested, after ProjectCreated"
    chunk = pages[0]["documents"][0]["chunks"][0]
    assert (chunk["outcome"], chunk["content_hash"], chunk["part"]) == ("stored", "0102", "full_text")


async def test_verify_names_what_it_finds_and_counts_what_it_does_not_name(world: World, monkeypatch):
    monkeypatch.setattr(comparing, "LISTED_MAX", 2)
    status = await a_completed_import(world)
    document = world.projection.documents(status.import_id, after=0, limit=1)[0].document_id
    finding = {"document_id": str(document), "chunk_id": None, "kind": "node", "id": "x", "title": ""}
    world.neighbours.answers[VERIFY] = CLEAN | {"missing": [finding] * 5}
    answer = (await world.http.post(f"/api/imports/{status.import_id}/verify")).json()
    assert answer["is_clean"] is False
    assert (answer["missing_count"], len(answer["missing"])) == (5, 2)
    assert answer["missing"][0]["title"] == "Title 0"


async def test_verify_asks_for_nothing_more_when_its_caller_has_gone(world: World, monkeypatch):
    monkeypatch.setattr(comparing, "PAGE_DOCUMENTS_MAX", 2)
    status = await a_completed_import(world, documents=5)
    is_gone = asyncio.Event()

    def answer(_: object) -> dict[str, object]:
        is_gone.set()
        return CLEAN

    async def receive() -> dict[str, object]:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        pass

    world.neighbours.answers[VERIFY] = answer
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/api/imports/{status.import_id}/verify",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }
    await world.app(scope, receive, send)
    assert len([key for key, _ in world.neighbours.asked if key == VERIFY]) == 1, "of three pages"


async def test_resume_of_a_complete_and_verified_import_changes_nothing(world: World):
    status = await a_completed_import(world)
    world.neighbours.answers[VERIFY] = CLEAN
    answer = await world.http.post(f"/api/imports/{status.import_id}/resume")
    assert (answer.status_code, answer.json()["attempt"]) == (200, 1)
    assert len(world.commands.appended) == 1, "only the request itself"


async def test_resume_drives_what_the_store_lacks(world: World):
    status = await a_completed_import(world)
    world.neighbours.answers[VERIFY] = CLEAN | {"missing": [{"document_id": "x"}]}
    answer = await world.http.post(f"/api/imports/{status.import_id}/resume")
    assert (answer.status_code, answer.json()["attempt"], answer.json()["state"]) == (202, 2, "parsing")
    again = await world.http.post(f"/api/imports/{status.import_id}/resume")
    assert (again.status_code, again.json()["attempt"]) == (202, 2), "it goes on already"
    assert len(world.commands.appended) == 2


async def test_resume_drives_what_was_rejected_without_asking_the_store(world: World):
    status = await a_completed_import(world, rejected_count=1)
    world.neighbours.away.add("writer.test")
    assert (await world.http.post(f"/api/imports/{status.import_id}/resume")).status_code == 202


async def test_resume_of_a_cancelled_import_drives_it(world: World):
    made = (await world.ask({"a.pdf": b"a"})).json()
    answer = await world.http.post(f"/api/imports/{made['import_id']}/resume")
    assert (answer.status_code, answer.json()["attempt"]) == (202, 1), (
        "interrupted or not, it goes on by itself"
    )
    await world.http.post(f"/api/imports/{made['import_id']}/cancel")
    answer = await world.http.post(f"/api/imports/{made['import_id']}/resume")
    assert (answer.status_code, answer.json()["attempt"]) == (202, 2)


async def test_resume_names_the_files_that_are_gone(world: World):
    made = (await world.ask({"L/a.pdf": b"a", "L/b.pdf": b"b"})).json()
    await world.http.post(f"/api/imports/{made['import_id']}/cancel")
    (await world.blobs.local(await world.put(b"b"))).unlink()
    answer = await world.http.post(f"/api/imports/{made['import_id']}/resume")
    assert (answer.status_code, answer.json()["code"], answer.json()["files"]) == (
        409,
        "files_missing",
        ["L/b.pdf"],
    )
    await world.put(b"b")
    assert (await world.http.post(f"/api/imports/{made['import_id']}/resume")).status_code == 202


async def test_a_refused_request_cannot_be_resumed_and_says_why(world: World):
    world.commands.is_folding = False
    made = (await world.ask({"a.pdf": b"a"})).json()
    command = world.commands.appended[0]
    assert isinstance(command, RequestImport)
    assert command.import_id is not None
    requested = Requested(import_id=command.import_id, command_id="c", command=command, space=LOCAL)
    world.projection.apply_requests([requested], 1)
    await world.commands.happen(
        ImportRefused(
            import_id=command.import_id,
            command_id="c",
            reason=RefusalReason.SPACE_MISMATCH,
            occurred_at=T0,
            message="P is elsewhere",
        )
    )
    answer = await world.http.post(f"/api/imports/{made['import_id']}/resume")
    assert (answer.status_code, answer.json()["code"]) == (409, "import_refused")
    assert "P is elsewhere" in answer.json()["detail"]


async def test_a_damaged_index_is_said_to_be_made_again_and_heard_of(world: World):
    made = (await world.ask({"a.pdf": b"a"})).json()
    world.projection._write.executescript("DROP TABLE documents")
    answer = await world.http.get(f"/api/imports/{made['import_id']}/documents")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (
        503,
        "index_rebuilding",
        True,
    )
    assert world.damages == 1


# --- lists of one import -----------------------------------------------------------------------------------------


async def test_documents_are_paged_with_their_chunks(world: World):
    status = await a_completed_import(world, documents=5)
    titles, after = [], None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = (await world.http.get(f"/api/imports/{status.import_id}/documents", params=params)).json()
        titles += [one["title"] for one in page["documents"]]
        assert all(one["chunks"]["stored"] == 1 for one in page["documents"])
        after = page["next"]
        if after is None:
            break
    assert titles == [f"Title {n}" for n in range(5)]


async def test_chunks_are_listed_by_outcome(world: World):
    status = await a_completed_import(world, documents=3)
    url = f"/api/imports/{status.import_id}/chunks"
    page = (await world.http.get(url, params={"status": "stored", "limit": 2})).json()
    rest = (await world.http.get(url, params={"status": "stored", "limit": 2, "after": page["next"]})).json()
    assert len(page["chunks"] + rest["chunks"]) == 3 or rest["next"]
    assert (await world.http.get(url, params={"status": "rejected"})).json() == {"chunks": [], "next": None}


# --- waiting and readiness ---------------------------------------------------------------------------------------


async def test_ready_means_that_imports_and_searches_work(world: World):
    assert (await world.http.get("/readyz")).json() == {"ready": True, "reasons": []}
    world.log_reasons.append("catching_up")
    answer = await world.http.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["catching_up"])


async def test_readiness_of_the_neighbours_is_asked_at_most_every_five_seconds(world: World):
    for _ in range(3):
        await world.http.get("/readyz")
    assert len([key for key, _ in world.neighbours.asked if key.endswith("/readyz")]) == 2
    world.neighbours.away |= {"writer.test", "embedder.test"}
    assert (await world.http.get("/readyz")).status_code == 200
    world.clock.advance(6)
    answer = await world.http.get("/readyz")
    assert set(answer.json()["reasons"]) == {"graph_writer_unreachable", "no_embedder"}
    assert (await world.http.get("/livez")).status_code == 200, "an outage never makes us dead"


async def test_a_neighbour_that_is_not_ready_is_asked_again_soon(world: World):
    world.neighbours.away.add("writer.test")
    assert (await world.http.get("/readyz")).json()["reasons"] == ["graph_writer_unreachable"]
    world.neighbours.away.clear()
    world.clock.advance(0.6)
    assert (await world.http.get("/readyz")).json() == {"ready": True, "reasons": []}


async def test_a_neighbour_that_answers_late_is_not_asked_again_soon(world: World):
    def late(_: object) -> httpx.Response:
        world.clock.advance(READY_TIMEOUT_S)
        raise httpx.ReadTimeout("late")

    world.neighbours.answers["GET writer.test /readyz"] = late
    for _ in range(2):
        assert (await world.http.get("/readyz")).json()["reasons"] == ["graph_writer_unreachable"]
        world.clock.advance(0.6)
    assert [key for key, _ in world.neighbours.asked].count("GET writer.test /readyz") == 1


async def test_an_import_without_an_embedder_says_what_it_waits_for(world: World):
    made = (await world.ask({"a.pdf": b"a"}, space=OTHER)).json()
    assert made["waiting"] == "no_embedder"


async def test_a_restarting_embedder_is_not_reported_at_once(world: World):
    world.neighbours.away.add("embedder.test")
    made = (await world.ask({"a.pdf": b"a"})).json()
    assert made["waiting"] is None
    world.clock.advance(11)
    assert (await world.http.get(f"/api/imports/{made['import_id']}")).json()["waiting"] == "no_embedder"


async def test_many_dead_letters_in_a_row_are_said(world: World):
    world.neighbours.answers["GET writer.test /readyz"] = httpx.Response(
        503, json={"ready": False, "reasons": ["dead_letters"]}
    )
    made = (await world.ask({"a.pdf": b"a"})).json()
    assert made["waiting"] == "dead_letters"
    assert (await world.http.get("/readyz")).json()["reasons"] == ["graph_writer_dead_letters"]


async def test_an_import_that_stands_still_beside_a_letter_of_nobody_waits_for_the_dead_letters(world: World):
    made = (await world.ask({"a.pdf": b"a"}, project="P")).json()
    import_id = ImportId(UUID(made["import_id"]))
    base: dict[str, Any] = {"import_id": import_id, "project_id": UUID(made["project_id"]), "attempt": 1}

    async def waiting() -> str | None:
        return (await world.http.get(f"/api/imports/{import_id}")).json()["waiting"]

    world.nameless_letter_at = T0
    world.clock.advance(STILL_AFTER_S)
    assert await waiting() is None, "it is being parsed, which may take long"
    sealed = ImportSealed(**base, occurred_at=world.clock.now(), document_count=1, chunk_count=1)
    await world.commands.happen(sealed)
    world.clock.advance(STILL_AFTER_S - 1)
    assert await waiting() is None, "something may be on its way"
    world.clock.advance(1)
    assert await waiting() == "dead_letters"
    world.nameless_letter_at = T0 - timedelta(seconds=1)
    assert await waiting() is None, "a letter from before the import is none of it"


async def test_warnings_are_read_by_name_and_paged(world: World):
    status = await a_completed_import(world)
    base: dict[str, Any] = {"project_id": status.project_id, "attempt": 1, "occurred_at": T0}
    asked = await world.ask({"b.pdf": b"b"}, project="P")
    base["import_id"] = ImportId(UUID(asked.json()["import_id"]))
    document = DocumentId(new_import_id())
    missing = tuple(Remark(code="attachment_missing", subject=f"{n}.pdf", message="gone") for n in range(3))
    await world.commands.happen(
        DocumentParsed(
            **base,
            document_id=document,
            revision=1,
            content_hash="h",
            parts=(),
            title="Soil",
            warnings=missing,
        ),
        ImportSealed(
            **base, document_count=1, chunk_count=0, warnings=(Remark(code="cut", subject="", message="m"),)
        ),
    )
    path, params, pages = f"/api/imports/{base['import_id']}/warnings", {"limit": 2}, []
    while not pages or pages[-1]["next"]:
        pages.append((await world.http.get(path, params=params)).json())
        params["after"] = pages[-1]["next"]
    assert [len(page["warnings"]) for page in pages] == [2, 2]
    first, *_, last = (one for page in pages for one in page["warnings"])
    assert first == {
        "code": "attachment_missing",
        "subject": "0.pdf",
        "message": "gone",
        "document_id": str(document),
        "title": "Soil",
    }
    assert (last["code"], last["document_id"], last["title"]) == ("cut", None, None)
    assert (await world.http.get(f"/api/imports/{status.import_id}/warnings")).json()["warnings"] == []


async def test_an_import_that_waits_behind_our_own_dead_letters_says_so(world: World):
    world.log_reasons.append("dead_letters")
    made = (await world.ask({"a.pdf": b"a"})).json()
    assert made["waiting"] == "dead_letters"
