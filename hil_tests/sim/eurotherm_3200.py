"""Twin of a Eurotherm 3200 temperature controller on a serial line, heating a holder.

The relay in series with the heater belongs to somebody else: power flows only while ``relay_closed()`` is
true, whatever the controller puts out.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.eurotherm_loop import KELVIN_AT_0_C, Loop, LoopSettings
from hil_tests.sim.eurotherm_registers import ControllerMap, RegisterMap
from hil_tests.sim.physics.holder import Holder
from hil_tests.sim.physics.pt100 import Sensor
from hil_tests.sim.physics.runaway import SelfHeating
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.modbus_rtu import GapFramer, RtuSlave, checksum, gap_s
from hil_tests.sim.wire.serial_pty import SerialPty

CYCLE_S = 0.25
SENSOR_STATES = ("good", "open", "short", "out of range")
NEIGHBOUR_UNIT = 2


class Neighbour:
    """Registers of another instrument on the same RS-485 pair; it counts up and takes nothing."""

    def read(self, register: int, count: int) -> Sequence[int]:
        """Return the numbers of the registers."""
        return range(register, register + count)

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take words, and forget them."""


class EurothermTwin:
    """The instrument, its wire and the holder it heats.

    Args:
        holder: the physics; this twin is the only one that lets its time pass.
        clock: the lab clock of the bench.
        unit_id: Modbus address.
        relay_closed: state of the relay in series with the heater.
        settings: ``baud``, ``bits``, ``decimals``, ``response_s``, ``name`` and every field of LoopSettings.
    """

    def __init__(
        self,
        holder: Holder,
        clock: BenchClock,
        unit_id: int = 1,
        relay_closed: Callable[[], bool] = lambda: True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(settings or {})
        baud, bits = int(given.pop("baud", 9600)), int(given.pop("bits", 10))
        decimals = int(given.pop("decimals", 1))
        self._response_s = float(given.pop("response_s", 0.02))
        name = str(given.pop("name", "heater"))
        unknown = set(given) - {field.name for field in fields(LoopSettings)}
        if unknown:
            raise ValueError(f"unknown settings of the controller: {', '.join(sorted(unknown))}")
        self.holder = holder
        self.loop = Loop(LoopSettings(**given))
        self.registers = self._map(decimals)
        self.slave = RtuSlave(unit_id, self.registers)
        self.neighbour: RtuSlave | None = None
        self._babbling: asyncio.TimerHandle | None = None
        self._random = random.Random(0)
        self._wrong_unit = 0
        self._wrong_replies = 0
        self.faults = WireFaults()
        self._clock = clock
        self._relay_closed = relay_closed
        self._time_s = clock.now_s()
        self._booted_s = self._time_s
        self._resets = 0
        self.sensor = Sensor()
        self.self_heating = SelfHeating()
        self._stuck_fraction: float | None = None
        self._gap_s = gap_s(baud, bits)
        self._framer = GapFramer(self._frame, self._gap_s / clock.speed)
        self._port = SerialPty(self._framer.feed, name=name, baud=baud, bits=bits, speed=clock.speed)
        self.loop.restart(self._sensed_c())

    def _map(self, decimals: int) -> ControllerMap:
        """Return the registers of this controller; others have the same loop behind other registers."""
        return RegisterMap(self.loop, decimals)

    async def start(self) -> str:
        """Open the port; return its name."""
        return self._port.open()

    async def stop(self) -> None:
        """Close the port."""
        self._babble(0.0, 0)
        self._framer.clear()
        self._port.close()

    def advance(self, now_lab_s: float) -> None:
        """Let the instrument and the holder live until ``now_lab_s``, in the controller's own cycles."""
        while self._time_s + CYCLE_S <= now_lab_s:
            self._time_s += CYCLE_S
            self.sensor.process(CYCLE_S)
            self.loop.cycle(self._sensed_c(), CYCLE_S)
            if self._time_s < self._booted_s:
                self.loop.output_percent = 0.0
            fraction = self.loop.output_percent / 100.0
            if self._stuck_fraction is not None:
                fraction = self._stuck_fraction
            self.holder.set_duty(fraction if self._relay_closed() else 0.0)
            self.holder.self_heating_w = self.self_heating.process(CYCLE_S, self.holder.cell_k)
            self.holder.process(CYCLE_S)

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``sensor`` with ``state`` good, open, short, out of
        range, frozen, or displaced by ``offset_k``, ``drift_k_per_s`` and ``noise_k``; ``reset`` with
        ``boot_s``, and ``cleared`` if its settings are lost too; ``stuck_output`` with ``fraction`` (0: dead,
        null: mended); ``deaf``: writes are acknowledged and not taken, until ``given`` false;
        ``runaway``: ``watt`` made inside the cell, constant, or with ``ev`` as at ``reference_k`` and rising
        with its temperature until ``joule`` are spent; ``by_hand``: somebody at its front panel takes it out
        of automatic and sets ``percent`` of full output (null: back to automatic); ``wrong_unit``: ``count``
        replies bear the address ``unit``, with the right checksum; ``neighbour``: unit 2 on the same pair
        ``answers`` or not, and talks unasked ``babbles_s`` apart on average, ``bytes`` (8) of noise each
        (0: no more).
        """
        kind = fault.get("kind")
        if self.faults.knows(kind):
            self.faults.inject(fault)
        elif kind == "unplug":
            self._port.unplug()
            self._framer.clear()
        elif kind == "replug":
            self._port.replug()
        elif kind == "sensor":
            self._break_sensor(fault)
        elif kind == "reset":
            self._reset(float(fault.get("boot_s", 3.0)), cleared=bool(fault.get("cleared", False)))
        elif kind == "stuck_output":
            fraction = fault.get("fraction", 1.0)
            self._stuck_fraction = None if fraction is None else float(fraction)
        elif kind == "runaway":
            self._run_away(fault)
        elif kind == "deaf":
            self.registers.deaf = bool(fault.get("given", True))
        elif kind == "by_hand":
            percent = fault.get("percent", 0.0)
            self.registers.by_hand(None if percent is None else float(percent))
        elif kind == "wrong_unit":
            self._wrong_unit = int(fault.get("unit", 7))
            self._wrong_replies = int(fault.get("count", 1))
        elif kind == "neighbour":
            answers = bool(fault.get("answers", True))
            self.neighbour = RtuSlave(NEIGHBOUR_UNIT, Neighbour()) if answers else None
            self._babble(float(fault.get("babbles_s", 0.0)), int(fault.get("bytes", 8)))
        else:
            raise ValueError(f"no such fault of the temperature controller: {kind!r}")

    def counters(self) -> dict[str, Any]:
        """Return what happened so far: requests, writes, faults, energy."""
        return {
            **self.slave.counters,
            "writes": self.registers.writes,
            "eeprom_writes": self.registers.eeprom_writes,
            "resets": self._resets,
            "heater_joule": self.holder.heater_joule,
            "output_percent": self.loop.output_percent,
            "lost_bytes": self._port.lost_bytes,
            "wire_faults": dict(self.faults.counts),
            "port": self._port.path if self._port.plugged else "",
        }

    def _frame(self, frame: bytes) -> None:
        now_s = self._clock.now_s()
        self.advance(now_s)
        if now_s < self._booted_s:
            return
        reply = self.slave.answer(frame)
        if reply is None and self.neighbour is not None:
            reply = self.neighbour.answer(frame)
        if reply is None:
            return
        if self._wrong_replies > 0:
            self._wrong_replies -= 1
            self.faults.counts["wrong_unit"] = self.faults.counts.get("wrong_unit", 0) + 1
            message = bytes([self._wrong_unit]) + reply[1:-2]
            reply = message + checksum(message)
        delay_s = max(0.0, self._response_s - self._gap_s)
        for extra_s, piece in self.faults.outgoing(reply):
            self._port.send(piece, delay_s + extra_s)

    def _babble(self, every_s: float, size: int) -> None:
        """Let somebody on the pair talk unasked, again and again."""
        if self._babbling is not None:
            self._babbling.cancel()
            self._babbling = None
        if every_s > 0.0:
            wait_s = self._random.expovariate(1.0 / every_s) / self._clock.speed
            self._babbling = asyncio.get_running_loop().call_later(wait_s, self._talk, every_s, size)

    def _talk(self, every_s: float, size: int) -> None:
        self._port.send(self._random.randbytes(size))
        self.faults.counts["babble"] = self.faults.counts.get("babble", 0) + 1
        self._babble(every_s, size)

    def _sensed_c(self) -> float:
        return self.sensor.reading_k(self.holder.pt100_k) - KELVIN_AT_0_C

    def _run_away(self, fault: Mapping[str, Any]) -> None:
        watt, ev = float(fault["watt"]), float(fault.get("ev", 0.0))
        self.holder.cell_power_w = 0.0 if ev else watt
        self.self_heating.begin(
            watt if ev else 0.0,
            reference_k=float(fault.get("reference_k", 333.15)),
            ev=ev,
            joule=float(fault.get("joule", math.inf)),
        )

    def _break_sensor(self, fault: Mapping[str, Any]) -> None:
        state = str(fault["state"])
        if state == "frozen":
            self.sensor.freeze(self.holder.pt100_k)
            return
        if state == "displaced":
            self.sensor.offset_k = float(fault.get("offset_k", 0.0))
            self.sensor.drift_k_per_s = float(fault.get("drift_k_per_s", 0.0))
            self.sensor.noise_k = float(fault.get("noise_k", 0.0))
            return
        if state not in SENSOR_STATES:
            raise ValueError(f"no such state of the sensor: {state!r}")
        if state == "good":
            self.sensor.mend()
        self.loop.sensor = state  # type: ignore[assignment]  # one of SENSOR_STATES

    def _reset(self, boot_s: float, *, cleared: bool) -> None:
        """Power lost and back: silent while it boots, volatile values gone, output 0 until then.

        ``cleared``: a cold start as it comes from the factory: limits as wide as the range, no action on a
        broken sensor.
        """
        self._resets += 1
        self._booted_s = self._clock.now_s() + boot_s
        self.registers.power_failed = True
        if cleared:
            s = self.loop.settings
            s.setpoint_low_c, s.setpoint_high_c = s.range_low_c, s.range_high_c
            s.sensor_break, s.remote, s.rate = "off", False, 0.0
        self.loop.restart(self._sensed_c())
        self.holder.set_duty(0.0)
