"""Identification of a heated body from a record of its power and temperature: a step, a relay test, any run.

The plant is that of ``thermal_plant``. Capacities and conductances enter by their logarithm, so they stay
positive; the fit is by least squares of the whole course, not of one step ahead, because a model that cannot
run free is no use to a guard.

In such a fit a warmer room and a smaller loss look alike: the record must say which it is, by how it begins
and how it cools, and the errors of both are those of the joint covariance. What is known of the room from
elsewhere enters with its own error (``ThermalRecord.room_k``).

Errors are one sigma, from the disturbances that the residuals themselves show (``thermal_errors``). Errors
of the scales of power and temperature are not in them. Where neighbouring residuals are alike (``lag_one``)
there is more than noise: the errors are wider for it, but how wrong a plant is that lacks a body, they
cannot say.

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

__all__ = [
    "Oscillation", "Structure", "ThermalFit", "ThermalRecord", "identify", "identify_best", "oscillation",
    "simulate",
]  # fmt: skip

Floats = NDArray[np.float64]

CORRELATED = 0.999  # of neighbouring residuals, at most
LOG_STEP, KELVIN_STEP, SECOND_STEP = 1e-4, 1e-3, 5e-3  # for derivatives; the last of a step of the record
SECONDS = ("lag_s", "dead_s")  # parameters that enter as they are, the others by their logarithm
BEYOND = 1e2  # K for every unit beyond a bound
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
    lag_one: float  # correlation of neighbouring residuals: near 0 if nothing but noise is left
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
    def late_s(self) -> float:
        """Sensor lag and dead time together, s: known better than either."""
        return self.lag_s + self.dead_s

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
        if self.second_capacity == 0.0:
            return -self.late_s, -self.late_s
        behind_s = self.second_capacity**2 / (self.joint * self.total_capacity)
        return -self.late_s, behind_s - self.late_s


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
        self.step_s = float(np.median(np.diff(record.time_s)))
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
        vector = self._least_squares(self._first_guesses(), 0.0)
        course = self._course(vector)
        blocks = thermal_errors.Blocks(course)
        curvature = _inverse(course.jacobian.T @ course.jacobian)
        found, covariance = thermal_errors.disturbances(blocks, curvature)
        if self.free_ambient and self.record.room_k is not None:
            vector, covariance = self._with_room(vector, covariance, curvature, found)
        return self._fit_of(vector, covariance, found)

    def _with_room(
        self, vector: Floats, covariance: Floats, curvature: Floats, found: thermal_errors.Disturbances
    ) -> tuple[Floats, Floats]:
        """Fit again with what is known of the room, weighed as the errors of both ask for."""
        place, (_, sigma_k) = self._place("ambient_k"), self.record.room_k or (0.0, 1.0)
        weight = covariance[place, place] / curvature[place, place] / sigma_k**2
        vector = self._least_squares([vector], weight)
        course = self._course(vector)
        normal = course.jacobian.T @ course.jacobian
        moved = thermal_errors.disturbed(thermal_errors.Blocks(course), found)
        normal[place, place] += weight
        moved[place, place] += (weight * sigma_k) ** 2
        return vector, _inverse(normal) @ moved @ _inverse(normal)

    def _least_squares(self, guesses: list[Floats], weight: float) -> Floats:
        """Return the best parameters from any guess; ``weight`` is that of what is known of the room."""
        best, cost = None, math.inf
        for start in guesses:
            low, high = self._bounds(self._first_guesses()[0])
            found = least_squares(  # MINPACK: without bounds, and without threads that only wait
                partial(self._bounded, low=low, high=high, weight=weight),
                start, method="lm", x_scale=self._scales(), max_nfev=1500, ftol=1e-9, xtol=1e-8,
            )  # fmt: skip
            if found.cost < cost:
                best, cost = np.clip(found.x, low, high), found.cost
        if best is None:  # pragma: no cover - there is always a guess
            raise ValueError("no first guess")
        return best

    def _place(self, name: str) -> int:
        return len(self.names) + self.starts if name == "ambient_k" else self.names.index(name)

    def _course(self, vector: Floats) -> thermal_errors.Course:
        """Return what the errors of these parameters are made of."""
        record = self.record
        steps = np.full(vector.size, KELVIN_STEP)
        steps[: len(self.names)] = [
            SECOND_STEP * self.step_s if name in SECONDS else LOG_STEP for name in self.names
        ]
        columns = [
            (self._residuals(vector + move) - self._residuals(vector - move)) / (2.0 * step)
            for step, move in zip(steps, np.diag(steps), strict=True)
        ]
        residuals = self._residuals(vector)
        changed = np.diff(record.power, prepend=record.power[0])
        switched = np.flatnonzero(changed)
        return thermal_errors.Course(
            record.time_s[self.good], -residuals, np.stack(columns, axis=1), self.measured + residuals,
            record.time_s[switched], changed[switched], self._response(vector),
            math.exp(vector[self._place("loss")]),
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
            name: float(value) if name in SECONDS else math.exp(value)
            for name, value in zip(self.names, vector, strict=False)
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

    def _bounded(self, vector: Floats, low: Floats, high: Floats, weight: float) -> Floats:
        """Return the residuals of what is within bounds, and beside them how far it is beyond.

        Beside them: added to each, it would be a shift of all readings, which the temperatures make up for.
        """
        inside = np.clip(vector, low, high)
        room, _ = self.record.room_k or (0.0, 1.0)
        known = math.sqrt(weight) * (inside[-1] - room) if weight > 0.0 else 0.0
        return np.concatenate([self._residuals(inside), [known], BEYOND * (vector - inside)])

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
            vector = [values[name] if name in SECONDS else math.log(values[name]) for name in self.names]
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
        span_s = float(self.record.time_s[-1] - self.record.time_s[0])
        low, high = start - 12.0, start + 12.0
        for index, name in enumerate(self.names):
            if name in SECONDS:
                low[index], high[index] = 0.0 if name == "dead_s" else 1e-2 * self.step_s, 0.3 * span_s
        temperatures = slice(len(self.names), None)
        low[temperatures], high[temperatures] = start[temperatures] - 60.0, start[temperatures] + 60.0
        return low, high

    def _scales(self) -> Floats:
        scales = [self.step_s if name in SECONDS else 0.3 for name in self.names]
        return np.array(scales + [1.0] * (self.starts + self.free_ambient))

    def _fit_of(self, vector: Floats, covariance: Floats, found: thermal_errors.Disturbances) -> ThermalFit:
        values = self.parameters(vector)
        predicted = simulate(self.record, **values)  # type: ignore[arg-type]
        numbers = {name: float(values[name]) for name in self.names}  # type: ignore[arg-type]
        # By the parameters themselves, which are partly logarithms: what each is by them.
        by = np.diag([1.0 if name in SECONDS else numbers[name] for name in self.names])
        count = len(self.names)
        inner = by @ covariance[:count, :count] @ by
        sigma = {name: math.sqrt(max(inner[index, index], 0.0)) for index, name in enumerate(self.names)}
        sums, correlation = _sum_errors(self.names, numbers, inner)
        sigma |= sums
        room = self.record.ambient_k
        if self.free_ambient:
            sigma["ambient_k"] = math.sqrt(covariance[self._place("ambient_k"), self._place("ambient_k")])
        residuals = predicted[self.good] - self.measured
        return ThermalFit(
            self.structure, numbers["capacity"], numbers["loss"],
            float(values["ambient_k"]) if room is None else float(np.mean(room)),  # type: ignore[arg-type]
            numbers.get("lag_s", 0.0), numbers["dead_s"], numbers.get("second_capacity", 0.0),
            numbers.get("joint", 0.0), sigma, correlation, math.sqrt(float(np.mean(residuals**2))),
            _lag_one(residuals), found, residuals.size, _information(residuals, vector.size), predicted,
        )  # fmt: skip


def _information(residuals: Floats, parameters: int) -> float:
    """Return the Bayesian information criterion of a plain fit, for as many readings as are independent."""
    variance = float(residuals @ residuals) / max(residuals.size - parameters, 1)
    lag_one = _lag_one(residuals)
    independent = max(residuals.size * (1.0 - lag_one) / (1.0 + lag_one), 2.0)
    return independent * math.log(max(variance, 1e-12)) + parameters * math.log(independent)


def _sum_errors(
    names: list[str], numbers: dict[str, float], covariance: Floats
) -> tuple[dict[str, float], float]:
    """Return sigma of C + C2, of lag and dead time together, and of the time constant; C + C2 with G."""
    total, late, loss = (
        np.array([float(name in parts) for name in names])
        for parts in (("capacity", "second_capacity"), SECONDS, ("loss",))
    )
    capacity = numbers["capacity"] + numbers.get("second_capacity", 0.0)
    constant = total / numbers["loss"] - loss * capacity / numbers["loss"] ** 2
    sigma = {
        name: math.sqrt(max(float(one @ covariance @ one), 0.0))
        for name, one in (("total_capacity", total), ("late_s", late), ("time_constant_s", constant))
    }
    scale = sigma["total_capacity"] * math.sqrt(max(float(loss @ covariance @ loss), 0.0))
    return sigma, float(total @ covariance @ loss) / scale if scale > 0.0 else 0.0


def _inverse(normal: Floats) -> Floats:
    """Return the inverse of normal equations, whatever the units of their parameters."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
    result: Floats = np.linalg.pinv(normal * np.outer(scale, scale), rcond=1e-12) * np.outer(scale, scale)
    return result


def _lag_one(residuals: Floats) -> float:
    centred = residuals - residuals.mean()
    total = float(centred @ centred)
    if total == 0.0:
        return 0.0
    return min(max(float(centred[1:] @ centred[:-1]) / total, 0.0), CORRELATED)
