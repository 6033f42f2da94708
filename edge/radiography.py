"""Radiographs: sums of many exposures, and how noisy a camera image is (photon transfer).

A camera counts in ADU, a neutron gives several: the variance of a pixel is g (I - dark) + r^2, and because
one neutron lights several pixels, the variance of a sum over a patch is larger than the sum of variances.
So g is measured as a curve: ADU of variance per ADU of signal, against the width of the patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.uncertainty import ONE_SIGMA_SHARES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_PIXEL = 1 << 20  # ADU; sums of squares of patches then fit 64 bits for MAX_FRAMES frames
MAX_FRAMES = 1 << 16
ROWS_AT_ONCE = 64
SCALES = (1, 2, 4, 8, 16)  # pixels: patch widths of the noise curve
FIELD = 64  # pixels: a field of patches, inside which the ratio of two exposures is taken as a plane
MIN_FIELDS = 6
MIN_GOOD = 0.8  # of a field
MAD_PER_SIGMA = 0.6744897501960817  # median |x| of a Gaussian


class ImageSums:
    """Sums of images and of their squares, in integers: adding and merging are exact in any order.

    The frames are also summed alternately into two halves, from whose difference the noise is measured: those
    of even and of odd number. A part that does not begin with frame 0 is told its first number.
    Memory: 24 bytes per pixel and one strip of rows, whatever the number of frames.
    """

    def __init__(self, ny: int, nx: int, first: int = 0) -> None:
        """Start empty for images of ny rows and nx columns; the next one added has the number ``first``.

        Raises:
            ValueError: if a size is not positive or the number negative.
        """
        if ny < 1 or nx < 1 or first < 0:
            raise ValueError(f"an image of {ny} x {nx} pixels, number {first}, does not exist")
        self.shape = (ny, nx)
        self.largest = 0
        self.halves: tuple[Integers, Integers] = (np.zeros((ny, nx), np.int64), np.zeros((ny, nx), np.int64))
        self.squares: Integers = np.zeros((ny, nx), np.int64)
        self._strip: Integers = np.empty((ROWS_AT_ONCE, nx), np.int64)
        self._next = first
        self._runs: list[tuple[int, int]] = []  # first and after the last number, rising

    @property
    def n_frames(self) -> int:
        """How many frames were added."""
        return sum(last - first for first, last in self._runs)

    def add(self, image: NDArray[np.integer]) -> None:
        """Add one exposure (ny, nx) of whole ADU, 0 to 2^20. Raises ValueError; then nothing was added."""
        if image.shape != self.shape:
            raise ValueError(f"an image of {image.shape} pixels does not fit into sums of {self.shape}")
        if not np.issubdtype(image.dtype, np.integer):
            raise ValueError(f"exposures are whole ADU, not {image.dtype}")
        low, high = int(image.min()), int(image.max())
        if low < 0 or high > MAX_PIXEL:
            raise ValueError(f"a pixel of {low if low < 0 else high} ADU is outside 0 to {MAX_PIXEL}")
        runs = _joined(self._runs, [(self._next, self._next + 1)])
        half = self.halves[self._next % 2]
        for first in range(0, self.shape[0], ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, self.shape[0]))
            strip = self._strip[: rows.stop - first]
            np.copyto(strip, image[rows], casting="unsafe")
            half[rows] += strip
            np.multiply(strip, strip, out=strip)
            self.squares[rows] += strip
        self._runs = runs
        self._next += 1
        self.largest = max(self.largest, high)

    def merge(self, other: ImageSums) -> None:
        """Add the sums of other frames, in any order; frames added later follow the last one of both.

        Raises:
            ValueError: if the images differ in size, or a frame is in both; then nothing was merged.
        """
        if other.shape != self.shape:
            raise ValueError(f"sums of {other.shape} and {self.shape} pixels cannot be merged")
        self._runs = _joined(self._runs, other._runs)
        for k in (0, 1):
            self.halves[k][...] += other.halves[k]
        self._next = max(self._next, other._next)
        self.largest = max(self.largest, other.largest)
        self.squares += other.squares

    def state(self) -> dict[str, Any]:
        """Return the sums as plain values, for ``restored``."""
        return {
            "even": self.halves[0], "odd": self.halves[1], "squares": self.squares, "largest": self.largest,
            "runs": [list(run) for run in self._runs],
        }  # fmt: skip

    @classmethod
    def restored(cls, state: Mapping[str, Any], shift: int = 0) -> ImageSums:
        """Return the sums that ``state`` came from, their frames numbered ``shift`` higher."""
        even, odd = state["even"], state["odd"]
        found = cls(even.shape[0], even.shape[1], shift)
        for own, given in zip(found.halves, (even, odd) if shift % 2 == 0 else (odd, even), strict=True):
            own[...] = given
        found.squares[...] = state["squares"]
        found.largest = int(state["largest"])
        found._runs = _joined([], [(int(a) + shift, int(b) + shift) for a, b in state["runs"]])
        found._next = found._runs[-1][1] if found._runs else shift
        return found

    def result(self) -> Exposure:
        """Return the mean and, from two frames on, variance and halves. Raises ValueError without frames."""
        n = self.n_frames
        if n == 0:
            raise ValueError("no exposure was added")
        total = (self.halves[0] + self.halves[1]).astype(np.float64)
        if n == 1:
            return Exposure(total, 1, None, None, self.largest)
        variance = (self.squares - total**2 / n) / (n - 1)
        odd = sum(last // 2 - first // 2 for first, last in self._runs)
        halves = None if odd in (0, n) else (self.halves[0] / (n - odd), self.halves[1] / odd)
        return Exposure(total / n, n, variance, halves, self.largest, (n - odd, odd))


def _joined(runs: list[tuple[int, int]], more: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return runs of frames in order, neighbours as one. Raises ValueError for an overlap or too many."""
    out: list[tuple[int, int]] = []
    for first, last in sorted([*runs, *more]):
        if out and first < out[-1][1]:
            raise ValueError(f"frame {first} is in both of two sums")
        if out and first == out[-1][1]:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    if sum(last - first for first, last in out) > MAX_FRAMES:
        raise ValueError(f"more than {MAX_FRAMES} exposures in one sum")
    return out


