"""A stage that moves: only by leave of the station file, within its limits, and back."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controller.config.acceptance import StageLeave
from drivers.errors import OutOfRange
from hil_tests.acceptance.subject import Measure, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEYOND_UM = 10.0
SLOW_MM_PER_S = 0.05  # nothing that is sold as a stage is slower: a move that takes longer is stuck
NO_LEAVE = (
    "moves: not without leave in the station file, [acceptance] stage = { distance = ..., "
    "confirmed_by = ..., confirmed_on = ... }, by somebody who has looked whether its way is free"
)


async def permitted(subject: Subject, measure: Measure) -> tuple[Any, str, StageLeave]:
    """Return the stage with the leave to move it, in the dark; skip without."""
    name = subject.name_of("stage")
    leave = subject.station.acceptance.stage
    if leave is None:
        pytest.skip(NO_LEAVE)
    subject.energising("the motors of the stage")
    if subject.station.io_name is not None:
        io = await subject.role("io")
        await io.off()
        seen = await io.read()
        if seen.shutter_open is not False or not seen.blanked:
            pytest.fail("the beam is not off: nothing is moved in it", pytrace=False)
    stage = await subject.role("stage")
    who = subject.identities[name]
    measure("moved by leave of", leave.confirmed_by, device=name, reason=f"way free on {leave.confirmed_on}")
    measure("serial number", who.serial or "not told", device=name)
    measure("firmware", who.firmware or "not told", device=name)
    return stage, name, leave


async def whereabouts(stage: Any, name: str) -> tuple[float, ...]:
    """Return where the stage stands; skip when nobody knows."""
    reading = await stage.read()
    if reading.position_um is None:
        why = "; ".join(reading.problems) or "it is not homed"
        pytest.skip(f"the position of {name} is not known ({why}), and it may not be homed (home = true)")
    return tuple(reading.position_um)


def targets(
    subject: Subject, name: str, at_um: tuple[float, ...], distance_um: float
) -> list[tuple[str, Any]]:
    """Return for each axis where it goes: by the distance, towards the end that is farther."""
    table: Any = subject.station.devices[name]
    if wrong := table.outside(at_um):
        pytest.skip(f"{name} stands where it may not: {wrong}")
    found = []
    for place, (axis, limits) in enumerate(table.axes.items()):
        up_um, down_um = limits.high_um - at_um[place], at_um[place] - limits.low_um
        step_um = min(distance_um, up_um) if up_um >= down_um else -min(distance_um, down_um)
        target = tuple(at + (step_um if n == place else 0.0) for n, at in enumerate(at_um))
        found.append((axis, target))
    return found


async def test_homing(subject: Subject, measure: Measure) -> None:
    """The stage finds its home sensors."""
    stage, name, leave = await permitted(subject, measure)
    if not leave.home:
        pytest.skip("homes: not without home = true in [acceptance] stage; it drives into the home sensor")
    began_s = time.monotonic()
    await stage.home()
    measure("homed within", time.monotonic() - began_s, "s", device=name)
    reading = await stage.read()
    measure("moves afterwards", reading.moving, device=name, good=not reading.moving)
    measure("position is known afterwards", reading.position_um is not None, device=name,
            good=reading.position_um is not None)  # fmt: skip
    for problem in reading.problems:
        measure("reports", problem, device=name)
    table: Any = subject.station.devices[name]
    if reading.position_um is not None and table.outside(tuple(reading.position_um)):
        centre = tuple(axis.centre_um for axis in table.axes.values())  # the home sensor lies outside
        await stage.move_to_um(centre)


async def test_moving(subject: Subject, measure: Measure) -> None:
    """Each axis goes where it is sent, and comes back."""
    stage, name, leave = await permitted(subject, measure)
    at_um = await whereabouts(stage, name)
    for place, (axis, target) in enumerate(targets(subject, name, at_um, leave.distance_um)):
        table: Any = subject.station.devices[name]
        within_um = table.axes[axis].within_um or 2.0 * table.axes[axis].microstep_um
        most_s = subject.at_most(abs(target[place] - at_um[place]) / (1e3 * SLOW_MM_PER_S) + 5.0)
        for what, wanted in (("there", target), ("and back", at_um)):
            began_s = time.monotonic()
            await stage.move_to_um(wanted)
            took_s = time.monotonic() - began_s
            reading = await stage.read()
            found = None if reading.position_um is None else abs(reading.position_um[place] - wanted[place])
            measure(f"axis {axis} {what}, off by", found, "um", high=within_um + 1e-6, device=name,
                    reason=f"sent to {1e-3 * wanted[place]:.4f} mm")  # fmt: skip
            measure(f"axis {axis} {what}, within", took_s, "s", high=most_s, device=name)
            measure(f"axis {axis} moves after it has arrived", reading.moving, device=name,
                    good=not reading.moving)  # fmt: skip


async def test_limits(subject: Subject, measure: Measure) -> None:
    """What lies beyond the limits of the station file is refused, and nothing moves."""
    stage, name, _ = await permitted(subject, measure)
    at_um = await whereabouts(stage, name)
    table: Any = subject.station.devices[name]
    for place, (axis, limits) in enumerate(table.axes.items()):
        for end_um in (limits.low_um - BEYOND_UM, limits.high_um + BEYOND_UM):
            beyond = tuple(end_um if n == place else at for n, at in enumerate(at_um))
            try:
                await stage.move_to_um(beyond)
            except OutOfRange:
                refused = True
            else:
                refused = False
            measure(f"axis {axis} to {1e-3 * end_um:.3f} mm is refused", refused, device=name, good=refused)
            if not refused:
                await stage.stop()
                return
    moved_um = max(abs(a - b) for a, b in zip(await whereabouts(stage, name), at_um, strict=True))
    measure("moved meanwhile", moved_um, "um", high=1.0, device=name)
