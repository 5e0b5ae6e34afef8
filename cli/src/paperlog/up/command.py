"""`paperlog up`: checks what can be checked at once, then runs the stack in the foreground until it is told to stop.

Refuses before anything is started: a model that cannot be used, a port that is taken, a folder that another `up` holds.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from eventlog.spaces import Space, parse_space
from paperlog.up.core import WRONG_SETTINGS, missing_key
from paperlog.up.jars import JarsError
from paperlog.up.kafka import KafkaError
from paperlog.up.processes import free_port, reserve_port
from paperlog.up.stack import Stack, python_modules
from paperlog.up.supervisor import Supervisor, Unit, write_json
from paperlog.up.watch import IngestWatch

FAILED = 1
NOT_READY_SAID_EVERY_S = 20.0
SHOWN_S_MAX = 5.0
"""How long what `on_ready` shows may take to notice that the stack was stopped."""

OnReady = Callable[[Stack, Callable[[], bool]], None]
"""Gets the stack, and what tells whether it is being stopped."""


class RefusedError(Exception):
    """`up` does not start. The message says why and what to do."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(text: str) -> None:
    with suppress(OSError):  # The terminal may be gone; the children are to be stopped in order all the same.
        print(f"paperlog: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the terminal is the interface


def up(
    data: Path,
    port: int,
    embedding: str,
    *,
    environ: Mapping[str, str] = os.environ,
    argv_of: Callable[[str], Sequence[str]] = python_modules,
    on_ready: OnReady | None = None,
) -> int:
    """The exit code. `on_ready` runs once, in a thread of its own, when the stack first answers."""
    try:
        space = _usable_space(embedding, environ)
        with _folder_held(data) as folder:
            stack = _usable_stack(folder, _usable_port(port), space, environ, argv_of)
            return _run(stack, on_ready)
    except RefusedError as refused:
        say(str(refused))
        return refused.exit_code
    except (JarsError, KafkaError, OSError) as error:
        say(str(error))
        return FAILED


def _usable_space(embedding: str, environ: Mapping[str, str]) -> Space:
    try:
        space = parse_space(embedding)
    except ValueError as error:
        raise RefusedError(f"--embedding: {error}", exit_code=WRONG_SETTINGS) from error
    if key := missing_key(space, environ):
        raise RefusedError(
            f"--embedding {embedding} needs {key} in the environment", exit_code=WRONG_SETTINGS
        )
    return space


def _usable_stack(
    folder: Path, port: int, space: Space, environ: Mapping[str, str], argv_of: Callable[[str], Sequence[str]]
) -> Stack:
    try:
        return Stack(folder, port, space, environ, say, argv_of)
    except ValueError as error:
        raise RefusedError(str(error), exit_code=WRONG_SETTINGS) from error


def _usable_port(port: int) -> int:
    if port == 0:
        return free_port()
    if not reserve_port(port):
        raise RefusedError(
            f"port {port} is taken by another program; stop that one, or choose another port (--port 0: a free one)"
        )
    return port


@contextmanager
def _folder_held(data: Path) -> Iterator[Path]:
    """Only this process has the lock (children do not inherit it), so it is free as soon as this process is gone."""
    folder = data.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "up.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise RefusedError(f"{data} cannot be the data folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RefusedError(
                f"another `paperlog up` holds {folder} ({lock.read().strip() or 'just starting'});"
                " stop that one, or give this one a folder of its own (--data DIR)"
            ) from None
        yield folder


@dataclass(slots=True)
class _Progress:
    """What is said while the stack comes up, and the one call when it is there."""

    stack: Stack
    watch: IngestWatch
    is_stopping: Callable[[], bool]
    on_ready: OnReady | None
    started: float = field(default_factory=time.monotonic)
    said_at: float = field(default_factory=time.monotonic)
    was_ready: bool = False
    showing: threading.Thread | None = None

    def tick(self) -> None:
        now = time.monotonic()
        if self.watch.is_ready and not self.was_ready:
            self.was_ready = True
            say(f"ready at {self.stack.http} after {now - self.started:.1f} s; Ctrl-C stops it")
            if self.on_ready is not None:
                arguments = (self.stack, self.is_stopping)
                self.showing = threading.Thread(target=self.on_ready, args=arguments, daemon=True)
                self.showing.start()
        elif not self.was_ready and now - self.said_at > NOT_READY_SAID_EVERY_S:
            self.said_at = now
            say(
                f"not ready yet: {', '.join(self.watch.reasons) or 'Kafka starts'}; logs are in {self.stack.logs}"
            )

    def end(self) -> None:
        """Nothing is shown after the last word."""
        if self.showing is not None:
            self.showing.join(timeout=SHOWN_S_MAX)


def _run(stack: Stack, on_ready: OnReady | None) -> int:
    endpoints = stack.data / "endpoints.json"
    endpoints.unlink(missing_ok=True)  # Left by an `up` that was killed; its addresses are nobody's now.
    with (stack.data / "up.lock").open("w", encoding="utf-8") as note:
        note.write(f"pid {os.getpid()}, {stack.http}\n")
    watch = IngestWatch(stack.http)

    def publish(units: dict[str, Unit], pids: dict[str, int]) -> None:
        if units:
            write_json(endpoints, stack.endpoints(units, pids))
        else:
            with suppress(FileNotFoundError):
                endpoints.unlink()

    supervisor = Supervisor(say, publish)
    stack.build(supervisor)
    progress = _Progress(stack, watch, lambda: supervisor.is_stopping, on_ready)

    def each_tick() -> None:
        progress.tick()
        if watch.spaces:
            stack.add_embedders(supervisor, watch.spaces)

    say(f"starting Kafka and the services; data and logs in {stack.data}")
    watch.start()
    try:
        return supervisor.run(each_tick)
    finally:
        watch.stop()
        progress.end()
        say("stopped")
