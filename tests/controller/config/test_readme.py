import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from controller.config import ConfigErrors, check_files, json_schema
from controller.config.quantities import parse, parse_current

from .conftest import HERE, changed

README = (Path(__file__).parents[3] / "controller" / "config" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["station", "experiment"])
def test_every_key_is_documented(kind):
    schema = json_schema(kind)
    tables = [schema, *schema["$defs"].values()]
    keys = {key for table in tables for key in table.get("properties", {})}
    named = set(re.findall(r"`([a-z_0-9]+)`", README)) | set(re.findall(r"\[\[?([a-z_.]+)", README))
    named |= {part for name in named for part in name.split(".")}
    priors = set(schema["$defs"]["Priors"]["properties"]) if kind == "experiment" else set()
    assert keys - named - priors - {"do"} == set()


def test_the_first_example_is_what_the_program_says(tmp_path):
    (tmp_path / "station.toml").write_text((HERE / "station.toml").read_text())
    wrong = (
        ('capacity_error = "5 %"', "capacity_error = 0.05"),
        ('to = "333 K"', 'to = "60 C"'),
        ('voltage = "4.0 V"', 'voltage = "4.6 V"'),
    )
    (tmp_path / "experiment.toml").write_text(changed("experiment.toml", wrong))
    with pytest.raises(ConfigErrors) as caught:
        check_files(tmp_path / "station.toml", tmp_path / "experiment.toml")
    shown = README.partition("```\n")[2].partition("```")[0].splitlines()
    assert [problem.message for problem in caught.value.problems] == shown


def test_quantities_in_the_text_can_be_read():
    for text in re.findall(r'`"([^"]+)"`', README.partition("## Quantities")[2].partition("##")[0]):
        units = ("K", "s", "A", "1", "K/s", "1/cm2", "um/V", "keV", "1/s")
        if text.startswith("C/"):
            assert parse_current(text, 0.072) > 0.0
            continue
        assert any(_reads(text, unit) for unit in units), text


def _reads(text: str, unit: str) -> bool:
    try:
        parse(text, unit)
    except ValueError:
        return False
    return True


def test_models_describe_themselves():
    from controller.config import experiment, sample, scans, station, steps

    for module in (experiment, sample, scans, station, steps):
        for name, model in vars(module).items():
            if isinstance(model, type) and issubclass(model, BaseModel):
                assert model.__doc__, name
