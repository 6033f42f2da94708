"""Finds the layers in maps of the normalising elements and fits the interface: angle, place, blur, errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from edge.geometry import Floats, Grid, Pose, profile_bins

SEARCH_DEG = np.arange(-12.0, 12.1, 2.0)  # mounting errors beyond this are not levelled but remounted
WIDEST_UM = 40.0
UNRESOLVED = 0.27  # blur, in row spacings, below which it says little about the place between rows
NARROWEST = 0.15  # blur, in row spacings: a finer one falls between the rows
STRIPS = 8  # along the interface, to see whether it is straight
ROWS_PER_SIDE = 2  # scanned on either side of an interface that is to be fitted
REACH_UM = 60.0  # pixels farther from the interface do not take part in its fit
SMALLEST_CONTRAST = 1.5  # of a normaliser across a boundary
LAYER_END_RATIO = 0.3  # the outermost layer ends where its normaliser falls below this share


@dataclass(frozen=True)
class ElementMap:
    """Counts of one element's window per pixel and what they are proportional to, both of shape (pixels,)."""

    element: str
    counts: Floats
    exposure: Floats  # live beam charge, or time; any unit


@dataclass(frozen=True)
class Interface:
    """The fitted interface between two layers."""

    pose: Pose
    width_um: float  # one sigma of the blurred edge
    chi2_per_dof: float
    counts: int
    waviness_um: float = 0.0  # rms of the interface about a straight line, beyond counting statistics

    @property
    def resolved_um(self) -> float:
        """Half-width that a layer must keep from the interface to be free of it: 2.5 sigma of the blur."""
        return 2.5 * self.width_um


@dataclass(frozen=True)
class Found:
    """Where the layers lie along the normal, before the fine fit."""

    first_layer: int
    boundaries_um: tuple[float, ...]  # distances from the pivot's zero
    angle_rad: float


def find_layers(
    grid: Grid, maps: Sequence[ElementMap], normalisers: Sequence[str | None], needed: tuple[int, int]
) -> Found:
    """Return the boundaries between layers that the raster shows, in order along +y.

    For each angle of a coarse search the maps are binned along the normal and cut into as many pieces of
    constant rate as there are layers, by the Poisson likelihood (dynamic programming over all cuts). All
    layers are tried first, then fewer: every boundary must show the normalisers rise and fall as they should.

    Args:
        grid: the raster.
        maps: normaliser maps.
        normalisers: per layer, its element or None.
        needed: indices of the two layers whose interface is levelled.

    Raises:
        ValueError: if no such sequence of layers is seen.
    """
    angles = np.radians(SEARCH_DEG)
    profiles = [_profiles(grid, maps, float(angle)) for angle in angles]
    layers = len(normalisers)
    spans = sorted(
        ((a, b) for a in range(needed[0] + 1) for b in range(needed[1], layers)),
        key=lambda span: span[0] - span[1],
    )
    for first, last in spans:
        cuts = [_best_cuts(counts, exposure, last - first + 1) for counts, exposure, _ in profiles]
        best = int(np.argmin([cost for cost, _ in cuts]))
        counts, exposure, edges = profiles[best]
        places = cuts[best][1]
        if _in_order(counts, exposure, places, maps, normalisers[first : last + 1]):
            return Found(first, tuple(float(edges[i]) for i in places), float(angles[best]))
    wanted = ", ".join(element or "none" for element in normalisers)
    raise ValueError(f"the layers (by normaliser: {wanted}) are not seen in this order along +y")


