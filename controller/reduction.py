"""Control's end of the reduce process: hands events over, takes products back, never waits for either.

Frames on the Unix stream socket are a 32-bit big-endian length and a CBOR map (the kinds are documented in
``controller/reduce``). When reduce is slow, chunks beyond ``BACKLOG_BYTES`` are not sent: the raw-event file
has them, the gap in the chunk numbers tells reduce to read them there, and the number is published. A reduce
that owes an answer and says nothing for long hangs: it is killed, the supervisor starts another, and that one
reads everything again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cbor2

from controller.rawfile import RawIndex, replayed
from controller.streams import hang_up, peer_pid

BACKLOG_BYTES = 8 << 20
FRAME_LIMIT_BYTES = 64 << 20
HANGS_S = 60.0  # wall seconds: nothing at all from a reduce process that owes an answer
LOOK_S = 1.0
FINISH_ATTEMPTS = 2
MOST_KILLS = 3  # in a run: what hangs each time is in the data
_HEADER = struct.Struct(">I")

Message = dict[str, Any]


class Reduction:
    """Server side of ``reduce.sock``; at most one reduce process is connected at a time.

    Everything but the events themselves is also written into the index of the raw files. A reduce process
    that comes late, or is started again, gets that index replayed first and reads the events from the files.
    """

    def __init__(
        self,
        path: Path,
        on_message: Callable[[Message], None],
        raw: Path,
        *,
        hangs_s: float = HANGS_S,
        on_hang: Callable[[str], None] | None = None,
    ) -> None:
        self._path = path
        self._raw = raw
        self._index = RawIndex(raw)
        self._on_message = on_message
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.ready = asyncio.Event()
        self.finished = asyncio.Event()  # the final result is here
        self.unsent_chunks = 0
        self.restarts = 0
        self._hangs_s = hangs_s
        self._on_hang = on_hang
        self._pid = 0
        self._kills = 0
        self._connections = 0
        self._owed = 0  # passes that were sent and not answered
        self._messages = 0
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; a socket file left by a crash is replaced (the station lock guarantees it is ours)."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=str(self._path))
        self._path.chmod(0o600)
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Close the socket; reduce ends by itself when control is gone."""
        if self._watching is not None:
            self._watching.cancel()
        if self._writer is not None:
            self._writer.close()
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        await asyncio.to_thread(self._index.close)

    def send(self, message: Message) -> bool:
        """Write a message into the index and queue it; return whether somebody is there to take it."""
        self._index.write(message)
        return self._queue(message)

    async def sync(self) -> None:
        """Return when the index is on the disk."""
        await asyncio.to_thread(self._index.sync)

    def _queue(self, message: Message) -> bool:
        if self._writer is None or self._writer.is_closing():
            return False
        self._owed += message.get("k") == "pass_end"
        body = cbor2.dumps(message)
        self._writer.write(_HEADER.pack(len(body)) + body)
        return True

    def send_events(self, message: Message) -> bool:
        """Queue a chunk of events unless reduce is behind; then count it and leave it to the raw file."""
        writer = self._writer
        behind = writer is None or writer.transport.get_write_buffer_size() > BACKLOG_BYTES
        if behind or not self._queue(message):
            self.unsent_chunks += 1
            return False
        return True

    async def finish(self, patience_s: float) -> bool:
        """Ask for the final result; return whether it came.

        Args:
            patience_s: wall seconds without any message after which reduce hangs. One that hangs, and one
                that ended meanwhile, has a successor, which is asked again, once.
        """
        for _ in range(FINISH_ATTEMPTS):
            self.finished.clear()
            if await self._comes(self.ready, patience_s):
                asked = self._pid
                self.send({"k": "finish"})
                if await self._comes(self.finished, patience_s):
                    return True
                if self._pid == asked:
                    self._kill("it does not give its final result")
        return False

    async def _comes(self, event: asyncio.Event, patience_s: float) -> bool:
        """Wait for an event for as long as reduce says anything at all."""
        heard = -1
        while heard != self._messages:
            heard = self._messages
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await event.wait()
                    return True
        return False

    async def _watch(self) -> None:
        """Kill a reduce that hangs; our own looks are counted, so that our own standstill is none of its."""
        heard, silent_s = 0, 0.0
        look_s = min(LOOK_S, self._hangs_s / 4)
        while True:
            await asyncio.sleep(look_s)
            if self._messages != heard or not self._owed or self._writer is None:
                heard, silent_s = self._messages, 0.0
                continue
            silent_s += look_s
            if silent_s >= self._hangs_s:
                self._kill("it answers nothing")
                silent_s = 0.0

    def _kill(self, why: str) -> None:
        """End the present reduce process: the supervisor starts another."""
        if self._writer is None or self._pid in (0, os.getpid()) or self._kills >= MOST_KILLS:
            return
        self._kills += 1
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._pid, signal.SIGKILL)
        self._writer.close()
        self._writer = None
        self.ready.clear()
        if self._on_hang is not None:
            self._on_hang(f"reduce is started again: {why}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self._writer.close()
        self.restarts += self._connections > 0
        self._connections += 1
        self._owed = 0
        self._pid = peer_pid(writer)
        self._writer = writer
        for message in replayed(self._raw):
            self._queue(message)
        try:
            while True:
                (size,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                if size > FRAME_LIMIT_BYTES:
                    break
                message = cbor2.loads(await reader.readexactly(size))
                if isinstance(message, Mapping):
                    self._take(dict(message))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it is gone
        finally:
            if self._writer is writer:
                self._writer = None
                self.ready.clear()
            await hang_up(writer)

    def _take(self, message: Message) -> None:
        self._messages += 1
        if message.get("k") == "ready":
            self.ready.set()
        elif message.get("k") == "pass_checked":
            self._owed = max(0, self._owed - 1)
        self._on_message(message)
        if message.get("k") == "result":
            self.finished.set()
