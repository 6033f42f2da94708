"""A serial port; the only file that imports pyserial."""

from __future__ import annotations

import asyncio
import termios
from collections.abc import Callable, Sequence
from typing import Literal

import serial
import serial_asyncio_fast
from serial.tools import list_ports

from drivers.port import Inbox, PortLost
from drivers.port_find import Found, NotFound, find, is_selector, wrong

Parity = Literal["none", "even", "odd"]
_PARITY = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


class SerialPort:
    """Eight data bits, no flow control, opened exclusively so that two hosts cannot share a line.

    Args:
        path: device path, for instance ``/dev/serial/by-id/...``, or a selector such as ``serial:FT4ABC12``
            (see ``port_find``), looked up anew at every opening.
        baud: bits per second.
        parity: none, even or odd.
        stop_bits: 1 or 2.
        there: returns the ports of this machine.
    """

    def __init__(
        self,
        path: str,
        baud: int = 9600,
        parity: Parity = "none",
        stop_bits: int = 1,
        *,
        there: Callable[[], Sequence[Found]] | None = None,
    ) -> None:
        if parity not in _PARITY or stop_bits not in (1, 2) or baud <= 0:
            raise ValueError(f"no such setting: {baud} baud, parity {parity!r}, {stop_bits} stop bits")
        if wrong(path):
            raise ValueError(f"port {path!r} {wrong(path)}")
        self._path = path
        self._there = there or connected
        self._device = ""  # what a selector meant at the last opening
        self._baud = baud
        self._parity = parity
        self._stop_bits = stop_bits
        self._transport: asyncio.Transport | None = None
        self._inbox = Inbox(path)

    @property
    def where(self) -> str:
        """The device path; behind a selector in brackets."""
        return f"{self._path} ({self._device})" if self._device else self._path

    @property
    def character_s(self) -> float:
        """Start, eight data, parity and stop bits, s."""
        bits = 1 + 8 + (self._parity != "none") + self._stop_bits
        return bits / self._baud

    async def open(self) -> None:
        """Open the device with the line's settings."""
        if self._transport is not None and self._inbox.lost is None:
            return
        await self.close()
        device = await self._look_up()
        inbox = Inbox(self.where)
        try:
            transport, _ = await serial_asyncio_fast.create_serial_connection(
                asyncio.get_running_loop(),
                lambda: inbox,
                device,
                baudrate=self._baud,
                parity=_PARITY[self._parity],
                stopbits=self._stop_bits,
                exclusive=True,
            )
        except termios.error as error:  # no OSError: the adapter does not know these settings
            raise PortLost(
                f"{self.where}: does not take {self._baud} baud, parity {self._parity}, "
                f"{self._stop_bits} stop bits ({error.args[-1]})"
            ) from error
        except (OSError, EOFError) as error:  # SerialException is an OSError
            raise PortLost(f"{self.where}: {error}") from error
        self._transport, self._inbox = transport, inbox

    async def _look_up(self) -> str:
        """Return the device to open now."""
        if not is_selector(self._path):
            return self._path
        self._device = ""
        try:  # sysfs may take milliseconds, and other lines have their own periods
            self._device = find(self._path, await asyncio.to_thread(self._there))
        except (NotFound, OSError) as error:
            raise PortLost(str(error)) from error
        return self._device

    async def close(self) -> None:
        """Close at once; what was not yet sent is dropped."""
        transport, self._transport = self._transport, None
        if transport is not None:
            if not transport.is_closing():  # a second abort would fail inside the library
                transport.abort()
            await self._inbox.gone.wait()
        self._inbox.lose("closed")

    async def write(self, data: bytes) -> None:
        """Hand ``data`` to the device."""
        if self._transport is None or self._inbox.lost is not None:
            raise PortLost(f"{self.where}: not open")
        self._transport.write(data)

    async def read(self, timeout_s: float) -> bytes:
        """Return the bytes that are here, or b"" after ``timeout_s``."""
        return await self._inbox.read(timeout_s)

    def discard(self) -> bytes:
        """Take out what has arrived."""
        return self._inbox.discard()


def connected() -> list[Found]:
    """Return the serial ports of this machine, as pyserial finds them."""
    return [_found(one) for one in list_ports.comports()]


def _found(one: object) -> Found:
    """Translate what pyserial tells; its location is ``1-1.2``, or ``1-1.2:1.0`` with an interface."""
    location, _, interface = str(getattr(one, "location", None) or "").partition(":")
    number = interface.rpartition(".")[2]
    return Found(
        device=str(one.device),  # type: ignore[attr-defined]  # pyserial has no types
        serial=getattr(one, "serial_number", None) or None,
        vendor=getattr(one, "vid", None),
        product=getattr(one, "pid", None),
        socket=location or None,
        interface=int(number) if number.isdigit() else None,
    )
