"""The bench's own socket: JSON lines over a Unix socket, one request and one reply each, in order.

Every request carries the nonce of the station file. Without ``do`` it is the greeting that proves that the
bench behind a station file is alive. ``api`` may say which version of the protocol the client was written
for, and ``id`` comes back as it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hil_tests.sim.api import API, Refusal

LONGEST_LINE = 1 << 16
Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class ControlSocket:
    """Serves commands.

    Args:
        path: of the socket.
        nonce: what every request must carry.
        commands: by name; a Refusal, ValueError, KeyError, TypeError or AttributeError becomes
            ``{"ok": false, "code": ..., "error": ...}``.
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
            while line := await self._line(reader, writer):
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Return the next line; after one that is too long nothing more is read."""
        try:
            return await reader.readline()
        except ValueError:
            words = f"a line is at most {LONGEST_LINE} bytes; the connection ends here"
            writer.write(json.dumps(_refused("json", words)).encode() + b"\n")
            return b""

    def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _refused("json", f"{error}: send one JSON object a line")
        if not isinstance(request, dict):
            return _refused("json", 'a request is a JSON object, as {"nonce": ..., "do": "hello"}')
        told = {"id": request["id"]} if "id" in request else {}
        return {**self._done(request), **told}

    def _done(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if not hmac.compare_digest(str(request.get("nonce", "")).encode(), self._nonce.encode()):
            words = "wrong nonce: read it from [bench] of the station file, each start writes a new one"
            return _refused("nonce", words)
        if request.get("api", API) != API:
            return _refused("api", f"this bench speaks version {API}, not {request['api']!r}")
        command = self._commands.get(str(request.get("do", "hello")))
        if command is None:
            return _refused("do", f"no such command; known: {', '.join(sorted(self._commands))}")
        try:
            return {"ok": True, **command(request)}
        except Refusal as error:
            return _refused(error.code, str(error))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _refused("value", f"{type(error).__name__}: {error}")


def _refused(code: str, words: str) -> dict[str, Any]:
    return {"ok": False, "code": code, "error": words}
