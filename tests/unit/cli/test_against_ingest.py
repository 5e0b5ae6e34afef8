"""The command against ingest's own HTTP on a socket: both sides of the contract, with neighbours that are scripted."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import uvicorn
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_service import FakeService
from tests.unit.ingest_http.world import Found, FoundProblem, World

from eventlog.events import SourceKind
from eventlog.ids import ImportId
from ingest.state import State
from paperlog.main import Kind


class _Served:
    """Ingest's application in a loop and a thread of its own, because the command blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self.world = World(self._folder)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.world.app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=2
            )
        )
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # older uvicorns have it
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self._is_up.set()
        await serving
        await self.world.http.aclose()
        self.world.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)


@pytest.fixture
def served(tmp_path: Path, service: FakeService) -> Iterator[_Served]:
    with _Served(tmp_path / "world") as served:
        service.url = served.url  # The command is told this address.
        yield served


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "Soil and water"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "a.pdf").write_bytes(b"%PDF a")
    (folder / "empty.pdf").write_bytes(b"")
    return folder


def test_an_import_goes_in_once_and_is_found_under_its_names(run: Run, served: _Served, library: Path):
    first = run("import", str(library), "--no-wait")
    again = run("import", str(library), "--no-wait")
    assert (first.code, again.code) == (0, 0), first.err
    assert first.out == again.out
    assert "already imported" in again.err
    assert "already imported" not in first.err
    (command,) = served.world.commands.appended
    assert command.project_name == "Soil and water"
    status = json.loads(run("status", first.out.strip(), "--json").out)
    assert status["state"] == State.PARSING
    assert json.loads(run("imports", "--json").out)["imports"][0]["import_id"] == first.out.strip()
    assert "Soil and water" in run("imports", "--project", "soil AND water").out


def test_a_watched_import_ends_with_its_cancelling(run: Run, library: Path, served: _Served):
    import_id = run("import", str(library), "--no-wait").out.strip()
    assert "cancelled; what is stored stays" in run("cancel", import_id).err
    watched = run("watch", import_id)
    assert watched.code == 1
    assert "cancelled" in watched.err
    assert "cancelled before" in run("cancel", import_id).err
    assert "goes on" in run("resume", import_id).err


def test_validation_and_refusal_name_what_is_wrong(run: Run, served: _Served, library: Path):
    served.world.found = Found(
        items=0, problems=(FoundProblem(code="xml_damaged", subject="a.rdf", message="ends in line 3"),)
    )
    validated = run("validate", str(library))
    assert validated.code == 1
    assert "ends in line 3" in validated.out
    refused = run("import", str(library), "--no-wait")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.count("ends in line 3") == 1
    assert "what to do" in refused.err


def test_reads_are_passed_on(run: Run, served: _Served, library: Path):
    import_id = run("import", str(library), "--no-wait").out.strip()
    world = served.world
    project = str(world.projection.status(_id(import_id)).project_id)
    world.neighbours.away.add("embedder.test")
    world.neighbours.answers = {
        "POST writer.test /search": {
            "results": [{"title": "Rain", "text": "Rain falls.", "words": ["rain"], "score": 1.0}],
            "mode": "words",
        },
        f"GET writer.test /projects/{project}/graph": {
            "nodes": [{"id": "1", "type": "Paper", "label": "Rain"}],
            "edges": [],
            "truncated": True,
        },
        "POST writer.test /verify": {"checked_count": 0, "missing": [], "extra": [], "different": []},
    }
    found = run("search", "rain", "--project", "Soil and water")
    assert "Rain falls." in found.out
    assert "words only" in found.err
    graph = run("graph", "Soil and water", "--format", "graphml")
    assert ">Rain</data>" in graph.out
    assert "not the whole graph" in graph.err
    assert run("verify", import_id).code == 0
    unknown = run("graph", "Nothing")
    assert unknown.code == 1
    assert "Nothing" in unknown.err


def _id(text: str) -> ImportId:
    from uuid import UUID

    return ImportId(UUID(text))


def test_the_command_offers_every_kind_of_source_that_the_service_knows():
    assert {one.value for one in Kind} == {one.value for one in SourceKind} - {SourceKind.UNKNOWN}