@dataclass(frozen=True)
class Exposure:
    """The mean of some equal exposures."""

    mean: Floats  # (ny, nx) ADU per frame
    n_frames: int
    variance: Floats | None = None  # (ny, nx) ADU^2 of one frame, from repeats
    halves: tuple[Floats, Floats] | None = None  # means of every other frame
    largest: int = 0  # ADU: largest pixel of any frame
    half_frames: tuple[int, int] = (0, 0)  # of each half


@dataclass(frozen=True)
class Noise:
    """The noise of one frame: variance of a patch of b x b pixels = g(b) signal + b^2 read^2."""

    scales_px: tuple[int, ...]
    gains_adu: tuple[float, ...]  # g at each scale: ADU of variance per ADU of signal
    gain_sigmas_adu: tuple[float, ...]
    read_variance: float  # ADU^2 per pixel and frame, from the dark
    source: str = ""

    @property
    def adu_per_neutron(self) -> float:
        """Return g of a patch without end: what a neutron gives if each is counted once."""
        return self.gain(math.inf)

    def gain(self, width_px: float) -> float:
        """Return g for a patch whose short side is ``width_px``.

        Linear in log width between the measured ones; beyond the widest, g = g_inf (1 - a / b)^2 through
        the last two, which is what a box of width b keeps of blurred white noise when the blur is much
        narrower. Never less than at the widest.
        """
        if width_px <= self.scales_px[-1] or len(self.scales_px) < 2:
            return float(np.interp(math.log2(max(width_px, 1.0)), np.log2(self.scales_px), self.gains_adu))
        (b1, b2), (r1, r2) = self.scales_px[-2:], np.sqrt(np.maximum(self.gains_adu[-2:], 0.0))
        far = (b2 * r2 - b1 * r1) / (b2 - b1)  # sqrt(g) = far - lost / b
        lost = (far - r2) * b2
        return max(self.gains_adu[-1], float(far - lost / width_px) ** 2)


def dark_variance(dark: Exposure) -> float:
    """Return the read-out variance of a pixel, ADU^2.

    From repeats if there are any (median over pixels); else from the spread of one dark frame over pixels,
    which holds the fixed pattern too and is an upper bound. Robust against hot pixels: half the
    distance of the 16 and 84 % quantiles, squared; never below the rounding to whole ADU, 1/12.
    """
    if dark.variance is not None:
        chi2_median = median_factor(dark.n_frames - 1)
        return max(float(np.median(dark.variance)) / chi2_median, 1.0 / 12.0)
    values, counts = np.unique(dark.mean, return_counts=True)
    shares = np.cumsum(counts) / dark.mean.size  # at half an ADU above each value: whole numbers are bins
    low, high = np.interp(ONE_SIGMA_SHARES, shares, values + 0.5)
    return max((float(high - low) / 2.0) ** 2, 1.0 / 12.0)


