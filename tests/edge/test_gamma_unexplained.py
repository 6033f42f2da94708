"""Peaks that no nuclide of the analysis has: real spectra, planted lines, false claims, pulls."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from edge.calibration import EnergyScale, ScaleFit
from edge.gamma import GammaResult, Resolution
from edge.gamma_library import DECAYS
from edge.gamma_lines import LINES
from edge.gamma_unexplained import Residual, Unexplained, find_unexplained
from edge.peaks import gaussian
from tests.edge.test_gamma import counts_of, reduced

SOIL, CAVE, EUROPIUM = "soil_be7_ucb009.Spe", "cave_background_2017.spe", "eu152_7cm.Spe"


@cache
def residual(file: str) -> Residual:
    return with_more(file, np.zeros_like(counts_of(file)))


def with_more(file: str, more: np.ndarray) -> Residual:
    found = find_unexplained(counts_of(file) + more, reduced(file))
    assert found is not None
    return found


def near(lines: tuple[Unexplained, ...], energy_kev: float) -> Unexplained | None:
    return next((one for one in lines if abs(one.energy_kev - energy_kev) < 0.6), None)


def planted(file: str, energy_kev: float, area: float) -> np.ndarray:
    result, n = reduced(file), counts_of(file).size
    channel = result.corrected.scale.channel(energy_kev, n)
    assert result.resolution is not None
    width = result.resolution.fwhm_kev(energy_kev) / float(result.corrected.scale.gain_kev(channel))
    return np.random.default_rng(7).poisson(area * gaussian(np.arange(n), channel, width))


@pytest.mark.parametrize(
    ("file", "energy_kev", "name"),
    [
        (CAVE, 1173.23, "Co-60 1173.2"),
        (CAVE, 1332.49, "Co-60 1332.5"),
        (CAVE, 1001.03, "Pa-234m 1001.0"),
        (CAVE, 511.0, "annihilation 511.0"),
        (CAVE, 2614.51 - 511.0, "single escape of Tl-208 2614.5"),
        (SOIL, 727.33, "Bi-212 727.3"),
        (EUROPIUM, 1274.48, "Eu-154 1274.4"),
        (EUROPIUM, 1460.82, "K-40 1460.8"),
        (EUROPIUM, 1529.3, "sum of Eu-152 121.8 and 1408.0"),
    ],
)
def test_lines_of_other_nuclides_in_real_spectra_are_found_and_named(file, energy_kev, name):
    one = near(residual(file).lines, energy_kev)
    assert one is not None
    assert name in one.candidates
    assert one.decision.detected


def test_weaker_lines_of_the_nuclides_are_explained_by_them():
    found = residual(EUROPIUM)
    known = {e for n, e, i in DECAYS if n == "Eu-152"}
    assert len(found.weaker) > 25
    for one in found.weaker:
        assert min(abs(one.energy_kev - e) for e in known) < 1.2
        assert one.candidates[0].startswith("Eu-152")
    assert near(found.lines, 443.96) is None  # two of its lines 0.05 keV apart, together as strong as that
    assert near(residual(SOIL).weaker, 2204.06) is not None


def test_a_planted_line_is_found_with_its_area_and_energy_and_a_faint_one_is_not_claimed():
    assert near(residual(SOIL).lines, 700.0) is None
    one = near(with_more(SOIL, planted(SOIL, 700.0, 600.0)).lines, 700.0)
    assert one is not None
    d = one.decision
    assert abs(d.value - 600.0) < 3 * d.sigma
    assert abs(one.energy_kev - 700.0) < 3 * math.hypot(one.energy_sigma_kev, one.energy_sigma_sys_kev)
    assert 4.0 < one.significance == pytest.approx(d.value / math.sqrt(d.variance_at_zero))
    faint = with_more(SOIL, planted(SOIL, 700.0, 0.4 * d.threshold))
    assert near(faint.lines, 700.0) is None


def test_a_line_much_stronger_than_its_nuclide_allows_is_not_explained_by_it():
    weak = near(residual(SOIL).weaker, 2204.06)
    assert weak is not None
    one = near(with_more(SOIL, planted(SOIL, 2204.06, 2 * weak.decision.value)).lines, 2204.06)
    assert one is not None
    assert "Bi-214 2204.1" in one.candidates


def test_the_library_agrees_with_the_lines_of_the_analysis():
    listed = {(n, round(e, 2)): i for n, e, i in DECAYS}
    compared = 0
    for line in LINES:
        at = (line.nuclide, round(line.energy_kev, 2))
        if at in listed:
            assert listed[at] == pytest.approx(line.intensity, rel=0.02)
            compared += 1
    assert compared > 40


def flat_result(n: int) -> GammaResult:
    """Return what is known of a spectrum without any line: 0.4 keV per channel, FWHM 1.1 to 2 keV."""
    scale = EnergyScale((0.0, 0.4), covariance=np.zeros((2, 2)))
    nothing = np.zeros(0)
    fit = ScaleFit(scale, nothing, nothing, nothing, 0.0, 0.0, 0)
    return GammaResult("Eu-152", scale, fit, (), (), Resolution(1.2, 0.0015, np.zeros((2, 2))))


def test_a_spectrum_without_lines_has_a_false_one_in_twenty():
    """From 400 counts per channel down to 0.3, where Gaussian errors would claim a line of five counts."""
    n, rng = 6000, np.random.default_rng(11)
    mean = 400 * np.exp(-np.arange(n) / 1500) + 0.3
    claims = 0
    for _ in range(25):
        found = find_unexplained(rng.poisson(mean), flat_result(n))
        assert found is not None
        claims += len(found.lines)
    assert claims <= 4  # 1.25 expected; P(5 or more) = 0.9 %


def test_areas_and_energies_have_the_errors_that_they_say():
    n, rng, truth = 220, np.random.default_rng(12), 500.0
    result = flat_result(n)
    energy = 0.4 * 150.3
    width = math.sqrt(1.2 + 0.0015 * energy) / 0.4
    mean = 60 - 0.1 * np.arange(n) + truth * gaussian(np.arange(n), 150.3, width)
    areas, places = [], []
    for _ in range(800):
        found = find_unexplained(rng.poisson(mean), result)
        assert found is not None
        one = near(found.lines, energy)
        assert one is not None
        areas.append((one.decision.value - truth) / one.decision.sigma_stat)
        places.append((one.energy_kev - energy) / one.energy_sigma_kev)
    for pulls in (areas, places):
        assert 0.95 < np.std(pulls) < 1.05
        assert abs(np.mean(pulls)) < 0.1
