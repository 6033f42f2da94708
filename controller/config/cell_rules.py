"""A cell step against what the potentiostat of the station can do: its model's abilities and the limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from controller.config.quantities import show
from controller.config.steps import CellStep, Impedance, Pulse, Step

if TYPE_CHECKING:
    from drivers.roles import CellAbilities, SweepAbility

PEAK = math.sqrt(2.0)  # of a sine, over its rms
Complaint = tuple[str, str, str]  # key, what is wrong with it, the limit
SAME = 1e-9


class Window(Protocol):
    """The tightest limits that hold for the cell."""

    @property
    def voltage_low_v(self) -> float:
        """Lowest voltage, V."""
        ...

    @property
    def voltage_high_v(self) -> float:
        """Highest voltage, V."""
        ...

    @property
    def current_a(self) -> float:
        """Largest current, A."""
        ...


def complaints(step: Step, able: CellAbilities | None, window: Window) -> Iterator[Complaint]:
    """Yield what this step asks of the potentiostat and may not have.

    Args:
        step: any step.
        able: what the potentiostat can do; None when nobody knows (a third party's driver).
        window: the tightest limits of station, chemistry and sample.
    """
    if able is not None and isinstance(step, CellStep | Pulse | Impedance):
        yield from _reach(able, window)
    if isinstance(step, Impedance):
        yield from _sweep(step, able, window)
    elif able is not None and isinstance(step, CellStep | Pulse):
        if step.current_a is not None and not able.galvanostat:
            yield "current", f"needs a galvanostat, and {able.name} has none", ""
        elif step.current_a is not None and step.current_a > able.most_a * (1 + SAME):
            limit = show(able.most_a, "A")
            yield "current", f"is above what {able.name} gives, {limit}", limit


def _reach(able: CellAbilities, window: Window) -> Iterator[Complaint]:
    """The instrument must be able to measure up to both limits: they are written into every script."""
    if window.voltage_low_v < able.low_v or window.voltage_high_v > able.high_v:
        limits = f"{show(window.voltage_low_v, 'V')} to {show(window.voltage_high_v, 'V')}"
        reach = f"{show(able.low_v, 'V')} to {show(able.high_v, 'V')}"
        told = f"is bounded by limits of {limits}, and {able.name} reaches from {reach}"
        yield "do", f"{told}: narrow [limits] or sample.limits, or use another potentiostat", reach


def _sweep(step: Impedance, able: CellAbilities | None, window: Window) -> Iterator[Complaint]:
    kind = "galvanostatic impedance (GEIS)" if step.galvanostatic else "impedance (EIS)"
    if able is not None:
        ability = able.geis if step.galvanostatic else able.eis
        if ability is None:
            other = able.eis is not None and step.galvanostatic
            advice = '; leave out mode = "galvanostatic", or' if other else ";"
            yield "do", f"needs {kind}, and {able.name} has none{advice} use another potentiostat", ""
        else:
            yield from _ability(step, able.name, ability)
    if step.galvanostatic:
        most_a = abs(step.current_a) + PEAK * (step.current_amplitude_a or 0.0)
        if most_a > window.current_a * (1 + SAME):
            limit = show(window.current_a, "A")
            told = f"current and sine together reach {show(most_a, 'A')} (its peak is 1.41 of the rms)"
            yield "current_amplitude", f"is too large: {told}, above the limit {limit}", limit
    elif step.voltage_v is not None:
        low_v, high_v = step.voltage_v - PEAK * step.amplitude_v, step.voltage_v + PEAK * step.amplitude_v
        outside = [(low_v, window.voltage_low_v)] if low_v < window.voltage_low_v else []
        outside += [(high_v, window.voltage_high_v)] if high_v > window.voltage_high_v else []
        for value, bound in outside:
            limit = show(bound, "V")
            yield "voltage", f"with its sine reaches {show(value, 'V')}, beyond the limit {limit}", limit


def _ability(step: Impedance, name: str, ability: SweepAbility) -> Iterator[Complaint]:
    for key, hertz in (("start", step.start_hz), ("stop", step.stop_hz)):
        if not ability.slowest_hz * (1 - SAME) <= hertz <= ability.fastest_hz * (1 + SAME):
            limit = f"{show(ability.slowest_hz, 'Hz')} to {show(ability.fastest_hz, 'Hz')}"
            yield key, f"is outside what {name} measures in this mode, {limit}", limit
    amplitude, unit = (step.current_amplitude_a, "A") if step.galvanostatic else (step.amplitude_v, "V")
    if amplitude is not None and not ability.least <= amplitude <= ability.most * (1 + SAME):
        key = "current_amplitude" if step.galvanostatic else "amplitude"
        limit = f"{show(ability.least, unit)} to {show(ability.most, unit)}"
        yield key, f"is outside what {name} gives, {limit} rms", limit
