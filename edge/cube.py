"""A diagnostic cube: counts per pixel and energy bin, rebinned so that it never exceeds 64 MB per detector.

Counts are 16 bits wide; what goes beyond is carried into a short list, so nothing is lost and half the memory
is moved. Only counts inside the raster and the energy range are in the cube; the others are counted apart,
never folded into an edge bin.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from edge.machine import prefetch_to_write

Floats = NDArray[np.float64]

MOST_BYTES = 64_000_000
LEAST_FACTOR = 2  # channels per bin, at least: a line of the detectors here is ten channels wide or more
PIECE = 4096  # records that are decoded before any is counted
ROOM = 4 * PIECE  # for cells that are carried in one call

PIXEL_SHIFT, CHANNEL_MASK = np.uint64(16), np.uint64(0xFFFF)


@njit(
    "UniTuple(u8, 2)(u8[::1], u8, u4[::1], u2[::1], u4[::1], i8[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def fill(records, start, bin_of, cube, keys, carried):  # type: ignore[no-untyped-def]
    """Add packed events to a cube in place; return (cells that went beyond 16 bits, first record not added).

    Keys of a piece are worked out first and then incremented: two short loops overlap better than one, and
    every cell is asked for long before its turn. Many pieces in one call: two threads that met in the
    interpreter after each would wait for each other.

    Args:
        records: from ``edge.event_kernels.pack``, uint64, shape (n,).
        start: first record to add.
        bin_of: channel to bin, uint32, shape (channels + 1,); the number of cells where there is no bin.
        cube: uint16, shape (cells + 1,), pixel by pixel; the last cell takes what is in no bin.
        keys: scratch, uint32, shape (piece,).
        carried: takes the cells that went from 65 535 to 0 counts, int64, shape (room,), room at least piece;
            the call ends when less than a piece is left of it.
    """
    last = np.uint64(cube.size - 1)
    bins = np.uint64(bin_of[bin_of.size - 1])  # the overflow entry holds the number of bins
    n, piece, room = np.uint64(records.size), np.uint64(keys.size), np.uint64(carried.size)
    found = np.uint64(0)
    i = start
    while i < n and found + piece <= room:
        m = min(piece, n - i)
        for j in range(m):
            record = records[i + j]
            b = np.uint64(bin_of[record & CHANNEL_MASK])
            key = np.uint64(min((record >> PIXEL_SHIFT) * bins + b, last) if b < bins else last)
            prefetch_to_write(cube, key)
            keys[j] = np.uint32(key)
        for j in range(m):
            key = np.uint64(keys[j])
            count = np.uint16(cube[key] + np.uint16(1))
            cube[key] = count
            if count == 0:
                carried[found] = np.int64(key)
                found += np.uint64(1)
        i += m
    return found, i


def rebin_factor(pixels: int, channels: int) -> int:
    """Return how many channels make a bin: the smallest power of two that keeps the cube below 64 MB.

    Raises:
        ValueError: if not even one bin per pixel fits.
    """
    factor = LEAST_FACTOR
    while pixels * (channels // factor) * 2 > MOST_BYTES:
        factor *= 2
        if factor > channels:
            raise ValueError(f"{pixels} pixels do not fit into {MOST_BYTES} bytes")
    return factor


@dataclass
class Cube:
    """Counts per pixel and energy bin, shape (pixels, bins). Adding and merging are exact in any order."""

    pixels: int
    bins: int
    counts: NDArray[np.uint16] = field(init=False)  # (pixels * bins + 1,)
    carries: dict[int, int] = field(default_factory=dict)  # cell -> how often 65 536 counts were carried

    def __post_init__(self) -> None:
        if self.pixels < 0 or self.bins < 1 or 2 * self.pixels * self.bins > MOST_BYTES:
            raise ValueError(f"{self.pixels} pixels of {self.bins} bins are no cube of {MOST_BYTES} bytes")
        self.counts = np.zeros(self.pixels * self.bins + 1, np.uint16)
        self._keys, self._carried = np.empty(PIECE, np.uint32), np.empty(ROOM, np.int64)

    def add(self, records: NDArray[np.uint64], bin_of: NDArray[np.uint32]) -> None:
        """Add packed events.

        Args:
            records: shape (n,); the beam-off pixel and what is beyond are counted apart.
            bin_of: from ``bin_table``, shape (channels + 1,).
        """
        start = 0
        while start < records.size:
            found, start = fill(records, start, bin_of, self.counts, self._keys, self._carried)
            for cell in self._carried[:found]:
                self.carries[int(cell)] = self.carries.get(int(cell), 0) + 1

    def merge(self, other: Cube) -> None:
        """Add another cube of the same shape. Raises ValueError if it has another one."""
        if (self.pixels, self.bins) != (other.pixels, other.bins):
            raise ValueError(
                f"cubes of {self.bins} and {other.bins} bins, {self.pixels}, {other.pixels} pixels"
            )
        for start in range(0, self.counts.size, 1 << 20):
            part = slice(start, start + (1 << 20))
            total = self.counts[part].astype(np.uint32) + other.counts[part]
            self.counts[part] = total.astype(np.uint16)
            for place in np.flatnonzero(total >> 16):
                carried = start + int(place)
                self.carries[carried] = self.carries.get(carried, 0) + 1
        for cell, times in other.carries.items():
            self.carries[cell] = self.carries.get(cell, 0) + times

    @property
    def outside(self) -> int:
        """Events that are in no pixel or in no bin."""
        last = self.counts.size - 1
        return int(self.counts[last]) + 65_536 * self.carries.get(last, 0)

    def spectra(self, first: int, last: int) -> Floats:
        """Return the counts of pixels ``first`` to ``last - 1``, shape (last - first, bins)."""
        begin, end = first * self.bins, last * self.bins
        found = self.counts[begin:end].astype(np.float64)
        for cell, times in self.carries.items():
            if begin <= cell < end:
                found[cell - begin] += 65_536.0 * times
        return found.reshape(last - first, self.bins)

    def regions(self, weights: ArrayLike, rows: int = 256) -> tuple[Floats, Floats]:
        """Return the spectra of regions, sum w_p y_p, and their Poisson variances, sum w_p^2 y_p.

        Args:
            weights: share of each pixel in each region, shape (pixels, regions).
            rows: pixels that are looked at together.

        Returns:
            (counts, variances), each of shape (regions, bins).

        Raises:
            ValueError: if the number of pixels differs.
        """
        w = np.asarray(weights, np.float64)
        if w.ndim != 2 or w.shape[0] != self.pixels:
            raise ValueError(f"weights {w.shape} for {self.pixels} pixels")
        total, variance = np.zeros((w.shape[1], self.bins)), np.zeros((w.shape[1], self.bins))
        for start in range(0, self.pixels, rows):
            part = self.spectra(start, min(start + rows, self.pixels))
            total += w[start : start + rows].T @ part
            variance += (w[start : start + rows].T ** 2) @ part
        return total, variance


def bin_table(channels: int, bin_of: ArrayLike, bins: int) -> NDArray[np.uint32]:
    """Return the lookup table of ``fill``: bins as given, ``bins`` where there is none.

    Args:
        channels: of the detector.
        bin_of: bin of each channel, shape (channels,); negative or too large where there is none.
        bins: number of bins.
    """
    found = np.full(channels + 1, bins, np.uint32)
    given = np.asarray(bin_of, np.int64)
    inside = (given >= 0) & (given < bins)
    found[:-1][inside] = given[inside]
    return found


def warm() -> None:
    """Run the kernel once on no events."""
    none = np.zeros(0, np.uint64)
    fill(
        none, 0, np.zeros(2, np.uint32), np.zeros(2, np.uint16), np.zeros(1, np.uint32), np.zeros(1, np.int64)
    )
