"""Twin of an ICP DAS M-7015: six resistance thermometers on an RS-485 pair, Modbus RTU.

What the manuals at hand leave open is decided here and said so:

* the register map is that of the sister modules (tM-TH8, M-7017C, ZT-2005);
* engineering format has one decimal;
* an open or a shorted element sets the range flag; open reads 0x7FFF, short 0x8000, in both formats;
* the name of the module is 00 70 15 00, in function 0x46 and in the registers 40483 and 40484;
* all channels are converted once in half a second, and the values stand still in between;
* settings are stored at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.physics.platinum import celsius, ohm
from hil_tests.sim.physics.pt100 import Sensor
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.modbus_rtu import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    READ_DISCRETE,
    GapFramer,
    ModbusError,
    RtuSlave,
    gap_s,
)
from hil_tests.sim.wire.serial_pty import SerialPty

CHANNELS = 6
SCAN_S = 0.5
OVER, UNDER = 0x7FFF, 0x8000
RANGES_C = {  # by type code
    0x20: (-100.0, 100.0),
    0x21: (0.0, 100.0),
    0x22: (0.0, 200.0),
    0x23: (0.0, 600.0),
    0x2E: (-200.0, 200.0),
    0x80: (-200.0, 600.0),
}
NAME = bytes.fromhex("00 70 15 00")
FIRMWARE = bytes.fromhex("01 07 00")
VENDOR_FUNCTION = 0x46
WIRES = ("good", "open", "short")


class Channel:
    """One element with its leads, and what was converted last."""

    def __init__(self, kelvin: Callable[[], float]) -> None:
        self.kelvin = kelvin
        self.sensor = Sensor()
        self.wire = "good"
        self.type_code = 0x20
        self.r0_ohm = 100.0
        self.lead_ohm = 0.0
        self.word = 0
        self.out_of_range = False

    def convert(self, *, engineering: bool) -> None:
        """Measure once."""
        low_c, high_c = RANGES_C[self.type_code]
        measured_c = celsius(ohm(self.sensor.reading_k(self.kelvin()), self.r0_ohm, self.lead_ohm))
        if self.wire == "open" or (self.wire == "good" and measured_c > high_c):
            self.word, self.out_of_range = OVER, True
        elif self.wire == "short" or measured_c < low_c:
            self.word, self.out_of_range = UNDER, True
        else:
            full = max(abs(low_c), abs(high_c))
            counts = measured_c * 10.0 if engineering else measured_c / full * 32768.0
            self.word, self.out_of_range = min(round(counts), OVER) & 0xFFFF, False


class Settings:
    """Registers and coils of the module."""

    def __init__(self, channels: Sequence[Channel], unit_id: int) -> None:
        self.channels = channels
        self.coils = {256: True, 260: False, 266: True, 268: False, 269: False}
        self.enabled = 0x3F
        self.was_reset = True
        self.writes = 0
        self._unit_id = unit_id

    @property
    def engineering(self) -> bool:
        """Coil 00269."""
        return self.coils[268]

    def read(self, register: int, count: int) -> list[int]:
        """Return words; 30001 and 40001 are the same."""
        return [self._word(register + offset) for offset in range(count)]

    def _word(self, register: int) -> int:
        if register < CHANNELS:
            return self.channels[register].word if self.enabled >> register & 1 else 0
        if 256 <= register < 256 + CHANNELS:
            return self.channels[register - 256].type_code
        fixed = {480: 0x0100, 481: 0x0107, 482: 0x0070, 483: 0x1500, 484: self._unit_id, 485: 0x06}
        fixed |= {487: 0, 488: 0, 489: self.enabled, 491: 0}
        if register not in fixed:
            raise ModbusError(ILLEGAL_ADDRESS)
        return fixed[register]

    def write(self, register: int, words: Sequence[int], *, single: bool) -> None:
        """Take type codes and the mask of channels."""
        for offset, word in enumerate(words):
            place = register + offset
            if 256 <= place < 256 + CHANNELS:
                if word not in RANGES_C:
                    raise ModbusError(ILLEGAL_VALUE)
                self.channels[place - 256].type_code = word
            elif place == 489:
                self.enabled = word & 0x3F
            else:
                raise ModbusError(ILLEGAL_ADDRESS)
            self.writes += 1

    def read_bits(self, function: int, address: int, count: int) -> list[bool]:
        """Return range flags (at 128, with both functions) and coils."""
        return [self._bit(function, address + offset) for offset in range(count)]

    def _bit(self, function: int, address: int) -> bool:
        if 128 <= address < 128 + CHANNELS:
            return self.channels[address - 128].out_of_range
        if function == READ_DISCRETE or (address not in self.coils and address != 272):
            raise ModbusError(ILLEGAL_ADDRESS)
        if address == 272:
            first, self.was_reset = self.was_reset, False
            return first
        return self.coils[address]

    def write_coil(self, address: int, *, on: bool) -> None:
        """Take a coil."""
        if address not in self.coils:
            raise ModbusError(ILLEGAL_ADDRESS)
        self.coils[address] = on
        self.writes += 1

    def vendor(self, function: int, body: bytes) -> bytes | None:
        """Answer function 0x46: name and firmware."""
        if function != VENDOR_FUNCTION:
            return None
        answers = {b"\x00": NAME, b"\x20": FIRMWARE}
        if body not in answers:
            raise ModbusError(ILLEGAL_ADDRESS)
        return body + answers[body]


class M7015Twin:
    """The module on its wire.

    Args:
        kelvin: temperature of each element, at most six; the channels left over are open.
        clock: the lab clock of the bench.
        unit_id: Modbus address.
        settings: ``baud``, ``bits``, ``response_s``, ``name``, ``type_code`` (all channels), ``engineering``,
            ``r0_ohm`` and ``lead_ohm`` (all channels).
    """

    def __init__(
        self,
        kelvin: Sequence[Callable[[], float]],
        clock: BenchClock,
        unit_id: int = 1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(settings or {})
        baud, bits = int(given.pop("baud", 9600)), int(given.pop("bits", 10))
        self._response_s = float(given.pop("response_s", 0.005))
        name = str(given.pop("name", "thermometer"))
        self.channels = [Channel(one) for one in kelvin]
        for channel in self.channels:
            channel.type_code = int(given.get("type_code", 0x20))
            channel.r0_ohm = float(given.get("r0_ohm", 100.0))
            channel.lead_ohm = float(given.get("lead_ohm", 0.0))
        for _ in range(CHANNELS - len(self.channels)):
            self.channels.append(Channel(lambda: 0.0))
            self.channels[-1].wire = "open"
        self.module = Settings(self.channels, unit_id)
        self.module.coils[268] = bool(given.get("engineering", False))
        unknown = set(given) - {"type_code", "r0_ohm", "lead_ohm", "engineering"}
        if unknown:
            raise ValueError(f"unknown settings of the thermometer: {', '.join(sorted(unknown))}")
        self.slave = RtuSlave(unit_id, self.module)
        self.faults = WireFaults()
        self._clock = clock
        self._scanned_s: float | None = None
        self._booted_s = clock.now_s()
        self._resets = 0
        self._gap_s = gap_s(baud, bits)
        self._framer = GapFramer(self._frame, self._gap_s / clock.speed)
        self._port = SerialPty(self._framer.feed, name=name, baud=baud, bits=bits, speed=clock.speed)

    async def start(self) -> str:
        """Open the port; return its name."""
        return self._port.open()

    async def stop(self) -> None:
        """Close the port."""
        self._framer.clear()
        self._port.close()

    def advance(self, now_lab_s: float) -> None:
        """Convert all channels when the next scan is due."""
        if self._scanned_s is not None and now_lab_s - self._scanned_s < SCAN_S:
            return
        for channel in self.channels:
            if self._scanned_s is not None:
                channel.sensor.process(now_lab_s - self._scanned_s)
            channel.convert(engineering=self.module.engineering)
        self._scanned_s = now_lab_s

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``sensor`` of ``channel`` (0) with ``state`` good,
        open, short, frozen, or displaced by ``offset_k``, ``drift_k_per_s`` and ``noise_k``; ``leads`` with
        ``ohm``; ``reset`` with ``boot_s``.
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
            self._break_sensor(self.channels[int(fault.get("channel", 0))], fault)
        elif kind == "leads":
            self.channels[int(fault.get("channel", 0))].lead_ohm = float(fault["ohm"])
        elif kind == "reset":
            self._resets += 1
            self.module.was_reset = True
            self._booted_s = self._clock.now_s() + float(fault.get("boot_s", 1.0))
        else:
            raise ValueError(f"no such fault of the thermometer: {kind!r}")
        self._scanned_s = None  # seen at once

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {
            **self.slave.counters,
            "writes": self.module.writes,
            "resets": self._resets,
            "lost_bytes": self._port.lost_bytes,
            "wire_faults": dict(self.faults.counts),
            "port": self._port.path if self._port.plugged else "",
        }

    def answer(self, frame: bytes) -> bytes | None:
        """Return the reply to a frame at the present time; None for silence. For a bus of several."""
        now_s = self._clock.now_s()
        if now_s < self._booted_s:
            return None
        self.advance(now_s)
        return self.slave.answer(frame)

    def _frame(self, frame: bytes) -> None:
        reply = self.answer(frame)
        if reply is None:
            return
        delay_s = max(0.0, self._response_s - self._gap_s)
        for extra_s, piece in self.faults.outgoing(reply):
            self._port.send(piece, delay_s + extra_s)

    def _break_sensor(self, channel: Channel, fault: Mapping[str, Any]) -> None:
        state = str(fault["state"])
        if state == "frozen":
            channel.sensor.freeze(channel.kelvin())
        elif state == "displaced":
            channel.sensor.offset_k = float(fault.get("offset_k", 0.0))
            channel.sensor.drift_k_per_s = float(fault.get("drift_k_per_s", 0.0))
            channel.sensor.noise_k = float(fault.get("noise_k", 0.0))
        elif state in WIRES:
            if state == "good":
                channel.sensor.mend()
            channel.wire = state
        else:
            raise ValueError(f"no such state of the sensor: {state!r}")
