"""What systemd is told: the run has begun, what it does, that all is well, that it is ending. sd_notify(3).

systemd's watchdog is fed only while control says that four things are fresh, each by a number that must have
grown in the time given here (wall time):

- ``tick``: the event loop of control turns (its status goes round four times a second);
- ``guard``: the guard has looked at everything and come to its end (ten times a second);
- ``journal``: a commit has reached the disk (at least with every checkpoint, each 2 s);
- ``drivers``: heater *and* I/O box have answered (whatever else is on a line of theirs).

Cell and detectors are not among them: they are read only while a step uses them, and the guard trips when
they fall silent then. Before the first step systemd's start time-out holds. When everything is off, and while
report and exports are written, the supervisor's own loop is enough.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping

PARTS = ("tick", "guard", "journal", "drivers")
FRESH_S = {"tick": 2.0, "guard": 2.0, "journal": 10.0, "drivers": 5.0}
SETTING_UP, ALL_OFF, UNDER_WAY = (
    ord("c"),
    ord("e"),
    0x80,
)  # one byte for each beat; UNDER_WAY with a bit per part
ALL_FRESH = UNDER_WAY | (1 << len(PARTS)) - 1
HEARD_S = 3.0  # a beat that is older says nothing of now; there are two a second


class Freshness:
    """In control: which of the four parts has shown life lately.

    Args:
        counts: for each part the numbers that must grow, every one of them.
        now_s: wall time.
    """

    def __init__(
        self, counts: Mapping[str, Callable[[], tuple[int, ...]]], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts = counts
        self._now_s = now_s
        self._seen = {name: count() for name, count in counts.items()}
        self._since_s = {name: [now_s()] * len(seen) for name, seen in self._seen.items()}

    def stale(self) -> list[str]:
        """Return the parts that have stood still for too long."""
        now, found = self._now_s(), []
        for name, count in self._counts.items():
            numbers = count()
            pairs = enumerate(zip(numbers, self._seen[name], strict=True))
            for place in [place for place, (new, old) in pairs if new != old]:
                self._since_s[name][place] = now
            self._seen[name] = numbers
            if now - min(self._since_s[name]) > FRESH_S[name]:
                found.append(name)
        return found

    def beat(self) -> int:
        """Return the byte of a run that is under way."""
        stale = self.stale()
        return UNDER_WAY | sum(1 << place for place, name in enumerate(PARTS) if name not in stale)


def stale_in(beat: int) -> list[str]:
    """Return the parts that a beat of a run under way calls stale."""
    return [name for place, name in enumerate(PARTS) if not beat >> place & 1]


class Notifier:
    """In the supervisor: tells systemd, if there is one. Sending never waits and never fails.

    Args:
        environ: of the process; NOTIFY_SOCKET is taken out, for no process started here speaks for it.
        now_s: wall time.
    """

    def __init__(
        self, environ: MutableMapping[str, str] = os.environ, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._to = environ.pop("NOTIFY_SOCKET", "")
        self._now_s = now_s
        self._beat, self._heard_s = SETTING_UP, float("inf")  # not heard yet: it is being started
        self._control = True  # control lives, and its beats count
        self._ready = False
        self._status = ""

    def heard(self, beat: int) -> None:
        """Take a beat of control."""
        self._beat, self._heard_s = beat, self._now_s()
        if beat & UNDER_WAY and not self._ready:
            self._ready = True
            self.send("READY=1", "STATUS=the run has begun")

    def control_ended(self) -> None:
        """Control is gone: from here on the supervisor makes safe, delivers and writes, in limited times."""
        self._control = False
        self.send("STOPPING=1", "STATUS=control has ended; report and exports are written")

    def feed(self) -> bool:
        """Feed the watchdog if all is well; return whether it was."""
        why = self._why_not()
        if why != self._status:
            self._status = why
            self.send(f"STATUS={why or 'the run is under way'}")
        if not why:
            self.send("WATCHDOG=1")
        return not why

    def _why_not(self) -> str:
        """Return why the watchdog is not to be fed, empty if it is."""
        if not self._control:
            return ""
        if self._now_s() - self._heard_s > HEARD_S:
            return f"control has not been heard for more than {HEARD_S:g} s"
        if self._beat & UNDER_WAY and self._beat != ALL_FRESH:
            return f"not fresh: {', '.join(stale_in(self._beat))}"
        return ""

    def send(self, *fields: str) -> None:
        """Send one datagram; nobody listening, or a full queue, is no reason to do anything."""
        if not self._to:
            return
        address = "\0" + self._to[1:] if self._to.startswith("@") else self._to
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(fields).encode(), address)
