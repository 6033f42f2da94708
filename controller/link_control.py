"""Link's side of the socket to control (the other side, and the protocol, is ``link_server.py``)."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from controller.outbox import ranges
from controller.streams import hang_up

RETRY_S = 0.3
_UNREAD = 1 << 20  # bytes that a frozen control may have unread before we stop adding to them


class ControlSide:
    """Connects to control, again and again; nothing here ever waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self.wake = asyncio.Event()
        self.commands = False  # control takes remote commands
        self.ended = False  # control said goodbye
        self._left: float | None = None

    @property
    def attached(self) -> bool:
        """Whether control is there."""
        return self._writer is not None

    @property
    def left_s(self) -> float | None:
        """Seconds since control went away; None if it never was there."""
        return None if self._left is None else time.monotonic() - self._left

    async def run(self) -> None:
        """Keep a connection to control, for ever."""
        while True:
            with suppress(OSError):
                await self._attend()
            await asyncio.sleep(RETRY_S)

    async def _attend(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        self._writer, self.ended, self.commands = writer, False, False
        self._send({"hello": {"pid": os.getpid()}})
        self.wake.set()
        try:
            while data := await reader.read(256):
                self.commands |= b"c" in data
                self.ended |= b"." in data
                self.wake.set()
        finally:
            self._writer = None
            self._left = time.monotonic()
            self.wake.set()
            await hang_up(writer)

    async def wait(self, timeout_s: float) -> None:
        """Sleep until there may be something to do, at most ``timeout_s``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), timeout_s)
        self.wake.clear()

    def acknowledge(self, seqs: Sequence[int]) -> None:
        """Tell that these messages were delivered."""
        self.acknowledge_ranges(ranges(seqs))

    def acknowledge_ranges(self, delivered: Sequence[tuple[int, int]]) -> None:
        """Tell that the messages in these closed ranges were delivered."""
        for start in range(0, len(delivered), 1000):
            self._send({"ack": delivered[start : start + 1000]})

    def refuse(self, refused: Sequence[tuple[int, str]]) -> None:
        """Tell that these messages can never be delivered, and why."""
        if refused:
            self._send({"refused": refused})

    def command(self, verb: str, payload: bytes, *, retain: bool) -> None:
        """Hand over a remote command as it came."""
        self._send({"command": {"verb": verb, "payload": payload.decode("latin-1"), "retain": retain}})

    def beat(self, **told: Any) -> None:
        """Tell that we live, and how we are."""
        self._send({"beat": told})

    def _send(self, told: dict[str, Any]) -> None:
        writer = self._writer
        if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > _UNREAD:
            return
        writer.write(json.dumps(told).encode() + b"\n")
