"""Identification of a heated body from a record of its power and temperature: a step, a relay test, any run.

The plant is that of ``thermal_plant``. All parameters enter by their logarithm, so they stay positive; the
fit is by least squares of the whole course, not of one step ahead, because a model that cannot run free is no
use to a guard. In such a fit a warmer room and a smaller loss look alike. Where the room was not measured and
the record begins with a plateau, the plateau's room (``thermal_rest``) is joined to the fit, each with its
own error: the parameters move by cov e (e' cov e + sigma^2)^-1 (room - fitted).

Errors are one sigma, from disturbances that the residuals themselves show (``thermal_errors``): noise, late
readings, late powers, and heat that is not accounted for. Errors of the scales of power and temperature are
not in them.

Source: L. Ljung, System Identification (2nd ed., 1999), chapters 4 and 9; JCGM 100:2008 for the errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from edge import thermal_errors
from edge.thermal_plant import Oscillation, ThermalRecord, oscillation, simulate
from edge.thermal_rest import plateau

__all__ = [
    "Oscillation", "Structure", "ThermalFit", "ThermalRecord", "identify", "identify_best", "oscillation",
    "simulate",
]  # fmt: skip

Floats = NDArray[np.float64]

CORRELATED = 0.999  # of neighbouring residuals, at most
LOG_STEP, KELVIN_STEP = 1e-4, 1e-3  # for derivatives
FINE = 8000  # steps at most, for the response to one joule


class Structure(StrEnum):
    """How many parts the plant is given."""

    ONE = "one body"  # first order with dead time
    LAGGED = "one body, sensor lag"  # second order with dead time
    TWO = "two bodies, sensor lag"  # third order with one zero, with dead time


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
    disturbances: thermal_errors.Disturbances  # what the errors come from
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
        vector, residuals = self._least_squares()
        course = self._course(vector, residuals)
        found = thermal_errors.disturbances(course)
        covariance = thermal_errors.covariance(course, found)
        if self.free_ambient and self.record.at_rest:
            vector, covariance = self._joined(vector, covariance, found.heat_w_root_s)
        return self._fit_of(vector, covariance, found, residuals)

    def _least_squares(self) -> tuple[Floats, Floats]:
        """Return the best parameters from any first guess, and what is left."""
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
        return best.x, best.fun

    def _joined(self, vector: Floats, covariance: Floats, heat: float) -> tuple[Floats, Floats]:
        """Join what the plateau says of the room to a fit; both with their errors."""
        numbers = {name: math.exp(value) for name, value in zip(self.names, vector, strict=False)}
        capacity = numbers["capacity"] + numbers.get("second_capacity", 0.0)
        rest = plateau(self.record, heat / capacity)
        if rest is None:
            return vector, covariance
        gradient = np.zeros(vector.size)  # of the logarithm of the time constant
        for name in ("capacity", "second_capacity"):
            if name in numbers:
                gradient[self.names.index(name)] = numbers[name] / capacity
        gradient[self.names.index("loss")] = -1.0
        constant_s = capacity / numbers["loss"]
        sigma_s = constant_s * math.sqrt(float(gradient @ covariance @ gradient))
        room_k, room_sigma_k = rest.room_k(constant_s, sigma_s)
        place = len(self.names) + self.starts
        gain = covariance[:, place] / (covariance[place, place] + room_sigma_k**2)
        moved = vector + gain * (room_k - vector[place])
        return moved, covariance - np.outer(gain, covariance[place])

    def _course(self, vector: Floats, residuals: Floats) -> thermal_errors.Course:
        """Return what the errors of these parameters are made of."""
        record = self.record
        columns = []
        for index in range(vector.size):
            step = np.zeros(vector.size)
            step[index] = LOG_STEP if index < len(self.names) else KELVIN_STEP
            columns.append(
                (self._residuals(vector + step) - self._residuals(vector - step)) / (2 * step[index])
            )
        changed = np.diff(record.power, prepend=record.power[0])
        switched = np.flatnonzero(changed)
        return thermal_errors.Course(
            record.time_s[self.good], -residuals, np.stack(columns, axis=1), self.measured + residuals,
            record.time_s[switched], changed[switched], self._response(vector),
        )  # fmt: skip

    def _response(self, vector: Floats) -> Callable[[Floats], Floats]:
        """Return what a reading shows of one joule, by the seconds since."""
        record = self.record
        span_s = float(record.time_s[-1] - record.time_s[0])
        step_s = max(float(np.median(np.diff(record.time_s))) / 4.0, span_s / FINE)
        at_s = np.arange(0.0, span_s + 2.0 * step_s, step_s)
        pulse = np.zeros(at_s.size)
        pulse[0] = 1.0 / step_s
        values = {**self.parameters(vector), "ambient_k": 0.0, "start_k": (0.0,) * self.bodies}
        shown = simulate(ThermalRecord(at_s, at_s, pulse), **values)  # type: ignore[arg-type]
        return lambda lag_s: np.where(lag_s > 0.0, np.interp(lag_s, at_s, shown), 0.0)

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

    def _fit_of(
        self, vector: Floats, covariance: Floats, found: thermal_errors.Disturbances, plain: Floats
    ) -> ThermalFit:
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
        residuals = predicted[self.good] - self.measured
        return ThermalFit(
            self.structure, numbers["capacity"], numbers["loss"],
            float(values["ambient_k"]) if room is None else float(np.mean(room)),  # type: ignore[arg-type]
            numbers.get("lag_s", 0.0), numbers["dead_s"], numbers.get("second_capacity", 0.0),
            numbers.get("joint", 0.0), sigma, correlation, math.sqrt(float(np.mean(residuals**2))),
            found, residuals.size, _information(plain, vector.size), predicted,
        )  # fmt: skip


def _information(residuals: Floats, parameters: int) -> float:
    """Return the Bayesian information criterion of a plain fit, for as many readings as are independent."""
    variance = float(residuals @ residuals) / max(residuals.size - parameters, 1)
    lag_one = _lag_one(residuals)
    independent = max(residuals.size * (1.0 - lag_one) / (1.0 + lag_one), 2.0)
    return independent * math.log(max(variance, 1e-12)) + parameters * math.log(independent)


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
