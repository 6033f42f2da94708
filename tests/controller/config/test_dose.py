import math

import pytest

from controller.config.dose import DosePlan, Patch, fluence_per_cm2, highest
from controller.config.scans import Raster

from .conftest import HERE

ELEMENTARY = 1.602176634e-19


def raster(pixels, size, dwell="20 ms"):
    return Raster.model_validate({"pixels": list(pixels), "size": list(size), "dwell": dwell})


def test_dose_of_the_paper():
    # 24 pA for 1.5 h on 50 x 300 um2: "about 5e15 protons per cm2" (science notes); by hand
    # 24e-12 A * 5400 s / 1.602e-19 C = 8.09e11 protons on 1.5e-4 cm2
    dose = fluence_per_cm2(raster((128, 128), ("50 um", "300 um")), 5400.0, 24e-12, None)
    assert dose == pytest.approx(5.39e15, rel=1e-3)


def test_a_spot_smaller_than_the_pixel_concentrates_the_dose():
    coarse = raster((10, 10), ("100 um", "100 um"))  # pixels of 100 um2
    spot_um2 = math.pi * 1.2**2 / 4.0
    spread = fluence_per_cm2(coarse, 60.0, 24e-12, None)
    assert fluence_per_cm2(coarse, 60.0, 24e-12, 1.2) == pytest.approx(spread * 100.0 / spot_um2)
    fine = raster((200, 200), ("100 um", "100 um"))  # pixels of 0.25 um2, smaller than the spot
    assert fluence_per_cm2(fine, 60.0, 24e-12, 1.2) == pytest.approx(spread)


def test_overlaps_add_up_where_they_are():
    left = Patch(0.0, 10.0, 0.0, 10.0, 1.0)
    right = Patch(5.0, 15.0, 5.0, 15.0, 2.0)
    beside = Patch(15.0, 20.0, 0.0, 10.0, 2.5)
    assert highest([left, right]) == 3.0
    assert highest([left, beside]) == 2.5  # touching edges do not overlap
    assert highest([left, right, beside]) == 3.0
    assert highest([]) == 0.0


def test_a_scan_that_stops_at_a_dose_gives_no_more(experiment_with):
    experiment = experiment_with(("until = { passes = 4 }", 'until = { dose = "1e14 /cm2" }'))
    _, first = next(DosePlan(24e-12, None).running_maximum(experiment.walk()))
    assert first == pytest.approx(1e14)
    _, first = next(DosePlan(24e-15, None).running_maximum(experiment.walk()))
    assert first == pytest.approx(1800.0 * 24e-15 / ELEMENTARY / 3e-4)  # its timeout comes first


def test_repeats_add_up_and_moved_scans_do_not(experiment_with):
    step = (HERE / "experiment.toml").read_text().partition("[[step]]\n")[2].partition("[[step]]")[0]
    once = 4 * 122.88 * 24e-12 / ELEMENTARY / 3e-4
    repeated = '[[step]]\ndo = "repeat"\ntimes = 3\n[[step.step]]\n' + step.replace("as prepared", "again")
    moved = (
        '[[step]]\ndo = "move"\nto = ["0 um", "310 um"]\n' + "[[step]]\n" + step.replace("as prepared", "b")
    )
    back = moved.replace("310 um", "0 um").replace('"b"', '"c"')
    experiment = experiment_with(("[[step]]\n" + step, "[[step]]\n" + step + repeated + moved + back))
    totals = [total for _, total in DosePlan(24e-12, None).running_maximum(experiment.walk())]
    assert totals[:4] == [pytest.approx(factor * once) for factor in (1, 4, 4, 5)]


def test_scans_of_an_experiment(experiment):
    plan = DosePlan(24e-12, None)
    totals = [(placed.key, total) for placed, total in plan.running_maximum(experiment.walk())]
    per_second = 24e-12 / ELEMENTARY / 3e-4  # on 100 x 300 um2
    # four passes of 64 * 64 * 30 ms, then as long as the charge may last: its 2 h
    assert totals == [
        ("step[0]", pytest.approx(4 * 122.88 * per_second)),
        ("step[3].step[1]", pytest.approx((4 * 122.88 + 7200.0) * per_second)),
    ]
