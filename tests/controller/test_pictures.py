"""Profiles and the local state of charge follow the method that their lines ask for."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest

from controller.reduce import pictures
from controller.reduce.spectra import spectra
from edge.analysis import Analysis
from edge.ion_beam import IonBeamReducer, Settings
from edge.placement import Placement
from edge.scan_data import ScanData
from tests.edge.ion_beam_model import SETTINGS, Model
from tests.edge.test_ion_beam import run


@cache
def reduced(method: str) -> tuple[Analysis, ScanData, Placement, dict]:
    settings = copy.deepcopy(SETTINGS)
    for line in settings["lines"]:
        line["method"] = method
    reducer = IonBeamReducer(Settings.from_dict(settings))
    model = Model(24, 32, dwell=0.3, blur=5.0, seed=21)
    run(reducer, model, 0, "as prepared", "reference", 2)
    run(reducer, model, 1, "after", "after", 2, charge=(0.072, 0.072))
    result = reducer.result().to_dict()
    analysis, scan = reducer.last_analysis, reducer.scans[1]
    placement = analysis.placement(scan)
    assert isinstance(placement, Placement)
    return analysis, scan, placement, result


@pytest.mark.parametrize("method", ["window", "projection"])
def test_a_profile_has_the_counts_of_the_map_by_its_own_method(method):
    analysis, scan, placement, result = reduced(method)
    assert not any("no profile" in flag for flag in result["flags"])
    maps = pictures.element_maps(analysis, scan)
    drawn = pictures.profiles(analysis, scan, placement)
    assert set(drawn) == {"Li", "Co", "P"}
    for element, entry in drawn.items():
        net = np.sum(entry["values"] * entry["exposure"])
        assert net == pytest.approx(
            np.sum(maps[element]["values"], dtype=float), rel=0.03
        )  # corners left out
        assert net == pytest.approx(np.sum(entry["gross"] - entry["background"]), rel=1e-9)


def test_projection_is_another_and_a_sharper_estimate_than_windows():
    by = {m: pictures.profiles(*reduced(m)[:3])["Li"] for m in ("window", "projection")}
    assert not np.allclose(by["window"]["values"], by["projection"]["values"])
    assert np.median(by["projection"]["sigma"] / by["window"]["sigma"]) < 0.97


def test_the_local_state_of_charge_follows_the_method(monkeypatch):
    monkeypatch.setattr(pictures, "LOCAL_COUNTS", 60.0)
    found = {}
    for method in ("window", "projection"):
        analysis, scan, placement, result = reduced(method)
        local = pictures.local_soc(analysis, scan, placement)
        assert local is not None
        used = np.isfinite(local["values"]) & np.isfinite(local["sigma"])
        soc = result["layers"][-1]["quantities"]["soc_beam"]["value"]
        pulls = (local["values"][used] - soc) / local["sigma"][used]
        assert used.sum() > 100
        assert abs(np.median(pulls)) < 1.0
        assert np.std(pulls) < 2.0
        found[method] = float(np.median(local["sigma"][used]))
    assert found["projection"] < found["window"]


def test_a_line_counted_by_fits_has_no_profile_and_no_local_soc_and_that_is_said():
    analysis, scan, placement, result = reduced("fit")
    assert pictures.profiles(analysis, scan, placement) == {}
    assert pictures.local_soc(analysis, scan, placement) is None
    assert any(flag.startswith("Li: no profile and no local state of charge") for flag in result["flags"])


@pytest.mark.parametrize("method", ["window", "projection"])
def test_a_spectrum_has_the_windows_of_its_lines_with_the_counts_of_the_map(method):
    analysis, scan, _, _ = reduced(method)
    found = spectra(analysis, scan)
    maps = pictures.element_maps(analysis, scan)
    told = {one["element"]: one for entry in found.values() for one in entry["windows"]}
    assert set(told) == {"Li", "Co", "P"}
    for element, one in told.items():
        assert one["low_kev"] < one["high_kev"]
        assert one["sidebands"]
        assert one["net"] == pytest.approx(np.sum(maps[element]["values"], dtype=float), rel=1e-3)
        assert one["sigma"] > 0.0
    for entry in found.values():
        drawn = np.isfinite(entry["fit"])
        assert drawn.any()
        assert np.all(entry["continuum"][drawn] <= entry["fit"][drawn] + 1e-3)
        for one in entry["windows"]:
            inside = (entry["energy_kev"] > one["low_kev"]) & (entry["energy_kev"] < one["high_kev"])
            assert drawn[inside].all()


def test_profiles_of_the_reference_stand_beside_those_of_a_scan_and_meet_at_the_interface():
    analysis, scan, placement, _ = reduced("window")
    reference = analysis.reference
    base = analysis.placement(reference)
    alone = pictures.profiles(analysis, reference, base)
    beside = pictures.profiles_beside_reference(analysis, scan, placement)
    for element, entry in beside.items():
        assert entry["reference_name"] == "as prepared"
        assert np.array_equal(entry["reference_values"], alone[element]["values"])
        moved = entry["reference_position_um"] - entry["interface_um"]
        assert np.allclose(moved, alone[element]["position_um"] - alone[element]["interface_um"])
    assert "reference_values" not in pictures.profiles_beside_reference(analysis, reference, base)["Li"]
