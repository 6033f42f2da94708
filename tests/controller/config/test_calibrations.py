import pytest

from controller.config.calibrations import BUILT_IN


def test_slopes():
    # edge note 4.1: the printed points of table A2 lie on s = 0.5615 x + 0.4406
    assert BUILT_IN["lco-llzo-2.91MeV"].slope == pytest.approx(0.5615, abs=1e-4)
    # science notes: 1, .907, .812, .716, .619, .520 for x = 1 ... 0.5; the ends alone give 0.96
    assert BUILT_IN["lco-meep-2.91MeV"].slope == pytest.approx(0.96, abs=0.01)


def test_composition_within_two_per_cent_and_under_other_names():
    table = BUILT_IN["lco-llzo-2.91MeV"]
    assert table.composition_faults("LCO", {"LCO": 0.51, "LLZO:Ta": 0.49}) == []
    assert table.composition_faults("LiCoO2", {"LiCoO2": 0.53, "LLZO": 0.47}) == [
        "LiCoO2 0.53 instead of 0.5",
        "LLZO 0.47 instead of 0.5",
    ]
    assert table.composition_faults("LiNiO2", {"LiCoO2": 0.5, "LLZO": 0.5}) == [
        "host LiNiO2 instead of LiCoO2"
    ]
