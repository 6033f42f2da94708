"""Steps of the cell: open circuit, charge and discharge, pulses, impedance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from controller.config import effective_limits
from drivers.roles import CcCv, CellLimits, ConstantCurrent, ConstantVoltage, Eis, Geis, Ocv

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.config.steps import CellStep, Impedance, OpenCircuit, Pulse, Rest
    from controller.cycling import CellState
    from controller.steps.context import Context
    from drivers.roles import CellProgram

PAUSED = "paused"
FINISHING = "stopped early"
AT_VOLTAGE = "voltage reached"  # as the potentiostat says it
POINT_S, POINT_PERIODS = 30.0, 5.0  # that a point of a sweep may take: settling, ranges, periods of it
LEAST_S = 0.1  # a program for less is not worth the switching
CHARGE_MARGIN = 1.01  # the script's own charge limit lies behind the host's


async def open_circuit(context: Context, step: OpenCircuit | Rest) -> str:
    """Record the voltage with the circuit open."""

    def program(left_s: float) -> Ocv:
        return Ocv(duration_s=left_s, interval_s=step.interval_s)

    reason = await _in_parts(context, step.duration_s, program, step.interval_s)
    return reason if reason == FINISHING else "duration"


async def _in_parts(
    context: Context, duration_s: float, program_for: Callable[[float], CellProgram], interval_s: float,
    *, booked: bool = False,
) -> str:  # fmt: skip
    """Run a program for a time; after a pause it goes on with the time that is left.

    Args:
        context: of the run.
        duration_s: how long, lab seconds.
        program_for: makes the program of the seconds that are left.
        interval_s: between its samples.
        booked: add charge and time to the part of the step that a checkpoint carries.
    """
    left_s = duration_s
    while left_s >= LEAST_S:
        await context.running()
        if context.finishing:
            return FINISHING
        program = program_for(left_s)
        reason = await context.cycling.run(program, _interruption(context), interval_s=interval_s)
        if isinstance(program, ConstantCurrent):
            _no_end(context, reason)
        now = context.cycling.now
        left_s -= now.step_s
        if booked:
            context.part = (context.part[0] + now.step_charge_coulomb, context.part[1] + now.step_s)
        if reason != PAUSED:
            return reason
    return "duration"


async def charge(context: Context, step: CellStep) -> str:
    """Charge or discharge until the first end condition; goes on after a pause with what is left."""
    sign = 1.0 if step.do == "charge" else -1.0  # type: ignore[attr-defined]
    passed_coulomb, elapsed_s = context.take_carried()
    if reason := _had_ended(context, step, sign, passed_coulomb, elapsed_s):
        return reason
    while True:
        context.part = (passed_coulomb, elapsed_s)
        await context.running()
        if context.finishing:
            return FINISHING
        program = _program(context, step, sign, passed_coulomb, elapsed_s)
        condition = _ends(context, step, sign, passed_coulomb, elapsed_s)
        reason = await context.cycling.run(program, condition, interval_s=step.interval_s)
        if isinstance(program, ConstantCurrent) and step.until.voltage_v is None:
            _no_end(context, reason)
        passed_coulomb += context.cycling.now.step_charge_coulomb
        elapsed_s += context.cycling.now.step_s
        if reason != PAUSED:
            context.part = (0.0, 0.0)
            return reason


async def pulse(context: Context, step: Pulse) -> str:
    """Current pulses with rests at open circuit between them.

    An interrupted run goes on with what was left of the pulse that it broke off; the rest after a pulse is
    done again as a whole, for nobody saw what became of it. No pulse is done, and no charge counted, twice.
    """
    sign = 1.0 if step.direction == "charge" else -1.0
    context.part = context.take_carried()
    done, left_s = _pulses_had(step, context.part[1])

    def on(seconds: float) -> ConstantCurrent:
        limits = _limits(context, seconds)
        until_v = limits.voltage_high_v if sign > 0 else limits.voltage_low_v
        return ConstantCurrent(sign * step.current_a, until_v, limits, step.interval_s)

    def rest(seconds: float) -> Ocv:
        return Ocv(duration_s=seconds, interval_s=step.interval_s)

    for _ in range(done, step.times):
        await _in_parts(context, left_s, on, step.interval_s, booked=True)
        await _in_parts(context, step.rest_s, rest, step.interval_s)
        left_s = step.on_s
        if context.finishing:
            return FINISHING
    context.part = (0.0, 0.0)
    return f"{step.times} pulses"


def _pulses_had(step: Pulse, had_s: float) -> tuple[int, float]:
    """Return how many pulses are done with their rest, and what is left of the next one, s."""
    if had_s < LEAST_S:
        return 0, step.on_s
    begun = math.ceil(had_s / step.on_s - LEAST_S / step.on_s)  # the last one that was on
    if begun > step.times:
        return step.times - 1, 0.0
    return begun - 1, max(0.0, begun * step.on_s - had_s)


async def impedance(context: Context, step: Impedance) -> str:
    """One impedance sweep; a pause or an interruption spoils it, so it is taken again."""
    context.take_carried()  # of the sweep that was interrupted: that charge is counted, and no charge step's
    program = _sweep(context, step)
    ratio = (step.stop_hz / step.start_hz) ** (1.0 / (step.points - 1))
    pace = [POINT_S + POINT_PERIODS / (step.start_hz * ratio**k) for k in range(step.points)]
    while True:
        await context.running()
        if context.finishing:
            return FINISHING
        reason = await context.cycling.run(program, _interruption(context), interval_s=pace)
        if reason != PAUSED:
            return reason


def _sweep(context: Context, step: Impedance) -> Eis | Geis:
    limits = _limits(context, step.timeout_s)
    if step.galvanostatic:
        return Geis(
            amplitude_a=_given(step.current_amplitude_a), start_hz=step.start_hz, stop_hz=step.stop_hz,
            points=step.points, limits=limits, bias_a=step.current_a,
        )  # fmt: skip
    return Eis(
        amplitude_v=step.amplitude_v, start_hz=step.start_hz, stop_hz=step.stop_hz, points=step.points,
        limits=limits, voltage_v=step.voltage_v,
    )  # fmt: skip


def _no_end(context: Context, reason: str) -> None:
    """A current that nobody wanted to end at a voltage has ended at the cell's hard limit: that is a trip."""
    if reason == AT_VOLTAGE:
        context.cycling.gave_up("the voltage arrived at the hard limit of the cell")


