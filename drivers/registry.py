"""Finds the class of a driver by the name that the station file uses.

Built-in and foreign drivers register in the same way, by an entry point of the group ``operando.drivers``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, Protocol, cast

from drivers.clock import Clock
from drivers.line import Line
from drivers.roles import Device

GROUP = "operando.drivers"
OURS = "operando"
BUILT_IN = {  # the same as in pyproject.toml, so that a plain source tree works without being installed
    "eurotherm_3200": "drivers.eurotherm_3200:Eurotherm3200",
    "palmsens_emstat4": "drivers.palmsens_emstat4:EmStat4",
    "keithley_2400": "drivers.keithley_2400:Keithley2400",
    "keithley_2450": "drivers.keithley_2450:Keithley2450",
    "labjack_t7": "drivers.labjack_t7:LabJackT7",
    "amptek_dp5": "drivers.amptek_dp5:AmptekDp5",
    "frame_folder": "drivers.frame_folder:FrameFolder",
    "frame_live": "drivers.frame_live:FrameLive",
    "hexitec": "drivers.hexitec:Hexitec",
    "zaber_ascii": "drivers.zaber_ascii:ZaberAscii",
    "icpdas_m7015": "drivers.icpdas_m7015:IcpDasM7015",
    "aimtti_cpx400dp": "drivers.aimtti_cpx400dp:AimTtiCpx400dp",
    "modbus_pid": "drivers.modbus_pid:ModbusPid",
    "epics_pv": "drivers.epics_pv:EpicsPv",
}


class UnknownDriver(ValueError):
    """No such driver, or it cannot be used; the message says what there is."""


class DriverClass(Protocol):
    """How every driver is built; ``operando`` never subclasses, so any class of this shape will do."""

    def __call__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> Device:
        """Return the device; nothing is sent yet."""
        ...


def driver_names() -> list[str]:
    """Return the names of all drivers that are installed, sorted."""
    return sorted(_known())


def driver_origin(name: str) -> dict[str, str | None]:
    """Return where a driver comes from, so that what it measured can be traced to its source.

    Returns:
        ``name`` of the driver, ``code`` (module and class), ``distribution`` and ``version`` of the package
        that was installed; None where a source tree is used as it is. A driver that is no entry point is one
        of ours, made of others.
    """
    points = _known().get(name, {})
    ours = set(BUILT_IN.values()) | {""}
    code, point = next(iter(points.items()), ("", None))
    dist = getattr(point, "dist", None)
    if dist is not None:
        return {"name": name, "code": code, "distribution": dist.name, "version": dist.version}
    own: str | None = None
    with contextlib.suppress(PackageNotFoundError):
        own = version(OURS)
    known = code in ours
    return {"name": name, "code": code or None, "distribution": OURS if known else None,
            "version": own if known else None}  # fmt: skip


def driver_class(name: str) -> DriverClass:
    """Return the class of the driver ``name``.

    Raises:
        UnknownDriver: there is none of this name, two claim it, or it cannot be imported.
    """
    known = _known()
    if name not in known:
        raise UnknownDriver(f"driver {name!r} is not installed; there are {', '.join(sorted(known))}")
    points = known[name]
    if len(points) > 1:
        raise UnknownDriver(f"driver {name!r} is claimed by {' and by '.join(sorted(points))}")
    (point,) = points.values()
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise UnknownDriver(f"driver {name!r} ({point.value}) cannot be loaded: {error}") from error
    if not callable(found):
        raise UnknownDriver(f"driver {name!r} ({point.value}) is no class")
    return cast("DriverClass", found)


def _known() -> dict[str, dict[str, EntryPoint]]:
    """Return for each name its entry points by what they point at; normally one."""
    points = [EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()]
    known: dict[str, dict[str, EntryPoint]] = {}
    for point in [*points, *entry_points(group=GROUP)]:
        known.setdefault(point.name, {})[point.value] = point
    return known
