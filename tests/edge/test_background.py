"""Side bands by hand, their error by simulation, and the continuum."""

from __future__ import annotations

import numpy as np
import pytest

from edge.background import band_net, snip
from edge.peaks import gaussian


def test_two_bands_by_hand():
    """Window of 3 channels with 10, 40, 12; bands of 2 channels, means 5 and 7: B = 3 x 6 = 18."""
    y = np.array([4.0, 6, 10, 40, 12, 6, 8])
    result = band_net(y, (2, 4), [(0, 1), (5, 6)], degree=1)
    assert (result.gross, result.background, result.net) == pytest.approx((62, 18, 44))
    # equal weights: each band channel carries 3/4 of a count into B, apart from the slope, which cancels
    assert result.background_sigma**2 == pytest.approx((0.75**2) * 24)
    assert result.net_sigma**2 == pytest.approx(62 + (0.75**2) * 24)


def test_one_band_on_the_high_side_by_hand():
    y = np.array([0.0, 20, 30, 0, 2, 4, 6, 8])
    result = band_net(y, (1, 2), [(4, 7)], degree=0)
    assert result.background == pytest.approx(2 * 5)
    assert result.net_sigma**2 == pytest.approx(50 + (2 / 4) ** 2 * 20)


def test_the_error_of_the_net_is_its_scatter():
    rng = np.random.default_rng(5)
    x = np.arange(60.0)
    mu = 3 + 0.05 * x + 40 * gaussian(x, 30, 5)
    inside = slice(24, 37)
    pulls = []
    for _ in range(3200):
        result = band_net(rng.poisson(mu), (24, 36), [(5, 20), (40, 58)])
        pulls.append((result.net - 40 * gaussian(x, 30, 5)[inside].sum()) / result.net_sigma)
    assert 0.95 < np.std(pulls) < 1.05
    assert abs(np.mean(pulls)) < 0.1


def test_the_continuum_keeps_a_smooth_one_and_goes_under_a_peak():
    x = np.arange(500.0)
    smooth = 200 * np.exp(-x / 300)
    assert snip(smooth, 8)[20:-20] == pytest.approx(smooth[20:-20], rel=0.02)
    y = smooth + 5000 * gaussian(x, 250, 8)
    under = snip(y, 16)
    assert np.all(under <= y + 1e-9)
    assert under[250] == pytest.approx(smooth[250], rel=0.1)
    assert snip(np.zeros(5), 8) == pytest.approx(0.0)


def test_wrong_calls_are_refused():
    y = np.ones(20)
    with pytest.raises(ValueError, match="overlap"):
        band_net(y, (5, 9), [(8, 12)])
    with pytest.raises(ValueError, match="not in a spectrum"):
        band_net(y, (5, 20), [(0, 3)])
    with pytest.raises(ValueError, match="do not determine"):
        band_net(y, (5, 9), [(0, 0)], degree=1)
    with pytest.raises(ValueError, match="negative"):
        band_net(-y, (5, 9), [(0, 3)], degree=0)
    with pytest.raises(ValueError, match="negative"):
        snip(-y, 4)
