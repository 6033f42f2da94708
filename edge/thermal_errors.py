"""What moved a reading away from the plant that was fitted, and what that means for the fit's errors.

A fit that takes residuals as independent claims far too much: a reading that is stamped late is wrong where
the temperature runs; a power that came late, a room that warms or a body that the model lacks stays in the
heat for minutes. So the residuals are taken as a sum of disturbances, each with a size found from them::

    V = noise^2 1 + late^2 diag(slope^2)                      reading by reading
      + power_late^2 sum_k dP_k^2 h_k h_k'                    the power switches late
      + heat^2 H H' + drift^2 H min(t, t') H'                 heat nobody accounts for: white, or walking
      + block^2 [same block] + wander^2 exp(-|t - t'| / T)    errors of readings, or of the model, that last

h_k is what the reading shows of one joule at time t_k, H the same of every moment, T a fortieth of the
record.

The sizes maximise the restricted likelihood of block means of the residuals, and of the scatter inside the
blocks for the first two. How far a room walks shows in a few of its turns only, so its size is itself known
badly: where there is such a walk, the mean of its square over all sizes that the likelihood allows stands in
its place, every size taken as likely beforehand. The covariance of a fit by least squares is then
(J'J)^-1 J'V J (J'J)^-1. The fit itself stays a plain one: with weights from V it would follow the wandering
heat instead of the plant, which could not run free any more.

Source: H. D. Patterson, R. Thompson, Biometrika 58 (1971) 545 (restricted likelihood); H. White, Econometrica
48 (1980) 817 (covariance of a fit whose weights are not those of the disturbances); A. Gelman, Bayesian
Analysis 1 (2006) 515 (every size of a standard deviation likely beforehand).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from edge.thermal_kernels import invert

Floats = NDArray[np.float64]

BLOCKS = 120  # at most: the likelihood costs their third power
LASTS = 40.0  # an error that lasts: for this part of the record
DRIFT = 4  # which of them
ROOM_WALKS = 0.05  # K s^-0.5, at most: 3 K in an hour, as the room of a laboratory
LEAST_SHARE, MOST_SHARE = 1e-7, 1e2  # of the residuals' variance, for each disturbance

# Which of the disturbances there are, by their order: all, or one that lasts.
EXPLANATIONS = ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2), (0, 1, 3), (0, 1, 4), (0, 1, 5), (0, 1, 6))
STANDS = tuple(one for one in EXPLANATIONS[0] if one != DRIFT)  # all there is in a room that does not walk
LIKELY = 3.0  # less in the logarithm of the likelihood: an explanation still counts
SHOWS = 0.5  # more of it than one more size gains by chance: the residuals show a walk
SIZES = np.linspace(-5.0, 5.0, 31)  # of a walk beside the most likely one: logarithm of the variance


@dataclass(frozen=True)
class Disturbances:
    """One standard deviation of each."""

    noise_k: float  # of one reading
    late_s: float  # of a reading's time
    power_late_s: float  # of the time at which a power begins
    heat_w_root_s: float  # W s^0.5: over t seconds a heat of heat / sqrt(t) W is not accounted for
    drift_w_per_root_s: float  # of a heat that walks, as that to a room whose temperature does
    block_k: float  # of what lasts for a block
    wander_k: float  # of what lasts


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
    loss: float

    @property
    def slope_k_per_s(self) -> Floats:
        """How fast the temperature runs at every reading."""
        return np.asarray(np.gradient(self.predicted_k, self.time_s), np.float64)


class Blocks:
    """A course in blocks of neighbouring readings, and what a disturbance of size 1 does to their means."""

    def __init__(self, course: Course) -> None:
        count = course.time_s.size
        size = math.ceil(count / BLOCKS)
        self.edges = np.unique(np.minimum(np.arange(0, count + size, size), count))
        self.size = np.diff(self.edges).astype(np.float64)
        self.course = course
        self.residual = self.means(course.residual_k)
        self.jacobian = self.means(course.jacobian)
        self.slope2 = self.means(course.slope_k_per_s**2)
        self.inside = self.means(course.residual_k**2) * self.size - self.size * self.residual**2
        self.absorbed = np.asarray(np.linalg.svd(self.jacobian, full_matrices=False)[0], np.float64)
        self.lasting = self._lasting()

    def means(self, values: Floats) -> Floats:
        """Return the mean of every block, along the first axis."""
        size = self.size.reshape(-1, *[1] * (values.ndim - 1))
        result: Floats = np.add.reduceat(values, self.edges[:-1], axis=0) / size
        return result

    def visible(self, shape: Floats) -> float:
        """Return the variance that a disturbance leaves in the residuals of a fit, mean of the blocks."""
        held = self.absorbed.T @ shape  # what the parameters make up for is not seen
        return float(np.trace(shape) - np.trace(held @ self.absorbed)) / self.residual.size

    def shapes(self) -> list[Floats]:
        """Return the covariance of the block means for every disturbance of size 1."""
        return [np.diag(1.0 / self.size), np.diag(self.slope2 / self.size), *self.lasting]

    def _lasting(self) -> list[Floats]:
        course = self.course
        at_s = self.means(course.time_s)
        apart_s = at_s[:, None] - at_s[None, :]
        seen = course.response(apart_s)
        moved = np.zeros(at_s.size)  # W^2, of all switchings that are nearest to a block
        nearest = np.clip(np.searchsorted(at_s, course.switched_s), 0, at_s.size - 1)
        np.add.at(moved, nearest, course.switched_w**2)
        lasts_s = (course.time_s[-1] - course.time_s[0]) / LASTS
        since_s = at_s - course.time_s[0]
        walked = seen * np.gradient(at_s)  # what a heat at each block shows in all
        return [
            (seen * moved) @ seen.T, walked @ seen.T,
            walked @ np.minimum(since_s[:, None], since_s[None, :]) @ walked.T,
            np.eye(at_s.size), np.exp(-np.abs(apart_s) / lasts_s),
        ]  # fmt: skip


def disturbances(blocks: Blocks, curvature: Floats) -> tuple[Disturbances, Floats]:
    """Return what may have disturbed the residuals, and the covariance of the parameters that follows.

    Often a record does not tell an error that lasts from a heat that nobody accounts for, which means far
    more for loss and room. Of the explanations that are ``LIKELY`` beside the best, the widest counts.

    Args:
        blocks: the course of the fit.
        curvature: (J'J)^-1 of the fit.
    """
    found = [_most_likely(blocks, allowed) for allowed in EXPLANATIONS]
    least = min(unlikely for _, unlikely in found)
    stands = min(
        _most_likely(blocks, STANDS)[1],
        *(unlikely for (_, unlikely), one in zip(found, EXPLANATIONS, strict=True) if DRIFT not in one),
    )
    shows = least < stands - SHOWS
    best: tuple[Disturbances, Floats] | None = None
    width = -math.inf
    for (most_likely, unlikely), allowed in zip(found, EXPLANATIONS, strict=True):
        if unlikely > least + LIKELY:
            continue
        sizes = _walk_expected(blocks, most_likely, allowed) if shows else most_likely
        one = Disturbances(*(math.sqrt(size) for size in sizes))
        covariance = curvature @ disturbed(blocks, one) @ curvature
        wide = float(np.sum(np.diag(covariance) / np.diag(curvature)))
        if wide > width:
            best, width = (one, covariance), wide
    if best is None:  # pragma: no cover - the most likely is always likely
        raise ValueError("no errors can be given")
    return best


def disturbed(blocks: Blocks, of: Disturbances) -> Floats:
    """Return J'VJ, shape (parameters, parameters): what the disturbances do to the normal equations."""
    jacobian = blocks.course.jacobian
    each = of.noise_k**2 + of.late_s**2 * blocks.course.slope_k_per_s**2
    sums = blocks.jacobian * blocks.size[:, None]
    sizes = (of.power_late_s**2, of.heat_w_root_s**2, of.drift_w_per_root_s**2, of.block_k**2, of.wander_k**2)
    result: Floats = jacobian.T @ (each[:, None] * jacobian)
    for size, shape in zip(sizes, blocks.lasting, strict=True):
        result = result + size * (sums.T @ shape @ sums)
    return result


def _most_likely(blocks: Blocks, allowed: tuple[int, ...]) -> tuple[Floats, float]:
    """Return the size (variance) of every disturbance, and minus the logarithm of the likelihood.

    0 for one that is not allowed, or cannot show.
    """
    shapes, residual = blocks.shapes(), blocks.residual
    variance = float(residual @ residual) / residual.size
    traces = np.array([blocks.visible(shape) for shape in shapes])
    known = np.array([one for one in allowed if traces[one] > 0.0], np.intp)
    if variance <= 0.0 or not known.size:
        return np.zeros(len(shapes)), 0.0
    unit = np.zeros(len(shapes))
    unit[known] = variance / traces[known]
    most = np.full(len(shapes), MOST_SHARE)
    most[DRIFT] = min(MOST_SHARE, (ROOM_WALKS * blocks.course.loss) ** 2 / max(unit[DRIFT], 1e-300))
    high = [math.log(max(float(most[one]), LEAST_SHARE)) for one in known]
    start: Floats = np.minimum(np.full(known.size, -math.log(known.size)), high)
    if float(blocks.inside.sum()) > 0.0:  # noise begins with what the readings inside the blocks scatter
        within = float(blocks.inside.sum() / (blocks.size - 1.0).sum())
        start[0] = math.log(min(max(within / unit[0], LEAST_SHARE), MOST_SHARE))

    def unlikely(logs: Floats) -> tuple[float, Floats]:
        return _unlikely(logs, known, unit, blocks, shapes)

    found = minimize(
        unlikely, start, jac=True, method="L-BFGS-B",
        bounds=[(math.log(LEAST_SHARE), one) for one in high], options={"maxiter": 60, "ftol": 1e-7},
    )  # fmt: skip
    result = np.zeros(len(shapes))
    result[known] = np.exp(found.x) * unit[known]
    return result, float(found.fun)


def _walk_expected(blocks: Blocks, sizes: Floats, allowed: tuple[int, ...]) -> Floats:
    """Return the sizes with the mean of the walk's variance in place of the most likely one."""
    if DRIFT not in allowed or sizes[DRIFT] <= 0.0:
        return sizes
    known = np.array([one for one in allowed if sizes[one] > 0.0], np.intp)
    most = math.log((ROOM_WALKS * blocks.course.loss) ** 2 / sizes[DRIFT])
    tried = SIZES[: np.searchsorted(SIZES, max(most, 0.0), side="right")]
    shapes, place = blocks.shapes(), known == DRIFT
    unit = np.where(sizes > 0.0, sizes, 1.0)
    unlikely = np.array([_unlikely(place * one, known, unit, blocks, shapes)[0] for one in tried])
    weight = np.exp(unlikely.min() - unlikely + 0.5 * tried)  # as many sizes in each step as it is wide
    result = sizes.copy()
    result[DRIFT] *= float(weight @ np.exp(tried) / weight.sum())
    return result


def _unlikely(
    logs: Floats, known: NDArray[np.intp], unit: Floats, blocks: Blocks, shapes: list[Floats]
) -> tuple[float, Floats]:
    """Return minus the logarithm of the likelihood, and its slopes by the logarithms of the shares."""
    sizes = np.zeros(len(shapes))
    sizes[known] = np.exp(logs) * unit[known]
    floor = 1e-10 * float(np.mean(blocks.residual**2)) * np.eye(blocks.residual.size)
    total = floor + sum(sizes[one] * shapes[one] for one in known)
    inverse = np.ascontiguousarray(total)
    size = float(invert(inverse))
    if not math.isfinite(size):  # pragma: no cover - the floor keeps it regular
        return 1e12, np.zeros(logs.size)
    weighed = inverse @ blocks.jacobian
    curvature = blocks.jacobian.T @ weighed
    rest = inverse - weighed @ np.linalg.pinv(curvature) @ weighed.T
    pulled = rest @ blocks.residual
    value = size + float(np.linalg.slogdet(curvature)[1])
    value += float(blocks.residual @ pulled)
    slopes = np.array([
        sizes[one] * (float(np.sum(rest * shapes[one])) - float(pulled @ shapes[one] @ pulled))
        for one in known
    ])  # fmt: skip
    each = sizes[0] + sizes[1] * blocks.slope2 + 1e-30  # inside a block: noise and lateness alone
    free = blocks.size - 1.0
    value += float(np.sum(free * np.log(each) + blocks.inside / each))
    steep = free / each - blocks.inside / each**2
    for place, one in enumerate(known):
        if one < 2:
            slopes[place] += sizes[one] * float(steep @ (blocks.slope2 if one else np.ones(free.size)))
    return 0.5 * value, 0.5 * slopes
