"""Where the live page is: written by its process, read by ``run``, ``watch`` and ``status``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.onlookers import Surroundings
    from controller.paths import StateDir

NAME = "web.json"


def arguments(around: Surroundings) -> list[str] | None:
    """Return the arguments after ``python -m``; None without ``[web]`` or broker, or if one stays."""
    table = around.station.web
    if table is None or around.broker == "none" or standing(around.state.path):
        return None  # ``operando web`` shows this run, too
    return [
        "controller.web", "--station", around.station.name, "--broker", around.broker,
        "--state", str(around.state.path), "--run-dir", str(around.run_dir),
        "--table", table.model_dump_json(), "--beside", str(around.path.absolute().parent),
    ]  # fmt: skip


def write(state: Path, address: str, port: int, *, standing: bool = False) -> None:
    """Write down where the page is, for the owner of the state folder only; and whether it outlives runs."""
    path, part = state / NAME, state / f"{NAME}.part"
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    known = {"address": address, "port": port, "pid": os.getpid(), "since": _since(os.getpid())}
    with os.fdopen(fd, "w") as file:
        json.dump({**known, "standing": standing}, file)
    part.replace(path)


def forget(state: Path) -> None:
    """Say that there is no page any more; its port is kept for the next one."""
    known = read(state)
    if known.get("pid") == os.getpid():
        write(state, "", int(known.get("port", 0)))


def read(state: Path) -> dict[str, Any]:
    """Return what was written; empty when there is nothing that can be read."""
    try:
        known = json.loads((state / NAME).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def page_address(state: StateDir) -> str | None:
    """Return the address of the live page of a station, None when it has none now."""
    known = read(state.path)
    return str(known["address"]) if _lives(known) else None


def standing(state: Path) -> str:
    """Return the address of the page of ``operando web``, which outlives runs; empty when there is none."""
    known = read(state)
    return str(known["address"]) if known.get("standing") and _lives(known) else ""


def _lives(known: dict[str, Any]) -> bool:
    """Tell whether the process that wrote this is there; another one may bear its number after a restart."""
    pid = known.get("pid")
    return bool(known.get("address")) and isinstance(pid, int) and known.get("since") == _since(pid) != ""


def _since(pid: int) -> str:
    """Return when a process was started, in the kernel's ticks; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
