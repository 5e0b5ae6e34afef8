"""Becomes another program that dies when the process that started it dies, even by SIGKILL.

Run as `python -I -S bound.py <pid of the starter> <program> <argument>…`. A program of its own and no `preexec_fn`,
because that one runs Python between fork and exec, in a copy of a process that may have threads.
Knows the standard library alone. Linux has the death signal; elsewhere the program runs without it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    starter, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    # The starter may have died before the line above: then no signal will come, and our parent is another one.
    if os.getppid() != starter:
        sys.exit("the process that started this one is gone")
    os.execvp(program[0], program)  # noqa: S606 - the supervisor's own argument list, no shell


main()
