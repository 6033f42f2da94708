"""``operando reduce cycling``: logs of cyclers to capacities, efficiencies, CC and CV parts, dQ/dV."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline import cycling_parts
from controller.offline.cycling_bdf import write_bdf
from controller.offline.cycling_text import text_of
from controller.offline.technique import Array, Axis, Job, Merge, Problems, Technique
from controller.offline.values import estimated, finite, quantity
from drivers.files import cycler_log
from drivers.files.cycler_log import CyclerLog
from drivers.files.errors import FileError
from edge.cycling import Accuracy, Amount, CyclingReducer, Records, StepResult
from edge.cycling_checks import (
    SignCheck,
    TimeCheck,
    check_signs,
    check_times,
    converter_step,
    sensors_checked,
)
from edge.cycling_control import voltage_noise
from edge.cycling_cycles import (
    Cycle,
    HalfCycle,
    depth_at_switch,
    first_direction,
    half_cycles,
    pair_cycles,
)
from edge.cycling_incremental import Incremental, incremental_capacity

Floats = NDArray[np.float64]
WORDS = {1: "charge", -1: "discharge", 0: "rest"}
CHUNK = 1 << 16  # records


@dataclass(frozen=True)
class Options:
    """What a person chose."""

    window_v: float = 0.01
    first: int | None = None
    gain: float = 0.0
    offset_a: float = 0.0
    mass_g: float | None = None
    capacity_ah: float | None = None
    bdf: Path | None = None


@dataclass(frozen=True)
class Curve:
    """Charge and voltage of one step, and its incremental capacity where it has one."""

    step: StepResult
    charge_ah: Floats
    voltage_v: Floats
    incremental: Incremental | None


class CyclingReport:
    """One log, reduced."""

    def __init__(self, log: CyclerLog, options: Options) -> None:
        self.log, self.options = log, options
        self.accuracy = Accuracy(
            current_gain=options.gain, current_offset_a=options.offset_a,
            current_resolution_a=log.current_resolution_a,
            voltage_resolution_v=converter_step(log.voltage_v, log.voltage_resolution_v),
            time_resolution_s=log.time_resolution_s, counter_resolution_ah=log.counter_resolution_ah,
        )  # fmt: skip
        reducer = CyclingReducer()
        for number, chunk in enumerate(_chunks(log)):
            reducer.add(number, chunk)
        self.records, self.steps = reducer.result(self.accuracy)
        if not any(one.state for one in self.steps):
            raise ValueError("no step charges or discharges")
        self.first = options.first or first_direction(self.steps)
        self.cycles, self.lead = pair_cycles(half_cycles(self.steps), self.first)
        self.signs: SignCheck = check_signs(self.records, self.steps)
        self.times: TimeCheck = check_times(self.records, log.clock_s)
        self.sensors = sensors_checked(log.sensors)
        self.curves = [self._curve(one) for one in self.steps if one.state and one.n > 1]
        self.flags = _flags(self)
        self.data: Mapping[str, Any] = _data(self)
        self.text = text_of(self)

    @property
    def unfinished(self) -> bool:
        """Whether the log stops in the middle of a charge or discharge."""
        return self.steps[-1].state != 0

    def _curve(self, one: StepResult) -> Curve:
        cut = slice(one.first, one.last)
        t, i, v = self.records.time_s[cut], np.abs(self.records.current_a[cut]), self.records.voltage_v[cut]
        charge = np.concatenate([[0.0], np.cumsum(np.diff(t) * (i[1:] + i[:-1]) / 2.0)]) / 3600.0
        found = None
        if one.control in ("CC", "CC-CV"):
            end = one.switch.record if one.switch is not None else one.n
            noise = voltage_noise(v[:end], self.accuracy.voltage_resolution_v)
            if end >= 20 and noise > 0:
                found = incremental_capacity(charge[:end], v[:end], self.options.window_v, noise)
        return Curve(one, charge, v, found)

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield the pictures."""
        from controller.offline.figures_cycling import draw

        yield from draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield incremental capacities and the capacities of the cycles."""
        for curve in self.curves:
            if curve.incremental is not None:
                one, number = curve.incremental, self.steps.index(curve.step) + 1
                axis = (Axis("voltage", one.voltage_v, "V"),)
                title = f"dQ/dV of step {number}, {WORDS[curve.step.state]}, windows of {one.window_v:g} V"
                sigma = np.hypot(one.sigma_stat, one.sigma_smooth)
                yield Array(f"incremental_{number:04d}", one.value, "Ah/V", sigma, axis, title)
        into = np.array([c.into.capacity.value for c in self.cycles])
        out = np.array([c.out.capacity.value if c.out else math.nan for c in self.cycles])
        axis = (Axis("cycle", np.arange(1.0, into.size + 1), ""),)
        yield Array("capacity_in", into, "Ah", axes=axis, title=f"{WORDS[self.first]} capacity of each cycle")
        yield Array(
            "capacity_out", out, "Ah", axes=axis, title=f"{WORDS[-self.first]} capacity of each cycle"
        )


def _chunks(log: CyclerLog) -> Iterator[Records]:
    def cut(values: Floats | None, part: slice) -> Floats | None:
        return None if values is None else values[part]

    for first in range(0, log.n, CHUNK):
        part = slice(first, first + CHUNK)
        yield Records(
            log.time_s[part], log.current_a[part], log.voltage_v[part], log.cycle[part], log.step[part],
            log.state[part], cut(log.step_time_s, part), cut(log.counter_ah, part), cut(log.counter_wh, part),
        )  # fmt: skip


def _flags(report: CyclingReport) -> list[str]:
    flags = []
    if not report.signs.verdict.startswith("agrees"):
        flags.append(f"sign of the current: {report.signs.verdict}")
    if report.times.backward:
        flags.append(f"time runs backward at records {list(report.times.backward[:5])}")
    if report.times.repeated:
        flags.append(f"{report.times.repeated} records have the time of the one before")
    flags += [
        f"wall clock gains {gained:+.0f} s over the test time at record {k}"
        for k, gained in report.times.clock_jumps[:5]
    ]
    for number, one in enumerate(report.steps, 1):
        if one.state and one.gaps:
            flags.append(
                f"step {number}: {len(one.gaps)} gaps in the samples, the longest {max(one.gaps):.0f} s"
            )
        if one.counter_ah is not None and one.state and one.counter_sigma_ah > 0:
            z = (one.capacity.value - one.counter_ah) / one.counter_sigma_ah
            if abs(z) > 5:
                flags.append(f"step {number}: capacity and the cycler's counter differ by {z:+.1f} sigma")
    missing = [name for name, what in report.sensors.items() if what == "not connected"]
    if missing:
        flags.append(
            f"not connected: {len(missing)} of {len(report.log.sensors)} sensors ({missing[0]}, ...)"
        )
    flags += [f"{name}: {what}" for name, what in report.sensors.items() if what != "not connected"]
    if report.unfinished:
        flags.append("the log ends in the middle of its last step: the last cycle is not complete")
    return flags


def _amount(one: Amount, unit: str) -> dict[str, Any]:
    e = one.estimate(unit)
    return quantity(e.value, e.sigma_stat, e.sigma_sys, unit) | {
        "parts": {"sampling": one.sampling, "gain": one.gain, "offset": one.offset, "gap": one.gap}
    }


def _data(report: CyclingReport) -> dict[str, Any]:
    log, options = report.log, report.options
    return {
        "file": log.path.name, "program": log.program, "title": log.title, "records": log.n,
        "signs": {
            "as_recorded": log.signs, "here": "current is positive when it charges the cell",
            "check": report.signs.verdict, "steps_agree": report.signs.agree,
            "steps_disagree": list(report.signs.contradicting),
        },
        "accuracy": {
            "current_gain": options.gain, "current_offset_a": options.offset_a,
            "current_resolution_a": log.current_resolution_a,
            "voltage_converter_step_v": report.accuracy.voltage_resolution_v,
            "stated": bool(options.gain or options.offset_a),
        },
        "cycles_start_with": WORDS[report.first],
        "sensors": dict(report.sensors),
        "flags": report.flags, "notes": list(log.notes),
        "steps": [_step(number, one) for number, one in enumerate(report.steps, 1)],
        "before_first_cycle": [_half(one, options) for one in report.lead],
        "cycles": [_cycle(one, options) for one in report.cycles],
        "incremental": [_incremental(report, one) for one in report.curves if one.incremental is not None],
    }  # fmt: skip


def _step(number: int, one: StepResult) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "number": number, "cycle": one.cycle, "program_step": one.step, "state": WORDS[one.state],
        "control": one.control, "records": one.n, "start_s": one.start_s, "duration_s": one.duration_s,
        "current_a": one.current_a, "voltage_first_v": one.voltage_first_v,
        "voltage_last_v": one.voltage_last_v,
    }  # fmt: skip
    if one.state:
        answer |= {
            "capacity": _amount(one.capacity, "Ah"), "energy": _amount(one.energy, "Wh"),
            "capacity_between_samples_ah": one.trapezoid_ah, "counter_ah": one.counter_ah,
            "counter_wh": one.counter_wh, "counter_difference_sigma_ah": finite(one.counter_sigma_ah),
            "gaps_s": list(one.gaps),
        }  # fmt: skip
    if one.switch is not None:
        answer["switch"] = {
            "record": one.first + one.switch.record,
            "time": estimated(one.switch.time),
            "voltage_v": one.switch.voltage_v, "capacity_before": _amount(one.switch.before, "Ah"),
            "capacity_after": _amount(one.switch.after, "Ah"),
        }  # fmt: skip
    return answer


def _half(one: HalfCycle, options: Options) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "direction": WORDS[one.state], "capacity": _amount(one.capacity, "Ah"),
        "energy": _amount(one.energy, "Wh"),
        "at_constant_current": _amount(one.cc, "Ah"), "at_constant_voltage": _amount(one.cv, "Ah"),
        "depth_at_switch_to_cv": estimated(depth_at_switch(one, options.capacity_ah)),
    }  # fmt: skip
    if options.mass_g:
        answer["specific_mah_g"] = 1e3 * one.capacity.value / options.mass_g
    return answer


def _cycle(one: Cycle, options: Options) -> dict[str, Any]:
    return {
        "number": one.number, "recorded_numbers": list(one.recorded), "in": _half(one.into, options),
        "out": None if one.out is None else _half(one.out, options),
        "coulombic_efficiency": estimated(one.coulombic), "energy_efficiency": estimated(one.energetic),
    }  # fmt: skip


def _incremental(report: CyclingReport, one: Curve) -> dict[str, Any]:
    found = one.incremental
    if found is None:
        return {}
    return {
        "step": report.steps.index(one.step) + 1, "unit": "Ah/V", "window_v": found.window_v,
        "voltage_noise_v": found.voltage_noise_v, "voltage_v": found.voltage_v.tolist(),
        "value": [finite(v) for v in found.value], "sigma_stat": [finite(v) for v in found.sigma_stat],
        "sigma_smooth": [finite(v) for v in found.sigma_smooth],
    }  # fmt: skip


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--window",
        default="10 mV",
        metavar="V",
        help='smoothing of dQ/dV: width of a window (default "10 mV")',
    )
    add(
        "--cycle-starts",
        choices=("charge", "discharge"),
        help="direction a cycle starts with; default: as recorded",
    )
    add("--current-accuracy", metavar="P", help='stated one-sigma gain error of the current, "0.02 %%"')
    add("--current-offset", metavar="A", help='stated one-sigma offset of the current, "0.1 mA"')
    add("--capacity", metavar="Q", help='nominal capacity, "4.85 Ah": the depth at the switch refers to it')
    add("--mass", metavar="M", help='active mass, "2.08 mg": capacities per gram beside')
    add("--bdf", type=Path, metavar="DIR", help="also write each log as CSV in Battery Data Format here")


def _options(args: argparse.Namespace) -> tuple[Options, list[str]]:
    from controller.config.quantities import QuantityError, parse  # pint, only for this command

    wrong: list[str] = []

    def read(name: str, unit: str, scale: float = 1.0) -> float | None:
        text = getattr(args, name.replace("-", "_"))
        if text is None:
            return None
        try:
            value = parse(text, unit) * scale
        except QuantityError as error:
            wrong.append(f"--{name} {text!r} {error}")
            return None
        if value <= 0:
            wrong.append(f"--{name} {text!r} must be positive")
        return value

    mass = None
    if args.mass is not None:
        from controller.offline.radiography_options import measured

        try:
            mass = measured(args.mass, {"g": 1.0, "mg": 1e-3, "ug": 1e-6, "kg": 1e3}, "a mass")
        except ValueError as error:
            wrong.append(f"--mass: {error}")
    return Options(
        window_v=read("window", "V") or 0.01,
        first={"charge": 1, "discharge": -1}.get(args.cycle_starts),
        gain=read("current-accuracy", "1") or 0.0, offset_a=read("current-offset", "A") or 0.0, mass_g=mass,
        capacity_ah=read("capacity", "C", 1.0 / 3600.0), bdf=args.bdf,
    ), wrong  # fmt: skip


def _run(path: Path, options: Options) -> CyclingReport:
    return _report(cycler_log.read(path), options)


def _report(log: CyclerLog, options: Options) -> CyclingReport:
    report, path = CyclingReport(log, options), log.path
    if options.bdf is not None:
        options.bdf.mkdir(parents=True, exist_ok=True)
        good = [name for name in report.log.sensors if name not in report.sensors]
        write_bdf(options.bdf / f"{path.stem}.bdf.csv", report.log, report.steps, good)
    return report


def _jobs(args: argparse.Namespace) -> list[Job]:
    options, wrong = _options(args)
    for path in args.files:
        try:
            cycler_log.read(path)
        except FileError as error:
            wrong.append(str(error))
    stems = [path.stem for path in args.files]
    if options.bdf is not None and len(set(stems)) < len(stems):
        wrong.append("--bdf: two files of one name would become one")
    if wrong:
        raise Problems(wrong)
    return [Job(path, (path,), partial(_run, path, options)) for path in args.files]


def _part(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Return one of several files of one log."""
    return cycling_parts.part(cycler_log.read(file))


def _merge(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> CyclingReport:
    """Put a log in several files together and reduce it."""
    options, wrong = _options(args)
    if wrong:
        raise Problems(wrong)
    return _report(cycling_parts.joined(parts), options)


TECHNIQUE = Technique(
    name="cycling",
    help="Logs of battery cyclers to capacities, efficiencies, CC and CV parts, incremental capacity.",
    files="Maccor text, Neware CSV, or CSV in Battery Data Format",
    example='operando reduce cycling lg_m50.txt --current-accuracy "0.02 %" --bdf converted --out results',
    add_arguments=_add_arguments,
    jobs=_jobs,
    merge=Merge(_part, _merge, alone=True),
    each=True,
)
