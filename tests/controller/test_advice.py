"""What ``check`` says about instruments that are wrong, silent or out of reach; and what it tries."""

import asyncio
import os
import pty
import termios
import tty
from typing import Any

import pytest

from controller.advice import advise, holders
from controller.look_around import look_around, settings_to_try
from drivers.clock import RealClock
from drivers.errors import BadReply, DriverError, NoReply, Refused
from drivers.eurotherm_3200 import Eurotherm3200
from drivers.line import Line
from drivers.ports import open_line

SERIAL = {"kind": "serial", "port": "/dev/ttyUSB7", "baud": 9600, "parity": "none", "stop_bits": 1}
TCP = {"kind": "tcp", "host": "127.0.0.1", "port": 1}
UDP = {"kind": "udp", "host": "192.168.0.5", "port": 10001}
HEATER = {
    "unit_id": 1,
    "sensor_break": {
        "setting": "latching", "safe_output_fraction": 0.0,
        "confirmed_by": "me", "confirmed_on": "2026-01-01",
    },
}  # fmt: skip


async def failing(table: dict[str, Any]) -> tuple[DriverError, Line]:
    """Return what identifying a controller on this line ends with."""
    line = open_line("heater", table)
    try:
        await line.open()
        await Eurotherm3200(line, name="heater", clock=RealClock(), settings=HEATER).identify()
    except DriverError as error:
        return error, line
    finally:
        await line.close()
    raise AssertionError("it answered")


async def said(table: dict[str, Any], device: dict[str, Any] | None = None) -> str:
    error, line = await failing(table)
    return "\n".join(advise(error, table, line.stats, HEATER if device is None else device))


class Liar:
    """Something on a serial port that answers with the same bytes whatever it is asked."""

    def __init__(self, answer: bytes = b"", only_at: int = 0, **answers: bytes) -> None:
        self._answer = answer
        self._answers = answers  # by the request in hexadecimal, behind an r
        self.heard = b""
        self._only_at = only_at
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.table = {**SERIAL, "port": os.ttyname(self.slave)}
        asyncio.get_running_loop().add_reader(self.master, self._reply)

    def _reply(self) -> None:
        asked = os.read(self.master, 4096)
        self.heard += asked
        speed = termios.tcgetattr(self.slave)[4]
        right = not self._only_at or speed == self._only_at
        answer = self._answers.get(f"r{asked.hex()}", self._answer)
        os.write(self.master, answer if right else bytes(b ^ 0xA5 for b in asked))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)


async def test_a_port_that_is_gone() -> None:
    told = await said(SERIAL)
    assert "/dev/ttyUSB7 is not there; serial ports of this machine:" in told
    assert "serial:NUMBER" in told


async def test_a_port_that_another_program_has_open() -> None:
    liar = Liar()
    taken = open_line("other", liar.table)
    await taken.open()
    try:
        told = await said(liar.table)
    finally:
        await taken.close()
        liar.close()
    assert "end that program" in told
    assert holders("/dev/null") is not None


def test_a_port_without_rights() -> None:
    cause = PermissionError(13, "Permission denied")
    error = NoReply("cannot open line heater: /dev/ttyUSB7: Permission denied")
    error.__cause__ = cause
    line = open_line("heater", SERIAL)
    assert "usermod -aG dialout" in advise(error, SERIAL, line.stats, HEATER)[0]


async def test_a_computer_without_the_service_and_a_name_that_is_none() -> None:
    assert "nothing listens on port 1" in await said(TCP)
    error = NoReply("cannot open line io: no-such-host:502: [Errno -2] Name or service not known")
    told = advise(error, {**TCP, "host": "no-such-host"}, open_line("io", TCP).stats, {})
    assert "the name no-such-host is not known" in told[0]


async def test_silence_names_the_settings_that_must_be_the_same() -> None:
    liar = Liar()
    error, line = await failing(liar.table)
    told = "\n".join(advise(error, liar.table, line.stats, HEATER))
    assert "comes back" in told
    assert "baud = 9600, parity = none, stop_bits = 1, unit_id = 1" in told
    with_others = "\n".join(
        advise(error, liar.table, line.stats, {**HEATER, "unit_id": 7}, neighbours_answer=True)
    )
    assert "nobody on it is unit_id = 7" in with_others
    assert "wires" not in with_others
    assert "another computer own it" in "\n".join(advise(error, UDP, line.stats, {}))
    liar.close()


async def test_bytes_that_are_no_reply_look_like_a_wrong_speed() -> None:
    liar = Liar(bytes([0x00, 0xF8, 0x80, 0xFE, 0x00, 0xE6]))
    told = await said(liar.table)
    liar.close()
    assert "a wrong baud rate or parity looks like that (here baud = 9600, parity = none)" in told


async def test_text_on_a_modbus_line_is_another_instrument() -> None:
    liar = Liar(b"KEITHLEY INSTRUMENTS INC.,MODEL 2400\n")
    told = await said(liar.table)
    liar.close()
    assert "it speaks text ('KEITHLEY" in told


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BadReply("the station file says EmStat4 LR", request="t", reply="tes4_hr"), "two ports exchanged"),
        (BadReply("two replies to one request", request=b"t", reply=b"\x01\x02\x01\x02"), "Check again"),
        (Refused("firmware 1.0100 is too old: 1.0186 at least"), "update it"),
        (Refused("has no list-mode option"), "lacks an option"),
        (Refused("EmStat Pico has no galvanostat"), "lacks an option"),
    ],
)
async def test_who_answers_is_another_or_lacks_something(error: DriverError, says: str) -> None:
    liar = Liar()
    _, line = await failing(liar.table)
    line.stats.received_bytes = 20
    liar.close()
    assert says in "\n".join(advise(error, liar.table, line.stats, {}))


def test_what_is_tried_is_never_what_is_set() -> None:
    tried = list(settings_to_try(SERIAL, 1))
    assert (SERIAL, 1) not in tried
    assert len({(table["baud"], table["parity"], unit) for table, unit in tried}) == len(tried) == 15 + 17


async def test_looking_around_finds_another_speed_and_only_identifies() -> None:
    liar = Liar(  # as recorded in hil_tests/traces: status and its inverse, no register 107
        only_at=termios.B19200, r0103004b0002b41d=bytes.fromhex("0103040000fffffb83"),
        r0103006b0001f5d6=bytes.fromhex("018302c0f1"),
    )  # fmt: skip
    try:
        found = await look_around("heater", "eurotherm_3200", liar.table, HEATER, RealClock())
    finally:
        liar.close()
    assert found == 'with baud = 19200, parity = "none" it answers: Eurotherm 3200 series'
    functions = {liar.heard[n + 1] for n in range(0, len(liar.heard) - 7, 8)}
    assert functions == {3}  # reading registers; nothing was ever written
