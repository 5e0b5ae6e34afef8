"""Becomes another program that dies when the process that started it dies, even by SIGKILL.

Run as `python -I -S bound.py <pid of the starter> <niceness> <program> <argument>…`. A program of its own and no `preexec_fn`,
because that one runs Python between fork and exec, in a copy of a process that may have threads.
Knows the standard library alone. Linux has the death signal; elsewhere the program runs without it.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    starter, niceness, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    # The starter may have died before the line above: then no signal will come, and our parent is another one.
    if os.getppid() != starter:
        sys.exit("the process that started this one is gone")
    if niceness:
        os.nice(niceness)
        # Where Linux shares processors out among sessions, a process's own niceness counts in its session alone.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))
    os.execvp(program[0], program)  # noqa: S606 - the supervisor's own argument list, no shell


main()
