"""A hard memory limit for some processes, where this machine lets us make one: cgroup v1 or v2."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """`path`: a process writes its own id to `cgroup.procs` there, and it and its children are under the limit."""

    path: Path
    is_v2: bool

    @property
    def peak_bytes(self) -> int | None:
        """Anonymous memory and page cache together; it may touch the limit without harm, for cache is given back."""
        return self._number("memory.peak" if self.is_v2 else "memory.max_usage_in_bytes")

    @property
    def oom_kill_count(self) -> int | None:
        name = "memory.events" if self.is_v2 else "memory.oom_control"
        for line in (self.path / name).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return None

    def _number(self, name: str) -> int | None:
        try:
            return int((self.path / name).read_text())
        except (OSError, ValueError):
            return None


@contextlib.contextmanager
def memory_limited(limit_bytes: int) -> Iterator[Cgroup | None]:
    """None where we may not make one. It is gone afterwards, once its processes are."""
    cgroup = _made(limit_bytes)
    try:
        yield cgroup
    finally:
        if cgroup is not None:
            with contextlib.suppress(OSError):
                cgroup.path.rmdir()


def _made(limit_bytes: int) -> Cgroup | None:
    name = f"paperlog-bench-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    for root, is_v2, limit, swap in (
        (_V1, False, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        (_V2, True, "memory.max", "memory.swap.max"),
    ):
        path = root / name
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            (path / limit).write_text(str(limit_bytes))
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()
            continue
        with contextlib.suppress(OSError):  # Without swap accounting there is nothing to limit.
            (path / swap).write_text("0" if is_v2 else str(limit_bytes))
        return Cgroup(path=path, is_v2=is_v2)
    return None
