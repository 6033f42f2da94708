"""Whole runs with a stage: coarse coordinates, a stage that fails, and the guard that watches it."""

import h5py
import pytest

from hil_tests.harness import Run, World, experiment, scan_step

pytestmark = pytest.mark.soak  # minutes of whole runs: python -m hil_tests.soak --only stage

START = scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }")


def move(stage, **more):
    keys = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'[[step]]\ndo = "move"\nstage = {list(stage)!r}\n{keys}\n'.replace("'", '"')


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A bench with a stage, without heater and cell; its box is read seldom, for a busy machine."""
    rack = [word for one in ("stage=zaber_ascii", "heater=none", "cell=none") for word in ("--with", one)]
    bench = World.start(tmp_path_factory.mktemp("staged"), speed=2.0, seed=5, more=rack)
    text = bench.station.read_text()
    bench.station.write_text(text.replace('period = "0.1 s"', 'period = "0.5 s"', 1))
    yield bench
    bench.stop()


def run_of(world, folder, steps):
    path = experiment(folder / "staged.toml", steps)
    return Run.start(folder, path, "--station", str(world.station))


def test_a_move_to_coarse_coordinates_is_recorded_everywhere_and_never_under_the_beam(world, tmp_path):
    there = ("25.12 mm", "24.9 mm")
    run = run_of(
        world, tmp_path, START + move(there) + scan_step("there", (8, 12), 10.0, "until = { passes = 1 }")
    )
    try:
        assert run.ended(seconds=300) == 0, run.tell()
    finally:
        run.kill_all()
    twin = world.truth()["twins"]["stage"]
    assert twin["position_um"] == pytest.approx([25_120.0, 24_900.0], abs=0.05)
    assert twin["moved_under_beam_um"] == 0.0
    (moved,) = [event["body"] for event in run.events("stage")]
    assert moved["position_um"] == pytest.approx([25_120.0, 24_900.0], abs=0.05)
    before, after = (event["body"]["stamp"]["stage_um"] for event in run.events("pass"))
    assert before == pytest.approx([25_000.0, 25_000.0], abs=0.05)
    assert after == moved["position_um"]
    primary = [e["body"]["data"] for e in run.events("doc/event") if "stage_x" in e["body"]["data"]]
    assert primary[-1]["stage_x"] == moved["position_um"][0]
    (path,) = run.run_dir.glob("*.nxs")
    with h5py.File(path) as file:
        assert file["entry/map_Li_scan_2"].attrs["operando_stage_um"] == pytest.approx(moved["position_um"])
        assert file["entry/instrument/stage/x/value"].attrs["units"] == "um"


@pytest.mark.parametrize(
    ("fault", "code", "why"),
    [
        ({"kind": "stall", "at_um": 25_200.0}, 3, "FS: stalled and stopped"),
        ({"kind": "jammed"}, 3, "stood still for 2 s"),
    ],
)
def test_a_move_that_fails_ends_the_run_and_nothing_is_scanned_there(world, tmp_path, fault, code, why):
    reset(world)
    there = move(("25.6 mm", "25 mm"))
    steps = (
        START
        + move(("25.1 mm", "25 mm"))
        + there
        + scan_step("there", (8, 12), 10.0, "until = { passes = 1 }")
    )
    run = run_of(world, tmp_path, steps)
    try:
        run.until(lambda status: status["scan"], "the first scan", seconds=300)
        world.fault("stage", **fault)
        assert run.ended(seconds=300) == code, run.tell()
    finally:
        run.kill_all()
        world.fault("stage", "jammed", given=False)
    assert why in run.record["outcome"]
    assert len(run.events("pass")) == 1
    assert dark(world)


def test_a_stage_that_is_pushed_under_the_beam_trips_the_guard(world, tmp_path):
    reset(world)
    steps = START + move(("25.1 mm", "25 mm")) + scan_step("long", (16, 24), 20.0, "until = { passes = 20 }")
    run = run_of(world, tmp_path, steps)
    try:
        run.until(
            lambda status: status["scan"] and status["scan"]["name"] == "long", "the long scan", seconds=300
        )
        world.fault("stage", "knob", um=40.0)
        assert run.ended(seconds=300) == 4, run.tell()
    finally:
        run.kill_all()
    assert run.record["trips"][0]["id"] == "stage-displaced"
    assert dark(world)


def dark(world):
    """Return whether the beam is truly blanked and shut."""
    io = world.ask("counters")["twins"]["io"]
    return io["blanked"] and not io["shutter_open"]


MOSAIC = """[[step]]
do = "scan"
name = "wide"
raster = { pixels = [8, 12], size = ["80 um", "120 um"], dwell = "20 ms" }
mosaic = { tiles = [2, 2], overlap = 2, centre = ["25 mm", "25 mm"] }
until = { passes = 1 }
timeout = "5 min"
"""


def test_an_interrupted_mosaic_goes_on_with_the_tile_that_is_missing(world, tmp_path):
    reset(world)
    run = run_of(world, tmp_path, START + MOSAIC)
    try:
        run.until(
            lambda status: status["scan"] and status["scan"]["name"] == "wide 2-2",
            "the third tile",
            seconds=300,
        )
        run.kill_all()
        again = Run.resume(run)
        assert again.ended(seconds=300) in (0, 6), again.tell()  # with the gap of the interruption
    finally:
        run.kill_all()
    tiles = {event["body"]["scan"]: event["body"] for event in again.events("tile")}
    assert [(tile["column"], tile["row"]) for tile in tiles.values()] == [(0, 0), (1, 0), (1, 1), (0, 1)]
    good = [event["body"]["scan"] for event in again.events("pass") if event["body"]["good"]]
    assert sorted(good) == [1, *tiles]  # every tile once, none again
    for tile in tiles.values():
        stage_um = [25_000.0 - shift for shift in tile["shift_um"]]
        assert tile["position_um"] == pytest.approx(stage_um, abs=0.05)
    assert world.truth()["twins"]["stage"]["moved_under_beam_um"] == 0.0
    with h5py.File(next(again.run_dir.glob("*.nxs"))) as file:
        dose = file["entry/overview_wide_dose"]
        assert list(dose.attrs["operando_tiles"]) == [4, 4]
        values = dose["values"][()]
        assert values.shape == (22, 14)
        corner, seam, middle = values[:10, :6], values[:10, 6:8], values[10:12, 6:8]
        assert seam.mean() / corner.mean() == pytest.approx(2.0, rel=0.1)
        assert middle.mean() / corner.mean() == pytest.approx(4.0, rel=0.1)
    assert (again.run_dir / "overview-wide.png").is_file()


def reset(world):
    """Bring the stage of the bench back to its centre, homed, as a person would."""
    world.fault("stage", "home")
