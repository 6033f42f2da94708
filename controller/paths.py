"""Where a station keeps its state: lock, journal, sockets. One host per station."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes on Linux


class StationBusy(Exception):
    """Another host already runs this station."""


class StateDir:
    """The state directory of one station, with the names of everything in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    @classmethod
    def of(cls, station: str, override: Path | None = None) -> StateDir:
        """Return ``override`` or the XDG state folder of the station."""
        if override is not None:
            return cls(override.absolute())
        from platformdirs import user_state_path  # only here: keeps start-up short

        return cls(user_state_path("operando") / station)

    @property
    def journal(self) -> Path:
        """The station journal."""
        return self.path / "journal.sqlite"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor did on its own; control journals it at its next start."""
        return self.path / "supervisor.jsonl"

    def socket(self, name: str) -> Path:
        """Return the path of a Unix socket; a short private folder stands in when the path is too long."""
        path = self.path / f"{name}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        folder = base / f"operando-{os.getuid()}-{digest}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        return folder / f"{name}.sock"


class StationLock:
    """An exclusive lock held for the life of the supervisor; the kernel drops it when the process dies."""

    def __init__(self, state: StateDir) -> None:
        self._path = state.path / "lock"
        self._fd: int | None = None

    def acquire(self, info: dict[str, Any]) -> None:
        """Take the lock and write who holds it.

        Raises:
            StationBusy: when another host holds it; the message says which.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.read(fd, 4096))
            os.close(fd)
            raise StationBusy(f"this station is already in use: {holder} (lock {self._path})") from None
        os.ftruncate(fd, 0)
        os.write(fd, json.dumps(info).encode())
        self._fd = fd

    def release(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _holder(written: bytes) -> str:
    """Return in a sentence who holds a lock, from what it wrote there."""
    try:
        info = json.loads(written)
        doing = info.get("doing") or (f"a run of {info['experiment']}" if "experiment" in info else "a run")
        since = info.get("since")
        began = (
            "" if since is None else f", since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}"
        )
        pid = f" (process {info['pid']})" if "pid" in info else ""
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        return "by a process that did not say what it is"
    return f"{doing}{pid}{began}"
