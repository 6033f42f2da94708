"""Connections between the processes of a host: who is at the other end, and how one ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

HANG_UP_S = 1.0  # for the rest of what was to be sent
_CREDENTIALS = struct.Struct("3i")  # process, user, group: unix(7)


def peer_pid(writer: asyncio.StreamWriter) -> int:
    """Return the process at the other end, from the kernel."""
    sock = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and take note of how it ended.

    That the other end is gone was met where it was read from. asyncio keeps it for whoever asks for the end
    of the writer, too, and where nobody asks, writes a traceback into the log as it throws that away.
    """
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            await writer.wait_closed()
