"""ICP DAS M-7015: six resistance thermometers on an RS-485 pair, Modbus RTU.

Registers (protocol addresses; the map is that of the sister modules tM-TH8, M-7017C, ZT-2005, the function
codes those of the M-7015's own manual):

    input register 0..5      channels, 16 bit signed           holding 256..261   type code of each channel
    discrete input 128..133  out of range, each channel        holding 489        which channels are on
    coil 256 Modbus  260 host watchdog  266 degC (some modules: the other way round)  268 engineering format
    function 0x46: 00 name (4 bytes), 20 firmware (3 bytes)

Raw format is linear over the range of the type code, full scale 0x7FFF; engineering format counts tenths of a
degree. The ends 0x7FFF and 0x8000 are "over" and "under": an open wire, a short circuit or a temperature out
there, and the number alone does not tell which. So the flags are read *behind* the value, and neither a flag,
nor an end, nor anything outside the range ever becomes a temperature.

The module takes the element for an ideal Pt100. A known R0 and known leads are put right in ohm, through
IEC 60751 and back (``pt100``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from drivers import pt100
from drivers.clock import Clock
from drivers.errors import BadReply, OutOfRange, Refused
from drivers.line import Line
from drivers.modbus import READ_COILS, READ_DISCRETE, ModbusRtu, crc16, silence_s
from drivers.roles import Identity, Role, ThermometerReading

KELVIN_AT_0_C = 273.15
CHANNELS = 6
FLAGS, TYPE_CODES, ENABLED = 128, 256, 489
ENGINEERING_COIL = 268
OVER, UNDER = 0x7FFF, 0x8000
VENDOR_FUNCTION, NAME, FIRMWARE = 0x46, 0x00, 0x20
NAME_BYTES = bytes.fromhex("7015")  # somewhere in the four bytes of the name
SCAN_S = 0.5  # all channels share about 12 conversions a second
TENTHS = 10.0


@dataclass(frozen=True)
class Range:
    """What a type code means: the range in degC, and whether the element follows IEC 60751."""

    low_c: float
    high_c: float
    iec: bool = True


RANGES = {  # 0x20 by two sources, the others by memory of the family's list: ``prepare`` says which
    0x20: Range(-100.0, 100.0),
    0x21: Range(0.0, 100.0),
    0x22: Range(0.0, 200.0),
    0x23: Range(0.0, 600.0),
    0x2E: Range(-200.0, 200.0),
    0x2F: Range(-200.0, 200.0, iec=False),  # alpha 0.003916
    0x80: Range(-200.0, 600.0),
}
EVIDENCED = (0x20, 0x2F)


class IcpDasM7015:
    """One channel of the module, as a thermometer; several devices may share a module.

    Args:
        line: serial line.
        name: for messages, as in the station file.
        clock: not used: nothing here waits.
        settings: ``unit_id``, ``channel`` (0); ``type_code`` (0x20) and ``data_format`` ("raw"), which are
            compared with the module; ``r0_ohm`` (100) and ``lead_ohm`` (0) of the element;
            ``tolerance_class``; optional ``period_s`` and ``timeout_s``.
    """

    roles = frozenset({Role.THERMOMETER})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._settings = dict(settings)
        self._channel = int(settings.get("channel", 0))
        self._type_code = int(settings.get("type_code", 0x20))
        self._engineering = settings.get("data_format", "raw") == "engineering"
        self._r0_ohm = float(settings.get("r0_ohm", pt100.R0_OHM))
        self._lead_ohm = float(settings.get("lead_ohm", 0.0))
        if not 0 <= self._channel < CHANNELS:
            raise OutOfRange(f"has channels 0 to {CHANNELS - 1}, none {self._channel}", device=name)
        if self._type_code not in RANGES:
            codes = ", ".join(f"{code:#04x}" for code in RANGES)
            raise OutOfRange(f"type code {self._type_code:#04x} is none of {codes}", device=name)
        self._range = RANGES[self._type_code]
        if not self._range.iec and self._corrects:
            raise OutOfRange("r0 and leads can be put right for IEC 60751 elements only", device=name)
        unit_id = int(settings.get("unit_id", 1))
        timeout_s = float(settings.get("timeout_s", self._timeout_s(settings)))
        self._unit = ModbusRtu(line, unit_id, device=name, timeout_s=timeout_s, read_again=True)
        self._unit_id, self._reply_s = unit_id, timeout_s

    async def identify(self) -> Identity:
        """Ask for the module's name.

        Raises:
            BadReply: something else answers.
            Refused: what answers does not know the vendor's function.
        """
        called = await self._vendor(NAME, 4)
        if NAME_BYTES not in called:
            raise BadReply(f"is no M-7015: its name is {called.hex(' ')}", device=self.name)
        version = await self._vendor(FIRMWARE, 3)
        firmware = ".".join(f"{byte:x}" for byte in version)
        return Identity("ICP DAS", "M-7015", firmware=firmware)

    async def prepare(self) -> list[str]:
        """Compare the module's settings with the station's; return what ``check`` must say.

        Raises:
            BadReply: another module, or other settings than the station file says.
        """
        await self.identify()
        (code,) = await self._unit.read_holding(TYPE_CODES + self._channel)
        if code != self._type_code:
            raise BadReply(
                f"channel {self._channel} has type code {code:#04x} and the station file says "
                f"{self._type_code:#04x}: set one of them right",
                device=self.name,
            )
        (engineering,) = await self._unit.read_bits(ENGINEERING_COIL, function=READ_COILS)
        if engineering != self._engineering:
            shown = "engineering" if engineering else "raw"
            raise BadReply(
                f"reports in {shown} format and the station file says "
                f"{self._settings.get('data_format', 'raw')}: values would be wrong by a factor",
                device=self.name,
            )
        (enabled,) = await self._unit.read_holding(ENABLED)
        if not enabled >> self._channel & 1:
            raise BadReply(f"channel {self._channel} is switched off (mask {enabled:#04x})", device=self.name)
        reading = await self.read()
        return [f"{self.name}: {note}" for note in [*self._notes(), *reading.problems]]

    def _notes(self) -> list[str]:
        resolution_k = 0.1 if self._engineering else self._full_scale_c / 32768.0
        notes = [
            f"measures {self._range.low_c:g} to {self._range.high_c:g} degC in steps of "
            f"{1000 * resolution_k:.3g} mK; an end of that range, a flag or a broken wire is no temperature",
            f"converts all channels in about {SCAN_S:g} s: read faster, it repeats itself",
            "its host watchdog sets a bit and switches nothing: it protects no heater",
            "a lead that breaks in three- or four-wire connection can give a plausible wrong value: only the "
            "rate and the power of the heater show that",
        ]
        if self._engineering:
            notes.append(
                "its coil 00267 does not tell degC from degF (sister modules differ): compare with a "
                "thermometer, or use the raw format"
            )
        if self._type_code not in EVIDENCED:
            notes.append(f"the range of type code {self._type_code:#04x} is not evidenced: compare once")
        if self._corrects:
            notes.append(f"corrected to R0 = {self._r0_ohm:g} ohm and leads of {self._lead_ohm:g} ohm")
        tolerance_class = self._settings.get("tolerance_class")
        if tolerance_class:
            within_k = pt100.tolerance_k(60.0, cast("pt100.ToleranceClass", tolerance_class))
            notes.append(
                f"class {tolerance_class}: +-{within_k:.2f} K at 60 degC, before the module's own error"
            )
        elif not self._corrects and self._range.iec:
            notes.append(
                "leads are not corrected: 0.4 ohm in two-wire connection reads 1.04 K high at 60 degC"
            )
        return notes

    async def read(self) -> ThermometerReading:
        """Poll once: the value, then the range flag, so that a break in between is not missed."""
        (word,) = await self._unit.read_input(self._channel)
        (flagged,) = await self._unit.read_bits(FLAGS + self._channel, function=READ_DISCRETE)
        measured_c, problem = self._celsius(word, flagged=flagged)
        return ThermometerReading(
            monotonic_s=time.monotonic(),
            temperature_k=None if measured_c is None else measured_c + KELVIN_AT_0_C,
            sensor_ok=measured_c is not None,
            problems=(problem,) if problem else (),
        )

    async def off(self) -> None:
        """Do nothing: an input energises nothing."""

    async def close(self) -> None:
        """Release the line."""
        await self._line.close()

    # --- inside --------------------------------------------------------------------------------------------

    @property
    def _corrects(self) -> bool:
        return self._r0_ohm != pt100.R0_OHM or self._lead_ohm != 0.0

    @property
    def _full_scale_c(self) -> float:
        return max(abs(self._range.low_c), abs(self._range.high_c))

    def _timeout_s(self, settings: Mapping[str, Any]) -> float:
        """A lost reply, its silence and one repetition must fit into a period."""
        return min(max(0.3 * float(settings.get("period_s", SCAN_S)), 0.1), 0.3)

    def _celsius(self, word: int, *, flagged: bool) -> tuple[float | None, str]:
        """Return the temperature in degC, or None and why it is none."""
        if word == OVER:
            return None, "over range: open wire, or hotter than the range"
        if word == UNDER:
            return None, "under range: short circuit, or colder than the range"
        signed = word - 0x10000 if word & 0x8000 else word
        shown_c = signed / TENTHS if self._engineering else signed * self._full_scale_c / 32768.0
        if flagged:
            return None, f"the module flags {shown_c:.1f} degC as out of range"
        if not self._range.low_c <= shown_c <= self._range.high_c:
            return None, f"{shown_c:.1f} degC is outside the range of this input"
        if not self._corrects:
            return shown_c, ""
        try:
            element_ohm = pt100.resistance_ohm(shown_c) - self._lead_ohm
            return pt100.temperature_c(element_ohm, self._r0_ohm), ""
        except ValueError as error:
            return None, f"no temperature after the correction: {error}"

    async def _vendor(self, subfunction: int, size: int) -> bytes:
        """Ask with the vendor's function; return the bytes behind the sub-function."""
        message = bytes((self._unit_id, VENDOR_FUNCTION, subfunction))
        request = message + crc16(message)

        def parse(buffer: bytes) -> bytes | None:
            refused = len(buffer) >= 2 and buffer[1] == VENDOR_FUNCTION | 0x80
            length = 5 if refused else 5 + size
            if len(buffer) < length:
                return None
            frame = buffer[:length]
            if crc16(frame[:-2]) != frame[-2:]:
                raise BadReply("wrong checksum", device=self.name, request=request, reply=buffer)
            if frame[0] != self._unit_id or (not refused and frame[1:3] != message[1:]):
                raise BadReply("reply to something else", device=self.name, request=request, reply=frame)
            if refused:
                raise Refused(
                    f"does not know function 0x46: no module of this family (exception {frame[2]})",
                    device=self.name, request=request, reply=frame,
                )  # fmt: skip
            return frame[3:-2]

        return await self._line.ask(
            request,
            parse,
            timeout_s=self._reply_s,
            device=self.name,
            silence_s=silence_s(self._line.character_s),
        )
