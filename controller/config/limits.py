"""An experiment against the limits of the station, of the chemistry and of the sample itself.

Set-points are compared with the tightest limit there is; the message says whose it is. Nothing here looks at
measurements: that is the guard's work, and it uses the same limits (``effective_limits``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from controller.config import cell_rules
from controller.config.calibrations import ANGLE_TOLERANCE_DEG, ENERGY_TOLERANCE_KEV, Calibration
from controller.config.chemistry import CHEMISTRIES
from controller.config.course import visits
from controller.config.dose import DosePlan
from controller.config.experiment import Experiment, Partial, Placed, load_experiment, walk
from controller.config.exposures import Expose
from controller.config.instruments.amptek import Amptek
from controller.config.instruments.camera import Camera
from controller.config.instruments.labjack import LabJack
from controller.config.instruments.zaber import Zaber
from controller.config.manual import Manual
from controller.config.problems import ConfigErrors, Problem, in_file_order, problem
from controller.config.quantities import show
from controller.config.sample import Analysis, Sample
from controller.config.scans import Scan, ScanBase
from controller.config.station import Station, load_station
from controller.config.steps import USES, CellStep, Cool, Heat, Move, Pulse
from drivers.roles import CellAbilities

SAME = 1e-9  # relative: limits are inclusive, and 40 uA is 0.04 mA


@dataclass(frozen=True)
class Bound:
    """One limit and whose it is."""

    value: float
    owner: str


@dataclass(frozen=True)
class CellWindow:
    """The limits that hold for a run: the tightest of station, chemistry and sample. For the guard."""

    temperature_low_k: float
    temperature_high_k: float
    temperature_rate_k_per_s: float
    voltage_low_v: float
    voltage_high_v: float
    current_a: float
    charge_coulomb: float
    dose_per_cm2: float
    dwell_s: float


def check_against(station: Station, experiment: Experiment | Partial) -> list[Problem]:
    """Return everything that this experiment asks of this station and may not have, in file order."""
    return in_file_order(_Check(station, experiment).all())


def check_files(station_path: FilePath | str, experiment_path: FilePath | str) -> tuple[Station, Experiment]:
    """Read both files and hold them against each other. Raises ConfigErrors with every problem of both."""
    problems: list[Problem] = []
    station: Station | None = None
    experiment: Experiment | Partial | None = None
    try:
        station = load_station(station_path)
    except ConfigErrors as error:
        problems += error.problems
    try:
        experiment = load_experiment(experiment_path)
    except ConfigErrors as error:
        problems += error.problems
        experiment = error.partial if isinstance(error.partial, Partial) else None
    if station is not None and experiment is not None:
        known = {(found.file, found.key) for found in problems}
        more = check_against(station, experiment)
        problems = [*problems, *(found for found in more if (found.file, found.key) not in known)]
    if problems or station is None or not isinstance(experiment, Experiment):
        raise ConfigErrors(problems)
    return station, experiment


def effective_limits(station: Station, experiment: Experiment | None) -> CellWindow:
    """Return the tightest limits: no experiment widens the station's, no file widens the chemistry's."""
    bounds = _Bounds(station, experiment.sample if experiment is not None else None)
    return CellWindow(
        temperature_low_k=bounds.temperature_low().value,
        temperature_high_k=bounds.temperature_high().value,
        temperature_rate_k_per_s=station.limits.temperature_rate_k_per_s,
        voltage_low_v=bounds.voltage_low().value,
        voltage_high_v=bounds.voltage_high().value,
        current_a=bounds.current().value,
        charge_coulomb=bounds.charge().value,
        dose_per_cm2=bounds.dose().value,
        dwell_s=station.limits.dwell_s,
    )


@dataclass(frozen=True)
class Cell:
    """The tightest limits of the cell."""

    voltage_low_v: float
    voltage_high_v: float
    current_a: float


class _Bounds:
    """The tightest limit of each quantity, with its owner in words."""

    def __init__(self, station: Station, sample: Sample | None) -> None:
        self.limits = station.limits
        self.sample = sample

    def temperature_low(self) -> Bound:
        own = self.sample.limits.temperature.low_k if self.sample else None
        return _highest(self.limits.temperature.low_k, own)

    def temperature_high(self) -> Bound:
        own = self.sample.limits.temperature.high_k if self.sample else None
        bound = _lowest(self.limits.temperature.high_k, own)
        chemistry = CHEMISTRIES.get(self.sample.chemistry) if self.sample else None
        if self.sample and chemistry and chemistry.temperature_high_k < bound.value:
            bound = Bound(
                chemistry.temperature_high_k, f"the limit for {self.sample.chemistry} ({chemistry.reason}),"
            )
        return bound

    def voltage_low(self) -> Bound:
        return _highest(self.limits.voltage.low_v, self.sample.limits.voltage.low_v if self.sample else None)

    def voltage_high(self) -> Bound:
        return _lowest(self.limits.voltage.high_v, self.sample.limits.voltage.high_v if self.sample else None)

    def current(self) -> Bound:
        return _lowest(self.limits.current_a, self.sample.limits.current_a if self.sample else None)

    def charge(self) -> Bound:
        return _lowest(self.limits.charge_coulomb, self.sample.limits.charge_coulomb if self.sample else None)

    def dose(self) -> Bound:
        return _lowest(self.limits.dose_per_cm2, self.sample.limits.dose_per_cm2 if self.sample else None)


def _lowest(station: float, own: float | None) -> Bound:
    return (
        Bound(own, "the sample's own limit")
        if own is not None and own < station
        else Bound(station, "the station limit")
    )


def _highest(station: float, own: float | None) -> Bound:
    return (
        Bound(own, "the sample's own limit")
        if own is not None and own > station
        else Bound(station, "the station limit")
    )


class _Check:
    def __init__(self, station: Station, experiment: Experiment | Partial) -> None:
        self.station = station
        self.source = experiment.source
        self.sample: Sample | None = experiment.sample
        self.analysis: Analysis | None = experiment.analysis
        self.table: Calibration | None = (
            experiment.calibration if isinstance(experiment, Experiment) else None
        )
        self.placed = list(walk(experiment.steps))
        self.bounds = _Bounds(station, self.sample)

    def all(self) -> Iterator[Problem]:
        """Yield every problem."""
        yield from self._roles()
        yield from self._total_charge()
        yield from self._analysis()
        yield from self._dose()
        yield from self._image_parts()
        origin = (0.0, 0.0)
        for placed in self.placed:
            step = placed.step
            for key, complaint, limit in cell_rules.complaints(step, self._able(), self._window()):
                yield self._broken(placed, key, complaint, limit)
            if isinstance(step, Heat | Cool):
                yield from self._temperature(placed, step)
            elif isinstance(step, CellStep):
                yield from self._cell(placed, step)
            elif isinstance(step, Pulse):
                yield from self._above(placed, "current", step.current_a, self.bounds.current(), "A")
            elif isinstance(step, ScanBase):
                yield from self._scan(placed, step, origin)
                if isinstance(step, Scan):
                    yield from self._mosaic(placed, step)
            elif isinstance(step, Move):
                origin = step.to_um
                yield from self._stage(placed, step)
            elif isinstance(step, Manual):
                yield from self._manual(placed, step, origin)

    def _able(self) -> CellAbilities | None:
        """What the potentiostat of the station can do, where its model says so."""
        found: CellAbilities | None = getattr(self.station.device("cell"), "abilities", None)
        return found

    def _window(self) -> Cell:
        bounds = self.bounds
        return Cell(bounds.voltage_low().value, bounds.voltage_high().value, bounds.current().value)

    def _broken(self, placed: Placed, key: str, complaint: str, limit: str = "") -> Problem:
        parts = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        return problem(self.source, (*placed.path, *parts), complaint, limit)

    def _above(
        self, placed: Placed, key: str, value: float | None, bound: Bound, unit: str
    ) -> Iterator[Problem]:
        if value is not None and value > bound.value + SAME * abs(bound.value):
            limit = show(bound.value, unit)
            yield self._broken(placed, key, f"is above {bound.owner} {limit}", limit)

    def _below(
        self, placed: Placed, key: str, value: float | None, bound: Bound, unit: str
    ) -> Iterator[Problem]:
        if value is not None and value < bound.value - SAME * abs(bound.value):
            limit = show(bound.value, unit)
            yield self._broken(placed, key, f"is below {bound.owner} {limit}", limit)

    def _roles(self) -> Iterator[Problem]:
        """The station has what the steps need."""
        roles = {"heater": ("heater",), "cell": ("cell",), "beam": ("scanner", "pixe", "pige")}
        for placed in self.placed:
            exposed = (placed.step.detector,) if isinstance(placed.step, Expose) else ()
            for role in (*roles.get(USES.get(placed.step.do, ""), ()), *exposed):
                if self.station.device(role) is None:
                    yield self._broken(
                        placed,
                        "do",
                        f"needs a {role}, and the station {self.station.name} has none in [roles]",
                    )

    def _image_parts(self) -> Iterator[Problem]:
        """What is to be looked at in the images lies on the camera."""
        camera = self.station.device("radiography")
        told = self.source.data.get("radiography")
        if not isinstance(camera, Camera) or not isinstance(told, Mapping):
            return
        places: list[tuple[tuple[str | int, ...], Any]] = [
            (("air",), told.get("air")),
            (("along",), told.get("along")),
        ]
        places += [(("region", i), one) for i, one in enumerate(told.get("region") or ())]
        sides = {"columns": camera.pixels[0], "rows": camera.pixels[1]}
        for path, place in places:
            for key, size in sides.items():
                ends = place.get(key) if isinstance(place, Mapping) else None
                if isinstance(ends, list) and any(isinstance(end, int) and end > size for end in ends):
                    text = f"reaches beyond the {size} {key} of the camera"
                    yield problem(self.source, ("radiography", *path, key), text, str(size))

    def _temperature(self, placed: Placed, step: Heat | Cool) -> Iterator[Problem]:
        high, low = self.bounds.temperature_high(), self.bounds.temperature_low()
        outside = [
            *self._above(placed, "to", step.to_k, high, "K"),
            *self._below(placed, "to", step.to_k, low, "K"),
        ]
        yield from outside
        if isinstance(step, Heat) and not outside and step.to_k + step.within_k > high.value * (1 + SAME):
            limit = show(high.value, "K")
            yield self._broken(
                placed,
                "within",
                f"reaches {show(step.to_k + step.within_k, 'K')}, above {high.owner} {limit}: the guard "
                "would trip inside the band",
                limit,
            )
        rate = Bound(self.station.limits.temperature_rate_k_per_s, "the station limit")
        yield from self._above(placed, "ramp", step.ramp_k_per_s, rate, "K/s")

    def _cell(self, placed: Placed, step: CellStep) -> Iterator[Problem]:
        bounds = self.bounds
        yield from self._above(placed, "current", step.current_a, bounds.current(), "A")
        for key, value in (("voltage", step.voltage_v), ("until.voltage", step.until.voltage_v)):
            yield from self._above(placed, key, value, bounds.voltage_high(), "V")
            yield from self._below(placed, key, value, bounds.voltage_low(), "V")
        yield from self._above(placed, "until.charge", step.until.charge_coulomb, bounds.charge(), "C")

    def _manual(self, placed: Placed, step: Manual, origin: tuple[float, float]) -> Iterator[Problem]:
        """What a manual step allows is there, and lies inside what nothing may widen."""
        bounds, stage = self.bounds, self.station.device("stage")
        for role in step.uses:
            if self.station.device(role) is None:
                text = f"needs a {role}, and the station {self.station.name} has none in [roles]"
                yield self._broken(placed, "do", text)
        if step.heater is not None:
            rate = Bound(self.station.limits.temperature_rate_k_per_s, "the station limit")
            yield from self._below(placed, "heater.low", step.heater.low_k, bounds.temperature_low(), "K")
            yield from self._above(placed, "heater.high", step.heater.high_k, bounds.temperature_high(), "K")
            yield from self._above(placed, "heater.ramp", step.heater.ramp_k_per_s, rate, "K/s")
        if step.cell is not None:
            yield from self._below(placed, "cell.low", step.cell.low_v, bounds.voltage_low(), "V")
            yield from self._above(placed, "cell.high", step.cell.high_v, bounds.voltage_high(), "V")
            yield from self._above(placed, "cell.current", step.cell.current_a, bounds.current(), "A")
            yield from self._above(placed, "cell.charge", step.cell.charge_coulomb, bounds.charge(), "C")
        if step.scan is not None:
            yield from self._scan(placed, step.scan_step(step.scan.passes), origin, within="scan.")
        if step.stage is not None and isinstance(stage, Zaber):
            for key, corner_um in (("low", step.stage.low_um), ("high", step.stage.high_um)):
                complaint = stage.outside(corner_um)
                if complaint is not None:
                    yield self._broken(placed, f"stage.{key}", complaint)

    def _total_charge(self) -> Iterator[Problem]:
        """Add up what the steps move if each runs to its end; the net charge must stay inside the limit."""
        bound = self.bounds.charge()
        for visit in visits(self.placed, self.sample):
            placed, planned = visit.placed, visit.once(self.sample)
            if planned is None:
                continue
            after = visit.net_coulomb + planned
            net = max(after + visit.ahead.least, after + visit.ahead.most, key=abs)
            if abs(net) > bound.value * (1 + SAME):
                limit = show(bound.value, "C")
                if abs(planned) > bound.value * (1 + SAME):
                    most = show(abs(planned), "C", 3)
                    text = f"could pass {most}, above {bound.owner} {limit}: give until.charge"
                else:
                    text = (
                        f"brings the charge passed to {show(abs(net), 'C', 3)}, above {bound.owner} {limit}"
                    )
                yield problem(self.source, placed.path, text, limit)
                return

    def _scan(
        self, placed: Placed, step: ScanBase, origin: tuple[float, float], *, within: str = ""
    ) -> Iterator[Problem]:
        longest = Bound(self.station.limits.dwell_s, "the station limit")
        yield from self._above(placed, f"{within}raster.dwell", step.raster.dwell_s, longest, "s")
        box = self.station.device("scanner")
        if not isinstance(box, LabJack) or box.scanner is None:
            return
        for index, axis in enumerate(("x", "y")):
            low, high = box.scanner.reach_um("x" if axis == "x" else "y")
            middle = step.raster.centre_um[index] + origin[index]
            half = step.raster.size_um[index] / 2.0
            if middle - half < low - SAME or middle + half > high + SAME:
                reach = f"{show(low, 'um')} to {show(high, 'um')}"
                yield self._broken(
                    placed,
                    f"{within}raster.size.{index}",
                    f"is outside the field of the beam: it would reach from {show(middle - half, 'um')} to "
                    f"{show(middle + half, 'um')} in {axis}, the deflection only from {reach}",
                    reach,
                )

    def _stage(self, placed: Placed, step: Move) -> Iterator[Problem]:
        """The stage is there, and may go where it is sent."""
        stage = self.station.device("stage")
        if step.stage_um is None and not step.home:
            return
        key = "stage" if step.stage_um is not None else "home"
        if stage is None:
            yield self._broken(placed, key, "needs a stage, and [roles] of the station names none")
        elif step.stage_um is not None and isinstance(stage, Zaber):
            complaint = stage.outside(step.stage_um)
            if complaint is not None:
                yield self._broken(placed, key, complaint)

    def _mosaic(self, placed: Placed, step: Scan) -> Iterator[Problem]:
        """Every tile can be reached, and the reference scan is not one."""
        if step.mosaic is None:
            return
        stage = self.station.device("stage")
        if stage is None:
            yield self._broken(placed, "mosaic", "needs a stage, and [roles] of the station names none")
        elif self.analysis is not None and self.analysis.reference == step.name:
            yield self._broken(placed, "mosaic", "cannot be that of the reference scan: it is an overview")
        elif isinstance(stage, Zaber):
            for tile in step.mosaic.walk(step.raster):
                complaint = stage.outside(stage.beside_um(step.mosaic.centre_um, tile.shift_um))
                if complaint is not None:
                    where = f"tile {tile.column + 1}, {tile.row + 1}"
                    yield self._broken(placed, "mosaic.centre", f"{complaint} for {where}")
                    return

    def _dose(self) -> Iterator[Problem]:
        """The dose of all scans together, at the place that gets most, stays below the limit."""
        if self.station.beam is None:
            return
        plan = DosePlan(self.station.beam.current_a, self.station.beam.spot_um, self.station.device("stage"))
        bound = self.bounds.dose()
        for placed, total in plan.running_maximum(self.placed):
            if total > bound.value * (1 + SAME):
                limit = show(bound.value, "1/cm2")
                yield problem(
                    self.source,
                    (*placed.path, "raster"),
                    f"brings the dose at its worst place to {show(total, '1/cm2', 3)}, above {bound.owner} "
                    f"{limit}: scan a larger field, or for a shorter time",
                    limit,
                )
                return

    def _analysis(self) -> Iterator[Problem]:
        """Energy windows lie on the detectors, and the calibration belongs to this beam."""
        beam = self.station.beam
        if self.table is not None and beam is not None:
            faults = []
            if abs(self.table.energy_kev - beam.sample_kev) > ENERGY_TOLERANCE_KEV:
                have, need = show(beam.sample_kev, "keV"), show(self.table.energy_kev, "keV")
                faults.append(f"the beam behind the foil has {have} instead of {need}")
            if abs(self.table.angle_deg - beam.pige_angle_deg) > ANGLE_TOLERANCE_DEG:
                have, need = show(beam.pige_angle_deg, "deg"), show(self.table.angle_deg, "deg")
                faults.append(f"the gamma detector stands at {have} instead of {need}")
            if faults:
                yield problem(
                    self.source,
                    ("analysis", "calibration"),
                    f"does not apply to this station: {'; '.join(faults)}",
                )
        for index, line in enumerate(self.analysis.lines if self.analysis else ()):
            device = self.station.device(line.detector)
            named = [("window", line.window_kev)] if line.window_kev else []
            bands = [*named, *((f"background.{i}", band) for i, band in enumerate(line.background_kev or ()))]
            for key, (_, high) in bands:
                if isinstance(device, Amptek) and high > device.highest_kev * (1 + SAME):
                    limit = show(device.highest_kev, "keV")
                    parts = tuple(int(part) if part.isdigit() else part for part in key.split("."))
                    yield problem(
                        self.source,
                        ("analysis", "line", index, *parts),
                        f"ends above the spectrum of {line.detector}, {limit}",
                        limit,
                    )
