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
    """Return the arguments after ``python -m``; None where the station has no ``[web]``, or no broker."""
    table = around.station.web
    if table is None or around.broker == "none":
        return None
    return [
        "controller.web", "--station", around.station.name, "--broker", around.broker,
        "--state", str(around.state.path), "--run-dir", str(around.run_dir),
        "--table", table.model_dump_json(), "--beside", str(around.path.absolute().parent),
    ]  # fmt: skip


def write(state: Path, address: str, port: int) -> None:
    """Write down where the page is, for the owner of the state folder only."""
    path, part = state / NAME, state / f"{NAME}.part"
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump({"address": address, "port": port, "pid": os.getpid()}, file)
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
    address, pid = known.get("address"), known.get("pid")
    if not address or not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)  # sends nothing: only asks whether it is there
    except OSError:
        return None
    return str(address)
