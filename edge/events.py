"""List-mode events to integer accumulators: counts per window and pixel, spectra, tallies. No dense cube.

Windows and background bands are cut at each other's edges into disjoint *segments*; a lookup table sends
each channel to one segment, so that every event is one increment and any window is a sum of segments.
Segment 0 is "everything else". The last row of the count array is the beam-off pixel: parked or blanked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.lines import LineWindow
from edge.settings import Detector

ROW_BIN_CHANNELS = 4  # energy bins of the row spectra, in nominal channels

RECEIVED, ON, BEFORE, PARKED, OUTSIDE, UNDERFLOW, OVERFLOW = range(7)
TALLIES = ("received", "on", "before", "parked", "outside", "underflow", "overflow")


@njit(
    "void(u2[::1], i8[::1], i8, i8, u1[::1], u4[:,::1], u4[:,::1], u4[::1], i8[::1])",
    cache=True,
    nogil=True,
    boundscheck=False,
)
def accumulate(  # type: ignore[no-untyped-def]  # numba compiles the signature above
    channel, frame, nx, ny, segment_of, counts, rows, spectrum_off, tallies
):
    """Add events to the accumulators in place.

    Frame f (pulses since the pass began) belongs to line (f-1) // (nx+1), column (f-1) % (nx+1). Column nx
    is the parked beam, f <= 0 the blanked beam before the first pulse: both go to the beam-off pixel and
    spectrum. f > ny (nx+1) is outside the raster and only tallied. A channel of at least ``len(segment_of)``
    is tallied as overflow, channel 0 as underflow; both stay in segment 0: they made the detector busy.

    Args:
        channel: amplitudes, uint16, shape (n,).
        frame: pulses since the start of the pass, int64, shape (n,).
        nx: pixels per line.
        ny: lines.
        segment_of: channel to segment, uint8, shape (channels,).
        counts: uint32, shape (nx*ny + 1, segments).
        rows: one spectrum per line, beam on, uint32, shape (ny, channels).
        spectrum_off: beam off, uint32, shape (channels,).
        tallies: int64, shape (7,), in the order of ``TALLIES``.
    """
    n = channel.size
    channels = segment_of.size
    pulses = ny * (nx + 1)
    i = 0
    while i < n:
        f = frame[i]
        end = i + 1
        while end < n and frame[end] == f:
            end += 1
        pixel = nx * ny
        line = (f - 1) // (nx + 1)
        kind = ON
        if f <= 0:
            kind = BEFORE
        elif f > pulses:
            kind = OUTSIDE
        elif (f - 1) - line * (nx + 1) == nx:
            kind = PARKED
        tallies[kind] += end - i
        if kind == OUTSIDE:
            i = end
            continue
        if kind == ON:
            pixel = line * nx + (f - 1) - line * (nx + 1)
            spectrum = rows[line]
        else:
            spectrum = spectrum_off
        for j in range(i, end):
            c = channel[j]
            if c < channels:
                counts[pixel, segment_of[c]] += 1
                spectrum[c] += 1
                tallies[UNDERFLOW] += c == 0
            else:
                counts[pixel, 0] += 1
                tallies[OVERFLOW] += 1
        i = end
    tallies[RECEIVED] += n


@dataclass(frozen=True)
class Segmentation:
    """Which segments make up which window, for one detector; independent of the energy calibration."""

    detector: Detector
    windows: tuple[LineWindow, ...]
    edges_kev: tuple[tuple[float, float], ...]  # of segments 1, 2, ...

    @classmethod
    def of(cls, detector: Detector, windows: Sequence[LineWindow]) -> Segmentation:
        """Cut windows and bands of one detector at each other's edges."""
        ranges = [r for w in windows for r in ((w.low_kev, w.high_kev), *w.bands_kev)]
        cuts = sorted({edge for r in ranges for edge in r})
        pieces = [
            (a, b) for a, b in itertools.pairwise(cuts) if any(low <= a and b <= high for low, high in ranges)
        ]
        if len(pieces) > 254:
            raise ValueError(f"detector {detector.name}: {len(pieces)} energy segments, at most 254")
        return cls(detector, tuple(windows), tuple(pieces))

    @property
    def size(self) -> int:
        """Number of segments, segment 0 included."""
        return len(self.edges_kev) + 1

    @property
    def row_bins(self) -> int:
        """Number of energy bins of a row spectrum; the last one collects what is above the scale."""
        return self.detector.channels // ROW_BIN_CHANNELS + 1

    @property
    def row_bin_kev(self) -> float:
        """Width of an energy bin of a row spectrum."""
        return ROW_BIN_CHANNELS * self.detector.gain_kev

    def members(self, low_kev: float, high_kev: float) -> NDArray[np.intp]:
        """Return the segments that together are the range; the range must be a window or a band."""
        inside = [k + 1 for k, (a, b) in enumerate(self.edges_kev) if low_kev <= a and b <= high_kev]
        return np.array(inside, dtype=np.intp)

    def tables(self, gain: float) -> ChannelTables:
        """Return the integer lookup tables for an energy scale of ``gain`` times the nominal one.

        A channel belongs to the segment that its centre falls into. ``channels_in`` counts channels per
        segment, so that background is scaled by the widths that were really used.
        """
        detector = self.detector
        centres = (detector.offset_kev + detector.gain_kev * np.arange(detector.channels)) * gain
        segment = np.zeros(detector.channels, dtype=np.uint8)
        for index, (low, high) in enumerate(self.edges_kev, start=1):
            segment[(centres >= low) & (centres < high)] = index
        bins = np.floor((centres - detector.offset_kev) / self.row_bin_kev + 1e-9)
        bins = np.where((bins < 0) | (bins > self.row_bins - 2), self.row_bins - 1, bins)
        channels_in = np.bincount(segment, minlength=self.size).astype(np.int64)
        bin_channels = np.bincount(bins.astype(np.int64), minlength=self.row_bins).astype(np.int64)
        return ChannelTables(gain, segment, bins.astype(np.uint16), channels_in, bin_channels)


