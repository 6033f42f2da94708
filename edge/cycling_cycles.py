"""Half cycles, cycles, efficiencies, and the depth at which constant voltage took over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edge.cycling import Amount, StepResult, total
from edge.uncertainty import Estimate


@dataclass(frozen=True)
class HalfCycle:
    """All steps of one direction between two of the other, rests left out."""

    state: int
    steps: tuple[StepResult, ...]

    @property
    def capacity(self) -> Amount:
        """Ah."""
        return total([one.capacity for one in self.steps])

    @property
    def energy(self) -> Amount:
        """Wh."""
        return total([one.energy for one in self.steps])

    @property
    def cc(self) -> Amount:
        """Ah that passed at constant current (or in a way that is neither)."""
        return total([one.cc for one in self.steps])

    @property
    def cv(self) -> Amount:
        """Ah that passed at constant voltage."""
        return total([one.cv for one in self.steps])


@dataclass(frozen=True)
class Cycle:
    """What went in, and what came out. ``first`` is the direction that a cycle starts with."""

    number: int
    into: HalfCycle
    out: HalfCycle | None
    recorded: tuple[int, ...] = field(default=())  # cycle numbers of the file

    @property
    def coulombic(self) -> Estimate | None:
        """Out / in. The gain of the current cancels; its offset counts twice."""
        return None if self.out is None else _efficiency(self.out.capacity, self.into.capacity)

    @property
    def energetic(self) -> Estimate | None:
        """Energy delivered / energy supplied (discharge / charge)."""
        if self.out is None:
            return None
        pair = {self.into.state: self.into.energy, self.out.state: self.out.energy}
        return _efficiency(pair[-1], pair[1])


def _efficiency(out: Amount, into: Amount) -> Estimate | None:
    if into.value <= 0 or out.value <= 0:
        return None
    ratio = out.value / into.value
    stat = math.hypot(out.stat / out.value, into.stat / into.value)
    sys = math.hypot(
        out.sampling / out.value, into.sampling / into.value, out.gap / out.value, into.gap / into.value,
        out.offset / out.value + into.offset / into.value,
    )  # fmt: skip
    return Estimate(ratio, ratio * stat, ratio * sys, "1")


def half_cycles(steps: Sequence[StepResult]) -> list[HalfCycle]:
    """Group the steps that passed charge by direction."""
    found: list[list[StepResult]] = []
    for one in steps:
        if one.state == 0 or one.capacity.value <= 0:
            continue
        if found and found[-1][0].state == one.state:
            found[-1].append(one)
        else:
            found.append([one])
    return [HalfCycle(group[0].state, tuple(group)) for group in found]


def first_direction(steps: Sequence[StepResult]) -> int:
    """Return the direction that cycles start with: what the recorded cycles start with, else charge."""
    starts: dict[int, int] = {}
    for one in steps:
        if one.state and one.capacity.value > 0:
            starts.setdefault(one.cycle, one.state)
    if len(starts) < 2:
        return 1
    return 1 if sum(starts.values()) >= 0 else -1


def pair_cycles(halves: Sequence[HalfCycle], first: int) -> tuple[list[Cycle], list[HalfCycle]]:
    """Return cycles (in direction ``first``, then out) and what stood before the first of them."""
    cycles: list[Cycle] = []
    lead: list[HalfCycle] = []
    for half in halves:
        numbers = tuple(sorted({one.cycle for one in half.steps}))
        if half.state == first:
            cycles.append(Cycle(len(cycles) + 1, half, None, numbers))
        elif cycles:
            last = cycles[-1]
            cycles[-1] = replace(last, out=half, recorded=tuple(sorted({*last.recorded, *numbers})))
        else:
            lead.append(half)
    return cycles, lead


def depth_at_switch(half: HalfCycle, capacity_ah: float | None = None) -> Estimate | None:
    """Return the charge passed at the switch to constant voltage over that of the half cycle (or a capacity).

    Returns:
        Depth of (dis)charge, 0 to 1, or None if there was no switch.
    """
    passed: list[Amount] = []
    for one in half.steps:
        if one.control == "CV" and passed:
            break
        if one.switch is not None:
            passed.append(one.switch.before)
            break
        passed.append(one.capacity)
    else:
        return None
    before, whole = total(passed), half.capacity
    value = before.value / (capacity_ah or whole.value)
    noise = math.hypot(before.stat / before.value, 0.0 if capacity_ah else whole.stat / whole.value)
    sampling = math.hypot(
        before.sampling / before.value, 0.0 if capacity_ah else whole.sampling / whole.value
    )
    gain = math.hypot(before.gain, before.offset) / before.value if capacity_ah else 0.0
    return Estimate(value, value * noise, value * math.hypot(sampling, gain), "1")
