"""How a run ends: exit codes, and what an exception means in plain words."""

from __future__ import annotations

import contextlib
import traceback
from typing import Literal

from controller.journal import JournalError
from drivers.errors import DriverError

EXIT_DONE, EXIT_FILES, EXIT_INSTRUMENT, EXIT_GUARD, EXIT_ABORTED, EXIT_GAPS = 0, 2, 3, 4, 5, 6


class Stopped(Exception):
    """Something ended the run before its steps were done: exit code and a reason in plain words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def verdict(error: BaseException) -> Stopped:
    """Return exit code and reason for whatever ended the run; what nobody expected keeps its traceback."""
    found = leaves(error)
    for leaf in found:
        if isinstance(leaf, Stopped):
            return leaf
    if all(isinstance(leaf, DriverError | JournalError | OSError) for leaf in found):
        return Stopped(EXIT_INSTRUMENT, "; ".join(str(leaf) for leaf in found))
    with contextlib.suppress(OSError):  # no room for it
        traceback.print_exception(error)  # into logs/control.log
    text = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in found)
    return Stopped(EXIT_INSTRUMENT, f"the host failed ({text}); see logs/control.log")


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions at the ends of a group, or the one exception itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def exit_status(code: int) -> Literal["success", "abort", "fail"]:
    """Return the exit status of the stop document (event-model) for an exit code."""
    if code in (EXIT_DONE, EXIT_GAPS):
        return "success"
    return "abort" if code in (EXIT_GUARD, EXIT_ABORTED) else "fail"
