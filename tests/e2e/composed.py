"""The services of docker-compose.yml as processes of this machine: their environment as it is written there, and only
hosts, ports and folders replaced by what stands for them here.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.compose import services
from tests.e2e.stack import Stack, until

from paperlog.up.processes import free_port

SERVICES = ("ingest", "embedder", "graph-writer")


class Composed(Stack):
    """`qdrant` is a server's URL, or empty for the embedded store in its place."""

    def __init__(self, folder: Path, *, kafka: str, qdrant: str, prefix: str) -> None:
        super().__init__(folder)
        self._services = services()
        self._stands_for = {"kafka:9092": kafka, "http://qdrant:6333": qdrant, "0.0.0.0": "127.0.0.1"}
        self._ports: dict[str, int] = {}
        for name in SERVICES:
            self._ports[name] = free_port()
            self._stands_for[f"http://{name}:8800"] = f"http://127.0.0.1:{self._ports[name]}"
        self._added = {"PAPERLOG_PREFIX": prefix}
        if not qdrant:
            self._added |= {"PAPERLOG_STORE": "edge", "PAPERLOG_STORE_DIR": str(folder / "store")}
        self.http = f"http://127.0.0.1:{self._ports['ingest']}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: str) -> dict[str, str]:
        """Nothing of our own environment but what finds Python."""
        told: dict[str, str] = {}
        for name, written in self._services[service]["environment"].items():
            value = str(written)
            for there, here in self._stands_for.items():
                value = value.replace(there, here)
            told[name] = re.sub(r"^/(data|blobs)$", str(self.folder / service) + r"/\1", value)
        told["PAPERLOG_HTTP_PORT"] = str(self._ports.get(service, 0))
        found = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**found, **{name: value for name, value in told.items() if value}, **self._added}

    def make_topics(self) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, *self._services["topics"]["entrypoint"][1:]]
        return subprocess.run(
            argv, env=self.environment("topics"), capture_output=True, text=True, timeout=90, check=False
        )

    def run(self, service: str) -> None:
        log = self.folder / "logs" / f"{service}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            argv = [sys.executable, "-m", f"{service.replace('-', '_')}.app"]
            self._running[service] = subprocess.Popen(
                argv, env=self.environment(service), stdout=out, stderr=out
            )

    def kill(self, name: str) -> None:
        """As a container that is killed and started again."""
        self._running[name].kill()
        self._running[name].wait(10)
        self.run(name)

    def is_healthy(self, service: str) -> bool:
        """By the health check as it is written."""
        test = self._services[service]["healthcheck"]["test"]
        assert test[:2] == ["CMD", "python"]
        program = [one.replace(":8800/", f":{self._ports[service]}/") for one in test[2:]]
        return subprocess.run([sys.executable, *program], capture_output=True, check=False).returncode == 0

    def are_healthy(self) -> bool:
        ended = {name: one.poll() for name, one in self._running.items() if one.poll() is not None}
        assert not ended, f"{ended}: {self.tail()}"
        return all(map(self.is_healthy, SERVICES))

    def __enter__(self) -> Self:
        try:
            for service in SERVICES:
                self.run(service)
            until(self.are_healthy, 120, self.tail)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
