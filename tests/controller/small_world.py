"""A plate, a cell and a beam with the instruments around them, in the time of the event loop.

Only what safety needs: each instrument obeys what its driver's contract (``drivers.roles``) says, fails as it
is told to, and protects itself as the real one does: the I/O box by its watchdog, the potentiostat by the
limits in its own script, the temperature controller by its sensor-break output. ``look`` moves the physics to
the present and notes since when each output has been on although it must not be.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller.devices import Bench
from drivers.errors import NoReply, Refused
from drivers.line_stats import LineStats
from drivers.roles import (
    CcCv,
    CellEvent,
    CellEventKind,
    CellProgram,
    CellSample,
    ConstantCurrent,
    ConstantVoltage,
    HeaterReading,
    Identity,
    IoReading,
    LineReport,
    Ocv,
    PassReport,
    Raster,
    Role,
)

AMBIENT_K = 298.0
CAPACITY_J_PER_K = 20.0
LOSS_W_PER_K = 0.15
HEATER_W = 12.0
OFF_K = 273.15
REPLY_TIMEOUT_S = 0.4
WATCHDOG_S = 3.0
BEAM_A = 24e-12
LOOK_S = 0.1


@dataclass
class World:
    """What is true. ``monotonic`` is the loop's time."""

    monotonic: Callable[[], float]
    high_k: float
    temperature_k: float = AMBIENT_K
    setpoint_k: float = OFF_K
    working_k: float = AMBIENT_K
    ramp_k_per_s: float = 1.0
    relay: bool = False
    shutter: bool = False
    unblanked: bool = False
    voltage_v: float = 3.6
    current_a: float = 0.0
    program: CellProgram | None = None
    # what is wrong
    sensor: str = "good"  # good, open
    output_stuck: bool = False
    runaway_w: float = 0.0
    relay_stuck: bool = False
    silent: set[str] = field(default_factory=set)
    cell_invalid: bool = False
    cell_off_by_v: float = 0.0
    permit: bool = True
    beam_lost: bool = False
    cell_unheard: bool = False  # the last off command did not arrive: the script's own limits remain
    io_back_s: float = -math.inf  # when the I/O box answered again
    fed_s: float = -math.inf
    at_s: float = math.nan
    unsafe: dict[str, float] = field(default_factory=dict)  # what must not be, and since when it is
    worst: dict[str, float] = field(default_factory=dict)
    heat_j: float = 0.0

    # --- truth -------------------------------------------------------------------------------------------

    @property
    def power_w(self) -> float:
        """Electrical power of the heater now."""
        if not self.relay:
            return 0.0
        if self.output_stuck:
            return HEATER_W
        if self.sensor != "good" or self.setpoint_k <= OFF_K:
            return 0.0
        return HEATER_W * min(max((self.working_k - self.temperature_k) / 2.0 + self._hold(), 0.0), 1.0)

    def _hold(self) -> float:
        return LOSS_W_PER_K * (self.working_k - AMBIENT_K) / HEATER_W

    @property
    def cell_on(self) -> bool:
        """Whether the circuit is closed."""
        return self.program is not None and not isinstance(self.program, Ocv)

    @property
    def heating(self) -> bool:
        """Whether the heater could draw power."""
        return self.relay and (self.output_stuck or self.setpoint_k > OFF_K)

    @property
    def beam_on(self) -> bool:
        """Whether the beam can reach the sample."""
        return self.unblanked

    def all_off(self) -> bool:
        """Whether nothing is energised."""
        return not (self.heating or self.cell_on or self.unblanked or self.shutter)

    def look(self) -> None:
        """Move to the present."""
        now = self.monotonic()
        step_s = 0.0 if math.isnan(self.at_s) else now - self.at_s
        while step_s > 0.0:
            self._advance(min(step_s, LOOK_S), now - step_s + min(step_s, LOOK_S))
            step_s -= LOOK_S
        self.at_s = now

    def _advance(self, step_s: float, now: float) -> None:
        if now - self.fed_s > WATCHDOG_S:
            self.relay = self.relay_stuck and self.relay
            self.shutter = self.unblanked = False
        moved = self.setpoint_k - self.working_k
        self.working_k += math.copysign(min(abs(moved), self.ramp_k_per_s * step_s), moved)
        gain_w = self.power_w + self.runaway_w - LOSS_W_PER_K * (self.temperature_k - AMBIENT_K)
        self.heat_j += self.power_w * step_s
        self.temperature_k += gain_w / CAPACITY_J_PER_K * step_s
        if self.cell_on:
            self.voltage_v = min(self.voltage_v + 0.002 * step_s, 4.0)
        self._note("heating without a valid temperature", self.heating and self._blind(), now)
        hot = self.temperature_k > self.high_k + 0.5
        self._note("heating above the hard limit", self.power_w > 0 and hot, now)
        self._note("current through a cell that cannot be measured", self.cell_on and self.cell_invalid, now)
        self._note("current outside the window", self.cell_on and abs(self.cell_off_by_v) > 1.0, now)
        opened = self.unblanked or self.shutter
        self._note("beam or heat without permit", not self.permit and (opened or self.heating), now)

    def _blind(self) -> bool:
        return self.sensor != "good" or "heater" in self.silent

    def _note(self, what: str, is_so: bool, now: float) -> None:
        if not is_so:
            self.unsafe.pop(what, None)
            return
        since = self.unsafe.setdefault(what, now)
        self.worst[what] = max(self.worst.get(what, 0.0), now - since)

    def broken(self) -> bool:
        """Whether anything is wrong."""
        wrong = (self.sensor != "good", self.output_stuck, self.runaway_w, self.relay_stuck, self.silent)
        more = (self.cell_invalid, self.cell_off_by_v, not self.permit, self.beam_lost)
        return any(map(bool, (*wrong, *more)))

    def mend(self) -> None:
        """Take every fault back."""
        self.sensor, self.output_stuck, self.runaway_w, self.relay_stuck = "good", False, 0.0, False
        if "io" in self.silent:
            self.io_back_s = self.monotonic()
        self.silent.clear()
        self.cell_invalid, self.cell_off_by_v, self.permit, self.beam_lost = False, 0.0, True, False

    def bench(self) -> Bench:
        """Return fresh drivers to this world, as ``controller.devices.build`` would."""
        heater, cell, io = Heater("heater", self), Cell("cell", self), Io("io", self)
        devices: dict[str, Any] = {"heater": heater, "cell": cell, "io": io}
        lines: dict[str, Any] = {name: Wire() for name in devices}
        return Bench(lines, devices, heater, cell, io, io, {})


