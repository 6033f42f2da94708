"""How far long work is: a bar with the time left, on a terminal only and beside what is printed (stderr)."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


class Steps:
    """Shows which of a number of parts is being worked on; says nothing where the output is no terminal.

    Args:
        title: of the work.
        total: how many parts there are; 0 if that is not known.
        stream: where it is shown.
    """

    def __init__(self, title: str, total: int, stream: TextIO | None = None) -> None:
        self._title, self._total = title, total
        self._stream = stream or sys.stderr
        self._bar: Progress | None = None
        self._begun = 0

    def __enter__(self) -> Self:
        if not self._stream.isatty():
            return self
        from rich import progress as parts
        from rich.console import Console

        console = Console(file=self._stream)
        if console.is_dumb_terminal:
            return self
        text = parts.TextColumn("{task.description}", markup=False)
        known = [parts.MofNCompleteColumn(), parts.TimeRemainingColumn()]
        self._bar = parts.Progress(text, parts.BarColumn(20), *known, console=console, transient=True)
        with contextlib.suppress(OSError, SystemExit):  # a terminal that is gone takes only the view with it
            self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total or None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, SystemExit):
                self._bar.stop()

    def begin(self, part: str) -> None:
        """The next part is begun, and the one before it is done."""
        if self._bar is not None:
            room = max(self._bar.console.width - 60, 16)
            shown = part if len(part) <= room else "…" + part[1 - room :]
            self._bar.update(self._task, completed=self._begun, description=f"{self._title}: {shown}")
        self._begun += 1
