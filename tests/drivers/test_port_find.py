"""Ports by serial number, numbers of the maker, or socket; and one that comes back under another name."""

import asyncio
import os
import pty
import tty
from types import SimpleNamespace

import pytest

from drivers import port_serial
from drivers.errors import NoReply
from drivers.line import Line
from drivers.port_find import Found, NotFound, find, wrong
from drivers.port_serial import SerialPort, connected
from drivers.ports import open_line

FTDI = Found("/dev/ttyUSB0", "FT4ABC12", 0x0403, 0x6001, "1-1.2")
TWIN = Found("/dev/ttyUSB1", "FT4ABC13", 0x0403, 0x6001, "1-1.3")
CLONES = [Found(f"/dev/ttyUSB{n}", "0001", 0x10C4, 0xEA60, f"1-2.{n}") for n in (5, 6)]
QUAD = [Found(f"/dev/ttyUSB{10 + n}", "Q1", 0x0403, 0x6011, "2-1", n) for n in range(4)]
ACM = Found("/dev/ttyACM0", "12345", 0x2341, 0x0043, "1-4", 0)
BUILT_IN = Found("/dev/ttyS0")
ALL = [FTDI, TWIN, *CLONES, *QUAD, ACM, BUILT_IN]


@pytest.mark.parametrize(
    ("selector", "device"),
    [
        ("/dev/serial/by-id/usb-x", "/dev/serial/by-id/usb-x"),
        ("serial:FT4ABC13", "/dev/ttyUSB1"),
        ("usb:2341:0043", "/dev/ttyACM0"),
        ("usb:0403:6001:FT4ABC12", "/dev/ttyUSB0"),
        ("socket:1-2.6", "/dev/ttyUSB6"),
        ("serial:Q1@02", "/dev/ttyUSB12"),
        ("socket:2-1@0", "/dev/ttyUSB10"),
    ],
)
def test_a_port_is_found(selector, device):
    assert find(selector, ALL) == device


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        (
            "serial:none",
            "no such port is plugged in; there is /dev/ttyUSB0 .*serial:FT4ABC12",
        ),
        ("usb:0403:6001", "fits 2 ports: /dev/ttyUSB0 .* /dev/ttyUSB1 .*by socket or interface"),
        ("serial:0001", "fits 2 ports"),
        ("serial:Q1", "fits 4 ports"),
        ("usb:403:6001", "is none of serial:NUMBER"),
    ],
)
def test_none_or_several_are_refused_and_named(selector, says):
    with pytest.raises(NotFound, match=says):
        find(selector, ALL)


def test_nothing_is_plugged_in():
    with pytest.raises(NotFound, match="there is no USB serial port"):
        find("serial:FT4ABC12", [BUILT_IN])


def test_a_wrong_selector_is_refused_before_anything_is_opened():
    assert wrong("socket:left") != ""
    with pytest.raises(ValueError, match="is none of serial:NUMBER"):
        open_line("heater", {"kind": "serial", "port": "usb:ft232"})


def test_what_pyserial_tells(monkeypatch):
    told = [
        SimpleNamespace(device="/dev/ttyUSB2", serial_number="A", vid=1027, pid=24577, location="1-1.2"),
        SimpleNamespace(device="/dev/ttyUSB3", serial_number="", vid=1027, pid=24593, location="1-1.4:1.3"),
        SimpleNamespace(device="/dev/ttyS0", serial_number=None, vid=None, pid=None, location=None),
    ]
    monkeypatch.setattr(port_serial.list_ports, "comports", lambda: told)
    assert connected() == [
        Found("/dev/ttyUSB2", "A", 0x0403, 0x6001, "1-1.2"),
        Found("/dev/ttyUSB3", None, 0x0403, 0x6011, "1-1.4", 3),
        Found("/dev/ttyS0"),
    ]


class Adapter:
    """An instrument that answers in capital letters, on a terminal with a new name at every plugging in."""

    def __init__(self, serial="FT1"):
        self.serial = serial
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        asyncio.get_running_loop().add_reader(self.master, self._answer)
        self.found = Found(os.ttyname(self.slave), serial, 0x0403, 0x6001, "1-1")

    def _answer(self):
        os.write(self.master, os.read(self.master, 4096).upper())

    def unplug(self):
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)


def until_lf(buffer):
    return buffer if buffer.endswith(b"\n") else None


async def test_an_adapter_that_came_back_under_another_name_is_found_again():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the library reports the failed write
    first = Adapter()
    there = [first.found]
    line = Line("heater", SerialPort("serial:FT1", there=lambda: there), reopen_every_s=0.0)
    assert await line.ask(b"a\n", until_lf, timeout_s=1.0) == b"A\n"
    assert line.where == f"serial:FT1 ({first.found.device})"
    kept_name = Adapter("another")  # takes no name that is in use
    first.unplug()
    there[:] = [kept_name.found]
    for _ in range(2):
        with pytest.raises(NoReply, match=r"link lost|no such port is plugged in"):
            await line.ask(b"b\n", until_lf, timeout_s=0.2)
    second = Adapter()
    there[:] = [kept_name.found, second.found]
    assert await line.ask(b"c\n", until_lf, timeout_s=1.0) == b"C\n"
    assert line.stats.reopenings == 1
    assert second.found.device in line.where
    await line.close()
    for adapter in (kept_name, second):
        adapter.unplug()


async def test_settings_that_an_adapter_does_not_take_are_named():
    adapter = Adapter()  # a pseudo-terminal has no parity
    line = open_line("heater", {"kind": "serial", "port": adapter.found.device, "parity": "even"})
    with pytest.raises(NoReply, match=r"cannot open line heater: .* does not take 9600 baud, parity even"):
        await line.open()
    adapter.unplug()


async def test_two_ports_that_fit_are_not_guessed_between():
    line = Line("heater", SerialPort("usb:0403:6001", there=lambda: [FTDI, TWIN]))
    with pytest.raises(NoReply, match="cannot open line heater: usb:0403:6001 fits 2 ports"):
        await line.open()