class Wire:
    """A line that is never in the way."""

    def __init__(self) -> None:
        self.stats = LineStats()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


class Instrument:
    """What all have in common: an answer takes a moment, or does not come."""

    roles: frozenset[Any] = frozenset()

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world

    async def answer(self) -> None:
        """Wait for the reply. Raises NoReply while the line is silent."""
        if self.name in self.world.silent:
            await asyncio.sleep(REPLY_TIMEOUT_S)
            raise NoReply("silent", device=self.name)
        await asyncio.sleep(0.004)
        self.world.look()

    async def identify(self) -> Identity:
        """Say who it is."""
        await self.answer()
        return Identity("small world", self.name)

    async def prepare(self) -> list[str]:
        """Reach the safe state."""
        await self.off()
        return []

    async def off(self) -> None:
        """Reach the safe state; an instrument says how."""
        raise AssertionError

    async def close(self) -> None:
        """Nothing to release."""


class Heater(Instrument):
    """A temperature controller with a sensor-break output of zero."""

    async def read(self) -> HeaterReading:
        """Poll once."""
        await self.answer()
        world = self.world
        good = world.sensor == "good"
        fraction = world.power_w / HEATER_W if world.relay else 0.0
        if not good:
            fraction = 0.0
        value = round(world.temperature_k, 1) if good else None
        return HeaterReading(
            world.monotonic(), value, world.working_k, fraction, good, 0, () if good else ("sensor break",)
        )

    async def set_target_k(self, target_k: float) -> None:
        """Take a set-point; the working one starts where the plate is."""
        await self.answer()
        if self.world.setpoint_k <= OFF_K:
            self.world.working_k = self.world.temperature_k
        self.world.setpoint_k = target_k

    async def set_ramp_k_per_min(self, rate_k_per_min: float) -> None:
        """Take a rate."""
        await self.answer()
        self.world.ramp_k_per_s = rate_k_per_min / 60.0

    async def off(self) -> None:
        """Set-point to its low limit."""
        await self.answer()
        self.world.setpoint_k = OFF_K


