"""Begins a program, so that Ctrl-C ends it in silence also while its modules are still being loaded."""

from importlib import import_module

from paperlog.failures import INTERRUPTED


def start(module: str) -> int:
    """The exit code of the module's `main`."""
    try:
        return int(import_module(module).main())
    except KeyboardInterrupt:
        return INTERRUPTED


def main() -> int:
    return start("paperlog.main")
