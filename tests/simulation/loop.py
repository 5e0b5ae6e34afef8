"""An event loop for several processes in one thread: virtual time, one seed, SIGKILL and SIGSTOP at any step.

A process is a context that all its tasks inherit. Within one process steps keep their order; which process steps next
is drawn. A process that is dead steps no more, not even to clean up; one that is stopped does all it missed when it
goes on. What a service would do in threads happens at once, for threads know neither seed nor virtual time.
"""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from tests.unit.embedder.virtual_time import VirtualLoop

_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Process:
    """`die_at` is the number of steps after which it dies; `on_death` is called once, outside of it."""

    def __init__(self, name: str, on_death: Callable[["Process"], None]) -> None:
        self.name = name
        self.steps = 0
        self.is_dead = False
        self.is_stopped = False
        self._on_death = on_death
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, main: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        context = contextvars.Context()
        context.run(_PROCESS.set, self)
        return asyncio.get_running_loop().create_task(main, context=context)

    def die(self) -> None:
        if not self.is_dead:
            self.is_dead = True
            self._on_death(self)


class _Task(asyncio.Task[Any]):
    """Sets of tasks and futures have an order that addresses in memory do not decide."""

    def __hash__(self) -> int:
        return self.number  # type: ignore[attr-defined,no-any-return]  # given by the loop


class _Future(asyncio.Future[Any]):
    number = 0

    def __hash__(self) -> int:
        return self.number


class _Ready:
    """The loop's queue of steps, one for each process; `popleft` draws."""

    def __init__(self, chance: random.Random, stepped: Callable[[Process], None]) -> None:
        self._chance = chance
        self._stepped = stepped
        self._queues: dict[Process | None, deque[asyncio.Handle]] = {}
        self._held: dict[Process, list[asyncio.Handle]] = {}
        self._count = 0
        self.keeps_dead = True

    def __len__(self) -> int:
        return self._count

    def append(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_PROCESS)  # type: ignore[attr-defined]  # asyncio has no other name for it
        queue = self._queues.get(process)
        if queue is None:
            queue = self._queues[process] = deque()
        queue.append(handle)
        self._count += 1

    def popleft(self) -> asyncio.Handle:
        processes = [one for one, queue in self._queues.items() if queue]
        process = processes[0] if len(processes) == 1 else self._chance.choice(processes)
        handle = self._queues[process].popleft()
        self._count -= 1
        if process is None or handle.cancelled():
            return handle
        if not (process.is_stopped or process.is_dead):
            process.steps += 1
            self._stepped(process)
        if process.is_stopped or (process.is_dead and self.keeps_dead):
            self._held.setdefault(process, []).append(handle)
            return _NOTHING
        return handle

    @property
    def held(self) -> list[Process]:
        return list(self._held)

    def let_go(self, process: Process) -> None:
        for handle in self._held.pop(process, []):
            self.append(handle)

    def clear(self) -> None:
        self._queues.clear()
        self._held.clear()
        self._count = 0


class _Nothing:
    _cancelled = True


_NOTHING: asyncio.Handle = _Nothing()  # type: ignore[assignment]  # the loop looks at nothing else of what is cancelled


class SimulatedLoop(VirtualLoop):
    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.stepped: Callable[[Process], None] = lambda _: None
        self._numbers = 0
        self._ready: Any = _Ready(chance, lambda process: self.stepped(process))  # noqa: PLW0108 - it is set later
        self.set_task_factory(_make_task)
        self.set_exception_handler(lambda _loop, _context: None)  # of the dead nothing is expected

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def create_future(self) -> Any:
        future = _Future(loop=self)
        future.number = self.next_number()
        return future

    def run_in_executor(  # type: ignore[override]  # typeshed ties the types of arguments to those of the function
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]  # as above
        pass  # Processes here have no signals of their own.

    def stop_process(self, process: Process) -> None:
        process.is_stopped = True

    def go_on(self, process: Process) -> None:
        process.is_stopped = False
        self._ready.let_go(process)

    def bury(self) -> None:
        """From now on the dead step again, in order to end: their tasks would otherwise outlive the loop."""
        self._ready.keeps_dead = False
        for process in self._ready.held:
            self.go_on(process)


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Any, *, context: contextvars.Context | None = None
) -> Any:
    assert isinstance(loop, SimulatedLoop)
    task = _Task.__new__(_Task)
    task.number = loop.next_number()  # type: ignore[attr-defined]  # before its first step, which hashes it
    task.__init__(coro, loop=loop, context=context)  # type: ignore[misc]  # as above
    return task
