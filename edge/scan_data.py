"""What is kept of a scan: integer sums over passes, in blocks of neighbouring passes, and the stamps.

Everything that is added is an integer (counts, microseconds, attocoulombs), so merging is exact in any order.
Blocks hold passes whose numbers agree but for the last ``level`` bits; the level rises when there are too
many blocks, so that memory is bounded and the blocks do not depend on the order of merging.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.event_kernels import RECEIVED
from edge.events import TALLIES, PassCounts, Segmentation
from edge.geometry import Grid

MOST_BLOCKS = 16
ATTO = 1_000_000_000_000_000_000  # attocoulombs per coulomb
MICRO = 1_000_000

Counts = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Stamp:
    """The state of the cell at one moment; None where it was not valid."""

    lab_s: float | None = None
    temperature_k: float | None = None
    voltage_v: float | None = None
    current_a: float | None = None
    charge_coulomb: float | None = None
    charge_sigma_coulomb: float | None = None
    charged_s: float | None = None  # lab seconds for which a current has flowed
    state: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Stamp:
        """Build from a message; unknown keys are ignored, missing and invalid ones become None."""
        given = data or {}

        def number(key: str) -> float | None:
            value = given.get(key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return None
            return float(value)

        state = given.get("state")
        return cls(
            lab_s=number("lab_s"),
            temperature_k=number("temperature_k"),
            voltage_v=number("voltage_v"),
            current_a=number("current_a"),
            charge_coulomb=number("charge_coulomb"),
            charge_sigma_coulomb=number("charge_sigma_coulomb"),
            charged_s=number("charged_s"),
            state=None if state is None else str(state),
        )


@dataclass(frozen=True)
class ScanStart:
    """A scan begins; ``grid`` is None for a background (beam off)."""

    scan: int
    name: str
    purpose: str
    grid: Grid | None


@dataclass(frozen=True)
class Counters:
    """Increase of a detector's counters during one pass."""

    slow: int
    fast: int
    accumulation_s: float
    real_s: float


@dataclass(frozen=True)
class PassEnd:
    """What is known of a pass when it has ended.

    ``lines`` are the numbers of the lines that were played; ``charge_coulomb`` is the beam charge per pixel,
    shape (ny * nx,), or None where the monitor gave none.
    """

    good: bool
    why: str
    lines: tuple[int, ...]
    charge_coulomb: NDArray[np.float64] | None
    counters: Mapping[str, Counters]
    start: Stamp = Stamp()
    end: Stamp = Stamp()


@dataclass
class DetectorBlock:
    """Sums of one detector over the passes of a block."""

    segments: Counts  # (pixels + 1, segments); the last row is beam off
    channels_in: NDArray[np.int64]  # summed over passes
    tallies: NDArray[np.int64]
    slow: int = 0
    fast: int = 0
    accumulation_us: int = 0
    counted: int = 0  # passes with counters
    projected: NDArray[np.int64] | None = None  # (pixels + 1, columns), see edge.projection

    @classmethod
    def of(cls, counts: PassCounts, counters: Counters | None) -> DetectorBlock:
        """Take over one finished pass."""
        block = cls(narrowed(counts.segments), counts.tables.channels_in.copy(), counts.tallies.copy())
        block.projected = counts.projected
        if counters is not None:
            block.slow, block.fast, block.counted = counters.slow, counters.fast, 1
            block.accumulation_us = round(counters.accumulation_s * MICRO)
        return block

    def merged(self, other: DetectorBlock) -> DetectorBlock:
        """Return the sum of two blocks."""
        total = self.segments.astype(np.uint32) + other.segments
        return DetectorBlock(
            narrowed(total),
            self.channels_in + other.channels_in,
            self.tallies + other.tallies,
            self.slow + other.slow,
            self.fast + other.fast,
            self.accumulation_us + other.accumulation_us,
            self.counted + other.counted,
            None if self.projected is None or other.projected is None else self.projected + other.projected,
        )

    @property
    def received(self) -> int:
        """Events received."""
        return int(self.tallies[RECEIVED])


@dataclass
class Block:
    """Neighbouring passes, added up."""

    passes: dict[int, tuple[Stamp, Stamp]]  # number -> stamps at start and end
    time_us: NDArray[np.int64]  # beam-on dwell per pixel
    charge: NDArray[np.int64]  # attocoulombs per pixel
    charge_known: bool
    detectors: dict[str, DetectorBlock]

    def merged(self, other: Block) -> Block:
        """Return the sum of two blocks."""
        return Block(
            {**self.passes, **other.passes},
            self.time_us + other.time_us,
            self.charge + other.charge,
            self.charge_known and other.charge_known,
            {name: block.merged(other.detectors[name]) for name, block in self.detectors.items()},
        )

    @property
    def time_s(self) -> NDArray[np.float64]:
        """Beam-on dwell per pixel."""
        return self.time_us / MICRO

    @property
    def charge_coulomb(self) -> NDArray[np.float64]:
        """Beam charge per pixel."""
        return self.charge / ATTO


