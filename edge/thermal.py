"""Identification of a heated body from a record of its power and temperature: a step, a relay test, any run.

The plant is a chain of heat capacities with one loss, seen by a sensor that lags and is late::

    C  dT/dt  = u - G (T - T_room) - J (T - T2)
    C2 dT2/dt = J (T - T2)                                (two bodies)
    tau dS/dt = T - S,   reading(t) = S(t - dead)

u is the power in W (or whatever unit the record has: then C and G are per that unit). All parameters enter by
their logarithm, so they stay positive; the fit is by least squares of the whole course, not of one step
ahead, because a model that cannot run free is no use to a guard. The power of a sample holds until the next.

Errors are one sigma from the curvature, widened for residuals that follow each other (lag-one correlation r
of the residuals: factor sqrt((1 + r) / (1 - r))); the error of the model itself is not in them.

Source: L. Ljung, System Identification (2nd ed., 1999), chapters 4 and 9; JCGM 100:2008 for the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.signal import detrend, lfilter

Floats = NDArray[np.float64]

FEWEST = 30  # samples from which a plant is identified at all
TURNS = 4  # an oscillation repeats as often in what is looked at
CORRELATED = 0.999  # correlation of neighbouring residuals above which the record says nothing about errors


class Structure(StrEnum):
    """How many parts the plant is given."""

    ONE = "one body"  # first order with dead time
    LAGGED = "one body, sensor lag"  # second order with dead time
    TWO = "two bodies, sensor lag"  # third order with one zero, with dead time


@dataclass(frozen=True)
class ThermalRecord:
    """A record in time order; ``power`` holds from its sample to the next. Ambient None: it is fitted."""

    time_s: Floats
    temperature_k: Floats
    power: Floats
    ambient_k: Floats | None = None
    at_rest: bool = True  # everything had the same temperature when it began

    @classmethod
    def of(
        cls, time_s: ArrayLike, temperature_k: ArrayLike, power: ArrayLike,
        ambient_k: ArrayLike | None = None, *, at_rest: bool = True,
    ) -> ThermalRecord:  # fmt: skip
        """Return a record from anything array-like; samples without a temperature are left out.

        Raises:
            ValueError: the lengths differ, times do not rise, a power is no number, or there are too few.
        """
        t, y, u = (np.asarray(one, np.float64) for one in (time_s, temperature_k, power))
        room = None if ambient_k is None else np.broadcast_to(np.asarray(ambient_k, np.float64), t.shape)
        if not t.ndim == y.ndim == u.ndim == 1 or not t.size == y.size == u.size:
            raise ValueError("time, temperature and power must be three columns of one length")
        if not (np.all(np.isfinite(t)) and np.all(np.diff(t) > 0.0)):
            raise ValueError("the times of the record do not rise")
        if not np.all(np.isfinite(u)) or (room is not None and not np.all(np.isfinite(room))):
            raise ValueError("a power or a room temperature of the record is no number")
        if np.count_nonzero(np.isfinite(y)) < FEWEST:
            raise ValueError(f"a plant needs at least {FEWEST} samples with a temperature")
        return cls(t, y, u, room, at_rest)


@dataclass(frozen=True)
class ThermalFit:
    """An identified plant. Values in SI, errors one sigma; absent parts are 0 with no error."""

    structure: Structure
    capacity: float  # C, J/K
    loss: float  # G, W/K
    ambient_k: float  # T_room, or the mean of what was recorded
    lag_s: float  # tau
    dead_s: float
    second_capacity: float  # C2
    joint: float  # J
    sigma: dict[str, float]  # by the names above
    correlation_capacity_loss: float
    rms_k: float  # of the residuals
    lag_one: float  # correlation of neighbouring residuals
    samples: int
    bic: float  # Bayesian information criterion, for comparing structures
    predicted_k: Floats  # free run, one value per sample of the record

    @property
    def total_capacity(self) -> float:
        """Everything that is heated in the end, J/K."""
        return self.capacity + self.second_capacity

    @property
    def total_capacity_sigma(self) -> float:
        """Its error; the parts' errors are taken as opposed, for their sum is known best."""
        return self.sigma["total_capacity"]

    @property
    def time_constant_s(self) -> float:
        """Total capacity over loss, s."""
        return self.total_capacity / self.loss

    @property
    def ahead_s(self) -> tuple[float, float]:
        """By how much time the reading is ahead of the mean temperature: from the start of a ramp to its end.

        At its start the reading is late by tau and dead time; in a steady ramp of rate k the second body
        follows k C2 / J behind the first, its share of the mean is C2 / (C + C2).
        """
        late_s = self.lag_s + self.dead_s
        if self.second_capacity == 0.0:
            return -late_s, -late_s
        behind_s = self.second_capacity**2 / (self.joint * self.total_capacity)
        return -late_s, behind_s - late_s


