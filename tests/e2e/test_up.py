"""`paperlog up` as a process, over a real broker; stand-ins in place of the services, so that they can misbehave."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paperlog.up.kafka import can_list_topics

pytestmark = pytest.mark.kafka

PROGRAM = Path(__file__).with_name("up_with_stand_ins.py")
LOCAL = "local/wordllama@256:1"
OPENAI, COHERE = "openai/text-embedding-3-small@1536:1", "cohere/embed-v4.0@1536:1"
OPENAI_EMBEDDER = "embedder-openai-text-embedding-3-small-1536-1"


def eventually(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except OSError:
        return False


def told(data: Path, service: str, file: str, text: str = "") -> Path:
    """A stand-in's instruction, there before it starts."""
    path = data / service / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Up:
    def __init__(self, data: Path, *, port: int = 0, embedding: str = "local", **environ: str) -> None:
        self.data = data
        self.said = data.parent / f"{data.name}-{time.monotonic_ns()}.said"
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(data), str(port), embedding],
                stderr=out,
                stdout=out,
                env={**os.environ, **environ},
            )

    @property
    def endpoints(self) -> dict[str, Any]:
        return json.loads((self.data / "endpoints.json").read_text())

    @property
    def words(self) -> str:
        return self.said.read_text()

    def ready(self) -> "Up":
        eventually(lambda: "ready at" in self.words or self.process.poll() is not None)
        assert self.process.poll() is None, self.words
        return self

    def restarted(self, name: str, pid: int) -> int:
        """The new pid of what was killed."""
        return eventually(lambda: (new := self.endpoints["pids"].get(name)) != pid and new)

    def environment_of(self, folder: str) -> dict[str, str]:
        return json.loads((self.data / folder / "environment.json").read_text())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack with three models in use and the key of one of them, that no test ends."""
    data = tmp_path_factory.mktemp("running") / "data"
    told(data, "ingest", "spaces.json", json.dumps([LOCAL, OPENAI, COHERE]))
    stack = Up(
        data, OPENAI_API_KEY="the-openai-secret", OTHER_API_KEY="another-secret", KAFKA_SASL_PASSWORD="x"
    )
    try:
        stack.ready()
        eventually((data / OPENAI_EMBEDDER / "environment.json").exists)
        yield stack
    finally:
        stack.end()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(name: str = "data", **options: Any) -> Up:
        started.append(Up(tmp_path / name, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def get(url: str) -> int:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.status)


def kafka_port(endpoints: dict[str, Any]) -> int:
    return int(endpoints["kafka"].rsplit(":", 1)[1])


def test_it_says_where_everything_is(running: Up):
    endpoints = running.endpoints
    assert set(endpoints["services"]) == {"ingest", "embedder", OPENAI_EMBEDDER, "graph-writer"}
    assert set(endpoints["pids"]) == {"kafka", *endpoints["services"]}
    assert endpoints["http"] == endpoints["services"]["ingest"]["url"]
    assert all(get(f"{service['url']}/readyz") == 200 for service in endpoints["services"].values())
    assert can_list_topics(kafka_port(endpoints))


def test_each_space_in_use_has_an_embedder_and_keys_go_to_embedders_only(running: Up):
    services = running.endpoints["services"]
    assert json.loads((running.data / "embedders.json").read_text()) == {
        LOCAL: services["embedder"]["url"],
        OPENAI: services[OPENAI_EMBEDDER]["url"],
    }
    assert running.words.count("CO_API_KEY is not set") == 1
    assert running.environment_of(OPENAI_EMBEDDER)["OPENAI_API_KEY"] == "the-openai-secret"
    assert running.environment_of(OPENAI_EMBEDDER)["PAPERLOG_EMBEDDING"] == OPENAI
    for name in ("ingest", "graph-writer", "embedder-local-wordllama-256-1"):
        assert not {"OPENAI_API_KEY", "OTHER_API_KEY", "KAFKA_SASL_PASSWORD"} & set(
            running.environment_of(name)
        )
    assert running.environment_of("graph-writer")["MALLOC_MMAP_THRESHOLD_"] == "65536"
    assert "secret" not in running.words


def test_what_dies_is_started_again_on_the_same_address_the_broker_too(running: Up):
    before = running.endpoints
    for name, pid in before["pids"].items():
        os.kill(pid, signal.SIGKILL)
        assert is_alive(running.restarted(name, pid))
    after = running.endpoints
    assert after["kafka"] == before["kafka"]
    assert not set(before["pids"].values()) & set(after["pids"].values())
    for name, service in after["services"].items():
        assert service["url"] == before["services"][name]["url"]
        assert service["pid"] == after["pids"][name]
    eventually(lambda: can_list_topics(kafka_port(after)))
    eventually(lambda: "kafka (pid" in running.words and "was ended by SIGKILL" in running.words)


def test_a_service_that_dies_at_once_is_started_again_more_and_more_slowly(running: Up):
    instruction = told(running.data, "graph-writer", "exit-code", "70")
    pid = running.endpoints["pids"]["graph-writer"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: "graph-writer" in running.words and "starting it again in 0.8 s" in running.words)
    assert "graph_writer gives up, as told" in running.words
    instruction.unlink()
    eventually(lambda: is_alive(running.endpoints["pids"].get("graph-writer", pid)))


def test_one_folder_runs_once_and_one_port_too(running: Up):
    port = int(running.endpoints["http"].rsplit(":", 1)[1])
    other = Up(running.data.with_name("other"), port=port)
    second = Up(running.data)
    assert (other.process.wait(30), second.process.wait(30)) == (1, 1)
    assert f"port {port} is taken" in other.words
    assert not (other.data / "kafka").exists()
    holder = f"(pid {running.process.pid}, {running.endpoints['http']})"
    assert f"another `paperlog up` holds {running.data} {holder}" in second.words
    assert all(is_alive(pid) for pid in running.endpoints["pids"].values())


def test_two_folders_run_side_by_side_and_one_stops_in_order_without_the_other(
    running: Up, up: Callable[..., Up]
):
    other = up().ready()
    mine, theirs = running.endpoints, other.endpoints
    urls = [service["url"] for each in (mine, theirs) for service in each["services"].values()]
    assert len({*urls, mine["kafka"], theirs["kafka"]}) == len(urls) + 2
    eventually(lambda: all(map(answers, urls)))  # whoever answers has its handler for SIGTERM

    other.process.send_signal(signal.SIGTERM)
    assert other.process.wait(30) == 0
    order = [line.split()[1] for line in (other.data / "ends").read_text().splitlines()]
    assert order == ["graph-writer", "embedder-local-wordllama-256-1", "ingest"]
    assert other.words.index("stopping ingest") < other.words.index("stopping kafka")
    assert not any(is_alive(pid) for pid in theirs["pids"].values())
    assert not (other.data / "endpoints.json").exists()
    assert running.endpoints == mine
    assert all(is_alive(pid) for pid in mine["pids"].values())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal for the death of the parent")
def test_sigkill_of_the_command_leaves_nothing_and_the_folder_is_free_again(up: Callable[..., Up]):
    stack = up().ready()
    pids = stack.endpoints["pids"]
    stack.process.kill()
    stack.process.wait(10)
    eventually(lambda: not any(is_alive(pid) for pid in pids.values()))
    again = up().ready()
    assert not set(again.endpoints["pids"].values()) & set(pids.values())


def test_a_service_that_refuses_its_settings_is_quoted_and_ends_the_command_with_2(
    up: Callable[..., Up], tmp_path: Path
):
    told(tmp_path / "data", "graph-writer", "exit-code", "2")
    stack = up()
    assert stack.process.wait(60) == 2, stack.words
    assert "graph-writer refuses its settings" in stack.words
    assert "graph_writer gives up, as told" in stack.words
    assert "stopping kafka" in stack.words


def test_a_second_ctrl_c_does_not_wait_for_who_does_not_listen(up: Callable[..., Up], tmp_path: Path):
    told(tmp_path / "data", "ingest", "deaf").with_name("with-child").touch()
    stack = up()
    stack.ready()
    pids = [*stack.endpoints["pids"].values(), int((stack.data / "ingest" / "child-pid").read_text())]
    stack.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping ingest" in stack.words)
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(10) == 0
    assert f"ingest (pid {pids[1]}) has not stopped by itself and is ended" in stack.words
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize(
    ("embedding", "words"),
    [
        ("openai/text-embedding-3-small", "needs OPENAI_API_KEY in the environment"),
        ("no-such-model", "is not a model"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_before_anything_is_started(
    up: Callable[..., Up], embedding: str, words: str
):
    stack = up(embedding=embedding, OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert stack.process.wait(30) == 2
    assert words in stack.words
    assert not stack.data.exists()


def test_a_port_that_another_program_holds_is_named_before_anything_is_started(up: Callable[..., Up]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stack = up(port=port)
        assert stack.process.wait(30) == 1
        assert f"port {port} is taken" in stack.words
        assert not (stack.data / "kafka").exists()
