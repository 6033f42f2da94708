import math
import tomllib

import pytest

from controller.config import experiment_from, from_text
from controller.config.exposures import Expose
from controller.config.timing import Timing, longest_s, pass_time, planned_charge_coulomb

from .conftest import changed


def experiment_of(*pairs):
    return experiment_from(from_text(changed("experiment.toml", pairs), "experiment.toml"))


def placed_of(experiment):
    return {one.key: one for one in experiment.walk()}


def test_time_of_a_pass():
    raster = experiment_of().steps[0].raster
    one = pass_time(raster, 0.002)
    assert one.beam_s == pytest.approx(122.88)  # 64 * 64 * 30 ms
    assert one.parked_s == pytest.approx(64 * 0.032)  # settling and the parking pulse of each line
    assert one.dominates.startswith("beam (9")
    fast = pass_time(raster, 0.002, speed=60.0)
    assert fast.handling_s == pytest.approx(60.0 * one.handling_s)
    assert fast.beam_s == one.beam_s


def test_expected_durations():
    experiment = experiment_of()
    steps = placed_of(experiment)
    timing = Timing(experiment.sample, 0.002, 1.0)
    one_pass = pass_time(steps["step[0]"].step.raster, 0.002).total_s
    assert timing.expected_s(steps["step[0]"]) == pytest.approx(4 * one_pass)
    assert timing.expected_s(steps["step[1]"]) == 30.0
    # 35 K at 10 K/min, 60 s stable, and the stated allowance of 150 s
    assert timing.expected_s(steps["step[2]"], 298.0) == pytest.approx(210.0 + 60.0 + 150.0)
    charging_s = (10.0 / 13.0 * 3600.0 + 7200.0) / 2.0  # between 10 uAh at 13 uA and the limit of 2 h
    assert timing.expected_s(steps["step[3].step[0]"]) == pytest.approx(charging_s)
    assert timing.expected_s(steps["step[3].step[1]"]) == pytest.approx(charging_s)  # it follows
    assert timing.expected_s(steps["step[3]"]) == pytest.approx(charging_s)
    assert timing.passes(steps["step[3].step[1]"]) == pytest.approx(charging_s / one_pass)
    assert [longest_s(step) for step in experiment.steps] == [1800.0, 30.0, 1800.0, 7200.0, 60.0]


@pytest.mark.parametrize(
    ("until", "timeout", "expected_s"),
    [
        ('{ duration = "5 min" }', "30 min", 300.0),
        (
            '{ counts = { element = "Li", layer = "cathode", at_least = 200 } }',
            "2 h",
            2 * 125.356,
        ),  # 1 /s: 2 passes
        (
            '{ counts = { element = "Co", layer = "cathode", at_least = 1310 } }',
            "2 h",
            125.356,
        ),  # 13.1 times as fast
        (
            '{ counts = { element = "P", layer = "separator", at_least = 10 } }',
            "1 h",
            3600.0,
        ),  # not known: timeout
    ],
)
def test_scans_that_end_on_something_else(until, timeout, expected_s):
    experiment = experiment_of(
        ("until = { passes = 4 }", f"until = {until}"), ('timeout = "30 min"', f'timeout = "{timeout}"')
    )
    timing = Timing(experiment.sample, 0.002, 1.0)
    assert timing.expected_s(placed_of(experiment)["step[0]"]) == pytest.approx(expected_s, rel=1e-3)


MORE = """
[[step]]
do = "cool"
to = "313 K"
timeout = "2 h"
[[step]]
do = "cool"
to = "313 K"
ramp = "2 K/min"
timeout = "2 h"
[[step]]
do = "cool"
to = "290 K"
timeout = "2 h"
[[step]]
do = "repeat"
times = 3
[[step.step]]
do = "rest"
duration = "10 s"
[[step.step]]
do = "pulse"
direction = "discharge"
current = "10 uA"
on = "36 s"
rest = "4 s"
times = 2
[[step]]
do = "eis"
start = "100 Hz"
stop = "0.01 Hz"
points = 5
timeout = "2 h"
[[step]]
do = "message"
text = "well?"
wait = true
timeout = "1 h"
[[step]]
do = "charge"
current = "20 uA"
until = { soc = "60 %" }
timeout = "5 h"
[[step]]
do = "discharge"
voltage = "3 V"
until = { duration = "1 h" }
timeout = "5 h"
"""


def test_other_steps():
    experiment = experiment_of(('duration = "60 s"', 'duration = "60 s"' + MORE))
    steps = placed_of(experiment)
    timing = Timing(experiment.sample, 0.002, 1.0)
    # T - 298 K falls from 35 K to 17 K (313 K and its band of 2 K), with 600 s
    assert timing.expected_s(steps["step[5]"], 333.0) == pytest.approx(600.0 * math.log(35.0 / 17.0))
    assert timing.expected_s(steps["step[5]"], 300.0) == 0.0
    assert timing.expected_s(steps["step[6]"], 333.0) == pytest.approx(600.0 + 150.0)
    assert timing.expected_s(steps["step[7]"], 333.0) == 7200.0  # below ambient: never by itself
    assert timing.expected_s(steps["step[8]"]) == pytest.approx(3 * (10.0 + 80.0))
    assert timing.expected_s(steps["step[9]"]) == pytest.approx(3 * (0.01 + 0.1 + 1.0 + 10.0 + 100.0))
    assert longest_s(steps["step[10]"].step) == 3600.0
    assert longest_s(steps["step[8]"].step) == 3 * (10.0 + 80.0)
    assert timing.expected_s(steps["step[12]"]) == 3600.0
    sample = experiment.sample
    assert planned_charge_coulomb(steps["step[8].step[1]"], sample) == pytest.approx(-6 * 10e-6 * 36.0)
    assert planned_charge_coulomb(steps["step[11]"], sample) == pytest.approx(0.6 * 0.072)
    assert planned_charge_coulomb(steps["step[11]"], sample, 0.036) == pytest.approx(0.1 * 0.072)
    assert planned_charge_coulomb(steps["step[12]"], sample) is None  # a voltage alone bounds no charge
    assert planned_charge_coulomb(steps["step[1]"], sample) is None


def expose(until):
    keys = {"do": "expose", "name": "a", "detector": "radiography", "timeout": "10 min"}
    return Expose.model_validate({**keys, "until": tomllib.loads(f"until = {{ {until} }}")["until"]})


@pytest.mark.parametrize(
    ("until", "seconds", "frames"),
    [
        ("frames = 30", 60.0, 30.0),
        ('duration = "20 s"', 20.0, 10.0),
        ('frames = 30, duration = "20 s"', 20.0, 10.0),
        ("frames = 100000", 600.0, 300.0),
    ],
)
def test_an_exposure_takes_its_frames_or_its_time(until, seconds, frames):
    timing = Timing(experiment_of().sample, 0.002, 1.0, frame_s={"radiography": 2.0})
    assert timing.exposure(expose(until)) == pytest.approx((seconds, frames))


def test_of_a_detector_that_is_not_known_nothing_but_the_time_is():
    timing = Timing(experiment_of().sample, 0.002, 1.0)
    assert timing.exposure(expose("frames = 30")) == (600.0, 0.0)
