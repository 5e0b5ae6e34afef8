"""One child process: its start in a session of its own, its log file, its end.

Knows nothing of what the child does. Whoever starts a child must do so from a thread that lives as long as the
process, the main one: the death signal of Linux is bound to the thread that forked.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOG_BYTES_MAX = 5_000_000
_BOUND = Path(__file__).with_name("bound.py")
_PORTS = range(20_000, 32_000)
"""Below the range from which the kernel draws ports of outgoing connections: a client that tries to reach a dead
server on a port of that range can be given the very port, and connect to itself."""
_spoken_for: set[int] = set()
"""Seconds lie between the choice of a port and its child's listening: until then nobody else shows that it is taken."""


def port_is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reserve_port(port: int) -> bool:
    """False when somebody listens on it. Otherwise this process draws it for nothing else."""
    if not port_is_free(port):
        return False
    _spoken_for.add(port)
    return True


def free_port() -> int:
    """A port that nobody listens on now, and another at each call. Another process may still be quicker to bind it."""
    for _ in range(1000):
        port = random.choice(_PORTS)  # noqa: S311 - spread, not secrecy
        if port not in _spoken_for and reserve_port(port):
            return port
    raise OSError(f"no free port among {_PORTS.start} to {_PORTS.stop}")


class Child:
    """A started process. It and what it started (its session) are gone after `stop` or `kill`.

    `niceness` from 0 to 19: the higher, the more it leaves of a busy processor to the others.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path, niceness: int = 0) -> None:
        assert threading.current_thread() is threading.main_thread(), "start children from the main thread"
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(log.name + ".1"))
        self._log = log
        self._started = time.monotonic()
        with log.open("ab") as out:
            self._log_from = out.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
                [sys.executable, "-I", "-S", str(_BOUND), str(os.getpid()), str(niceness), *argv],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self._started

    def exit_code(self) -> int | None:
        """None while it lives; minus the signal's number when one ended it."""
        if self._process.returncode is None:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return None
            # Before the pid is given back, so that the group cannot be somebody else's.
            self._signal_group(signal.SIGKILL)
            self._process.wait()
        return self._process.returncode

    def terminate(self) -> None:
        if self.exit_code() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.exit_code() is None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when it still lives after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (code := self.exit_code()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return code

    def stop(self, timeout_s: float) -> int:
        """Asks by SIGTERM, waits, ends by SIGKILL what has not gone by itself."""
        self.terminate()
        if self.wait(timeout_s) is None:
            self.kill()
        code = self.exit_code()
        assert code is not None
        return code

    def last_lines(self, count: int = 15) -> list[str]:
        """What this child (not an earlier one in the same file) wrote last."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_from, size - 16_384))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]

    def _signal_group(self, number: int) -> None:
        # ProcessLookupError: nothing of it left; PermissionError: what macOS says for a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
