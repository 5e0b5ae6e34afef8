"""The example programs run as they stand: a producer that imports by way of Kafka, and two consumers that follow it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.e2e.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PDF = next((EXAMPLES / "library").rglob("Halonen*.pdf"))
PROJECT = "From a program"
QUIET_S = "8"
RUN_S_MAX = 180

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("up")) as running:
        yield running


def run(stack: Stack, *argv: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv,
        check=False,
        cwd=cwd,
        env={**os.environ, "PAPERLOG_URL": stack.http, "KAFKA": stack.endpoints()["kafka"]},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
    )


def produce(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(stack, sys.executable, "examples/producer.py", *arguments)


@pytest.fixture(scope="module")
def produced(stack: Stack) -> "subprocess.CompletedProcess[str]":
    return produce(stack, "--project", PROJECT, str(PDF))


@pytest.fixture(scope="module")
def others(
    stack: Stack, produced: "subprocess.CompletedProcess[str]", tmp_path_factory: pytest.TempPathFactory
):
    """Another project in the same log, whose records a consumer of the first must not print."""
    text = tmp_path_factory.mktemp("others") / "A stranger's note.txt"
    text.write_text(
        "A stranger's note\n\nThis text belongs to another project, and nobody asked for it.\n" * 5
    )
    done = produce(stack, "--project", "Strangers", str(text))
    assert done.returncode == 0, done.stderr


def test_a_producer_imports_by_way_of_kafka(stack: Stack, produced: "subprocess.CompletedProcess[str]"):
    assert produced.returncode == 0, produced.stderr
    kinds = re.findall(r"^imports@\d+ (\w+)", produced.stdout, re.MULTILINE)
    assert kinds[:2] == ["ProjectCreated", "ImportRequested"]
    assert kinds.count("ImportCompleted") == 1
    assert re.search(r"^[1-9]\d* chunks stored", produced.stdout, re.MULTILINE)
    (found,) = stack.ask("GET", "/api/imports")["imports"]
    assert (found["project"], found["state"]) == (PROJECT, "completed")


def test_a_producers_second_try_is_the_same_import(
    stack: Stack, produced: "subprocess.CompletedProcess[str]"
):
    before = stack.ask("GET", "/api/imports")["imports"]
    first = next(one for one in before if one["project"] == PROJECT)
    again = produce(stack, "--project", PROJECT, "--import-id", first["import_id"], str(PDF))
    assert again.returncode == 0, again.stderr
    after = stack.ask("GET", "/api/imports")["imports"]
    assert [one["import_id"] for one in after] == [one["import_id"] for one in before]
    assert stack.status(first["import_id"])["attempt"] == first["attempt"]


def test_a_producer_hears_why_its_command_was_refused(stack: Stack, tmp_path: Path):
    nothing = tmp_path / "nothing.bin"
    nothing.write_bytes(b"\x00\x01")
    done = produce(stack, "--project", "No library", str(nothing))
    assert done.returncode == 1
    assert "ImportFailed" in done.stdout, done.stdout + done.stderr


def check_followed(stdout: str, produced: str) -> None:
    lines = [line.split(maxsplit=2) for line in stdout.splitlines()]
    assert lines, "it printed nothing"
    assert all(len(line) >= 2 for line in lines), stdout
    kinds = [line[1] for line in lines]
    assert {"ProjectCreated", "ImportRequested", "DocumentParsed", "ChunkEmbedded", "ImportCompleted"} <= set(
        kinds
    )
    assert kinds.count("ImportCompleted") == 1
    stored = re.search(r"^(\d+) chunks stored", produced, re.MULTILINE)
    assert stored is not None
    assert kinds.count("ChunkEmbedded") == int(stored[1])
    assert "stranger" not in stdout.lower()
    assert len({line[0] for line in lines}) == len(lines), "a record was printed twice"
    assert "256 dimensions" in stdout


@pytest.mark.usefixtures("others")
def test_a_consumer_prints_all_of_one_project_and_nothing_of_another(
    stack: Stack, produced: "subprocess.CompletedProcess[str]"
):
    done = run(stack, sys.executable, "examples/consumer.py", PROJECT, "--quiet-s", QUIET_S)
    assert done.returncode == 0, done.stderr
    check_followed(done.stdout, produced.stdout)


def test_a_consumer_says_when_there_is_no_such_project(stack: Stack):
    done = run(stack, sys.executable, "examples/consumer.py", "No such project")
    assert done.returncode == 1
    assert "There is no project" in done.stderr


@pytest.fixture(scope="module")
def node_consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`consumer.ts`, checked and compiled where its packages are installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("consumer.ts", "package.json", "tsconfig.json"):
        shutil.copy(EXAMPLES / name, folder)
    installed = _npm(
        npm, folder, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"
    )
    if installed.returncode:
        pytest.skip(f"the packages cannot be installed: {installed.stderr[-300:]}")
    built = _npm(npm, folder, "run", "build")
    assert built.returncode == 0, built.stdout
    return folder


def _npm(npm: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv: Sequence[str] = (npm, *arguments)
    # What is fetched stays inside the checkout, as everything that tests install does.
    env = {**os.environ, "npm_config_cache": str(ROOT / ".cache" / "npm")}
    return subprocess.run(
        argv, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=RUN_S_MAX
    )


@pytest.mark.usefixtures("others")
def test_a_consumer_in_typescript_prints_the_same(
    stack: Stack, produced: "subprocess.CompletedProcess[str]", node_consumer: Path
):
    done = run(stack, "node", "consumer.js", PROJECT, QUIET_S, cwd=node_consumer)
    assert done.returncode == 0, done.stderr
    check_followed(done.stdout, produced.stdout)
