"""Messages of Zaber's ASCII protocol (firmware 6 and 7): text in, text out, no I/O.

``/device axis id words:CK`` asks, ``@device axis id OK|RJ BUSY|IDLE flag data:CK`` answers, ``#`` informs and
``!`` alerts. CK makes the 8-bit sum of all bytes after the type character zero (the LRC of the manual).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from drivers.errors import BadReply, Refused

LONGEST_BYTES = 80  # of a request: the shortest limit of any firmware
IDS = 100  # 0..99

FAULTS = {  # the axis has stopped
    "FF": "critical system error",
    "FN": "the peripheral is not supported",
    "FZ": "the axis is inactive: no peripheral is set",
    "FH": "the hardware emergency stop is active",
    "FV": "the supply voltage is out of range",
    "FO": "the driver is disabled by its temperature or current",
    "FD": "the driver is disabled",
    "FC": "the inrush current was too high",
    "FM": "the motor is too hot",
    "FQ": "encoder error",
    "FI": "index error of the encoder",
    "FA": "analogue encoder error",
    "FR": "overdrive: the motor was asked for too much for too long",
    "FS": "stalled and stopped",
    "FB": "outside its bounds: the stream was ended",
    "FP": "the path was not possible",
    "FE": "limit error: a limit sensor was met or cannot be left",
    "FT": "twist of a lockstep pair",
}
WARNINGS = {
    "WL": "an unexpected limit sensor was met",
    "WV": "the supply voltage is out of range",
    "WT": "the temperature is high",
    "WS": "stalled, and recovered by itself",
    "WM": "displaced while it stood still",
    "WP": "invalid calibration",
    "WR": "has no reference position: home it",
    "WH": "has not been homed since power came",
}
NOTES = {
    "NC": "is moved by hand (manual control)",
    "NI": "a movement was interrupted by another command or by hand",
    "ND": "a discontinuity in a stream",
    "NR": "a value was rounded",
    "NT": "waits for a trigger",
    "NU": "a setting is being changed",
    "NJ": "joystick calibration",
    "NB": "busy with another kind of movement",
}
NONE = "--"
FLAGS = {**FAULTS, **WARNINGS, **NOTES}
# After these the number that the axis calls its position need not be where it is, until it is homed.
DISPLACED = frozenset({"FS", "FE", "FQ", "FI", "FA", "FT", "FF", "WL", "WS", "WM", "WR", "WH"})

REASONS = {
    "BADDATA": "the value is outside what it accepts (limits of travel included)",
    "BADCOMMAND": "it does not know the command",
    "BADAXIS": "it has no such axis",
    "STATUSBUSY": "not while it moves",
    "DEVICEONLY": "the command is for the whole device",
    "AXISONLY": "the command is for one axis",
    "NOACCESS": "the access level is too low",
    "PARKED": "it is parked: unpark it",
    "DRIVERDISABLED": "its motor driver is disabled",
    "LOCKSTEP": "the axis is locked to another one",
    "AGAIN": "it cannot now: ask again",
    "BADMESSAGEID": "the message id was not understood",
    "INACTIVE": "the axis is inactive",
    "REMOTE": "it is under remote control of another interface",
    "NOTSUPPORTED": "it does not support this",
    "CYCLICONLY": "the axis is not cyclic",
    "LONGWORD": "a word was too long",
    "BADSPLIT": "a message in several parts was not understood",
    "TWISTED": "the lockstep pair is twisted",
}
# The data of a reply has neither colon nor backslash in what this driver asks for.
_REPLY = re.compile(r"@(\d\d) (\d) (?:(\d\d) )?(OK|RJ) (BUSY|IDLE) ([A-Z-]{2}) ([^:]*?)(?::([0-9A-F]{2}))?")
_ALERT = re.compile(r"!(\d\d) (\d) (BUSY|IDLE) ([A-Z-]{2})(?: [^:]*?)?(?::([0-9A-F]{2}))?")


@dataclass(frozen=True)
class Reply:
    """One accepted answer: what the axis does now, its most important flag, the data."""

    device: int
    axis: int
    message_id: int | None
    busy: bool
    flag: str
    data: str


@dataclass(frozen=True)
class Alert:
    """What a device said unasked: an axis came to rest, or something went wrong."""

    device: int
    axis: int
    busy: bool
    flag: str


def checksum(content: bytes) -> str:
    """Return the two upper-case hex digits that make the 8-bit sum zero.

    ``content`` is what stands between the type character and the colon.
    """
    return f"{-sum(content) & 0xFF:02X}"


def request(device: int, axis: int, message_id: int, words: str = "") -> bytes:
    """Return a command with its checksum, ended by LF; without ``words`` it asks for the status.

    Raises:
        ValueError: an address, id or text that the protocol does not know.
    """
    if not (0 <= device <= 99 and 0 <= axis <= 9 and 0 <= message_id < IDS):
        raise ValueError(f"no such address or id: device {device}, axis {axis}, id {message_id}")
    if not words.isascii() or any(letter in words for letter in "/:\\\r\n"):
        raise ValueError(f"{words!r} cannot be said in this protocol")
    content = f"{device} {axis} {message_id:02d}{' ' + words if words else ''}".encode("ascii")
    whole = b"/" + content + b":" + checksum(content).encode("ascii") + b"\n"
    if len(whole) > LONGEST_BYTES:
        raise ValueError(f"{words!r} is too long")
    return whole


def lines(buffer: bytes) -> list[bytes]:
    """Return the complete messages of a buffer, without what stands in front of their type character."""
    complete = buffer.split(b"\n")[:-1]
    found = []
    for line in complete:
        text = line.rstrip(b"\r")
        starts = [text.find(mark) for mark in (b"@", b"#", b"!") if mark in text]
        if starts:
            found.append(text[min(starts) :])
        elif text:
            raise BadReply("is no message of this protocol", reply=line)
    return found


def parse_reply(
    buffer: bytes, device: int, axis: int, message_id: int, *, must_check: bool
) -> tuple[Reply | None, list[Alert]]:
    """Find the reply to one request among what has come; None means "not enough yet".

    Replies that bear another id are late ones and are skipped; information (#) is skipped, alerts (!) are
    returned beside the reply. ``must_check``: a message without checksum is refused.

    Raises:
        BadReply: a message that is damaged, of another address, or of no known form.
        Refused: the device answered RJ; the message says why.
    """
    alerts: list[Alert] = []
    for line in lines(buffer):
        if line.startswith(b"!"):
            alerts.append(parse_alert(line, must_check=must_check))
        if not line.startswith(b"@"):
            continue
        matched = _REPLY.fullmatch(_ascii(line))
        if matched is None:
            raise BadReply("is no reply of this protocol", reply=line)
        _check(line, matched[8], must_check=must_check)
        got_id = None if matched[3] is None else int(matched[3])
        if got_id is not None and got_id != message_id:
            continue
        if (int(matched[1]), int(matched[2])) != (device, axis):
            raise BadReply(f"is the answer of another address, not of {device:02d} {axis}", reply=line)
        if got_id is None:
            raise BadReply("bears no message id, so it may be the answer to anything", reply=line)
        if matched[4] == "RJ":
            why = REASONS.get(matched[7], "for a reason that its manual does not name")
            raise Refused(f"refused the command: {matched[7]}, {why}", reply=line)
        reply = Reply(device, axis, got_id, matched[5] == "BUSY", matched[6], matched[7])
        return reply, alerts
    return None, alerts


def parse_alert(line: bytes, *, must_check: bool) -> Alert:
    """Take an alert apart. Raises BadReply if it is damaged."""
    matched = _ALERT.fullmatch(_ascii(line))
    if matched is None:
        raise BadReply("is no alert of this protocol", reply=line)
    _check(line, matched[5], must_check=must_check)
    return Alert(int(matched[1]), int(matched[2]), matched[3] == "BUSY", matched[4])


def parse_warnings(data: str) -> tuple[str, ...]:
    """Return the flags of the answer to ``warnings``: their number in two digits, then the flags.

    Raises:
        BadReply: the number is not that of the flags.
    """
    words = data.split()
    flags = tuple(words[1:])
    if not words or not words[0].isdigit() or int(words[0]) != len(flags):
        raise BadReply(f"lists its warnings as {data!r}, which does not count", reply=data)
    return flags


def parse_integer(data: str) -> int:
    """Return a whole number (positions and most settings). Raises BadReply."""
    if not re.fullmatch(r"-?\d{1,18}", data):
        raise BadReply(f"answered {data!r} instead of a whole number", reply=data)
    return int(data)


def words_of(flag: str) -> str:
    """Return what a flag means, in plain words."""
    return f"{flag}: {FLAGS.get(flag, 'a flag that this driver does not know')}"


def _check(line: bytes, given: str | None, *, must_check: bool) -> None:
    if given is None:
        if must_check:
            raise BadReply("came without the checksum that was switched on", reply=line)
        return
    content = line[1:].rsplit(b":", 1)[0]
    if checksum(content) != given:
        raise BadReply(f"has the checksum {given}, its bytes say {checksum(content)}", reply=line)


def _ascii(line: bytes) -> str:
    return line.decode("ascii", errors="replace")
