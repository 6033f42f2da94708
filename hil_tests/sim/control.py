"""The bench's own socket: JSON lines over a Unix socket, one request and one reply each.

Every request carries the nonce of the station file. Without ``do`` it is the greeting that proves that the
bench behind a station file is alive: ``{"nonce": ...}`` -> ``{"ok": true, "speed": ..., "epoch": ...}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LONGEST_LINE = 1 << 16
Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class ControlSocket:
    """Serves commands.

    Args:
        path: of the socket.
        nonce: what every request must carry.
        commands: by name; a ValueError, KeyError or TypeError becomes ``{"ok": false, "error": ...}``.
    """

    def __init__(self, path: Path, nonce: str, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._nonce = nonce
        self._commands = dict(commands)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LONGEST_LINE)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError("a request is a JSON object")  # noqa: TRY301  # one place for all refusals
        except (ValueError, TypeError) as error:
            return {"ok": False, "error": str(error)}
        if not hmac.compare_digest(str(request.get("nonce", "")), self._nonce):
            return {"ok": False, "error": "wrong nonce"}
        command = self._commands.get(str(request.get("do", "hello")))
        if command is None:
            return {"ok": False, "error": f"no such command; known: {', '.join(sorted(self._commands))}"}
        try:
            return {"ok": True, **command(request)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}
