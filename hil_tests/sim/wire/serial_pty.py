"""The instrument's end of a serial line, on a pseudo-terminal.

A pty knows no baud rate, so the time on the wire is added here, divided by the speed of the bench. The slave
stays open, so the host may come and go without a hang-up. The port's name is a symbolic link that stays the
same over ``unplug`` and ``replug``, as a by-id name of a USB adapter does. Nobody waits for a host that does
not read: what does not fit into the pty is lost and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import shutil
import tempfile
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path

READ_BYTES = 4096
AT_ONCE_S = 0.0005  # the event loop cannot wait for less than about a millisecond


class SerialPty:
    """One end of a serial line.

    Args:
        receive: called with what the host sends, when its last bit would have arrived.
        name: last part of the port name.
        baud: bits per second.
        bits: bits per character, start, parity and stop bits included.
        speed: lab seconds per wall second.
    """

    def __init__(
        self,
        receive: Callable[[bytes], None],
        *,
        name: str = "port",
        baud: int = 9600,
        bits: int = 10,
        speed: float = 1.0,
    ) -> None:
        self._receive = receive
        self._name = name
        self._character_wall_s = bits / baud / speed
        self._speed = speed
        self._folder: Path | None = None
        self._master = -1
        self._slave = -1
        self._out: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self._in_free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._arrivals: set[asyncio.TimerHandle] = set()
        self.received_bytes = 0
        self.sent_bytes = 0
        self.lost_bytes = 0

    @property
    def path(self) -> str:
        """The port name for the host."""
        if self._folder is None:
            raise RuntimeError("the port is not open")
        return str(self._folder / self._name)

    @property
    def plugged(self) -> bool:
        """Whether the cable is in."""
        return self._master >= 0

    def open(self) -> str:
        """Create the port and return its name."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="operando-bench-"))
        self.replug()
        return self.path

    def replug(self) -> None:
        """Plug the cable in again under the same name."""
        if self.plugged:
            return
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        Path(self.path).symlink_to(os.ttyname(self._slave))
        asyncio.get_running_loop().add_reader(self._master, self._readable)

    def unplug(self) -> None:
        """Pull the cable: the host's end hangs up, its name is gone, what was on the way is lost."""
        if not self.plugged:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        self._drop_pending()
        Path(self.path).unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def close(self) -> None:
        """Remove the port."""
        self.unplug()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def send(self, data: bytes, delay_lab_s: float = 0.0) -> None:
        """Send after ``delay_lab_s`` and the time the bytes need on the wire; never waits."""
        if not data:
            return
        if not self.plugged:
            self.lost_bytes += len(data)
            return
        now = asyncio.get_running_loop().time()
        begin = max(now + delay_lab_s / self._speed, self._free_at)
        self._free_at = begin + len(data) * self._character_wall_s
        self._out.append((self._free_at, data))
        self._flush()

    def _flush(self) -> None:
        """Write what is due; come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._out:
            due, data = self._out[0]
            if due - loop.time() > AT_ONCE_S:
                self._timer = loop.call_at(due, self._flush)
                return
            self._out.popleft()
            self._write(data)

    def _write(self, data: bytes) -> None:
        written = 0
        with contextlib.suppress(BlockingIOError):
            written = os.write(self._master, data)
        self.sent_bytes += written
        self.lost_bytes += len(data) - written

    def _readable(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return
        self.received_bytes += len(data)
        loop = asyncio.get_running_loop()
        self._in_free_at = max(loop.time(), self._in_free_at) + len(data) * self._character_wall_s
        if self._in_free_at - loop.time() <= AT_ONCE_S and not self._arrivals:
            self._receive(data)
            return
        handle = loop.call_at(self._in_free_at, self._arrived, data)
        self._arrivals.add(handle)

    def _arrived(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self._arrivals = {handle for handle in self._arrivals if handle.when() > now}
        self._receive(data)

    def _drop_pending(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for handle in self._arrivals:
            handle.cancel()
        self._arrivals.clear()
        self.lost_bytes += sum(len(data) for _, data in self._out)
        self._out.clear()
        self._free_at = self._in_free_at = 0.0
