"""A station whose heater is made of a thermometer and a supply: what it must say, and how it goes off."""

from __future__ import annotations

import re

import pytest

from controller.config import ConfigErrors, load_station

from .conftest import HERE

PARTS = """
[line.rtd]
kind = "serial"
port = "/dev/pts/77"
baud = 9600

[line.psu]
kind = "tcp"
host = "127.0.0.1"
port = 9221

[device.rtd]
driver = "icpdas_m7015"
line = "rtd"
period = "0.5 s"

[device.psu]
driver = "aimtti_cpx400dp"
line = "psu"
heater = "25 ohm"
power_cap = "40 W"
period = "0.5 s"

[device.oven]
driver = "host_pid"
thermometer = "rtd"
supply = "psu"
power = "40 W"
period = "0.5 s"
gains = { kp = "7.5 W/K", ti = "32 s", td = "1.9 s", filter = "1 s" }
"""


def station(tmp_path, *changes: tuple[str, str]):
    text = (HERE / "station.toml").read_text()
    parts = PARTS
    for old, new in changes:
        assert old in parts
        parts = parts.replace(old, new)
    text = re.sub(r'(\[roles\][^\[]*?heater = )"\w+"', r'\1"oven"', text, flags=re.S)
    # the controller of the example stays on its line, and plays no role
    (tmp_path / "station.toml").write_text(text + parts)
    return load_station(tmp_path / "station.toml")


def test_it_is_read_and_goes_off_by_the_line_of_its_supply_alone(tmp_path):
    found = station(tmp_path)
    assert found.lines_of("oven") == ("rtd", "psu")
    assert found.lines_to_off("oven") == ("psu",)
    settings = found.devices["oven"].settings()
    assert settings["gains"]["kp_w_per_k"] == 7.5
    assert settings["power_w"] == 40.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('thermometer = "rtd"', 'thermometer = "rdt"'), "is no [device.X] of this file"),
        (('supply = "psu"', 'supply = "cell"'), 'for this it takes "aimtti_cpx400dp"'),
        (('supply = "psu"', 'supply = "rtd"'), "is the device that measures the temperature"),
        (('\npower = "40 W"', '\npower = "41 W"'), "is above the cap of device.psu"),
        (('ti = "32 s"', "ti = 32"), "ti"),
        (('period = "0.5 s"\ngains', 'period = "1.6 s"\ngains'), "is too slow for a heater"),
        (("gains = {", 'plant = { power = "30 W", capacity = "80 J/K", loss = "0.1 W/K", lag = "5 s", '
          'ambient = "296 K", ambient_within = "1 K", identified_by = "me myself", '
          "identified_on = 2026-11-21 }\ngains = {"), "is the power at output 1"),
        (("gains = {", "gainz = {"), "gain"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_words(tmp_path, change, complaint):
    with pytest.raises(ConfigErrors) as caught:
        station(tmp_path, change)
    assert any(complaint in problem.message for problem in caught.value.problems), [
        problem.message for problem in caught.value.problems
    ]


def test_a_schedule_must_rise(tmp_path):
    falling = '{ at = "340 K", kp = "3 W/K", ti = "30 s" }, { at = "300 K", kp = "6 W/K", ti = "30 s" }'
    rows = f"schedule = [{falling}]"
    with pytest.raises(ConfigErrors) as caught:
        station(tmp_path, ('gains = { kp = "7.5 W/K", ti = "32 s", td = "1.9 s", filter = "1 s" }', rows))
    assert "must be above the row before it" in str(caught.value.problems)
