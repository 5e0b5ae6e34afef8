"""A stack for one measurement, started as a user would, and the fake provider that it asks for vectors."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from harness.cgroup import Cgroup
from harness.processes import cpu_s
from paperlog.local_files import select
from paperlog.service import Service
from paperlog.uploading import source_of, upload

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("ingest", "embedder", "graph-writer")
OPENAI_SPACE = "openai/text-embedding-3-small"
READY_S_MAX = 120.0
IMPORT_S_MAX = 1800.0
TERMINAL = ("completed", "completed_with_rejections", "cancelled", "failed")


class BenchFailed(Exception):  # noqa: N818 - names what it is to the reader
    """The measurement is worth nothing, and why."""


def wait_until(what: str, is_true: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise BenchFailed(f"{what} did not happen in {timeout_s:.0f} s")
        time.sleep(every_s)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the measurement; who ends it with SIGTERM leaves neither the folder nor what was started behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="paperlog-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    url: str
    pid: int


@contextlib.contextmanager
def fake_provider(latency_ms: int, ledger: Path, *, texts_per_s: float | None = None) -> Iterator[Provider]:
    port = free_port()
    argv = [sys.executable, "-m", "tests.fakes.provider", "--port", str(port)]
    argv += ["--latency-ms", str(latency_ms), "--ledger", str(ledger)]
    if texts_per_s is not None:
        argv += ["--texts-per-s", str(texts_per_s)]
    with _ended(
        subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ) as process:
        wait_until("the fake provider's start", lambda: _listens(port) or process.poll() is not None, 30)
        if process.poll() is not None:
            raise BenchFailed(f"the fake provider ended with {process.returncode}")
        yield Provider(url=f"http://127.0.0.1:{port}/v1", pid=process.pid)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(slots=True, kw_only=True)
class Stack:
    data: Path
    provider: Provider | None
    more_pids: dict[str, int] = field(default_factory=dict)
    """Of processes that a bench runs beside the stack's own."""

    def endpoints(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        return value

    @property
    def url(self) -> str:
        return str(self.endpoints()["http"])

    @property
    def kafka(self) -> str:
        return str(self.endpoints()["kafka"])

    def pids(self) -> dict[str, int]:
        """By name; the broker is `kafka`, the provider `provider`."""
        try:
            pids = {name: int(pid) for name, pid in self.endpoints()["pids"].items()}
        except (OSError, ValueError):
            return {}
        return pids | self.more_pids | ({"provider": self.provider.pid} if self.provider else {})

    def cpu_s(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self.pids().items()}

    def import_folder(self, folder: Path, project: str, kind: str = "auto") -> "Imported":
        """Uploads first: what is measured is from the request to the end of the import."""
        with self.service() as service:
            uploaded = upload(service, select([folder]), lambda _file, _is_sent: None)
            before_pids, before_cpu, asked_at = self.pids(), self.cpu_s(), datetime.now(UTC)
            import_id = self._ask_for(service, source_of(kind, uploaded), project)
            status = self._ended_status(service, import_id, IMPORT_S_MAX)
            if status["state"] not in ("completed", "completed_with_rejections"):
                raise BenchFailed(f"the import ended as {status['state']}: {status.get('problem')}")
            after_cpu = self.cpu_s()
        return Imported(
            import_id=import_id,
            status=status,
            seconds=(datetime.fromisoformat(status["finished_at"]) - asked_at).total_seconds(),
            restarted=tuple(name for name, pid in self.pids().items() if before_pids.get(name) != pid),
            cpu_s={name: after_cpu[name] - before_cpu.get(name, 0.0) for name in after_cpu},
        )

    def service(self) -> Service:
        return Service(self.url, say=lambda text: print(text, file=sys.stderr))

    def ask_for(self, folder: Path, project: str, kind: str = "auto") -> str:
        """The import's id; it is not waited for."""
        with self.service() as service:
            uploaded = upload(service, select([folder]), lambda _file, _is_sent: None)
            return self._ask_for(service, source_of(kind, uploaded), project)

    def status(self, import_id: str) -> dict[str, Any]:
        with self.service() as service:
            return service.get(f"/api/imports/{import_id}")

    def cancel(self, import_id: str) -> None:
        with self.service() as service:
            service.post(f"/api/imports/{import_id}/cancel")

    def wait(self, import_id: str, timeout_s: float = IMPORT_S_MAX) -> dict[str, Any]:
        """The status of the import when it has ended, however."""
        with self.service() as service:
            return self._ended_status(service, import_id, timeout_s)

    def _ask_for(self, service: Service, source: dict[str, Any], project: str) -> str:
        body = {"source": source, "project": project}
        _, accepted = service.post("/api/imports", body, headers={"Idempotency-Key": f"bench-{project}"})
        return str(accepted["import_id"])

    def _ended_status(self, service: Service, import_id: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            status = service.get(f"/api/imports/{import_id}")
            if status["state"] in TERMINAL:
                return status
            if time.monotonic() > deadline:
                raise BenchFailed(f"the import has not ended in {timeout_s:.0f} s: {json.dumps(status)}")
            time.sleep(0.5)  # not to be measured itself; when it ended stands in the status


@contextlib.contextmanager
def more_embedders(stack: Stack, count: int, embedding: str) -> Iterator[None]:
    """`count` more instances of the embedder, in the group of the stack's own; all are ready when this begins."""
    with contextlib.ExitStack() as running:
        urls = [str(stack.endpoints()["services"]["embedder"]["url"])]
        for number in range(2, 2 + count):
            folder, port = stack.data / f"embedder-{number}", free_port()
            folder.mkdir(exist_ok=True)
            env = {
                **os.environ,
                "MALLOC_ARENA_MAX": "2",
                "KAFKA_BOOTSTRAP_SERVERS": stack.kafka,
                "PAPERLOG_HTTP_PORT": str(port),
                "PAPERLOG_DATA_DIR": str(folder),
                "PAPERLOG_EMBEDDING": embedding,
            }
            if stack.provider is not None:
                env |= {"OPENAI_BASE_URL": stack.provider.url, "OPENAI_API_KEY": "bench"}
            log = running.enter_context((folder / "embedder.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "embedder.app"], cwd=ROOT, env=env, stdout=log, stderr=log
            )
            running.enter_context(_ended(process))
            stack.more_pids[f"embedder-{number}"] = process.pid
            urls.append(f"http://127.0.0.1:{port}")
        # Each that joins takes partitions from the others, which are not ready until they have what is left.
        wait_until("the embedders' start", lambda: all(map(answers_ready, urls)), READY_S_MAX)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    import_id: str
    status: dict[str, Any]
    seconds: float
    cpu_s: dict[str, float]
    restarted: tuple[str, ...]
    """Services that died on the way: their processor time is not whole, and the rate is not the usual one."""

    @property
    def chunk_count(self) -> int:
        return int(self.status["chunks"]["total"])


@contextlib.contextmanager
def running_stack(
    data: Path,
    *,
    embedding: str,
    provider: Provider | None = None,
    cgroup: Cgroup | None = None,
    ready_s_max: float = READY_S_MAX,
) -> Iterator[Stack]:
    if cgroup is None:
        argv = [str(Path(sys.executable).with_name("paperlog")), "up"]
        argv += ["--data", str(data), "--port", "0", "--embedding", embedding]
    else:
        argv = [
            sys.executable,
            str(ROOT / "bench/harness/capped_up.py"),
            str(cgroup.path),
            str(data),
            embedding,
        ]
    env = {**os.environ, "PYTHONWARNINGS": "default"}
    if provider is not None:
        env |= {"OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "bench"}
    data.mkdir(parents=True, exist_ok=True)
    with (data / "up.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        with _ended(process):
            stack = Stack(data=data, provider=provider)
            wait_until(
                "the stack's start", lambda: _is_ready(stack) or process.poll() is not None, ready_s_max
            )
            if process.poll() is not None:
                raise BenchFailed(f"`paperlog up` ended: {(data / 'up.log').read_text()[-2000:]}")
            yield stack


def _is_ready(stack: Stack) -> bool:
    try:
        return answers_ready(stack.url)
    except (OSError, ValueError):
        return False


def answers_ready(url: str) -> bool:
    try:
        # Verifying would load the machine's authorities each time, which costs more than the answer; there is no TLS.
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Asked to stop, waited for, and ended only when it does not."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
