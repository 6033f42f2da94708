import math

import numpy as np
import pytest

from edge.line_curve import line_curve
from edge.lines import LineWindow

ENERGY = 0.5 * np.arange(400)


def window(bands, low=90.0, high=110.0, centroid=100.0, fwhm=8.0):
    return LineWindow("X", "line", centroid, fwhm, low, high, bands)


def gauss(area, centroid=100.0, fwhm=8.0):
    sigma = fwhm / math.sqrt(8.0 * math.log(2.0))
    return area * 0.5 / (sigma * math.sqrt(2.0 * math.pi)) * np.exp(-0.5 * ((ENERGY - centroid) / sigma) ** 2)


@pytest.mark.parametrize(
    ("bands", "continuum", "slope"),
    [
        (((70.0, 90.0), (110.0, 130.0)), 40.0 + 0.2 * (ENERGY - 100.0), 0.0),
        (((110.0, 130.0),), 40.0 * (1.0 + 0.004 * (ENERGY - 120.0)), 0.004),
    ],
)
def test_line_and_continuum_are_what_the_spectrum_was_made_of(bands, continuum, slope):
    fit, below = line_curve(gauss(900.0) + continuum, ENERGY, window(bands), slope)
    inside = np.isfinite(fit)
    assert ENERGY[inside].min() == min(90.0, bands[0][0])
    assert ENERGY[inside].max() == 130.0
    np.testing.assert_allclose(below[inside], continuum[inside], rtol=1e-6)
    assert np.sum((fit - below)[inside]) == pytest.approx(900.0, rel=0.01)
    assert np.array_equal(inside, np.isfinite(below))


def test_where_nothing_can_be_fitted_nothing_is_drawn():
    two = window(((70.0, 90.0), (110.0, 130.0)))
    assert np.isnan(line_curve(np.zeros(400), ENERGY, two)[0]).all()
    narrow = window(((100.0, 101.0),), 99.0, 101.0)
    assert np.isnan(line_curve(np.ones(400), ENERGY, narrow)[1]).all()


def test_it_refuses_energies_of_another_length():
    with pytest.raises(ValueError, match="differ"):
        line_curve(np.ones(3), ENERGY, window(((110.0, 130.0),)))
