"""Every byte on every line with direction and time, into a bounded text file, without ever delaying a line.

The format (``operando-wire-trace 1``), UTF-8 text, one record a line:

    # operando-wire-trace 1
    # {"wall_s": 1763760000.0, "station": "lab", "version": "...", "lines": {...}, "station_toml": "..."}
    0.004121 heater > 0103004b0002b5dd
    0.016903 heater < 010304...
    0.250000 heater ! opened /dev/ttyUSB0
    1.000000 - ! dropped 12

Seconds since the beginning, name of the line, what it is (``>`` sent, ``<`` received, ``~`` received and
thrown away unread, ``!`` a word about the line: opened, lost, dropped), bytes in hexadecimal or text. The
second line is a JSON object of what is needed to play the file back: the tables of the lines, and the station
file without broker, remote access and bench, and without its comments. Nothing else of the host goes in.

A caller only appends to a queue in memory. A thread of its own writes ten times a second; when it cannot keep
up (or the disk is full) records are dropped, counted, and the count is written as soon as there is room.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

FORMAT = "operando-wire-trace 1"
SIGNS = {"sent": ">", "received": "<", "drained": "~"}
LONGEST_QUEUE = 50_000  # records
LARGEST_QUEUE_BYTES = 32 << 20
FILE_BYTES = 64 << 20  # then the next file is begun
FILES = 4  # the present one and FILE.1, FILE.2, FILE.3, the oldest last
WRITE_EVERY_S = 0.1
PRIVATE = "broker", "remote", "bench"  # tables of a station file that nobody else needs


class WireTrace:
    """A trace file; ``of(line)`` is what that line calls with its traffic.

    Args:
        path: of the file; existing ones of this name are moved on to FILE.1 and so on.
        about: goes into the header, JSON.
        file_bytes, files: how much is kept.
        longest_queue: records that may wait for the thread.
        monotonic: the time that the lines use.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        *,
        file_bytes: int = FILE_BYTES,
        files: int = FILES,
        longest_queue: int = LONGEST_QUEUE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.problem = ""  # why it cannot be written, for a person
        self._now = monotonic
        self._began_s = monotonic()
        self._head = f"# {FORMAT}\n# {json.dumps({'wall_s': time.time(), **about}, default=str)}\n"
        self._file_bytes = file_bytes
        self._files = files
        self._longest_queue = longest_queue
        self._queue: deque[tuple[float, str, str, bytes]] = deque()
        # Each of these is written by one thread only, so that none needs a lock.
        self._put_bytes = self._refused = 0  # by the callers
        self._taken_bytes = self._unwritten = self._told = 0  # by the thread
        self._file: TextIO | None = None
        self._written = 0
        self._begin_file()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wire trace", daemon=True)
        self._thread.start()

    def of(self, line: str) -> Callable[[str, bytes, float], None]:
        """Return the function that ``Line`` calls; it never waits and never raises."""

        def put(what: str, data: bytes, monotonic_s: float) -> None:
            full = len(self._queue) >= self._longest_queue
            if full or self._put_bytes - self._taken_bytes + len(data) > LARGEST_QUEUE_BYTES:
                self._refused += 1
                return
            self._put_bytes += len(data)
            self._queue.append((monotonic_s, line, what, data))

        return put

    @property
    def dropped(self) -> int:
        """Records that are not in the file, in all."""
        return self._refused + self._unwritten

    def close(self) -> None:
        """Write what waits and close the file; 2 s at most."""
        self._stopped.set()
        self._thread.join(2.0)

    def _work(self) -> None:
        while not self._stopped.wait(WRITE_EVERY_S):
            self._flush()
        self._flush()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _flush(self) -> None:
        """Write the queue; what cannot be written counts as dropped."""
        records = [self._queue.popleft() for _ in range(len(self._queue))]
        self._taken_bytes += sum(len(data) for _, _, _, data in records)
        dropped = self.dropped
        lines = [self._text(*record) for record in records]
        if dropped > self._told:
            lines.append(f"{self._now() - self._began_s:.6f} - ! dropped {dropped - self._told}\n")
        if not lines:
            return
        try:
            if self._file is None or self._written >= self._file_bytes:
                self._begin_file()
            assert self._file is not None  # noqa: S101  # it has just been opened
            text = "".join(lines)
            self._file.write(text)
            self._file.flush()
            self._written += len(text)
            self.problem, self._told = "", dropped
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror or error}"
            self._unwritten += len(records)
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()

    def _text(self, monotonic_s: float, line: str, what: str, data: bytes) -> str:
        sign = SIGNS.get(what, "!")
        told = f"{what} {data.decode(errors='replace')}" if sign == "!" else data.hex()
        return f"{monotonic_s - self._began_s:.6f} {line} {sign} {told}\n".replace("\r", " ")

    def _begin_file(self) -> None:
        """Close the present file, move the older ones on, begin a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None
        for n in range(self._files - 1, 0, -1):
            older = self.path if n == 1 else self.path.with_name(f"{self.path.name}.{n - 1}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{n}"))
        self._file = self.path.open("w", encoding="utf-8", newline="\n")
        self._file.write(self._head)
        self._written = len(self._head)


def playable(station_toml: str) -> str:
    """Return a station file without its comments and the tables that are nobody else's business."""
    kept, private = [], False
    for line in station_toml.splitlines():
        text = line.strip()
        if text.startswith("["):
            private = text.lstrip("[ \"'").startswith(PRIVATE)
        dotted = text.lstrip("\"'").startswith(PRIVATE)
        if text and not private and not dotted and not text.startswith("#"):
            kept.append(line)
    return "\n".join(kept) + "\n"
