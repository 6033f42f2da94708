"""Offline modules, each in a process of its own: who starts one never loads the numerical libraries."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from controller.verdict import EXIT_INSTRUMENT


def module(
    name: str,
    arguments: Sequence[str],
    *,
    limit_s: float | None = None,
    late: Callable[[], str] | None = None,
) -> int:
    """Run a module to its end and return its exit code.

    Args:
        name: of the module.
        arguments: its command line.
        limit_s: wall seconds it may take; then it is ended.
        late: returns what to tell when it was.
    """
    try:
        done = subprocess.run([sys.executable, "-m", name, *arguments], check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        print(late() if late is not None else f"{name} took longer than {limit_s} s", file=sys.stderr)
        return EXIT_INSTRUMENT
    return done.returncode


def program(main: Callable[[], int]) -> int:
    """Run the main function of such a module; who reads its output may stop reading."""
    with read_at_will():
        return main()
    return 0  # nobody reads on


@contextlib.contextmanager
def read_at_will() -> Iterator[None]:
    """Take it as no error that nobody reads on (``| head``): the rest of the output goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reduce(args: argparse.Namespace) -> int:
    """``operando reduce``: every option is the business of the program itself."""
    return module("controller.offline.reduce", args.rest)


def calibrate(args: argparse.Namespace) -> int:
    """``operando calibrate``."""
    from controller.offline.calibrate_options import words

    return module("controller.offline.calibrate", words(args))


def finish(args: argparse.Namespace) -> int:
    """``operando report`` and ``operando export``."""
    more = ["--format", args.format] if args.part == "export" else ["--pdf"] if args.pdf else []
    return module("controller.offline.finish", [str(args.run_dir), "--only", args.part, *more])
