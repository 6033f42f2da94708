"""One acceptance test from the command line: who, which station, what is allowed; its report and its lock."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from controller.config import load_station
from controller.config.problems import ConfigErrors
from controller.paths import StateDir, StationBusy, StationLock
from hil_tests.acceptance import subject as subjects
from hil_tests.acceptance.report import Report
from hil_tests.acceptance.subject import Asked, Measure

REPORT, ASKED, MEASURE, OPEN = (
    pytest.StashKey[Report](), pytest.StashKey[Asked](), pytest.StashKey[Measure](),
    pytest.StashKey[contextlib.ExitStack](),
)  # fmt: skip


def begin(config: pytest.Config) -> None:
    """Begin the report; lock the station against a host of its own.

    Raises:
        UsageError: the station file is wrong, the station is in use, or the trace cannot be written.
    """
    report(config)
    config.stash[OPEN] = contextlib.ExitStack()
    station: Path | None = config.getoption("--station", default=None)
    if station is None:
        return
    try:
        config.stash[ASKED] = asked = _asked(config, station)
        subjects.begin(config.stash[REPORT], asked)
    except ConfigErrors as error:
        raise pytest.UsageError("\n".join(p.message for p in error.problems)) from error
    except (OSError, StationBusy) as error:
        raise pytest.UsageError(str(error)) from error


def report(config: pytest.Config) -> Report:
    """Return the report of this session."""
    if REPORT not in config.stash:
        config.stash[REPORT] = Report()
    return config.stash[REPORT]


def _asked(config: pytest.Config, station: Path) -> Asked:
    """Return what the command line says, with the station locked and the trace begun."""
    loaded, stack = load_station(station), config.stash[OPEN]
    if loaded.bench is None:
        lock = StationLock(StateDir.of(loaded.name, config.getoption("--state")))
        lock.acquire({"doing": "acceptance test"})
        stack.callback(lock.release)
    trace = stack.enter_context(subjects.recording(config.getoption("--trace-wire"), station))
    capture = config.pluginmanager.getplugin("capturemanager")
    return Asked(
        station, config.getoption("--allow-energise"),
        config.getoption("--dummy") or loaded.acceptance.dummy,
        config.getoption("--operator") or subjects.user(), loaded.bench is not None,
        interactive=sys.stdin.isatty(), trace=trace,
        pause=capture.global_and_fixture_disabled if capture is not None else contextlib.nullcontext,
    )  # fmt: skip
