"""Tables of ``operando reduce cycling`` for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from controller.offline.values import percent, pm, table
from edge.cycling import Amount, StepResult
from edge.cycling_cycles import Cycle, depth_at_switch

if TYPE_CHECKING:
    from controller.offline.cycling import CyclingReport

WORDS = {1: "charge", -1: "discharge", 0: "rest"}


def text_of(report: CyclingReport) -> str:
    """Return all tables."""
    log = report.log
    largest = max(one.capacity.value for one in report.steps)
    scale, unit = (1.0, "Ah") if largest > 0.5 else (1e3, "mAh")
    stated = report.options.gain or report.options.offset_a
    lines = [
        f"{log.path.name}: {log.program}{' ' + log.title if log.title else ''}, {log.n} records,"
        f" {len(report.steps)} steps",
        f"  current positive = charge (file: {log.signs}); direction {report.signs.verdict}",
        *(f"  note: {note}" for note in log.notes),
        "  errors: statistical ± systematic" + ("" if stated else "; no accuracy of the current was stated"),
        table(
            ["step", "cycle", "what", "by", "I / A", "first / V", "last / V", f"Q / {unit}",
             f"counter / {unit}", "z", f"E / {unit[:-2]}Wh"],
            [_row(number, one, scale) for number, one in enumerate(report.steps, 1) if one.state],
        ),
        f"  cycles, {WORDS[report.first]} first:",
        table(
            ["cycle", f"in / {unit}", f"out / {unit}", "coulombic", "energy"],
            [_cycle(one, scale) for one in report.cycles],
        ),
    ]  # fmt: skip
    held = [row for one in report.cycles for row in _held(one, scale, report.options.capacity_ah)]
    if held:
        titles = ["cycle", "what", f"CC / {unit}", f"CV / {unit}", "depth at the switch"]
        lines += ["  constant current (CC), then constant voltage (CV):", table(titles, held)]
    lines += [
        f"  before the first cycle: {WORDS[half.state]} {_amount(half.capacity, scale)} {unit}"
        for half in report.lead
    ]
    if report.options.mass_g:
        per_gram = 1e3 / report.options.mass_g
        lines += [
            f"  cycle {one.number}: {_amount(one.into.capacity, per_gram, least=1)} mAh/g in"
            + (f", {_amount(one.out.capacity, per_gram, least=1)} out" if one.out else "")
            for one in report.cycles
        ]
        lines.append("  per gram of the mass as given, whose own error is not included")
    lines += [f"  FLAG {flag}" for flag in report.flags]
    return "\n".join(lines)


def _amount(one: Amount, scale: float, least: int = 5) -> str:
    """Return a charge or an energy with its errors, to ``least`` digits or as many as its errors need."""
    e = one.estimate("")
    sigmas = (scale * e.sigma_stat, scale * e.sigma_sys)
    digits = max(least, 1 - math.floor(math.log10(max(sigmas)))) if max(sigmas) > 0 else least
    return pm(scale * e.value, *sigmas, digits=digits)


def _row(number: int, one: StepResult, scale: float) -> list[str]:
    z, counter = "-", "-"
    if one.counter_ah is not None:
        counter = f"{scale * one.counter_ah:.5f}"
        if one.counter_sigma_ah > 0:
            z = f"{(one.capacity.value - one.counter_ah) / one.counter_sigma_ah:+.1f}"
    return [
        str(number), str(one.cycle), WORDS[one.state], one.control, f"{one.current_a:+.5g}",
        f"{one.voltage_first_v:.4f}", f"{one.voltage_last_v:.4f}", _amount(one.capacity, scale), counter, z,
        _amount(one.energy, scale, least=1),
    ]  # fmt: skip


def _cycle(one: Cycle, scale: float) -> list[str]:
    return [
        str(one.number), _amount(one.into.capacity, scale),
        _amount(one.out.capacity, scale) if one.out else "-", percent(one.coulombic), percent(one.energetic),
    ]  # fmt: skip


def _held(one: Cycle, scale: float, capacity_ah: float | None) -> Iterator[list[str]]:
    """Yield a row for each half of a cycle of which a part passed at constant voltage."""
    for half in (one.into, one.out):
        if half is not None and half.cv.value > 0:
            depth = percent(depth_at_switch(half, capacity_ah))
            parts = (_amount(half.cc, scale), _amount(half.cv, scale))
            yield [str(one.number), WORDS[half.state], *parts, depth]
