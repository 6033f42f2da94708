"""Neware BTS exports in CSV: a line per record, names with units in brackets, signed currents (charge +)."""

from __future__ import annotations

import re
from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.cycler_log import (
    CHARGE,
    DISCHARGE,
    MAX_RECORDS,
    MAX_SENSORS,
    REST,
    CyclerLog,
    Resolution,
    clock_of,
    fields_of,
    index_of,
    lines,
    number_of,
    seconds_of,
)
from drivers.files.errors import FileError

UNITS = {
    "A": 1.0,
    "mA": 1e-3,
    "uA": 1e-6,
    "V": 1.0,
    "mV": 1e-3,
    "Ah": 1.0,
    "mAh": 1e-3,
    "Wh": 1.0,
    "mWh": 1e-3,
}
NAMES = {
    "cycle": ("Cycle Index", "Cycle", "Cycle ID"),
    "step": ("Step Index", "Step", "Step ID"),
    "kind": ("Step Type", "State", "Status"),
    "step_time": ("Time", "Step Time", "Relative Time"),
    "time": ("Cumulative Time", "Total Time", "Test Time"),
    "current": ("Current",),
    "voltage": ("Voltage",),
    "ah": ("Capacity",),
    "wh": ("Energy",),
    "clock": ("Date", "DateTime", "Absolute Time"),
}
REQUIRED = ("cycle", "step", "kind", "time", "current", "voltage")
CLOCKS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S")


def recognises(head: list[str]) -> bool:
    """Whether the first line is of this format."""
    return bool(head) and "Step Type" in head[0] and "Current(" in head[0]


def _columns(names: list[str]) -> dict[str, tuple[int, float]]:
    """Return place and unit factor of every known column."""
    found: dict[str, tuple[int, float]] = {}
    for place, name in enumerate(names):
        matched = re.fullmatch(r"([^()]+?)\s*(?:\(([^()]*)\))?", name)
        if matched is None:
            continue
        base, unit = matched[1], matched[2] or ""
        for key, known in NAMES.items():
            if base in known and key not in found:
                found[key] = (place, UNITS.get(unit, 1.0))
    return found


def _state(path: Path, number: int, kind: str, current: float) -> tuple[int, str]:
    """Return state and control of a step type such as "CC Chg" or "CCCV_DChg"."""
    words = re.split(r"[ _]+", kind)
    control = "".join(word for word in words if word.upper() in ("CC", "CV", "CCCV", "CP", "CR", "CC-CV"))
    if any(word in ("DChg", "Dchg", "Discharge") for word in words):
        return DISCHARGE, control
    if any(word in ("Chg", "Charge") for word in words):
        return CHARGE, control
    if current != 0 and "rest" in kind.lower():
        raise FileError(path, f"line {number}", "no current in a rest", token=str(current))
    return int(np.sign(current)) if "rest" not in kind.lower() else REST, control


def read(path: Path) -> CyclerLog:
    """Read a Neware CSV. Raises FileError."""
    source = lines(path)
    names = fields_of(path, 1, next(source, ""), ",")
    at = _columns(names)
    missing = [key for key in REQUIRED if key not in at]
    if missing:
        raise FileError(path, "line 1", "columns " + ", ".join(NAMES[key][0] for key in missing))
    warm = [k for k, name in enumerate(names) if re.fullmatch(r"T\d*\(.C\)|.*[Tt]emperature.*\(.*C\)", name)]
    warm = warm[:MAX_SENSORS]
    column = {key: array("d") for key in ("time", "step_time", "current", "voltage", "ah", "wh", "clock")}
    whole = {key: array("q") for key in ("cycle", "step", "state", "control")}
    extra = [array("d") for _ in warm]
    seen = {key: Resolution() for key in ("current", "voltage", "ah")}
    controls: dict[str, int] = {}
    width, number = max([place for place, _ in at.values()] + warm), 1
    for line in source:
        number += 1
        if not line.strip():
            continue
        part = fields_of(path, number, line, ",")
        if len(part) <= width:
            raise FileError(path, f"line {number}", f"at least {width + 1} fields", len(part))
        if len(column["time"]) >= MAX_RECORDS:
            raise FileError(path, "", f"at most {MAX_RECORDS} records")
        for key in ("current", "voltage", "ah", "wh"):
            if key in at:
                place, unit = at[key]
                column[key].append(unit * number_of(path, number, names[place], part[place]))
        for key in ("time", "step_time"):
            if key in at:
                column[key].append(seconds_of(path, number, key, part[at[key][0]]))
        for key in ("cycle", "step"):
            whole[key].append(index_of(path, number, key, part[at[key][0]]))
        state, control = _state(path, number, part[at["kind"][0]], column["current"][-1])
        whole["state"].append(state)
        whole["control"].append(controls.setdefault(control, len(controls)))
        column["clock"].append(clock_of(part[at["clock"][0]], CLOCKS) if "clock" in at else np.nan)
        for key, one in seen.items():
            if key in at:
                one.see(part[at[key][0]])
        for k, place in enumerate(warm):
            extra[k].append(number_of(path, number, names[place], part[place]))
    if not column["time"]:
        raise FileError(path, "records", "at least one record", "none")

    def numbers(key: str) -> NDArray[np.float64] | None:
        return np.frombuffer(column[key], np.float64) if column[key] else None

    i = {key: np.frombuffer(values, np.int64) for key, values in whole.items()}
    clock = np.frombuffer(column["clock"], np.float64)
    return CyclerLog(
        path=path, program="Neware", time_s=np.frombuffer(column["time"], np.float64),
        current_a=np.frombuffer(column["current"], np.float64),
        voltage_v=np.frombuffer(column["voltage"], np.float64), cycle=i["cycle"], step=i["step"],
        state=i["state"].astype(np.int8), signs="charge positive", control=i["control"],
        controls=tuple(controls), step_time_s=numbers("step_time"), counter_ah=numbers("ah"),
        counter_wh=numbers("wh"), clock_s=None if np.isnan(clock).any() else clock,
        sensors={names[place]: np.frombuffer(extra[k], np.float64) for k, place in enumerate(warm)},
        current_resolution_a=seen["current"].value * at["current"][1],
        voltage_resolution_v=seen["voltage"].value * at["voltage"][1], time_resolution_s=1.0,
        counter_resolution_ah=seen["ah"].value * at["ah"][1] if "ah" in at else 0.0,
    )  # fmt: skip
