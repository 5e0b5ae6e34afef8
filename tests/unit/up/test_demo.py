"""What `make run` shows, and that it shows nothing after the last word."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tests.unit.cli.fake_service import DROP, a_status, fake_service, wait_until

from paperlog.up import command
from paperlog.up.demo import Demo, _rows, _searches
from paperlog.up.memory import resident_mb

GRAPH = {
    "nodes": [
        {"id": "p1", "type": "Paper", "label": "One"},
        {"id": "c1", "type": "Concept", "label": "rare"},
        {"id": "c2", "type": "Concept", "label": "common"},
    ],
    "edges": [
        {"source": "p1", "target": "c2", "type": "DISCUSSES_CONCEPT"},
        {"source": "p2", "target": "c2", "type": "DISCUSSES_CONCEPT"},
        {"source": "p1", "target": "c1", "type": "DISCUSSES_CONCEPT"},
        {"source": "c1", "target": "c2", "type": "CO_OCCURS_WITH"},
        {"source": "p1", "target": "a1", "type": "HAS_AUTHOR"},
    ],
}


def test_without_searches_of_its_own_a_library_is_asked_for_what_most_of_its_papers_share(tmp_path: Path):
    assert _searches(tmp_path / "library", GRAPH) == ["common", "rare"]


def test_the_searches_that_a_library_brings_are_taken(tmp_path: Path):
    (tmp_path / "library.searches.txt").write_text("one\tTitle\n\n two \nthree\nfour\n")
    assert _searches(tmp_path / "library", GRAPH) == ["one", "two", "three"]


def test_the_summary_counts_concepts_and_says_when_it_saw_a_part_of_them():
    status = {"documents": {"stored": 3, "rejected": 1}, "chunks": {"stored": 1200, "rejected": 2}}
    assert _rows(status, {**GRAPH, "truncated": True}, 12.34) == [
        ("documents", "3"),
        ("chunks", "1,200"),
        (
            "concepts",
            "2",
        ),  # What was cut are pairs of concepts, of which there are more than of anything else.
        ("rejected", "3"),
        ("seconds", "12.3"),
    ]
    large = {**GRAPH, "nodes": GRAPH["nodes"] * 2000, "truncated": True}
    assert ("concepts", "4,000 (of a part of the graph)") in _rows(status, large, 1)


def test_memory_counts_what_a_process_has_started_and_leaves_out_who_is_gone():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = resident_mb({"me": os.getpid(), "gone": ended.pid})
    assert set(mine) == {"me"}
    code = (
        "x = bytearray(60_000_000); x[::4096] = x[::4096].replace(b'\\0', b'\\1'); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_mb({"me": os.getpid()})["me"] > mine["me"] + 50


def test_what_is_shown_ends_with_the_stack_and_before_its_last_word(tmp_path: Path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-")
    out, is_stopping = io.StringIO(), threading.Event()
    with fake_service() as service:
        service.answers["POST", "/api/imports"] = {**a_status(), "is_new": True}
        service.streams = [[("1", "status", a_status()), DROP]]
        service.before = lambda _, path: DROP if path.endswith("/events") and not service.streams else None
        stack: Any = SimpleNamespace(http=service.url, data=tmp_path)
        watch: Any = SimpleNamespace(is_ready=True, reasons=())
        demo = Demo(tmp_path / "a.pdf", Console(file=out, force_terminal=True))
        progress = command._Progress(stack, watch, is_stopping.is_set, demo)
        progress.tick()
        wait_until(lambda: bool(service.last_event_ids) and "embedding" in out.getvalue())
        is_stopping.set()
        progress.end()
    assert progress.showing is not None
    assert not progress.showing.is_alive()
    assert "serving" not in out.getvalue()
    assert demo.exit_code == 0


def test_stopped_is_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []

    def show(_stack: object, is_stopping: Callable[[], bool]) -> None:
        signal.raise_signal(signal.SIGINT)
        wait_until(is_stopping)
        with suppress(AssertionError):  # it is not said as long as something is shown
            wait_until(lambda: said[-1] == "stopped", timeout_s=0.3)
        said.append("shown")

    monkeypatch.setattr(command, "say", said.append)
    with fake_service() as service:
        service.answers["GET", "/readyz"] = {"ready": True, "reasons": []}
        stack: Any = SimpleNamespace(
            http=service.url, data=tmp_path, build=lambda _: None, add_embedders=lambda *_: None
        )
        assert command._run(stack, show) == 0
    assert said[-2:] == ["shown", "stopped"]
