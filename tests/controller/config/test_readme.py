import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from controller.config import ConfigErrors, check_files, json_schema
from controller.config.quantities import parse, parse_current

from .conftest import HERE, changed

DOCS = Path(__file__).parents[3] / "controller" / "docs"
README = (Path(__file__).parents[3] / "controller" / "config" / "README.md").read_text()


def test_the_reference_has_every_key():
    """This page leaves keys to the reference, which is made from the code."""
    for kind in ("station", "experiment"):
        page = (DOCS / f"reference-{kind}.md").read_text()
        assert f"reference-{kind}.md" in README
        schema = json_schema(kind)
        tables = [schema, *schema["$defs"].values()]
        keys = {key for table in tables for key in table.get("properties", {})}
        assert {key for key in keys if f"| `{key}` |" not in page} == set()


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
