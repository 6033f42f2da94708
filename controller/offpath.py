"""The off path without control: open the lines anew, drive every output off, say what was confirmed.

Needs only the station and the drivers. ``prepare`` reads and builds all of it beforehand, so that nothing has
to be imported, and no file opened, when it counts: from a slow card that alone may take seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.config import Station, load_station
from controller.devices import Bench, build
from controller.safety import drive_all_off
from drivers.clock import RealClock
from drivers.errors import DriverError
from drivers.line import Line

OPEN_TIMEOUT_S = 1.0
OPEN_AGAIN_S = 0.02  # a control that was just killed holds its serial ports until the kernel is done with it


@dataclass(frozen=True)
class Prepared:
    """Every instrument that can energise something, its line not yet open; good for one time."""

    bench: Bench
    lines_of: dict[str, list[str]]  # by output, in the order in which they are told


def prepare(station: Station) -> Prepared:
    """Import the drivers of a station and build its instruments; nothing is opened or sent.

    Raises whatever a driver raises that cannot be loaded or does not take its settings.
    """
    roles = station.roles
    outputs = {
        **{name: name for name in station.monitors},
        "io": station.io_name, "cell": roles.cell, "heater": roles.heater,
    }  # fmt: skip
    energising = {output: name for output, name in outputs.items() if name is not None}
    bench = build(station, RealClock(), only=energising.values())
    return Prepared(bench, {output: list(station.lines_to_off(name)) for output, name in energising.items()})


async def drive_off(known: Prepared | Station | Path | None) -> list[dict[str, Any]]:
    """Drive heater, cell, beam and shutter off; never raises.

    Args:
        known: what ``prepare`` has made of the station; or the station, or its file when it has not been
            read; None when there is none yet.

    Returns: one entry per output: ``output``, ``confirmed``, ``seconds``, ``error``.
    """
    try:
        ready = known if isinstance(known, Prepared) else prepare(_station(known))
    except Exception as error:
        return [{"output": "all", "confirmed": False, "seconds": 0.0, "error": f"no station: {error}"}]
    # Each output as soon as its own line is open: one that does not open holds up no other.
    opening = {name: asyncio.create_task(_open(line)) for name, line in ready.bench.lines.items()}
    wires = {output: [opening[line] for line in lines] for output, lines in ready.lines_of.items()}
    results = await drive_all_off(ready.bench.outputs, wires)
    await ready.bench.close()
    return [result.as_dict() for result in results]


def _station(known: Station | Path | None) -> Station:
    return known if isinstance(known, Station) else load_station(known or Path("station.toml"))


async def _open(line: Line) -> None:
    """Open a line, again and again for a while; one that stays shut fails its command, which says why."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            while True:
                try:
                    return await line.open()
                except (OSError, DriverError):
                    await asyncio.sleep(OPEN_AGAIN_S)