def simulate(
    record: ThermalRecord, *, capacity: float, loss: float, ambient_k: float, lag_s: float = 0.0,
    dead_s: float = 0.0, second_capacity: float = 0.0, joint: float = 0.0, start_k: tuple[float, ...],
) -> Floats:  # fmt: skip
    """Return the reading that a plant would give at the times of a record, in K.

    Args:
        record: times and powers; its room temperature, if it has one, replaces ``ambient_k``.
        capacity: C in J/K.
        loss: G in W/K.
        ambient_k: T_room.
        lag_s: tau; 0: no sensor lag.
        dead_s: dead time.
        second_capacity: C2; 0: one body.
        joint: J in W/K.
        start_k: temperatures at the first sample: of the body, the second body, the sensor, as many as are.
    """
    grid, power, room = _gridded(record, ambient_k)
    matrix, inputs = _rates(capacity, loss, lag_s, second_capacity, joint)
    reading = _last_state(matrix, inputs, grid[1] - grid[0], power, room, np.array(start_k))
    result: Floats = np.interp(record.time_s - dead_s, grid, reading)
    return result


def identify(record: ThermalRecord, structure: Structure) -> ThermalFit:
    """Fit one structure to a record.

    Raises:
        ValueError: the power never changes or nothing warms, so that nothing can be learnt from it.
    """
    return _Problem(record, structure).solve()


def identify_best(record: ThermalRecord) -> list[ThermalFit]:
    """Fit every structure; the best by BIC first.

    Only such count whose capacity and loss are known to within their own size.

    Raises:
        ValueError: nothing can be learnt from the record.
    """
    fits = [identify(record, structure) for structure in Structure]
    known = [
        fit for fit in fits
        if fit.total_capacity_sigma < fit.total_capacity and fit.sigma["loss"] < fit.loss
    ]  # fmt: skip
    if not known:
        raise ValueError("the record is too short or too noisy: capacity and loss are not determined by it")
    return sorted(known, key=lambda fit: fit.bic)