class Io(Instrument):
    """Beam monitor, relay, shutter, permit, scanner; safe by itself when it is not fed."""

    roles = frozenset({Role.BEAM_MONITOR, Role.RELAY, Role.SHUTTER, Role.PERMIT, Role.BEAM_SCANNER})

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self._blanks = 0

    async def read(self) -> IoReading:
        """Poll once."""
        await self.answer()
        world = self.world
        beam = 0.0 if world.beam_lost else BEAM_A
        return IoReading(
            world.monotonic(), beam, world.permit, world.relay, world.shutter, not world.unblanked
        )

    async def prepare(self) -> list[str]:
        """Everything off, the watchdog armed."""
        await self.off()
        await self.feed_watchdog()
        return []

    async def feed_watchdog(self) -> None:
        """Renew everything."""
        await self.answer()
        self.world.fed_s = self.world.monotonic()

    async def set_relay(self, *, closed: bool) -> None:
        """Switch the relay; a stuck one stays closed."""
        await self.answer()
        self.world.relay = closed or (self.world.relay_stuck and self.world.relay)

    async def set_shutter(self, *, open_: bool) -> None:
        """Move the shutter."""
        await self.answer()
        self.world.shutter = open_

    async def blank(self) -> None:
        """Blank, also in mid-line."""
        await self.answer()
        self._blanks += 1
        self.world.unblanked = False

    async def off(self) -> None:
        """Relay open, shutter closed, beam blanked."""
        await self.blank()
        self.world.relay = self.world.relay_stuck and self.world.relay
        self.world.shutter = False

    async def run_lines(
        self,
        raster: Raster,
        first_line: int,
        *,
        on_line: Callable[[LineReport], None],
        should_stop: Callable[[], bool],
    ) -> PassReport:
        """Play lines; each ends blanked, whatever the host does."""
        blanks, done, reports = self._blanks, 0, []
        for line in range(first_line, raster.ny):
            if should_stop():
                break
            await self.answer()
            if blanks != self._blanks:
                raise Refused("blanked in mid-line", device=self.name)
            start_s = self.world.monotonic()
            self.world.unblanked = True
            await asyncio.sleep(raster.nx * raster.dwell_s)
            self.world.look()
            self.world.unblanked = False  # the buffer of the line ends on a blanked sample
            if blanks != self._blanks:
                raise Refused("blanked in mid-line", device=self.name)
            done += 1
            reports.append(LineReport(line, start_s, self.world.monotonic(), 1e-12))
            on_line(reports[-1])
        return PassReport(
            first_line, done, done * (raster.nx + 1), 0, first_line + done < raster.ny, tuple(reports)
        )


class Cell(Instrument):
    """A potentiostat: one program at a time, with its limits inside."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.running = False
        self._began_s = 0.0
        self._sent = 0

    async def start(self, program: CellProgram) -> None:
        """Send and start a program."""
        await self.answer()
        self.world.program, self.world.cell_unheard = program, False
        self.running, self._began_s, self._sent = True, self.world.monotonic(), 0

    async def next(self, timeout_s: float) -> CellSample | CellEvent:
        """Return the next package, or what ended the program."""
        world, program = self.world, self.world.program
        if program is None:
            self.running = False
            return CellEvent(world.monotonic(), CellEventKind.ABORTED, "stopped")
        interval_s = getattr(program, "interval_s", 1.0)
        wait_s = self._began_s + (self._sent + 1) * interval_s - world.monotonic()
        if self.name in world.silent or wait_s > timeout_s:
            await asyncio.sleep(timeout_s)
            raise NoReply("silent", device=self.name)
        await asyncio.sleep(max(wait_s, 0.0))
        world.look()
        self._sent += 1
        elapsed_s = self._sent * interval_s
        limits = getattr(program, "limits", None)
        longest_s = program.duration_s if isinstance(program, Ocv) else limits.duration_s if limits else 60.0
        voltage_v = world.voltage_v + world.cell_off_by_v
        if elapsed_s > longest_s:
            return self._finish("duration")
        if limits and not limits.voltage_low_v <= voltage_v <= limits.voltage_high_v:
            return self._finish("limit: voltage")
        current_a = 0.0 if isinstance(program, Ocv) else _current_a(program)
        good = not world.cell_invalid
        return CellSample(
            world.monotonic(), elapsed_s, "ocv" if isinstance(program, Ocv) else "cc",
            voltage_v if good else None, current_a if good else None, valid=good,
            problems=() if good else ("not a number",),
        )  # fmt: skip

    def _finish(self, why: str) -> CellEvent:
        self.world.program, self.running = None, False
        return CellEvent(self.world.monotonic(), CellEventKind.FINISHED, why)

    async def stop(self) -> None:
        """Abort the program."""
        await self.off()

    async def off(self) -> None:
        """Open the circuit."""
        self.world.cell_unheard = True
        await self.answer()
        self.world.program, self.running, self.world.cell_unheard = None, False, False

    async def read_ocv(self) -> float:
        """Return the voltage."""
        await self.answer()
        return self.world.voltage_v


def _current_a(program: CellProgram) -> float:
    if isinstance(program, ConstantCurrent | CcCv):
        return program.current_a
    return 1e-6 if isinstance(program, ConstantVoltage) else 0.0
