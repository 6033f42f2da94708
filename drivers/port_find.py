"""Which serial port is meant: by its path, or by what is plugged in, whatever name it has got today. Pure.

In the station file ``port`` is a path (``/dev/ttyUSB0``, ``/dev/serial/by-id/...``) or a selector, looked up
at every opening, so that an adapter that came back under another name is found again:

    serial:FT4ABC12         the serial number of the USB adapter
    usb:0403:6001           its vendor and product number
    usb:0403:6001:FT4ABC12  all three
    socket:1-1.2            the USB socket it is plugged into, as the kernel names it

``...@01`` behind any of them is the interface, for adapters with several ports. Exactly one port must fit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SELECTOR = re.compile(
    r"(?:serial:(?P<serial>[^@]+)|usb:(?P<vendor>[0-9a-fA-F]{4}):(?P<product>[0-9a-fA-F]{4})"
    r"(?::(?P<also>[^@]+))?|socket:(?P<socket>[0-9]+-[0-9.]+))(?:@(?P<interface>[0-9]{1,2}))?"
)
PREFIXES = "serial:", "usb:", "socket:"


class NotFound(LookupError):
    """No port fits, or several do; the message says what there is."""


@dataclass(frozen=True)
class Found:
    """One serial port of this machine, as the operating system describes it."""

    device: str  # /dev/ttyUSB0
    serial: str | None = None
    vendor: int | None = None
    product: int | None = None
    socket: str | None = None  # 1-1.2
    interface: int | None = None

    def __str__(self) -> str:
        """Return it in words, with the selectors that fit it."""
        if self.vendor is None or self.product is None:
            return self.device
        number = f", serial:{self.serial}" if self.serial else ", no serial number"
        where = f", socket:{self.socket}" if self.socket else ""
        return f"{self.device} (usb:{self.vendor:04x}:{self.product:04x}{number}{where})"


def is_selector(port: str) -> bool:
    """Return whether this is no path."""
    return port.startswith(PREFIXES)


def wrong(port: str) -> str:
    """Return what is wrong with a selector, empty if nothing is or it is a path."""
    if not is_selector(port) or SELECTOR.fullmatch(port):
        return ""
    return "is none of serial:NUMBER, usb:VVVV:PPPP, usb:VVVV:PPPP:NUMBER, socket:1-1.2 (with @01: interface)"


def find(port: str, there: Sequence[Found]) -> str:
    """Return the device path that a selector means now; a path is returned as it is.

    Raises:
        NotFound: none of the ports that are there fits, or more than one.
    """
    if not is_selector(port):
        return port
    match = SELECTOR.fullmatch(port)
    if match is None:
        raise NotFound(f"{port} {wrong(port)}")
    fitting = [one for one in there if _fits(match, one)]
    if len(fitting) == 1:
        return fitting[0].device
    usb = [one for one in there if one.vendor is not None]
    if not fitting:
        what = ", ".join(map(str, usb)) or "no USB serial port"
        raise NotFound(f"{port}: no such port is plugged in; there is {what}")
    raise NotFound(
        f"{port} fits {len(fitting)} ports: {', '.join(map(str, fitting))}; name one by socket or interface"
    )


def _fits(match: re.Match[str], one: Found) -> bool:
    """Return whether a port is what the selector asks for; what is not asked for may be anything."""
    wanted = match.groupdict()
    checks = (
        (wanted["serial"] or wanted["also"], one.serial),
        (_number(wanted["vendor"], 16), one.vendor),
        (_number(wanted["product"], 16), one.product),
        (wanted["socket"], one.socket),
        (_number(wanted["interface"], 10), one.interface),
    )
    return all(want is None or want == has for want, has in checks)


def _number(text: str | None, base: int) -> int | None:
    return None if text is None else int(text, base)
