"""dQ/dV: closed forms, pulls at fine, medium and coarse voltages, and the measured cell."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from drivers.files import cycler_log
from edge.cycling_control import voltage_noise
from edge.cycling_incremental import incremental_capacity
from edge.uncertainty import pulls
from tests.data_sets import need

DRAWS = 400  # of 17 windows each


def curve(n: int = 1200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Q, V(Q) and dQ/dV of V = 3.4 + 0.35 q + 0.06 q^2 on 0..1 Ah."""
    q = np.linspace(0, 1, n)
    return q, 3.4 + 0.35 * q + 0.06 * q**2, 1 / (0.35 + 0.12 * q)


@pytest.mark.parametrize("noise_v", [1e-5, 2e-4, 1e-3], ids=["fine", "medium", "coarse"])
@pytest.mark.parametrize("direction", [1, -1])
def test_pulls(noise_v, direction):
    rng = np.random.default_rng(20280)
    q, v, _ = curve()
    if direction < 0:
        v = v[0] + v[-1] - v  # a discharge: the same slopes downward
    found = []
    for _ in range(DRAWS):
        one = incremental_capacity(q, v + rng.normal(0, noise_v, q.size), 0.03, noise_v)
        edges = np.concatenate([[0], np.cumsum(one.points)])
        middle = [q[a:b].mean() for a, b in pairwise(edges)]
        true = 1 / (0.35 + 0.12 * np.array(middle))
        found.append(np.stack([one.value, true, one.sigma_stat]))
    value, true, sigma = np.concatenate(found, axis=1)
    assert value.size >= 3200
    mean, std = pulls(value, true, sigma)
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05


def test_rounding_of_a_converter_is_the_noise():
    rng = np.random.default_rng(20281)
    q, v, _ = curve()
    step = 5e-4
    values = []
    for _ in range(DRAWS):
        seen = np.rint((v + rng.uniform(-step, step)) / step) * step
        sigma = voltage_noise(seen, step)
        one = incremental_capacity(q, seen, 0.03, sigma)
        edges = np.concatenate([[0], np.cumsum(one.points)])
        middle = [q[a:b].mean() for a, b in pairwise(edges)]
        values.append((one.value - 1 / (0.35 + 0.12 * np.array(middle))) / one.sigma_stat)
    flat = np.concatenate(values)
    assert abs(flat.mean()) < 0.1
    assert flat.std() < 1.05  # rounding of a smooth curve is less than random: never understated


def test_the_charge_comes_back():
    q, v, _ = curve()
    one = incremental_capacity(q, v, 0.02, 1e-5)
    edges = np.concatenate([[0], np.cumsum(one.points)])
    spans = np.abs(v[np.minimum(edges[1:], q.size - 1)] - v[edges[:-1]])
    assert np.sum(one.value * spans) == pytest.approx(1.0, abs=0.002)


def test_a_peak_narrower_than_the_window_is_told():
    """A peak of 4 mV in windows of 20 mV is flattened, and sigma_smooth says so; in narrow ones it is not."""
    v = np.linspace(3.5, 3.6, 4000)
    q = v - 3.5 + 0.05 / (1 + np.exp(-(v - 3.55) / 0.002))
    top = 1 + 0.05 / 0.002 / 4
    wide = incremental_capacity(q, v, 0.02, 1e-6)
    fine = incremental_capacity(q, v, 0.0005, 1e-6)
    assert np.nanmax(wide.value) < 0.65 * top
    assert np.nanmax(wide.sigma_smooth / wide.value) > 0.05
    assert np.nanmax(fine.value) == pytest.approx(top, rel=0.02)


def test_noise_of_a_voltage():
    rng = np.random.default_rng(3)
    smooth = 3.5 + 0.3 * np.linspace(0, 1, 5000) ** 3
    assert voltage_noise(smooth + rng.normal(0, 1e-4, 5000), 1e-6) == pytest.approx(1e-4, rel=0.05)
    assert voltage_noise(smooth, 1e-3) == pytest.approx(1e-3 / 12**0.5)


def test_a_plateau_that_is_not_resolved_has_no_number():
    q = np.linspace(0, 1, 100)
    one = incremental_capacity(q, np.full(100, 3.3) + 1e-9 * q, 0.01, 1e-3)
    assert np.all(np.isnan(one.value))


def test_what_makes_no_sense_is_refused():
    q = np.linspace(0, 1, 100)
    for bad in ((q[:5], q[:5], 0.01, 1e-3), (q, q[:-1], 0.01, 1e-3), (q, q, 0.0, 1e-3), (q, q, 0.01, 0.0)):
        with pytest.raises(ValueError, match=r"pairs|positive"):
            incremental_capacity(*bad)


def test_the_measured_cell_has_its_two_charge_peaks():
    """NMC against graphite-silicon: charge peaks of an M50 at 0 degC lie near 3.62 and 3.78 V at 1.5 A."""
    log = cycler_log.read(need("cycling/lg_m50_0degC_rates.csv", "incremental capacity"))
    part = log.step == 4
    t, i, v = log.time_s[part], log.current_a[part], log.voltage_v[part]
    q = np.concatenate([[0.0], np.cumsum(np.diff(t) * (i[1:] + i[:-1]) / 2)]) / 3600
    one = incremental_capacity(q, v, 0.01, voltage_noise(v, 7.6e-5))
    peaks = [
        one.voltage_v[k]
        for k in range(1, one.value.size - 1)
        if one.value[k] > one.value[k - 1] and one.value[k] > one.value[k + 1] and one.value[k] > 6.5
    ]
    assert any(abs(p - 3.62) < 0.02 for p in peaks)
    assert any(abs(p - 3.78) < 0.03 for p in peaks)
    assert np.nanmedian(one.sigma_stat / one.value) < 0.01