def fit_interface(
    grid: Grid,
    maps: Sequence[ElementMap],
    start: Pose,
    reach_um: tuple[float, float] = (REACH_UM, REACH_UM),
    *,
    width_um: float | None = None,
    known_blur_um: float = 0.0,
    fixed_angle: bool = False,
    rounds: int = 40,
) -> Interface:
    """Fit angle and position of an interface to the maps, by Poisson likelihood on single pixels.

    rate_e(d) = a_e + (b_e - a_e) Phi(d / w), with d the distance of the point where the beam dwells and w the
    blur (spot, roughness, oblique layers); each element has its own levels a, b. Fisher scoring with weights
    from the model; errors from the information matrix, enlarged by sqrt(chi2/dof) when layers are grainy.
    Rows farther apart than the blur leave the place between them open (``_spacing_error_um``), and an
    interface that is not straight has no exact angle (``waviness_um``): both are added.

    Args:
        grid: the raster.
        maps: one or more elements that change across the interface.
        start: pose to begin with; pixels farther than ``reach_um`` from it are left out.
        reach_um: below and above.
        width_um: blur to begin with; default one pixel.
        known_blur_um: blur known from elsewhere, for the error of an edge between two rows.
        fixed_angle: fit the position only.
        rounds: at most this many steps.

    Returns:
        The interface.

    Raises:
        ValueError: if the fit has too few counts or does not converge.

    Source: McCullagh and Nelder, Generalized Linear Models, 2nd ed., section 2.5 (scoring, dispersion).
    """
    x, y = grid.positions_um()
    near = start.distance_um(x, y)
    use = (near >= -reach_um[0]) & (near <= reach_um[1])
    use &= np.all([m.exposure > 0 for m in maps], axis=0)
    counts = np.stack([m.counts[use] for m in maps])
    exposure = np.stack([m.exposure[use] for m in maps])
    if use.sum() < 8 or counts.sum() < 100:
        raise ValueError(
            f"interface: {int(counts.sum())} counts in {int(use.sum())} pixels are too few to fit"
        )
    sides = int(np.sum(near[use] < 0.0)), int(np.sum(near[use] > 0.0))
    if min(sides) < ROWS_PER_SIDE * grid.nx:
        raise ValueError(f"interface: {sides[0]} pixels with beam below it and {sides[1]} above are too few")
    model = _EdgeModel(x[use] - start.pivot_x_um, y[use], grid, counts, exposure, fixed_angle)
    width = width_um or grid.pitch_y_um
    parameters, chi2 = _in_stages(model, model.start(start, width, near[use]), rounds)
    at = parameters.copy()  # an edge sharper than the rows informs no better than one blurred by 0.3 rows
    at[2] = max(at[2], math.log(0.3 * grid.pitch_y_um))
    errors = np.sqrt(np.diag(model.covariance(at)) * max(chi2, 1.0))
    blur_um = math.exp(parameters[2])
    open_um = _spacing_error_um(grid, float(parameters[0]), max(blur_um, known_blur_um))
    wavy_um = model.waviness_um(at)
    pose = Pose(
        float(parameters[0]),
        float(parameters[1]),
        start.pivot_x_um,
        start.sigma_angle_rad
        if fixed_angle
        else math.hypot(
            float(errors[0]),
            2.0 * open_um / grid.width_um,
            math.sqrt(12.0 / STRIPS) * wavy_um / grid.width_um,
        ),
        math.hypot(float(errors[1]), open_um, wavy_um / math.sqrt(STRIPS)),
    )
    return Interface(pose, blur_um, chi2, int(counts.sum()), wavy_um)


def _in_stages(model: _EdgeModel, parameters: Floats, rounds: int) -> tuple[Floats, float]:
    """Fit first with a blur of one row, so that every row near the edge pulls, then with a free one."""
    model.free[2] = False
    parameters, _ = model.fit(parameters, rounds)
    model.free[2] = True
    parameters, chi2 = model.fit(parameters, rounds)
    if model.free[0] and parameters[2] < math.log(UNRESOLVED * model.grid.pitch_y_um):
        return _best_of_turns(model, parameters, rounds)
    return parameters, chi2