@dataclass(frozen=True)
class ChannelTables:
    """Channel lookup tables at one gain."""

    gain: float
    segment_of: NDArray[np.uint8]
    bin_of: NDArray[np.uint16]
    channels_in: NDArray[np.int64]
    bin_channels: NDArray[np.int64]


@dataclass
class PassCounts:
    """Integer accumulators of one detector during one pass. Adding is exact and commutes."""

    nx: int
    ny: int
    tables: ChannelTables
    segments: NDArray[np.uint32]  # (pixels + 1, segments)
    rows: NDArray[np.uint32]  # (ny, channels), beam on
    spectrum_off: NDArray[np.uint32]
    tallies: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(TALLIES), dtype=np.int64))

    @classmethod
    def empty(cls, nx: int, ny: int, segmentation: Segmentation, gain: float) -> PassCounts:
        """Return zeros. A pass without raster has nx = ny = 0: everything is beam-off."""
        channels = segmentation.detector.channels
        return cls(
            nx=nx,
            ny=ny,
            tables=segmentation.tables(gain),
            segments=np.zeros((nx * ny + 1, segmentation.size), dtype=np.uint32),
            rows=np.zeros((ny, channels), dtype=np.uint32),
            spectrum_off=np.zeros(channels, dtype=np.uint32),
        )

    def add(self, channel: NDArray[np.uint16], frame: NDArray[np.int64]) -> None:
        """Add one chunk of events; frames count pulses since the start of the pass.

        Raises:
            ValueError: if the two arrays differ in length.
        """
        if channel.shape != frame.shape or channel.ndim != 1:
            raise ValueError(f"events: {channel.shape} channels and {frame.shape} frames")
        frames = np.zeros_like(frame) if self.nx == 0 else frame
        accumulate(
            np.ascontiguousarray(channel),
            np.ascontiguousarray(frames),
            self.nx,
            self.ny,
            self.tables.segment_of,
            self.segments,
            self.rows,
            self.spectrum_off,
            self.tallies,
        )

    def spectrum_on(self) -> NDArray[np.int64]:
        """Return the beam-on spectrum of the whole pass, shape (channels,)."""
        total: NDArray[np.int64] = self.rows.sum(axis=0, dtype=np.int64)
        return total

    def binned_rows(self, bins: int) -> NDArray[np.uint32]:
        """Return the row spectra in energy bins of the corrected scale, shape (ny, bins)."""
        order = np.argsort(self.tables.bin_of, kind="stable")
        starts = np.searchsorted(self.tables.bin_of[order], np.arange(bins))
        padded = np.concatenate([self.rows[:, order], np.zeros((self.ny, 1), np.uint32)], axis=1)
        summed = np.add.reduceat(padded, starts, axis=1, dtype=np.uint32)
        summed[:, self.tables.bin_channels[:bins] == 0] = 0  # reduceat repeats an element for an empty bin
        return summed

    def merge(self, other: PassCounts) -> None:
        """Add another part of the same pass, taken with the same tables."""
        if self.tables.gain != other.tables.gain or self.segments.shape != other.segments.shape:
            raise ValueError("two parts of one pass were taken with different tables")
        for mine, theirs in (
            (self.segments, other.segments),
            (self.rows, other.rows),
            (self.spectrum_off, other.spectrum_off),
            (self.tallies, other.tallies),
        ):
            mine += theirs


def warm() -> None:
    """Run the kernel once on no events, so that the first real chunk finds it loaded."""
    table, flat = np.zeros(1, np.uint8), np.zeros(1, np.uint32)
    none16, none64 = np.zeros(0, np.uint16), np.zeros(0, np.int64)
    pixels, rows = np.zeros((1, 1), np.uint32), np.zeros((1, 1), np.uint32)
    accumulate(none16, none64, 1, 1, table, pixels, rows, flat, np.zeros(len(TALLIES), np.int64))
