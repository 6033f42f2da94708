"""Energy calibration from known lines: measured spectra with values of others, and honest refusals."""

import math

import numpy as np
import pytest

from drivers.files import any_file
from edge.calibration import EnergyScale
from edge.identify_lines import Ambiguous, calibrate, search
from edge.known_lines import resolve
from tests.data_sets import need, reference


def spectrum(name, detector=0):
    return any_file.read(need(name, "the energy scale"))[detector]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("eu152_7cm.Spe", ["Eu-152"]),
        ("soil_be7_ucb009.Spe", ["natural"]),
        ("soil_no_be7_ucb016.Spe", ["natural"]),
    ],
)
def test_germanium_from_nothing_finds_the_places_that_others_found(name, lines):
    """The reference holds centroids on the recorded scale: ours, put on it, are the same to 50 eV."""
    recorded = spectrum(f"gamma/{name}")
    scale = EnergyScale(recorded.energy_kev, recorded.centre)
    found = calibrate(recorded.counts, resolve(lines))
    known = reference("gamma")[name]["lines"]
    compared = 0
    for line, peak in zip(found.lines, found.peaks, strict=True):
        if line.name in known:
            compared += 1
            assert float(scale.energy_kev(peak.centroid)) == pytest.approx(
                known[line.name]["centroid_keV"], abs=0.05
            )
            assert peak.fwhm * found.fit.scale.coefficients[1] == pytest.approx(
                known[line.name]["fwhm_keV"], rel=0.1
            )
    assert compared >= 4
    assert found.sure > 6.0
    assert np.abs(found.fit.residuals_kev).max() < 0.3


def test_steel_agrees_with_the_fit_of_pymca():
    """PyMca 5.9.7: gain 0.01193 keV, zero -0.00895 keV (published to 5 eV and 0.1 %)."""
    found = calibrate(
        spectrum("xrf/steel.spe").counts, resolve(["Cr", "Fe", "Ni"]), near=EnergyScale((0.0, 0.012))
    )
    offset, gain = found.fit.scale.coefficients
    sigma = np.sqrt(np.diag(found.fit.scale.covariance))
    assert gain == pytest.approx(0.01193, abs=2e-5)
    assert abs(offset + 0.00895) < 2.0 * sigma[0]
    assert sigma[0] < 0.03


@pytest.mark.parametrize("detector", range(4))
def test_thin_glass_agrees_with_the_calibration_of_each_detector(detector):
    recorded = spectrum("xrf/srm1832_thin_glass_4det.mca", detector)
    near = EnergyScale((0.0, 0.0146))
    found = calibrate(recorded.counts, resolve(["Ca", "Mn", "Cu"]), near=near)
    theirs = EnergyScale(recorded.energy_kev, recorded.centre)
    for channel in (250, 400, 550):
        ours = float(found.fit.scale.energy_kev(channel))
        assert ours == pytest.approx(float(theirs.energy_kev(channel)), abs=0.01)


def test_a_scintillator_is_found_through_its_broad_lines():
    recorded = spectrum("gamma/csi_ba133_cs137.spe")
    found = calibrate(recorded.counts, resolve(["Ba-133 81.0", "Ba-133 356.0", "Cs-137 661.7"]))
    assert (
        found.fit.excess_kev > 5.0
    )  # its light is not proportional: the scatter is in the errors, not hidden
    assert found.fit.scale.coefficients[1] == pytest.approx(0.594, abs=0.02)


@pytest.mark.parametrize(
    ("name", "lines", "near", "says"),
    [
        ("xrf/steel.spe", ["Cr", "Fe"], None, "any two peaks fit two lines"),
        ("xrf/steel.spe", ["Cr", "Fe", "Ni"], None, "can be read in several ways"),
        ("xrf/srm1832_thin_glass_4det.mca", ["Ca", "Mn", "Cu"], None, "can be read in several ways"),
        ("gamma/soil_be7_ucb009.Spe", ["K-40", "Tl-208 2614.5", "Tl-208 583.2"], None, "in several ways"),
    ],
)
def test_what_can_be_read_in_several_ways_is_refused(name, lines, near, says):
    with pytest.raises(Ambiguous, match=says):
        calibrate(spectrum(name).counts, resolve(lines), near=near)


def test_a_line_that_is_not_there_is_not_found_elsewhere():
    counts = spectrum("xrf/steel.spe").counts
    with pytest.raises(ValueError, match="one of them is another line"):
        calibrate(counts, resolve(["Cr", "Fe", "Fe Kb", "Ni", "Zr"]), near=EnergyScale((0.0, 0.012)))
    with pytest.raises(ValueError, match="are not there"):
        calibrate(spectrum("gamma/eu152_7cm.Spe").counts, resolve(["Ba-133"]))


def test_pulls_of_the_scale_are_those_of_a_gaussian():
    """Offset and gain of 100 draws of a spectrum whose scale is known, against the errors that are told."""
    gain, offset = 0.25, 3.0
    lines = resolve(["Eu-152 121.8", "Eu-152 344.3", "Eu-152 778.9", "Eu-152 1408.0"])
    channel = np.arange(6000)
    model = np.full(6000, 20.0)
    for line in lines:
        place, sigma = (line.energy_kev - offset) / gain, 3.0
        model += 3000.0 / (sigma * math.sqrt(2 * math.pi)) * np.exp(-0.5 * ((channel - place) / sigma) ** 2)
    rng = np.random.default_rng(20261122)
    pulls = []
    for _ in range(100):
        fit = calibrate(rng.poisson(model), lines, near=EnergyScale((offset, gain))).fit
        sigma = np.sqrt(np.diag(fit.scale.covariance))
        pulls.append((np.array(fit.scale.coefficients) - (offset, gain)) / sigma)
    # the error includes 2 % of a FWHM for the shape, about twice the statistical one here: pulls are narrower
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.3
    assert (np.std(pulls, axis=0) < 1.05).all()
    assert (np.std(pulls, axis=0) > 0.2).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Li", "decays in flight"),
        ("lithium", "decays in flight"),
        ("Xx", "no line that is known"),
        ("Eu-152 999", "is not listed; there are"),
        ("Pb-214", "several lines, name those"),
        ("Uu-9", "no nuclide with a listed line"),
    ],
)
def test_names_that_cannot_serve_say_why(name, says):
    with pytest.raises(ValueError, match=says):
        resolve([name])


def test_names():
    assert [line.name for line in resolve(["Fe", "annihilation", "F-19 197", "Cs-137", "Fe"])] == [
        "Fe Ka", "F-19 197.1", "annihilation", "Cs-137 661.7",
    ]  # fmt: skip
    assert resolve(["Fe"])[0].energy_kev == pytest.approx(
        6.399, abs=0.001
    )  # X-Ray Data Booklet, weighted mean


def test_nothing_is_found_in_nothing():
    assert search(np.zeros(4096)) == []
    with pytest.raises(ValueError, match="not there: 0 peaks"):
        calibrate(np.random.default_rng(1).poisson(10.0, 4096), resolve(["Eu-152"]))