def _best_of_turns(model: _EdgeModel, parameters: Floats, rounds: int) -> tuple[Floats, float]:
    """Refit from neighbouring angles: an edge sharper than the rows makes a staircase with many optima."""
    fits = []
    for turn_deg in np.arange(-1.5, 1.6, 0.5):
        turned = parameters.copy()
        turned[0] += math.radians(float(turn_deg))
        fits.append(model.fit(turned, rounds // 4))
    return max(fits, key=lambda fit: model.likelihood(fit[0]))


def _spacing_error_um(grid: Grid, angle_rad: float, blur_um: float) -> float:
    """Return the error of a place between two rows that the beam did not visit, um.

    pitch / sqrt(6) for a sharp, level edge: truth and estimate are both anywhere between two rows. It
    vanishes when the blur spans the rows (a Gaussian in the blur beyond ``UNRESOLVED``) or when the tilt
    carries the edge across three rows. The same place, open at either side, is the error of the angle.
    """
    pitch = grid.pitch_y_um
    level = max(0.0, 1.0 - abs(grid.width_um * math.sin(angle_rad)) / (3.0 * pitch))
    beyond = max(blur_um / pitch - UNRESOLVED, 0.0) / 0.06
    return pitch / math.sqrt(6.0) * level * math.exp(-(beyond**2))


class _EdgeModel:
    """Poisson model of a blurred step; parameters are angle, position, ln blur, then a, b per element."""

    def __init__(
        self, x_um: Floats, y_um: Floats, grid: Grid, counts: Floats, exposure: Floats, fixed_angle: bool
    ) -> None:
        self.x, self.y, self.grid = x_um, y_um, grid
        self.counts, self.exposure = counts, exposure
        self.free = np.ones(3 + 2 * len(counts), dtype=bool)
        self.free[0] = not fixed_angle
        self.narrowest = math.log(NARROWEST * grid.pitch_y_um)

    def start(self, pose: Pose, width_um: float, distance_um: Floats) -> Floats:
        low, high = distance_um < -width_um, distance_um > width_um
        levels = []
        for n, q in zip(self.counts, self.exposure, strict=True):
            mean = n.sum() / q.sum()
            for side in (low, high):
                rate = n[side].sum() / q[side].sum() if side.any() else mean
                levels.append(max(rate, 1e-3 * mean, 1e-12))
        return np.array([pose.angle_rad, pose.position_um, math.log(width_um), *levels])

    def step(self, p: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the step, its derivative by distance and by ln w, on every pixel."""
        distance = self.y * math.cos(p[0]) - self.x * math.sin(p[0]) - p[1]
        u = distance / math.exp(p[2])
        density = np.exp(-0.5 * u**2) / math.sqrt(2.0 * math.pi)
        return ndtr(u), density / math.exp(p[2]), -u * density

    def rates(self, p: Floats) -> tuple[Floats, Floats]:
        """Return expected counts (elements, n) and their derivatives (parameters, elements, n)."""
        value, by_distance, by_width = self.step(p)
        low, high = p[3::2, None], p[4::2, None]
        expected = self.exposure * (low + (high - low) * value)
        derivative = np.zeros((p.size, *expected.shape))
        slope = self.exposure * (high - low)
        derivative[0] = slope * by_distance * (-self.y * math.sin(p[0]) - self.x * math.cos(p[0]))
        derivative[1] = -slope * by_distance
        derivative[2] = slope * by_width
        for element in range(len(self.counts)):
            derivative[3 + 2 * element, element] = self.exposure[element] * (1.0 - value)
            derivative[4 + 2 * element, element] = self.exposure[element] * value
        floor = 1e-9 * self.counts.sum() / self.counts.size
        return np.maximum(expected, floor), derivative

    def likelihood(self, p: Floats) -> float:
        expected, _ = self.rates(p)
        return float(np.sum(self.counts * np.log(expected) - expected))

    def information(self, p: Floats) -> tuple[NDArray[np.float64], Floats, Floats]:
        expected, derivative = self.rates(p)
        flat = derivative.reshape(p.size, -1)
        weighted = flat / expected.ravel()
        gradient = weighted @ (self.counts - expected).ravel()
        return weighted @ flat.T, gradient, expected

    def waviness_um(self, p: Floats) -> float:
        """Return the rms of the interface about the fitted line, from the score of strips along it.

        Strip s asks for a shift g_s / I_s with variance 1 / I_s. 0 where chi2 is within two of its sigma.
        """
        _, _, expected = self.information(p)
        derivative = self.rates(p)[1][1]
        score = np.sum(derivative / expected * (self.counts - expected), axis=0)
        weight = np.sum(derivative**2 / expected, axis=0)
        extent = float(np.ptp(self.x)) or 1.0
        strip = np.minimum(((self.x - self.x.min()) / extent * STRIPS).astype(np.intp), STRIPS - 1)
        total = np.bincount(strip, weight, minlength=STRIPS)
        if np.any(total <= 0.0):
            return 0.0
        shift = np.bincount(strip, score, minlength=STRIPS) / total
        freedom = STRIPS - 1 - int(self.free[0])
        chi2 = float(np.sum(shift**2 * total))
        if chi2 < freedom + 2.0 * math.sqrt(2.0 * freedom):
            return 0.0
        return math.sqrt(max(float(np.sum(shift**2 - 1.0 / total)) / freedom, 0.0))

    def covariance(self, p: Floats) -> Floats:
        """Return the covariance of all parameters; fixed ones have zero rows."""
        information = self.information(p)[0][np.ix_(self.free, self.free)]
        result = np.zeros((p.size, p.size))
        scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
        inner = np.linalg.pinv(information / np.outer(scale, scale), rcond=1e-10, hermitian=True)
        result[np.ix_(self.free, self.free)] = inner / np.outer(scale, scale)
        return result

    def fit(self, p: Floats, rounds: int) -> tuple[Floats, float]:
        damping, best = 1e-3, self.likelihood(p)
        for _ in range(rounds):
            information, gradient, _ = self.information(p)
            matrix = information[np.ix_(self.free, self.free)]
            matrix = matrix + damping * np.diag(np.diag(matrix) + 1e-300)
            step = np.zeros(p.size)
            step[self.free] = np.linalg.lstsq(matrix, gradient[self.free], rcond=None)[0]
            trial = p + step
            trial[2] = np.clip(trial[2], self.narrowest, math.log(WIDEST_UM))
            trial[3:] = np.maximum(trial[3:], 1e-12)
            value = self.likelihood(trial) if abs(trial[0]) < 0.5 else -math.inf
            if value >= best - 1e-9:
                done = value - best < 1e-6 and abs(step[1]) < 1e-4
                p, best, damping = trial, value, max(damping / 5.0, 1e-9)
                if done:
                    break
            else:
                damping *= 10.0
                if damping > 1e9:
                    break
        expected, _ = self.rates(p)
        chi2 = float(np.sum((self.counts - expected) ** 2 / expected))
        return p, chi2 / max(expected.size - int(self.free.sum()), 1)


def layer_end_um(
    grid: Grid, normaliser: ElementMap, pose: Pose, inner_um: float, *, upwards: bool
) -> float | None:
    """Return where the outermost layer ends inside the raster, in um from the interface, or None.

    The profile of its normaliser beyond ``inner_um`` is cut in two; it ends there when the outer part has
    less than ``LAYER_END_RATIO`` of the inner rate.
    """
    bins = profile_bins(grid, pose)
    centres = bins.centres_um if upwards else -bins.centres_um
    beyond = centres > (inner_um if upwards else -inner_um)
    order = np.argsort(centres[beyond])
    counts = bins.sum(normaliser.counts)[beyond][order]
    exposure = bins.sum(normaliser.exposure)[beyond][order]
    edges = (bins.edges_um[1:] if upwards else -bins.edges_um[:-1])[beyond][order]
    if counts.size < 6 or counts.sum() < 50:
        return None
    _, cuts = _best_cuts(counts[None, :], exposure[None, :], 2)
    cut = cuts[0]
    inner = counts[:cut].sum() / max(exposure[:cut].sum(), 1e-300)
    outer = counts[cut:].sum() / max(exposure[cut:].sum(), 1e-300)
    if outer > LAYER_END_RATIO * inner:
        return None
    edge = float(edges[cut - 1])
    return edge if upwards else -edge


def _profiles(grid: Grid, maps: Sequence[ElementMap], angle_rad: float) -> tuple[Floats, Floats, Floats]:
    """Return counts and exposure per element along the normal, and the lower edge of each bin."""
    bins = profile_bins(grid, Pose(angle_rad, 0.0, grid.centre_x_um))
    counts = np.stack([bins.sum(m.counts) for m in maps])
    exposure = np.stack([bins.sum(m.exposure) for m in maps])
    keep = exposure.min(axis=0) > 0
    return counts[:, keep], exposure[:, keep], bins.edges_um[:-1][keep]


def _best_cuts(counts: Floats, exposure: Floats, pieces: int, shortest: int = 2) -> tuple[float, list[int]]:
    """Cut a profile into pieces of constant Poisson rate; return the cost and the first bin of each piece."""
    size = counts.shape[1]
    n = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)], axis=1)
    q = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(exposure, axis=1)], axis=1)
    total = n[:, None, :] - n[:, :, None]  # from bin i (rows) to bin j (columns)
    spent = q[:, None, :] - q[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = -np.where(total > 0, total * np.log(total / spent), 0.0).sum(axis=0)
    start, stop = np.indices(cost.shape)
    cost[stop - start < shortest] = np.inf
    best, back = cost[0], []
    for _ in range(pieces - 1):
        choices = best[:, None] + cost
        back.append(np.argmin(choices, axis=0))
        best = np.min(choices, axis=0)
    cuts: list[int] = []
    end = size
    for choice in reversed(back):
        end = int(choice[end])
        cuts.insert(0, end)
    return float(best[size]), cuts


def _in_order(
    counts: Floats,
    exposure: Floats,
    cuts: Sequence[int],
    maps: Sequence[ElementMap],
    normalisers: Sequence[str | None],
) -> bool:
    """Return whether every normaliser is stronger in its own layer than in the neighbours, significantly."""
    borders = [0, *cuts, counts.shape[1]]
    index = {m.element: i for i, m in enumerate(maps)}
    for layer, element in enumerate(normalisers):
        if element is None:
            continue
        row = index[element]
        n, q = [], []
        for low, high in itertools.pairwise(borders):
            n.append(float(counts[row, low:high].sum()))
            q.append(max(float(exposure[row, low:high].sum()), 1e-300))
        own = n[layer] / q[layer]
        for other in (layer - 1, layer + 1):
            if not 0 <= other < len(normalisers):
                continue
            rate = n[other] / q[other]
            sigma = math.sqrt(n[layer] / q[layer] ** 2 + max(n[other], 1.0) / q[other] ** 2)
            if own < SMALLEST_CONTRAST * rate or own - rate < 5.0 * sigma:
                return False
    return True
