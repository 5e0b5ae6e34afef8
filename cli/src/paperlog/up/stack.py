"""The embedded stack: which processes there are, with which settings, in which folders. Reading it is reading the
deployment.

Refuses to know how processes are kept alive (supervisor.py) and what the services do with their settings.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eventlog.spaces import Space
from paperlog.up.core import child_env, plan_embedders, store_settings
from paperlog.up.kafka import STOP_S_MAX, EmbeddedKafka
from paperlog.up.processes import Child, free_port
from paperlog.up.supervisor import Supervisor, Unit, write_json

HOST = "127.0.0.1"
STOP_RANKS = {"graph-writer": 0, "embedder": 1, "ingest": 2, "kafka": 3}
"""From the end of the way of the data to its beginning: nobody is left without the log that it needs to finish."""
NICENESS = {"embedder": 10}
"""It can be ahead of the graph-writer, which works alone on one processor then (docs/decisions/0016)."""


def python_modules(module: str) -> Sequence[str]:
    return (sys.executable, "-m", f"{module}.app")


@dataclass(slots=True)
class Stack:
    data: Path
    port: int
    default_space: Space
    environ: Mapping[str, str]
    say: Callable[[str], None]
    argv_of: Callable[[str], Sequence[str]] = python_modules
    """The program of a module (`ingest`, `embedder`, `graph_writer`); tests put others in their place."""
    store: Mapping[str, str] = field(init=False)
    """What the graph-writer is told of its store."""
    _kafka: EmbeddedKafka = field(init=False)
    _ports: dict[str, int] = field(default_factory=dict)
    _embedders: dict[Space, str] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Raises ValueError where the environment names a store that cannot be used."""
        self.store = store_settings(self.environ, str(self.data / "store"))

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    def build(self, supervisor: Supervisor) -> None:
        """In the order of starting: Kafka, and when that answers ingest, the embedder, the graph-writer."""
        kafka = self._kafka = EmbeddedKafka(self.data / "kafka", log=self.logs / "kafka.log", say=self.say)
        supervisor.add(
            Unit(
                name="kafka",
                spawn=kafka.spawn,
                is_up=kafka.is_ready,
                stop_rank=STOP_RANKS["kafka"],
                stop_s_max=STOP_S_MAX,
            )
        )
        graph_writer_url = f"http://{HOST}:{self._port_of('graph-writer')}"
        self._ports["ingest"] = self.port
        supervisor.add(
            self._service(
                "ingest",
                module="ingest",
                own={
                    "PAPERLOG_BLOBS": str(self.data / "blobs"),
                    "PAPERLOG_EMBEDDERS": str(self.data / "embedders.json"),
                    "PAPERLOG_GRAPH_WRITER_URL": graph_writer_url,
                    "PAPERLOG_DEFAULT_SPACE": str(self.default_space),
                },
            )
        )
        self._add_embedder(supervisor, self.default_space)
        supervisor.add(
            self._service(
                "graph-writer",
                module="graph_writer",
                own=self.store,
            )
        )

    def add_embedders(self, supervisor: Supervisor, in_use: Sequence[str]) -> None:
        """One more for every space in use that has none; what cannot be started is said once."""
        plan = plan_embedders(in_use, self._embedders, self.environ)
        for space in plan.start:
            self.say(f"projects of this folder use {space}; starting an embedder for it")
            self._add_embedder(supervisor, space)
        for space, key in plan.without_key:
            self._say_once(
                f"projects of this folder use {space}, but {key} is not set: they are searched by words only"
                f" until `paperlog up` runs with {key}"
            )
        for name in plan.unknown:
            self._say_once(f"projects of this folder use {name!r}, which this version does not know")

    def endpoints(self, units: Mapping[str, Unit], pids: Mapping[str, int]) -> dict[str, object]:
        return {
            "http": self.http,
            "kafka": self._kafka.bootstrap,
            "services": {
                name: {"url": unit.url, "pid": pids.get(name)} for name, unit in units.items() if unit.url
            },
            "pids": dict(pids),
        }

    def _add_embedder(self, supervisor: Supervisor, space: Space) -> None:
        is_default = space == self.default_space
        name = "embedder" if is_default else f"embedder-{space.slug}"
        unit = self._service(
            name,
            module="embedder",
            folder=f"embedder-{space.slug}",
            own={"PAPERLOG_EMBEDDING": str(space)},
            provider=space.provider,
            is_needed=is_default,
        )
        assert unit.url is not None
        self._embedders[space] = unit.url
        write_json(self.data / "embedders.json", {str(each): url for each, url in self._embedders.items()})
        supervisor.add(unit)

    def _service(
        self,
        name: str,
        *,
        module: str,
        own: Mapping[str, str],
        folder: str | None = None,
        provider: str = "local",
        is_needed: bool = True,
    ) -> Unit:
        port = self._port_of(name)

        def spawn() -> Child:
            common = {
                "KAFKA_BOOTSTRAP_SERVERS": self._kafka.bootstrap,
                # A Qdrant server may be shared by several stacks, which are told apart by their prefixes.
                "PAPERLOG_PREFIX": self.environ.get("PAPERLOG_PREFIX", "")
                if "QDRANT_URL" in self.store
                else "",
                # One process of each kind: as a static member of its group it comes back without a rebalance.
                "PAPERLOG_INSTANCE": "1",
                "PAPERLOG_HTTP_HOST": HOST,
                "PAPERLOG_HTTP_PORT": str(port),
                "PAPERLOG_DATA_DIR": str(self.data / (folder or name)),
            }
            env = child_env(self.environ, {**common, **own}, provider=provider)
            log = self.logs / f"{name}.log"
            return Child(self.argv_of(module), env=env, log=log, niceness=NICENESS.get(module, 0))

        return Unit(
            name=name,
            spawn=spawn,
            url=f"http://{HOST}:{port}",
            stop_rank=STOP_RANKS[module.replace("_", "-")],
            is_needed=is_needed,
        )

    def _port_of(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = free_port()
        return self._ports[name]

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)
