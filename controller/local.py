"""The local socket: how people on this machine talk to a running host, without any broker.

One JSON object per line each way. ``{"do": "status"}`` is answered with one line; ``{"do": "watch"}`` is
answered with a line per change until the caller hangs up. Who may open the socket may command: it stands in a
folder only its owner can enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from controller.streams import hang_up

LINE_LIMIT_BYTES = 1 << 20
WATCH_BACKLOG_BYTES = 1 << 20

Request = dict[str, Any]
Handler = Callable[[Request], Awaitable[dict[str, Any]]]


class LocalServer:
    """Unix-socket server of control and of the supervisor."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._watchers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; a socket left by a crash is replaced (the station lock guarantees it is ours)."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, path=str(self._path), limit=LINE_LIMIT_BYTES
        )
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Hang up on everybody."""
        for writer in list(self._watchers):
            writer.close()
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    def broadcast(self, event: dict[str, Any]) -> None:
        """Send an event to every watcher; one that does not keep up is hung up on."""
        line = json.dumps(event, default=str).encode() + b"\n"
        for writer in list(self._watchers):
            if writer.is_closing() or writer.transport.get_write_buffer_size() > WATCH_BACKLOG_BYTES:
                self._watchers.discard(writer)
                writer.close()
            else:
                writer.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    request = json.loads(line)
                    reply = await self._handler(request)
                except (ValueError, KeyError, TypeError) as error:
                    reply = {"ok": False, "error": f"not a request: {error}"}
                    request = {}
                writer.write(json.dumps(reply, default=str).encode() + b"\n")
                await writer.drain()
                if isinstance(request, dict) and request.get("do") == "watch" and reply.get("ok"):
                    self._watchers.add(writer)
        except (ConnectionError, asyncio.LimitOverrunError, ValueError):
            pass  # the caller went away or sent no lines: nothing was changed by that
        except asyncio.CancelledError:
            pass  # the process ends; Python 3.11 would write a traceback for a caller that is cut off
        finally:
            self._watchers.discard(writer)
            await hang_up(writer)


class LocalError(Exception):
    """The host did not answer, or there is none."""


def ask(path: Path, request: Request, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Send one request and return the reply (blocking; for the command line).

    Raises:
        LocalError: when nobody listens on ``path`` or no answer came in time.
    """
    with _connect(path, timeout_s) as link:
        try:
            link.sendall(json.dumps(request).encode() + b"\n")
            with link.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError:
            raise LocalError(f"the host did not answer on {path} within {timeout_s:g} s") from None
        except ConnectionError:
            line = b""
    if not line:
        raise LocalError(f"the host hung up on {path}")
    reply: dict[str, Any] = json.loads(line)
    return reply


def watch(path: Path, *, timeout_s: float = 5.0) -> Iterator[dict[str, Any] | None]:
    """Yield the host's events until it hangs up; None every ``timeout_s`` without one."""
    with _connect(path, timeout_s) as link:
        with contextlib.suppress(ConnectionError):  # then recv says so, too
            link.sendall(b'{"do": "watch"}\n')
        pending = b""
        while True:
            try:
                data = link.recv(65536)
            except TimeoutError:
                yield None
                continue
            except ConnectionError:
                return
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line:
                    yield json.loads(line)


def _connect(path: Path, timeout_s: float) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(timeout_s)
    try:
        link.connect(str(path))
    except OSError as error:
        link.close()
        raise LocalError(f"no host is running here ({path}: {error.strerror or error})") from None
    return link
