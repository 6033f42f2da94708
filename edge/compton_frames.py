"""Frames of a photon-counting pixel detector to spectra per pixel: dark, scale, clusters, tallies.

Everything is counted in integers; a reducer has ``add``, ``merge`` and ``result``, and merging is exact in
any order. Memory does not depend on the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge import compton_kernels as kernels
from edge import compton_strings as strings
from edge.compton_kernels import HITS, MEMBERS, NEAR, PAIRS
from edge.uncertainty import ONE_SIGMA_SHARES, Estimate

Floats = NDArray[np.float64]
Frames = NDArray[np.uint16]

WINDOW_ADU = 256  # of the dark histogram of a pixel, around its first values
CLIP_SIGMAS = 5.0  # from the median: photons in a dark recording are left out of mean and noise
MAD_TO_SIGMA = 1.482602218505602  # of a normal distribution
MASKED = np.uint16(65535)  # no ADU is above it
NOISE_SIGMAS = 5.0  # a threshold is never closer to the dark level than this


@njit("void(u2[:,::1], i8[::1], u4[:,::1], u4[::1])", cache=True, nogil=True, boundscheck=False)
def accumulate_dark(frames, base, counts, outside):  # type: ignore[no-untyped-def]
    """Count ADU values per pixel in ``WINDOW_ADU`` bins from ``base``; others in ``outside``. In place."""
    width = counts.shape[1]
    for number in range(frames.shape[0]):
        for p in range(frames.shape[1]):
            d = np.int64(frames[number, p]) - base[p]
            if 0 <= d < width:
                counts[p, d] += 1
            else:
                outside[p] += 1


@dataclass(frozen=True)
class DarkLevel:
    """Dark level and noise per pixel, ADU; NaN where fewer than half of the values lay in the window."""

    mean_adu: Floats
    median_adu: Floats
    noise_adu: Floats
    frames: int
    outside: int  # values outside the windows: photons, or pixels that jump
    pooled_noise_adu: float  # 1.4826 x median |value - median of its pixel| over all pixels

    @property
    def level(self) -> Estimate:
        """Mean of all pixels, ADU; sigma_stat from the noise (the spread over pixels is no error of it)."""
        good = np.isfinite(self.mean_adu)
        samples = max(self.frames * int(good.sum()), 1)
        noise = float(np.sqrt(np.mean(self.noise_adu[good] ** 2))) if good.any() else np.nan
        mean = float(self.mean_adu[good].mean()) if good.any() else np.nan
        return Estimate(mean, noise / samples**0.5, 0.0, "ADU")

    @property
    def noise(self) -> Estimate:
        """Noise of a pixel, median, ADU; sigma_stat of a median, from the spread over pixels."""
        values = self.noise_adu[np.isfinite(self.noise_adu)]
        if values.size == 0:
            return Estimate(np.nan, np.nan, 0.0, "ADU")
        low, middle, high = np.quantile(values, (ONE_SIGMA_SHARES[0], 0.5, ONE_SIGMA_SHARES[1]))
        return Estimate(float(middle), float(high - low) / 2 * (np.pi / 2 / values.size) ** 0.5, 0.0, "ADU")


class Dark:
    """Dark frames, streaming: a histogram of 256 ADU per pixel around what the pixel read at first.

    mean and noise are those of the values within 5 sigma (1.4826 MAD, at least 2 ADU) of the pixel's median;
    the noise is corrected for the tails that this cuts off (0.01 %).
    """

    def __init__(self, first: Frames) -> None:
        """Place the windows by some frames (n, ny, nx), which are not counted here."""
        self.shape = first.shape[1:]
        middle = np.median(first.reshape(first.shape[0], -1), axis=0)
        self.base = np.floor(middle).astype(np.int64) - WINDOW_ADU // 2
        pixels = self.base.size
        self.counts = np.zeros((pixels, WINDOW_ADU), np.uint32)
        self.outside = np.zeros(pixels, np.uint32)
        self.frames = 0

    def add(self, frames: Frames) -> None:
        """Count frames of shape (n, ny, nx), uint16."""
        flat = _flat(frames, self.shape)
        accumulate_dark(flat, self.base, self.counts, self.outside)
        self.frames += flat.shape[0]

    def merge(self, other: Dark) -> None:
        """Add another part. Raises ValueError if its windows are placed elsewhere."""
        if self.shape != other.shape or not np.array_equal(self.base, other.base):
            raise ValueError("two parts of a dark recording were counted in different windows")
        self.counts += other.counts
        self.outside += other.outside
        self.frames += other.frames

    def result(self) -> DarkLevel:
        """Return level and noise per pixel, shape (ny, nx). Raises ValueError without frames."""
        if self.frames == 0:
            raise ValueError("a dark recording without frames")
        counts = self.counts.astype(np.int64)
        total = counts.sum(axis=1)
        known = 2 * total > self.frames
        codes = np.arange(WINDOW_ADU)
        median = _weighted_median(counts)
        away = np.abs(codes - median[:, None])
        order = np.argsort(away, axis=1, kind="stable")
        half = np.take_along_axis(counts, order, axis=1).cumsum(axis=1) * 2 >= total[:, None]
        mad = np.take_along_axis(
            np.take_along_axis(away, order, axis=1), half.argmax(axis=1)[:, None], axis=1
        )
        near = away <= np.maximum(CLIP_SIGMAS * MAD_TO_SIGMA * mad, 2.0)
        kept = np.where(near, counts, 0)
        n = np.maximum(kept.sum(axis=1), 1)
        mean = (kept * codes).sum(axis=1) / n
        spread = (kept * (codes - mean[:, None]) ** 2).sum(axis=1) / np.maximum(n - 1, 1)
        pooled = _pooled_median(away[known], counts[known])
        blank = np.where(known, 0.0, np.nan)
        return DarkLevel(
            (mean + self.base + blank).reshape(self.shape), (median + self.base + blank).reshape(self.shape),
            (np.sqrt(spread) + blank).reshape(self.shape), self.frames, int(self.outside.sum()),
            MAD_TO_SIGMA * pooled,
        )  # fmt: skip


@dataclass(frozen=True)
class EnergyBins:
    """Equal energy bins; what lies below and above is counted apart."""

    width_kev: float = 0.2
    count: int = 900
    low_kev: float = 0.0

    def edges_kev(self) -> Floats:
        """Return the ``count + 1`` edges."""
        return np.asarray(self.low_kev + self.width_kev * np.arange(self.count + 1), np.float64)


@dataclass(frozen=True)
class PixelScale:
    """What turns ADU of a pixel into energy: E = gain (ADU - dark) + offset. All of shape (ny, nx).

    ``noise_adu`` may be zeros. A pixel with ``usable`` False, or without finite positive gain, is masked.
    """

    dark_adu: Floats
    noise_adu: Floats
    gain_kev: Floats
    offset_kev: Floats
    usable: NDArray[np.bool_]

    def tables(self, threshold_kev: float, bins: EnergyBins | None = None) -> Tables:
        """Return the integer tables of the kernel.

        A hit is ADU > threshold, with threshold + 1 = ceil(max(dark + (threshold_kev - offset) / gain, dark +
        5 noise)): the smallest ADU that reaches the energy and stands out of the noise.

        Raises:
            ValueError: if no pixel is usable, or a gain is more than 100 bins per ADU.
        """
        bins = bins or EnergyBins()
        good = self.usable & np.isfinite(self.gain_kev) & (self.gain_kev > 0) & np.isfinite(self.offset_kev)
        good = good & np.isfinite(self.dark_adu) & np.isfinite(self.noise_adu)
        if not good.any():
            raise ValueError("no pixel has a dark level and a calibration: nothing can be counted")
        gain = np.where(good, self.gain_kev, 1.0)
        dark, noise = np.where(good, self.dark_adu, 0.0), np.where(good, self.noise_adu, 0.0)
        offset = np.where(good, self.offset_kev, 0.0)
        if (gain / bins.width_kev > 100.0).any():
            raise ValueError(
                f"a gain of {gain.max():.3g} keV per ADU is too coarse for {bins.width_kev} keV bins"
            )
        by_energy = dark + (threshold_kev - offset) / gain
        by_noise = dark + NOISE_SIGMAS * noise
        lowest = np.ceil(np.maximum(by_energy, by_noise))
        threshold = np.where(good, np.clip(lowest - 1.0, 0.0, 65535.0), 65535.0).astype(np.uint16)
        scale = np.empty((gain.size, 2), np.int64)
        scale[:, 0] = np.rint(gain / bins.width_kev * (1 << kernels.GAIN_BITS)).ravel()
        zero = (offset - gain * dark) / bins.width_kev
        scale[:, 1] = np.rint(zero * float(1 << kernels.ENERGY_BITS)).ravel()
        origin = round(bins.low_kev / bins.width_kev * (1 << kernels.ENERGY_BITS))
        noisy = int(np.count_nonzero(good & (by_noise > by_energy)))
        return Tables(bins, threshold, scale, origin, noisy)


@dataclass(frozen=True)
class Tables:
    """Threshold and fixed-point energy scale per pixel."""

    bins: EnergyBins
    threshold: NDArray[np.uint16]  # (ny, nx); 65535: masked
    scale: NDArray[np.int64]  # (ny*nx, 2)
    origin: int
    noisy: int  # pixels whose threshold the noise sets, not the energy

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Return which pixels can have hits."""
        return np.asarray(self.threshold != MASKED)


