"""The guard's second opinion on heater and thermometer: pure, fed with every reading and its time.

Two-sided: not warming although power is given, too hot, warming without power, and the whole course of the
temperature against what the power explains. The last one is an interval: two temperatures, the highest and
the lowest that the plant's bands allow, follow the power that was really given; the reading must lie between
them. Nothing here knows the control loop.

Sources: the stall rule follows what 3-D printers do, with parameters for a small cell (with a printer's own
neither a stuck switch nor a thermometer that reads low is ever seen); all else is derived here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from statistics import median

from controller.guard_frozen import Frozen, Slope
from controller.guard_types import Action, Finding, GuardRules, Plant

POWERED = 0.05  # fraction of full power from which warming is expected
UNPOWERED = 0.02  # fraction up to which none is
STALL_HYSTERESIS_K = 1.0
STALL_ERROR_K_S = 60.0
STALL_GAIN_K = 0.5
STALL_TIME_S = 60.0
OVER_K = 10.0  # above the working set-point, with power
OVER_ERROR_K_S = 60.0
OFF_RISE_K = 3.0  # without power, from the lowest reading since the power ended
MODEL_MARGIN_K = 1.0  # the sensor's own accuracy (Pt100 class B at 333 K: 0.6 K) and the single capacity
MODEL_PULL_K = 6.0  # the interval never lies further from a good reading than this, beyond the margin
MODEL_COUNT, MODEL_TIME_S = 5, 5.0  # readings and lab seconds outside before it counts
GAP_PERIODS = 4.0  # a longer gap between readings: the power meanwhile is not known
JUMP_K = 3.0  # a reading that moves by more, beyond twice the fastest allowed rate, is none
JUMP_COUNT = 3
SHORT_SHARE, SHORT_FULL = 0.4, 0.05  # less by so much of what was asked for, and of full power
SHORT_COUNT, SHORT_TIME_S = 5, 10.0  # a supply that sags by a tenth of its volts gives a fifth less
NOISE_COUNT = 20
NOISE_LIMIT_K = 1.5  # one sigma; the sensor in the holder is good for 1 K
OBEY_COUNT = 3  # readings after a command that may still show what was before, or contradict it
OBEY_K = 1.0  # a working set-point comes nearer to the target all the time, but for its last digits
BEND = 0.6745 * math.sqrt(6.0)  # median of |x[i-1] - 2 x[i] + x[i+1]| of white noise, over its sigma


class HeaterCheck:
    """All rules of one heater. Feed ``reading`` in time order; it returns what is wrong now."""

    def __init__(self, rules: GuardRules) -> None:
        self._rules = rules
        self._then_s: float | None = None
        self._fraction = 0.0
        self._temperature_k: float | None = None  # the last one that was believed
        self._seen_s = 0.0  # the last reading, believed or not
        self._jumps = 0
        self._stall = Stall(rules.plant)
        self._over_k_s = 0.0
        self._off = Unpowered(rules.plant)
        self._model = Interval(rules)
        self._frozen = Frozen(rules)
        self._short = Short()
        self._noise: deque[float] = deque(maxlen=NOISE_COUNT + 2)
        self.obeyed = Obeyed()

    def reading(
        self,
        now_s: float,
        temperature_k: float | None,
        setpoint_k: float,
        fraction: float,
        relay: bool | None,
        asked_fraction: float | None = None,
        automatic: bool | None = None,
    ) -> tuple[float | None, list[Finding]]:
        """Take one reading.

        Args:
            now_s: lab time.
            temperature_k: the reading; None when the instrument itself calls it invalid.
            setpoint_k: the working set-point of the controller.
            fraction: of full power that the controller puts out.
            relay: the contact in series; None while unknown, which is taken as both.
            asked_fraction: of full power that was asked for, where ``fraction`` is measured power.
            automatic: whether the controller follows its set-point; None where it does not tell.

        Returns: the temperature to believe, None when no heater could have made it, and what was found.
        """
        dt_s = 0.0 if self._then_s is None else max(0.0, now_s - self._then_s)
        self._then_s = now_s
        given = _power(0.5 * (self._fraction + fraction), relay)
        if dt_s > GAP_PERIODS * self._rules.period_s["heater"]:
            given = (0.0, 0.0 if relay is False else 1.0)
        self._fraction = fraction
        self._model.advance(dt_s, given)
        disobeyed = [
            *self.obeyed.check(setpoint_k, automatic),
            *self._short.check(now_s, asked_fraction, fraction),
        ]
        if temperature_k is None or not math.isfinite(temperature_k):
            self._noise.clear()
            return None, disobeyed
        noise = [*disobeyed, *self._noisy(temperature_k)]
        jump = self._jump(now_s, temperature_k)
        if jump is not None:
            return None, [*noise, *jump]
        powered = fraction if relay is not False else 0.0
        found = [
            *self._stall.check(now_s, dt_s, temperature_k, setpoint_k, powered),
            *self._over(dt_s, temperature_k, setpoint_k, powered),
            *self._off.check(now_s, temperature_k, powered),
            *self._model.check(now_s, temperature_k),
            *self._frozen.check(now_s, dt_s, temperature_k, fraction if relay is not False else 0.0),
            *noise,
        ]
        return temperature_k, found

    def _jump(self, now_s: float, temperature_k: float) -> list[Finding] | None:
        """A single reading that no heater can explain is none; three in a row are a fault."""
        before = self._temperature_k
        if before is not None:
            since_s, self._seen_s = now_s - self._seen_s, now_s
            allowed_k = JUMP_K + 2.0 * self._rules.temperature_rate_k_per_s * since_s
            if abs(temperature_k - before) > allowed_k:
                self._jumps += 1
                if self._jumps < JUMP_COUNT:
                    return []
                self._jumps = 0
                self._temperature_k = temperature_k
                return [
                    _finding(
                        "heater-jump", temperature_k - before, allowed_k, "K",
                        f"temperature jumped from {before:.2f} K to {temperature_k:.2f} K and stayed there "
                        f"{JUMP_COUNT} times: no heater can do that, the sensor or its wiring has changed",
                    )
                ]  # fmt: skip
        self._jumps = 0
        self._temperature_k, self._seen_s = temperature_k, now_s
        return None

    def _over(
        self, dt_s: float, temperature_k: float, setpoint_k: float, powered: float
    ) -> Iterator[Finding]:
        above_k = temperature_k - setpoint_k - OVER_K
        if above_k <= 0.0 or powered <= UNPOWERED:
            self._over_k_s = 0.0
            return
        self._over_k_s += above_k * dt_s
        if self._over_k_s >= OVER_ERROR_K_S:
            yield _finding(
                "heater-over", temperature_k, setpoint_k + OVER_K, "K",
                f"the controller gives {100 * powered:.0f} % power although the temperature, "
                f"{temperature_k:.1f} K, is {temperature_k - setpoint_k:.1f} K above its set-point",
            )  # fmt: skip

    def _noisy(self, temperature_k: float) -> Iterator[Finding]:
        self._noise.append(temperature_k)
        values = list(self._noise)
        if len(values) < NOISE_COUNT + 2:
            return
        bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
        sigma_k = median(bends) / BEND  # a single spike is not noise
        if sigma_k > NOISE_LIMIT_K:
            yield _finding(
                "heater-noise", sigma_k, NOISE_LIMIT_K, "K",
                f"temperature sensor: noise of {sigma_k:.2f} K over {NOISE_COUNT} readings, "
                f"above {NOISE_LIMIT_K:g} K",
            )  # fmt: skip


class Obeyed:
    """Whether the controller works towards what it was asked for, not with a set-point or output of its own.

    After a reset, or when somebody turns it at the front panel, it may hold another temperature perfectly.
    """

    def __init__(self) -> None:
        self._target_k: float | None = None
        self._nearest_k = math.inf
        self._readings = self._off = 0

    def ask(self, target_k: float | None) -> None:
        """Take what it was asked for; None when it was switched off, or while a command is under way."""
        self._target_k, self._nearest_k = target_k, math.inf
        self._readings = self._off = 0

    def check(self, setpoint_k: float, automatic: bool | None = None) -> Iterator[Finding]:
        """Yield a finding when the working set-point goes away from the target, or is not followed."""
        if self._target_k is None or not math.isfinite(setpoint_k):
            return
        self._readings += 1
        if self._readings <= OBEY_COUNT:
            return
        away_k = abs(setpoint_k - self._target_k)
        self._nearest_k = min(self._nearest_k, away_k)
        elsewhere = away_k > self._nearest_k + OBEY_K
        self._off = self._off + 1 if elsewhere or automatic is False else 0
        if self._off >= OBEY_COUNT and not elsewhere:
            yield _finding(
                "heater-setpoint", setpoint_k, self._target_k, "K",
                "the heater's controller was taken out of automatic by hand, or by a restart: it puts out "
                f"what it was left at and does not follow its set-point of {setpoint_k:.1f} K",
            )  # fmt: skip
        elif self._off >= OBEY_COUNT:
            yield _finding(
                "heater-setpoint", setpoint_k, self._target_k, "K",
                f"the heater's controller works with a set-point of {setpoint_k:.1f} K, asked for was "
                f"{self._target_k:.1f} K: it was reset, or changed by hand",
            )  # fmt: skip


class Short:
    """Power that is asked for and does not come, where it is measured: a wire off, a contact open.

    The other rules go by the power that flows, so with none of it a cold heater is what they expect.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._count = 0

    def check(self, now_s: float, asked: float | None, given: float) -> Iterator[Finding]:
        """Yield a finding when too little has come for long enough. Both are fractions of full power."""
        if asked is None or asked - given <= max(SHORT_SHARE * asked, SHORT_FULL):
            self._since_s, self._count = None, 0
            return
        self._count += 1
        if self._since_s is None:
            self._since_s = now_s
        if self._count >= SHORT_COUNT and now_s - self._since_s >= SHORT_TIME_S:
            yield Finding(
                "heater-short", "heater.output", given, (1.0 - SHORT_SHARE) * asked, "", Action.SAFE,
                f"the heater gets {100 * given:.1f} % of full power where {100 * asked:.1f} % were asked "
                f"for, for {now_s - self._since_s:.0f} s: a wire has come off, a contact is open, or the "
                "supply is at a limit of its own",
            )  # fmt: skip


