"""JSON Schemas of the files that people write, for editors and for ``operando schema``.

A quantity is a string with ``x-unit`` (the unit in which its bounds are given) and examples. What concerns
more than one table is checked by the program only.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from controller.config.calibrations import CalibrationFile
from controller.config.experiment import Experiment
from controller.config.station import Station

Kind = Literal["station", "experiment", "calibration"]
KINDS: tuple[Kind, ...] = ("station", "experiment", "calibration")

_MODELS: dict[Kind, type[BaseModel]] = {
    "station": Station,
    "experiment": Experiment,
    "calibration": CalibrationFile,
}


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one kind of file.

    Raises: ValueError for another kind.
    """
    if kind not in _MODELS:
        raise ValueError(f"no schema for {kind!r}: there are {', '.join(KINDS)}")
    schema = _MODELS[kind].model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"operando/{kind}/1",
        **schema,
        "title": f"operando {kind} file",
    }
