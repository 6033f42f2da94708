"""``operando check --look-around``: with which settings would a silent Modbus instrument answer?

Only ``identify`` is sent, which changes nothing by contract, and only on Modbus lines, where a frame at the
wrong speed fails its checksum: nothing can be taken for a command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drivers.errors import DriverError
from drivers.ports import open_line
from drivers.registry import driver_class

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drivers.clock import Clock

BAUDS = 9600, 19200, 38400, 57600, 115200, 4800
PARITIES = "none", "even", "odd"
UNITS = range(1, 17)
LONGEST_S = 60.0
TRY_S = 3.0


def settings_to_try(line: Mapping[str, Any], unit_id: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield (line table, unit id): other units first, then other speeds with the same unit."""
    for unit in UNITS:
        if unit != unit_id:
            yield dict(line), unit
    if line["kind"] == "serial":
        for parity in PARITIES:
            for baud in BAUDS:
                if (baud, parity) != (line["baud"], line["parity"]):
                    yield {**line, "baud": baud, "parity": parity}, unit_id


async def look_around(
    name: str, driver: str, line: Mapping[str, Any], settings: Mapping[str, Any], clock: Clock
) -> str:
    """Return in words with which settings it answers, or that it does not; the port must be free."""
    unit_id, tried = int(settings["unit_id"]), 0
    try:
        async with asyncio.timeout(LONGEST_S):
            for table, unit in settings_to_try(line, unit_id):
                tried += 1
                who = await _who(name, driver, table, {**settings, "unit_id": unit}, clock)
                if who:
                    found = [f"unit_id = {unit}"] if unit != unit_id else []
                    if table != dict(line):
                        found += [f"baud = {table['baud']}", f'parity = "{table["parity"]}"']
                    return f"with {', '.join(found)} it answers: {who}"
    except TimeoutError:
        pass
    return f"looked around: silent with {tried} other units and speeds"


async def _who(
    name: str, driver: str, table: Mapping[str, Any], settings: Mapping[str, Any], clock: Clock
) -> str:
    opened = open_line(name, table)
    try:
        async with asyncio.timeout(TRY_S):
            await opened.open()
            device = driver_class(driver)(opened, name=name, clock=clock, settings=settings)
            identity = await device.identify()
    except (DriverError, TimeoutError):
        return ""
    finally:
        await opened.close()
    return f"{identity.manufacturer} {identity.model}"
