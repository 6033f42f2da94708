"""The only exceptions a driver lets out.

Each class stands for a different reaction of the caller. The message always names the device, what was
asked and what came back. ``transient`` says that a retry may help; whether a retry is *safe* is a property of
the command (a set-point yes, "start script" no) and is decided by the driver, never by a line.
"""

from __future__ import annotations


class DriverError(Exception):
    """Base of everything that can go wrong between host and instrument."""

    transient = False

    def __init__(
        self, message: str, *, device: str = "", request: bytes | str = b"", reply: bytes | str = b""
    ) -> None:
        parts = [f"{device}: {message}" if device else message]
        if request:
            parts.append(f"asked {_shown(request)}")
        if reply:
            parts.append(f"got {_shown(reply)}")
        super().__init__("; ".join(parts))
        self.message = message
        self.device = device
        self.request = request
        self.reply = reply


class NoReply(DriverError):
    """Nothing complete came back in time, or the link is gone. A write may still have taken effect."""

    transient = True


class BadReply(DriverError):
    """Something came back that is not the answer to what was asked (checksum, address, shape, echo)."""

    transient = True


class BadLine(BadReply):
    """A line of a raster did something else than what was to be played; it has ended, blanked."""


class Refused(DriverError):
    """The instrument understood and said no (exception reply, error code, wrong state)."""


class OutOfRange(DriverError, ValueError):
    """A value outside what the instrument, its wiring or its settings allow; nothing was sent."""


def _shown(data: bytes | str) -> str:
    """Show at most 64 bytes: text as text, binary as hexadecimal."""
    if isinstance(data, str):
        return repr(data[:200])
    head = data[:64]
    more = f" (+{len(data) - 64} bytes)" if len(data) > 64 else ""
    if head and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head):
        return repr(head.decode("ascii")) + more
    return head.hex(" ") + more
