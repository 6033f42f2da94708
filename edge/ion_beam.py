"""Ion-beam technique (PIXE and PIGE): events of passes in, lithium, x and state of charge per layer out.

``IonBeamReducer`` is a stream reducer: ``add`` what comes, ``merge`` another reducer's part, ``result`` at
any time. Accumulators are integers and merging is exact; results are computed from them and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.analysis import Analysis
from edge.deadtime import CounterCheck, check_counters
from edge.drift import Gain, centroid, follow, markers, measured_gain, misplaced
from edge.events import PassCounts, Segmentation
from edge.measure import pixel_rates_hz
from edge.report import Result, report
from edge.scan_data import MICRO, PassEnd, ScanData, ScanStart
from edge.settings import Settings

__all__ = ["Events", "IonBeamReducer", "PassDone", "PassStart", "ScanStart", "Settings"]


@dataclass(frozen=True)
class PassStart:
    """A pass begins."""

    scan: int
    n: int


@dataclass(frozen=True)
class Events:
    """Events of one detector; ``frame`` counts pixel-clock pulses since the start of the pass.

    ``again`` marks events that come once more because the windows moved (``recount``).
    """

    scan: int
    n: int
    detector: str
    channel: NDArray[np.uint16]
    frame: NDArray[np.int64]
    again: bool = False


@dataclass(frozen=True)
class PassDone:
    """A pass has ended."""

    scan: int
    n: int
    end: PassEnd


Item = ScanStart | PassStart | Events | PassDone


class IonBeamReducer:
    """Streaming reduction of one run.

    Args:
        settings: of the run.
        gains: energy scale of each detector to begin with, when another part of the run is known already.
    """

    def __init__(self, settings: Settings, gains: Mapping[str, Gain] | None = None) -> None:
        self.settings = settings
        self.segmentations = {
            name: Segmentation.of(
                detector, [line.window for line in settings.lines_on(name)], settings.projected_on(name)
            )
            for name, detector in settings.detectors.items()
        }
        self.gains = {name: Gain() for name in settings.detectors} | dict(gains or {})
        self.scans: dict[int, ScanData] = {}
        self.open: dict[tuple[int, int], dict[str, PassCounts]] = {}
        self.checks: dict[tuple[int, int], dict[str, CounterCheck]] = {}
        self._analysis = Analysis(settings, self.segmentations)

    def add(self, item: Item) -> None:
        """Add a scan, a pass, a chunk of events, or the end of a pass.

        Raises:
            ValueError: for events of a pass that has not begun, a pass that is there already, wrong shapes.
        """
        if isinstance(item, ScanStart):
            known = self.scans.setdefault(item.scan, ScanData(item))
            if known.start != item:
                raise ValueError(f"scan {item.scan} is already {known.start.name!r}")
        elif isinstance(item, PassStart):
            self._begin(item.scan, item.n)
        elif isinstance(item, Events):
            counts = self._counts(item.scan, item.n, item.detector)
            counts.add(item.channel, item.frame, maps_only=item.again)
        else:
            self._end(item)

    def merge(self, other: IonBeamReducer) -> None:
        """Add what another reducer of the same settings has counted: other passes, or other events of a pass.

        The energy scale is taken from the one that has followed it over more passes; of two alike the larger
        one, so that the order of merging does not matter.
        """
        for (scan, n), parts in other.open.items():
            if scan not in self.scans:
                self.add(other.scans[scan].start)
            mine = self.open.setdefault((scan, n), {})
            for name, counts in parts.items():
                if name in mine:
                    mine[name].merge(counts)
                else:
                    mine[name] = counts
        for number, data in other.scans.items():
            if number in self.scans:
                self.scans[number].merge(data)
            else:
                self.scans[number] = data
        self.checks.update(other.checks)
        for name, gain in other.gains.items():
            self.gains[name] = max(self.gains[name], gain, key=lambda g: (g.passes, g.value, g.sigma))

    def result(self) -> Result:
        """Return everything that can be said now."""
        self._analysis.update(self.scans, self.gains)
        return report(self._analysis, self.checks)

    @property
    def last_analysis(self) -> Analysis:
        """The analysis as it was last brought up to date: enough for a map, and there at once."""
        return self._analysis

    def analysis(self) -> Analysis:
        """Return the analysis of the present state, for parts of the result."""
        self._analysis.update(self.scans, self.gains)
        return self._analysis

    # --- the energy scale ---------------------------------------------------------------------------------

    def next_gain(self, scan: int, n: int, detector: str) -> Gain:
        """Return the energy scale as it will be known after an open pass, its own lines included."""
        counts = self._counts(scan, n, detector)
        gain = self.gains[detector]
        if counts.nx == 0:
            return gain
        settings = self.settings.detectors[detector]
        windows = [line.window for line in self.settings.lines_on(detector)]
        sigma_kev = self.settings.priors["lithium_centroid_kev"]
        spectrum = counts.spectrum_on()
        found = [centroid(spectrum, settings, m, gain.value) for m in markers(settings, windows, sigma_kev)]
        return follow(gain, measured_gain([c for c in found if c is not None]))

    def is_misplaced(self, scan: int, n: int, detector: str) -> bool:
        """Return whether the windows of an open pass sat too far from its lines: then recount it."""
        used = self._counts(scan, n, detector).tables.gain
        windows = [line.window for line in self.settings.lines_on(detector)]
        return misplaced(used, self.next_gain(scan, n, detector), windows)

    def recount(self, scan: int, n: int, detector: str, *, moved: bool) -> None:
        """Forget the events of one detector in an open pass; they will come again.

        Args:
            scan: number of the scan.
            n: number of the pass.
            detector: its name.
            moved: lay the windows with the scale that the events showed (all of them must have been there);
                spectra and tallies stay, only the maps are counted again, from events marked ``again``. Else
                forget everything, and use the scale that was known before the pass.
        """
        if moved:
            counts = self._counts(scan, n, detector)
            gain = self.next_gain(scan, n, detector).value
            self.open[(scan, n)][detector] = counts.moved(self.segmentations[detector], gain)
        else:
            self.open[(scan, n)][detector] = self._empty(scan, detector, self.gains[detector].value)

    # --- inside -------------------------------------------------------------------------------------------

    def _begin(self, scan: int, n: int) -> None:
        if scan not in self.scans:
            raise ValueError(f"pass {n} of scan {scan}, which has not begun")
        if (scan, n) in self.open or n in self.scans[scan].passes or n in self.scans[scan].refused:
            raise ValueError(f"pass {n} of scan {scan} has begun already")
        self.open[(scan, n)] = {
            name: self._empty(scan, name, self.gains[name].value) for name in self.settings.detectors
        }

    def _empty(self, scan: int, detector: str, gain: float) -> PassCounts:
        grid = self.scans[scan].start.grid
        nx, ny = (grid.nx, grid.ny) if grid is not None else (0, 0)
        return PassCounts.empty(nx, ny, self.segmentations[detector], gain)

    def _counts(self, scan: int, n: int, detector: str) -> PassCounts:
        try:
            return self.open[(scan, n)][detector]
        except KeyError:
            raise ValueError(f"no open pass {n} of scan {scan} with detector {detector}") from None

    def _end(self, item: PassDone) -> None:
        key = (item.scan, item.n)
        if key not in self.open:
            raise ValueError(f"pass {item.n} of scan {item.scan} has not begun")
        gains = {name: self.next_gain(*key, name) for name in self.settings.detectors}
        counts = self.open.pop(key)
        scan = self.scans[item.scan]
        scan.add_pass(item.n, counts, item.end, self.segmentations)
        if item.end.good:
            self.gains.update(gains)
        self.checks[key] = self._check(scan, counts, item.end)

    def _check(
        self, scan: ScanData, counts: Mapping[str, PassCounts], end: PassEnd
    ) -> dict[str, CounterCheck]:
        """Compare the counters of a pass with its events and with the dead time of all passes so far."""
        self._analysis.update(self.scans, self.gains)
        grid = scan.start.grid
        time_s = scan.dwell_us(end) / MICRO
        found = {}
        for name, part in counts.items():
            counters = end.counters.get(name)
            if counters is None:
                continue
            number = part.segments.sum(axis=1, dtype=np.float64)
            on_s = time_s.sum() if grid is not None else 0.0
            off_s = max(counters.accumulation_s - on_s, 0.0)
            if grid is None:
                rate = number / off_s if off_s > 0.0 else np.zeros(1)
                spent = np.array([off_s])
            else:
                rate, spent = pixel_rates_hz(grid, number, time_s, off_s)
            found[name] = check_counters(
                int(part.tallies[0]),
                counters.slow,
                counters.fast,
                rate,
                spent,
                self._analysis.dead[name].tau_s,
                self.settings.detectors[name].fast_dead_s,
            )
        return found
