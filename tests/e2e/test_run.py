"""What `make run` starts after the installation: a library in, a summary and three searches out, twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.kafka

LIBRARY = Path(__file__).resolve().parents[2] / "examples" / "library"
SERVES_S_MAX = 90


def said_until_it_serves(data: Path) -> str:
    """Runs it, ends it by Ctrl-C as soon as it serves; all that it said."""
    log = data.with_suffix(".said")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "paperlog.up.demo", "--data", str(data), "--port", "0", str(LIBRARY)],
            stdout=out,
            stderr=out,
            env={**os.environ, "COLUMNS": "160"},
        )
    try:
        deadline = time.monotonic() + SERVES_S_MAX
        while "serving until Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    return log.read_text()


def test_a_library_goes_in_and_is_searched_and_the_second_time_nothing_is_done_twice(tmp_path: Path):
    searches = (LIBRARY.with_name("library.searches.txt")).read_text(encoding="utf-8").splitlines()
    first = said_until_it_serves(tmp_path / "var")
    second = said_until_it_serves(tmp_path / "var")
    for said in (first, second):
        for name in ("documents", "chunks", "concepts", "rejected", "seconds", "memory"):
            assert f"\n{name} " in said, said
        assert "pdf_damaged" in said
        for query, title in (line.split("\t") for line in searches):
            answer = said.split(f"search: {query}", 1)[1]
            assert title in answer.split("search:", 1)[0], said
        for name in ("kafka", "ingest", "embedder", "graph-writer"):
            assert f"{name} " in said.split("\nmemory", 1)[1].splitlines()[0], said
        assert said.rindex("stopping ingest") < said.rindex("stopping kafka")
    assert "already imported" in second
    assert "already imported" not in first
