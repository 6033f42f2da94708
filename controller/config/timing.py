"""How long steps take and how much charge they pass: expected, and at the longest.

Nothing here measures: a cell that takes less current than asked for needs longer, up to the timeout. What had
to be assumed stands below as constants and is repeated by ``assumptions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controller.config.experiment import Placed
from controller.config.exposures import Expose
from controller.config.instruments.zaber import Zaber
from controller.config.manual import Manual
from controller.config.sample import Sample
from controller.config.scans import Raster, Scan, ScanBase
from controller.config.steps import (
    CellStep,
    Cool,
    Heat,
    Impedance,
    Message,
    Move,
    Parallel,
    Pulse,
    Repeat,
    Step,
)

AMBIENT_K = 298.0
COOLING_S = 600.0  # time constant of a small sealed holder left to itself
APPROACH_S = 150.0  # from the end of a ramp into the band
LINE_WALL_S = 0.002  # to start a line that is already loaded
PASS_WALL_S = 0.3  # counters, FIFO and files between two passes
EIS_PERIODS = 3.0  # periods measured at each frequency
COUNTS_PER_LITHIUM = {"Li": 1.0, "Co": 13.1}  # Co/Li of the paper's operando cell, 13.1 +- 0.2
TILE_S = 3.0  # from one tile to the next: shutter, stage, and a look at it
MOVE_LONGEST_S = 60.0  # the usual timeout of a stage
MOST_TURNS = 30  # of a repetition that are followed one by one; the others are taken to be like the last
SAME_COULOMB = 1e-9
STAGE_UM_PER_S = 1e4  # of a stage that is sent a long way; its own speed is not in the station file


@dataclass(frozen=True)
class PassTime:
    """Where the time of one pass goes, lab seconds."""

    beam_s: float
    parked_s: float  # settling, the parking pulse of each line
    handling_s: float  # refills, counters, files: wall time, hence more lab time on a fast bench

    @property
    def total_s(self) -> float:
        """The whole pass."""
        return self.beam_s + self.parked_s + self.handling_s

    @property
    def dominates(self) -> str:
        """Return what takes most of the time, in words."""
        parts = {
            "beam": self.beam_s,
            "parking": self.parked_s,
            "handling between lines and passes": self.handling_s,
        }
        name = max(parts, key=lambda part: parts[part])
        return f"{name} ({100.0 * parts[name] / self.total_s:.0f} %)"


def pass_time(raster: Raster, settle_s: float, speed: float = 1.0) -> PassTime:
    """Return the time of one pass.

    beam = nx ny dwell; parked = ny (settle + dwell); handling = speed (ny LINE_WALL_S + PASS_WALL_S).
    """
    _, ny = raster.pixels
    return PassTime(
        beam_s=raster.scan().pass_s,
        parked_s=ny * (settle_s + raster.dwell_s),
        handling_s=speed * (ny * LINE_WALL_S + PASS_WALL_S),
    )


@dataclass(frozen=True)
class Timing:
    """Durations of the steps of an experiment on a station."""

    sample: Sample
    settle_s: float
    lithium_hz: float  # mean over a raster, for counting goals
    speed: float = 1.0
    frame_s: Mapping[str, float] = field(default_factory=dict)  # by role: from one frame to the next
    fluence_hz: Callable[[Raster], float] | None = None  # protons per cm2 in a second of beam
    stage: Zaber | None = None

    def expected_s(self, placed: Placed, start_k: float = AMBIENT_K, net_coulomb: float = 0.0) -> float:
        """Return the expected duration of a step, lab seconds.

        Args:
            placed: the step.
            start_k: temperature before it.
            net_coulomb: what has passed before it since the start of the experiment, charging positive.
        """
        step = placed.step
        if isinstance(step, Heat):
            return min(
                step.timeout_s, abs(step.to_k - start_k) / step.ramp_k_per_s + APPROACH_S + step.stable_s
            )
        if isinstance(step, Cool):
            return min(step.timeout_s, _cooling_s(step, start_k))
        if isinstance(step, CellStep):
            return self._cell_s(placed, step.current_a, net_coulomb, falls=step.mode == "cccv")
        if isinstance(step, ScanBase):
            return self._scan_s(placed, step, net_coulomb)
        if isinstance(step, Impedance):
            return min(step.timeout_s, _sweep_s(step))
        if isinstance(step, Expose):
            return self.exposure(step)[0]
        if isinstance(step, Parallel | Repeat):
            return self._inside_s(step, start_k, net_coulomb)
        if isinstance(step, Move):
            return self._move_s(step)
        return longest_s(step)

    def _inside_s(self, step: Parallel | Repeat, start_k: float, net_coulomb: float) -> float:
        """The longest of steps side by side; turns one after the other, each from where the last one left."""
        inside = [Placed(("step", 0, "step", k), one, (step,)) for k, one in enumerate(step.steps)]
        if isinstance(step, Parallel):
            return max(self.expected_s(one, start_k, net_coulomb) for one in inside)
        total, now_k = 0.0, start_k
        for before, alike, delta in turns(step, self.sample, net_coulomb):
            for start, number in ((before, 1), (before + delta, alike - 1)):
                net = start
                for one in inside if number else ():  # from the second on they begin as warm as the others
                    total += number * self.expected_s(one, now_k, net)
                    now_k = after_k(one.step, now_k)
                    net += charge_of([one.step], self.sample, net)
        return total

    def _move_s(self, step: Move) -> float:
        """A new origin costs nothing; a stage comes from the centres of its axes, or looks for home."""
        if self.stage is None or (step.stage_um is None and not step.home):
            return 0.0
        axes = list(self.stage.axes.values())
        ways = [abs(to - axis.centre_um) for to, axis in zip(step.stage_um or (), axes, strict=False)]
        ways += [2.0 * (axis.high_um - axis.low_um) for axis in axes] if step.home else []
        return min(TILE_S + max(ways, default=0.0) / STAGE_UM_PER_S, self.stage.move_timeout_s)

    def exposure(self, step: Expose) -> tuple[float, float]:
        """Return seconds and frames of an exposure; one that ends on counts is taken to need its timeout."""
        until, frame_s = step.until, self.frame_s.get(step.detector)
        ends = [step.timeout_s]
        if until.duration_s is not None:
            ends.append(until.duration_s)
        if until.frames is not None and frame_s is not None:
            ends.append(until.frames * frame_s)
        seconds = min(ends)
        frames = math.inf if until.frames is None else float(until.frames)
        return seconds, 0.0 if frame_s is None else min(frames, seconds / frame_s)

    def passes(self, placed: Placed, net_coulomb: float = 0.0) -> float:
        """Return the expected number of passes of a scan (not whole where time ends it)."""
        step = placed.step
        if not isinstance(step, ScanBase):
            return 0.0
        mosaic = step.mosaic if isinstance(step, Scan) else None
        tiles = 1 if mosaic is None else mosaic.tiles[0] * mosaic.tiles[1]
        return (
            tiles
            * self._raster_s(placed, step, net_coulomb)
            / pass_time(step.raster, self.settle_s, self.speed).total_s
        )

    def _cell_s(self, placed: Placed, current_a: float | None, net_coulomb: float, *, falls: bool) -> float:
        """The time that the planned charge needs at full current; CC-CV half-way from there to its limit."""
        longest = longest_s(placed.step)
        planned = planned_charge_coulomb(Placed(placed.path, placed.step), self.sample, net_coulomb)
        if current_a is None or planned is None:
            return longest
        full_s = min(longest, abs(planned) / current_a)
        return (full_s + longest) / 2.0 if falls else full_s

    def _scan_s(self, placed: Placed, step: ScanBase, net_coulomb: float) -> float:
        mosaic = step.mosaic if isinstance(step, Scan) else None
        if mosaic is not None:
            tiles = mosaic.tiles[0] * mosaic.tiles[1]
            return tiles * (self._raster_s(placed, step, net_coulomb) + TILE_S)
        return self._raster_s(placed, step, net_coulomb)

    def _raster_s(self, placed: Placed, step: ScanBase, net_coulomb: float) -> float:
        if step.until is None:
            together = [
                one for one in placed.companions if not (isinstance(one, ScanBase) and one.until is None)
            ]
            ends_s = (self.expected_s(Placed(placed.path, one), AMBIENT_K, net_coulomb) for one in together)
            return max(ends_s, default=0.0)
        one_pass = pass_time(step.raster, self.settle_s, self.speed)
        ends = [step.timeout_s] if step.timeout_s is not None else []
        if step.until.duration_s is not None:
            ends.append(step.until.duration_s)
        if step.until.passes is not None:
            ends.append(step.until.passes * one_pass.total_s)
        if step.until.counts is not None and step.until.counts.element in COUNTS_PER_LITHIUM:
            rate_hz = self.lithium_hz * COUNTS_PER_LITHIUM[step.until.counts.element]
            wanted_s = step.until.counts.at_least / rate_hz
            ends.append(math.ceil(wanted_s / one_pass.beam_s) * one_pass.total_s)
        if step.until.dose_per_cm2 is not None and self.fluence_hz is not None:
            wanted_s = step.until.dose_per_cm2 / self.fluence_hz(step.raster)
            ends.append(math.ceil(wanted_s / one_pass.beam_s) * one_pass.total_s)
        return min(ends)


def after_k(step: Step, before_k: float) -> float:
    """Return the temperature that a step leaves behind."""
    if isinstance(step, Heat | Cool):
        return step.to_k
    if isinstance(step, Repeat | Parallel):
        for one in step.steps:
            before_k = after_k(one, before_k)
    return before_k


def longest_s(step: Step) -> float:
    """Return the longest a step can take by its own file, lab seconds."""
    if isinstance(step, CellStep):
        return min(step.timeout_s, step.until.duration_s or step.timeout_s)
    if isinstance(step, Pulse):
        return step.times * (step.on_s + step.rest_s)
    if isinstance(step, Parallel):
        return max(longest_s(one) for one in step.steps)
    if isinstance(step, Repeat):
        return step.times * sum(longest_s(one) for one in step.steps)
    if isinstance(step, Scan) and step.mosaic is not None:
        return step.mosaic.tiles[0] * step.mosaic.tiles[1] * ((step.timeout_s or 0.0) + TILE_S)
    if isinstance(step, Message):
        return (step.timeout_s or 0.0) if step.wait else 0.0
    if isinstance(step, Move) and (step.stage_um is not None or step.home):
        return MOVE_LONGEST_S
    bound: float | None = getattr(step, "timeout_s", None)
    return bound if bound is not None else float(getattr(step, "duration_s", 0.0))


def planned_charge_coulomb(placed: Placed, sample: Sample | None, net_coulomb: float = 0.0) -> float | None:
    """Return the charge a step passes if it runs to its end, charging positive; None when nothing bounds it.

    The smallest of the charge limit, current times the longest duration, and the charge from ``net_coulomb``
    (passed before, counted from the start) to the state of charge asked for; times the repetitions around it.
    """
    step = placed.step
    if isinstance(step, Pulse):
        sign = 1.0 if step.direction == "charge" else -1.0
        return sign * step.current_a * step.on_s * step.times * placed.repeats
    if isinstance(step, Manual):  # either way, so away from where the cell began
        most = None if step.cell is None else step.cell.charge_coulomb * placed.repeats
        return None if most is None else math.copysign(most, net_coulomb)
    if isinstance(step, Impedance):
        return (
            step.current_a * min(step.timeout_s, _sweep_s(step)) * placed.repeats if step.current_a else None
        )
    if not isinstance(step, CellStep):
        return None
    sign = -1.0 if step.do == "discharge" else 1.0
    ends = []
    if step.until.charge_coulomb is not None:
        ends.append(step.until.charge_coulomb)
    if step.current_a is not None:
        ends.append(step.current_a * longest_s(step))
    if step.until.soc is not None and sample is not None:
        now = sample.soc * sample.capacity_coulomb + net_coulomb
        ends.append(max(sign * (step.until.soc * sample.capacity_coulomb - now), 0.0))
    return sign * min(ends) * placed.repeats if ends else None


def charge_of(steps: Sequence[Step], sample: Sample | None, net_coulomb: float) -> float:
    """Return the charge that passes when steps run one after the other, charging positive, C."""
    total = 0.0
    for step in steps:
        now = net_coulomb + total
        if isinstance(step, Repeat):
            total += sum(alike * delta for _, alike, delta in turns(step, sample, now))
        elif isinstance(step, Parallel):
            total += sum(charge_of([one], sample, now) for one in step.steps)
        else:
            total += planned_charge_coulomb(Placed(("step", 0), step), sample, now) or 0.0
    return total


def turns(step: Repeat, sample: Sample | None, net_coulomb: float) -> Iterator[tuple[float, int, float]]:
    """Yield what had passed before a turn, how many turns are alike from there on, and what each passes.

    Only a state of charge to end on makes turns differ: a cell that begins empty takes more in the first.
    """
    asks = _ends_on_soc(step)
    turn = 0
    while turn < step.times:
        delta = charge_of(step.steps, sample, net_coulomb)
        alike = 1 if asks and abs(delta) > SAME_COULOMB and turn < MOST_TURNS else step.times - turn
        yield net_coulomb, alike, delta
        turn += alike
        net_coulomb += alike * delta


def _ends_on_soc(step: Step) -> bool:
    if isinstance(step, Repeat | Parallel):
        return any(_ends_on_soc(one) for one in step.steps)
    return isinstance(step, CellStep) and step.until.soc is not None


def assumptions(steps: Iterable[Placed]) -> list[str]:
    """Return in plain words what the durations assume."""
    placed_steps = list(steps)
    kinds = {type(placed.step) for placed in placed_steps}
    found = []
    if Heat in kinds:
        found.append(
            f"heating begins at {AMBIENT_K:.0f} K and needs {APPROACH_S:.0f} s from the ramp into the band"
        )
    if Cool in kinds:
        found.append(f"the holder cools by itself with a time constant of {COOLING_S / 60.0:.0f} min")
    if any(issubclass(kind, CellStep) for kind in kinds):
        found.append("charging takes its time at full current, CC-CV half-way from there to its limit")
    if any(isinstance(one.step, Move) and longest_s(one.step) for one in placed_steps):
        found.append(f"the stage moves {STAGE_UM_PER_S / 1e3:g} mm/s, from the centres of its axes")
    if any(isinstance(one.step, Message) and one.step.wait for one in placed_steps):
        found.append("a question is answered at the end of its timeout")
    if Manual in kinds:
        found.append("a manual step takes its whole timeout")
    exposed = [
        one.step for one in placed_steps if isinstance(one.step, Expose) and one.step.purpose != "dark"
    ]
    if exposed:
        found.append("the dose of exposures is not known: their beam is not in the station file")
    if any(step.detector == "compton" for step in exposed):
        found.append("1 % of the pixels of a photon-counting camera have a hit in a frame")
    for one in placed_steps:
        unforeseen = _unforeseen(one.step)
        if unforeseen:
            name = one.step.name or one.step.do
            found.append(
                f'"{name}" may end earlier, on {unforeseen}; that is not foreseen: its timeout is taken'
            )
    return found


def _unforeseen(step: Step) -> str:
    """Return what a step ends on that cannot be computed beforehand, if that alone ends it; else nothing."""
    if isinstance(step, Expose):
        until = step.until
        goals: dict[str, object] = {"counts": until.counts, "uncertainty": until.uncertainty}
        known: bool = until.frames is not None or until.duration_s is not None
    elif isinstance(step, ScanBase) and step.until is not None:
        scan = step.until
        rare = scan.counts is not None and scan.counts.element not in COUNTS_PER_LITHIUM
        goals = {"counts": scan.counts if rare else None, "uncertainty": scan.uncertainty}
        known = any(end is not None for end in (scan.passes, scan.duration_s, scan.dose_per_cm2)) or (
            scan.counts is not None and not rare
        )
    else:
        return ""
    return "" if known else " or ".join(name for name, goal in goals.items() if goal is not None)


def _cooling_s(step: Cool, start_k: float) -> float:
    """T(t) = ambient + (start - ambient) exp(-t / COOLING_S), until the target's band is reached."""
    if step.ramp_k_per_s is not None:
        return abs(start_k - step.to_k) / step.ramp_k_per_s + APPROACH_S
    end_k = step.to_k + step.within_k
    if start_k <= end_k:
        return 0.0
    if end_k <= AMBIENT_K:
        return step.timeout_s
    return COOLING_S * math.log((start_k - AMBIENT_K) / (end_k - AMBIENT_K))


def _sweep_s(step: Impedance) -> float:
    decades = math.log10(step.stop_hz / step.start_hz)
    exponents = (decades * index / (step.points - 1) for index in range(step.points))
    return sum(EIS_PERIODS / (step.start_hz * math.pow(10.0, exponent)) for exponent in exponents)