@dataclass(frozen=True)
class Counts:
    """What a recording contains, integers. Maps have shape (ny, nx)."""

    frames: int
    bins: EnergyBins
    spectra: NDArray[np.int64]  # (ny, nx, bins)
    underflow: NDArray[np.int64]
    overflow: NDArray[np.int64]
    hits: NDArray[np.int64]  # samples above threshold
    singles: NDArray[np.int64]  # photons of one pixel
    doubles: NDArray[np.int64]  # photons of two pixels, where they are counted
    discarded: NDArray[np.int64]  # hits that became no photon
    near: NDArray[np.int64]  # frames with a hit in the neighbourhood, the pixel itself included
    usable: NDArray[np.bool_]
    ring: int = 1  # of the neighbourhood: this many rows and columns around a pixel

    @property
    def acceptance(self) -> Floats:
        """Chance that no other photon touches the neighbourhood of a photon in this pixel; NaN if masked.

        1 - (frames with any hit in the neighbourhood) / frames: the photons of a frame are independent, so
        what surrounds a photon is what surrounds the place in any frame (Slivnyak's theorem). Charge
        sharing of the others, noise and uneven illumination are in it. Nothing is assumed but a steady beam.
        """
        free = 1.0 - self.near / max(self.frames, 1)
        return np.where(self.usable, free, np.nan)

    @property
    def acceptance_sigma(self) -> Floats:
        """Its error, one sigma: of the posterior of a binomial share (never 0, however few the frames)."""
        n = self.frames
        variance = (self.near + 1.0) * (n - self.near + 1.0) / ((n + 2.0) ** 2 * (n + 3.0))
        return np.where(self.usable, np.sqrt(variance), np.nan)

    def mean_acceptance(self, used: NDArray[np.bool_] | None = None) -> Estimate:
        """Return the mean of the acceptance over pixels; NaN without any.

        Neighbouring pixels see the same photons. A photon of up to 2 x 2 pixels is near to a places at once,
        a = (2 ring + 2)^2, and the variance of a covered share of such photons is at most a p (1 - p) / N
        (e^x - 1 is convex): sigma_stat is this bound.
        """
        sigmas = self.acceptance_sigma[self.usable if used is None else self.usable & used]
        if sigmas.size == 0:
            return Estimate(np.nan, np.nan, np.nan, "1")
        values = self.acceptance[self.usable if used is None else self.usable & used]
        places = (2.0 * self.ring + 2.0) ** 2
        bound = float(np.sqrt(places * np.sum(sigmas**2))) / sigmas.size
        return Estimate(float(values.mean()), bound, 0.0, "1")

    def occupancy(self, used: NDArray[np.bool_] | None = None) -> Estimate:
        """Return the share of samples above threshold; sigma_stat: four hits of one photon at the most."""
        chosen = self.usable if used is None else self.usable & used
        samples = max(self.frames, 1) * max(int(chosen.sum()), 1)
        hits = int(self.hits[chosen].sum())
        return Estimate(hits / samples, 2.0 * max(hits, 1) ** 0.5 / samples, 0.0, "1")


