"""A forgotten element appears in the residual image; nothing appears where nothing was forgotten."""

import numpy as np
import pytest

from edge.lines import XRAY_KEV, silicon_fwhm_kev
from edge.pileup import expected_pairs, sum_spectrum
from edge.projection_residual import Design, Known, residual_image
from edge.uncertainty import pulls

ENERGY = np.arange(100, 950) * 0.02 + 0.01
WIDTHS = (
    np.arange(1.0, 20.5, 0.5),
    np.array([silicon_fwhm_kev(e, 0.145) for e in np.arange(1.0, 20.5, 0.5)]),
)
PIXELS = 1_600
FE = np.zeros(PIXELS)
FE[:400] = 6.0  # counts per pixel in one quarter of the map
DESIGNED = [("Co", "Ka"), ("Co", "Kb"), ("P", "Kb")]


def known(names):
    return [Known(f"{e} {n}", XRAY_KEV[e, n], silicon_fwhm_kev(XRAY_KEV[e, n], 0.145)) for e, n in names]


def line(energy, fwhm):
    shape = np.exp(-0.5 * ((ENERGY - energy) / (fwhm / 2.3548)) ** 2)
    return shape / shape.sum()


def means(iron):
    """Expected counts of one pixel with so many of iron."""
    continuum = 0.04 * np.exp(-ENERGY / 6.0) + 0.003
    co = 30.0 * line(XRAY_KEV["Co", "Ka"], silicon_fwhm_kev(6.9, 0.145))
    co = co + 4.5 * line(XRAY_KEV["Co", "Kb"], silicon_fwhm_kev(7.6, 0.145))
    fe = line(XRAY_KEV["Fe", "Ka"], silicon_fwhm_kev(6.4, 0.145))
    return co + continuum + iron * fe


def spectra(rng, iron=1.0):
    return np.concatenate(
        [rng.poisson(means(6.0 * iron), (400, ENERGY.size)), rng.poisson(means(0.0), (1_200, ENERGY.size))]
    )


def test_an_element_absent_from_the_design_appears_in_the_residual_image():
    cube = spectra(np.random.default_rng(3))
    fit = Design(ENERGY, known(DESIGNED), None, WIDTHS).fit(cube.sum(axis=0))
    (feature,) = fit.features()
    assert feature.names[0] == "Fe Ka"
    assert feature.energy_kev == pytest.approx(6.3995, abs=0.03)
    assert feature.counts == pytest.approx(FE.sum(), abs=4 * feature.sigma)
    image, sigma = residual_image([cube[:700], cube[700:]], fit.back([feature]))
    assert image[:400].sum() == pytest.approx(FE.sum(), abs=4 * np.sqrt(np.sum(sigma[:400] ** 2)))
    assert abs(image[400:].sum()) < 4 * np.sqrt(np.sum(sigma[400:] ** 2))
    blocks = image.reshape(40, 40).mean(axis=1)
    assert blocks[:10].min() > 2 * blocks[10:].max()  # to the eye, too


def test_with_the_element_in_the_design_nothing_is_left():
    cube = spectra(np.random.default_rng(4))
    fit = Design(ENERGY, known([*DESIGNED, ("Fe", "Ka")]), None, WIDTHS).fit(cube.sum(axis=0))
    assert fit.features() == []
    image, sigma = residual_image([cube], fit.back([]))
    assert abs(image.sum()) < 4 * np.sqrt(np.sum(sigma**2))


def test_errors_of_the_residual_image_are_right():
    """3 200 regions of a hundred pixels: pulls 0 +- 1, where the element is and where it is not."""
    rng = np.random.default_rng(5)
    design = Design(ENERGY, known(DESIGNED), None, WIDTHS)
    first = design.fit(spectra(rng).sum(axis=0))
    back = first.back(first.features())
    for iron in (6.0, 0.0):  # in every pixel of a region of a hundred
        counts = rng.poisson(100.0 * means(iron), (3_200, ENERGY.size))
        mean, std = pulls(counts @ back, 100.0 * iron, np.sqrt(counts @ back**2))
        assert abs(mean) < 0.1
        assert 0.95 < std < 1.05


def test_false_alarms_are_rare():
    rng = np.random.default_rng(6)
    design = Design(ENERGY, known(DESIGNED), None, WIDTHS)
    counts = rng.poisson(PIXELS * means(0.0), (40, ENERGY.size))
    assert sum(bool(design.fit(one).features()) for one in counts) <= 1


# --- pile-up -------------------------------------------------------------------------------------------


def test_the_sum_peak_of_one_line_lies_at_twice_its_energy():
    spectrum = 1e5 * line(6.9253, 0.15)
    pairs = sum_spectrum(spectrum, float(ENERGY[0]), 0.02)
    assert pairs.sum() == pytest.approx(1.0, rel=1e-9)
    mean = float(pairs @ ENERGY)
    assert mean == pytest.approx(2 * 6.9253, abs=1e-3)
    assert np.sqrt(pairs @ (ENERGY - mean) ** 2) == pytest.approx(np.sqrt(2) * 0.15 / 2.3548, rel=0.02)
    assert not sum_spectrum(np.zeros(5), 0.0, 0.1).any()
    with pytest.raises(ValueError, match="positive step"):
        sum_spectrum(np.ones(5), 0.0, 0.0)


def test_pairs_are_fitted_and_not_taken_for_a_forgotten_element():
    """Events drawn pair by pair: the fit gives back how many, and no line is claimed at 13.85 keV."""
    rng = np.random.default_rng(7)
    single = spectra(rng, 0.0).sum(axis=0)
    events = np.repeat(ENERGY, single)
    pairs = rng.choice(events, 4_000) + rng.choice(events, 4_000)
    inside = pairs < ENERGY[-1]
    both = single + np.histogram(pairs, np.append(ENERGY - 0.01, ENERGY[-1] + 0.01))[0]
    shape = sum_spectrum(both, float(ENERGY[0]), 0.02)
    fit = Design(ENERGY, known(DESIGNED), shape, WIDTHS).fit(both)
    assert fit.features() == []
    assert fit.pairs[0] == pytest.approx(4_000, abs=4 * fit.pairs[1])
    assert inside.any()
    forgotten = Design(ENERGY, known(DESIGNED), None, WIDTHS).fit(both).features()
    assert any(f.energy_kev == pytest.approx(13.85, abs=0.1) for f in forgotten)


def test_how_many_pairs_there_should_be():
    assert expected_pairs([1_000.0, 5_000.0], [2.0, 1.0], 4e-7) == pytest.approx(
        2_000 * (1 - np.exp(-4e-4)) + 5_000 * (1 - np.exp(-2e-3))
    )