class _Problem:
    """One record with one structure: parameters as a vector, start, bounds, residuals."""

    def __init__(self, record: ThermalRecord, structure: Structure) -> None:
        self.record = record
        self.structure = structure
        self.good = np.isfinite(record.temperature_k)
        self.measured = record.temperature_k[self.good]
        self.names = ["capacity", "loss", "dead_s"]
        if structure is not Structure.ONE:
            self.names.append("lag_s")
        if structure is Structure.TWO:
            self.names += ["second_capacity", "joint"]
        bodies = 1 + (structure is Structure.TWO) + (structure is not Structure.ONE)
        self.starts = 1 if record.at_rest else bodies
        self.bodies = bodies
        self.free_ambient = record.ambient_k is None
        if np.ptp(record.power) == 0.0 and np.ptp(self.measured) < 1e-9:
            raise ValueError("neither power nor temperature changes: nothing can be learnt from the record")

    def solve(self) -> ThermalFit:
        best = None
        for start in self._first_guesses():
            low, high = self._bounds(start)
            found = least_squares(  # MINPACK: without bounds, and without threads that only wait
                partial(self._bounded, low=low, high=high),
                start, method="lm", x_scale=self._scales(start), max_nfev=1500, ftol=1e-7, xtol=1e-6,
            )  # fmt: skip
            if best is None or found.cost < best.cost:
                best = found
        if best is None:  # pragma: no cover - there is always a first guess
            raise ValueError("no first guess")
        return self._fit_of(best.x, np.asarray(best.jac, np.float64), best.fun)

    def parameters(self, vector: Floats) -> dict[str, object]:
        """Return the arguments of ``simulate``."""
        values: dict[str, object] = {
            name: math.exp(value) for name, value in zip(self.names, vector, strict=False)
        }
        rest = vector[len(self.names) :]
        starts = rest[: self.starts]
        values["start_k"] = tuple(starts) if not self.record.at_rest else (float(starts[0]),) * self.bodies
        values["ambient_k"] = float(rest[self.starts]) if self.free_ambient else 0.0
        return values

    def _residuals(self, vector: Floats) -> Floats:
        predicted = simulate(self.record, **self.parameters(vector))  # type: ignore[arg-type]
        result: Floats = predicted[self.good] - self.measured
        return result

    def _bounded(self, vector: Floats, low: Floats, high: Floats) -> Floats:
        """Return the residuals of what is within bounds; outside every kelvin more counts in each of them."""
        beyond = float(np.sum(np.maximum(low - vector, 0.0) + np.maximum(vector - high, 0.0)))
        return self._residuals(np.clip(vector, low, high)) + beyond

    def _first_guesses(self) -> list[Floats]:
        """Begin from the energy balance; once fast, once slow, for the valley is long."""
        record = self.record
        start_k = float(np.median(self.measured[:3]))
        ambient_k = start_k if record.ambient_k is None else float(np.mean(record.ambient_k))
        step_s = float(np.median(np.diff(record.time_s)))
        span_s = record.time_s[-1] - record.time_s[0]
        guesses = []
        for constant_s in (0.1 * span_s, 0.5 * span_s):
            loss, capacity = self._balance(constant_s, ambient_k, start_k)
            values = {
                "capacity": capacity, "loss": loss, "dead_s": 0.5 * step_s, "lag_s": 2.0 * step_s,
                "second_capacity": 0.4 * capacity, "joint": 0.4 * capacity / (5.0 * step_s + 0.02 * span_s),
            }  # fmt: skip
            vector = [math.log(values[name]) for name in self.names]
            vector += [start_k] * self.starts
            if self.free_ambient:
                vector.append(ambient_k)
            guesses.append(np.array(vector))
        return guesses

    def _balance(self, constant_s: float, ambient_k: float, start_k: float) -> tuple[float, float]:
        """Return loss and capacity that make the mean excess right for a time constant."""
        record = self.record
        heated = ThermalRecord(record.time_s, record.temperature_k, record.power)
        one = simulate(heated, capacity=constant_s, loss=1.0, ambient_k=0.0, start_k=(0.0,))
        rise = self.measured - (start_k if record.at_rest else ambient_k)
        response = one[self.good]
        scale = float(rise @ response / (response @ response)) if np.any(response) else 1.0
        scale = max(scale, 1e-6)
        return 1.0 / scale, constant_s / scale

    def _bounds(self, start: Floats) -> tuple[Floats, Floats]:
        step_s = float(np.median(np.diff(self.record.time_s)))
        span_s = float(self.record.time_s[-1] - self.record.time_s[0])
        low, high = start - 12.0, start + 12.0
        for index, name in enumerate(self.names):
            if name in ("dead_s", "lag_s"):
                low[index], high[index] = math.log(1e-3 * step_s), math.log(0.3 * span_s)
        temperatures = slice(len(self.names), None)
        low[temperatures], high[temperatures] = start[temperatures] - 60.0, start[temperatures] + 60.0
        return low, high

    def _scales(self, start: Floats) -> Floats:
        scales = np.ones(start.size)
        scales[: len(self.names)] = 0.3
        return scales

    def _fit_of(self, vector: Floats, jacobian: Floats, residuals: Floats) -> ThermalFit:
        count = residuals.size
        freedom = max(count - vector.size, 1)
        variance = float(residuals @ residuals) / freedom
        lag_one = _lag_one(residuals)
        widening = (1.0 + lag_one) / (1.0 - lag_one)
        covariance: Floats = np.asarray(
            np.linalg.pinv(jacobian.T @ jacobian) * variance * widening, np.float64
        )
        values = self.parameters(vector)
        predicted = simulate(self.record, **values)  # type: ignore[arg-type]
        numbers = {name: float(values[name]) for name in self.names}  # type: ignore[arg-type]
        sigma = {
            name: numbers[name] * math.sqrt(covariance[index, index]) for index, name in enumerate(self.names)
        }
        sigma["total_capacity"], correlation = _sum_error(self.names, numbers, covariance)
        room = self.record.ambient_k
        if self.free_ambient:
            place = len(self.names) + self.starts
            sigma["ambient_k"] = math.sqrt(covariance[place, place])
        independent = max(count / widening, 2.0)
        bic = independent * math.log(max(variance, 1e-12)) + vector.size * math.log(independent)
        return ThermalFit(
            self.structure, numbers["capacity"], numbers["loss"],
            float(values["ambient_k"]) if room is None else float(np.mean(room)),  # type: ignore[arg-type]
            numbers.get("lag_s", 0.0), numbers["dead_s"], numbers.get("second_capacity", 0.0),
            numbers.get("joint", 0.0), sigma, correlation, math.sqrt(float(residuals @ residuals) / count),
            lag_one, count, bic, predicted,
        )  # fmt: skip


def _sum_error(names: list[str], numbers: dict[str, float], covariance: Floats) -> tuple[float, float]:
    """Return sigma of C + C2, and the correlation of that sum with G."""
    gradient = np.zeros(covariance.shape[0])
    for name in ("capacity", "second_capacity"):
        if name in numbers:
            gradient[names.index(name)] = numbers[name]
    loss = np.zeros(covariance.shape[0])
    loss[names.index("loss")] = numbers["loss"]
    total = float(gradient @ covariance @ gradient)
    other = float(loss @ covariance @ loss)
    both = float(gradient @ covariance @ loss)
    scale = math.sqrt(total * other)
    return math.sqrt(total), both / scale if scale > 0.0 else 0.0


