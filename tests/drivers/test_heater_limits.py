"""The one check of set-points and ramps: both ends allowed, nothing beyond, no number that is none."""

from __future__ import annotations

import math

import pytest

from drivers.errors import OutOfRange
from drivers.heater_limits import HeaterLimits

LIMITS = HeaterLimits.of(
    {"temperature_low_k": 280.0, "temperature_high_k": 340.0, "temperature_rate_k_per_s": 0.1}, "heater"
)


def test_the_limits_themselves_are_allowed():
    for target_k in (280.0, 340.0):
        LIMITS.check_target_k(target_k)
    LIMITS.check_ramp_k_per_min(6.0)
    LIMITS.check_ramp_k_per_min(0.1)


@pytest.mark.parametrize("target_k", [279.99, 340.01, math.nan, math.inf, -math.inf])
def test_beyond_them_no_set_point(target_k):
    with pytest.raises(OutOfRange, match=r"heater: set-point .* K is outside the limits 280 to 340 K"):
        LIMITS.check_target_k(target_k)


@pytest.mark.parametrize("rate", [6.01, 0.0, -1.0, math.nan, math.inf])
def test_a_limited_rate_is_never_left(rate):
    with pytest.raises(OutOfRange, match="ramp of"):
        LIMITS.check_ramp_k_per_min(rate)


def test_without_limits_only_what_is_no_number_is_refused():
    free = HeaterLimits.of({}, "heater")
    free.check_target_k(1000.0)
    free.check_ramp_k_per_min(0.0)
    with pytest.raises(OutOfRange):
        free.check_target_k(math.inf)
    with pytest.raises(OutOfRange):
        free.check_ramp_k_per_min(-0.1)