class Compton:
    """Streaming reducer of frames. ``add`` in any chunks, ``merge`` in any order: the same integers."""

    def __init__(
        self, tables: Tables, *, add_pairs: bool = False, ring: int = 1, dither: bool = True
    ) -> None:
        """Prepare empty accumulators.

        Args:
            tables: of ``PixelScale.tables``.
            add_pairs: False discards every hit with a neighbour, True adds clusters of two pixels.
            ring: a neighbour is at most this many rows and columns away, 1 or 2.
            dither: fill the steps of whole ADU (see ``compton_kernels.reduce_frames``).

        Raises:
            ValueError: for another ring.
        """
        if ring not in (1, 2):
            raise ValueError(f"ring {ring}: a neighbourhood has 1 or 2 rings")
        self.tables, self.add_pairs, self.ring, self.dither = tables, add_pairs, ring, dither
        self.ny, self.nx = tables.threshold.shape
        pixels = self.ny * self.nx
        if pixels * (tables.bins.count + 2) >= 1 << 31:
            raise ValueError(f"{pixels} pixels x {tables.bins.count} bins: the histogram is too large")
        words, _, length = strings.layout(self.ny, self.nx)
        self.frames = 0
        self.histogram = np.zeros(pixels * (tables.bins.count + 2), np.uint32)
        self._narrow = np.zeros(self.histogram.size, np.uint8)  # its last 8 bits, since it was settled
        self.counts = np.zeros((4, pixels), np.uint32)
        self._sides = strings.sides_of(self.ny, self.nx)
        self._scratch = np.zeros((kernels.SCRATCH, length), np.uint64)
        self._planes = np.zeros((kernels.KINDS, strings.PLANES, words), np.uint64)
        self._waiting = 0  # frames in the bit-sliced counters
        self._group = np.zeros((4, 16), np.int64)  # rows 1, 2: no cache line shared with another reducer
        self._pixels = np.zeros(strings.GROUP * pixels + 64, np.int32)
        self._addresses = np.zeros(kernels.ADDRESSES + pixels + 64, np.int32)

    def add(self, frames: Frames, first: int | None = None) -> None:
        """Add frames (n, ny, nx), uint16; ``first`` is the number of the first one in the recording.

        Left out, the frames are taken to follow those added before. The number only places the fixed pattern
        that fills the steps of whole ADU: parts that are merged must be given theirs.
        """
        flat = _flat(frames, (self.ny, self.nx))
        self._waiting = kernels.reduce_frames(
            flat, self.frames if first is None else first, self.tables.threshold.ravel(), self.tables.scale,
            self.tables.origin, self.tables.bins.count, self.add_pairs, self.ring, self.ny, self.nx,
            int(self.dither), self._narrow, self.histogram, self.counts, self._sides, self._scratch,
            self._planes, self._waiting, self._group, self._pixels, self._addresses,
        )  # fmt: skip
        self.frames += flat.shape[0]

    def merge(self, other: Compton) -> None:
        """Add another part. Raises ValueError if it was counted with other tables or rules."""
        mine, theirs = self.tables, other.tables
        same = mine.bins == theirs.bins and mine.origin == theirs.origin
        same = same and np.array_equal(mine.threshold, theirs.threshold)
        same = same and np.array_equal(mine.scale, theirs.scale)
        same = same and (self.add_pairs, self.ring, self.dither) == (
            other.add_pairs,
            other.ring,
            other.dither,
        )
        if not same:
            raise ValueError("two parts of a recording were counted with different tables or rules")
        if self.frames + other.frames >= 1 << 32:
            raise ValueError("more than 2^32 frames: a counter could overflow")
        self._settle()
        other._settle()
        self.histogram += other.histogram
        self.counts += other.counts
        self.frames += other.frames

    def state(self) -> dict[str, Any]:
        """Return the sums as plain arrays, for ``restore``."""
        self._settle()
        return {"frames": self.frames, "histogram": self.histogram, "counts": self.counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Take sums over that ``state`` returned. Raises ValueError if they have another shape."""
        histogram, counts = np.asarray(state["histogram"]), np.asarray(state["counts"])
        if histogram.shape != self.histogram.shape or counts.shape != self.counts.shape:
            raise ValueError("the sums belong to another detector or other bins")
        self.histogram = histogram.astype(np.uint32)
        self.counts = counts.astype(np.uint32)
        self.frames = int(state["frames"])
        self._narrow[:] = 0
        self._planes[:] = 0
        self._waiting = 0

    def _settle(self) -> None:
        """Add what the narrow histogram and the bit-sliced counters hold to the sums."""
        self.histogram += self._narrow
        self._narrow[:] = 0
        strings.flush_planes(self._planes, self.counts)
        self._waiting = 0

    def result(self) -> Counts:
        """Return the counts so far."""
        self._settle()
        shape = (self.ny, self.nx)
        table = self.histogram.reshape(*shape, self.tables.bins.count + 2).astype(np.int64)
        maps = self.counts.reshape(4, *shape).astype(np.int64)
        singles = table.sum(axis=2) - maps[PAIRS]
        return Counts(
            self.frames, self.tables.bins, table[:, :, 1:-1], table[:, :, 0], table[:, :, -1], maps[HITS],
            singles, maps[PAIRS], maps[HITS] - singles - maps[MEMBERS], maps[NEAR], self.tables.usable,
            self.ring,
        )  # fmt: skip


def accidental_chance(occupancy: float, shared: float, pixels: int) -> float:
    """Return the chance of a second independent photon in n pixels: 1 - exp(-n occupancy / (1 + shared)).

    Occupancy is the fraction of pixels above threshold in a frame, ``shared`` the fraction of photons that
    are seen in two pixels. 9 pixels at 1, 5, 10 % and 35 %: 6.4, 28, 49 %.
    """
    return float(-np.expm1(-pixels * occupancy / (1.0 + shared)))


def warm() -> None:
    """Run the kernels once on next to nothing, so that the first real block finds them loaded."""
    none = np.zeros((1, 2, 16), np.uint16)
    dark = Dark(none)
    dark.add(none)
    flat = np.zeros((2, 16))
    scale = PixelScale(flat, flat, flat + 0.03, flat, flat == 0)
    Compton(scale.tables(3.0, EnergyBins(count=4)), add_pairs=True).add(none)


def _flat(frames: Frames, shape: tuple[int, ...]) -> Frames:
    if frames.ndim != 3 or frames.shape[1:] != shape or frames.dtype != np.uint16:
        raise ValueError(f"frames of uint16 and shape (n, {shape[0]}, {shape[1]}) wanted, not {frames.shape}")
    whole = np.ascontiguousarray(frames)
    if not whole.flags.writeable:  # the kernels have one signature each
        whole = whole.copy()
    return whole.reshape(frames.shape[0], shape[0] * shape[1])


def _weighted_median(counts: NDArray[np.int64]) -> Floats:
    """Return the median position in each row of counts (the mean of the two middle values)."""
    running, total = counts.cumsum(axis=1), counts.sum(axis=1)[:, None]
    lower = (2 * running >= total).argmax(axis=1)
    upper = (2 * running > total).argmax(axis=1)
    return np.asarray((lower + upper) / 2.0)


def _pooled_median(values: Floats, counts: NDArray[np.int64]) -> float:
    if values.size == 0:
        return float("nan")
    order = np.argsort(values, axis=None, kind="stable")
    running = counts.ravel()[order].cumsum()
    return float(values.ravel()[order][(2 * running >= running[-1]).argmax()])
