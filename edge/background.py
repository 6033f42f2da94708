"""Backgrounds under lines: side bands, and a smooth continuum for display and for crowded spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NetCount:
    """Counts of a window above the background taken from bands."""

    net: float
    net_sigma: float  # Poisson, of gross and bands
    gross: float
    background: float
    background_sigma: float


def band_net(
    counts: ArrayLike, window: tuple[int, int], bands: Sequence[tuple[int, int]], *, degree: int = 1
) -> NetCount:
    """Subtract a background interpolated or extrapolated from bands.

    A polynomial is fitted to all band channels with equal weights (unbiased at any count), and its sum over
    the window is B = sum_j h_j y_j, with h fixed by geometry alone. net = gross - B with variance
    gross + sum_j h_j^2 y_j. One band on one side with degree 0 gives the classical "high side" background.

    Args:
        counts: spectrum, shape (n,), counts (Poisson).
        window: first and last channel, included.
        bands: the same for each band; bands must not touch the window.
        degree: of the polynomial; needs bands on both sides to be more than an extrapolation.

    Returns: counts; net may be negative.
    Raises: ValueError if a channel is outside the spectrum, a band overlaps the window, counts are negative
        or the bands do not determine the polynomial.
    Source: G. Gilmore, Practical Gamma-ray Spectrometry, 2nd ed. (2008), section 5.4.
    """
    y = np.asarray(counts, np.float64)
    taken = np.zeros(y.size, np.int64)
    for first, last in (window, *bands):
        if not 0 <= first <= last < y.size:
            raise ValueError(f"channels {first} to {last} are not in a spectrum of {y.size}")
        taken[first : last + 1] += 1
    if taken.max() > 1:
        raise ValueError("window and bands overlap")
    if y.size and y.min() < 0:
        raise ValueError("counts must not be negative")
    inside = np.arange(window[0], window[1] + 1)
    outside = np.concatenate([np.arange(first, last + 1) for first, last in bands])
    middle, half = inside.mean(), max(1.0, 0.5 * float(np.ptp(np.concatenate([inside, outside]))))
    powers = np.arange(degree + 1)
    design = ((outside - middle) / half)[:, None] ** powers
    if np.linalg.matrix_rank(design) < degree + 1:
        raise ValueError(f"{outside.size} band channels do not determine a polynomial of degree {degree}")
    weights = (((inside - middle) / half)[:, None] ** powers).sum(axis=0) @ np.linalg.pinv(design)
    gross = float(y[inside].sum())
    background = float(weights @ y[outside])
    variance = float(weights**2 @ y[outside])
    return NetCount(
        net=gross - background, net_sigma=float(np.sqrt(gross + variance)), gross=gross,
        background=background, background_sigma=float(np.sqrt(variance)),
    )  # fmt: skip


def snip(counts: ArrayLike, width: ArrayLike, *, smooth: int = 1) -> Floats:
    """Return a smooth continuum under peaks by statistics-sensitive non-linear peak clipping.

    v = ln(ln(sqrt(y + 1) + 1) + 1); then for p = W, W-1, ..., 1: v_i = min(v_i, (v_{i-p} + v_{i+p}) / 2),
    where channel i takes part while p <= width_i; then the transform is undone. It has no error model: use it
    to draw, or to guess; areas with errors come from fits and bands.

    Args:
        counts: spectrum, shape (n,), not negative.
        width: clipping half-width in channels, about the FWHM; scalar or shape (n,).
        smooth: width in channels of a running mean before clipping (odd).

    Returns: the continuum in counts per channel, shape (n,).
    Raises: ValueError if counts is not one spectrum or has negative entries.
    Source: Ryan et al., NIM B 34 (1988) 396; Morhac et al., NIM A 401 (1997) 113 (decreasing window).
    """
    y = np.asarray(counts, np.float64)
    if y.ndim != 1 or (y.size and y.min() < 0):
        raise ValueError("counts must be one spectrum without negative entries")
    if smooth > 1:
        padded = np.pad(y, smooth // 2, mode="edge")
        y = np.convolve(padded, np.ones(smooth) / smooth, mode="valid")[: y.size]
    half = np.broadcast_to(np.asarray(width, np.float64), y.shape)
    v = np.log(np.log(np.sqrt(y + 1) + 1) + 1)
    for p in range(int(half.max(initial=0)), 0, -1):
        if 2 * p >= y.size:
            continue
        clipped = np.minimum(v[p:-p], 0.5 * (v[: -2 * p] + v[2 * p :]))
        v[p:-p] = np.where(half[p:-p] >= p, clipped, v[p:-p])
    return np.asarray((np.exp(np.exp(v) - 1) - 1) ** 2 - 1, np.float64)
