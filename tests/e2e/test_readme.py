"""What the README tells people to type works as it stands: `make run` twice, and the commands beside the second one.

`make run` without its installation, which the session that runs this has behind it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pytest

from embedder.settings import EmbedderSettings
from eventlog.settings import ServiceSettings
from graph_writer.settings import Settings as GraphWriterSettings
from ingest.settings import IngestSettings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY = ROOT / "examples" / "library"
SERVES_S_MAX = 90

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def _blocks(mark: str) -> list[str]:
    return re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Stack:
    """The second `make run` of a folder, as it serves."""

    url: str
    kafka: str
    folder: Path
    """Where a reader of the README would stand: the checkout, as far as the commands look at it."""
    first: str
    """All that the first run said, its end by Ctrl-C included."""
    second: str

    def env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PAPERLOG_URL": self.url, "KAFKA": self.kafka}

    def sh(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", script],
            check=False,
            cwd=self.folder,
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=150,
        )

    def search(self, text: str) -> list[str]:
        ran = self.sh(f"paperlog search {json.dumps(text)} --project 'My library' --json")
        assert ran.returncode == 0, ran.stderr
        return [each["title"] for each in json.loads(ran.stdout)["results"]]


class _Run:
    """`make run`, from where it has installed."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / f"run-{time.monotonic_ns()}.said"
        argv = [sys.executable, "-m", "paperlog.up", "--data", str(folder / "var"), "--port", "0"]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*argv, str(LIBRARY)],
                cwd=folder,
                stdout=out,
                stderr=out,
                env={**os.environ, "COLUMNS": "160"},
            )
        try:
            self._wait_until_it_serves()
        except BaseException:
            self._process.kill()
            raise

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + SERVES_S_MAX
        while "serving until Ctrl-C" not in self.said:
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def end(self) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(60) == 0, self.said


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    first = _Run(folder)
    first.end()
    second = _Run(folder)
    try:
        endpoints = json.loads((folder / "var" / "endpoints.json").read_text())
        yield Stack(endpoints["http"], endpoints["kafka"], folder, first.said, second.said)
    finally:
        second.end()


@pytest.fixture(scope="module")
def ran(stack: Stack) -> "subprocess.CompletedProcess[str]":
    """The README's commands, one after the other in one shell, each with its exit code."""
    lines = [line for block in _blocks("run") for line in block.strip().splitlines()]
    assert len(lines) > 5, "the README has lost its commands"
    return stack.sh("\n".join(f'{line}\necho "=== $? {number}" >&2' for number, line in enumerate(lines)))


def test_a_library_goes_in_and_is_searched_and_the_second_time_nothing_is_done_twice(stack: Stack):
    searches = LIBRARY.with_name("library.searches.txt").read_text(encoding="utf-8").splitlines()
    for said in (stack.first, stack.second):
        for name in ("documents", "chunks", "concepts", "rejected", "seconds", "memory"):
            assert f"\n{name} " in said, said
        assert "pdf_damaged" in said
        for query, title in (line.split("\t") for line in searches):
            answer = said.split(f"search: {query}", 1)[1]
            assert title in answer.split("search:", 1)[0], said
        for name in ("kafka", "ingest", "embedder", "graph-writer"):
            assert f"{name} " in said.split("\nmemory", 1)[1].splitlines()[0], said
    assert stack.first.rindex("stopping ingest") < stack.first.rindex("stopping kafka")
    assert "already imported" in stack.second
    assert "already imported" not in stack.first


def test_nothing_is_left_outside_the_data_folder(stack: Stack):
    ours = {"examples", "var", "my-library.graphml"}
    assert {path.name for path in stack.folder.iterdir() if path.suffix != ".said"} <= ours


def test_every_command_of_the_readme_works(ran: "subprocess.CompletedProcess[str]"):
    codes = re.findall(r"^=== (\d+) ", ran.stderr, re.MULTILINE)
    assert codes, ran.stderr
    # 3 where the library, which has a broken PDF, was imported; 0 everywhere else.
    assert [code for code in codes if code != "0"] == ["3"], ran.stderr
    assert "files/14/" in ran.stderr, "the broken PDF is named"
    assert "zotero_rdf" in ran.stdout
    assert "Cover crops keep water in the root zone" in ran.stdout


def test_the_graph_of_the_readme_opens_in_networkx(ran: "subprocess.CompletedProcess[str]", stack: Stack):
    graph = nx.read_graphml(stack.folder / "my-library.graphml")
    papers = [data["label"] for _, data in graph.nodes(data=True) if data.get("type") == "Paper"]
    assert any(title.startswith("수면 부족이") for title in papers)
    # Nine papers of ten items: one stands there twice, and the one whose PDF is broken is there by its record.
    assert len(papers) == 9, papers


@pytest.mark.parametrize(
    ("query", "title"),
    [line.split("\t") for line in (ROOT / "examples/library.searches.txt").read_text().strip().splitlines()],
)
def test_the_example_searches_find_what_they_should(
    ran: "subprocess.CompletedProcess[str]", stack: Stack, query: str, title: str
):
    assert stack.search(query)[0] == title


def test_the_events_are_read_with_a_foreign_deserializer(
    ran: "subprocess.CompletedProcess[str]", stack: Stack
):
    read = stack.sh("python examples/read_events.py")
    assert read.returncode == 0, read.stderr
    assert re.search(r"stored chunks: [1-9]", read.stdout)


def test_the_program_in_the_readme_is_the_one_that_is_run():
    (block,) = _blocks("python")
    program = (ROOT / "examples/read_events.py").read_text(encoding="utf-8")
    assert program.partition('"""\n\n')[2] == block


@pytest.mark.parametrize("settings", [IngestSettings, EmbedderSettings, GraphWriterSettings])
def test_every_setting_stands_in_the_readme(settings: type[ServiceSettings]):
    names = set()
    for field in settings.model_fields.values():
        alias = field.validation_alias
        names |= {alias} if isinstance(alias, str) else set(getattr(alias, "choices", ()))
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in README} == set()


def test_every_make_target_of_the_readme_is_there():
    targets = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", README, re.MULTILINE))
    assert {"run", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    missing = {target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)}
    assert not missing
