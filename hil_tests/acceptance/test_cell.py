"""The potentiostat: open circuit without energising; a dummy resistor by Ohm's law, and the change to CV."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import pytest

from controller.config.acceptance import Dummy
from drivers.roles import CcCv, CellEvent, CellEventKind, CellLimits, CellSample, ConstantCurrent, Ocv
from hil_tests.acceptance.subject import BELOW_V, Measure, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAMPLES = 6
INTERVAL_S = 0.25
PROGRAM_S = 30.0
PATIENCE_S = 20.0
OFFSET_V = 0.005
NO_CELL_V = 0.05


async def test_open_circuit(subject: Subject, measure: Measure) -> None:
    """The open-circuit voltage is steady, and the circuit is proved open."""
    cell, name = await subject.role("cell"), subject.name_of("cell")
    volts = [await cell.read_ocv() for _ in range(SAMPLES)]
    measure("open-circuit voltage", statistics.fmean(volts), "V", device=name)
    measure("spread of six readings", max(volts) - min(volts), "V", high=0.01, device=name)
    if subject.asked.dummy is not None:
        measure(
            "offset on the dummy", statistics.fmean(volts), "V", low=-OFFSET_V, high=OFFSET_V, device=name
        )


async def test_program_of_open_circuit(subject: Subject, measure: Measure) -> None:
    """A program that only measures runs to its end, and every sample comes."""
    cell, name = await subject.role("cell"), subject.name_of("cell")
    await cell.start(Ocv(duration_s=2.0, interval_s=INTERVAL_S))
    samples, ending = await _follow(cell)
    measure("samples in 2 s", len(samples), low=7, high=9, device=name)
    measure("ended by itself", ending.kind.value, device=name, good=ending.kind is CellEventKind.FINISHED)
    measure("valid samples", sum(s.valid for s in samples), low=len(samples), device=name)


async def test_off(subject: Subject, measure: Measure) -> None:
    """Off is confirmed in time."""
    cell, name = await subject.role("cell"), subject.name_of("cell")
    began_s = time.monotonic()
    await cell.off()
    measure("off, confirmed, after", time.monotonic() - began_s, "s", high=subject.at_most(2.0), device=name)


async def test_ohms_law(subject: Subject, measure: Measure) -> None:
    """Two currents through the dummy resistor, by Ohm's law."""
    name, dummy = subject.name_of("cell"), subject.dummy()
    subject.energising("the dummy load")
    cell = await subject.role("cell")
    await _must_be_a_dummy(cell)
    highest_a = _highest_a(subject, dummy)
    points = []
    for current_a in (0.25 * highest_a, highest_a):
        limits = _limits(subject, dummy, current_a)
        program = ConstantCurrent(current_a, limits.voltage_high_v * 0.98, limits, INTERVAL_S)
        try:
            await cell.start(program)
            samples, _ = await _follow(cell, SAMPLES)
        finally:
            await cell.stop()
        good = [s for s in samples[1:] if s.valid and s.current_a is not None and s.voltage_v is not None]
        measure("valid samples", len(good), low=SAMPLES - 1, device=name)
        if not good:
            pytest.fail("no sample to compare", pytrace=False)
        ampere = statistics.fmean(s.current_a or 0.0 for s in good)
        volt = statistics.fmean(s.voltage_v or 0.0 for s in good)
        measure("current, against what was asked for", ampere, "A", device=name,
                low=0.99 * current_a, high=1.01 * current_a)  # fmt: skip
        measure("voltage", volt, "V", device=name)
        points.append((ampere, volt))
    (a1, v1), (a2, v2) = points
    ohm, wide = (v2 - v1) / (a2 - a1), dummy.tolerance + 0.005
    measure("resistance from both", ohm, "ohm", device=name,
            low=dummy.resistance_ohm * (1.0 - wide), high=dummy.resistance_ohm * (1.0 + wide))  # fmt: skip
    measure("voltage at no current, from both", v1 - ohm * a1, "V", low=-OFFSET_V, high=OFFSET_V, device=name)


async def test_cc_cv(subject: Subject, measure: Measure) -> None:
    """Constant current goes over into constant voltage, which ends by its current."""
    name, dummy = subject.name_of("cell"), subject.dummy()
    subject.energising("the dummy load")
    cell = await subject.role("cell")
    await _must_be_a_dummy(cell)
    current_a = _highest_a(subject, dummy)
    hold_v = 0.5 * current_a * dummy.resistance_ohm
    limits = _limits(subject, dummy, current_a)
    program = CcCv(current_a, hold_v, 0.75 * current_a, limits, INTERVAL_S)
    try:
        await cell.start(program)
        samples, ending = await _follow(cell)
    finally:
        await cell.stop()
    held = [s for s in samples if s.phase == "cv" and s.voltage_v is not None and s.current_a is not None]
    phases = [*dict.fromkeys(s.phase for s in samples)]
    measure("phases", ", ".join(phases), device=name, good=phases in (["cc", "cv"], ["cv"]),
            reason="on a resistor constant current may be over before its first sample")  # fmt: skip
    measure("ended by itself", f"{ending.kind.value} {ending.detail}", device=name,
            good=ending.kind is CellEventKind.FINISHED)  # fmt: skip
    if not held:
        pytest.fail("no sample at constant voltage", pytrace=False)
    last = held[-1]
    measure("voltage held", last.voltage_v, "V", low=hold_v - 0.01, high=hold_v + 0.01, device=name)
    expected_a, wide = hold_v / dummy.resistance_ohm, dummy.tolerance + 0.01
    measure("current at it", last.current_a, "A", device=name,
            low=expected_a * (1.0 - wide), high=expected_a * (1.0 + wide))  # fmt: skip


async def _must_be_a_dummy(cell: Any) -> None:
    """Fail before anything is energised if a battery is connected instead of the declared resistor."""
    volt = await cell.read_ocv()
    if abs(volt) > NO_CELL_V:
        pytest.fail(f"{volt:.3f} V at open circuit: this is no resistor, nothing was sent", pytrace=False)


def _highest_a(subject: Subject, dummy: Dummy) -> float:
    """Return half of what station and dummy allow."""
    limits = subject.station.limits
    by_voltage_a = limits.voltage.high_v / dummy.resistance_ohm
    by_power_a = math.sqrt(dummy.power_w / dummy.resistance_ohm)
    return 0.5 * min(limits.current_a, by_voltage_a, by_power_a)


def _limits(subject: Subject, dummy: Dummy, current_a: float) -> CellLimits:
    """Return limits that the dummy stands: a little more than what is asked for."""
    high_v = min(1.3 * current_a * dummy.resistance_ohm + 0.1, subject.station.limits.voltage.high_v)
    return CellLimits(-BELOW_V, high_v, 1.5 * current_a, 1.5 * current_a * PROGRAM_S, PROGRAM_S)


async def _follow(cell: Any, samples: int | None = None) -> tuple[list[CellSample], CellEvent]:
    """Return what a program says, to its end or until there are so many samples."""
    taken: list[CellSample] = []
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        told = await cell.next(PATIENCE_S)
        if isinstance(told, CellSample):
            taken.append(told)
            if len(taken) == samples:
                return taken, CellEvent(told.monotonic_s, CellEventKind.PHASE)
        elif told.kind not in (CellEventKind.STARTED, CellEventKind.PHASE):
            return taken, told
    pytest.fail(f"the program did not end within {PATIENCE_S:g} s", pytrace=False)
