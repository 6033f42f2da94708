"""Decision threshold, detection limit, interval: Currie's numbers, ISO 11929's formulas, simulated rates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.detection import decide

K95 = 1.6448536269514722


def test_currie_paired_observations():
    """Currie 1968, table II: L_C = 2.33 sqrt(B), L_D = 2.71 + 4.65 sqrt(B) for equal times, B = 100."""
    d = decide(0.0, math.sqrt(200), 0.0, 200.0, 1.0, alpha=0.05, beta=0.05)
    assert d.threshold == pytest.approx(23.3, abs=0.05)
    assert d.detection_limit == pytest.approx(2.71 + 46.5, abs=0.05)


def test_currie_well_known_blank():
    """Same table: L_C = 1.64 sqrt(B), L_D = 2.71 + 3.29 sqrt(B)."""
    d = decide(0.0, 10.0, 0.0, 100.0, 1.0, alpha=0.05, beta=0.05)
    assert d.threshold == pytest.approx(16.4, abs=0.06)
    assert d.detection_limit == pytest.approx(2.71 + 32.9, abs=0.05)


def test_interval_far_from_zero_and_at_zero():
    far = decide(100.0, 6.0, 8.0, 4.0, 0.0)
    assert far.sigma == pytest.approx(10.0)
    assert (far.lower_limit, far.upper_limit) == pytest.approx((80.4, 119.6), abs=0.01)
    at_zero = decide(0.0, 10.0, 0.0, 100.0, 0.0)
    assert at_zero.upper_limit == pytest.approx(22.414, abs=0.001)  # k(0.9875) sigma: a halved Gaussian
    assert at_zero.lower_limit == pytest.approx(0.313, abs=0.001)  # k(0.5125) sigma
    below = decide(-500.0, 10.0, 0.0, 100.0, 0.0)
    assert 0 <= below.lower_limit < below.upper_limit < 1.0


def test_a_relative_error_that_is_too_large_has_no_detection_limit():
    assert math.isinf(decide(5.0, 1.0, 0.0, 1.0, 0.0, relative_sys=0.7).detection_limit)
    assert decide(5.0, 1.0, 0.0, 1.0, 0.0, relative_sys=0.1).detection_limit == pytest.approx(
        2 * K95 / (1 - (0.1 * K95) ** 2), abs=0.01
    )


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_rates_of_false_alarms_and_misses(alpha: float):
    rng = np.random.default_rng(42)
    base = 400.0

    def claims(true: float) -> float:
        gross, blank = rng.poisson(base + true, 20_000), rng.poisson(base, 20_000)
        found = [
            decide(float(g - b), math.sqrt(g + b), 0.0, 2.0 * b, 1.0, alpha=alpha).detected
            for g, b in zip(gross, blank, strict=True)
        ]
        return float(np.mean(found))

    limit = decide(0.0, 1.0, 0.0, 2 * base, 1.0, alpha=alpha).detection_limit
    assert claims(0.0) == pytest.approx(alpha, abs=0.006)
    assert claims(limit) == pytest.approx(0.95, abs=0.01)


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="negative"):
        decide(1.0, 1.0, 0.0, -1.0, 0.0)
    with pytest.raises(ValueError, match="between 0 and"):
        decide(1.0, 1.0, 0.0, 1.0, 0.0, alpha=0.7)
