"""Python, SQLite and the packages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

from controller.doctor.finding import Finding, good, look, wrong

PYTHON = (3, 11)
# "WAL reset", sqlite.org/wal.html: 3.7.0 to 3.51.2 may damage a database when two connections write or
# checkpoint at the same time; repaired in 3.51.3, and in 3.44.6 and 3.50.7 of the older series.
WAL_RESET = ((3, 7, 0), (3, 51, 3))
WAL_RESET_REPAIRED = {(3, 44): 6, (3, 50): 7}
SQLITE_OLDEST = (3, 35, 0)


def python(version: tuple[int, ...]) -> Finding:
    """Judge the interpreter."""
    text = ".".join(str(n) for n in version[:3])
    if version[:2] < PYTHON:
        return wrong("Python", text, "Python 3.11 or newer")
    return good("Python", text)


def sqlite(version: tuple[int, ...]) -> Finding:
    """Judge the library below the journal."""
    text = ".".join(str(n) for n in version)
    if version < SQLITE_OLDEST:
        return wrong(
            "SQLite", f"{text} is older than the journal was tried with", "a newer system, or Python"
        )
    if WAL_RESET[0] <= version < WAL_RESET[1] and version[2] < WAL_RESET_REPAIRED.get(
        (version[0], version[1]), 1000
    ):
        return look(
            "SQLite", f"{text} has the WAL-reset fault: two programs that write at once may damage the "
            "file. The journal has one writer, so it is safe from it",
            "never open journal.sqlite for writing with other programs; 3.51.3 repairs it",
        )  # fmt: skip
    return good("SQLite", text)


def packages(requires: Sequence[str], installed: Callable[[str], str]) -> Iterator[Finding]:
    """Judge what is installed against what the distribution asks for, extras left out.

    Args:
        requires: requirement lines of the package (PEP 508).
        installed: returns the version of a package; raises PackageNotFoundError.
    """
    from packaging.requirements import Requirement

    bad, seen = [], 0
    for text in requires:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        seen += 1
        found = ""
        with contextlib.suppress(metadata.PackageNotFoundError):
            found = installed(need.name)
        if not found or not need.specifier.contains(found, prereleases=True):
            bad.append(f"{need.name} {found or 'is missing'} (asked: {need.specifier or 'any'})")
    if bad:
        yield wrong(
            "packages", "; ".join(bad), "make setup, or pip install --require-hashes -r requirements.lock"
        )
    else:
        yield good("packages", f"{seen} packages as the program asks for them")
