"""What each step of an experiment will take and give, by kind: time, passes, images, pulses, charge, dose.

No kind is silently nothing: what cannot be foreseen takes its timeout, and ``timing.assumptions`` says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.config.course import Visit, visits
from controller.config.dose import DosePlan, fluence_per_cm2
from controller.config.experiment import Experiment, Placed
from controller.config.exposures import Expose
from controller.config.instruments.camera import Camera
from controller.config.instruments.hexitec import Hexitec
from controller.config.instruments.labjack import LabJack
from controller.config.instruments.zaber import Zaber
from controller.config.manual import Manual
from controller.config.quantities import show
from controller.config.sample import Layer, Sample
from controller.config.scans import Raster, Scan, ScanBase
from controller.config.station import Station
from controller.config.steps import CONTAINERS, Impedance, Pulse, Step
from controller.config.timing import (
    Timing,
    longest_s,
    pass_time,
)

FRAME_ROLES = ("compton", "radiography")
WHOLE = 100.0  # passes, images: from here on no tenths are told


@dataclass(frozen=True)
class StepEstimate:
    """One step, once (mean of its turns): how long, what is counted, what it does to cell and sample."""

    key: str
    do: str
    name: str
    purpose: str
    expected_s: float
    longest_s: float
    passes: float = 0.0
    dominates: str = ""
    times: int = 1  # because of the repetitions around it
    images: float = 0.0
    pulses: int = 0
    points: int = 0  # frequencies of a sweep
    charge_coulomb: float | None = None  # signed; None: the step passes none, or nothing bounds it
    dose_per_cm2: float = 0.0  # at most, by this step alone, all repetitions


def share_of(layer: Layer, sample: Sample) -> float:
    """Return the part of the field that a layer fills; equal parts where the file does not say."""
    return layer.in_field if layer.in_field is not None else 1.0 / len(sample.layers)


def tiles_of(step: Step) -> int:
    """Return the number of tiles of a scan: one, if it is no mosaic."""
    mosaic = step.mosaic if isinstance(step, Scan) else None
    return 1 if mosaic is None else mosaic.tiles[0] * mosaic.tiles[1]


def timing_of(station: Station, experiment: Experiment, speed: float = 1.0) -> Timing:
    """Return what durations follow from: ``check``, page and report compute them alike."""
    sample, beam, stage = experiment.sample, station.beam, station.device("stage")
    box = station.device("scanner")
    rate_hz = beam.rates.lithium_hz if beam is not None else 0.0
    hosts = sample.hosts
    mean_hz = sum(rate_hz * share_of(layer, sample) for layer in hosts) if hosts else rate_hz

    def fluence_hz(raster: Raster) -> float:
        return math.nan if beam is None else fluence_per_cm2(raster, 1.0, beam.current_a, beam.spot_um)

    return Timing(
        sample=sample,
        settle_s=box.scanner.settle_s if isinstance(box, LabJack) and box.scanner else 0.0,
        lithium_hz=mean_hz,
        speed=speed,
        frame_s=_frame_s(station),
        fluence_hz=None if beam is None else fluence_hz,
        stage=stage if isinstance(stage, Zaber) else None,
    )


def step_estimates(station: Station, experiment: Experiment, timing: Timing) -> Iterator[StepEstimate]:
    """Yield every step in the order of the file, containers before what they hold.

    Args:
        station: what stands on the bench.
        experiment: what is to be done.
        timing: of both, as ``timing_of`` gives it.
    """
    beam = station.beam
    placed_steps = list(experiment.walk())
    found: dict[str, list[Visit]] = {}
    for visit in visits(placed_steps, experiment.sample):
        found.setdefault(visit.placed.key, []).append(visit)
    for placed in placed_steps:
        step, its = placed.step, found[placed.key]
        dose = 0.0
        if beam is not None:
            plan = DosePlan(beam.current_a, beam.spot_um, station.device("stage"))
            dose = max((total for _, total in plan.running_maximum([placed])), default=0.0)
        timed = pass_time(step.raster, timing.settle_s, timing.speed) if isinstance(step, ScanBase) else None
        yield StepEstimate(
            key=placed.key,
            do=step.do,
            name=step.name or "",
            purpose=experiment.purpose(placed),
            expected_s=_mean(its, [timing.expected_s(placed, v.start_k, v.net_coulomb) for v in its]),
            longest_s=_longest_s(placed),
            passes=_mean(its, [_passes(timing, placed, v.net_coulomb) for v in its]),
            dominates="" if timed is None else timed.dominates,
            times=placed.repeats,
            images=timing.exposure(step)[1] if isinstance(step, Expose) else 0.0,
            pulses=step.times if isinstance(step, Pulse) else 0,
            points=step.points if isinstance(step, Impedance) else 0,
            charge_coulomb=_charge(its, experiment.sample),
            dose_per_cm2=dose,
        )


def by_kind(steps: Sequence[StepEstimate]) -> list[str]:
    """Return a line for each kind of step: how many, how long, what is counted, what is passed, dose."""
    kinds: dict[str, list[StepEstimate]] = {}
    for step in steps:
        if step.do not in CONTAINERS:
            kinds.setdefault(step.do, []).append(step)
    return [f"{kind}: {', '.join(_parts(found))}" for kind, found in kinds.items()]


# --- inside --------------------------------------------------------------------------------------------


def _longest_s(placed: Placed) -> float:
    """A scan that follows the steps beside it lasts as long as they do."""
    if isinstance(placed.step, ScanBase) and placed.step.until is None:
        return max((longest_s(one) for one in placed.companions), default=0.0)
    return longest_s(placed.step)


def _mean(its: Sequence[Visit], values: Sequence[float]) -> float:
    """Return the mean over all turns."""
    times = sum(visit.times for visit in its)
    return math.fsum(visit.times * value for visit, value in zip(its, values, strict=True)) / times


def _charge(its: Sequence[Visit], sample: Sample) -> float | None:
    charges = [visit.once(sample) for visit in its]
    known = [charge for charge in charges if charge is not None]
    return _mean(its, known) if len(known) == len(charges) else None


def _passes(timing: Timing, placed: Placed, net_coulomb: float) -> float:
    if isinstance(placed.step, Manual):
        return 0.0 if placed.step.scan is None else float(placed.step.scan.passes)
    return timing.passes(placed, net_coulomb)


def _parts(steps: Sequence[StepEstimate]) -> Iterator[str]:
    number = sum(step.times for step in steps)
    yield f"{number} step{'s' if number != 1 else ''}"
    yield show(sum(step.times * step.expected_s for step in steps), "s", 3)
    for what, total in (
        ("passes", sum(step.times * step.passes for step in steps)),
        ("images", sum(step.times * step.images for step in steps)),
        ("pulses", sum(step.times * step.pulses for step in steps)),
        ("frequencies", sum(step.times * step.points for step in steps)),
    ):
        if total:
            yield f"{total:.1f} {what}" if total != round(total) and total < WHOLE else f"{total:.0f} {what}"
    charges = [step.times * step.charge_coulomb for step in steps if step.charge_coulomb]
    if charges:
        yield show(math.fsum(charges), "C", 3)
    dose = max(step.dose_per_cm2 for step in steps)
    if dose:
        yield f"at most {show(dose, '1/cm2', 2)} in one of them"


def _frame_s(station: Station) -> dict[str, float]:
    """Return the time from one frame to the next of every frame detector, by role."""
    found = {}
    for role in FRAME_ROLES:
        device = station.device(role)
        if isinstance(device, Camera):
            found[role] = device.exposure_s
        elif isinstance(device, Hexitec):
            found[role] = 1.0 / device.frame_rate_hz
    return found
