"""State folder and lock of a station."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.paths import StateDir, StationBusy, StationLock


def test_a_second_host_is_refused_and_told_who_holds_the_station(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    first, second = StationLock(state), StationLock(state)
    first.acquire({"pid": 4242})
    with pytest.raises(StationBusy, match="4242"):
        second.acquire({"pid": 1})
    first.release()
    second.acquire({"pid": 1})
    second.release()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from controller.paths import *;"
        f"StationLock(StateDir(Path({str(tmp_path)!r}))).acquire({{'pid': os.getpid()}});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    StationLock(StateDir(tmp_path)).acquire({"pid": 1})


def test_a_deep_folder_still_has_sockets_short_enough_for_the_kernel(tmp_path: Path) -> None:
    deep = StateDir(tmp_path / ("d" * 60) / ("e" * 60))
    path = deep.socket("supervisor")
    assert len(str(path)) < 108
    assert path.parent.stat().st_mode & 0o077 == 0
    assert path != StateDir(tmp_path / ("d" * 60) / ("f" * 60)).socket("supervisor")


def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    assert StateDir(tmp_path / "state").path.stat().st_mode & 0o077 == 0
