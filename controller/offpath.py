"""The off path without control: open the lines anew, drive every output off, say what was confirmed.

Needs only the station, read beforehand, and the drivers, all imported beforehand by the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from controller.config import Station, load_station
from controller.devices import build
from controller.safety import drive_all_off
from drivers.clock import RealClock
from drivers.errors import DriverError
from drivers.line import Line

OPEN_TIMEOUT_S = 1.0


async def drive_off(known: Station | Path | None) -> list[dict[str, Any]]:
    """Drive heater, cell, beam and shutter off; never raises.

    Args:
        known: the station, or its file when it has not been read; None when there is none yet.

    Returns: one entry per output: ``output``, ``confirmed``, ``seconds``, ``error``.
    """
    try:
        station = known if isinstance(known, Station) else load_station(known or Path("station.toml"))
        roles = station.roles
        outputs = {
            **{name: name for name in station.monitors},
            "io": station.io_name, "cell": roles.cell, "heater": roles.heater,
        }  # fmt: skip
        energising = {output: name for output, name in outputs.items() if name is not None}
        bench = build(station, RealClock(), only=energising.values())
    except Exception as error:
        return [{"output": "all", "confirmed": False, "seconds": 0.0, "error": f"no station: {error}"}]
    # Each output as soon as its own line is open: one that does not open holds up no other.
    opening = {name: asyncio.create_task(_open(line)) for name, line in bench.lines.items()}
    wires = {
        output: [opening[line] for line in station.lines_to_off(device)]
        for output, device in energising.items()
    }
    results = await drive_all_off(bench.outputs, wires)
    await bench.close()
    return [result.as_dict() for result in results]


async def _open(line: Line) -> None:
    with contextlib.suppress(TimeoutError, OSError, DriverError):  # then the command fails, and says why
        await asyncio.wait_for(line.open(), OPEN_TIMEOUT_S)
