"""What to do about an instrument that does not answer as it should: from error, line and counters.

Says what was seen, then what to look at. Decides nothing and sends nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drivers.errors import DriverError
    from drivers.line_stats import LineStats

MISMATCH = "is no ", "is not a", "the station file says", "not a MethodSCRIPT", "not the answer asked for"
OPTION = "list-mode", "list mode", "galvanostat", "option"


def advise(
    error: DriverError,
    line: Mapping[str, Any],
    stats: LineStats,
    device: Mapping[str, Any],
    *,
    neighbours_answer: bool = False,
) -> list[str]:
    """Return what a person should look at, one plain sentence each.

    Args:
        error: what identifying or preparing ended with.
        line: table of its line in the station file.
        stats: counters of that line.
        device: table of the device.
        neighbours_answer: others on the same line do.
    """
    if stats.openings == 0:
        return list(_not_open(error, line))
    if _reply(error):
        return list(_wrong_reply(error, line))
    if stats.received_bytes == 0 or "no reply" in str(error) or "no line" in str(error):
        return list(_silent(line, device, neighbours_answer=neighbours_answer))
    return list(_refused(error))


def _not_open(error: DriverError, line: Mapping[str, Any]) -> Iterator[str]:
    number, text = _errno(error), str(error)
    if line["kind"] == "serial":
        port = str(line["port"])
        if "lock" in text or number in (errno.EBUSY, errno.EAGAIN):
            who = ", ".join(holders(port)) or "a program of another user (sudo fuser -v " + port + ")"
            yield f"{port} is open in {who}: end that program, one host at a time may use a line"
        elif number in (errno.EACCES, errno.EPERM):
            yield f"{port} may not be opened by this user: sudo usermod -aG dialout $USER, then log in again"
        elif "does not take" in text:
            yield "this adapter does not know these settings: take another adapter, or other settings at both"
        elif "fits" not in text and "plugged in" not in text:
            yield f"{port} is not there; serial ports of this machine: {', '.join(_ports()) or 'none'}"
            yield "a name that outlives replugging: serial:NUMBER as above, or operando init udev"
    elif number == errno.ECONNREFUSED:
        yield (
            f"the computer at {line['host']} answers, but nothing listens on port {line['port']}: is this "
            "the instrument's address, and is its server on?"
        )
    elif "Name or service" in text or "name resolution" in text:
        yield f"the name {line['host']} is not known here: an address like 192.168.0.20 needs no name server"
    else:
        yield f"nobody answers at {line['host']}: power, network cable, address (ping {line['host']})"


def _silent(line: Mapping[str, Any], device: Mapping[str, Any], *, neighbours_answer: bool) -> Iterator[str]:
    unit = device.get("unit_id")
    if neighbours_answer and unit is not None:
        yield f"others on this line answer: the line is right, and nobody on it is unit_id = {unit}"
        yield "operando check --look-around asks which other units identify themselves"
    elif line["kind"] == "serial":
        yield (
            "the port opens and nothing comes back: is the instrument on, is it this port, are the two wires "
            "of the pair swapped?"
        )
        settings = f"baud = {line['baud']}, parity = {line['parity']}, stop_bits = {line['stop_bits']}"
        same = settings + (f", unit_id = {unit}" if unit is not None else "")
        yield f"the same must be set at the instrument: {same}"
        if unit is not None:
            yield "operando check --look-around tries others, with identification requests only"
    elif line["kind"] == "udp":
        yield (
            f"no datagram came from {line['host']}:{line['port']}: is it on, is the address right, does "
            "another computer own it (it serves one), does a firewall drop the answers?"
        )
    else:
        yield f"{line['host']}:{line['port']} accepts the connection and says nothing: another instrument?"


def _wrong_reply(error: DriverError, line: Mapping[str, Any]) -> Iterator[str]:
    reply = _reply(error)
    text = reply if isinstance(reply, str) else reply.decode("latin-1")
    printable = sum(c.isprintable() or c in "\r\n\t" for c in text) >= 0.9 * len(text)
    if any(word in str(error) for word in MISMATCH):
        yield "another instrument answers here than the station file says: are two ports exchanged?"
    elif "two replies" in str(error):
        yield (
            "the instrument was late, and two answers came at once: is this computer or an adapter busy, or "
            "does somebody else ask on this line? Check again"
        )
    elif line["kind"] == "serial" and not printable:
        yield (
            f"{len(text)} bytes came that are no reply: a wrong baud rate or parity looks like that (here "
            f"baud = {line['baud']}, parity = {line['parity']}), a bad termination, too"
        )
        yield "operando check --look-around tries others, with identification requests only (Modbus)"
    elif printable:
        yield f"it speaks text ({text.strip()[:60]!r}): another instrument, or a console, is on this line"


def _refused(error: DriverError) -> Iterator[str]:
    text = str(error)
    if "firmware" in text:
        yield "update it with its maker's program, then check again: older firmware was never tried here"
    elif any(word in text for word in OPTION):
        yield "this unit lacks an option that its role needs: compare its model with the sheet"
    elif any(word in text for word in MISMATCH):
        yield "another instrument answers here than the station file says: are two ports exchanged?"


def holders(port: str) -> list[str]:
    """Return the programs that have a port open, as far as this user may see: name and process id."""
    device, found = os.path.realpath(port), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.path.realpath(fd) == device for fd in (entry / "fd").iterdir()):
                found.append(f"{(entry / 'comm').read_text().strip()} (process {entry.name})")
        except OSError:  # another user's, or it has just ended
            continue
    return [one for one in found if f"(process {os.getpid()})" not in one]


def _ports() -> Iterable[str]:
    from drivers.port_serial import connected

    return [str(port) for port in connected()]


def _reply(error: DriverError) -> bytes | str:
    return error.reply if error.reply else b""


def _errno(error: BaseException | None) -> int | None:
    """Return the number of the operating system's error at the bottom of a chain."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            found = error.errno
        error = error.__cause__ or error.__context__
    return found
