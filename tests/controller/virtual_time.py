"""An event loop whose time passes only when nothing else is to be done: hours of a host in seconds.

``loop.time()`` hardly moves while callbacks run and jumps to the next timer when all are waiting. Work in
threads (the journal's commits) is waited for in real time, so that the disk takes no time at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from queue import SimpleQueue
from typing import Any

PATIENCE_S = 20.0  # real seconds that a thread may take
TURN_S = 1e-9  # a turn of the loop takes time: even a wait shorter than the last digit of the clock ends
TURNS = 20_000  # turns in which nobody waits: somebody asks again and again


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self.now_s = start_s
        self.in_threads = 0  # pieces of work that threads have not answered yet
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return virtual seconds."""
        return self.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
        """Run in a thread, with time standing still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.await_thread(future)
        return future

    def await_thread(self, future: asyncio.Future[Any]) -> None:
        """Let time stand still until a future that a thread answers is done."""
        self.in_threads += 1
        future.add_done_callback(self._answered)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let time stand still while a thread is waited for."""
        self.in_threads += 1
        try:
            yield
        finally:
            self.in_threads -= 1

    def _answered(self, _: object) -> None:
        self.in_threads -= 1


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._turns += 1
            if self._turns > TURNS and not self._loop.in_threads:
                self._turns = 0
                raise AssertionError(f"nobody waits for time to pass:\n{self._who()}")
            if not self._loop.in_threads:
                self._loop.now_s += TURN_S
            return ready
        self._turns = 0
        if self._loop.in_threads or timeout is None:
            ready = super().select(PATIENCE_S)
            if not ready:
                raise AssertionError(f"nothing came from a thread or a socket within {PATIENCE_S:g} s")
            return ready
        self._loop.now_s += timeout
        return ready

    def _who(self) -> str:
        """Name where every task waits, from the outermost call to the innermost."""
        return "\n".join(sorted({_chain(task) for task in asyncio.all_tasks(self._loop)}))


def _chain(task: asyncio.Task[Any]) -> str:
    names, waits = [], task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None)
        if frame is None:
            break
        names.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        waits = getattr(waits, "cr_await", None)
    return " > ".join(names)


class CountingQueue:
    """The queue to the journal's thread: time stands still until every job is answered."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._loop = asyncio.get_running_loop()

    def put(self, job: Any) -> None:
        """Hand over a job."""
        if job is not None and isinstance(self._loop, VirtualLoop):
            self._loop.await_thread(job.done)
        self._queue.put(job)

    def get(self) -> Any:
        """Take the next job."""
        return self._queue.get()

    def empty(self) -> bool:
        """Return whether no job waits."""
        return self._queue.empty()
