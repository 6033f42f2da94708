"""What an experiment will take and what it can show, computed before anything is energised.

Durations, passes, counts, dose, disk, and the smallest change of the state of charge that the planned counts
can resolve. Pure: from the two files to numbers and sentences. Statistics only; the systematic errors belong
to the reduction. With counts N of lithium and of the normaliser, then and now, the double ratio has

    sigma^2 = (N + B (1 + r)) / N^2 of lithium, in both scans, + 1 / N of the normaliser, in both scans,

B being the continuum inside the lithium window where the station file tells it, r = 0.8 the width of the
window over that of its background band. sigma(SoC) = sigma / (slope of the calibration table * range of x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from controller.config.calibrations import HOSTS
from controller.config.course import visits
from controller.config.dose import ELEMENTARY_COULOMB, DosePlan
from controller.config.experiment import Experiment, Placed
from controller.config.exposures import Expose
from controller.config.instruments.amptek import Amptek
from controller.config.instruments.camera import Camera
from controller.config.instruments.hexitec import Hexitec
from controller.config.quantities import show
from controller.config.sample import Layer
from controller.config.scans import Scan, ScanBase
from controller.config.station import Beam, Station
from controller.config.steps import PASSES_CHARGE, Parallel
from controller.config.timing import (
    COUNTS_PER_LITHIUM,
    PassTime,
    assumptions,
    charge_of,
    pass_time,
)
from controller.estimate_steps import (
    StepEstimate,
    by_kind,
    share_of,
    step_estimates,
    tiles_of,
    timing_of,
)

SIGMAS = 3.0
LAST_PART = 0.2  # of a scan during charging, if there is no scan afterwards
WINDOW_TO_BAND = 0.8  # 12 keV of window, 15 keV of background band
STOPPING_MEV_CM2_PER_G = 110.0  # protons of 2.9 MeV in polymers (NIST PSTAR, Kapton 105, water 117)
GRAY_PER_MEV_PER_G = 1.602176634e-10
WORD_BYTES = 4
TIME_TAGS_PER_S = 1e6 / 65536.0  # at the 1 us clock
SAMPLE_BYTES = 160  # one reading in the journal, its index and its message included
PIXEL_BYTES = 2  # of an image on the disk, uncompressed
OCCUPANCY, HEAD_BYTES, HIT_BYTES = 0.01, 10, 4  # of a photon-counting camera: hits in a pixel, record of each
MAP_BYTES = 16  # value and uncertainty of a pixel


@dataclass(frozen=True)
class ScanEstimate:
    """What a scan will count in each layer that can be predicted."""

    name: str
    purpose: str
    passes: float
    beam_s: float
    soc: float  # expected, mean over the scan
    soc_after: float
    counts: dict[str, dict[str, float]]  # layer -> element -> net counts
    protons_per_pixel: float
    tiles: int = 1
    times: int = 1  # repetitions around it; everything else is for one of them


@dataclass(frozen=True)
class Change:
    """Whether the change of one host layer will be seen."""

    layer: str
    expected_soc: float
    sigma_soc: float
    counts_reference: float
    counts_now: float
    counts_needed: float  # of lithium and of the normaliser alike, in each scan, for 3 sigma
    lithium_needed: float  # in each scan, with the normaliser and continuum of this station
    hours_needed: float  # of scanning for each of the two scans

    @property
    def detectable_soc(self) -> float:
        """Smallest change that is seen with 3 sigma."""
        return SIGMAS * self.sigma_soc

    @property
    def significance(self) -> float:
        """Expected change in units of its uncertainty."""
        return abs(self.expected_soc) / self.sigma_soc

    @property
    def resolved(self) -> bool:
        """Whether the expected change is seen with at least 3 sigma."""
        return self.significance >= SIGMAS

    def lines(self) -> Iterator[str]:
        """Yield the verdict in sentences."""
        then, now = _count(self.counts_reference), _count(self.counts_now)
        yield (
            f"{self.layer}: smallest change of the state of charge seen at 3 sigma: "
            f"{100 * self.detectable_soc:.2g} % ({then} Li counts in the reference, {now} afterwards)"
        )
        change = f"{100 * abs(self.expected_soc):.2g} %"
        sigmas = f"{self.significance:.1f} sigma"
        if self.resolved:
            yield f"{self.layer}: the planned change of {change} will be seen ({sigmas})"
            return
        yield f"{self.layer}: the planned change of {change} is NOT resolvable with these counts ({sigmas})"
        if self.expected_soc:
            needed = _count(self.counts_needed)
            yield (
                f"{self.layer}: a 3 sigma proof of {change} needs about {needed} counts per element and "
                f"scan; at this station's rates {_count(self.lithium_needed)} Li counts, "
                f"{self.hours_needed:.2g} h for each of the two scans"
            )


@dataclass(frozen=True)
class Estimate:
    """Everything that ``check`` prints about an experiment."""

    speed: float
    steps: tuple[StepEstimate, ...]
    scans: tuple[ScanEstimate, ...]
    expected_s: float
    longest_s: float
    dose_per_cm2: float
    dose_gray: float
    disk_bytes: float
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def wall_s(self) -> float:
        """Expected duration on the wall clock."""
        return self.expected_s / self.speed

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        told = asdict(self)
        told["wall_s"] = self.wall_s
        for change, plain in zip(self.changes, told["changes"], strict=True):
            plain.update(
                detectable_soc=change.detectable_soc,
                significance=change.significance,
                resolved=change.resolved,
            )
        return told

    def lines(self) -> list[str]:
        """Return the estimate in plain lines for people."""
        wall = (
            f", {show(self.wall_s, 's', 3)} on the wall at speed {self.speed:g}" if self.speed != 1.0 else ""
        )
        slowest = max(self.steps, key=lambda step: step.expected_s if step.key.count("step") == 1 else 0.0)
        told = [
            f"duration: about {show(self.expected_s, 's', 3)}{wall}; at most {show(self.longest_s, 's', 3)}; "
            f"longest step: {slowest.key} {slowest.do}, {show(slowest.expected_s, 's', 3)}"
        ]
        told.extend(by_kind(self.steps))
        for scan in self.scans:
            counted = "; ".join(
                f"{layer} " + ", ".join(f"{element} {_count(number)}" for element, number in elements.items())
                for layer, elements in scan.counts.items()
            )
            beam = f"{scan.passes:.1f} passes, {show(scan.beam_s, 's', 3)} of beam"
            beam += f" on {scan.tiles} tiles" if scan.tiles > 1 else ""
            beam += f", {scan.times} times" if scan.times > 1 else ""
            counts = f", counts: {counted}" if counted else ""
            told.append(f'scan "{scan.name}" ({scan.purpose}): {beam}{counts}')
        timed = next((step for step in self.steps if step.dominates), None)
        if timed is not None:
            told.append(f"time of a pass goes into: {timed.dominates}")
        if self.dose_per_cm2:
            told.append(
                f"dose: {show(self.dose_per_cm2, '1/cm2', 2)} where the beam is longest, of order "
                f"{_order(self.dose_gray / 1e6)} MGy in light materials"
            )
        told.append(f"disk: about {_order(self.disk_bytes / 1e6)} MB")
        for change in self.changes:
            told.extend(change.lines())
        return [*told, *(f"assumed: {note}" for note in self.notes)]


def estimate(station: Station, experiment: Experiment, speed: float = 1.0) -> Estimate:
    """Return what ``experiment`` will take on ``station``; ``speed`` is lab seconds per wall second."""
    return _Estimator(station, experiment, speed).all()


class _Estimator:
    def __init__(self, station: Station, experiment: Experiment, speed: float) -> None:
        self.station = station
        self.experiment = experiment
        self.sample = experiment.sample
        self.speed = speed
        self.timing = timing_of(station, experiment, speed)
        self.settle_s = self.timing.settle_s
        self.placed = list(experiment.walk())
        self.soc = dict(self._states_of_charge())

    def all(self) -> Estimate:
        """Return the whole estimate."""
        steps = tuple(step_estimates(self.station, self.experiment, self.timing))
        scans = tuple(self._scan(placed) for placed in self.placed if isinstance(placed.step, Scan))
        top = [step for step in steps if step.key.count("step") == 1]
        dose = 0.0
        if self.station.beam is not None:
            beam, stage = self.station.beam, self.station.device("stage")
            plan = DosePlan(beam.current_a, beam.spot_um, stage)
            dose = max((total for _, total in plan.running_maximum(self.placed)), default=0.0)
        expected_s = sum(step.expected_s for step in top)
        return Estimate(
            speed=self.speed,
            steps=steps,
            scans=scans,
            expected_s=expected_s,
            longest_s=sum(step.longest_s for step in top),
            dose_per_cm2=dose,
            dose_gray=dose * STOPPING_MEV_CM2_PER_G * GRAY_PER_MEV_PER_G,
            disk_bytes=self._disk_bytes(expected_s),
            changes=tuple(self._changes(scans)),
            notes=tuple(self._notes()),
        )

    def _image_bytes(self) -> float:
        """Return what the images or hits of a camera take on the disk, and whole frames that are kept."""
        total = 0.0
        for placed in self.placed:
            step = placed.step
            if not isinstance(step, Expose):
                continue
            _, frames = self.timing.exposure(step)
            device = self.station.device(step.detector)
            if isinstance(device, Camera):
                total += frames * placed.repeats * device.pixels[0] * device.pixels[1] * PIXEL_BYTES
            elif isinstance(device, Hexitec):
                pixels = device.rows * device.columns
                kept = 2.0 * pixels * min(step.keep_frames, frames) * placed.repeats
                total += min(kept, device.whole_frames_bytes)
                hits = 0.0 if step.purpose == "dark" else OCCUPANCY * pixels
                total += frames * placed.repeats * (HEAD_BYTES + HIT_BYTES * hits if hits else 0.0)
        return total

    @property
    def _beam(self) -> Beam:
        """The beam of a station that scans; no scan is accepted without one."""
        if self.station.beam is None:
            raise TypeError("a scan on a station without a beam")
        return self.station.beam

    def _lithium_hz(self, layer: Layer) -> float:
        """Net lithium counts of a host layer as prepared, averaged over the raster."""
        return self._beam.rates.lithium_hz * share_of(layer, self.sample)

    def _signal(self, layer: Layer, soc: float) -> float:
        """Lithium signal relative to x = 1, on the straight line through the calibration table."""
        return 1.0 - self._slope(layer) * soc

    def _slope(self, layer: Layer) -> float:
        """Change of the relative signal per unit of SoC, positive."""
        table = self.experiment.calibration
        full, empty = HOSTS[layer.host or ""]
        return (table.slope if table is not None else 1.0) * (full - empty)

    def _states_of_charge(self) -> Iterator[tuple[str, tuple[float, float]]]:
        """Yield for each step the expected SoC before and after it in its last turn, by the planned charge.

        Inside ``parallel`` it is that of all of them together: a scan sees what the charge beside it does.
        """
        for visit in visits(self.placed, self.sample):
            placed, net = visit.placed, visit.net_coulomb + visit.ahead.last
            beside = isinstance(placed.parents[-1], Parallel) if placed.parents else False
            step = placed.parents[-1] if beside else placed.step
            after = net + charge_of([step], self.sample, visit.net_coulomb)
            yield placed.key, (self._soc(net), self._soc(after))

    def _soc(self, net_coulomb: float) -> float:
        return self.sample.soc + net_coulomb / self.sample.capacity_coulomb

    def _before_coulomb(self, placed: Placed) -> float:
        """Return what has passed before the last turn of a step."""
        return (self.soc[placed.key][0] - self.sample.soc) * self.sample.capacity_coulomb

    def _pass_time(self, placed: Placed) -> PassTime | None:
        if not isinstance(placed.step, ScanBase):
            return None
        return pass_time(placed.step.raster, self.settle_s, self.speed)

    def _scan(self, placed: Placed) -> ScanEstimate:
        step = placed.step
        timed = self._pass_time(placed)
        if not isinstance(step, ScanBase) or timed is None:
            raise TypeError(f"{placed.key} is no scan")
        passes = self.timing.passes(placed, self._before_coulomb(placed))
        beam_s = passes * timed.beam_s
        before, after = self.soc[placed.key]
        soc = (before + after) / 2.0
        counts: dict[str, dict[str, float]] = {}
        for layer in self.sample.hosts:
            full = self._lithium_hz(layer) * beam_s
            counts[layer.name] = {"Li": full * self._signal(layer, soc)}
            if layer.normaliser in COUNTS_PER_LITHIUM:
                counts[layer.name][layer.normaliser] = full * COUNTS_PER_LITHIUM[layer.normaliser]
        current_a = self._beam.current_a
        tiles = tiles_of(step)
        protons = current_a * step.raster.dwell_s * passes / tiles / ELEMENTARY_COULOMB
        return ScanEstimate(
            step.name or step.do, self.experiment.purpose(placed), passes, beam_s, soc, after, counts,
            protons, tiles, placed.repeats,
        )  # fmt: skip

    def _changes(self, scans: tuple[ScanEstimate, ...]) -> Iterator[Change]:
        reference = next((scan for scan in scans if scan.purpose == "reference"), None)
        now = self._compared(scans)
        if reference is None or not now:
            return
        for layer in self.sample.hosts:
            yield self._change(layer, reference, now)

    def _compared(self, scans: tuple[ScanEstimate, ...]) -> list[tuple[ScanEstimate, float]]:
        """Return the scans of the final state, each with the part of it that counts."""
        last = max((one.path[:2] for one in self.placed if one.step.do in PASSES_CHARGE), default=None)
        names = {one.step.name for one in self.placed if last is not None and one.path[:2] > last}
        after = [(scan, 1.0) for scan in scans if scan.name in names and scan.purpose != "reference"]
        during = [(scan, LAST_PART) for scan in scans if scan.purpose in ("charging", "discharging")]
        return after or during[-1:]

    def _change(self, layer: Layer, reference: ScanEstimate, now: list[tuple[ScanEstimate, float]]) -> Change:
        rates = self._beam.rates
        beta = (rates.lithium_background_hz or 0.0) / rates.lithium_hz * (1.0 + WINDOW_TO_BAND)
        normaliser = COUNTS_PER_LITHIUM.get(layer.normaliser or "", 1.0)
        full_hz = self._lithium_hz(layer)
        beam_s = sum(scan.beam_s * part for scan, part in now)
        end_soc = now[-1][0].soc_after
        signal = self._signal(layer, end_soc)
        first, last = full_hz * reference.beam_s, full_hz * beam_s  # lithium counts, were nothing taken out
        variance = (
            (1.0 + beta + 1.0 / normaliser) / first
            + (signal + beta) / (signal**2 * last)
            + 1.0 / (normaliser * last)
        )
        slope = self._slope(layer)
        change = end_soc - reference.soc
        per_scan = math.inf
        if change:
            per_scan = 2.0 / (slope * change / SIGMAS) ** 2
        needed = per_scan * (1.0 + beta + 1.0 / normaliser)
        return Change(
            layer=layer.name,
            expected_soc=change,
            sigma_soc=math.sqrt(variance) / slope,
            counts_reference=first,
            counts_now=last * signal,
            counts_needed=2.0 * per_scan,
            lithium_needed=needed,
            hours_needed=needed / full_hz / 3600.0,
        )

    def _disk_bytes(self, expected_s: float) -> float:
        """Raw words of both detectors, readings, the maps of every pass, and images."""
        words = maps = 0.0
        analysis = self.experiment.analysis
        for placed in self.placed:
            if isinstance(placed.step, ScanBase) and analysis is not None:
                nx, ny = placed.step.raster.pixels
                passes = self.timing.passes(placed, self._before_coulomb(placed)) * placed.repeats
                counted_hz = self._beam.rates.pixe_hz + self._beam.rates.pige_hz + 2.0 * TIME_TAGS_PER_S
                words += passes * placed.step.raster.scan().pass_s * counted_hz
                words += 2.0 * passes * ny * (nx + 1)  # a frame word for each pixel and detector
                maps += passes * nx * ny * MAP_BYTES * len(analysis.lines)
        slow = [device for device in self.station.devices.values() if not isinstance(device, Amptek)]
        readings = expected_s * sum(1.0 / device.period_s for device in slow)
        return words * WORD_BYTES + maps + readings * SAMPLE_BYTES + self._image_bytes()

    def _notes(self) -> Iterator[str]:
        yield from assumptions(self.placed)
        if self.station.beam is None or not any(isinstance(placed.step, ScanBase) for placed in self.placed):
            return
        rates = self._beam.rates
        shares = "; ".join(
            f"{layer.name} fills {100 * share_of(layer, self.sample):.0f} % of the field"
            for layer in self.sample.hosts
        )
        yield f"{rates.lithium_hz:g} lithium counts/s while the beam is on the host layer; {shares}"
        if rates.lithium_background_hz is None:
            yield "no continuum under the lithium line: the station file has no beam.rates.lithium_background"
        for layer in self.sample.hosts:
            if layer.normaliser not in COUNTS_PER_LITHIUM:
                yield f"{layer.normaliser} counts like lithium: its rate is not known beforehand"


def _count(number: float) -> str:
    """Write a number of counts with two digits that mean something: 160 000."""
    if not math.isfinite(number) or number < 1.0:
        return "no" if number < 1.0 else "infinitely many"
    digits = max(len(str(int(number))) - 2, 0)
    return f"{round(number, -digits):,.0f}".replace(",", " ")


def _order(number: float) -> str:
    return f"{number:.1g}" if number < 10 else f"{float(f'{number:.2g}'):.0f}"
