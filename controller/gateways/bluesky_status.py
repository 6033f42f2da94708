"""What a plan waits for: a status that ends well, or with the reason why not, and never stays open."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Status:
    """One thing under way (``bluesky.protocols.Status``). Threads may wait for it and end it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Status], None]] = []

    def __repr__(self) -> str:
        state = "under way" if not self.done else "done" if self.success else f"failed: {self._error}"
        return f"Status({self._what}, {state})"

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    @property
    def success(self) -> bool:
        """Whether it has ended well."""
        return self.done and self._error is None

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """Return why it failed, None when it did not. Raises TimeoutError while it is under way."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self._what} is still under way")
        return self._error

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end. Raises what made it fail, or TimeoutError."""
        error = self.exception(timeout)
        if error is not None:
            raise error

    def add_callback(self, callback: Callable[[Status], None]) -> None:
        """Call ``callback(status)`` when it has ended, at once if it has."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback(self)

    def end(self, error: BaseException | None = None) -> None:
        """End it; the first end counts."""
        with self._lock:
            if self.done:
                return
            self._error = error
            callbacks, self._callbacks = self._callbacks, []
            self._ended.set()
        for callback in callbacks:
            callback(self)
