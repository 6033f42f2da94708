import tomllib
from pathlib import Path

import jsonschema
import pytest

from controller.config import json_schema
from controller.config import schema as schema_module
from controller.config.schema import KINDS

from .conftest import HERE, changed

EXPERIMENTS = Path(__file__).parents[3] / "hil_tests" / "experiments"


def plain(text):
    """Return a file as JSON would carry it: dates are text there."""
    data = tomllib.loads(text)
    for device in data.get("device", {}).values():
        if "sensor_break" in device:
            device["sensor_break"]["confirmed_on"] = str(device["sensor_break"]["confirmed_on"])
    return data


def errors(kind, data):
    return list(jsonschema.Draft202012Validator(json_schema(kind)).iter_errors(data))


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_schemas(kind):
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"operando {kind} file"
    assert schema["additionalProperties"] is False


def test_valid_files_are_valid():
    assert errors("station", plain((HERE / "station.toml").read_text())) == []
    assert errors("experiment", plain((HERE / "experiment.toml").read_text())) == []
    for path in EXPERIMENTS.glob("*.toml"):
        assert errors("experiment", plain(path.read_text())) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("station", ('period = "0.25 s"', "period = 0.25")),
        ("station", ("temperature_rate =", "temprature_rate =")),
        ("station", ('dose = "1e17 /cm2"', "")),
        ("station", ('model = "es4_hr"', 'modle = "es4_hr"')),
        ("experiment", ('do = "background"', 'do = "nothing"')),
        ("experiment", ('current = "13 uA"', "current = 13")),
        ("experiment", ('ramp = "10 K/min"\n', "")),
    ],
)
def test_wrong_files_are_wrong(name, change):
    assert errors(name, plain(changed(f"{name}.toml", (change,))))


def test_quantities_say_their_unit():
    heat = json_schema("experiment")["$defs"]["Heat"]["properties"]
    assert heat["to"]["type"] == "string"
    assert heat["to"]["x-unit"] == "K"
    assert heat["to"]["examples"] == ["333 K", "60 degC"]
    assert (heat["within"]["x-above"], heat["within"]["x-maximum"]) == (0.0, 50.0)
    assert heat["within"]["x-quantity"] == "temperature difference"


def test_there_is_no_other_schema():
    with pytest.raises(ValueError, match="there are station, experiment, calibration"):
        json_schema("banana")  # type: ignore[arg-type]


def described(kind):
    """Yield (table, key, description) of every key in a schema."""
    schema = json_schema(kind)
    for table, inside in [("", schema), *schema.get("$defs", {}).items()]:
        for key, told in inside.get("properties", {}).items():
            yield table, key, told.get("description", "")


@pytest.mark.parametrize("kind", KINDS)
def test_an_editor_shows_what_every_key_means(kind):
    """The words are those of ``keys.toml``, the same as in new files, reference and messages."""
    told = list(described(kind))
    assert len(told) >= 9
    assert [(table, key) for table, key, text in told if not text] == []


def test_the_words_are_those_of_the_file():
    words = tomllib.loads((Path(schema_module.__file__).parent / "keys.toml").read_text())
    told = {(table, key): text for table, key, text in described("experiment")}
    assert told["Heat", "ramp"] == words["Heat"]["ramp"]
    told = {(table, key): text for table, key, text in described("station")}
    put = words["StationInfo"]["name"]
    assert told["StationInfo", "name"] == put["text"]
    assert told["", "limits"] == words["Station"]["limits"]