class Stall:
    """Not warming although power is given: heater dead, contact open, sensor fallen off."""

    def __init__(self, plant: Plant) -> None:
        self._time_s = max(STALL_TIME_S, 3.0 * plant.lag_s)
        self._goal_k: float | None = None
        self._deadline_s = 0.0
        self._error_k_s = 0.0

    def check(
        self, now_s: float, dt_s: float, temperature_k: float, setpoint_k: float, powered: float
    ) -> Iterator[Finding]:
        """Yield a finding when the temperature has not gained what it should in its time."""
        missing_k = setpoint_k - STALL_HYSTERESIS_K - temperature_k
        if missing_k <= 0.0 or powered < POWERED:
            self._goal_k, self._error_k_s = None, 0.0
            return
        self._error_k_s += missing_k * dt_s
        if self._goal_k is None or temperature_k >= self._goal_k:
            self._goal_k, self._deadline_s = temperature_k + STALL_GAIN_K, now_s + self._time_s
            self._error_k_s = 0.0
        elif now_s > self._deadline_s and self._error_k_s >= STALL_ERROR_K_S:
            yield _finding(
                "heater-stalled", temperature_k, self._goal_k, "K",
                f"not warming although {100 * powered:.0f} % power is given: {temperature_k:.1f} K, "
                f"{STALL_GAIN_K:g} K more were due in {self._time_s:.0f} s (set-point {setpoint_k:.1f} K)",
            )  # fmt: skip


