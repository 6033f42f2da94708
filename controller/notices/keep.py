"""What the notifications keep on disk, and that only one process sends for a station."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from controller.notices.sources import Cursor
from controller.offline.files_out import write_text

TAKE_OVER_S = 10.0  # for the process of the run before, which may still try to deliver


class Busy(Exception):
    """Another process sends for this station and does not end."""


class Keeper:
    """One file: how far everything was told, and what waits for whom.

    Args:
        folder: the state folder of the station.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notices.json"
        self._lock_path = folder / "notices.lock"
        self._fd: int | None = None
        self._last = ""

    def lock(self) -> None:
        """Become the one who sends; whoever lingers from a run before hands over. Raises Busy."""
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + TAKE_OVER_S
        asked = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not asked:
                    asked = _ask_to_end(os.pread(fd, 32, 0))
                if time.monotonic() > until:
                    os.close(fd)
                    raise Busy(f"{self._lock_path} is held by another process") from None
                time.sleep(0.1)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def unlock(self) -> None:
        """Let another one send."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def load(self) -> tuple[Cursor, dict[str, Any]]:
        """Return the cursor, and by receiver what waited; empty ones without a file that can be read."""
        try:
            kept = json.loads(self.path.read_text())
            cursor = Cursor(str(kept["journal"]), int(kept["seq"]), [str(one) for one in kept["lines"]])
            lanes = dict(kept["lanes"])
        except (OSError, ValueError, KeyError, TypeError):
            return Cursor(), {}
        return cursor, lanes

    def save(self, cursor: Cursor, lanes: Mapping[str, Any]) -> None:
        """Write everything whole. Raises OSError: what was not written is told again, never lost."""
        text = json.dumps({**asdict(cursor), "lanes": dict(lanes)})
        if text != self._last:
            write_text(self.path, text)
            self.path.chmod(0o600)
            self._last = text


def _ask_to_end(written: bytes) -> bool:
    """Ask the holder of the lock to end; return whether there was one to ask."""
    if not written.strip().isdigit():
        return False
    try:
        os.kill(int(written), signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True
