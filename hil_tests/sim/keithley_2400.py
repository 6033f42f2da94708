"""Twin of a Keithley 2400 on a serial line, with a cell behind it.

From the user's manual 2400S-900-01. What it leaves open, and what is assumed: the order of the elements is
fixed (voltage, current, resistance, time, status); changing the source function turns the output off; a
query that is refused gets no answer. Not modelled: sweeps, source memory, limit tests, math, contact check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.keithley_smu import OVERFLOW
from hil_tests.sim.keithley_twin import NOT_WITH_OUTPUT_OFF, KeithleyTwin
from hil_tests.sim.physics.cell import Cell
from hil_tests.sim.scpi import Handler, ScpiError, one_number, one_switch, one_word
from hil_tests.sim.wire.serial_pty import SerialPty
from hil_tests.sim.wire.text import LineReceiver

BAUD = 57600
LONGEST_LINE = 256
DEVICE_CLEAR = (0x03, 0x18)  # ^C, ^X
ELEMENTS = ("VOLT", "CURR", "RES", "TIME", "STAT")
NOT_A_NUMBER = 9.91e37
CLOCK_WRAPS_S = 100_000.0
FRONT, COMPLIANCE, MEASURES_VOLT, MEASURES_AMPERE = 1 << 2, 1 << 3, 1 << 11, 1 << 12
SOURCES_VOLT, SOURCES_AMPERE, RANGE_COMPLIANCE, REMOTE_SENSE = 1 << 14, 1 << 15, 1 << 16, 1 << 22


class Keithley2400Twin(KeithleyTwin):
    """The instrument, its wire and the cell it drives."""

    model = "2400"

    def __init__(self, cell: Cell, clock: BenchClock, settings: Mapping[str, Any] | None = None) -> None:
        self._elements = list(ELEMENTS)
        self._timer_s = clock.now_s()
        self._auto_clear = False
        super().__init__(cell, clock, settings)
        self._receiver = LineReceiver(longest=LONGEST_LINE, ignore=b"\r\x11\x13")
        self._port = SerialPty(
            self._received,
            name=str(self.given.get("name", "cell")),
            baud=int(self.given.get("baud", BAUD)),
            speed=clock.speed,
        )

    async def start(self) -> str:
        """Open the port; return its name."""
        return self._port.open()

    async def stop(self) -> None:
        """Close the port."""
        self._port.close()

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``reset`` with ``boot_s``: power lost and back,
        output off as a source of 0 V; ``overload`` of ``count`` currents, ``nan`` of ``count`` voltages;
        ``set_error``: the source is wrong by ``volt``; ``two_wire``: back to 2-wire sense; ``front_panel``:
        the OUTPUT key; ``interlock`` with ``given``; ``short`` of the cell with ``ohm`` (null: gone),
        ``contact`` with ``ohm`` in series (0: mended).
        """
        kind = fault.get("kind")
        if kind == "unplug":
            self._port.unplug()
            self._receiver.clear()
        elif kind == "replug":
            self._port.replug()
        else:
            self._common_fault(fault)

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        port = self._port.path if self._port.plugged else ""
        return {**super().counters(), "lost_bytes": self._port.lost_bytes, "port": port}

    def _received(self, data: bytes) -> None:
        for byte in data:
            if byte in DEVICE_CLEAR:
                self._receiver.clear()
                continue
            for line, too_long in self._receiver.feed(bytes([byte])):
                if too_long:
                    self.error(-363)
                    continue
                for delay_s, answer in self.answers(line):
                    self._send(delay_s, answer)

    def _send(self, delay_s: float, answer: str) -> None:
        for extra_s, piece in self.faults.outgoing(answer.encode("ascii") + b"\n"):
            self._port.send(piece, delay_s + extra_s)

    def _own(self) -> dict[str, Handler]:
        smu = self.smu
        table: dict[str, Handler] = {
            ":OUTPut[1]:SMODe": self._off_state,
            ":OUTPut[1]:SMODe?": lambda _a: smu.off_state["VOLT"],
            ":SYSTem:RSENse": lambda a: setattr(smu, "remote_sense", one_switch(a)),
            ":SYSTem:RSENse?": lambda _a: str(int(smu.remote_sense)),
            ":SYSTem:TIME:RESet": lambda _a: setattr(self, "_timer_s", self._clock.now_s()),
            ":SYSTem:LOCal": lambda _a: None,
            ":SYSTem:RWLock": lambda _a: None,
            ":SOURce[1]:CLEar:AUTO": lambda a: setattr(self, "_auto_clear", one_switch(a)),
            ":SOURce[1]:CLEar:AUTO?": lambda _a: str(int(self._auto_clear)),
            "[:SENSe[1]]:FUNCtion[:ON]": lambda _a: None,
            "[:SENSe[1]]:FUNCtion[:ON]:ALL": lambda _a: None,
            "[:SENSe[1]]:FUNCtion[:ON]?": lambda _a: '"VOLT:DC","CURR:DC"',
            ":FORMat:ELEMents": self._choose_elements,
            ":FORMat:ELEMents?": lambda _a: ",".join(self._elements),
            ":READ?": lambda _a: self._read(),
            ":MEASure?": lambda _a: self._measure(),
            ":MEASure:CURRent[:DC]?": lambda _a: self._measure(),
            ":MEASure:VOLTage[:DC]?": lambda _a: self._measure(),
            ":ABORt": lambda _a: None,
            ":TRIGger:CLEar": lambda _a: None,
            "*TRG": lambda _a: None,
        }
        if self.given.get("enable_line", "INT") == "IENAB":  # the later user's manual, page 18-56
            table[":OUTPut[1]:IENABle[:STATe]"] = self._require_interlock
            table[":OUTPut[1]:IENABle[:STATe]?"] = lambda _a: str(int(smu.enable_required))
            table[":OUTPut[1]:ENABle:TRIPped?"] = lambda _a: str(int(smu.enabled))
            for name in ("STATe", "STATe?", "TRIPped?"):
                table[f":OUTPut[1]:INTerlock:{name}"] = _undefined
        for name, short in (("VOLTage", "VOLT"), ("CURRent", "CURR")):
            table.update(self._of_limit(name, short))
        table.update(
            self.kept(
                ":SYSTem:AZERo[:STATe]", ":SOURce[1]:DELay", ":SOURce[1]:DELay:AUTO",
                "[:SENSe[1]]:AVERage[:STATe]", "[:SENSe[1]]:AVERage:TCONtrol",
                "[:SENSe[1]]:AVERage:COUNt", ":CALCulate[1]:STATe",
                "[:SENSe[1]]:FUNCtion:CONCurrent", ":ARM:COUNt", ":TRIGger:COUNt", ":TRIGger:DELay",
                ":ROUTe:TERMinals", ":FORMat[:DATA]",
            )
        )  # fmt: skip
        return table

    def _of_limit(self, name: str, short: str) -> dict[str, Handler]:
        limit, highest = f"[:SENSe[1]]:{name}[:DC]:PROTection", 210.0 if short == "VOLT" else 1.05
        return {
            f"{limit}[:LEVel]": lambda a: self._put_limit(short, one_number(a, 0.0, highest)),
            f"{limit}[:LEVel]?": lambda _a: f"{self.smu.limit[short]:.6E}",
            f"{limit}:TRIPped?": lambda _a: str(int(self.smu.output and self.smu.limited)),
            **self.kept(f":SOURce[1]:{name}:MODE"),
        }

    def _off_state(self, arguments: list[str]) -> None:
        state = one_word(arguments, "HIMPedance", "NORMal", "ZERO", "GUARd")
        self.smu.off_state = {"VOLT": state, "CURR": state}
        self.smu.apply()

    def _choose_elements(self, arguments: list[str]) -> None:
        known = ("VOLTage", "CURRent", "RESistance", "TIME", "STATus")
        chosen = {one_word([argument], *known) for argument in arguments}
        self._elements = [name for name in ELEMENTS if name in chosen]

    def _measure(self) -> str:
        self._switch(on=True)  # this query turns the output on by itself
        return self._read()

    def _read(self) -> str:
        smu = self.smu
        if self._auto_clear:
            self._switch(on=True)
        elif not smu.output:
            raise ScpiError(NOT_WITH_OUTPUT_OFF)
        self._took_s += self._reading_s
        self._counts["readings"] += 1
        seen = smu.measure()
        bits = FRONT | MEASURES_VOLT | MEASURES_AMPERE
        bits |= SOURCES_VOLT if smu.function == "VOLT" else SOURCES_AMPERE
        bits |= REMOTE_SENSE if smu.remote_sense else 0
        bits |= (RANGE_COMPLIANCE if seen.range_limited else COMPLIANCE) if seen.limited else 0
        bits |= 1 if max(abs(seen.volt), abs(seen.ampere)) >= OVERFLOW else 0
        values = {
            "VOLT": seen.volt,
            "CURR": seen.ampere,
            "RES": NOT_A_NUMBER,
            "TIME": (self._clock.now_s() + self._took_s - self._timer_s) % CLOCK_WRAPS_S,
            "STAT": float(bits),
        }
        if self._auto_clear:
            smu.switch(on=False)
        return ",".join(f"{values[name]:+.6E}" for name in self._elements)

    def _identity(self) -> str:
        serial = self.given.get("serial", "1234567")
        firmware = self.given.get("firmware", "C32   Mar  4 2011 14:22:39/A02  /K/J")
        return f"KEITHLEY INSTRUMENTS INC.,MODEL 2400,{serial},{firmware}"

    def _reset_settings(self) -> None:
        super()._reset_settings()
        self._elements, self._auto_clear = list(ELEMENTS), False
        self._timer_s = self._clock.now_s()


def _undefined(_arguments: list[str]) -> None:
    raise ScpiError(-113)