class Unpowered:
    """Warming with the power off: a switch that has welded, or the cell itself."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._since_s: float | None = None
        self._lowest_k = math.inf
        self._allowed_k = OFF_RISE_K
        self._slope = Slope()

    def check(self, now_s: float, temperature_k: float, powered: float) -> Iterator[Finding]:
        """Yield a finding when it warms; what is colder than the room may, what lags goes on a while."""
        self._slope.add(now_s, temperature_k)
        if powered > UNPOWERED:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s, self._lowest_k = now_s, temperature_k
            self._allowed_k = OFF_RISE_K + self._plant.lag_s * max(0.0, self._slope.k_per_s)
        room_k = self._plant.ambient_k[1]
        self._lowest_k = max(min(self._lowest_k, temperature_k), min(room_k, temperature_k))
        limit_k = self._lowest_k + self._allowed_k
        if temperature_k > limit_k:
            yield _finding(
                "heater-off-warming", temperature_k, limit_k, "K",
                f"warming with the power off: {temperature_k:.1f} K, "
                f"{temperature_k - self._lowest_k:.1f} K above the lowest in {now_s - self._since_s:.0f} s "
                f"without power (allowed {self._allowed_k:.1f} K): a switch stuck on, or the cell itself",
            )  # fmt: skip


class Interval:
    """The highest and the lowest temperature that the given power explains."""

    def __init__(self, rules: GuardRules) -> None:
        self._plant = rules.plant
        self.low_k: float | None = None
        self.high_k: float | None = None
        self._rate_k_per_s = 0.0  # largest of late, for the lag
        self._outside_since_s: float | None = None
        self._outside = 0

    def advance(self, dt_s: float, given: tuple[float, float]) -> None:
        """Let ``dt_s`` pass with a power between the two fractions."""
        if self.low_k is None or self.high_k is None:
            return
        p = self._plant
        while dt_s > 0.0:  # in steps that are short against every time constant
            step_s = min(dt_s, 0.1 * p.capacity_j_per_k[0] / p.loss_w_per_k[1])
            dt_s -= step_s
            up = _rate(self.high_k, given[1] * p.power_w[1], p.ambient_k[1], p, highest=True)
            down = _rate(self.low_k, given[0] * p.power_w[0], p.ambient_k[0], p, highest=False)
            self.high_k += up * step_s
            self.low_k += down * step_s
            decayed = self._rate_k_per_s * math.exp(-step_s / p.lag_s) if p.lag_s > 0.0 else 0.0
            self._rate_k_per_s = max(decayed, min(abs(up), abs(down)))

    def check(self, now_s: float, temperature_k: float) -> Iterator[Finding]:
        """Yield a finding when the reading has been outside for long enough; pull the interval to it."""
        margin_k = MODEL_MARGIN_K + self._plant.lag_s * self._rate_k_per_s
        if self.low_k is None or self.high_k is None:
            self.low_k = temperature_k - MODEL_MARGIN_K
            self.high_k = temperature_k + MODEL_MARGIN_K
            return
        low_k, high_k = self.low_k - margin_k, self.high_k + margin_k
        if low_k <= temperature_k <= high_k:
            self._outside, self._outside_since_s = 0, None
            self.low_k = max(self.low_k, temperature_k - MODEL_PULL_K - margin_k)
            self.high_k = min(self.high_k, temperature_k + MODEL_PULL_K + margin_k)
            return
        self._outside += 1
        if self._outside_since_s is None:
            self._outside_since_s = now_s
        if self._outside >= MODEL_COUNT and now_s - self._outside_since_s >= MODEL_TIME_S:
            hot = temperature_k > high_k
            limit, why = (
                (high_k, "another source of heat, a switch stuck on, or a sensor that reads high")
                if hot
                else (
                    low_k,
                    "a heater or contact that does not work, a sensor that reads low or has come off",
                )
            )
            yield _finding(
                "heater-power", temperature_k, limit, "K",
                f"temperature {temperature_k:.1f} K is {'above' if hot else 'below'} the {limit:.1f} K that "
                f"the power given explains: {why} (plant, {self._plant.described()})",
            )  # fmt: skip


def _rate(temperature_k: float, power_w: float, ambient_k: float, plant: Plant, *, highest: bool) -> float:
    """Return the highest (or lowest) dT/dt in K/s: every parameter at the end of its band for that."""
    over_k = temperature_k - ambient_k
    low_loss, high_loss = plant.loss_w_per_k
    loss = low_loss if (over_k > 0.0) is highest else high_loss
    net_w = power_w - loss * over_k
    low_capacity, high_capacity = plant.capacity_j_per_k
    return net_w / (low_capacity if (net_w > 0.0) is highest else high_capacity)


def _power(fraction: float, relay: bool | None) -> tuple[float, float]:
    fraction = min(1.0, max(0.0, fraction))
    if relay is None:
        return 0.0, fraction
    return (fraction, fraction) if relay else (0.0, 0.0)


def _finding(name: str, value: float, limit: float | None, unit: str, text: str) -> Finding:
    return Finding(name, "heater.temperature", value, limit, unit, Action.SAFE, text)
