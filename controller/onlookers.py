"""The processes that only look on: live page, gateways, notifications. None of them can hold up a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.web import address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from controller.config import Station
    from controller.paths import StateDir


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an onlooker is told when it is started.

    Attributes:
        station: the station file, read.
        path: where that file is.
        state: the state folder of the station.
        run_dir: the folder of the run.
        broker: its connection as JSON, as ``controller.mqtt.load_address`` reads it, or ``none``.
    """

    station: Station
    path: Path
    state: StateDir
    run_dir: Path
    broker: str


def _secop(around: Surroundings) -> list[str] | None:
    """The SECoP node."""
    told = around.station.secop
    if told is None or around.broker == "none":
        return None
    more = ["--write"] if told.write else []
    return [
        "controller.gateways.secop", "--station", around.station.name, "--broker", around.broker,
        "--listen", f"{told.host}:{told.port}", "--control", str(around.state.socket("control")), *more,
    ]  # fmt: skip


def _notices(around: Surroundings) -> list[str] | None:
    """Who is told by webhook and e-mail."""
    if around.station.notify is None:
        return None
    return [
        "controller.notices", "--station", str(around.path.absolute()), "--state", str(around.state.path),
        "--run-dir", str(around.run_dir),
    ]  # fmt: skip


def _epics(around: Surroundings) -> list[str] | None:
    """Our values as PVs."""
    told = around.station.epics
    if told is None or around.broker == "none":
        return None
    return [
        "controller.gateways.epics", "--station", around.station.name, "--broker", around.broker,
        "--listen", f"{told.host}:{told.port}", "--pva-port", str(told.pva_port),
    ]  # fmt: skip


# name -> its arguments after ``python -m``; None when the station file does not ask for it
ONLOOKERS: dict[str, Callable[[Surroundings], list[str] | None]] = {
    "web": address.arguments,
    "secop": _secop,
    "epics": _epics,
    "notices": _notices,
}


def onlookers(around: Surroundings) -> dict[str, list[str]]:
    """Return the arguments after ``python -m`` of each process that the station file asks for, by name.

    They are started after link, started again when they end, and nobody waits for them.
    """
    asked = {name: ask(around) for name, ask in ONLOOKERS.items()}
    return {name: arguments for name, arguments in asked.items() if arguments is not None}