@dataclass
class DetectorSpectra:
    """Spectra of one detector over a whole scan."""

    rows: NDArray[np.uint32]  # (ny, bins), beam on, corrected energies
    bin_channels: NDArray[np.int64]  # summed over passes
    on: NDArray[np.int64]  # (channels,), beam on, as counted
    off: NDArray[np.int64]

    def merged(self, other: DetectorSpectra) -> DetectorSpectra:
        """Return the sum."""
        return DetectorSpectra(
            self.rows + other.rows,
            self.bin_channels + other.bin_channels,
            self.on + other.on,
            self.off + other.off,
        )


@dataclass
class ScanData:
    """All good passes of one scan, and what was refused."""

    start: ScanStart
    blocks: dict[int, Block] = field(default_factory=dict)
    level: int = 0
    spectra: dict[str, DetectorSpectra] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def passes(self) -> list[int]:
        """Numbers of the good passes."""
        return sorted(n for block in self.blocks.values() for n in block.passes)

    def add_pass(
        self,
        n: int,
        counts: Mapping[str, PassCounts],
        end: PassEnd,
        segmentations: Mapping[str, Segmentation],
    ) -> None:
        """Add a finished pass; a bad one is only noted.

        Raises:
            ValueError: if the pass is already there or its charge map has another shape.
        """
        if n in self.refused or n in self.passes:
            raise ValueError(f"scan {self.start.scan} already has pass {n}")
        if not end.good:
            self.refused[n] = end.why
            return
        time_us, charge = self._exposure(end)
        block = Block(
            {n: (end.start, end.end)},
            time_us,
            charge,
            end.charge_coulomb is not None,
            {name: DetectorBlock.of(c, end.counters.get(name)) for name, c in counts.items()},
        )
        spectra = {
            name: DetectorSpectra(
                c.binned_rows(segmentations[name].row_bins),
                c.tables.bin_channels.copy(),
                c.spectrum_on(),
                c.spectrum_off.astype(np.int64),
            )
            for name, c in counts.items()
        }
        self._take({n >> self.level: block}, spectra)

    def merge(self, other: ScanData) -> None:
        """Add the passes of another part of the same scan.

        Raises:
            ValueError: if a pass is in both, or the scans differ.
        """
        if self.start != other.start or set(self.passes) & set(other.passes):
            raise ValueError(f"scan {self.start.scan}: the parts to merge overlap or differ")
        while self.level < other.level:
            self._raise_level()
        while other.level < self.level:
            other = replace(other, blocks=_halved(other.blocks), level=other.level + 1)
        self._take(other.blocks, other.spectra)
        self.refused.update(other.refused)

    def detector_sum(self, name: str) -> DetectorBlock | None:
        """Return the sum of all blocks of one detector."""
        total: DetectorBlock | None = None
        for key in sorted(self.blocks):
            block = self.blocks[key].detectors[name]
            total = block if total is None else total.merged(block)
        return total

    def dwell_us(self, end: PassEnd) -> NDArray[np.int64]:
        """Return how long the beam was on each pixel in a pass, microseconds, shape (pixels,)."""
        grid = self.start.grid
        if grid is None:
            return np.zeros(0, np.int64)
        time_us = np.zeros((grid.ny, grid.nx), np.int64)
        time_us[[line for line in end.lines if 0 <= line < grid.ny]] = round(grid.dwell_s * MICRO)
        return time_us.ravel()

    def _exposure(self, end: PassEnd) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        grid, time_us = self.start.grid, self.dwell_us(end)
        if grid is None or end.charge_coulomb is None:
            return time_us, np.zeros_like(time_us)
        charge = np.asarray(end.charge_coulomb, np.float64).ravel()
        if charge.size != grid.nx * grid.ny:
            raise ValueError(f"charge of {charge.size} pixels for {grid.nx} x {grid.ny}")
        finite = np.where(np.isfinite(charge), charge, 0.0)
        return time_us, np.rint(finite * ATTO).astype(np.int64)

    def _take(self, blocks: Mapping[int, Block], spectra: Mapping[str, DetectorSpectra]) -> None:
        for key, block in blocks.items():
            self.blocks[key] = self.blocks[key].merged(block) if key in self.blocks else block
        for name, part in spectra.items():
            self.spectra[name] = self.spectra[name].merged(part) if name in self.spectra else part
        self.blocks = dict(sorted(self.blocks.items()))  # sums of floats later do not depend on the order
        while len(self.blocks) > MOST_BLOCKS:
            self._raise_level()

    def _raise_level(self) -> None:
        self.blocks = _halved(self.blocks)
        self.level += 1


def narrowed(counts: Counts) -> Counts:
    """Return the counts as uint16 where they fit: half the memory for the blocks of a long scan."""
    return counts.astype(np.uint16) if counts.size and counts.max() < 1 << 16 else counts.astype(np.uint32)


def tally_dict(tallies: Iterable[int]) -> dict[str, int]:
    """Return the tallies by name."""
    return {name: int(value) for name, value in zip(TALLIES, tallies, strict=True)}


def _halved(blocks: Mapping[int, Block]) -> dict[int, Block]:
    merged: dict[int, Block] = {}
    for key in sorted(blocks):
        half = key >> 1
        merged[half] = merged[half].merged(blocks[key]) if half in merged else blocks[key]
    return merged
