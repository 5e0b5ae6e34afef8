"""The other commands: what is printed, where, and how they end."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_service import IMPORT_ID, FakeService, a_problem, a_status, wait_until

PATH = f"/api/imports/{IMPORT_ID}"


def test_status_is_a_table_or_json(run: Run, service: FakeService):
    service.answers["GET", PATH] = a_status(project="So\x1b[31mil", problem="a thing")
    assert json.loads(run("status", IMPORT_ID, "--json").out) == a_status(
        project="So\x1b[31mil", problem="a thing"
    )
    ran = run("status", IMPORT_ID)
    assert "40 total, 20 embedded" in ran.out
    assert "\x1b" not in ran.out


def test_status_names_what_was_rejected_and_how_much_more_there_is(run: Run, service: FakeService):
    counts = {"found": 70, "parsed": 10, "merged": 0, "stored": 10, "rejected": 60}
    service.answers["GET", PATH] = a_status("completed_with_rejections", documents=counts)
    service.answers["GET", f"{PATH}/documents"] = {
        "documents": [],
        "rejections": [{"item": f"{n}.pdf", "reason": "pdf_damaged", "message": "m"} for n in range(50)],
        "next": "r:50",
    }
    ran = run("status", IMPORT_ID)
    assert ran.code == 0
    assert "49.pdf" in ran.out
    assert "and 10 more" in ran.out
    assert not [line for line in ran.out.splitlines() if line.endswith(" ")]


def test_status_names_the_first_warnings_and_where_the_others_are(run: Run, service: FakeService):
    service.answers["GET", PATH] = a_status("completed", warnings=23)
    service.answers["GET", f"{PATH}/warnings"] = {
        "warnings": [
            {"code": "attachment_missing", "subject": f"{n}.pdf", "message": "gone\x1b[2J", "title": "Soil"}
            for n in range(20)
        ],
        "next": "20",
    }
    ran = run("status", IMPORT_ID)
    assert service.queries[-1] == {"limit": ["20"]}
    assert re.search(r"^attachment_missing +19\.pdf +Soil +gone$", ran.out, re.MULTILINE)
    assert f"and 3 more: {service.url}{PATH}/warnings?limit=200\n" in ran.out
    assert "\x1b" not in ran.out


def test_an_unknown_import_is_a_failure_in_words(run: Run, service: FakeService):
    service.answers["GET", PATH] = a_problem(
        404, "import_unknown", "There is no such import", action="GET /api/imports lists them."
    )
    ran = run("status", IMPORT_ID, "--json")
    assert (ran.code, ran.out) == (1, "")
    assert "There is no such import" in ran.err
    assert "paperlog imports" in ran.err, "advice for somebody at a terminal"


def test_imports_are_listed_with_whole_ids(run: Run, service: FakeService):
    service.answers["GET", "/api/imports"] = {"imports": [a_status(project="p" * 300)], "next": "12"}
    ran = run("imports", "--limit", "1", "--project", "p")
    assert IMPORT_ID in ran.out
    assert service.queries[-1] == {"limit": ["1"], "project": ["p"]}
    assert "--limit 2" in ran.err


def test_imports_on_a_narrow_terminal_take_two_lines_and_keep_their_ids_whole():
    from rich.console import Console

    from paperlog.show import imports_list, print_to

    status = a_status("completed_with_rejections", project="My library")
    shown = {}
    for width in (60, 80, 120):
        out = io.StringIO()
        print_to(Console(file=out, width=width), imports_list([status, status], width))
        shown[width] = out.getvalue().splitlines()
    assert (
        shown[80]
        == [
            f"{IMPORT_ID}  My library",
            "  2026-01-01 00:00:00  completed with rejected items  papers 2/4  chunks 20/40",
        ]
        * 2
    )
    assert len(shown[120]) == 3, "a head and a line each"
    assert all(IMPORT_ID in line for line in shown[120][1:] + shown[60][::3])


def test_more_imports_than_a_page_are_asked_for_page_by_page(run: Run, service: FakeService):
    service.answers["GET", "/api/imports"] = [
        {"imports": [a_status()] * 200, "next": "12"},
        {"imports": [a_status()] * 3, "next": None},
    ]
    ran = run("imports", "--limit", "300", "--json")
    assert len(json.loads(ran.out)["imports"]) == 203
    assert service.queries[-1] == {"limit": ["100"], "before": ["12"]}


def test_watch_prints_a_status_a_line_as_json(run: Run, service: FakeService):
    service.answers["GET", PATH] = a_status()
    service.streams = [[("1", "status", a_status()), ("2", "status", a_status("completed_with_rejections"))]]
    ran = run("watch", IMPORT_ID, "--json")
    assert ran.code == 3
    assert [json.loads(line)["state"] for line in ran.out.splitlines()] == [
        "embedding",
        "completed_with_rejections",
    ]


@pytest.mark.parametrize(
    ("command", "answer", "words"),
    [
        ("resume", (202, a_status()), "it goes on"),
        ("resume", (200, a_status("completed")), "nothing is missing"),
        ("resume", (200, a_status()), "running already"),
        ("cancel", (202, a_status("cancelled")), "cancelled; what is stored stays"),
        ("cancel", (200, a_status("cancelled")), "cancelled before"),
    ],
)
def test_resume_and_cancel_say_what_was_done(
    run: Run, service: FakeService, command: str, answer: object, words: str
):
    service.answers["POST", f"{PATH}/{command}"] = answer
    ran = run(command, IMPORT_ID)
    assert (ran.code, ran.out) == (0, "")
    assert words in ran.err


def test_resume_names_the_files_that_are_gone(run: Run, service: FakeService):
    files = [f"files/{number}.pdf" for number in range(30)]
    service.answers["POST", f"{PATH}/resume"] = a_problem(
        409, "files_missing", "The blob store has lost files", files=files, action="Import the folder again."
    )
    ran = run("resume", IMPORT_ID)
    assert ran.code == 1
    assert "files/19.pdf" in ran.err
    assert "and 10 more" in ran.err


def test_verify_fails_with_lists_where_the_store_differs(run: Run, service: FakeService):
    point = {"chunk_id": IMPORT_ID, "document_id": "d", "title": "수면"}
    service.answers["POST", f"{PATH}/verify"] = {
        "import_id": IMPORT_ID,
        "is_clean": False,
        "checked_count": 1200,
        "missing": [point],
        "extra": [],
        "different": [],
    }
    ran = run("verify", IMPORT_ID)
    assert ran.code == 1
    assert "missing: 1" in ran.out
    assert IMPORT_ID in ran.out


def test_verify_is_content_with_a_clean_store(run: Run, service: FakeService):
    service.answers["POST", f"{PATH}/verify"] = {"is_clean": True, "checked_count": 3, "missing": []}
    ran = run("verify", IMPORT_ID)
    assert ran.code == 0
    assert "exactly" in ran.out


RESULT = {
    "score": 0.81234,
    "title": "Rain and yield",
    "creators": [{"family": "Okafor", "given": "N."}, {"family": "Berg", "given": ""}],
    "year": 2021,
    "section": "Results",
    "page_first": 3,
    "page_last": 4,
    "text": "Soil moisture\x1b[8m explains yields.",
    "words": ["moistur"],
    "found_by": ["meaning", "words"],
}


def test_search_shows_paper_authors_year_section_page_and_score(run: Run, service: FakeService):
    service.answers["GET", "/api/search"] = {"results": [RESULT], "mode": "hybrid", "message": None}
    ran = run("search", "moisture", "--project", "Soil", "--limit", "3", "--mode", "words")
    assert service.queries[-1] == {"q": ["moisture"], "project": ["Soil"], "limit": ["3"], "mode": ["words"]}
    for words in (
        "Rain and yield",
        "N. Okafor; Berg",
        "2021",
        "Results",
        "pp. 3-4",
        "0.812",
        "by meaning and by words",
    ):
        assert words in ran.out
    assert "Soil moisture explains yields." in ran.out


def test_search_says_why_it_went_by_words_alone(run: Run, service: FakeService):
    service.answers["GET", "/api/search"] = {"results": [], "mode": "words", "message": "No embedder runs."}
    ran = run("search", "moisture", "--json")
    assert json.loads(ran.out)["mode"] == "words"
    assert "No embedder runs." in ran.err


def test_matched_words_stand_out():
    from paperlog.show import highlighted

    text = highlighted("Moisture and (moist) soils; dismoist [1]", ["moist", "(moist"])
    assert [text.plain[span.start : span.end] for span in text.spans] == ["Moisture", "moist"]


def test_a_graph_comes_as_json_or_graphml(run: Run, service: FakeService):
    graph = {
        "nodes": [{"id": "1", "type": "Paper", "label": "수면"}, {"id": "2", "type": "Author", "label": "B"}],
        "edges": [{"source": "1", "target": "2", "type": "HAS_AUTHOR"}],
    }
    service.answers["GET", "/api/projects/My%20soil/graph"] = graph
    assert json.loads(run("graph", "My soil").out) == graph
    ran = run("graph", "My soil", "--format", "graphml")
    assert nx.parse_graphml(ran.out).number_of_edges() == 1
    assert run("graph", "My soil", "--format", "graphml", "--json").code == 2


@pytest.mark.parametrize("format_", ["json", "graphml"])
def test_what_is_no_graph_is_not_printed_as_one(run: Run, service: FakeService, format_: str):
    service.answers["GET", "/api/projects/p/graph"] = b"<html>another program</html>"
    ran = run("graph", "p", "--format", format_)
    assert (ran.code, ran.out) == (1, "")
    assert "is not Paperlog" in ran.err


def test_the_help_names_the_dimensions_of_a_model(run: Run):
    assert "[@dims]" in "".join(run("up", "--help").out.split())


@pytest.mark.parametrize(
    "argv",
    [
        ["search"],
        ["search", "x", "--mode", "magic"],
        ["search", " "],
        ["search", "word " * 20_000],
        ["nothing"],
        ["status", IMPORT_ID, "--url", "here"],
        ["status", "x"],
    ],
)
def test_wrong_usage_is_2_and_prints_nothing_to_stdout(run: Run, argv: list[str]):
    ran = run(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def _spawn(service: FakeService, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from paperlog.main import main; sys.exit(main())", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PAPERLOG_URL": service.url},
    )


def test_ctrl_c_leaves_the_import_running_and_says_how_to_watch_it(service: FakeService):
    service.answers["GET", PATH] = a_status()
    with _spawn(service, "watch", IMPORT_ID) as process:
        wait_until(lambda: len(service.said("GET")) > 4)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"paperlog cancel {IMPORT_ID}" in err
    assert "Traceback" not in err
    assert not any(path.endswith("/cancel") for path in service.said("POST"))


@pytest.mark.parametrize(
    "argv",
    [
        [str(Path(sys.executable).with_name("paperlog")), "imports"],
        [sys.executable, "-m", "paperlog.up", "library", "--data", "var", "--port", "0"],
    ],
)
def test_ctrl_c_while_modules_are_loaded_leaves_no_traceback(tmp_path: Path, argv: list[str]):
    (tmp_path / "rich").mkdir()
    pressed = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(20)"
    (tmp_path / "rich" / "__init__.py").write_text(pressed)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        argv, check=False, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_a_reader_that_has_seen_enough_gets_no_traceback(service: FakeService):
    service.answers["GET", "/api/projects/p/graph"] = {
        "nodes": [{"id": str(n)} for n in range(50_000)],
        "edges": [],
    }
    with _spawn(service, "graph", "p") as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=20)
    assert "Traceback" not in err
    assert "Exception" not in err
