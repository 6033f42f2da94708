"""Twin of a LabJack T7 at the beam line: deflects and blanks the beam, holds the relay, shutter and permit.

Registers, lines, analogue part, stream mode and watchdog have a file each (``labjack_*``); here they become
one instrument with a wire. The time it needs to boot is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.labjack_analog import AIN_CHANNELS, Analogue
from hil_tests.sim.labjack_deflector import Deflector
from hil_tests.sim.labjack_dio import ALL, STATE_PORTS, DigitalLines
from hil_tests.sim.labjack_registers import TEST, Kind, Register, RegisterMap
from hil_tests.sim.labjack_t7_stream import Outputs, Stream
from hil_tests.sim.labjack_watchdog import Watchdog
from hil_tests.sim.physics.beam import Beam
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.modbus_tcp import ModbusTcpServer

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

REBOOT_KEY = 0x4C4A
CORE_HZ = 40e6
TEST_REGISTERS: dict[int, tuple[Kind, float]] = {
    55110: ("U16", 0x11),
    55120: ("U32", 0x00112233),
    55122: ("I32", -2003195205),
    55124: ("F32", -9999.0),
}
IDENTITY = {60000: 7.0, 60002: 1.35, 60004: 1.0302}  # product, hardware, firmware
DEFAULTS: dict[str, Any] = {
    "x_dac": 0, "y_dac": 1, "centre_v": 2.5, "x_um_per_v": 100.0, "y_um_per_v": 200.0,
    "pixel_clock": 0, "blank": 1, "relay": 2, "shutter": 3, "shutter_readback": 4, "permit": 5,
    "vacuum": 6, "window": 7, "beam_ain": 0, "beam_a_per_v": 10e-12, "serial": 470012345,
    "response_s": 0.001, "boot_s": 4.0,
    "shutter_s": 0.05, "interrupts": False, "stall_wall_s": math.inf,
}  # fmt: skip


class LabJackT7Twin:
    """The instrument, its wire and the beam.

    Args:
        beam: the physics; this twin is the only one that says where the beam is.
        clock: the lab clock of the bench.
        settings: see ``DEFAULTS``: which DAC, line and input does what, and their scales; ``interrupts``
            (``labjack_stream_out``); ``stall_wall_s``: if this process was held up for longer, requests may
            have waited unread, so the watchdog, which would never have stood still, gets that time back.
    """

    def __init__(self, beam: Beam, clock: BenchClock, settings: Mapping[str, Any] | None = None) -> None:
        unknown = set(settings or {}) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"unknown settings of the I/O: {', '.join(sorted(unknown))}")
        self.settings: dict[str, Any] = {**DEFAULTS, **(settings or {})}
        self.beam = beam
        self.faults = WireFaults()
        self.permit = True
        self.switches = {"vacuum": True, "window": True}  # contacts that are closed while all is well
        self.shutter_open = False
        self.shutter_openings = 0
        self.shutter_open_s = 0.0  # lab time, in all
        self.reboots = 0
        self.stalls = 0
        self.relay_switched = 0
        self._stuck: dict[str, bool | None] = {"relay": None, "shutter": None}
        self._clock = clock
        self._time_s = self._booted_s = clock.now_s()
        self._relay_was = False
        self._stop_with_beam = False
        self._shutter_command = False
        self._shutter_due_s = math.inf
        self._reboot_s = math.inf
        self._test = {address: default for address, (_, default) in TEST_REGISTERS.items()}
        self.registers = RegisterMap()
        s = self.settings
        self.dio = DigitalLines(
            {s["pixel_clock"]: False, s["blank"]: True, s["relay"]: False, s["shutter"]: False},
            {
                s["shutter_readback"]: lambda: self.shutter_open,
                s["permit"]: lambda: self.permit,
                s["vacuum"]: lambda: self.switches["vacuum"],
                s["window"]: lambda: self.switches["window"],
            },
            self._lines_changed,
        )
        self.deflector = Deflector(beam, self.dio, s)
        self.stream = Stream(lambda: self._time_s, self._sample, interrupts=bool(s["interrupts"]))
        self.analogue = Analogue(self._volts, lambda: self.stream.active)
        self.watchdog = Watchdog(lambda: self._time_s, clock.speed)
        self._server = ModbusTcpServer(
            self._respond, faults=self.faults, speed=clock.speed, delay_s=float(s["response_s"])
        )
        self._add_registers()

    async def start(self) -> str:
        """Listen; return "host:port"."""
        return f"127.0.0.1:{await self._server.start()}"

    async def stop(self) -> None:
        """Drop every client."""
        await self._server.stop()

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._server.port

    def advance(self, now_lab_s: float) -> None:
        """Let the instrument live until ``now_lab_s``."""
        if now_lab_s - self._time_s > float(self.settings["stall_wall_s"]) * self._clock.speed:
            self.stalls += 1
            self.watchdog.deadline_s += now_lab_s - self._time_s
        while self._time_s < now_lab_s:
            until = min(now_lab_s, self.watchdog.deadline_s, self._reboot_s, self._shutter_due_s)
            self._run_to(max(until, self._time_s))
            if self._time_s >= self._shutter_due_s:
                self._move_shutter()
            if self._time_s >= self._reboot_s:
                self._reboot()
            elif self._time_s >= self.watchdog.deadline_s:
                self._watchdog_fires()
        if self._time_s >= self._booted_s:
            self._server.open_for_clients = True

    def relay_closed(self) -> bool:
        """Return whether the contact in series with the heater is closed."""
        stuck = self._stuck["relay"]
        return self.dio.high(self.settings["relay"]) if stuck is None else stuck

    def blanked(self) -> bool:
        """Return whether the blanker has the beam."""
        return self.dio.high(self.settings["blank"])

    def position_um(self) -> tuple[float, float]:
        """Return where the beam points."""
        x, y = self.deflector.position_um(np.array(self.analogue.dac_v).reshape(2, 1))
        return float(x[0]), float(y[0])

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``half_open`` (connections that are there hear and
        say nothing any more, new ones work); ``reset`` with ``boot_s``; ``relay`` or ``shutter``
        with ``stuck`` closed, open or nothing (mended); ``permit`` with ``given`` true or false;
        ``switch`` with ``name`` vacuum or window and ``good`` true or false;
        ``beam_loss`` with ``lost`` true or false; ``stream_stop`` (``beam_on``: when the beam is on next).
        """
        kind = fault.get("kind")
        if self.faults.knows(kind):
            self.faults.inject(fault)
        elif kind in ("unplug", "replug"):
            self._server.silent = kind == "unplug"
        elif kind == "half_open":
            self._server.abandon()
        elif kind == "reset":
            self.settings["boot_s"] = float(fault.get("boot_s", self.settings["boot_s"]))
            self._reboot()
        elif kind in ("relay", "shutter"):
            self._stick(str(kind), fault.get("stuck"))
        elif kind == "permit":
            self.permit = bool(fault.get("given", False))
        elif kind == "switch":
            if fault["name"] not in self.switches:
                raise ValueError(f"no such switch of the I/O: {fault['name']!r}")
            self.switches[str(fault["name"])] = bool(fault.get("good", False))
        elif kind == "beam_loss":
            self.beam.lost = bool(fault.get("lost", True))
        elif kind == "stream_stop":
            self._stop_with_beam = bool(fault.get("beam_on", False))
            if not self._stop_with_beam:
                self.stream.stop()
        else:
            raise ValueError(f"no such fault of the I/O: {kind!r}")

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {
            "requests": self._server.requests,
            "bad_frames": self._server.bad_frames,
            "clients": self._server.clients,
            "errors": {str(number): count for number, count in self.registers.errors.items()},
            "pulses": self.deflector.pulses,
            "scans": self.stream.scans_done,
            "scans_skipped": self.stream.scans_skipped,
            "watchdog_fired": self.watchdog.fired,
            "longest_stay_s": self.beam.longest_stay_s,
            "stalls": self.stalls,
            "reboots": self.reboots,
            "relay_switched": self.relay_switched,
            "relay_closed": self.relay_closed(),
            "shutter_open": self.shutter_open,
            "shutter_openings": self.shutter_openings,
            "blanked": self.blanked(),
            "wire_faults": dict(self.faults.counts),
        }

    # --- wire and registers ----------------------------------------------------------------------------

    def _respond(self, pdu: bytes) -> bytes:
        self.advance(self._clock.now_s())
        self.watchdog.communication()
        return self.registers.respond(pdu)

    def _add_registers(self) -> None:
        for part in (self.dio, self.stream, self.watchdog, self.analogue):
            part.add_registers(self.registers)
        add = self.registers.add
        add(TEST, Register("U32", lambda: 0x00112233))
        for address, (kind, _) in TEST_REGISTERS.items():
            add(
                address,
                Register(
                    kind, partial(self._test.__getitem__, address), partial(self._test.__setitem__, address)
                ),
            )
        for address, value in IDENTITY.items():
            add(address, Register("F32", partial(float, value)))
        add(60010, Register("U32", lambda: 0))  # HARDWARE_INSTALLED: a T7 without options
        add(60028, Register("U32", lambda: self.settings["serial"]))
        add(61520, Register("U32", lambda: int(self._time_s * CORE_HZ) & 0xFFFF_FFFF))
        add(61522, Register("U32", lambda: int(self._time_s * 20.0) & 0xFFFF_FFFF))
        add(61998, Register("U32", None, self._order_reboot))

    def _volts(self, channel: int, count: int) -> Floats:
        """What is wired to an input."""
        if channel == self.settings["beam_ain"]:
            return self.beam.monitor_a(count) / float(self.settings["beam_a_per_v"])
        return np.zeros(count)

    def _sample(
        self, address: int, count: int, outputs: Outputs, preceding: Collection[int]
    ) -> Integers | None:
        """Read a streamable input; None if this address cannot be streamed.

        A digital port shows what the stream-outs wrote: in the same scan if they come before it in the scan
        list, else in the scan before.
        """
        if port := STATE_PORTS.get(address):
            earlier = {target: values for target, values in outputs.items() if target in preceding}
            later = {target: values for target, values in outputs.items() if target not in preceding}
            changed = sum(STATE_PORTS[t].mask for t in later if t in STATE_PORTS)
            latch = self.dio.streamed(earlier, count)[1:] & ~changed
            latch |= self.dio.streamed(later, count)[:-1] & changed
            return (self.dio.levels_of(latch) & port.mask) >> port.first
        if address % 2 or not 0 <= address < 2 * AIN_CHANNELS:
            return None
        return self.analogue.binary(address // 2, count)

    # --- time ------------------------------------------------------------------------------------------

    def _run_to(self, until_s: float) -> None:
        """Do the scans that are due and tell the beam where it was."""
        began_s = self._time_s
        count = self.stream.due(until_s)
        while count:
            scans = self.stream.run(count)
            count = self.stream.due(until_s)
            end_s = float(scans.time_s[-1]) if count else until_s
            self.beam.process(end_s - self._time_s)
            self.deflector.scanned(
                self._time_s, end_s, self.analogue.dac_v, scans, shutter_open=self.shutter_open
            )
            self._time_s = end_s
            self._lines_changed()
            if self._stop_with_beam and self.shutter_open and not self.blanked():
                self._stop_with_beam = False
                self.stream.stop()
                count = 0
        if until_s > self._time_s:
            self.beam.process(until_s - self._time_s)
            self.deflector.rest(self._time_s, until_s, self.analogue.dac_v, shutter_open=self.shutter_open)
            self._time_s = until_s
        self.shutter_open_s += self._time_s - began_s if self.shutter_open else 0.0

    def _lines_changed(self) -> None:
        """Follow the lines after a command or scans: pixel clock, shutter, relay."""
        self.deflector.edge(self._time_s)
        command = self.dio.high(self.settings["shutter"])
        if command != self._shutter_command:
            self._shutter_command = command
            self._shutter_due_s = self._time_s + float(self.settings["shutter_s"])
        closed = self.relay_closed()
        self.relay_switched += closed != self._relay_was
        self._relay_was = closed

    def _move_shutter(self) -> None:
        self._shutter_due_s = math.inf
        stuck = self._stuck["shutter"]
        opens = self._shutter_command if stuck is None else stuck
        self.shutter_openings += opens and not self.shutter_open
        self.shutter_open = opens

    def _stick(self, what: str, state: object) -> None:
        if state not in ("closed", "open", None):
            raise ValueError(f"no such state of the {what}: {state!r}")
        on = "closed" if what == "relay" else "open"
        self._stuck[what] = None if state is None else state == on
        self._move_shutter()
        self._lines_changed()

    def _order_reboot(self, value: float) -> None:
        if int(value) >> 16 == REBOOT_KEY:
            self._reboot_s = self._time_s + (int(value) & 0xFFFF) * 0.05

    def _reboot(self) -> None:
        self._reboot_s = math.inf
        self.reboots += 1
        self.stream.power_up()
        self.analogue.power_up()
        self.dio.power_up()
        self._booted_s = self._time_s + float(self.settings["boot_s"])
        self.watchdog.booted()
        self._server.open_for_clients = False
        self._server.drop()

    def _watchdog_fires(self) -> None:
        actions = self.watchdog.fire()
        for number, volts in enumerate(actions.dac_v):
            if volts is not None:
                self.analogue.set_dac(number, volts)
        if actions.dio_state is not None:
            affected = ALL & ~actions.dio_inhibit
            self.dio.write(actions.dio_state, actions.dio_direction, affected)
        if actions.reset:
            self._reboot()
