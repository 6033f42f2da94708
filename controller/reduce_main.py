"""The reduce process: ``python -m controller.reduce_main --socket PATH``.

Connects to control, compiles or loads the kernels, says ready, and serves messages until control is gone. A
thread takes frames off the socket so that control is never kept waiting by a computation; when the queue is
full the thread stops reading, control drops event chunks, and they are read from the raw files instead.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from controller.reduce import frames
from controller.reduce.session import Session
from controller.scheduling import keep_off
from edge import events

log = logging.getLogger("reduce")

NICE = 10
QUEUE_BYTES = 32 << 20
CONNECT_S = 30.0
IDLE_S = 0.5
OFFLINE_KERNELS = ("edge.cube", "edge.compton_frames", "edge.compton_profile", "edge.particles_kernels")
"""Compiled at set-up too, though no run needs them: ``operando reduce`` does not make anyone wait."""


class Inbox:
    """Frames from the socket, bounded by their size."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._held = 0
        self._thread = threading.Thread(target=self._read, name="inbox", daemon=True)
        self._thread.start()

    def get(self, timeout_s: float) -> bytes | None:
        """Return the next frame, None when control is gone.

        Raises:
            queue.Empty: nothing came in time.
        """
        frame = self._frames.get(timeout=timeout_s)
        if frame is not None:
            with self._room:
                self._held -= len(frame)
                self._room.notify()
        return frame

    def waiting(self) -> bool:
        """Return whether more frames are waiting."""
        return not self._frames.empty()

    def _read(self) -> None:
        try:
            while (frame := frames.receive(self._connection)) is not None:
                with self._room:
                    self._room.wait_for(lambda: self._held < QUEUE_BYTES)
                    self._held += len(frame)
                self._frames.put(frame)
        except frames.FrameError:
            log.exception("the frames of control cannot be followed any more")
        except OSError as error:
            log.warning("socket: %s", error)
        self._frames.put(None)


def serve(connection: socket.socket, session: Session) -> None:
    """Answer messages until control is gone. A message that does not fit is logged and left out."""
    inbox = Inbox(connection)
    connection.sendall(frames.pack({"k": "ready"}))
    idled_s = time.monotonic()
    while True:
        # Detectors send a little all the time, also in a pause: silence is not waited for.
        if not inbox.waiting() and time.monotonic() - idled_s >= IDLE_S:
            _answer(connection, "display", session.idle())
            idled_s = time.monotonic()
        try:
            body = inbox.get(IDLE_S)
        except queue.Empty:
            continue
        if body is None:
            return
        try:
            message = frames.unpack(body)
        except ValueError as error:
            log.error("a message was left out: %s", error)  # noqa: TRY400  # no trace: the other end is wrong
            continue
        _answer(connection, str(message["k"]), session.handle(message, behind=inbox.waiting()))


def _answer(connection: socket.socket, kind: str, answers: Iterator[frames.Message]) -> None:
    """Send answers as they come. What goes wrong with the data is logged; a dead socket is not caught."""
    try:
        for answer in answers:
            connection.sendall(frames.pack(answer))
    except ConnectionError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, OSError) as error:
        log.error("%s was left out: %s: %s", kind, type(error).__name__, error)  # noqa: TRY400
        log.debug("trace", exc_info=True)


def connect(path: Path, wait_s: float = CONNECT_S) -> socket.socket:
    """Return the connection to control, which may still be about to listen.

    Raises:
        OSError: if nobody listens in time.
    """
    deadline = time.monotonic() + wait_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
        else:
            return connection


def main(arguments: list[str] | None = None) -> int:
    """Run the process; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m controller.reduce_main", description=__doc__)
    parser.add_argument("--socket", type=Path, help="Unix socket on which control listens")
    parser.add_argument("--warm", action="store_true", help="only compile the kernels, for set-up")
    parser.add_argument("--verbose", action="store_true", help="log traces of what was left out")
    args = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="reduce: %(message)s",
    )
    logging.getLogger("numba").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor; control ends us by closing
    with contextlib.suppress(OSError):
        os.nice(NICE)
        keep_off()
    events.warm()
    if args.warm:
        for module in OFFLINE_KERNELS:
            importlib.import_module(module).warm()
        return 0
    if args.socket is None:
        parser.error("--socket or --warm is needed")
    try:
        connection = connect(args.socket)
    except OSError as error:
        log.error("%s: %s", args.socket, error)  # noqa: TRY400
        return 3
    with connection, contextlib.suppress(ConnectionError):
        serve(connection, Session())
    return 0


if __name__ == "__main__":
    sys.exit(main())
