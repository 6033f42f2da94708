"""Relay, shutter, permit, beam monitor, scanner and the watchdog behind them."""

from __future__ import annotations

import asyncio
import time

import pytest

from drivers.roles import LineReport, Raster, Role
from hil_tests.acceptance.subject import Measure, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFF_S = 0.5
MOVE_LAB_S = 3.0  # a shutter takes its time
WATCHDOG_LATE_S = 1.0
POLL_S = 0.02
DEFLECT_UM = 50.0
RASTER = {"nx": 4, "ny": 2, "width_um": 40.0, "height_um": 40.0, "dwell_s": 0.01}


async def test_at_rest(subject: Subject, measure: Measure) -> None:
    """At rest: relay open, shutter closed, beam blanked."""
    io, name = await subject.role("io"), subject.name_of("io")
    reading = await io.read()
    measure("relay open", not reading.relay_closed, device=name, good=not reading.relay_closed)
    if Role.SHUTTER in io.roles:  # unknown is not closed
        closed = reading.shutter_open is False
        measure("shutter closed", closed, device=name, good=closed)
    measure("beam blanked", reading.blanked, device=name, good=reading.blanked)
    measure("permit given", reading.permit, device=name)
    measure("beam current", reading.beam_current_a, "A", device=name)
    for switch, good in reading.switches.items():
        measure(f"input {switch} good", good, device=name)
    for problem in reading.problems:
        measure("reports", problem, device=name, good=False)


async def test_permit(subject: Subject) -> None:
    """The permit that is read is the one of the emergency chain."""
    io = await subject.role("io")
    given = "given" if (await io.read()).permit else "not given"
    subject.asked.confirm(f"The permit reads {given}. Is that what the emergency chain shows?")


async def test_off(subject: Subject, measure: Measure) -> None:
    """Off is confirmed in time."""
    io, name = await subject.role("io"), subject.name_of("io")
    began_s = time.monotonic()
    await io.off()
    measure(
        "off, confirmed, after", time.monotonic() - began_s, "s", high=subject.at_most(OFF_S), device=name
    )


async def test_relay(subject: Subject, measure: Measure) -> None:
    """The relay follows, and its read-back with it."""
    name = subject.name_of("io")
    subject.energising("the relay in series with the heater, set-point at rest")
    io = await subject.role("io")
    for closed in (True, False):
        await io.feed_watchdog()
        await io.set_relay(closed=closed)
        reading = await io.read()
        word = "closed" if closed else "open"
        measure(f"told to be {word}, reads back so", reading.relay_closed is closed, device=name,
                good=reading.relay_closed is closed,
                reason="; ".join([*reading.problems, "the output line, not the contact"]))  # fmt: skip


async def test_shutter(subject: Subject, measure: Measure) -> None:
    """The shutter follows, seen by its read-back line; the beam is blanked meanwhile."""
    name = subject.name_of("io")
    subject.energising("the shutter, with the beam blanked")
    io = await subject.role("io")
    for open_ in (True, False):
        await io.set_shutter(open_=open_)

        async def there(wanted: bool = open_) -> bool:
            await io.feed_watchdog()
            return (await io.read()).shutter_open is wanted

        followed, took_s = await subject.wait(there, MOVE_LAB_S)
        word = "open" if open_ else "closed"
        measure(f"{word}, read back", followed, device=name, good=followed, reason=f"after {took_s:.2f} s")
    measure("blanked throughout", (await io.read()).blanked, device=name, good=(await io.read()).blanked)


async def test_watchdog(subject: Subject, measure: Measure) -> None:
    """The watchdog opens the relay when it is not fed, and not before."""
    name = subject.name_of("io")
    watchdog = subject.station.devices[name].settings().get("watchdog")
    if not watchdog:
        pytest.skip(f"{name} has no watchdog")
    subject.energising("the relay, until the watchdog opens it")
    io = await subject.role("io")
    allowed_s = subject.clock.wall_timeout_s(float(watchdog["timeout_s"]))
    await io.prepare()
    await io.set_relay(closed=True)
    try:
        fed_until = time.monotonic() + 1.3 * allowed_s
        while time.monotonic() < fed_until:
            await io.feed_watchdog()
            await asyncio.sleep(allowed_s / 10)
        kept = (await io.read()).relay_closed
        measure("relay stays closed while it is fed", kept, device=name, good=kept)
        last_fed_s = time.monotonic()
        while (closed := (await io.read()).relay_closed) and time.monotonic() < last_fed_s + 3 * allowed_s:
            await asyncio.sleep(POLL_S)
        took_s = time.monotonic() - last_fed_s
    finally:
        await io.prepare()
    measure("relay open without being fed", not closed, device=name, good=not closed)
    # The last feeding was up to a tenth of the time-out before the last look at the clock.
    measure("opened after", took_s, "s", low=0.5 * allowed_s, high=allowed_s + WATCHDOG_LATE_S, device=name)


async def test_scanner(subject: Subject, measure: Measure) -> None:
    """Two short scans behind the closed shutter: every line played, the deflection reads back."""
    name = subject.name_of("scanner")
    subject.energising("the blanker, behind the closed shutter")
    scanner = await subject.role("scanner")
    where = []
    for centre_um in (-DEFLECT_UM, DEFLECT_UM):
        lines: list[LineReport] = []
        raster = Raster(**RASTER, centre_x_um=centre_um)  # type: ignore[arg-type]
        report = await scanner.run_lines(raster, 0, on_line=lines.append, should_stop=lambda: False)
        measure("lines played", report.lines_done, low=raster.ny, high=raster.ny, device=name)
        measure("pixel-clock pulses", report.pulses, low=raster.pulses, high=raster.pulses, device=name)
        measure("late refills", report.missed_refills, high=subject.at_most(0), device=name)
        if hasattr(scanner, "deflection_um"):
            where.append((await scanner.deflection_um())[0])
    blanked = (await (await subject.role("io")).read()).blanked
    measure("blanked at the end", blanked, device=name, good=blanked)
    if not where:
        pytest.skip(f"{name} cannot read its deflection back")
    measure("deflection between the two, read back", where[1] - where[0], "um",
            low=1.98 * DEFLECT_UM, high=2.02 * DEFLECT_UM, device=name)  # fmt: skip
