"""List-mode events to integer accumulators: counts per window and pixel, spectra, tallies. No dense cube.

Windows and background bands are cut at each other's edges into disjoint *segments*; a lookup table sends
each channel to one segment, so that every event is one increment and any window is a sum of segments.
Segment 0 is "everything else". The last row of the count array is the beam-off pixel: parked or blanked.

Events are first packed into records of eight bytes, from which every other kernel counts. A piece of records
never leaves its line, so that the spectrum of the line is one plain array. The kernels: ``event_kernels``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.event_kernels import RUN, UNDERFLOW, accumulate, accumulate_maps, pack
from edge.lines import LineWindow
from edge.projection import ProjectionTable, project
from edge.settings import Detector

ROW_BIN_CHANNELS = 4  # energy bins of the row spectra, in nominal channels
PIECE = 16_384  # records of the fixed buffer: 128 kB stay near, and calls are few

TALLIES = ("received", "on", "before", "parked", "outside", "underflow", "overflow")

Records = NDArray[np.uint64]


class Packer:
    """Packs chunks of any length through one fixed buffer."""

    def __init__(self, nx: int, ny: int, channels: int) -> None:
        if not (nx >= 0 and ny >= 0 and nx * ny < 1 << 32 and 0 < channels < 1 << 16):
            raise ValueError(f"{nx} x {ny} pixels and {channels} channels do not fit into a record")
        self._raster = (nx, ny, channels)
        self._buffer = np.empty(PIECE, np.uint64)

    def pieces(
        self, channel: NDArray[np.uint16], frame: NDArray[np.int64], tallies: NDArray[np.int64]
    ) -> Iterator[tuple[int, Records]]:
        """Yield line number and records of a chunk, piece by piece; each piece is overwritten by the next.

        Args:
            channel: shape (n,).
            frame: pulses since the start of the pass, shape (n,); a pass without raster is all beam-off.
            tallies: added to in place.

        Raises:
            ValueError: if the two arrays differ in length.
        """
        if channel.shape != frame.shape or channel.ndim != 1:
            raise ValueError(f"events: {channel.shape} channels and {frame.shape} frames")
        nx = self._raster[0]
        frames = np.zeros_like(frame) if nx == 0 else np.ascontiguousarray(frame)
        channel = np.ascontiguousarray(channel)
        start = 0
        while start < channel.size:
            kept, start, line = pack(channel, frames, start, *self._raster, self._buffer, tallies)
            if kept:
                yield line, self._buffer[:kept]


@dataclass(frozen=True)
class Segmentation:
    """Which segments make up which window, for one detector; independent of the energy calibration."""

    detector: Detector
    windows: tuple[LineWindow, ...]
    edges_kev: tuple[tuple[float, float], ...]  # of segments 1, 2, ...
    projection: ProjectionTable | None = None  # of the lines that are counted by projection

    @classmethod
    def of(
        cls, detector: Detector, windows: Sequence[LineWindow], projected: Sequence[LineWindow] = ()
    ) -> Segmentation:
        """Cut windows and bands of one detector at each other's edges.

        Args:
            detector: the detector.
            windows: of all its lines.
            projected: those of them that are counted by projection as well.
        """
        ranges = [r for w in windows for r in ((w.low_kev, w.high_kev), *w.bands_kev)]
        cuts = sorted({edge for r in ranges for edge in r})
        pieces = [
            (a, b) for a, b in itertools.pairwise(cuts) if any(low <= a and b <= high for low, high in ranges)
        ]
        if len(pieces) > 254:
            raise ValueError(f"detector {detector.name}: {len(pieces)} energy segments, at most 254")
        table = ProjectionTable.of(projected, detector.gain_kev) if projected else None
        return cls(detector, tuple(windows), tuple(pieces), table)

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
        segment = np.zeros(detector.channels + 1, dtype=np.uint8)
        for index, (low, high) in enumerate(self.edges_kev, start=1):
            segment[:-1][(centres >= low) & (centres < high)] = index
        bins = np.floor((centres - detector.offset_kev) / self.row_bin_kev + 1e-9)
        bins = np.where((bins < 0) | (bins > self.row_bins - 2), self.row_bins - 1, bins)
        channels_in = np.bincount(segment[:-1], minlength=self.size).astype(np.int64)
        bin_channels = np.bincount(bins.astype(np.int64), minlength=self.row_bins).astype(np.int64)
        columns = (
            None if self.projection is None else self.projection.columns(np.asarray(centres, np.float64))
        )
        return ChannelTables(
            gain, segment, ranges_of(segment), bins.astype(np.uint16), channels_in, bin_channels, columns
        )


def ranges_of(segment_of: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return rows (first channel, one beyond the last, segment), shape (rows, 3), of all but segment 0.

    Args:
        segment_of: channel to segment, shape (channels + 1,).
    """
    cuts = np.flatnonzero(np.diff(segment_of)) + 1
    starts, stops = np.append(0, cuts), np.append(cuts, segment_of.size)
    rows = np.stack([starts, stops, segment_of[starts]], axis=1).astype(np.int64)
    return np.ascontiguousarray(rows[rows[:, 2] > 0])


