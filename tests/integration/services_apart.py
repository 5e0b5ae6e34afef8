"""The three services as processes of their own against a broker that is not ours, and the command on top of them."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.embedder_process import Embedder

from eventlog.spaces import DEFAULT_SPACE, parse_space

LIBRARY = Path(__file__).parents[2] / "examples" / "library"


class Ingest(Embedder):
    """The same handle on another program."""

    module = "ingest.app"


class GraphWriter(Embedder):
    module = "graph_writer.app"


class Apart:
    """`kafka_of` says how a service, by its name, reaches the log; `store` is what the graph-writer is told of its store,
    `model` what the embedder is told of its provider.
    """

    def __init__(
        self,
        folder: Path,
        kafka_of: Callable[[str], Mapping[str, str]],
        store: Mapping[str, str] | None = None,
        model: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        model = model or {"PAPERLOG_EMBEDDING": str(DEFAULT_SPACE)}
        space = str(parse_space(model["PAPERLOG_EMBEDDING"]))
        self.embedder = Embedder(folder / "embedder", {**kafka_of("embedder"), **model})
        where = store or {"PAPERLOG_STORE_DIR": str(folder / "store")}
        self.writer = GraphWriter(folder / "graph-writer", {**kafka_of("graph-writer"), **where})
        own = {
            "PAPERLOG_BLOBS": str(folder / "blobs"),
            "PAPERLOG_GRAPH_WRITER_URL": self.writer.url,
            "PAPERLOG_EMBEDDERS": json.dumps({space: self.embedder.url}),
            "PAPERLOG_DEFAULT_SPACE": space,
        }
        self.ingest = Ingest(folder / "ingest", {**kafka_of("ingest"), **own})

    @property
    def services(self) -> list[Embedder]:
        return [self.ingest, self.embedder, self.writer]

    @property
    def said(self) -> str:
        return "".join(one.log_text for one in self.services)

    def import_library(self, project: str) -> str:
        """Waits until it is complete; one of its files is damaged, which is said by the exit code."""
        return self.command("import", str(LIBRARY), "--project", project, "--wait", exit_code=3).strip()

    def command(self, *arguments: str, exit_code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "paperlog.main", *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PAPERLOG_URL": self.ingest.url, "NO_COLOR": "1"},
            check=False,
        )
        assert done.returncode == exit_code, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.said[-6000:]}"
        return done.stdout


@asynccontextmanager
async def apart(
    folder: Path,
    kafka_of: Callable[[str], Mapping[str, str]],
    store: Mapping[str, str] | None = None,
    model: Mapping[str, str] | None = None,
) -> AsyncIterator[Apart]:
    """All three, ready."""
    stack = Apart(folder, kafka_of, store, model)
    try:
        for one in stack.services:
            one.spawn()
        for one in stack.services:
            await one.until_ready()
        yield stack
    finally:
        for one in stack.services:
            one.close()
