"""Receivers made by others than us: Python's HTTP server, and servers that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Hook:
    """An HTTP server that keeps what is posted. ``answer`` decides the status; see ``mood``."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[dict[str, Any]] = []  # method, path, headers, body
        self.mood: Callable[[http.server.BaseHTTPRequestHandler], bool] | None = None
        self.status = 200
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _take(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                hook.got.append(
                    {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
                )
                if hook.mood is not None and hook.mood(self):
                    return
                self.send_response(hook.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET = _take  # noqa: N815 - as the library wants it

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def json(self) -> list[dict[str, Any]]:
        """Return the bodies that were posted."""
        return [json.loads(one["body"]) for one in self.got if one["method"] == "POST"]

    def notices(self) -> list[dict[str, Any]]:
        """Return every notice that came, in order."""
        return [notice for body in self.json() for notice in body["notices"]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def dripping(first: bytes = b"") -> Iterator[int]:
    """A server that says something every 20 ms and never comes to an end; yields its port."""
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                link, _ = listener.accept()
                with link, contextlib.suppress(OSError):
                    link.sendall(first)
                    while not ended.is_set():
                        link.sendall(b"220-x\r\n")
                        time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            thread.join()


def secret_file(path: Path, text: str, mode: int = 0o600) -> str:
    """Write a file that only its owner may read."""
    path.write_text(text)
    path.chmod(mode)
    return str(path)
