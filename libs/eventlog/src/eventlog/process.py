"""How each service runs: on uvloop, and with the cyclic garbage collector asked seldom."""

import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from eventlog import allocator

YOUNG_OBJECTS_MAX = 50_000
"""New containers before a collection; CPython's 700 to 2,000 are a collection every few records."""
_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs it to its end; what was imported before is looked at by no collection."""
    gc.freeze()
    allocator.trim()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 20)
    return uvloop.run(main)