def _lag_one(residuals: Floats) -> float:
    centred = residuals - residuals.mean()
    total = float(centred @ centred)
    if total == 0.0:
        return 0.0
    return min(max(float(centred[1:] @ centred[:-1]) / total, 0.0), CORRELATED)


def _gridded(record: ThermalRecord, ambient_k: float) -> tuple[Floats, Floats, Floats]:
    """Return even times, the mean power of each interval (no energy is lost), and the room temperature."""
    t = record.time_s
    step_s = float(np.median(np.diff(t)))
    count = math.ceil((t[-1] - t[0]) / step_s - 1e-9) + 1
    grid = t[0] + step_s * np.arange(count)
    energy = np.concatenate([[0.0], np.cumsum(record.power[:-1] * np.diff(t))])
    ends = np.interp(np.append(grid, grid[-1] + step_s), t, energy)
    power = np.diff(ends) / step_s
    room = np.full(count, ambient_k) if record.ambient_k is None else np.interp(grid, t, record.ambient_k)
    return grid, power, room


def _rates(
    capacity: float, loss: float, lag_s: float, second_capacity: float, joint: float
) -> tuple[Floats, Floats]:
    """Return A and B of dx/dt = A x + B (power, room) for body, second body, sensor, as far as they are."""
    two, lagged = second_capacity > 0.0, lag_s > 0.0
    size = 1 + two + lagged
    matrix, inputs = np.zeros((size, size)), np.zeros((size, 2))
    matrix[0, 0] = -loss / capacity
    inputs[0] = 1.0 / capacity, loss / capacity
    if two:
        matrix[0, 0] -= joint / capacity
        matrix[0, 1] = joint / capacity
        matrix[1, 0], matrix[1, 1] = joint / second_capacity, -joint / second_capacity
    if lagged:
        matrix[-1, 0], matrix[-1, -1] = 1.0 / lag_s, -1.0 / lag_s
    elif two:  # the reading is the last state: without a lag it is the first body's
        matrix, inputs = matrix[::-1, ::-1].copy(), inputs[::-1].copy()
    return matrix, inputs


def _last_state(
    rates: Floats, inputs: Floats, step_s: float, power: Floats, room: Floats, start: Floats
) -> Floats:
    """Return the last component of dx/dt = A x + B (power, room) at the end of every step, exactly.

    By the modes of A, each of which is a filter of one pole: no matrix larger than 3 x 3 is ever multiplied.
    """
    values, vectors = np.linalg.eig(rates)
    if np.linalg.cond(vectors) > 1e9:  # two time constants that are equal: moved apart by a millionth
        rates = rates * (1.0 + 1e-6 * np.arange(rates.shape[0]))[:, None]
        values, vectors = np.linalg.eig(rates)
    inverse = np.linalg.inv(vectors)
    poles = np.exp(values * step_s)
    safe = np.where(np.abs(values) * step_s > 1e-12, values, 1.0)  # a loss of nothing: the limit is the step
    held = np.where(np.abs(values) * step_s > 1e-12, np.expm1(safe * step_s) / safe, step_s)
    into = (inverse @ inputs) * held[:, None]
    begin = inverse @ start
    total = np.zeros(power.size, np.complex128)
    for index, pole in enumerate(poles):
        driven = np.empty(power.size, np.complex128)
        driven[0] = begin[index]
        driven[1:] = into[index, 0] * power[:-1] + into[index, 1] * room[:-1]
        total += vectors[-1, index] * lfilter([1.0], [1.0, -pole], driven)
    result: Floats = total.real
    return result


@dataclass(frozen=True)
class Oscillation:
    """The second half of a record: where it is and how it swings."""

    mean: float
    deviation: float  # standard deviation, population
    period_s: float  # of the largest peak of the Fourier transform


def oscillation(time_s: ArrayLike, values: ArrayLike) -> Oscillation:
    """Return mean, deviation and dominant period of the second half of an evenly sampled record.

    A straight line is taken away for the period; what does not fit in ``TURNS`` times is drift, too.

    Raises:
        ValueError: fewer than 8 samples.
    """
    t, y = np.asarray(time_s, np.float64), np.asarray(values, np.float64)
    half, half_t = y[y.size // 2 :], t[t.size // 2 :]
    if half.size < 8:
        raise ValueError("an oscillation needs at least 8 samples in its second half")
    power = np.abs(np.fft.rfft(detrend(half)))
    peak = TURNS + int(np.argmax(power[TURNS:]))
    step_s = float(np.median(np.diff(half_t)))
    return Oscillation(float(half.mean()), float(half.std()), half.size * step_s / peak)
