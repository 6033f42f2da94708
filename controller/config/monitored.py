"""What further instruments measure: devices that play no role of the station are monitors.

A driver's class says which values it reads, so that interlock rows and the description of a run know their
names and units before anything is connected: ``channels``, a mapping from name to unit (None for a switch,
"" for a plain number), or a function of the device's own settings that returns one. A thermometer, a supply
and a stage need not say it: their roles do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from controller.config.quantities import QuantityError, parse_as
from controller.config.unfilled import blank
from drivers.registry import UnknownDriver, driver_class
from drivers.roles import Role

Channels = Mapping[str, str | None]

BY_ROLE: dict[Role, dict[str, str | None]] = {
    Role.THERMOMETER: {"temperature": "K"},
    Role.HEATER_POWER: {"voltage": "V", "current": "A", "output": None},
    Role.STAGE: {"moving": None, "x": "um", "y": "um", "z": "um"},
}
TAKEN = ("heater", "cell", "scanner", "pixe", "pige", "compton", "radiography")  # polled by their own tasks
RESERVED = frozenset({"heater", "cell", "io", "beam", "run", "scan", "host"})  # modules of our own
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def monitored(raw: Mapping[str, Any]) -> dict[str, Channels]:
    """Return the channels of every device of a station file that no task of its own polls.

    Args:
        raw: the file as it was read; whatever is wrong in it is somebody else's to report.
    """
    roles, devices = _table(raw.get("roles")), _table(raw.get("device"))
    tables = {str(name): _table(table) for name, table in devices.items()}
    busy = {str(roles.get(role)) for role in TAKEN}
    for name, table in tables.items():
        if table.get("driver") == "labjack_t7":
            busy.add(name)
        if "line" not in table:  # a device made of others polls its parts itself
            busy |= {name, *(value for value in table.values() if isinstance(value, str))}
    found = {}
    for name, table in tables.items():
        if name not in busy and isinstance(table.get("driver"), str):
            settings = {key: value for key, value in table.items() if key not in ("driver", "line", "period")}
            channels = channels_of(str(table["driver"]), settings)
            if channels:
                found[name] = channels
    return found


def channels_of(driver: str, settings: Mapping[str, Any]) -> Channels:
    """Return the channels that a driver's class declares; none if it declares none, or is not there."""
    try:
        found: Any = driver_class(driver)
    except UnknownDriver:
        return {}
    declared = getattr(found, "channels", None)
    if callable(declared):
        try:
            declared = declared(settings)
        except Exception:  # somebody else's code, with settings that nobody has judged yet
            return {}
    if isinstance(declared, Mapping):
        return {str(name): None if unit is None else str(unit) for name, unit in declared.items()}
    told = getattr(found, "roles", None)
    roles: frozenset[Role] = told if isinstance(told, frozenset) else frozenset()  # some depend on the wiring
    if Role.TEMPERATURE_CONTROLLER in roles:
        return {}
    together = {name: unit for role, one in BY_ROLE.items() if role in roles for name, unit in one.items()}
    if Role.STAGE in roles and isinstance(settings.get("axes"), Mapping):
        together = {name: u for name, u in together.items() if name == "moving" or name in settings["axes"]}
    return together


def complaint_of(name: str, channels: Channels) -> str | None:
    """Return what is wrong with a monitor's name or channels, None if nothing is."""
    if name in RESERVED:
        return f"is called {name}, which is a name of the program's own: give it another"
    for channel, unit in channels.items():
        if not _NAME.fullmatch(channel):
            return f"has a driver whose channel {channel!r} is no name (small letters, digits, _)"
        if unit and not blank(unit):  # which is told in other words
            try:
                parse_as(f"1 {unit}", unit)
            except QuantityError:
                return f"has a driver that gives {channel} in {unit!r}, which is no unit"
    return None


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
