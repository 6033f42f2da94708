"""What ``check`` tells of every kind of step: time, images, pulses, charge, dose; none is silently 0."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from controller.config import check_against, experiment_from, from_text, station_from
from controller.config.steps import Step
from controller.estimate import Estimate, estimate
from tests.controller.config.conftest import changed
from tests.controller.config.test_exposures import CAMERA
from tests.controller.config.test_stage import MOSAIC, STAGE

RASTER = 'raster = { pixels = [8, 8], size = ["80 um", "80 um"], dwell = "10 ms" }'
EVERY_KIND = f"""
[[step]]
do = "hold"
duration = "2 min"
[[step]]
do = "rest"
duration = "3 min"
[[step]]
do = "pulse"
name = "titration"
direction = "charge"
current = "10 uA"
on = "36 s"
rest = "5 min"
times = 4
[[step]]
do = "eis"
name = "sweep"
start = "10 kHz"
stop = "1 Hz"
points = 9
timeout = "10 min"
[[step]]
do = "discharge"
current = "10 uA"
until = {{ charge = "1 uAh" }}
timeout = "1 h"
[[step]]
do = "calibrate"
{RASTER}
until = {{ passes = 3 }}
timeout = "5 min"
[[step]]
do = "move"
stage = ["35 mm", "25 mm"]
[[step]]
do = "expose"
name = "frames"
detector = "compton"
until = {{ frames = 91189 }}
timeout = "1 min"
[[step]]
do = "message"
text = "Is the sample in place?"
wait = true
timeout = "4 min"
[[step]]
do = "manual"
gone = "hold"
heater = {{ low = "295 K", high = "330 K", ramp = "5 K/min" }}
timeout = "6 min"
[[step]]
do = "repeat"
times = 3
[[step.step]]
do = "heat"
to = "333 K"
within = "2 K"
ramp = "10 K/min"
timeout = "30 min"
[[step.step]]
do = "cool"
to = "308 K"
timeout = "30 min"
[[step.step]]
do = "pulse"
name = "within"
direction = "discharge"
current = "10 uA"
on = "36 s"
rest = "24 s"
times = 2
{MOSAIC}"""
BY_HAND_S = {
    "hold": 120.0,
    "rest": 180.0,
    "titration": 4 * 336.0,
    "sweep": sum(3.0 / 10 ** (4.0 - k / 2) for k in range(9)),  # three periods at each frequency
    "discharge": 360.0,
    "move": 3.0 + 10_000.0 / 10_000.0,
    "frames": 10.0,  # 91 189 at 9118.87 Hz
    "message": 240.0,
    "manual": 360.0,
}


def estimated(steps: str, begin: str | None = None) -> Estimate:
    station = station_from(
        from_text(
            changed(
                "station.toml", (("[roles]", f'{CAMERA}{STAGE}[roles]\ncompton = "camera"\nstage = "stage"'),)
            ),
            "s.toml",
        )
    )
    text = (changed("experiment.toml", ()) if begin is None else begin) + steps
    experiment = experiment_from(from_text(text, "e.toml"))
    check_against(station, experiment)
    return estimate(station, experiment)


@pytest.fixture(scope="module")
def found() -> Estimate:
    return estimated(EVERY_KIND)


def test_no_kind_of_step_takes_no_time(found: Estimate) -> None:
    kinds = {get_args(kind.model_fields["do"].annotation)[0] for kind in get_args(get_args(Step)[0])}
    assert {step.do for step in found.steps} == kinds  # a new kind must be estimated, too
    assert [step.key for step in found.steps if not step.expected_s > 0.0] == []
    assert [step.key for step in found.steps if not step.expected_s <= step.longest_s * 1.001] == []
    shown = {line.split(":")[0] for line in found.lines()}
    assert kinds - {"parallel", "repeat"} <= shown


def test_times_by_hand(found: Estimate) -> None:
    told = {step.name or step.do: step.expected_s for step in found.steps}
    for name, seconds in BY_HAND_S.items():
        assert told[name] == pytest.approx(seconds, rel=1e-4), name


def test_a_repetition_cools_down_from_where_it_was_heated_to(found: Estimate) -> None:
    """T falls from 333 to 310 K in 600 s ln(35 / 12); the first turn begins at 333 K, the others at 308 K."""
    cool_s = 600.0 * math.log(35.0 / 12.0)
    pulses_s = 2 * 60.0
    ramps_s = 2 * 25.0 / (10.0 / 60.0)
    repeat = next(step for step in found.steps if step.do == "repeat")
    assert repeat.expected_s == pytest.approx(3 * (cool_s + pulses_s + 150.0) + ramps_s)


def test_turns_of_a_cell_that_begins_empty_by_hand() -> None:
    """0 to 50 % once, then 10 to 50 % and back: of 20 uAh 10, 8, 8 in and 8, 8, 8 out, at 10 uA."""
    ends = ("charge", "50 %"), ("discharge", "10 %")
    inside = "".join(
        f'[[step.step]]\ndo = "{kind}"\ncurrent = "10 uA"\nuntil = {{ soc = "{soc}" }}\ntimeout = "3 h"\n'
        for kind, soc in ends
    )
    text = changed("experiment.toml", ())
    text = text[: text.index("[analysis]")]
    found = estimated(f'[[step]]\ndo = "repeat"\ntimes = 3\n{inside}', text)
    lines = found.lines()
    assert "charge: 3 steps, 2.6 h, 26 uAh" in lines
    assert "discharge: 3 steps, 2.4 h, -24 uAh" in lines
    assert found.expected_s == pytest.approx(5.0 * 3600.0)
    charge = next(step for step in found.steps if step.do == "charge")
    assert charge.expected_s == pytest.approx(2.6 / 3 * 3600.0), "one turn, on average"


def test_what_is_counted_and_passed(found: Estimate) -> None:
    steps = {step.name or step.do: step for step in found.steps}
    assert steps["titration"].pulses == 4
    assert steps["titration"].charge_coulomb == pytest.approx(4 * 10e-6 * 36.0)
    assert steps["within"].times == 3
    assert steps["within"].charge_coulomb == pytest.approx(-2 * 10e-6 * 36.0)
    assert steps["discharge"].charge_coulomb == pytest.approx(-3.6e-3)
    assert steps["sweep"].points == 9
    assert steps["frames"].images == pytest.approx(91189.0)
    assert steps["calibrate"].passes == pytest.approx(3.0)
    assert steps["wide"].passes == pytest.approx(6.0)  # once over each of six tiles


def test_the_dose_of_a_calibration_and_of_a_tile_by_hand(found: Estimate) -> None:
    steps = {step.name or step.do: step for step in found.steps}
    protons = 24e-12 * 64 * 0.01 * 3 / 1.602176634e-19
    assert steps["calibrate"].dose_per_cm2 == pytest.approx(protons / 80.0**2 / 1e-8)
    per_pixel = 24e-12 * 0.01 / 1.602176634e-19
    wide = next(scan for scan in found.scans if scan.name == "wide")
    assert wide.protons_per_pixel == pytest.approx(per_pixel)  # a pixel lies in one tile, but for overlaps
    assert wide.tiles == 6
    assert steps["wide"].dose_per_cm2 == pytest.approx(4 * per_pixel / 100.0 / 1e-8)  # where four overlap


def test_people_are_told_by_kind(found: Estimate) -> None:
    lines = found.lines()
    assert "pulse: 4 steps, 28.4 min, 10 pulses, -0.2 uAh" in lines
    assert "eis: 1 step, 4.39 s, 9 frequencies" in lines
    assert "expose: 1 step, 10 s, 91189 images" in lines
    assert "calibrate: 1 step, 3.16 s, 3 passes, at most 4.5e+12 /cm2 in one of them" in lines
    assert any("6.0 passes" in line and "on 6 tiles" in line for line in lines)
    assumed = "\n".join(found.notes)
    for words in (
        "a question is answered at the end of its timeout", "a manual step takes its whole timeout",
        "the stage moves 10 mm/s", "the dose of exposures is not known",
    ):  # fmt: skip
        assert words in assumed


def test_a_scan_that_ends_on_its_dose_is_computed_and_one_on_its_uncertainty_named() -> None:
    scan = f'[[step]]\ndo = "scan"\nname = "short"\n{RASTER}\nuntil = {{ %s }}\ntimeout = "1 h"\n'
    protons = 24e-12 * 64 * 0.01 / 1.602176634e-19 / 80.0**2 / 1e-8  # of one pass, per cm2
    found = estimated(scan % f'dose = "{4.5 * protons:.6g} /cm2"')
    assert next(step for step in found.steps if step.name == "short").passes == pytest.approx(5.0)
    goal = 'uncertainty = { quantity = "x", layer = "cathode", below = "5 %" }'
    found = estimated(scan % goal)
    assert next(step for step in found.steps if step.name == "short").expected_s == pytest.approx(3600.0)
    assert any(note.startswith('"short" may end earlier, on uncertainty') for note in found.notes)


def test_raw_data_of_every_turn_and_of_calibrations_are_on_the_disk() -> None:
    scan = f'do = "scan"\nname = "often"\n{RASTER}\nuntil = {{ passes = 2000 }}\ntimeout = "10 h"\n'
    once = estimated(f"[[step]]\n{scan}")
    often = estimated(f'[[step]]\ndo = "repeat"\ntimes = 4\n[[step.step]]\n{scan}')
    none = estimated("")
    assert often.disk_bytes - none.disk_bytes == pytest.approx(
        4 * (once.disk_bytes - none.disk_bytes), rel=1e-3
    )
    calibrate = scan.replace('do = "scan"\nname = "often"', 'do = "calibrate"')
    assert estimated(f"[[step]]\n{calibrate}").disk_bytes == pytest.approx(once.disk_bytes)


def test_the_hits_of_a_photon_counting_camera_are_on_the_disk() -> None:
    """One pixel in a hundred, as its note in ``check`` says: 4 bytes a hit, 10 a frame."""
    expose = '[[step]]\ndo = "expose"\nname = "s"\ndetector = "compton"\ntimeout = "5 min"\n'
    expose += 'until = { duration = "100.04 s" }\npurpose = '
    sample, dark = (estimated(f'{expose}"{purpose}"\n') for purpose in ("sample", "dark"))
    frames = 100.04 * 9118.87
    assert sample.disk_bytes - dark.disk_bytes == pytest.approx(frames * (10 + 64 * 4), rel=1e-3)
    assert any("1 % of the pixels" in note for note in sample.notes)
    (told,) = (line for line in sample.lines() if line.startswith("expose:"))
    assert told.endswith(f" {frames:.0f} images")