@dataclass(frozen=True)
class ChannelTables:
    """Channel lookup tables at one gain."""

    gain: float
    lookup: NDArray[np.uint8]  # (channels + 1,): channel to segment, the last entry for the overflow
    ranges: NDArray[np.int64]  # the same as ``ranges_of``
    bin_of: NDArray[np.uint16]
    channels_in: NDArray[np.int64]
    bin_channels: NDArray[np.int64]
    columns: NDArray[np.int32] | None = None  # (channels + 1, columns) of the projection

    @property
    def segment_of(self) -> NDArray[np.uint8]:
        """Segment of each channel of the detector, shape (channels,)."""
        return self.lookup[:-1]


@dataclass
class PassCounts:
    """Integer accumulators of one detector during one pass. Adding is exact and commutes."""

    nx: int
    ny: int
    tables: ChannelTables
    segments: NDArray[np.uint32]  # (pixels + 1, segments)
    spectra: NDArray[np.uint32]  # (ny + 1, channels + 1): beam on per line, then beam off; overflow last
    projected: NDArray[np.int64] | None = None  # (pixels + 1, columns)
    by_frame: NDArray[np.int64] = field(default_factory=lambda: np.zeros(UNDERFLOW, dtype=np.int64))

    def __post_init__(self) -> None:
        self._packer = Packer(self.nx, self.ny, self.spectra.shape[1] - 1)
        self._aside = np.zeros(self.spectra.shape[1], np.uint32)  # in place of a spectrum that is known
        self._channels = np.zeros(RUN + 64, np.uint16)
        self._before = np.zeros(self.tables.ranges.shape[0], np.uint32)

    @classmethod
    def empty(cls, nx: int, ny: int, segmentation: Segmentation, gain: float) -> PassCounts:
        """Return zeros. A pass without raster has nx = ny = 0: everything is beam-off."""
        tables = segmentation.tables(gain)
        pixels = nx * ny + 1
        return cls(
            nx=nx,
            ny=ny,
            tables=tables,
            segments=np.zeros((pixels, segmentation.size), dtype=np.uint32),
            spectra=np.zeros((ny + 1, segmentation.detector.channels + 1), dtype=np.uint32),
            projected=None
            if tables.columns is None
            else np.zeros((pixels, tables.columns.shape[1]), np.int64),
        )

    def moved(self, segmentation: Segmentation, gain: float) -> PassCounts:
        """Return the same pass with other windows, its maps empty: spectra and tallies stay as counted."""
        fresh = PassCounts.empty(self.nx, self.ny, segmentation, gain)
        fresh.spectra, fresh.by_frame = self.spectra, self.by_frame
        return fresh

    def add(self, channel: NDArray[np.uint16], frame: NDArray[np.int64], *, maps_only: bool = False) -> None:
        """Add one chunk of events; frames count pulses since the start of the pass.

        Args:
            channel: shape (n,).
            frame: shape (n,).
            maps_only: the chunk is in spectra and tallies already (see ``moved``).

        Raises:
            ValueError: if the two arrays differ in length.
        """
        tallies = np.zeros_like(self.by_frame) if maps_only else self.by_frame
        for line, records in self._packer.pieces(channel, frame, tallies):
            known = (records, self.tables.lookup, self.tables.ranges, self.segments)
            if maps_only:
                accumulate_maps(*known, self._aside, self._channels)
            else:
                accumulate(*known, self.spectra[line], self._before)
            if self.projected is not None and self.tables.columns is not None:
                project(records, self.tables.columns, self.projected)

    @property
    def tallies(self) -> NDArray[np.int64]:
        """Events by what became of them, shape (7,), in the order of ``TALLIES``."""
        ends = self.spectra[:, [0, -1]].sum(axis=0, dtype=np.int64)
        return np.concatenate([self.by_frame, ends])

    @property
    def rows(self) -> NDArray[np.uint32]:
        """Spectrum of each line with the beam on, shape (ny, channels)."""
        return self.spectra[:-1, :-1]

    @property
    def spectrum_off(self) -> NDArray[np.uint32]:
        """Spectrum with the beam off, shape (channels,)."""
        return self.spectra[-1, :-1]

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
        pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
            (self.segments, other.segments), (self.spectra, other.spectra), (self.by_frame, other.by_frame)
        ]  # fmt: skip
        if self.projected is not None and other.projected is not None:
            pairs.append((self.projected, other.projected))
        for mine, theirs in pairs:
            mine += theirs


def warm() -> None:
    """Run every kernel once on no events, so that the first real chunk finds them loaded."""
    nothing, none16, none64 = np.zeros(0, np.uint64), np.zeros(0, np.uint16), np.zeros(0, np.int64)
    table, pixels, spectrum = np.zeros(2, np.uint8), np.zeros((1, 1), np.uint32), np.zeros(2, np.uint32)
    pack(none16, none64, 0, 1, 1, 1, nothing, np.zeros(UNDERFLOW, np.int64))
    accumulate(nothing, table, ranges_of(table), pixels, spectrum, spectrum)
    accumulate_maps(nothing, table, ranges_of(table), pixels, spectrum, none16)
    project(nothing, np.zeros((2, 1), np.int32), np.zeros((1, 1), np.int64))
