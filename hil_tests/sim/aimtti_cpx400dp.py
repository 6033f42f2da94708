"""Twin of an Aim-TTi CPX400DP: two outputs, text over TCP or a serial line; output 1 heats the holder.

What the manual at hand leaves open is decided here and said so:

* every reply is a line of its own, also of several queries in one line; commands in any case;
* voltages are set in 10 mV, currents in 1 mA, trips in 0.1 V and 0.01 A; the over-current trip from 2 A on;
* a trip is compared with what comes out, switches the output off and holds it off until TRIPRST;
* a closed TCP connection gives the lock back; an unknown command sets bit 5 of *ESR and is silent.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.physics.holder import Holder
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.serial_pty import SerialPty
from hil_tests.sim.wire.text import LineReceiver

IDN = "THURLBY THANDAR, CPX400DP, 279730, 1.22-1.00"
STEP_S = 0.1
HIGHEST_V, HIGHEST_A, HIGHEST_W = 60.0, 20.0, 420.0
VOLTAGE, CURRENT, OVP, OCP, POWER, HARD = 1, 2, 4, 8, 16, 64
RANGE, NO_OUTPUT, LOCKED = 100, 103, 200
COMMAND_ERROR, EXECUTION_ERROR = 0x20, 0x10
FRONT_PANEL = "front panel"


@dataclass
class Output:
    """One output and what is connected to it."""

    load_ohm: float
    set_v: float = 0.0
    set_a: float = 1.0
    ovp_v: float = 66.0
    ocp_a: float = 22.0
    on: bool = False
    tripped: int = 0
    events: int = 0
    sag: float = 1.0  # by fault: the fraction of the voltage that comes out

    def terminals(self) -> tuple[float, float, int]:
        """Return volts, amperes, and what regulates."""
        if not self.on:
            return 0.0, 0.0, 0
        if math.isinf(self.load_ohm) or self.set_v / self.load_ohm <= self.set_a:
            volt, mode = self.set_v * self.sag, VOLTAGE
            ampere = 0.0 if math.isinf(self.load_ohm) else volt / self.load_ohm
        else:
            ampere, mode = self.set_a, CURRENT
            volt = ampere * self.load_ohm
        if volt * ampere > HIGHEST_W:
            factor = math.sqrt(HIGHEST_W / (volt * ampere))
            return volt * factor, ampere * factor, POWER
        return volt, ampere, mode

    def watch(self) -> None:
        """Note what regulates and trip where it must."""
        volt, ampere, mode = self.terminals()
        self.events |= mode
        trip = OVP if volt > self.ovp_v else OCP if ampere > self.ocp_a else 0
        if trip:
            self.trip(trip)

    def trip(self, kind: int) -> None:
        """Switch off until somebody clears it."""
        self.on, self.tripped = False, kind
        self.events |= kind


class Front:
    """The command interpreter; ``who`` is the interface that speaks."""

    def __init__(self, outputs: list[Output]) -> None:
        self.outputs = outputs
        self.lock: str | None = None
        self.esr, self.eer, self.qer = 0x80, 0, 0
        self.commands = 0
        self.deaf = False  # by fault: settings are not taken

    def line(self, text: str, who: str) -> list[str]:
        """Carry out a line; return the replies."""
        replies = []
        for part in text.split(";"):
            command = re.sub(r"\s+", " ", part.strip()).upper()
            if not command:
                continue
            self.commands += 1
            reply = self._one(command, who)
            if reply is not None:
                replies.append(reply)
        return replies

    def _one(self, command: str, who: str) -> str | None:
        common = {"*IDN?": self._identity, "*ESR?": self._esr, "EER?": self._eer, "QER?": self._qer}
        if command in common:
            return common[command]()
        if command in ("IFLOCK", "IFLOCK?", "IFUNLOCK"):
            return self._lock(command, who)
        found = re.fullmatch(r"(V|I|OVP|OCP|OP|LSR)([1-9])(O?)(\??)(?: (-?[\d.]+))?", command)
        if command in ("OPALL 0", "OPALL 1", "TRIPRST", "*CLS", "LOCAL"):
            self._whole(command, who)
            return None
        if found is None or bool(found[4]) == (found[5] is not None):
            self.esr |= COMMAND_ERROR
            return None
        if int(found[2]) > len(self.outputs):
            self._refuse(NO_OUTPUT)
            return None
        output = self.outputs[int(found[2]) - 1]
        output.watch()
        if found[4]:
            return self._query(output, found[1], found[2], measured=bool(found[3]))
        if self.lock not in (None, who):
            self._refuse(LOCKED)
        else:
            self._set(output, found[1], float(found[5]))
        return None

    def _query(self, output: Output, what: str, number: str, *, measured: bool) -> str | None:
        volt, ampere, _ = output.terminals()
        if measured:
            return {"V": f"{volt:.3f}V", "I": f"{ampere:.3f}A"}.get(what)
        if what == "LSR":
            events, output.events = output.events, 0
            output.watch()
            return str(events)
        return {
            "V": f"V{number} {output.set_v:.3f}",
            "I": f"I{number} {output.set_a:.3f}",
            "OVP": f"VP{number} {output.ovp_v:.1f}",
            "OCP": f"CP{number} {output.ocp_a:.2f}",
            "OP": str(int(output.on)),
        }[what]

    def _set(self, output: Output, what: str, value: float) -> None:
        limits = {
            "V": (0.0, 60.0),
            "I": (0.01, 20.0),
            "OVP": (1.0, 66.0),
            "OCP": (2.0, 22.0),
            "OP": (0.0, 1.0),
        }
        if what not in limits:
            self.esr |= COMMAND_ERROR
            return
        low, high = limits[what]
        if not low <= value <= high:
            self._refuse(RANGE)
            return
        if self.deaf:
            return
        if what == "V":
            output.set_v = round(value, 2)
        elif what == "I":
            output.set_a = round(value, 3)
        elif what == "OVP":
            output.ovp_v = round(value, 1)
        elif what == "OCP":
            output.ocp_a = round(value, 2)
        else:
            output.on = bool(value) and not output.tripped
        output.watch()

    def _whole(self, command: str, who: str) -> None:
        if command == "*CLS":
            self.esr = self.eer = self.qer = 0
        elif command == "LOCAL":
            self.lock = None if self.lock == who else self.lock
        elif self.lock not in (None, who):
            self._refuse(LOCKED)
        elif command == "TRIPRST":
            for output in self.outputs:
                output.tripped &= HARD
        elif not self.deaf:
            for output in self.outputs:
                output.on = command == "OPALL 1" and not output.tripped

    def _lock(self, command: str, who: str) -> str:
        mine = self.lock == who
        if command == "IFLOCK" and self.lock is None:
            self.lock, mine = who, True
        if command == "IFUNLOCK":
            if self.lock is not None and not mine:
                self._refuse(LOCKED)
                return "-1"
            self.lock = None
            return "0"
        return "1" if mine else "0" if self.lock is None else "-1"

    def _refuse(self, code: int) -> None:
        self.eer = code
        self.esr |= EXECUTION_ERROR

    def _identity(self) -> str:
        return IDN

    def _esr(self) -> str:
        esr, self.esr = self.esr, 0
        return str(esr)

    def _eer(self) -> str:
        eer, self.eer = self.eer, 0
        return str(eer)

    def _qer(self) -> str:
        qer, self.qer = self.qer, 0
        return str(qer)


class CpxTwin:
    """The supply, its wires, and the holder that its first output heats.

    Args:
        holder: the physics; None: a plain resistor. This twin is the only one that lets its time pass.
        clock: the lab clock of the bench.
        relay_closed: state of the relay between output and heater.
        settings: ``heater_ohm`` (25), ``tcp`` (true; else a serial line), ``baud``, ``response_s``, ``name``.
    """

    def __init__(
        self,
        holder: Holder | None,
        clock: BenchClock,
        relay_closed: Callable[[], bool] = lambda: True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(settings or {})
        self.heater_ohm = float(given.pop("heater_ohm", 25.0))
        self._tcp = bool(given.pop("tcp", True))
        self._response_s = float(given.pop("response_s", 0.005))
        baud, name = int(given.pop("baud", 9600)), str(given.pop("name", "supply"))
        if given:
            raise ValueError(f"unknown settings of the supply: {', '.join(sorted(given))}")
        self.holder = holder
        self.outputs = [Output(self.heater_ohm), Output(math.inf)]
        self.front = Front(self.outputs)
        self.faults = WireFaults()
        self._clock = clock
        self._relay_closed = relay_closed
        self._time_s = self._booted_s = clock.now_s()
        self._resets = 0
        self._server: asyncio.Server | None = None
        self._where = 0
        self._clients: dict[str, asyncio.StreamWriter] = {}
        self._served: set[asyncio.Task[None]] = set()
        self._receiver = LineReceiver()
        self._port = SerialPty(self._serial, name=name, baud=baud, speed=clock.speed)

    async def start(self) -> str:
        """Listen; return ``host:port`` or the name of the serial port."""
        if not self._tcp:
            return self._port.open()
        self._server = await asyncio.start_server(self._client, "127.0.0.1", self._where)
        self._where = int(self._server.sockets[0].getsockname()[1])
        return f"127.0.0.1:{self._where}"

    async def stop(self) -> None:
        """Stop listening."""
        self._drop()
        if self._server is not None:
            self._server.close()
            await asyncio.gather(*self._served, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None
        if not self._tcp:
            self._port.close()

    def advance(self, now_lab_s: float) -> None:
        """Let the outputs and the holder live until ``now_lab_s``."""
        while self._time_s + STEP_S <= now_lab_s:
            self._time_s += STEP_S
            heater = self.outputs[0]
            heater.load_ohm = self._load_ohm()
            for output in self.outputs:
                output.watch()
            if self.holder is not None:
                volt, ampere, _ = heater.terminals()
                self.holder.set_duty(volt * ampere / self.holder.parameters.max_power_w)
                self.holder.process(STEP_S)

    def _load_ohm(self) -> float:
        return self.heater_ohm if self._relay_closed() else math.inf

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``sag`` with ``fraction`` (1: mended); ``heater``
        with ``ohm`` (null: open); ``trip`` with ``state`` over_voltage, over_current or hard; ``deaf``: no
        setting is taken, until ``given`` false; ``knob``: somebody turns the voltage to ``volt``; ``locked``:
        another interface holds the lock, until ``given`` false; ``reset`` with ``boot_s``.
        """
        kind = fault.get("kind")
        if self.faults.knows(kind):
            self.faults.inject(fault)
        elif kind == "unplug":
            self._unplug()
        elif kind == "replug":
            if not self._tcp:
                self._port.replug()
            self._booted_s = self._clock.now_s()
        elif kind == "reset":
            self._reset(float(fault.get("boot_s", 2.0)))
        elif kind == "deaf":
            self.front.deaf = bool(fault.get("given", True))
        elif kind == "locked":
            self.front.lock = FRONT_PANEL if fault.get("given", True) else None
        else:
            self._break_output(kind, fault)

    def _break_output(self, kind: object, fault: Mapping[str, Any]) -> None:
        output = self.outputs[0]
        if kind == "sag":
            output.sag = float(fault["fraction"])
        elif kind == "heater":
            ohm = fault.get("ohm")
            self.heater_ohm = math.inf if ohm is None else float(ohm)
            output.load_ohm = self._load_ohm()
        elif kind == "trip":
            output.trip({"over_voltage": OVP, "over_current": OCP, "hard": HARD}[str(fault["state"])])
        elif kind == "knob":
            output.set_v = float(fault["volt"])
        else:
            raise ValueError(f"no such fault of the supply: {kind!r}")

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        volt, ampere, _ = self.outputs[0].terminals()
        return {
            "commands": self.front.commands,
            "resets": self._resets,
            "output_on": self.outputs[0].on,
            "output_w": volt * ampere,
            "heater_joule": 0.0 if self.holder is None else self.holder.heater_joule,
            "clients": len(self._clients),
            "wire_faults": dict(self.faults.counts),
        }

    # --- wires ---------------------------------------------------------------------------------------------

    def answer(self, text: str, who: str) -> bytes:
        """Carry out one line now; return the bytes of the replies."""
        now_s = self._clock.now_s()
        self.advance(now_s)
        if now_s < self._booted_s:
            return b""
        return "".join(f"{reply}\r\n" for reply in self.front.line(text, who)).encode("ascii")

    def _serial(self, data: bytes) -> None:
        for text, _ in self._receiver.feed(data):
            reply = self.answer(text, "serial")
            if reply:
                for extra_s, piece in self.faults.outgoing(reply):
                    self._port.send(piece, self._response_s + extra_s)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = asyncio.current_task()
        if served is not None:
            self._served.add(served)
            served.add_done_callback(self._served.discard)
        who = f"lan {writer.get_extra_info('peername')}"
        if self._clock.now_s() < self._booted_s:
            writer.close()
            return
        self._clients[who] = writer
        receiver = LineReceiver(longest=1500)
        try:
            while data := await reader.read(4096):
                for text, _ in receiver.feed(data):
                    await self._reply(writer, self.answer(text, who))
        except OSError:
            pass
        finally:
            self._clients.pop(who, None)
            if self.front.lock == who:
                self.front.lock = None
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        if not reply:
            return
        for extra_s, piece in self.faults.outgoing(reply):
            await asyncio.sleep((self._response_s + extra_s) / self._clock.speed)
            writer.write(piece)

    def _unplug(self) -> None:
        self._booted_s = math.inf
        self._drop()
        if not self._tcp:
            self._port.unplug()

    def _drop(self) -> None:
        for writer in list(self._clients.values()):
            writer.transport.abort()

    def _reset(self, boot_s: float) -> None:
        """Mains lost and back: outputs off, settings of the first switch-on, silent while it boots."""
        self._resets += 1
        self._booted_s = self._clock.now_s() + boot_s
        self._drop()
        for output in self.outputs:
            output.on, output.tripped, output.events, output.set_v = False, 0, 0, 0.0
            output.set_a, output.ovp_v, output.ocp_a = 1.0, 66.0, 22.0
        self.front.lock = None