def photon_transfer(
    first: Floats, second: Floats, read_variance: float, frames: tuple[int, int] = (1, 1)
) -> Noise | None:
    """Measure the noise curve from two exposures of one scene.

    In every field of 64 x 64 pixels the second image is scaled by the ratio of the sums, s; the difference of
    the patch sums, less its plane, has the variance g S1 (1/n1 + s / n2) + read^2 (1/n1 + s^2 / n2) per pixel
    of a patch. The median over the fields is taken, corrected for the median of a chi-square variable: fields
    with an edge that moved stand out and are outvoted. What differs smoothly or by a small shift still adds.

    Args:
        first: dark-corrected image, shape (ny, nx), ADU per frame; NaN where masked.
        second: the same scene, same shape.
        read_variance: ADU^2 per pixel and frame.
        frames: how many frames each image is the mean of.

    Returns:
        The curve, or None if fewer than 6 whole fields are lit and not masked.

    Raises:
        ValueError: if the shapes differ.

    Source: Janesick, Photon Transfer, SPIE 2007, chapter 5 (difference of two flats).
    """
    if first.shape != second.shape:
        raise ValueError(f"images of {first.shape} and {second.shape} pixels are not one scene")
    found: dict[int, list[float]] = {scale: [] for scale in SCALES}
    for top in range(0, first.shape[0] - FIELD + 1, FIELD):
        for left in range(0, first.shape[1] - FIELD + 1, FIELD):
            cut = (slice(top, top + FIELD), slice(left, left + FIELD))
            of_field = _field_gains(first[cut], second[cut], read_variance, frames)
            if of_field is None:
                continue
            for scale, gain in of_field.items():
                found[scale].append(gain)
    n_fields = len(found[SCALES[0]])
    if n_fields < MIN_FIELDS:
        return None
    gains, sigmas = [], []
    for scale in SCALES:
        freedom = (FIELD // scale) ** 2 - 3
        values = np.asarray(found[scale])
        gains.append(float(np.median(values)) / median_factor(freedom))
        spread = float(np.median(np.abs(values - np.median(values)))) / MAD_PER_SIGMA
        sigmas.append(1.2533 * spread / math.sqrt(n_fields))
    return Noise(
        SCALES, tuple(gains), tuple(sigmas), read_variance, f"difference of two images, {n_fields} fields"
    )


def _field_gains(
    first: Floats, second: Floats, read_variance: float, frames: tuple[int, int]
) -> dict[int, float] | None:
    good = np.isfinite(first) & np.isfinite(second)
    if np.count_nonzero(good) < MIN_GOOD * first.size:
        return None
    level_a, level_b = float(first[good].mean()), float(second[good].mean())
    if min(level_a, level_b) < 4.0 * math.sqrt(read_variance):
        return None
    s = level_a / level_b
    difference = np.where(good, first - s * second, 0.0)
    share = 1.0 / frames[0] + s / frames[1]
    floor = read_variance * (1.0 / frames[0] + s * s / frames[1])
    y, x = np.mgrid[-1 : 1 : FIELD * 1j, -1 : 1 : FIELD * 1j]
    gains = {}
    for scale in SCALES:
        n = FIELD // scale

        def patch(image: Floats, n: int = n, scale: int = scale) -> Floats:
            return np.asarray(image.reshape(n, scale, n, scale).sum(axis=(1, 3)).ravel())

        used = patch(good.astype(np.float64))
        kept = used >= 0.7 * scale**2
        d = (patch(difference) * scale / np.sqrt(np.maximum(used, 1.0)))[kept]  # as of a whole patch
        plane = np.stack([np.ones(n * n), patch(y), patch(x)], axis=1)[kept]
        rest = d - plane @ np.linalg.lstsq(plane, d, rcond=None)[0]
        variance = float(rest @ rest) / (d.size - 3) / scale**2
        gains[scale] = (variance - floor) / (level_a * share)
    return gains


def choose_noise(candidates: Sequence[Noise | None]) -> Noise:
    """Return the quietest curve: what differs between two images besides noise only adds to it.

    Raises:
        ValueError: if there is none.
    """
    found = [one for one in candidates if one is not None and one.adu_per_neutron > 0]
    if not found:
        raise ValueError("the noise cannot be measured: give two frames of the open beam or a larger image")
    return min(found, key=lambda one: one.adu_per_neutron)


def median_factor(freedom: int) -> float:
    """Return median / mean of a chi-square variable (Wilson and Hilferty; 2 % at one degree of freedom)."""
    return float((1.0 - 2.0 / (9.0 * max(freedom, 1))) ** 3)
