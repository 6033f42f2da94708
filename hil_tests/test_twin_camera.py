"""The camera's twin with its faults, seen by the driver's own watch, in time that is handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from drivers.files import images
from drivers.frame_watch import FolderWatch, Taken, WatchSettings, whole_image
from hil_tests.sim import scenario
from hil_tests.sim.camera import FolderCamera
from hil_tests.sim.physics.neutrons import Radiograph

STEP_S = 0.25
EXPOSURE_S = 2.0


class Shutter:
    """Counts as the I/O box does."""

    def __init__(self) -> None:
        self.is_open = False
        self.shutter_openings = 0
        self.shutter_open_s = 0.0

    def move(self, opens: bool) -> None:
        self.shutter_openings += opens and not self.is_open
        self.is_open = opens


class Station:
    """A camera, its folder, whoever watches it, and the shutter between them."""

    def __init__(self) -> None:
        world = scenario.build(scenario.read("quickstart"), seed=2)
        self.shutter = Shutter()
        radiograph = Radiograph(world.sample, np.random.default_rng(1), {"exposure_s": EXPOSURE_S})
        self.camera = FolderCamera(radiograph, self.shutter)
        asyncio.run(self.camera.start())
        settings = WatchSettings(
            self.camera.folder, "neutrons_*.tif", settle_s=0.5, patience_s=6.0, hold_s=EXPOSURE_S + 1.0
        )
        self.watch = FolderWatch(settings, whole_image((160, 256), images.read))
        self.now_s = 0.0
        self.watch.start(0.0)

    def pass_time(self, seconds: float) -> list[Taken]:
        found = []
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            self.shutter.shutter_open_s += STEP_S if self.shutter.is_open else 0.0
            self.camera.advance(self.now_s)
            found += self.watch.look(self.now_s)
        return found

    def expose(self) -> None:
        self.watch.start(self.now_s)


@pytest.fixture
def station() -> Iterator[Station]:
    made = Station()
    yield made
    asyncio.run(made.camera.stop())


def test_an_exposure_holds_only_images_taken_after_its_start(station: Station) -> None:
    station.pass_time(5.0)
    station.shutter.move(True)  # in the middle of an image: half of it is dark
    station.expose()
    found = station.pass_time(16.0)
    lit = [float(taken.image[:, :50].mean()) for taken in found]
    assert len(lit) >= 4
    assert max(lit) - min(lit) < 0.01 * max(lit)
    assert station.watch.tally.held >= 1


def test_the_first_opening_sees_the_open_beam_the_next_one_the_cell(station: Station) -> None:
    station.shutter.move(True)
    open_beam = station.pass_time(8.0)[-1].image
    station.shutter.move(False)
    dark = station.pass_time(8.0)[-1].image
    station.shutter.move(True)
    cell = station.pass_time(8.0)[-1].image
    inside, air = np.s_[90:150, 80:180], np.s_[90:150, 4:50]
    assert dark.mean() == pytest.approx(100.0, abs=1.0)
    assert cell[air].mean() == pytest.approx(open_beam[air].mean(), rel=0.02)
    seen = (cell[inside].mean() - 100.0) / (open_beam[inside].mean() - 100.0)
    told = station.camera.counters()["layers"]["cathode"]["lithium6_per_cm2"]
    assert -np.log(seen) == pytest.approx(940e-24 * told, rel=0.03)  # 940 b at 1.798 Angstrom


def test_a_shutter_that_was_closed_between_two_looks_of_the_camera_was_closed(station: Station) -> None:
    station.shutter.move(True)
    open_beam = station.pass_time(8.0)[-1].image
    station.shutter.move(False)
    station.shutter.move(True)
    cell = station.pass_time(8.0)[-1].image
    assert cell[90:150, 80:180].mean() < 0.9 * open_beam[90:150, 80:180].mean()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "lost"}, {"lost": 1}),
        ({"kind": "half"}, {"incomplete": 1}),
        ({"kind": "wrong"}, {"incomplete": 1}),
        ({"kind": "doubled"}, {"repeated": 1}),
        ({"kind": "late", "for_s": 5.0}, {}),
        ({"kind": "silence", "for_s": 4.0}, {}),
    ],
)
def test_faults_are_counted_and_stop_nothing(
    station: Station, fault: dict[str, Any], expected: dict[str, int]
) -> None:
    station.pass_time(8.0)
    station.expose()
    station.pass_time(8.0)
    station.camera.inject(fault)
    before = station.watch.tally.frames
    found = station.pass_time(20.0)
    told = station.watch.tally.as_dict()
    # A half or foreign image and a doubled number leave a hole among the numbers, too.
    for name in ("incomplete", "repeated"):
        assert told[name] == expected.get(name, 0), told
    if fault["kind"] in ("lost", "late"):
        assert told["lost"] == expected.get("lost", 0), told
    assert told["frames"] - before == len(found) >= 7
    numbers = [taken.number for taken in found]
    assert (sorted(numbers) != numbers) == (fault["kind"] == "late")
