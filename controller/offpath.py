"""The off path without control: open the lines anew, drive every output off, say what was confirmed.

Needs only the station file and the drivers, all imported beforehand by the supervisor.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from controller.config import load_station
from controller.devices import build
from controller.guard import Action
from controller.safety import carry_out
from drivers.clock import RealClock

OPEN_TIMEOUT_S = 1.0


async def drive_off(station_file: Path) -> list[dict[str, Any]]:
    """Drive heater, cell, beam and shutter off; never raises.

    Returns: one entry per output: ``output``, ``confirmed``, ``seconds``, ``error``.
    """
    try:
        station = load_station(station_file)
        roles = station.roles
        energising = {name for name in (roles.heater, roles.cell, roles.scanner) if name is not None}
        bench = build(station, RealClock(), only=energising)
    except Exception as error:
        return [{"output": "all", "confirmed": False, "seconds": 0.0, "error": f"no station: {error}"}]
    await asyncio.gather(
        *(asyncio.wait_for(line.open(), OPEN_TIMEOUT_S) for line in bench.lines.values()),
        return_exceptions=True,
    )
    results = await carry_out(bench.outputs, Action.SAFE)
    await bench.close()
    return [result.as_dict() for result in results]
