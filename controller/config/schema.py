"""JSON Schemas of the files that people write, for editors and for ``operando schema``.

A quantity is a string with ``x-unit`` (the unit in which its bounds are given) and examples. What concerns
more than one table is checked by the program only.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from controller.config.calibrations import CalibrationFile
from controller.config.experiment import Experiment
from controller.config.keys import keys_of
from controller.config.station import Station

Kind = Literal["station", "experiment", "calibration"]
KINDS: tuple[Kind, ...] = ("station", "experiment", "calibration")

_MODELS: dict[Kind, type[BaseModel]] = {
    "station": Station,
    "experiment": Experiment,
    "calibration": CalibrationFile,
}


class _Described(GenerateJsonSchema):
    """Puts the words of ``keys.toml`` beside every key: an editor shows them where the key is written."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Return the schema of one table."""
        told = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        texts = {key.name: key.text for key in keys_of(model)}
        for name, inside in told.get("properties", {}).items():
            if texts.get(name):
                inside["description"] = texts[name]
        return told


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one kind of file.

    Raises: ValueError for another kind.
    """
    if kind not in _MODELS:
        raise ValueError(f"no schema for {kind!r}: there are {', '.join(KINDS)}")
    schema = _MODELS[kind].model_json_schema(by_alias=True, mode="validation", schema_generator=_Described)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"operando/{kind}/1",
        **schema,
        "title": f"operando {kind} file",
    }
