"""Windows, S and Compton profiles from energy spectra, with the variances that split bins really have.

A window edge cuts an energy bin. Its content n is split by the cut fraction f; f n has variance f^2 n, not
f n, and the two parts are correlated. Core and wings of S share their edge bins, so their covariance enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.stats import beta

from edge.compton_frames import EnergyBins
from edge.compton_physics import momentum_au
from edge.machine import prefetch

Floats = NDArray[np.float64]
AHEAD = (
    4  # pixels from the one that is summed to the one that is fetched; rows lie too far apart to be guessed
)
CORE, WINGS, VAR_CORE, VAR_WINGS, COVARIANCE = range(5)


@njit("void(i8[:,::1], f8[:,::1], f8[:,::1])", cache=True, nogil=True, boundscheck=False)
def window_sums(spectra, edges, sums):  # type: ignore[no-untyped-def]
    """Sum core and wings per pixel in place.

    A bin k cut at fraction f has below the cut f n_k - g (n_k+1 - n_k-1), g = f (1 - f) / 4: a density that
    is linear in the bin, with the slope of its neighbours. (Spread evenly, S of a typical profile comes out
    0.2 % low.) All weights are constants, so sum(w n) has the variance sum(w^2 n) and two sums the covariance
    sum(w v n). Windows narrower than three bins, or at the ends of the spectrum, take g = 0.

    Args:
        spectra: counts, int64, shape (pixels, bins).
        edges: four ascending window limits per pixel in units of bins, float64, shape (pixels, 4); outside of
            [0, bins] or not finite gives NaN.
        sums: float64, shape (pixels, 5): core, wings, their variances, their covariance.
    """
    bins = spectra.shape[1]
    for p in range(spectra.shape[0]):
        a, b, c, d = edges[p, 0], edges[p, 1], edges[p, 2], edges[p, 3]
        if not (a >= 0.0 and d <= bins and a < b and b < c and c < d):
            for k in range(5):
                sums[p, k] = np.nan
            continue
        core, wings, core2, wings2, shared = 0.0, 0.0, 0.0, 0.0, 0.0
        ka, kb, kc, kd = np.int64(a), np.int64(b), np.int64(c), np.int64(d)
        for k in range(ka - 1, kd + 2, 8):  # much the same window: eight bins are a cache line
            prefetch(spectra, np.uint64((p + AHEAD) * bins + k))
        apart = min(kb - ka, kc - kb, kd - kc) >= 3 and ka >= 1 and kd + 1 < bins
        reach = 1 if apart else 0
        outer, inner = 0, 0
        for k in range(ka + 1 + reach, kb - reach):
            outer += spectra[p, k]
        for k in range(kc + 1 + reach, kd - reach):
            outer += spectra[p, k]
        for k in range(kb + 1 + reach, kc - reach):
            inner += spectra[p, k]
        core = core2 = np.float64(inner)
        wings = wings2 = np.float64(outer)
        if apart:
            for edge in range(4):
                k = int((ka, kb, kc, kd)[edge])
                f = edges[p, edge] - k
                g = f * (1.0 - f) / 4.0
                for step in range(-1, 2):
                    n = np.float64(spectra[p, k + step])
                    below = (1.0 + g, f, -g)[step + 1]
                    above = 1.0 - below
                    in_core = above if edge == 1 else (below if edge == 2 else 0.0)
                    in_wings = below if (edge == 1 or edge == 3) else above
                    core += in_core * n
                    wings += in_wings * n
                    core2 += in_core * in_core * n
                    wings2 += in_wings * in_wings * n
                    shared += in_core * in_wings * n
        else:
            last = -1
            for edge in range(4):
                k = int((ka, kb, kc, kd)[edge])
                if k == last or k >= bins:
                    continue
                last = k
                n = np.float64(spectra[p, k])
                low, high = np.float64(k), np.float64(k + 1)
                in_core = max(min(high, c) - max(low, b), 0.0)
                in_wings = max(min(high, b) - max(low, a), 0.0) + max(min(high, d) - max(low, c), 0.0)
                core += in_core * n
                wings += in_wings * n
                core2 += in_core * in_core * n
                wings2 += in_wings * in_wings * n
                shared += in_core * in_wings * n
        sums[p, 0], sums[p, 1], sums[p, 2], sums[p, 3], sums[p, 4] = core, wings, core2, wings2, shared


@njit("void(f8[:,::1], f8[::1], f8[::1])", cache=True, nogil=True, boundscheck=False)
def ratios(sums, s, sigma):  # type: ignore[no-untyped-def]
    """Write S = core / wings and its error per pixel; NaN without core or wings.

    sigma^2 = S^2 [var(C)/C^2 + var(W)/W^2 - 2 cov(C,W)/(C W)].
    """
    for p in range(sums.shape[0]):
        core, wings = sums[p, 0], sums[p, 1]
        if core > 0.0 and wings > 0.0:
            value = core / wings
            part = (
                sums[p, 2] / (core * core) + sums[p, 3] / (wings * wings) - 2.0 * sums[p, 4] / (core * wings)
            )
            s[p] = value
            sigma[p] = value * np.sqrt(max(part, 0.0))
        else:
            s[p] = np.nan
            sigma[p] = np.nan


@njit(
    "void(i8[:,::1], f8[:,::1], f8, f8, f8[::1], f8[::1], f8[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def rebin(spectra, momenta, low, width, sums, variances, covariances):  # type: ignore[no-untyped-def]
    """Add spectra to a common grid by overlap; ``momenta`` are the bin edges per pixel (pixels, bins + 1).

    variances gets f^2 n, covariances[i] the part shared by grid bins i and i + 1 (a bin is never wider than
    one of the grid, so no other pairs share).
    """
    cells = sums.size
    for p in range(spectra.shape[0]):
        for k in range(spectra.shape[1]):
            n = np.float64(spectra[p, k])
            if n == 0.0:
                continue
            a, b = (momenta[p, k] - low) / width, (momenta[p, k + 1] - low) / width
            if not (a >= 0.0 and b < cells):
                continue
            i = np.int64(a)
            share = min((i + 1 - a) / (b - a), 1.0)
            sums[i] += share * n
            variances[i] += share * share * n
            if share < 1.0:
                sums[i + 1] += (1.0 - share) * n
                variances[i + 1] += (1.0 - share) * (1.0 - share) * n
                covariances[i] += share * (1.0 - share) * n


@dataclass(frozen=True)
class SValues:
    """S per pixel or region. Arrays of one shape."""

    sums: Floats  # (..., 5): core, wings, variances, covariance
    s: Floats
    sigma: Floats


def s_values(spectra: NDArray[np.int64], edges_kev: Floats, bins: EnergyBins) -> SValues:
    """Return S with errors.

    S = (integral of J from -1 to 1) / (integral from -5 to -1 and from 1 to 5); counts are integrals of J
    over their bin, so no Jacobian is needed. How a bin is cut: ``window_sums``.

    Args:
        spectra: counts, shape (..., bins).
        edges_kev: of ``window_edges_kev``, shape (..., 4).
        bins: of the spectra.

    Returns:
        S with sums; NaN where a window leaves the spectrum or core or wings are empty.

    Source: Huang 2022 equations 7 to 9 (the text there says "p_z < -5 and p_z > 5"; the equations, and Huang
    2024, say 1 < |p_z| < 5).
    """
    shape = spectra.shape[:-1]
    table = np.ascontiguousarray(spectra, np.int64).reshape(-1, spectra.shape[-1])
    edges = np.ascontiguousarray((edges_kev.reshape(-1, 4) - bins.low_kev) / bins.width_kev)
    sums = np.empty((table.shape[0], 5))
    s, sigma = np.empty(table.shape[0]), np.empty(table.shape[0])
    window_sums(table, edges, sums)
    ratios(sums, s, sigma)
    return SValues(sums.reshape(*shape, 5), s.reshape(shape), sigma.reshape(shape))


def s_of_sums(sums: Floats) -> SValues:
    """Return S of sums (..., 5), such as the sum over the pixels of a region. Pixels are independent."""
    flat = np.ascontiguousarray(sums, np.float64).reshape(-1, 5)
    s, sigma = np.empty(flat.shape[0]), np.empty(flat.shape[0])
    ratios(flat, s, sigma)
    return SValues(sums, s.reshape(sums.shape[:-1]), sigma.reshape(sums.shape[:-1]))


def s_interval(core: Floats, wings: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the exact interval of S for few counts: Clopper-Pearson on the core fraction C / (C + W).

    Given C + W, C is binomial with r = S / (1 + S); S = r / (1 - r) is monotonic, so bounds carry over.
    Upper bound infinite without wings. Coverage is never below ``level`` for whole bins; counts of cut bins
    are used as they are (the beta distribution takes them), which is approximate by less than a count.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    c, w = np.asarray(core, np.float64), np.asarray(wings, np.float64)
    tail = (1.0 - level) / 2.0
    low = np.where(c > 0, beta.ppf(tail, np.maximum(c, 1e-9), w + 1.0), 0.0)
    high = np.where(w > 0, beta.ppf(1.0 - tail, c + 1.0, np.maximum(w, 1e-9)), 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(low / (1.0 - low)), np.asarray(high / (1.0 - high))


@dataclass(frozen=True)
class Profile:
    """J(p_z), normalised to 1 between the ends of the grid."""

    momentum_au: Floats  # middles
    width_au: float
    j: Floats  # per atomic unit
    sigma: Floats
    correlation: Floats  # of each value with the next one, from shared energy bins
    counts: float


def profile(
    spectra: NDArray[np.int64], energy_kev: float, angles_rad: Floats, bins: EnergyBins,
    *, reach_au: float = 8.0, width_au: float = 0.25,
) -> Profile:  # fmt: skip
    """Return the Compton profile of some pixels, each with its own angle.

    J = N / (N_total width). Errors are Poisson with shared bins; that of the norm is left out, so they are
    errors of shape at fixed total.

    Args:
        spectra: (pixels, bins).
        energy_kev: of the beam.
        angles_rad: (pixels,).
        bins: of the spectra.
        reach_au: half width of the grid.
        width_au: of a grid bin; at least one energy bin (0.2 keV is 0.226 a.u. at 115 keV and 90 deg).

    Raises:
        ValueError: if the grid is finer than the energy bins, or holds no counts.
    """
    middle = momentum_au(energy_kev, bins.edges_kev()[None, 1:], angles_rad[:, None])
    momenta = np.empty((angles_rad.size, bins.count + 1))
    momenta[:, 1:] = middle
    momenta[:, 0] = -np.inf  # an energy of zero belongs to no momentum of interest
    inside = np.abs(momenta) < reach_au + width_au
    steps = np.diff(momenta, axis=1)[inside[:, 1:] & inside[:, :-1]]
    if steps.size and float(steps.max()) > width_au:
        raise ValueError(f"a grid of {width_au} a.u. is finer than the energy bins ({steps.max():.3f} a.u.)")
    cells = 2 * round(reach_au / width_au)
    total, variance, shared = np.zeros(cells), np.zeros(cells), np.zeros(cells)
    low = -width_au * cells / 2
    rebin(np.ascontiguousarray(spectra, np.int64), momenta, low, width_au, total, variance, shared)
    n = float(total.sum())
    if n <= 0:
        raise ValueError("no counts within the momentum range of the profile")
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = shared[:-1] / np.sqrt(variance[:-1] * variance[1:])
    return Profile(
        np.asarray(low + width_au * (np.arange(cells) + 0.5), np.float64), width_au, total / (n * width_au),
        np.sqrt(variance) / (n * width_au), correlation, n,
    )  # fmt: skip


def warm() -> None:
    """Run the kernels once on next to nothing."""
    bins = EnergyBins(count=4)
    s_values(np.ones((1, 4), np.int64), np.array([[0.1, 0.3, 0.5, 0.7]]), bins)
    none = np.zeros((1, 1), np.int64)
    rebin(none, np.zeros((1, 2)), 0.0, 1.0, np.zeros(1), np.zeros(1), np.zeros(1))
