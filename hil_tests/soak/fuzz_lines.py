"""Drivers at the end of a line on which the honest instrument answers, except where the input says otherwise.

An input is a list of pieces with ``MARK`` between them. Of each piece the first byte says how many requests
are answered as they should be (its low seven bits; bit 7 has checksum and number put right), the rest is what
comes to the next one; nothing means silence. So whole conversations are reached: identification, preparation,
measuring, switching off, with a wrong answer anywhere.

Beside the documented errors, what a driver hands on is looked at: a value that is said to be good is a
number, time goes on, a temperature is above 0 K.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

One = Callable[[bytes], None]
Answer = Callable[[bytes], bytes]
Mend = Callable[[bytes, bytes], bytes]  # of request and reply
MARK = b"\n--\n"
MOST_REQUESTS = 400  # in one input


class Clock:
    """Time that only passes while somebody waits for it."""

    speed = 1.0

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        """Return the time, s."""
        return self._now_s

    async def sleep(self, lab_s: float) -> None:
        """Let time pass at once."""
        self._now_s += max(lab_s, 1e-3)
        await asyncio.sleep(0)

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        """Return the same: the clocks are one."""
        return lab_deadline_s


class Line:
    """What a driver sees of a line; see the file."""

    where, openings = "fuzz", 1

    def __init__(
        self, data: bytes, honest: Answer, mend: Callable[[bytes, bytes], bytes], character_s: float
    ):
        self.character_s = character_s
        self._honest, self._mend = honest, mend
        self._strange: dict[int, tuple[bool, bytes]] = {}
        self._asked = at = 0
        for piece in data.split(MARK):
            if piece:
                at += piece[0] & 0x7F
                self._strange[at] = bool(piece[0] & 0x80), piece[1:]
                at += 1

    def interrupt(self) -> None:
        """Do nothing: one request at a time."""

    @contextlib.asynccontextmanager
    async def reserved(self) -> AsyncIterator[None]:
        """Do nothing: nobody else is there."""
        yield

    async def ask(
        self, request: bytes, parse: Callable[[bytes], Any], *, timeout_s: float, device: str = "", **_: Any
    ) -> Any:
        """Answer a request, in two pieces. Raises NoReply, and what ``parse`` does."""
        from drivers.errors import NoReply

        reply = self._reply(request)
        for size in (len(reply) // 2, len(reply)):
            if size and (answer := parse(reply[:size])) is not None:
                return answer
        raise NoReply("no complete reply", device=device, request=request, reply=reply)

    def _reply(self, request: bytes) -> bytes:
        number, self._asked = self._asked, self._asked + 1
        if number >= MOST_REQUESTS:
            return b""
        honest = self._honest(request)  # it has heard the request, whatever comes of its answer
        if number not in self._strange:
            return honest
        right, reply = self._strange[number]
        return self._mend(request, reply) if right else reply


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def run_all(steps: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    """Take all steps, whatever the others come to. Raises the last documented error, for its text."""

    async def all_steps() -> None:
        from drivers.errors import DriverError

        last: DriverError | None = None
        for step in steps:
            try:
                await step()
            except DriverError as error:
                str(error)
                last = error
        if last is not None:
            raise last

    _loop().run_until_complete(all_steps())


def as_it_is(request: bytes, reply: bytes) -> bytes:
    """Return the reply: nothing to be put right."""
    return reply


def must(holds: bool, what: str) -> None:
    """Raise what is a finding."""
    if not holds:
        raise AssertionError(what)


def finite(*values: float | None) -> bool:
    """Return whether none of them is infinite or NaN."""
    return all(value is None or math.isfinite(value) for value in values)


# --- Keithley: SCPI ----------------------------------------------------------------------------------------

_FIXED = {
    ":SYST:LFR?": "50", "*LANG?": "SCPI", ":OUTP:SMOD?": "HIMP", ":OUTP:VOLT:SMOD?": "HIMP",
    ":OUTP:CURR:SMOD?": "HIMP", ":SYST:RSEN?": "1", ":SENS:VOLT:RSEN?": "1", ":SENS:CURR:RSEN?": "1",
    ":SOUR:VOLT:LEV?": "+4.000000E+00", ":SENS:CURR:PROT?": "+1.300000E-05", ":SOUR:VOLT?": "4.000000E+00",
    ":SOUR:VOLT:ILIM?": "1.300000E-05", ":TRIG:STAT?": "RUNNING;RUNNING;4",
    ":SYST:ERR?": '0,"No error;0,0,0"', ":OUTP:INT:STAT?": "0", ":OUTP:INT:TRIP?": "1",
}  # fmt: skip


def _keithley(model: str) -> Answer:
    readings = 0

    def answer(request: bytes) -> bytes:
        nonlocal readings
        text = request.decode("ascii")
        query = text.strip().rpartition("\n")[2]
        if query == "*IDN?":
            return f"KEITHLEY INSTRUMENTS INC.,MODEL {model},1,C33\n".encode()
        if query == ":OUTP?":
            return b"0\n" if ":OUTP OFF" in text else b"1\n"
        if query == ":READ?":
            readings += 1
            return b"1\n+3.9E+00,+1.3E-05,%+.6E,%+.6E\n" % (readings, 1 << 22 | 8)
        if query.startswith(":READ? "):
            return b"3.9,0.0,200,0.0\n"
        if query.startswith(":TRAC:ACT:END?"):
            readings += 1
            return b"%d\n" % readings
        if query.startswith(":TRAC:DATA?"):
            first, last = (int(word) for word in query.split(" ")[1].split(",")[:2])
            must(last - first < 1000, f"{last - first + 1} readings in one reply")
            return b",".join(b"1.3E-05,3.9,232,%d" % n for n in range(first, last + 1)) + b"\n"
        return (_FIXED[query] + "\n").encode() if query in _FIXED else b""

    return answer


def seeds_keithley() -> list[bytes]:
    """Return conversations with both, all as it should be, and with an overflow, an error, a dead output."""
    strange = (
        b"\x15+9.910000E+37,+1E-06,+4.0,+4194312\n", b'\x04-222,"Data out of range;1"\n',
        b"\x151\n3.9,0,5,8\n", b"\x250\n", b"\x281.3E-05,3.9,104,7\n", b"\x0cHIMP\n" + MARK + b"\x061\n",
    )  # fmt: skip
    return [bytes([model]) + piece for model in (0, 1) for piece in (b"", *strange)]


def make_keithley() -> One:
    """The first byte chooses instrument and program."""
    from drivers.keithley_2400 import Keithley2400
    from drivers.keithley_2450 import Keithley2450
    from drivers.roles import CcCv, CellLimits, CellSample, ConstantCurrent, ConstantVoltage, Ocv

    limits = CellLimits(2.5, 4.05, 40e-6, 3.6, 7200.0)
    programs = (
        CcCv(13e-6, 4.0, 2e-6, limits), Ocv(20.0), ConstantCurrent(13e-6, 4.0, limits),
        ConstantVoltage(4.0, 1e-6, limits),
    )  # fmt: skip

    def run(data: bytes) -> None:
        choice, clock = data[0] if data else 0, Clock()
        kind = Keithley2450 if choice & 1 else Keithley2400
        line: Any = Line(data[1:], _keithley(kind.model), as_it_is, 0.0)
        device = kind(line, name="cell", clock=clock, settings={"voltage_high_v": 5.0})
        last_s = -math.inf

        async def measure() -> None:
            nonlocal last_s
            await device.start(programs[choice >> 1 & 3])
            for _ in range(8):
                told = await device.next(1e6)
                if isinstance(told, CellSample):
                    must(finite(told.voltage_v, told.current_a, told.elapsed_s), f"{told}")
                    must(told.elapsed_s > last_s, f"time stands still or goes back: {told}")
                    last_s = told.elapsed_s

        async def stopped() -> None:
            await device.stop()
            must(not device.running, "it was stopped and runs")

        run_all([device.identify, device.prepare, measure, stopped, device.read_ocv])

    return run


# --- Zaber -------------------------------------------------------------------------------------------------

_ZABER = {
    "get deviceid": "50081", "get system.serial": "1234", "get version": "7.33", "get limit.min": "0",
    "get limit.max": "1000000", "get resolution": "64", "get maxspeed": "153600", "warnings": "00",
}  # fmt: skip
_ASKED = re.compile(r"/(\d+) (\d) (\d\d)(?: ([^:]*))?:")


def _zaber() -> Answer:
    at = {1: 0, 2: 0}

    def answer(request: bytes) -> bytes:
        found = _ASKED.match(request.decode("ascii"))
        must(found is not None, f"no request: {request!r}")
        assert found is not None  # noqa: S101
        device, axis, number, words = int(found[1]), int(found[2]), found[3], found[4] or ""
        if words.startswith("move abs"):
            at[axis] = int(words.split()[2])
        data = str(at.get(axis, 0)) if words == "get pos" else _ZABER.get(words, "0")
        return _zaber_mended(request, f"@{device:02d} {axis} {number} OK IDLE -- {data}:?\r\n".encode())

    return answer


def _zaber_mended(request: bytes, reply: bytes) -> bytes:
    """Return a reply with the number of the request for ``%%`` and a right checksum for ``:?``."""
    from drivers.zaber_messages import checksum

    reply = reply.replace(b"%%", request.split(b" ")[2][:2])
    lines = []
    for line in reply.split(b"\n"):
        head, found, tail = line.rpartition(b":?")
        lines.append(head + b":" + checksum(head[1:]).encode() + tail if found else line)
    return b"\n".join(lines)


def seeds_zaber() -> list[bytes]:
    """Return a move as it should be, and stalls, refusals, alerts, late replies."""
    strange = (
        b"\x88@01 1 %% OK BUSY -- 5:?\r\n", b"\x90@01 1 %% RJ IDLE -- BADDATA:?\r\n",
        b"\x91!01 1 IDLE FS:?\n@01 1 %% OK IDLE FS 0:?\n", b"\x92@01 1 %% OK IDLE WR 0:?\n" + MARK
        + b"\x80@01 1 %% OK IDLE WR 02 WR FS:?\n", b"\x14@01 1 77 OK IDLE -- 0\n",
        b"\xa0#01 1 %% hello:?\n@01 1 %% OK IDLE -- -5:?\n",
    )  # fmt: skip
    return [b"", *strange]


def make_zaber() -> One:
    """Two axes: identified, prepared, homed, moved, read, stopped."""
    from drivers.zaber_ascii import ZaberAscii

    table = {"device": 1, "microstep_um": 0.1, "low_um": 0.0, "high_um": 90_000.0, "resolution": 64}
    settings = {"axes": {"x": {**table, "axis": 1}, "y": {**table, "axis": 2}}, "move_timeout_s": 5.0}

    def run(data: bytes) -> None:
        line: Any = Line(data, _zaber(), _zaber_mended, 0.0)
        device = ZaberAscii(line, name="stage", clock=Clock(), settings=settings)

        async def read() -> None:
            reading = await device.read()
            must(finite(*(reading.position_um or ())), f"{reading}")

        run_all([
            device.identify, device.prepare, read, device.home,
            lambda: device.move_to_um((1000.0, 2000.0)), read, lambda: device.move_by_um((5.0, -5.0)),
            device.off, read,
        ])  # fmt: skip

    return run


# --- CPX400DP ----------------------------------------------------------------------------------------------

_SET = re.compile(r"(V|I|OVP|OCP|OP)1 ([\d.]+);")
_SAYS = {"OVP": "VP1", "OCP": "CP1", "V": "V1", "I": "I1"}


def _cpx() -> Answer:
    has = {"V": "0.00", "I": "1.000", "OP": "0"}

    def answer(request: bytes) -> bytes:
        text = request.decode("ascii").strip()
        found = _SET.match(text)
        if found is not None:
            has[found[1]] = found[2]
            return (f"{_SAYS[found[1]]} {found[2]}\r\n" if found[1] != "OP" else f"{found[2]}\r\n").encode()
        volt = float(has["V"]) if has["OP"] == "1" else 0.0
        told = {
            "*IDN?": "THURLBY THANDAR,CPX400DP,1234,1.10-4.10", "V1O?": f"{volt:.3f}V",
            "I1O?": f"{volt / 10.0:.3f}A", "OP1?": has["OP"], "I1?": f"I1 {has['I']}",
        }  # fmt: skip
        return (told.get(text, "0") + "\r\n").encode()

    return answer


def seeds_cpx400dp() -> list[bytes]:
    """Return a heater that is driven, and trips, refusals, another supply."""
    strange = (
        b"\x0d4\r\n", b"\x0e12.001V\r\n", b"\x11255\r\n", b"\x00TTI,PL303,1,2\r\n", b"\x0cV1 3.00\r\n" + MARK
        + b"\x00100\r\n", b"\x05I1 9.000\r\n", b"\x03-1\r\n",
    )  # fmt: skip
    return [b"", *strange]


def make_cpx400dp() -> One:
    """Identified, prepared, driven, read, switched off."""
    from drivers.aimtti_cpx400dp import AimTtiCpx400dp

    def run(data: bytes) -> None:
        line: Any = Line(data, _cpx(), as_it_is, 0.0)
        settings = {"heater_ohm": 10.0, "power_cap_w": 40.0}
        device = AimTtiCpx400dp(line, name="power", clock=Clock(), settings=settings)

        async def read() -> None:
            reading = await device.read()
            must(finite(reading.voltage_v, reading.current_a), f"{reading}")

        run_all([
            device.identify, device.prepare, read, lambda: device.set_power_w(20.0), read, device.off, read,
        ])  # fmt: skip

    return run
