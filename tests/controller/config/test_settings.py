from pathlib import Path

import pytest

from controller.config import load_experiment, reduce_settings
from controller.config.calibrations import BUILT_IN
from controller.config.sample import XRAY_LINES
from edge.calibration_tables import TABLES
from edge.lines import XRAY_KEV
from edge.settings import Settings

EXPERIMENTS = Path(__file__).parents[3] / "hil_tests" / "experiments"


def test_what_the_reduction_is_told(station, experiment):
    assert reduce_settings(station, experiment) == {
        "detectors": {
            "pixe": {"kind": "sdd", "channels": 2048, "offset_kev": 0.0, "gain_kev": pytest.approx(0.01)},
            "pige": {"kind": "hpge", "channels": 8192, "offset_kev": 0.0, "gain_kev": 0.25},
        },
        "lithium_line": {"centroid_kev": 481.0, "fwhm_kev": 6.0},
        "lines": [
            {"element": "Li", "detector": "pige", "method": "window"},
            {"element": "Co", "detector": "pixe", "method": "window"},
            {"element": "P", "detector": "pixe", "method": "window"},
        ],
        "layers": [
            {"name": "anode", "kind": "metal"},
            {"name": "separator", "kind": "separator", "normaliser": "P"},
            {
                "name": "cathode",
                "kind": "host",
                "normaliser": "Co",
                "host": "LiCoO2",
                "mass_fractions": {"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05},
            },
        ],
        "interface": ["separator", "cathode"],
        "reference": "as prepared",
        "calibration": "lco-meep-2.91MeV",
        "beam": {"energy_kev": pytest.approx(2911.0), "angle_deg": 0.0},
        "capacity_coulomb": pytest.approx(0.072),
        "capacity_error": pytest.approx(0.05),
        "leakage_a": 0.0,
        "same_cell": True,
        "priors": {},
    }


def test_options_reach_the_reduction(station_with, experiment_with):
    station = station_with(
        ('detector = "sdd"', 'detector = "sdd"\nresolution = "160 eV"\nfast_dead = "0.1 us"')
    )
    experiment = experiment_with(
        ('element = "Co"\ndetector = "pixe"',
         'element = "Co"\ndetector = "pixe"\nline = "Kb"\nmethod = "fit"'),
        ('element = "Li"\ndetector = "pige"',
         'element = "Li"\ndetector = "pige"\nwindow = ["475 keV", "487 keV"]\nbackground = [["490 keV", '
         '"500 keV"]]'),
        ('capacity_error = "5 %"', 'capacity_error = "5 %"\nleakage = "10 nA"'),
        ('interface = ["separator", "cathode"]',
         'interface = ["separator", "cathode"]\nsame_cell = false\nrelative = { zero = "charging" }\n'
         'priors = { normalisation = "3 %", lithium_centroid = "0.5 keV" }'),
    )  # fmt: skip
    told = reduce_settings(station, experiment)
    assert told["detectors"]["pixe"]["resolution_kev"] == pytest.approx(0.16)
    assert told["detectors"]["pixe"]["fast_dead_s"] == pytest.approx(1e-7)
    assert told["lines"][0]["window_kev"] == [475.0, 487.0]
    assert told["lines"][0]["background_kev"] == [[490.0, 500.0]]
    assert (told["lines"][1]["line"], told["lines"][1]["method"]) == ("Kb", "fit")
    assert told["leakage_a"] == pytest.approx(1e-8)
    assert told["same_cell"] is False
    assert told["relative"] == {"zero": "charging"}
    assert told["priors"] == {"normalisation": pytest.approx(0.03), "lithium_centroid_kev": 0.5}
    assert Settings.from_dict(told).lithium_centroid_kev == 481.0


@pytest.mark.parametrize("name", ["quickstart", "moeller2021"])
def test_the_reduction_takes_both_experiments(name, station):
    settings = Settings.from_dict(reduce_settings(station, load_experiment(EXPERIMENTS / f"{name}.toml")))
    assert settings.table is not None
    assert settings.table.name == "lco-meep-2.91MeV"
    assert settings.reference == "as prepared"


def test_both_ends_know_the_same_calibration_tables():
    assert set(BUILT_IN) == set(TABLES)
    for name, mine in BUILT_IN.items():
        theirs = TABLES[name]
        assert (mine.host, dict(mine.mass_fractions)) == (theirs.host, dict(theirs.mass_fractions))
        assert (mine.energy_kev, mine.angle_deg) == (theirs.energy_kev, theirs.angle_deg)
        assert mine.x == pytest.approx(theirs.x)
        assert mine.signal == pytest.approx(theirs.signal, abs=0.006)  # one is rounded, the other computed


def test_every_element_that_files_may_name_has_a_line_in_the_reduction():
    known: dict[str, set[str]] = {}
    for element, line in XRAY_KEV:
        known.setdefault(element, set()).add(line)
    assert {element: set(lines) for element, lines in XRAY_LINES.items()} == known
