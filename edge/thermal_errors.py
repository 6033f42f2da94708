"""What moved a reading away from the plant that was fitted, and what that means for the fit's errors.

A fit that assumes residuals independent of each other claims far too much: a reading that is stamped late is
wrong where the temperature runs, a power that came late or a draught stays in the heat for minutes. So the
residuals are taken as a sum of four disturbances, each with a size that is found from them::

    V = noise^2 1 + late^2 diag(slope^2) + power_late^2 sum_k dP_k^2 h_k h_k' + heat^2 sum_i dt_i h_i h_i'

h_k is what the reading shows of one joule at time t_k. The first two differ from reading to reading (sensor,
rounding; time stamps), the others follow the plant (switching of the power; heat that nobody accounts for,
white: the temperature it makes wanders, and takes the error of the model in as well).

The four sizes maximise the restricted likelihood of block means of the residuals. The covariance of a fit by
least squares is then (J'J)^-1 J'V J (J'J)^-1. The fit itself stays a plain one: with weights from V it would
follow the wandering heat instead of the plant, which could not run free any more.

Source: H. D. Patterson, R. Thompson, Biometrika 58 (1971) 545 (restricted likelihood); H. White, Econometrica
48 (1980) 817 (covariance of a fit whose weights are not those of the disturbances).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

Floats = NDArray[np.float64]

BLOCKS = 160  # at most: the likelihood costs their third power
LEAST_SHARE, MOST_SHARE = 1e-7, 1e2  # of the residuals' variance, for each disturbance


@dataclass(frozen=True)
class Disturbances:
    """One standard deviation of each."""

    noise_k: float  # of one reading
    late_s: float  # of a reading's time
    power_late_s: float  # of the time at which a power begins
    heat_w_root_s: float  # W s^0.5: over t seconds a heat of heat / sqrt(t) W is not accounted for


@dataclass(frozen=True)
class Course:
    """What the errors of one fit are made of: one value per reading, at the solution.

    ``response`` gives the K that a reading shows a number of seconds after one joule; 0 before.
    """

    time_s: Floats
    residual_k: Floats
    jacobian: Floats  # (readings, parameters)
    predicted_k: Floats
    switched_s: Floats  # when the power changed
    switched_w: Floats  # by how much
    response: Callable[[Floats], Floats]

    @property
    def slope_k_per_s(self) -> Floats:
        """How fast the temperature runs at every reading."""
        return np.asarray(np.gradient(self.predicted_k, self.time_s), np.float64)


def disturbances(course: Course) -> Disturbances:
    """Return the sizes that make the residuals of a fit most likely."""
    edges = _edges(course.time_s.size)
    shapes = _shapes(course, edges)
    found = _most_likely(_means(course.residual_k, edges), _means(course.jacobian, edges), shapes)
    return Disturbances(*(math.sqrt(size) for size in found))


def covariance(course: Course, of: Disturbances) -> Floats:
    """Return the covariance of the parameters of a plain fit, shape (parameters, parameters)."""
    edges = _edges(course.time_s.size)
    sizes = (of.noise_k**2, of.late_s**2, of.power_late_s**2, of.heat_w_root_s**2)
    disturbed = sum(size * shape for size, shape in zip(sizes, _shapes(course, edges), strict=True))
    jacobian = _means(course.jacobian, edges) * np.diff(edges)[:, None]
    gain = np.linalg.pinv(course.jacobian.T @ course.jacobian) @ jacobian.T
    result: Floats = np.asarray(gain @ disturbed @ gain.T, np.float64)
    return result


def _edges(count: int) -> NDArray[np.intp]:
    """Return the bounds of blocks of equal length; the last may be shorter."""
    size = math.ceil(count / BLOCKS)
    return np.unique(np.minimum(np.arange(0, count + size, size), count))


def _means(values: Floats, edges: NDArray[np.intp]) -> Floats:
    size = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    result: Floats = np.add.reduceat(values, edges[:-1], axis=0) / size
    return result


def _shapes(course: Course, edges: NDArray[np.intp]) -> list[Floats]:
    """Return the covariance of block means for a disturbance of size 1, of each of the four."""
    size = np.diff(edges).astype(np.float64)
    at_s = _means(course.time_s, edges)
    slope = np.add.reduceat(course.slope_k_per_s**2, edges[:-1]) / size**2
    seen = course.response(at_s[:, None] - at_s[None, :])
    switched = course.response(at_s[:, None] - course.switched_s[None, :]) * course.switched_w
    walk = (seen * np.gradient(at_s)) @ seen.T
    return [np.diag(1.0 / size), np.diag(slope), switched @ switched.T, walk]


def _most_likely(residual: Floats, jacobian: Floats, shapes: Sequence[Floats]) -> Floats:
    """Return the size (variance) of each disturbance by restricted likelihood; 0 for one that cannot show."""
    variance = float(residual @ residual) / residual.size
    traces = np.array([float(np.trace(shape)) / residual.size for shape in shapes])
    known = np.flatnonzero(traces > 0.0)
    if variance <= 0.0 or not known.size:
        return np.zeros(len(shapes))
    unit = variance / traces[known]
    scaled = [size * shapes[int(index)] for size, index in zip(unit, known, strict=True)]
    floor = 1e-10 * variance * np.eye(residual.size)

    def unlikely(logs: Floats) -> tuple[float, Floats]:
        shares = np.exp(logs)
        total = floor + sum(share * shape for share, shape in zip(shares, scaled, strict=True))
        try:
            factor = cho_factor(total, lower=True, check_finite=False)
        except LinAlgError:  # pragma: no cover - the floor keeps it regular
            return 1e12, np.zeros(logs.size)
        inverse = cho_solve(factor, np.eye(residual.size), check_finite=False)
        weighed = inverse @ jacobian
        curvature = jacobian.T @ weighed
        rest = inverse - weighed @ np.linalg.pinv(curvature) @ weighed.T
        pulled = rest @ residual
        _, size = np.linalg.slogdet(curvature)
        value = 2.0 * float(np.log(np.diag(factor[0])).sum()) + float(size) + float(residual @ pulled)
        slopes = [
            share * (float(np.sum(rest * shape)) - float(pulled @ shape @ pulled))
            for share, shape in zip(shares, scaled, strict=True)
        ]
        return 0.5 * value, 0.5 * np.array(slopes)

    bounds = [(math.log(LEAST_SHARE), math.log(MOST_SHARE))] * known.size
    start = np.full(known.size, -math.log(known.size))
    found = minimize(unlikely, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    result = np.zeros(len(shapes))
    result[known] = np.exp(found.x) * unit
    return result
