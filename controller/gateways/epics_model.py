"""What a station is in terms of EPICS: names, kinds, limits, and an alarm severity from quality. Pure.

A value that is not known is NaN, ``unknown`` or an empty text, with severity INVALID: never an old value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.mirror import Mirror

NO_ALARM, MINOR, MAJOR, INVALID = 0, 1, 2, 3
STATUS_NONE, STATUS_READ, STATUS_STATE, STATUS_COMM, STATUS_SOFT = 0, 1, 7, 9, 15  # of Channel Access
LONGEST_NAME = 60  # of a record of EPICS base
CHOICES = ("no", "yes", "unknown")
GUARD = ("guard", "latched")  # made here: how many latches hold


@dataclass(frozen=True, slots=True)
class Served:
    """One PV: its name, what it shows, and how it is described."""

    name: str
    key: tuple[str, str]
    kind: str  # number, switch, text
    unit: str = ""
    low: float | None = None
    high: float | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a PV shows now."""

    value: float | int | str
    severity: int
    status: int
    text: str
    t: float


def build(describe: Mapping[str, Any]) -> dict[str, Served]:
    """Return the PVs of a station by name: ``operando:STATION:module:parameter``."""
    station = str(describe.get("station", "station"))
    found: dict[str, Served] = {}
    for module, about in describe.get("modules", {}).items():
        for parameter, told in about.get("parameters", {}).items():
            kind = {"number": "number", "integer": "number", "boolean": "switch", "string": "text"}.get(
                told.get("type", "number")
            )
            name = f"operando:{station}:{module}:{parameter}"
            if kind is None or len(name) > LONGEST_NAME:
                continue
            found[name] = Served(
                name, (module, parameter), kind, str(told.get("unit") or ""), told.get("low"),
                told.get("high"), str(told.get("description") or ""),
            )  # fmt: skip
    name = f"operando:{station}:{GUARD[0]}:{GUARD[1]}"
    found[name] = Served(name, GUARD, "number", "", 0.0, None, "how many latches of the guard hold")
    return found


def show(mirror: Mirror, served: Served) -> Shown:
    """Return what a PV shows now."""
    if served.key == GUARD:
        return _guard(mirror)
    reading = mirror.states.get(served.key)
    if reading is None:
        return _unknown(served, STATUS_COMM, mirror.away() or "not heard of yet", 0.0)
    if why := mirror.why_stale(*served.key):
        return _unknown(served, STATUS_COMM, why, reading.t)
    if reading.q == "bad" or reading.v is None:
        return _unknown(served, STATUS_READ, "no valid value", reading.t)
    severity = NO_ALARM if reading.q == "good" else MINOR
    status = STATUS_NONE if severity == NO_ALARM else STATUS_SOFT
    return Shown(_typed(reading.v, served), severity, status, "", reading.t)


def _guard(mirror: Mirror) -> Shown:
    if away := mirror.away():
        return Shown(math.nan, INVALID, STATUS_COMM, away, 0.0)
    texts = "; ".join(f"{id_}: {body.get('text', '')}" for id_, body in mirror.alarms.items())
    t = max((float(body.get("t", 0.0)) for body in mirror.alarms.values()), default=0.0)
    held = len(mirror.alarms)
    return Shown(float(held), MAJOR if held else NO_ALARM, STATUS_STATE if held else STATUS_NONE, texts, t)


def _unknown(served: Served, status: int, why: str, t: float) -> Shown:
    values: dict[str, float | int | str]
    values = {"number": math.nan, "switch": CHOICES.index("unknown"), "text": ""}
    return Shown(values[served.kind], INVALID, status, why, t)


def _typed(value: Any, served: Served) -> float | int | str:
    if served.kind == "switch":
        return int(bool(value))
    return str(value) if served.kind == "text" else float(value)


def same(before: Shown | None, now: Shown) -> bool:
    """Tell whether nothing of what clients see has changed (NaN equals NaN here)."""
    if before is None:
        return False
    values = before.value == now.value or (before.value != before.value and now.value != now.value)
    return values and (before.severity, before.status, before.t) == (now.severity, now.status, now.t)
