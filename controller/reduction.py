"""Control's end of the reduce process: hands events over, takes products back, never waits for either.

Frames on the Unix stream socket are a 32-bit big-endian length and a CBOR map (the kinds are documented in
``controller/reduce``). When reduce is slow, chunks beyond ``BACKLOG_BYTES`` are not sent: the raw-event file
has them, the gap in the chunk numbers tells reduce to read them there, and the number is published.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cbor2

from controller.rawfile import RawIndex, read_index

BACKLOG_BYTES = 8 << 20
FRAME_LIMIT_BYTES = 64 << 20
_HEADER = struct.Struct(">I")

Message = dict[str, Any]


class Reduction:
    """Server side of ``reduce.sock``; at most one reduce process is connected at a time.

    Everything but the events themselves is also written into the index of the raw files. A reduce process
    that comes late, or is started again, gets that index replayed first and reads the events from the files.
    """

    def __init__(self, path: Path, on_message: Callable[[Message], None], raw: Path) -> None:
        self._path = path
        self._raw = raw
        self._index = RawIndex(raw)
        self._on_message = on_message
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.ready = asyncio.Event()
        self.unsent_chunks = 0
        self.restarts = 0

    async def start(self) -> None:
        """Listen; a socket file left by a crash is replaced (the station lock guarantees it is ours)."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=str(self._path))
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Close the socket; reduce ends by itself when control is gone."""
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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self.restarts += 1
            self._writer.close()
        self._writer = writer
        for message in read_index(self._raw):
            self._queue(message)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                if size > FRAME_LIMIT_BYTES:
                    break
                message = cbor2.loads(await reader.readexactly(size))
                if isinstance(message, Mapping):
                    self._take(dict(message))
        if self._writer is writer:
            self._writer = None
            self.ready.clear()
        writer.close()

    def _take(self, message: Message) -> None:
        if message.get("k") == "ready":
            self.ready.set()
        self._on_message(message)
