"""One stack under fire: started as a user would, watched by the auditor, killed, healed, drained, rebuilt, judged.

Counts what was injected and what died; knows no fault by name. Everything that is drawn is drawn from one seed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.stack import Provider, Stack, provider, until, write_texts

ROOT = Path(__file__).resolve().parents[2]
MODEL = "openai/test-embedding@64"
SECRETS = ("sk-canary-key-0123456789abcdef", "the heron that nobody may quote stood in the reeds at noon")
"""The first is also what the fake provider says when it refuses a key; the second stands in every library."""
DONE = ("completed", "completed_with_rejections")
TERMINAL = (*DONE, "cancelled", "failed")
SERVICES = ("ingest", "embedder", "graph-writer")
MODULES = {"ingest": "ingest", "embedder": "embedder", "graph-writer": "graph_writer"}
STANDBY = "graph-writer-2"


@dataclass
class World:
    folder: Path
    seed: int
    env: Mapping[str, str] = field(default_factory=dict)
    latency_ms: int = 0
    program: Sequence[str] = ("-m", "paperlog.main", "up")
    before_start: Callable[["World"], None] | None = None
    others: Sequence[str] = ()
    """Services that have a second instance from the start; of the graph-writer it is a standby."""
    needs_folder: bool = False
    """Services get `FAULTS_DIR`, for `points.py`."""
    finish_s_max: float = 180.0
    memory_mb_max: int = 300
    """Anonymous, of the three services together, children included."""
    injected: Counter[str] = field(default_factory=Counter)
    deaths: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    """What a fault wants to have said of itself in the table."""
    sources: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """What a fault itself found broken, the auditor's findings apart."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self.chance = random.Random(self.seed)
        self._open = ExitStack()
        self.provider: Provider = self._open.enter_context(provider(self.folder, latency_ms=self.latency_ms))
        env = {**self.provider.env, "OPENAI_API_KEY": SECRETS[0], **self.env}
        if self.needs_folder:
            (self.folder / "faults" / "fired").mkdir(parents=True)
            env["FAULTS_DIR"] = str(self.folder / "faults")
        if self.before_start is not None:
            self.before_start(self)
        self.stack = Stack(self.folder / "data", embedding=MODEL, env=env, program=self.program)
        self._open.enter_context(self.stack)
        self._watch = self._open.enter_context(self._watching())
        for name in self.others:
            self.start_other(name)
        for name in self.others:
            self.wait_up(f"{name}-2")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_others()
        self._open.__exit__(kind, error, trace)

    def _watching(self) -> "Ended":
        argv = [sys.executable, "-m", "tests.faults.auditor.watch"]
        argv += [str(self.stack.folder), str(self.folder / "watched.jsonl")]
        with (self.folder / "watch.log").open("ab") as log:
            return Ended(subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log))

    def at_end(self, argv: Sequence[str]) -> None:
        """A command that runs when the stack has stopped."""
        self._open.callback(subprocess.run, argv, check=False)

    # --- imports -------------------------------------------------------------------------------------------------

    def library(self, name: str, *, documents: int, chunks_each: int) -> Path:
        folder = self.folder / "libraries" / name
        write_texts(folder, documents=documents, chunks_each=chunks_each, seed=self.chance.randrange(1 << 30))
        first = folder / "text-000.txt"
        first.write_text(f"{first.read_text()}\n{SECRETS[1].capitalize()}.\n")
        return folder

    def import_(self, library: Path, project: str, *more: str) -> str:
        """The id; its files are remembered, for the auditor to read them."""
        import_id = self.stack.import_folder(library, project, *more)
        self.sources[import_id] = [str(path) for path in sorted(library.glob("*.txt"))]
        return import_id

    def settled(self, import_id: str) -> int:
        """Chunks with an outcome; fewer are known when nobody answers."""
        chunks = self.stack.status(import_id)["chunks"]
        return int(sum(chunks[name] for name in ("stored", "rejected", "dead_lettered", "superseded")))

    def wait_settled(self, import_id: str, count: int, timeout_s: float = 180) -> None:
        def is_there() -> bool:
            status = self.stack.status(import_id)
            return status["state"] in TERMINAL or self.settled(import_id) >= count

        until(
            is_there,
            timeout_s,
            lambda: f"not {count} settled: {self.stack.status(import_id)} {self.stack.tail()}",
        )

    def wait_parsed(self, import_id: str, count: int, timeout_s: float = 180) -> None:
        until(
            lambda: self.stack.status(import_id)["documents"]["parsed"] >= count,
            timeout_s,
            lambda: f"not {count} parsed: {self.stack.status(import_id)} {self.stack.tail()}",
        )

    def writer_status(self) -> dict[str, Any]:
        return self.status_of(self.url("graph-writer"))

    def url(self, name: str) -> str:
        return str(self.stack.endpoints()["services"][name]["url"])

    def status_of(self, url: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{url}/status", timeout=30) as answer:
            return dict(json.loads(answer.read()))

    def post(self, url: str) -> None:
        with urllib.request.urlopen(url, data=b"", timeout=10):
            pass

    def check(self, is_true: object, what: str) -> None:
        if not is_true:
            self.broken.append(what)

    # --- deaths --------------------------------------------------------------------------------------------------

    def pid(self, name: str) -> int | None:
        try:
            return int(self.stack.endpoints()["pids"][name])
        except (KeyError, OSError, ValueError, TypeError):
            return None

    def kill(self, name: str) -> None:
        """SIGKILL; waits until the supervisor has started another one. A second instance is started again by us."""
        if name in self._others:
            self.died(name)
            self.end_other(name)
            self.injected["kill"] += 1
            self.start_other(name.removesuffix("-2"))
            return
        until(lambda: self.pid(name) is not None, 60, f"{name} is not there")
        self.died(name)
        self.stack.kill(name)
        self.injected["kill"] += 1

    def died(self, name: str, *, at: float | None = None) -> None:
        """Before it does, so that what it costs comes later."""
        now = time.time() if at is None else at
        self.deaths.append({"name": name, "since": now, "until": now})

    @contextmanager
    def suffering(self, name: str) -> Iterator[None]:
        """A service is stopped, or without what it needs, in between: it may die of it more than once."""
        since = time.time()
        try:
            yield
        finally:
            self.deaths.append({"name": name, "since": since, "until": time.time()})

    def send(self, name: str, number: signal.Signals) -> None:
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, number)

    # --- second instances ----------------------------------------------------------------------------------------

    _others: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    """Of second instances, by `name-2`."""

    def start_other(self, name: str) -> str:
        """A second instance with the settings of the first, a folder, a port and an instance name of its own; its URL."""
        until(lambda: self.pid(name) is not None, 60, f"{name} is not there to take settings from")
        pid = self.pid(name)
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        settings = dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)
        port = _free_port()
        settings |= {
            "PAPERLOG_INSTANCE": "2",
            "PAPERLOG_HTTP_PORT": str(port),
            "PAPERLOG_DATA_DIR": str(self.stack.folder / f"{name}-2"),
        }
        with (self.stack.folder / "logs" / f"{name}-2.log").open("ab") as log:
            self._others[f"{name}-2"] = subprocess.Popen(
                [sys.executable, "-m", f"{MODULES[name]}.app"],
                env=settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.urls[f"{name}-2"] = f"http://127.0.0.1:{port}"
        return self.urls[f"{name}-2"]

    def other_pid(self, name: str) -> int:
        return self._others[name].pid

    def wait_up(self, name: str) -> None:
        """Until a second instance answers; an embedder, until it has its share of the partitions."""
        path = "readyz" if name.startswith("embedder") else "livez"

        def is_up() -> bool:
            try:
                with urllib.request.urlopen(f"{self.urls[name]}/{path}", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until(is_up, 60, f"{name} does not come up")

    def end_others(self) -> None:
        for each in list(self._others):
            self.end_other(each)

    def give_store_back(self) -> None:
        """Reads are asked of the first graph-writer: a standby that has taken over ends, and the first one has the store."""
        if STANDBY in self._others:
            self.died(STANDBY)
            self.end_other(STANDBY)

    def end_other(self, name: str, *, number: signal.Signals = signal.SIGKILL) -> None:
        process = self._others.pop(name)
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        process.wait(30)

    # --- the end -------------------------------------------------------------------------------------------------

    def drain(self, *import_ids: str) -> None:
        """Waits, from the last fault on, until every import has ended and everything is ready: those that are named,
        and whatever else was taken, though its asker may never have heard the answer.
        """
        since = time.monotonic()
        self.give_store_back()
        for import_id in import_ids:
            self.stack.wait(import_id, *TERMINAL, timeout_s=self.finish_s_max)
        for import_id in self._statuses():
            self.stack.wait(import_id, *TERMINAL, timeout_s=self.finish_s_max)
        until(self.is_ready, self.finish_s_max, lambda: f"not ready: {self.stack.request('GET', '/readyz')}")
        self.finished_in_s = time.monotonic() - since

    def is_ready(self) -> bool:
        try:
            return self.stack.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def finish(self) -> int:
        """Stops the stack, rebuilds everything from log and blobs, lets the auditor judge; its exit code."""
        self.end_others()
        self.wait_watched()
        statuses = self._statuses()
        self._watch.end()
        self.stack.stop()
        data = self.stack.folder
        shutil.copytree(data / "store", self.folder / "store-before")
        bills = len(self.provider.billed())
        rebuilt = self._rebuilt()
        said = {
            "seed": self.seed, "deaths": self.deaths, "secrets": SECRETS, "sources": self.sources,
            "statuses": statuses, "statuses_rebuilt": rebuilt, "bills_before_rebuilding": bills,
            "finished_in_s": self.finished_in_s, "finish_s_max": self.finish_s_max,
            "memory_mb_max": self.memory_mb_max,
        }  # fmt: skip
        (self.folder / "run.json").write_text(json.dumps(said, indent=2))
        argv = [sys.executable, "-m", "tests.faults.auditor", str(self.folder)]
        return subprocess.run(argv, cwd=ROOT, check=False).returncode

    def wait_watched(self) -> None:
        """Until the auditor has asked the store about every completion that is there now."""
        ended = {(id_, one["attempt"]) for id_, one in self._statuses().items() if one["state"] in DONE}

        def has_counted() -> bool:
            lines = (self.folder / "watched.jsonl").read_text().splitlines()
            said = [json.loads(line) for line in lines if line.startswith('["counted"')]
            return {(one["import_id"], one["attempt"]) for _, one in said} >= ended

        until(
            has_counted,
            180,
            lambda: f"the auditor has not counted: {(self.folder / 'watch.log').read_text()}",
        )

    def _rebuilt(self) -> dict[str, Any]:
        lose_everything_local(self.stack.folder)
        self.stack.start(ready_s_max=self.finish_s_max)
        statuses = self._statuses()
        self.stack.stop()
        return statuses

    def _statuses(self) -> dict[str, Any]:
        page = self.stack.ask("GET", "/api/imports?limit=200")
        return {one["import_id"]: one for one in page["imports"]}


class Ended:
    """A process that is ended at the end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def lose_everything_local(data: Path) -> None:
    """What stays is the truth: the log and the files; and the words of the services, for the auditor."""
    for each in data.iterdir():
        if not each.is_dir() or each.name in ("kafka", "blobs", "logs"):
            continue
        if each.is_mount():
            for within in each.iterdir():
                shutil.rmtree(within) if within.is_dir() else within.unlink()
        else:
            shutil.rmtree(each)


def _free_port() -> int:
    from paperlog.up.processes import free_port

    return free_port()


Inject = Callable[[World], None]
