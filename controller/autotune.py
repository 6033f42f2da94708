"""Finding a heater's loop: how it is driven for an identification, and which gains follow. Pure.

The experiment approaches the set-point as gently as the station's rate limit asks, then swings about it: a
relay test between two powers, switched where the temperature leaves a small band. The two powers are never
more than the cap; from cycle to cycle they move so that the swing becomes the one that was asked for, 1 to
2 K. A cell is no extruder: nothing is driven at full power into overshoot.

Sources: K. J. Astrom, T. Hagglund, Automatica 20 (1984) 645 (relay test, Ku = 4 d / (pi sqrt(a^2 - h^2)));
S. Skogestad, J. Process Control 13 (2003) 291 (SIMC rules); B. D. Tyreus, W. L. Luyben, Ind. Eng. Chem. Res.
31 (1992) 2625 (Kp = Ku / 3.2, Ti = 2.2 Tu).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from controller.pid import Gains

SWING_LOW_K, SWING_HIGH_K = 1.0, 2.0  # peak to peak
BAND_SHARE = 0.35  # of the swing on either side of the set-point, where the relay switches
CYCLES = 6  # whole ones; the first two find the powers, the median of the others is taken
FIRST_GOOD = 2
APPROACH_SHARE = 0.5  # of the rate limit
APPROACH_BEGIN = 0.125  # of the cap
# Of the power, while the rate is too low or too high: slow beside the delay of any holder.
GROWS_PER_S, FALLS_PER_S = 0.01, 0.05
SLOPE_S = 8.0
WAIT_PERIODS, WAIT_S = 1.5, 60.0  # below the band under power: then it needs more
HALF_CYCLE_S = 1800.0  # longer: the power does not turn the temperature


@dataclass(frozen=True)
class Cycle:
    """One whole swing of the relay test."""

    period_s: float
    swing_k: float  # peak to peak
    high_w: float
    low_w: float
    mean_w: float


@dataclass(frozen=True)
class RelayResult:
    """What the relay test says by itself, without a model."""

    ultimate_gain_w_per_k: float
    ultimate_period_s: float
    swing_k: float
    holding_w: float
    cycles: int


class TuneFailed(Exception):
    """The experiment cannot go on; the message says why."""


class RelayTest:
    """The law that drives the heater; call it at every tick with temperature and dt.

    Args:
        at_k: set-point of the test.
        swing_k: peak to peak, 1 to 2 K.
        cap_w: no power is ever higher.
        rate_k_per_s: limit of the station; the approach keeps to half of it.
        cycles: whole swings to be made.

    Raises:
        ValueError: the swing is not one for a cell, or the cap is no power.
    """

    def __init__(
        self, *, at_k: float, swing_k: float, cap_w: float, rate_k_per_s: float, cycles: int = CYCLES
    ) -> None:
        if not SWING_LOW_K <= swing_k <= SWING_HIGH_K:
            raise ValueError(f"a swing of {swing_k:g} K is not from {SWING_LOW_K:g} to {SWING_HIGH_K:g} K")
        if not (math.isfinite(cap_w) and cap_w > 0.0):
            raise ValueError(f"a cap of {cap_w} W")
        self.at_k, self.swing_k, self.cap_w = at_k, swing_k, cap_w
        self.band_k = BAND_SHARE * swing_k
        self.phase = "approach"
        self.cycles: list[Cycle] = []
        self._wanted = cycles
        self._rate_k_per_s = rate_k_per_s
        self._now_s = 0.0
        self._power_w = APPROACH_BEGIN * cap_w
        self._recent: deque[tuple[float, float]] = deque()
        self._high_w, self._low_w = cap_w, 0.0
        self._half_since_s = 0.0
        self._cycle = _Swing()

    @property
    def done(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.phase == "done"

    def __call__(self, now_k: float, dt_s: float) -> float:
        """Return the power in W for the next ``dt_s``.

        Raises:
            TuneFailed: the temperature does not turn.
        """
        self._now_s += dt_s
        if self.phase == "approach":
            self._approach(now_k, dt_s)
        elif self.phase == "swing":
            self._swing(now_k, dt_s)
        return 0.0 if self.done else self._power_w

    def result(self) -> RelayResult | None:
        """Return what the cycles say, or None when there were too few."""
        good = self.cycles[FIRST_GOOD:]
        if len(good) < 2:
            return None
        amplitude_k = median(one.swing_k for one in good) / 2.0
        relay_w = median(0.5 * (one.high_w - one.low_w) for one in good)
        inside = amplitude_k**2 - self.band_k**2
        if inside <= 0.0:
            return None
        return RelayResult(
            4.0 * relay_w / (math.pi * math.sqrt(inside)), median(one.period_s for one in good),
            2.0 * amplitude_k, median(one.mean_w for one in good), len(good),
        )  # fmt: skip

    def _approach(self, now_k: float, dt_s: float) -> None:
        self._recent.append((self._now_s, now_k))
        while self._now_s - self._recent[0][0] > SLOPE_S:
            self._recent.popleft()
        then_s, then_k = self._recent[0]
        span_s = self._now_s - then_s
        slope = (now_k - then_k) / span_s if span_s > 0.5 * SLOPE_S else None
        wanted = APPROACH_SHARE * self._rate_k_per_s
        if slope is not None and slope > wanted:
            self._power_w *= math.exp(-FALLS_PER_S * dt_s)
        elif slope is not None and slope < 0.8 * wanted:
            self._power_w = min(self.cap_w, self._power_w * math.exp(GROWS_PER_S * dt_s))
        if now_k >= self.at_k - self.band_k:
            self.phase = "swing"
            self._high_w, self._low_w = self._power_w, 0.0
            self._half_since_s = self._now_s

    def _swing(self, now_k: float, dt_s: float) -> None:
        if self._now_s - self._half_since_s > HALF_CYCLE_S:
            raise TuneFailed(f"{self._power_w:.1f} W for {HALF_CYCLE_S:.0f} s do not turn the temperature")
        heating = self._power_w == self._high_w
        self._cycle.add(now_k, self._power_w, dt_s)
        patience_s = WAIT_PERIODS * max([one.period_s for one in self.cycles], default=WAIT_S)
        if heating and now_k < self.at_k - self.band_k and self._now_s - self._half_since_s > patience_s:
            self._high_w = min(self.cap_w, self._high_w * math.exp(GROWS_PER_S * dt_s))  # does not suffice
            self._power_w = self._high_w
        if heating and now_k > self.at_k + self.band_k:
            self._power_w, self._half_since_s = self._low_w, self._now_s
        elif not heating and now_k < self.at_k - self.band_k:
            self._end_cycle()
            self._power_w, self._half_since_s = self._high_w, self._now_s
            if len(self.cycles) >= self._wanted:
                self.phase = "done"

    def _end_cycle(self) -> None:
        """One swing is over: keep it, and move both powers towards the swing that was asked for."""
        swing = self._cycle
        self._cycle = _Swing()
        if swing.seconds <= 0.0:
            return
        mean_w = swing.joule / swing.seconds
        self.cycles.append(
            Cycle(swing.seconds, swing.highest_k - swing.lowest_k, self._high_w, self._low_w, mean_w)
        )
        if len(self.cycles) == 1:  # it began in the approach, and says nothing of the power that holds
            return
        half_w = 0.5 * (self._high_w - self._low_w)
        excess_k = self.cycles[-1].swing_k - 2.0 * self.band_k  # what the plant adds to the band
        wanted_k = self.swing_k - 2.0 * self.band_k
        half_w *= min(max(wanted_k / max(excess_k, 1e-3), 0.5), 1.5)
        half_w = min(max(half_w, 0.25 * mean_w), mean_w)  # as far below the mean as above it
        self._low_w = max(mean_w - half_w, 0.0)
        self._high_w = min(mean_w + half_w, self.cap_w)


class _Swing:
    """Extremes, time and energy of the swing under way."""

    def __init__(self) -> None:
        self.highest_k, self.lowest_k = -math.inf, math.inf
        self.seconds = self.joule = 0.0

    def add(self, now_k: float, power_w: float, dt_s: float) -> None:
        self.highest_k, self.lowest_k = max(self.highest_k, now_k), min(self.lowest_k, now_k)
        self.seconds += dt_s
        self.joule += power_w * dt_s


def gains_from_plant(
    *, capacity_j_per_k: float, loss_w_per_k: float, lag_s: float, dead_s: float, period_s: float,
    robust: float = 3.0,
) -> Gains:  # fmt: skip
    """Return gains for a plant, by SIMC with a closed loop ``robust`` times slower than its delay.

    The delay is dead time, one period of the loop (half of it for the hold, half for the measurement) and
    half of the sensor's lag; the derivative takes that lag away, with a filter of a fifth of it.

    Args:
        capacity_j_per_k: of the body that the heater sits on: what follows behind it comes later.
        loss_w_per_k: to the room.
        lag_s: of the sensor.
        dead_s: dead time.
        period_s: of the loop.
        robust: closed-loop time constant over delay; 1 is SIMC's "tight", 3 leaves room for what changes.
    """
    delay_s = dead_s + period_s + 0.5 * lag_s
    closed_s = robust * delay_s
    kp = capacity_j_per_k / (closed_s + delay_s)
    ti_s = min(capacity_j_per_k / loss_w_per_k, 4.0 * (closed_s + delay_s))
    return Gains(kp, ti_s, td_s=lag_s if lag_s > period_s else 0.0, filter_s=max(0.2 * lag_s, 2.0 * period_s))


def gains_from_relay(result: RelayResult) -> Gains:
    """Return gains by Tyreus and Luyben from the relay test alone: a cross-check that needs no model."""
    return Gains(result.ultimate_gain_w_per_k / 3.2, 2.2 * result.ultimate_period_s)
