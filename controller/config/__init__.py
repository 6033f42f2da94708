"""The two files a person writes, station and experiment: read, checked as a whole, turned into SI.

Names are loaded when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.config.experiment import Experiment, Partial, Placed, experiment_from, load_experiment
    from controller.config.files import Source, from_text
    from controller.config.limits import CellWindow, check_against, check_files, effective_limits
    from controller.config.problems import ConfigErrors, Problem
    from controller.config.schema import json_schema
    from controller.config.settings import reduce_settings
    from controller.config.station import Station, load_station, station_from

_HOME = {
    "ConfigErrors": "problems",
    "Problem": "problems",
    "Source": "files",
    "from_text": "files",
    "Station": "station",
    "load_station": "station",
    "station_from": "station",
    "Experiment": "experiment",
    "Partial": "experiment",
    "Placed": "experiment",
    "load_experiment": "experiment",
    "experiment_from": "experiment",
    "CellWindow": "limits",
    "check_against": "limits",
    "check_files": "limits",
    "effective_limits": "limits",
    "reduce_settings": "settings",
    "json_schema": "schema",
}

__all__ = [
    "CellWindow",
    "ConfigErrors",
    "Experiment",
    "Partial",
    "Placed",
    "Problem",
    "Source",
    "Station",
    "check_against",
    "check_files",
    "effective_limits",
    "experiment_from",
    "from_text",
    "json_schema",
    "load_experiment",
    "load_station",
    "reduce_settings",
    "station_from",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
