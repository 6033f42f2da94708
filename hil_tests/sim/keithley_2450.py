"""Twin of a Keithley 2450 on a TCP socket, with a cell behind it: SCPI, one reading buffer, trigger model.

From the reference manual 2450-901-01. What it leaves open, and what is assumed: changing the source function
turns the output off; a query that is refused gets no answer; ``*TRG`` without a running model does nothing.
Not modelled: TSP, configuration lists, sweeps, further buffers, digital I/O, the 2400's emulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.keithley_smu import OVERFLOW, Measured
from hil_tests.sim.keithley_trigger import Block, TriggerModel
from hil_tests.sim.keithley_twin import KeithleyTwin
from hil_tests.sim.physics.cell import Cell
from hil_tests.sim.scpi import (
    ILLEGAL,
    OUT_OF_RANGE,
    Handler,
    ScpiError,
    one_number,
    one_switch,
    one_word,
    unquoted,
)
from hil_tests.sim.wire.tcp_text import TcpText

MEASURED_SOURCE, LIMITED, FOUR_WIRE, OUTPUT_ON = 1 << 3, 1 << 5, 1 << 6, 1 << 7
BUFFER_READINGS = 100_000
EVENTS = ("COMMand", "DISPlay", "NONE")


class Keithley2450Twin(KeithleyTwin):
    """The instrument, its socket and the cell it drives."""

    model = "2450"
    longest_queue = 1000
    queue_empty = '0,"No error;0,0,0"'

    def __init__(self, cell: Cell, clock: BenchClock, settings: Mapping[str, Any] | None = None) -> None:
        self._sense = "CURR"
        self._language = "SCPI"
        self._buffer: list[tuple[float, float, int, float]] = []
        self._first_s = 0.0
        self._model = TriggerModel(
            self._measure, self._clear_buffer, lambda on: self._switch(on=on), lambda: self._reading_s
        )
        super().__init__(cell, clock, settings)
        self._server = TcpText(self.answers, faults=self.faults, speed=clock.speed)

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._server.port

    async def start(self) -> str:
        """Listen; return ``host:port``."""
        return f"127.0.0.1:{await self._server.start()}"

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    def advance(self, now_s: float) -> None:
        """Let cell and trigger model live until ``now_s``."""
        while self._model.running and self._model.due_s <= now_s:
            super().advance(self._model.due_s)
            self._model.step()
        super().advance(now_s)

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``half_open``: the
        connection is forgotten without a word; ``reset`` with ``boot_s``: power lost and back,
        output off as a source of 0 V; ``overload`` of ``count`` currents, ``nan`` of ``count`` voltages;
        ``set_error``: the source is wrong by ``volt``; ``two_wire``: back to 2-wire sense; ``front_panel``:
        the OUTPUT key; ``interlock`` with ``given``; ``short`` of the cell with ``ohm`` (null: gone),
        ``contact`` with ``ohm`` in series (0: mended).
        """
        kind = fault.get("kind")
        if kind in ("unplug", "replug"):
            self._server.silent = kind == "unplug"
        elif kind == "half_open":
            self._server.abandon()
        else:
            self._common_fault(fault)

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {**super().counters(), "trigger_model": self._model.state, "port": self._server.port}

    def _own(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {
            "*LANG?": lambda _a: self._language,
            "*LANG": lambda a: setattr(self, "_language", one_word(a, "SCPI", "TSP", "SCPI2400")),
            "*TRG": lambda _a: self._model.event(),
            "[:SENSe[1]]:FUNCtion[:ON]": self._sense_function,
            "[:SENSe[1]]:FUNCtion[:ON]?": lambda _a: f'"{self._sense}:DC"',
            ":READ?": self._read,
            ":TRACe:ACTual?": lambda _a: str(len(self._buffer)),
            ":TRACe:ACTual:STARt?": lambda _a: str(min(1, len(self._buffer))),
            ":TRACe:ACTual:END?": lambda _a: str(len(self._buffer)),
            ":TRACe:DATA?": self._data,
            ":TRACe:CLEar": lambda _a: self._clear_buffer(),
            ":TRIGger:LOAD": self._load,
            ":TRIGger:STATe?": lambda _a: f"{self._model.state};{self._model.state};{self._model.at}",
            ":TRIGger:BLOCk:BRANch:COUNter:RESet": self._block_of("reset", 1),
            ":INITiate[:IMMediate]": lambda _a: self._initiate(),
            ":ABORt": lambda _a: self._model.abort(),
            ":TRIGger:BLOCk:BUFFer:CLEar": self._block_of("buffer", 0, words=1),
            ":TRIGger:BLOCk:SOURce:STATe": self._block_of("source", 1),
            ":TRIGger:BLOCk:DELay:CONStant": self._block_of("delay", 1),
            ":TRIGger:BLOCk:MEASure": self._block_of("measure", 0, words=1),
            ":TRIGger:BLOCk:MDIGitize": self._block_of("measure", 0, words=1),
            ":TRIGger:BLOCk:NOP": self._block_of("nothing", 0),
            ":TRIGger:BLOCk:BRANch:ALWays": self._block_of("always", 1),
            ":TRIGger:BLOCk:BRANch:COUNter": self._block_of("counter", 2),
            ":TRIGger:BLOCk:BRANch:EVENt": self._event_block,
            ":TRIGger:BLOCk:BRANch:LIMit:CONStant": self._limit_block,
            ":SYSTem:CLEar": lambda _a: self._errors.clear(),
        }
        for name, short in (("VOLTage", "VOLT"), ("CURRent", "CURR")):
            table.update(self._of_source(name, short))
        table.update(self.kept(":FORMat[:DATA]", "[:SENSe[1]]:COUNt", ":TRACe:POINts", ":ROUTe:TERMinals"))
        return table

    def _of_source(self, name: str, short: str) -> dict[str, Handler]:
        smu, source, sense = self.smu, f":SOURce[1]:{name}", f"[:SENSe[1]]:{name}[:DC]"
        other, limit = ("CURR", "ILIMit") if short == "VOLT" else ("VOLT", "VLIMit")
        return {
            f"{source}:{limit}[:LEVel]": lambda a: self._put_limit(other, one_number(a, 0.0)),
            f"{source}:{limit}[:LEVel]?": lambda _a: f"{smu.limit[other]:.6E}",
            f"{source}:{limit}[:LEVel]:TRIPped?": lambda _a: str(int(smu.output and smu.limited)),
            f":OUTPut[1]:{name}:SMODe": lambda a: self._off_state(short, a),
            f":OUTPut[1]:{name}:SMODe?": lambda _a: smu.off_state[short],
            f"{sense}:RSENse": lambda a: setattr(smu, "remote_sense", one_switch(a)),
            f"{sense}:RSENse?": lambda _a: str(int(smu.remote_sense)),
            **self.kept(f"{source}:READ:BACK"),
        }

    def current_ranges(self) -> tuple[float, ...]:
        """Nominal current ranges: this model has two more at the lower end."""
        return tuple(10.0**k for k in range(-8, 1))

    def _off_state(self, short: str, arguments: list[str]) -> None:
        self.smu.off_state[short] = one_word(arguments, "HIMPedance", "NORMal", "ZERO", "GUARd")
        self.smu.apply()

    def _sense_function(self, arguments: list[str]) -> None:
        name = unquoted(arguments[0]) if arguments else ""
        self._sense = one_word([name.partition(":")[0]], "VOLTage", "CURRent")

    def _clear_buffer(self) -> None:
        self._buffer.clear()

    def _measure(self) -> float:
        """One reading into the buffer; return the quantity that is measured."""
        self._counts["readings"] += 1
        seen = self.smu.measure()
        sources_volt = self.smu.function == "VOLT"
        source = seen.volt if sources_volt else seen.ampere
        measured = seen.ampere if self._sense == "CURR" else seen.volt
        at_s = self._model.due_s if self._model.running else self._time_s
        if not self._buffer:
            self._first_s = at_s
        self._buffer.append((measured, source, self._status(seen), at_s - self._first_s))
        del self._buffer[:-BUFFER_READINGS]
        return measured if abs(measured) < OVERFLOW else 9.9e37

    def _status(self, seen: Measured) -> int:
        bits = MEASURED_SOURCE
        bits |= LIMITED if seen.limited else 0
        bits |= FOUR_WIRE if self.smu.remote_sense else 0
        return bits | (OUTPUT_ON if self.smu.output else 0)

    def _read(self, arguments: list[str]) -> str:
        self._took_s += self._reading_s
        self._measure()
        return self._shown(len(self._buffer), len(self._buffer), arguments[1:])

    def _data(self, arguments: list[str]) -> str:
        first, last = int(one_number(arguments[:1], 1)), int(one_number(arguments[1:2], 1))
        if not first <= last <= len(self._buffer):
            raise ScpiError(OUT_OF_RANGE)
        return self._shown(first, last, arguments[3:])

    def _shown(self, first: int, last: int, elements: list[str]) -> str:
        chosen = [one_word([e], "READing", "SOURce", "SOURSTATus", "RELative") for e in elements] or ["READ"]
        told = []
        for measured, source, status, relative_s in self._buffer[first - 1 : last]:
            values = {
                "READ": f"{measured:.6E}",
                "SOUR": f"{source:.6E}",
                "SOURSTAT": f"{status}",
                "REL": f"{relative_s:.9f}",
            }
            told += [values[name] for name in chosen]
        return ",".join(told)

    def _load(self, arguments: list[str]) -> None:
        if one_word(arguments, "EMPTY") != "EMPTY":
            raise ScpiError(ILLEGAL)
        self._model.load_empty()

    def _initiate(self) -> None:
        if not self._model.blocks:
            raise ScpiError(-221)
        self._model.initiate(self._clock.now_s())
        self.advance(self._clock.now_s())

    def _block_of(self, kind: str, numbers: int, *, words: int = 0) -> Handler:
        def put(arguments: list[str]) -> None:
            number = self._number_of(arguments)
            given = arguments[1 + words : 1 + words + numbers]
            if kind == "source":
                self._model.blocks[number] = Block(kind, (float(one_switch(given)),))
                return
            values = tuple(one_number([text]) for text in given)
            if len(values) < numbers:
                raise ScpiError(-109)
            self._model.blocks[number] = Block(kind, values)

        return put

    def _event_block(self, arguments: list[str]) -> None:
        number, word = self._number_of(arguments), one_word(arguments[1:2], *EVENTS)
        if word != "COMM":
            raise ScpiError(ILLEGAL)
        self._model.blocks[number] = Block("event", (one_number(arguments[2:3]),))

    def _limit_block(self, arguments: list[str]) -> None:
        number = self._number_of(arguments)
        word = one_word(arguments[1:2], "ABOVe", "BELow", "INside", "OUTside")
        values = tuple(one_number([text]) for text in arguments[2:])
        if len(values) not in (3, 4):
            raise ScpiError(-109)
        self._model.blocks[number] = Block("limit", (*values, 0.0)[:4], word)

    def _number_of(self, arguments: list[str]) -> int:
        if self._model.running:
            raise ScpiError(-221)  # blocks cannot be changed while it runs
        return int(one_number(arguments[:1], 1, 63))

    def _identity(self) -> str:
        serial = self.given.get("serial", "04012345")
        return f"KEITHLEY INSTRUMENTS,MODEL 2450,{serial},{self.given.get('firmware', '1.7.12b')}"

    def _reset_settings(self) -> None:
        super()._reset_settings()
        self._model.abort()
        self._model.load_empty()
        self._buffer.clear()
        self._sense = "CURR"

    def _power_cycle(self, boot_s: float) -> None:
        super()._power_cycle(boot_s)
        self._server.drop()
