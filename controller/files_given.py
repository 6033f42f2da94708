"""The station and experiment files that a command was given: read, or refused in words with exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from controller.config import ConfigErrors, check_files, load_station

if TYPE_CHECKING:
    from controller.config import Experiment, Station

EXIT_FILES = 2


def load_files(station: Path, experiment: Path | None) -> tuple[Station, Experiment | None]:
    """Read a station alone, or with an experiment and held against each other. Raises ConfigErrors."""
    if experiment is None:
        return load_station(station), None
    return check_files(station, experiment)


def refused(error: ConfigErrors) -> int:
    """Print every problem on a line of its own; return the exit code."""
    print(error, file=sys.stderr)
    return EXIT_FILES
