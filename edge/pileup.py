"""Two photons counted as one: the shape that sum peaks have, and how many there should be.

Pairs that the fast channel cannot tell apart add their energies. Within the resolving time the second photon
is independent of the first, so the spectrum of pairs is the spectrum convolved with itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def sum_spectrum(spectrum: ArrayLike, first_kev: float, step_kev: float) -> Floats:
    """Return the shape of accidental pairs, of unit area over all energies, on the axis of the spectrum.

    P(E) = sum S(E1) S(E - E1) / (sum S)^2, numerator and denominator summed over places: photons of different
    places never meet. The part beyond the axis is left out, so the sum may be below one.

    Args:
        spectrum: counts per bin, shape (n,), or of many places, shape (places, n); pairs in it are neglected.
        first_kev: energy at the centre of bin 0.
        step_kev: width of a bin.

    Returns:
        Shape (n,), zero for an empty spectrum.

    Raises:
        ValueError: if the step is not positive or counts are negative.

    Source: Knoll, Radiation Detection and Measurement, 4th ed., section 17.VII.
    """
    counts = np.asarray(spectrum, np.float64)
    counts = counts.reshape(-1, counts.shape[-1]) if counts.ndim else counts
    if step_kev <= 0.0 or counts.ndim != 2 or (counts.size and counts.min() < 0.0):
        raise ValueError(
            f"a spectrum of counts and a positive step are needed, got {counts.shape}, {step_kev}"
        )
    chances = float(np.sum(counts.sum(axis=1) ** 2))
    found = np.zeros(counts.shape[1])
    if chances == 0.0:
        return found
    size = 2 * counts.shape[1] - 1
    spectra = np.fft.rfft(counts, 2 * counts.shape[1], axis=1)  # zeros behind: nothing wraps around
    pairs = np.maximum(np.fft.irfft((spectra**2).sum(axis=0), 2 * counts.shape[1])[:size], 0.0) / chances
    shift = first_kev / step_kev  # bin i + j of the pairs lies at first + (i + j + shift) step
    whole = int(np.floor(shift))
    part = shift - whole
    place = np.arange(pairs.size) + whole
    for offset, share in ((0, 1.0 - part), (1, part)):
        target = place + offset
        inside = (target >= 0) & (target < found.size)
        np.add.at(found, target[inside], share * pairs[inside])
    return found


def expected_pairs(rate_hz: ArrayLike, time_s: ArrayLike, resolving_s: float) -> float:
    """Return how many pairs are recorded as one event: sum of n t (1 - exp(-n tau)), counts.

    Args:
        rate_hz: of photons, per pixel.
        time_s: dwell per pixel, same shape.
        resolving_s: pulse-pair resolving time of the fast channel.
    """
    rate, time = np.asarray(rate_hz, np.float64), np.asarray(time_s, np.float64)
    return float(np.nansum(rate * time * -np.expm1(-rate * resolving_s)))
