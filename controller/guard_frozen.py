"""Whether a thermometer that repeats itself must be dead: how far it had to move by rate and power."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from statistics import fmean

from controller.guard_types import Action, Finding, GuardRules, Plant

FROZEN_COUNT, FROZEN_TIME_S = 20, 5.0
FROZEN_MOVE_K, FROZEN_STEPS = 0.5, 10.0  # movement to expect before a repeated reading is called frozen
FROZEN_HORIZON_S = 60.0  # what is expected is expected within this
RATE_WINDOW_S = 30.0


class Slope:
    """The rate of the temperature over the last ``RATE_WINDOW_S``."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, float]] = deque()
        self.k_per_s = 0.0  # 0 until a quarter of the window is there

    def add(self, now_s: float, temperature_k: float) -> None:
        """Take one reading."""
        self._history.append((now_s, temperature_k))
        while now_s - self._history[0][0] > RATE_WINDOW_S:
            self._history.popleft()
        then_s, then_k = self._history[0]
        span_s = now_s - then_s
        self.k_per_s = (temperature_k - then_k) / span_s if span_s >= 0.25 * RATE_WINDOW_S else 0.0


class Frozen:
    """A reading that repeats itself to the last bit although it must move."""

    def __init__(self, rules: GuardRules) -> None:
        self._noise_k = rules.heater_noise_k
        self._plant = rules.plant
        self._slope = Slope()
        self._value_k = math.nan
        self._since_s = 0.0
        self._count = 0
        self._powers: deque[tuple[float, float]] = deque()  # of the same window as the slope
        self._step_k_per_s = 0.0  # of the last step
        self._going: tuple[Going, ...] = ()
        self._quantum_k = math.inf  # smallest step ever seen: the resolution of the reading

    def check(self, now_s: float, dt_s: float, temperature_k: float, fraction: float) -> Iterator[Finding]:
        """Yield a finding when the sensor cannot be alive."""
        if temperature_k != self._value_k:
            self._powers.append((now_s, fraction))
            while now_s - self._powers[0][0] > RATE_WINDOW_S:
                self._powers.popleft()
            if math.isfinite(self._value_k):
                self._quantum_k = min(self._quantum_k, abs(temperature_k - self._value_k))
                self._step_k_per_s = (temperature_k - self._value_k) / max(now_s - self._since_s, 1e-3)
            self._begin(now_s, temperature_k)
            return
        self._count += 1
        p = self._plant
        still_s = now_s - self._since_s
        if still_s <= FROZEN_HORIZON_S:  # later on the loss of heat makes up for it
            for going in self._going:
                going.advance(dt_s, fraction, p)
        if self._count < FROZEN_COUNT or still_s < FROZEN_TIME_S:
            return
        resolved_k = FROZEN_STEPS * self._quantum_k if math.isfinite(self._quantum_k) else 0.0
        moved = [k for going in self._going for k in going.moved_k]
        expected_k = _nearest_to_zero(min(moved), max(moved))
        noisy = self._noise_k is not None and self._noise_k >= (0.0 if resolved_k == 0.0 else self._quantum_k)
        if noisy or expected_k > max(FROZEN_MOVE_K, resolved_k):
            why = (
                f"its noise is never below {self._noise_k:g} K"
                if noisy
                else f"it should have moved by {expected_k:.2f} K"
            )
            yield Finding(
                "heater-frozen", "heater.temperature", temperature_k, None, "K", Action.SAFE,
                f"temperature sensor frozen: {self._count} readings of exactly {temperature_k:.4f} K "
                f"in {still_s:.0f} s, and {why}",
            )  # fmt: skip

    def _begin(self, now_s: float, temperature_k: float) -> None:
        self._slope.add(now_s, temperature_k)  # only here: it keeps the rate from before the stand-still
        self._value_k, self._since_s, self._count = temperature_k, now_s, 1
        # At the top of an overshoot a reading in coarse steps stands still for long: its last step was slow.
        mean = fmean(fraction for _, fraction in self._powers)
        self._going = tuple(
            Going(k_per_s, fraction)
            for k_per_s in (self._slope.k_per_s, self._step_k_per_s)
            for fraction in (mean, self._powers[-1][1])
        )


class Going:
    """Where a temperature must go from a rate that belonged to a power, as a band."""

    def __init__(self, k_per_s: float, fraction: float) -> None:
        self._k_per_s = k_per_s
        self._fraction = fraction
        self.moved_k = (0.0, 0.0)

    def advance(self, dt_s: float, fraction: float, plant: Plant) -> None:
        """Let ``dt_s`` pass with another power; what that adds is known as well as the plant."""
        change_w = sorted((fraction - self._fraction) * power_w for power_w in plant.power_w)
        low_k, high_k = self.moved_k
        self.moved_k = (
            low_k + dt_s * (self._k_per_s + _least(change_w[0], plant)),
            high_k + dt_s * (self._k_per_s + _most(change_w[1], plant)),
        )


def _least(power_w: float, plant: Plant) -> float:
    return power_w / plant.capacity_j_per_k[1 if power_w > 0.0 else 0]


def _most(power_w: float, plant: Plant) -> float:
    return power_w / plant.capacity_j_per_k[0 if power_w > 0.0 else 1]


def _nearest_to_zero(low: float, high: float) -> float:
    """Return the least movement that a band allows: a ramp and the end of its power may cancel."""
    return 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
