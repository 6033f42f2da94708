"""LabJack T7 over Modbus TCP: beam scanner, beam monitor, heater relay, shutter and permit on one box.

The beam is blanked, the relay opened and the shutter closed by whichever comes first: ``off``, the strict
watchdog in the box (only its own key feeds it, not any other traffic), or the end of the line buffer, which
repeats a blanked sample. Lines are played by ``labjack_lines``; while they are, the box does not read
analogue inputs on request, so the beam current comes from the stream.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from drivers import labjack_registers as t7
from drivers.clock import Clock
from drivers.errors import BadLine, BadReply, DriverError, OutOfRange, Refused
from drivers.labjack_box import Box, arm_watchdog, prepare_monitor
from drivers.labjack_lines import LinePlayer, to_its_end
from drivers.labjack_raster import plan
from drivers.labjack_settings import Scanner, t7_settings
from drivers.labjack_stream import Calibration
from drivers.line import Line
from drivers.modbus import floats
from drivers.roles import Identity, IoReading, LineReport, PassReport, Raster, Role

UNIT = 1
OFF_ATTEMPTS = 2
STALE_S = 0.5  # a beam current from the stream that is older is unknown
SHUTTER_TRAVEL_S = 1.0  # so long the read-back may contradict the command without being a problem
FEEDS_PER_TIMEOUT = 4


class LabJackT7:
    """One box.

    Args:
        line: TCP line to port 502.
        name: for messages, as in the station file.
        clock: lab time, for the scanner.
        settings: see ``labjack_settings``; SI values under names that end in their unit.
    """

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self._wiring = t7_settings(settings, name)
        self._io = Box(line, UNIT, device=name)
        self._key = secrets.randbelow(0xFFFF_FFFE) + 1
        self._calibration = Calibration()
        self._player: LinePlayer | None = None
        self._streaming = False
        self._blankings = 0  # times that somebody asked for a blanked beam
        self._offs = 0  # times that somebody asked for everything off
        self._prepared = False
        self._restarted = False
        self._openings = 0
        self._fed_s = -math.inf
        self._relay_closed = False
        self._shutter_open = False
        self._shutter_moved_s = -math.inf

    @property
    def roles(self) -> frozenset[Role]:
        """What is wired, by the settings."""
        wired = {
            Role.BEAM_SCANNER: self._wiring.scanner,
            Role.BEAM_MONITOR: self._wiring.beam_current,
            Role.RELAY: self._wiring.relay,
            Role.SHUTTER: self._wiring.shutter,
            Role.PERMIT: self._wiring.permit,
        }
        return frozenset(role for role, part in wired.items() if part is not None)

    # --- who it is ---------------------------------------------------------------------------------------

    async def identify(self) -> Identity:
        """Read product, versions and serial number, and test the order of words.

        Raises:
            BadReply: another product, or words that arrive exchanged.
        """
        product, _, firmware = await self._io.read_f32(t7.PRODUCT_ID, 3)
        if product != t7.PRODUCT_T7:
            asked = f"PRODUCT_ID at {t7.PRODUCT_ID}"
            text = f"product {product:g} is not a T7"
            raise BadReply(text, device=self.name, request=asked, reply=f"{product:g}")
        test = (await self._io.read_u32(t7.TEST))[0]
        words = tuple(await self._io.read_holding(t7.TEST_INT32, 4))
        if test != t7.TEST_VALUE or words != t7.TEST_INT32_WORDS:
            got = f"{test:08x} and {' '.join(f'{word:04x}' for word in words)}"
            raise BadReply(f"the self-test of the word order reads {got}", device=self.name)
        serial = (await self._io.read_u32(t7.SERIAL_NUMBER))[0]
        return Identity("LabJack", "T7", str(serial), f"{firmware:.4f}")

    async def prepare(self) -> list[str]:
        """Stop any stream, make the outputs safe, arm and verify the watchdog, set up the inputs."""
        self._prepared = False
        self._blankings += 1
        self._offs += 1
        await self.identify()
        await self._stop_stream()
        if (await self._io.read_u32(t7.STREAM_ENABLE))[0]:
            raise BadReply("a stream goes on after it was stopped", device=self.name)
        self._streaming = False
        await self._set_safe()
        for line in self._wiring.inputs:
            await self._io.read_holding(t7.FIO + line)  # makes it an input
        await self._check_safe()
        await self._check_directions()
        notes = await self._arm_watchdog()
        if self._wiring.beam_current is not None:
            self._calibration, why = await prepare_monitor(self._io, self._wiring.beam_current)
            notes += [f"{self.name}: {why}"] if why else []
        self._openings = self._line.openings
        self._restarted = False
        self._prepared = True
        return notes

    # --- monitor and outputs -------------------------------------------------------------------------------

    async def read(self) -> IoReading:
        """Poll once. The beam current is None while it is unknown: overload, or too old during a scan."""
        await self._check_restart()
        problems = ["the box has restarted: prepare it again"] if self._restarted else []
        current_a = await self._beam_current(problems)
        levels = await self._levels()  # last: from here on nothing may change what was commanded
        now_s = time.monotonic()
        relay_closed = self._high(levels, self._wiring.relay)
        if relay_closed != self._relay_closed:
            state = "closed" if relay_closed else "open"
            problems.append(f"the relay is {state} against the command (watchdog, or another program)")
        scanner = self._wiring.scanner
        blanked = scanner is None or self._high(levels, scanner.blank)
        if not blanked and not self._streaming:
            problems.append("the beam is not blanked although no line plays")
        return IoReading(
            monotonic_s=now_s,
            beam_current_a=current_a,
            permit=self._wiring.permit is None or self._high(levels, self._wiring.permit),
            relay_closed=relay_closed,
            shutter_open=self._shutter(levels, problems),
            blanked=blanked,
            problems=tuple(problems),
            switches={name: self._high(levels, line) for name, line in self._wiring.switches.items()},
        )

    async def feed_watchdog(self) -> None:
        """Renew the lease of every output."""
        if not self._prepared:
            raise Refused("is not prepared: its watchdog is not armed by this host", device=self.name)
        if self._wiring.watchdog_s is not None:
            await self._io.write_u32(t7.WATCHDOG_CLEAR, self._key)
            self._fed_s = time.monotonic()

    async def set_relay(self, *, closed: bool) -> None:
        """Close or open the relay in series with the heater; verified. Closing needs ``prepare``."""
        line = self._needed(self._wiring.relay, "relay")
        self._allowed(energise=closed, what="close its relay")
        await self._switch(line, closed, "relay")
        self._relay_closed = closed
        await self._verify_level(line, closed, "relay")

    async def set_shutter(self, *, open_: bool) -> None:
        """Open or close the shutter; the output is verified, the read-back line is in ``read``."""
        line = self._needed(self._wiring.shutter, "shutter")
        self._allowed(energise=open_, what="open its shutter")
        await self._switch(line, open_, "shutter")
        if open_ != self._shutter_open:
            self._shutter_moved_s = time.monotonic()
        self._shutter_open = open_
        await self._verify_level(line, open_, "shutter")

    # --- the beam ------------------------------------------------------------------------------------------

    async def blank(self) -> None:
        """Blank the beam now and verify it; lines that play are ended."""
        self._blankings += 1
        scanner = self._wiring.scanner
        if scanner is None:
            return
        if self._streaming or self._player is not None or not self._prepared:
            await self._stop_stream(urgent=True)
        await self._set_blanked(scanner)

    async def run_lines(
        self,
        raster: Raster,
        first_line: int,
        *,
        on_line: Callable[[LineReport], None],
        should_stop: Callable[[], bool],
    ) -> PassReport:
        """Play the lines ``first_line``..ny-1; stop between lines when asked; end blanked.

        The watchdog is fed meanwhile, until ``blank`` or ``off`` is called.

        Raises:
            OutOfRange: the raster exceeds a limit; nothing was sent.
            Refused: not prepared, a pass is already playing, or ``blank`` or ``off`` was called meanwhile.
            BadLine: a line did not do what it should; says so if the watchdog has acted.
        """
        scanner, monitor = self._wiring.scanner, self._wiring.beam_current
        if scanner is None or monitor is None:
            raise Refused("has no scanner", device=self.name)
        the_plan = plan(raster, scanner, name=self.name)
        if not 0 <= first_line < raster.ny:
            raise OutOfRange(f"no line {first_line} in a raster of {raster.ny}", device=self.name)
        self._allowed(energise=True, what="play lines")
        if self._player is not None:
            raise Refused("already plays lines", device=self.name)
        blankings = self._blankings

        def may_go_on() -> None:
            if self._blankings != blankings:
                raise Refused("was told to blank the beam while lines were playing", device=self.name)

        self._player = LinePlayer(
            self._io, the_plan, monitor, self._calibration, clock=self._clock, name=self.name,
            may_go_on=may_go_on, meanwhile=self._feed_if_due,
        )  # fmt: skip
        self._streaming = True
        broken: BadLine | None = None
        try:
            await self._stop_stream()
            report = await self._player.play(first_line, on_line=on_line, should_stop=should_stop)
        except BadLine as error:
            may_go_on()
            broken = error
        except DriverError:
            may_go_on()  # if ``blank`` or ``off`` came in between, that is what ended it
            raise
        finally:
            await to_its_end(self._end_pass(scanner))
        may_go_on()
        if broken is not None:
            raise BadLine(f"{broken.message}{await self._went_off()}", device=self.name) from broken
        return report

    async def deflection_um(self) -> tuple[float, float]:
        """Read both outputs back; return where they deflect to, um. Raises Refused without a scanner."""
        scanner = self._wiring.scanner
        if scanner is None:
            raise Refused("has no scanner", device=self.name)
        (x_v,) = floats(await self._io.read_holding(t7.DAC + 2 * scanner.x_dac, 2))
        (y_v,) = floats(await self._io.read_holding(t7.DAC + 2 * scanner.y_dac, 2))
        return (x_v - scanner.centre_v) * scanner.scale_x_um_per_v, (
            y_v - scanner.centre_v
        ) * scanner.scale_y_um_per_v

    async def off(self) -> None:
        """Blank the beam, open the relay, close the shutter; also while lines play. Verified."""
        self._line.interrupt()
        self._blankings += 1
        self._offs += 1
        failures: list[DriverError] = []
        for _ in range(OFF_ATTEMPTS):
            failures.clear()
            for step in (self._stop_stream, self._set_safe, self._check_safe):
                try:
                    await step(urgent=True)
                except DriverError as error:  # the outputs come all the same
                    failures.append(error)
            if not failures:
                self._streaming = False
                return
        raise failures[-1]

    async def close(self) -> None:
        """Release the line. The watchdog stays armed: unfed, it makes the outputs safe."""
        await self._line.close()

    # --- inside --------------------------------------------------------------------------------------------

    async def _levels(self, *, urgent: bool = False) -> int:
        """Levels at the terminals, one bit for each digital line."""
        return (await self._io.read_u32(t7.DIO_STATE, urgent=urgent))[0]

    @staticmethod
    def _high(levels: int, line: int | None) -> bool:
        return line is not None and bool(levels >> line & 1)

    def _needed(self, line: int | None, what: str) -> int:
        if line is None:
            raise Refused(f"has no {what}", device=self.name)
        return line

    def _allowed(self, *, energise: bool, what: str) -> None:
        if energise and not self._prepared:
            why = "has restarted" if self._restarted else "is not prepared"
            raise Refused(f"does not {what}: it {why}", device=self.name)

    async def _switch(self, line: int, high: bool, what: str) -> None:
        """Write one output; if ``off`` came while the request was waiting, undo it at once."""
        offs = self._offs
        await self._io.write_register(t7.FIO + line, int(high))
        if high and self._offs != offs:
            await self._io.write_register(t7.FIO + line, 0, urgent=True)
            raise Refused(f"the {what} stays off: everything was switched off meanwhile", device=self.name)

    async def _verify_level(self, line: int, high: bool, what: str, *, urgent: bool = False) -> None:
        if self._high(await self._levels(urgent=urgent), line) != high:
            raise BadReply(f"the {what} line FIO{line} did not follow", device=self.name)

    async def _set_safe(self, *, urgent: bool = False) -> None:
        """Write the safe level of every output, the blank first; this also makes them outputs."""
        failures: list[DriverError] = []
        for line, level in self._wiring.outputs.items():
            try:
                await self._io.write_register(t7.FIO + line, level, urgent=urgent)
            except DriverError as error:  # the others all the same
                failures.append(error)
        self._relay_closed = False
        if self._shutter_open:
            self._shutter_moved_s = time.monotonic()
        self._shutter_open = False
        if failures:
            raise failures[0]

    async def _check_safe(self, *, urgent: bool = False) -> None:
        levels = await self._levels(urgent=urgent)
        wrong = [line for line, level in self._wiring.outputs.items() if (levels >> line & 1) != level]
        if wrong:
            names = ", ".join(f"FIO{line}" for line in wrong)
            raise BadReply(f"{names} did not go to the safe level", device=self.name)

    async def _check_directions(self) -> None:
        outputs = (await self._io.read_u32(t7.DIO_DIRECTION))[0]
        wrong = [line for line in self._wiring.outputs if not outputs >> line & 1]
        wrong += [line for line in self._wiring.inputs if outputs >> line & 1]
        if wrong:
            names = ", ".join(f"FIO{line}" for line in sorted(wrong))
            raise BadReply(f"{names} did not take its direction", device=self.name)

    async def _stop_stream(self, *, urgent: bool = False) -> None:
        """Stop the stream; in a hurry without asking first whether one is running."""
        if not urgent and not (await self._io.read_u32(t7.STREAM_ENABLE))[0]:
            return
        with contextlib.suppress(Refused):  # none is running
            await self._io.write_u32(t7.STREAM_ENABLE, 0, urgent=urgent)

    async def _end_pass(self, scanner: Scanner) -> None:
        """Leave the stream stopped and the beam blanked, whatever happened."""
        self._player = None
        await self._stop_stream(urgent=True)
        await self._set_blanked(scanner)

    async def _set_blanked(self, scanner: Scanner) -> None:
        """Blank, then leave the pixel clock low: the next pass begins with a pulse of its own."""
        await self._io.write_register(t7.FIO + scanner.blank, 1, urgent=True)
        await self._io.write_register(t7.FIO + scanner.pixel_clock, 0, urgent=True)
        await self._verify_level(scanner.blank, True, "blank", urgent=True)
        self._streaming = self._player is not None  # lines that were begun meanwhile go on

    async def _went_off(self) -> str:
        """Say what is off against the command: why a line was cut off may be that the watchdog has acted."""
        on = {"relay": self._relay_closed, "shutter": self._shutter_open}
        lines = {"relay": self._wiring.relay, "shutter": self._wiring.shutter}
        with contextlib.suppress(DriverError):
            levels = await self._levels()
            off = [name for name in on if on[name] and not self._high(levels, lines[name])]
            if off:
                return f"; {' and '.join(off)} went off meanwhile (the watchdog, or another program)"
        return ""

    async def _arm_watchdog(self) -> list[str]:
        timeout_s = self._wiring.watchdog_s
        if timeout_s is None:
            return [f"{self.name}: no watchdog is set up; its outputs stay as they are when the host dies"]
        await arm_watchdog(self._io, self._wiring.outputs, timeout_s, self._key, name=self.name)
        self._fed_s = time.monotonic()
        return [
            f"{self.name}: strict watchdog armed with {timeout_s} s: beam blanked, relay open, shutter "
            "closed when the host stops feeding it; the deflection voltages stay",
            f"{self.name}: after power-up, until it is prepared, its digital lines are inputs with a weak "
            "pull-up: relay and shutter must be wired so that this does not move them",
        ]

    async def _check_restart(self) -> None:
        """After the connection was renewed: is it still the box as it was prepared?"""
        if not self._prepared or self._line.openings == self._openings:
            return
        armed = self._wiring.watchdog_s is None or (await self._io.read_u32(t7.WATCHDOG_ENABLE))[0] == 1
        try:
            await self._check_directions()
        except BadReply:
            armed = False
        self._openings = self._line.openings
        if not armed:
            self._prepared = False
            self._restarted = True

    async def _beam_current(self, problems: list[str]) -> float | None:
        monitor, player = self._wiring.beam_current, self._player
        if monitor is None:
            return None
        if self._streaming:
            current_a, when_s = player.current if player is not None else (None, 0.0)
            fresh = time.monotonic() - when_s <= self._clock.wall_timeout_s(STALE_S)
            return current_a if fresh else None
        try:
            volts = floats(await self._io.read_input(t7.AIN + 2 * monitor.ain, 2))[0]
        except Refused:
            if self._streaming:  # a pass began meanwhile
                return None
            raise
        if not abs(volts) <= t7.AIN_RANGE_V:
            problems.append(f"the beam monitor is beyond its range: {volts:.2f} V")
            return None
        return volts * monitor.scale_a_per_v

    def _shutter(self, levels: int, problems: list[str]) -> bool | None:
        if self._wiring.shutter is None:
            return None
        if self._high(levels, self._wiring.shutter) != self._shutter_open:
            problems.append("the shutter output is not as commanded (watchdog, or another program)")
            return None
        if self._wiring.shutter_readback is None:
            return self._shutter_open
        if self._high(levels, self._wiring.shutter_readback) == self._shutter_open:
            return self._shutter_open
        travel_s = self._clock.wall_timeout_s(SHUTTER_TRAVEL_S)
        if time.monotonic() - self._shutter_moved_s > travel_s:
            problems.append(f"the shutter does not {'open' if self._shutter_open else 'close'}")
        return None

    async def _feed_if_due(self) -> None:
        if self._wiring.watchdog_s is None:
            return
        allowed_s = self._clock.wall_timeout_s(self._wiring.watchdog_s)
        if time.monotonic() - self._fed_s > allowed_s / FEEDS_PER_TIMEOUT:
            await self.feed_watchdog()
