"""The embedded stack as a user starts it, for end-to-end tests: a process, its endpoints, its HTTP, and its deaths."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

READY_S = 60.0


class Stack:
    def __init__(
        self,
        folder: Path,
        *,
        embedding: str = "local",
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "paperlog.main", "up"),
    ) -> None:
        self.folder = folder
        self._program = program
        self._embedding = embedding
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.http = ""

    def start(self, *, ready_s_max: float = READY_S) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *self._program,
                    "--data",
                    str(self.folder),
                    "--port",
                    "0",
                    "--embedding",
                    self._embedding,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        until(
            self._is_ready,
            ready_s_max,
            lambda: self._process_alive() and "the stack is not ready: " + self.tail(),
        )

    def _process_alive(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"`paperlog up` ended with {self._process.poll()}: {self.tail()}"
        return True

    def _is_ready(self) -> bool:
        self._process_alive()
        try:
            self.http = self.endpoints()["http"]
            return self.request("GET", "/readyz")[0] == 200
        except (OSError, ValueError, KeyError):
            return False

    def tail(self) -> str:
        texts = [self.folder / "up.log", *sorted((self.folder / "logs").glob("*.log"))]
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2500:]}" for path in texts if path.exists()
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(40)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.kill_up()

    def kill_up(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def endpoints(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "endpoints.json").read_text()))

    def kill(self, name: str) -> None:
        """SIGKILL; returns when the supervisor has started another one."""
        before = self.endpoints()["pids"][name]
        os.kill(before, signal.SIGKILL)
        until(lambda: self._pid(name) not in (None, before), 30, f"{name} did not come back")

    def _pid(self, name: str) -> int | None:
        try:
            return int(self.endpoints()["pids"][name])
        except (KeyError, OSError, ValueError, TypeError):
            return None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, Any]:
        """Status and decoded JSON; a problem document is an answer like any other."""
        content = data if data is not None else (json.dumps(body).encode() if body is not None else None)
        request = urllib.request.Request(self.http + path, data=content, method=method, headers=dict(headers))
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The same, asked again while a service is on its way back."""
        answers: list[tuple[int, Any]] = []

        def answered() -> bool:
            try:
                answers.append(self.request(method, path, body))
            except OSError:
                return False
            return answers[-1][0] < 500

        until(answered, 60, lambda: f"{method} {path}: {answers[-1:]}")
        return answers[-1][1]

    def command(self, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # noqa: PLW1510 - the caller says which exit code is right
            [sys.executable, "-m", "paperlog.main", *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "PAPERLOG_URL": self.http, "NO_COLOR": "1"},
        )
        assert check is None or done.returncode == check, (
            f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def import_folder(self, folder: Path, project: str, *more: str) -> str:
        done = self.command("import", str(folder), "--project", project, "--no-wait", "--json", *more)
        return str(json.loads(done.stdout)["import_id"])

    def status(self, import_id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/api/imports/{import_id}"))

    def wait(self, import_id: str, *states: str, timeout_s: float = 180) -> dict[str, Any]:
        wanted = states or ("completed", "completed_with_rejections")
        last: dict[str, Any] = {}

        def is_there() -> bool:
            last.update(self.status(import_id))
            return last["state"] in wanted

        until(is_there, timeout_s, lambda: f"still {last}\n{self.tail()}")
        return last


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def until(condition: Callable[[], bool], timeout_s: float, why: str | Callable[[], Any]) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(0.1)


def write_texts(folder: Path, *, documents: int, chunks_each: int, seed: int = 1) -> None:
    """Plain texts of about `chunks_each` times 390 tokens; words drawn from a seeded vocabulary, no two texts alike."""
    chance = random.Random(seed)
    syllables = ("ka", "lo", "mi", "ter", "ran", "su", "vel", "dor", "pha", "ni", "gra", "ost")
    vocabulary = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(4000)]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        words = chance.choices(vocabulary, k=chunks_each * 125)
        paragraphs = [" ".join(words[at : at + 90]).capitalize() + "." for at in range(0, len(words), 90)]
        (folder / f"text-{number:03}.txt").write_text(
            f"On {vocabulary[number]} and {vocabulary[-number - 1]}\n\n" + "\n\n".join(paragraphs) + "\n"
        )


@contextmanager
def provider(folder: Path, *, latency_ms: int = 0) -> Iterator["Provider"]:
    """The fake provider as a process of its own, as `python -m tests.fakes.provider` starts it."""
    port_file = folder / "provider.port"
    ledger = folder / "ledger.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "provider.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fakes.provider",
                "--port",
                "0",
                "--port-file",
                str(port_file),
                "--latency-ms",
                str(latency_ms),
                "--ledger",
                str(ledger),
            ],
            stdout=log,
            stderr=log,
            cwd=Path(__file__).resolve().parents[2],
        )
        try:
            until(port_file.exists, 20, (folder / "provider.log").read_text)
            yield Provider(f"http://127.0.0.1:{port_file.read_text().strip()}", ledger)
        finally:
            process.kill()
            process.wait(10)


class Provider:
    def __init__(self, url: str, ledger: Path) -> None:
        self.url = url
        self._ledger = ledger

    @property
    def env(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": "test-key-that-nobody-pays"}

    def billed(self) -> list[str]:
        """Every text billed, as its SHA-256, once per time it was billed. What is just being written is not yet there."""
        whole = self._ledger.read_text().rpartition("\n")[0] if self._ledger.exists() else ""
        lines = whole.splitlines()
        return [str(json.loads(line)["sha256"]) for line in lines]

    def tell(self, **orders: Any) -> None:
        """Scripts faults: see `tests/fakes/provider.py`."""
        body = json.dumps(orders).encode()
        request = urllib.request.Request(f"{self.url}/control", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def met(self) -> dict[str, Any]:
        """`requests`: Unix time, number of texts and fault of each; `left`: scripted faults that nobody met yet."""
        with urllib.request.urlopen(f"{self.url}/control", timeout=30) as answer:
            return dict(json.loads(answer.read()))