def _interruption(context: Context) -> Callable[[CellState], str | None]:
    def check(_: CellState) -> str | None:
        if context.finishing:
            return FINISHING
        return PAUSED if context.paused else None

    return check


def _limits(context: Context, duration_s: float, charge_coulomb: float | None = None) -> CellLimits:
    """Return the tightest window, for the instrument's own script."""
    limits = effective_limits(context.host.station, context.host.experiment)
    charge = limits.charge_coulomb if charge_coulomb is None else min(limits.charge_coulomb, charge_coulomb)
    return CellLimits(
        voltage_low_v=limits.voltage_low_v, voltage_high_v=limits.voltage_high_v, current_a=limits.current_a,
        charge_coulomb=charge, duration_s=duration_s,
    )  # fmt: skip


def _program(
    context: Context, step: CellStep, sign: float, passed_coulomb: float, elapsed_s: float
) -> CellProgram:
    until = step.until
    longest_s = min(step.timeout_s, until.duration_s or step.timeout_s) - elapsed_s
    charge = None
    if until.charge_coulomb is not None:
        charge = CHARGE_MARGIN * (until.charge_coulomb - abs(passed_coulomb))
    limits = _limits(context, max(longest_s, step.interval_s), charge)
    if step.current_a is not None:
        limits = replace(limits, current_a=min(limits.current_a, 1.5 * step.current_a))
    low_current_a = until.current_below_a or 0.0
    if step.mode == "cccv":
        return CcCv(
            current_a=sign * _given(step.current_a), voltage_v=_given(step.voltage_v),
            until_current_a=low_current_a, limits=limits, interval_s=step.interval_s,
        )  # fmt: skip
    if step.mode == "cv":
        return ConstantVoltage(
            voltage_v=_given(step.voltage_v), until_current_a=low_current_a, limits=limits,
            interval_s=step.interval_s,
        )  # fmt: skip
    edge_v = limits.voltage_high_v if sign > 0 else limits.voltage_low_v
    return ConstantCurrent(
        current_a=sign * _given(step.current_a), until_voltage_v=until.voltage_v or edge_v, limits=limits,
        interval_s=step.interval_s,
    )  # fmt: skip


def _ends(
    context: Context, step: CellStep, sign: float, passed_coulomb: float, elapsed_s: float
) -> Callable[[CellState], str | None]:
    """Return the end conditions of a charge step as a question about the newest sample."""
    until, capacity = step.until, context.host.experiment.sample.capacity_coulomb
    interrupted = _interruption(context)

    def check(now: CellState) -> str | None:
        charge = abs(passed_coulomb + now.step_charge_coulomb)
        if until.charge_coulomb is not None and charge >= until.charge_coulomb:
            return "charge reached"
        if until.soc is not None and sign * (now.charge_coulomb / capacity - until.soc) >= 0:
            return "state of charge reached"
        if until.duration_s is not None and elapsed_s + now.step_s >= until.duration_s:
            return "duration"
        low = now.state == "cv" and now.current_a is not None and until.current_below_a is not None
        if low and abs(now.current_a or 0.0) <= (until.current_below_a or 0.0):
            return "current below its limit"
        return interrupted(now)

    return check


def _had_ended(
    context: Context, step: CellStep, sign: float, passed_coulomb: float, elapsed_s: float
) -> str | None:
    """Return why a step that an interruption cut off had in truth come to its end, or None."""
    until, capacity = step.until, context.host.experiment.sample.capacity_coulomb
    if not elapsed_s and not passed_coulomb:
        return None
    if until.charge_coulomb is not None and abs(passed_coulomb) >= until.charge_coulomb:
        return "charge reached"
    now_coulomb = context.cycling.now.charge_coulomb
    if until.soc is not None and sign * (now_coulomb / capacity - until.soc) >= 0:
        return "state of charge reached"
    longest_s = min(step.timeout_s, until.duration_s or step.timeout_s)
    return "duration" if elapsed_s >= longest_s else None


def _given(value: float | None) -> float:
    if value is None:
        raise ValueError("a cell step without the value its mode needs")  # excluded by the file's own rules
    return value
