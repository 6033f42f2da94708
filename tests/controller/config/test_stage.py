"""A stage in both files: what a station may say of it, where a move may go, and mosaics."""

import pytest

from controller.config import ConfigErrors, check_against, experiment_from, from_text, station_from
from controller.config.dose import DosePlan
from controller.config.instruments.zaber import Zaber
from controller.config.scans import Mosaic, Raster
from tests.controller.config.conftest import HERE

AXIS = {"microstep": "0.05 um", "low": "1 mm", "high": "49 mm", "centre": "25 mm"}
STAGE = """
[line.stage]
kind = "serial"
port = "/dev/pts/77"
baud = 115200

[device.stage]
driver = "zaber_ascii"
line = "stage"
period = "0.5 s"
axes.x = { axis = 1, microstep = "0.05 um", low = "1 mm", high = "49 mm", centre = "25 mm" }
axes.y = { axis = 2, microstep = "0.05 um", low = "1 mm", high = "49 mm", centre = "25 mm", reversed = true }
"""
MOSAIC = """
[[step]]
do = "scan"
name = "wide"
raster = { pixels = [8, 12], size = ["80 um", "120 um"], dwell = "10 ms" }
mosaic = { tiles = [3, 2], overlap = 2, centre = ["25 mm", "25 mm"] }
until = { passes = 1 }
timeout = "5 min"
"""


@pytest.fixture
def raster():
    return Raster.model_validate({"pixels": [8, 12], "size": ["80 um", "120 um"], "dwell": "10 ms"})


@pytest.fixture
def stage():
    axes = {"y": {**AXIS, "axis": 2, "reversed": True}, "x": AXIS}
    table = {"driver": "zaber_ascii", "line": "stage", "period": "0.5 s", "axes": axes}
    return Zaber.model_validate(table)


def test_the_driver_gets_what_it_needs_in_the_order_of_the_coordinates(stage):
    settings = stage.settings()
    assert list(settings["axes"]) == ["x", "y"]
    assert settings["axes"]["x"] == {
        "device": 1, "axis": 1, "microstep_um": pytest.approx(0.05), "resolution": 64,
        "low_um": pytest.approx(1000.0), "high_um": pytest.approx(49_000.0),
    }  # fmt: skip


def test_the_beam_goes_the_other_way_over_the_sample_unless_the_stage_is_reversed(stage):
    assert stage.shift_um((25_100.0, 25_100.0)) == pytest.approx((-100.0, 100.0))
    there = stage.beside_um((25_000.0, 25_000.0), (30.0, -40.0))
    assert stage.shift_um(there) == pytest.approx((30.0, -40.0))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('high = "49 mm"', 'high = "0.5 mm"', 'axes.x.high = "0.5 mm" is not above the low limit'),
        (
            'centre = "25 mm"',
            'centre = "50 mm"',
            'axes.x.centre = "50 mm" is outside the limits of this axis',
        ),
        ('microstep = "0.05 um"', 'microstep = "0 um"', 'axes.x.microstep = "0 um" must be'),
        ("axis = 2", "axis = 1", "gives y the address of x"),
        ('period = "0.5 s"', 'period = "0.01 s"', "faster than all axes can be read"),
    ],
)
def test_an_impossible_stage_is_refused_in_words(old, new, told):
    station = (HERE / "station.toml").read_text() + STAGE.replace(old, new, 1)
    with pytest.raises(ConfigErrors) as refused:
        station_from(from_text(station, "station.toml"))
    assert told in "\n".join(problem.message for problem in refused.value.problems)


def test_a_stage_needs_x_and_y():
    table = {"driver": "zaber_ascii", "line": "stage", "period": "0.5 s"}
    with pytest.raises(ValueError, match="must have an axis x and an axis y"):
        Zaber.model_validate({**table, "axes": {"x": AXIS}})


def test_tiles_are_whole_pixels_apart_and_walked_back_and_forth(raster):
    mosaic = Mosaic.model_validate({"tiles": [3, 2], "overlap": 2, "centre": ["25 mm", "25 mm"]})
    assert mosaic.pitch_um(raster) == pytest.approx((60.0, 100.0))  # 6 and 10 pixels of 10 um
    tiles = list(mosaic.walk(raster))
    assert [(t.column, t.row) for t in tiles] == [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (0, 1)]
    assert tiles[0].shift_um == pytest.approx((-60.0, -50.0))
    assert tiles[3].shift_um == pytest.approx((60.0, 50.0))


def problems(steps, station_too=STAGE):
    """Return what is wrong with an experiment of these further steps at a station with a stage."""
    station = (HERE / "station.toml").read_text() + station_too
    if station_too:
        station = station.replace("[roles]", '[roles]\nstage = "stage"')
    experiment = (HERE / "experiment.toml").read_text() + steps
    found = check_against(
        station_from(from_text(station, "station.toml")), experiment_from(from_text(experiment, "e.toml"))
    )
    return "\n".join(problem.message for problem in found)


def move(**keys):
    return '\n[[step]]\ndo = "move"\n' + "".join(f"{key} = {value}\n" for key, value in keys.items())


def test_a_move_to_coarse_coordinates_and_a_mosaic_are_fine():
    assert problems(move(stage='["25.5 mm", "24 mm"]', to='["10 um", "0 um"]', home="true") + MOSAIC) == ""


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (move(stage='["50 mm", "24 mm"]'), "is outside the limits of axis x, 1 mm to 49 mm"),
        (move(stage='["5 mm", "24 mm", "1 mm"]'), "has 3 coordinates, and the stage has 2 axes"),
        (MOSAIC.replace("25 mm", "48.95 mm"), "is outside the limits of axis x, 1 mm to 49 mm for tile"),
    ],
)
def test_a_place_that_the_stage_cannot_reach_is_refused(steps, told):
    assert told in problems(steps)


@pytest.mark.parametrize("steps", [move(stage='["25 mm", "25 mm"]'), move(home="true"), MOSAIC])
def test_a_station_without_a_stage_is_told_so(steps):
    assert "needs a stage, and [roles] of the station names none" in problems(steps, "")


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (move(), "goes nowhere"),
        (MOSAIC.replace("tiles = [3, 2]", "tiles = [1, 1]"), "more than one in all"),
        (MOSAIC.replace("overlap = 2", "overlap = 8"), "is the whole tile"),
        (MOSAIC.replace('name = "wide"', 'name = "wide"\npurpose = "after"'), "which is an overview"),
    ],
)
def test_a_step_that_cannot_be_is_refused_with_the_file(steps, told):
    with pytest.raises(Exception, match=told):  # whichever of the readers finds it
        problems(steps)


def test_the_dose_counts_every_tile_where_it_is_and_overlaps_add(stage):
    text = (HERE / "experiment.toml").read_text() + MOSAIC
    experiment = experiment_from(from_text(text, "e.toml"))
    (placed,) = [one for one in experiment.walk() if getattr(one.step, "name", "") == "wide"]
    assert experiment.purpose(placed) == "overview"
    (_, worst), *_ = DosePlan(24e-12, None, stage).running_maximum([placed])
    (_, one_tile), *_ = DosePlan(24e-12, None, None).running_maximum([placed])
    assert worst == pytest.approx(4 * one_tile)  # where four tiles meet
