"""Battery Data Format in CSV: columns ``Test Time / s``, ``Voltage / V``, ``Current / A`` (charge positive).

Labels and machine names (``test_time_second``) of the Battery Data Alliance are both read; so is the plain
table time_s, current_A, voltage_V, Amp-hr, step, state.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.cycler_log import (
    CHARGE,
    DISCHARGE,
    MAX_RECORDS,
    REST,
    CyclerLog,
    Resolution,
    decimals,
    fields_of,
    index_of,
    lines,
    number_of,
)
from drivers.files.errors import FileError

NAMES: dict[str, tuple[str, ...]] = {
    "time": ("test time / s", "test_time_second", "time_s"),
    "voltage": ("voltage / v", "voltage_volt", "voltage_v"),
    "current": ("current / a", "current_ampere", "current_a"),
    "clock": ("unix time / s", "unix_time_second"),
    "cycle": ("cycle count / 1", "cycle_count"),
    "step": ("step index / 1", "step_index", "step"),
    "step_count": ("step count / 1", "step_count"),
    "ah": ("step capacity / ah", "step_capacity_ah", "amp-hr"),
    "wh": ("step energy / wh", "step_energy_wh"),
    "state": ("state",),
}
LETTERS = {"C": CHARGE, "D": DISCHARGE, "R": REST}


def _columns(line: str) -> dict[str, int]:
    names = [part.strip().strip('"').lower() for part in line.split(",")]
    return {
        key: place
        for key, known in NAMES.items()
        for place in [next((k for k, name in enumerate(names) if name in known), -1)]
        if place >= 0
    }


def recognises(head: list[str]) -> bool:
    """Whether the first line is of this format."""
    return bool(head) and {"time", "voltage", "current"} <= _columns(head[0]).keys()


def read(path: Path) -> CyclerLog:
    """Read a CSV in Battery Data Format. Raises FileError.

    Where a column is not there the record says so: cycle and step 0, state from the sign of the current.
    """
    source = lines(path)
    first = next(source, "")
    names, at = fields_of(path, 1, first, ","), _columns(first)
    missing = {"time", "voltage", "current"} - at.keys()
    if missing:
        raise FileError(
            path, "line 1", "columns Test Time / s, Voltage / V, Current / A", f"no {sorted(missing)}"
        )
    warm = [k for k, name in enumerate(names) if "temperature" in name.lower()][:64]
    floats: list[str] = [key for key in ("time", "voltage", "current", "clock", "ah", "wh") if key in at]
    column = {key: array("d") for key in floats}
    whole = {key: array("q") for key in ("cycle", "step", "step_count", "state")}
    extra = [array("d") for _ in warm]
    seen = {key: Resolution() for key in floats}
    last_times = ["0"] * 50  # tables printed with six digits lose decimals as time goes on
    width, number = max([*at.values(), *warm]), 1
    for line in source:
        number += 1
        if not line.strip():
            continue
        part = fields_of(path, number, line, ",")
        if len(part) <= width:
            raise FileError(path, f"line {number}", f"at least {width + 1} fields", len(part))
        if len(column["time"]) >= MAX_RECORDS:
            raise FileError(path, "", f"at most {MAX_RECORDS} records")
        for key in floats:
            column[key].append(number_of(path, number, names[at[key]], part[at[key]]))
            seen[key].see(part[at[key]])
        last_times[number % len(last_times)] = part[at["time"]]
        for key in ("cycle", "step", "step_count"):
            whole[key].append(index_of(path, number, key, part[at[key]]) if key in at else 0)
        sign = int(np.sign(column["current"][-1]))
        whole["state"].append(LETTERS.get(part[at["state"]], sign) if "state" in at else sign)
        for k, place in enumerate(warm):
            extra[k].append(number_of(path, number, names[place], part[place]) if part[place] else np.nan)
    if not column["time"]:
        raise FileError(path, "records", "at least one record", "none")

    def numbers(key: str) -> NDArray[np.float64] | None:
        return np.frombuffer(column[key], np.float64) if key in column else None

    i = {key: np.frombuffer(values, np.int64) for key, values in whole.items()}
    counter = numbers("ah")
    return CyclerLog(
        path=path, program="Battery Data Format", time_s=np.frombuffer(column["time"], np.float64),
        current_a=np.frombuffer(column["current"], np.float64),
        voltage_v=np.frombuffer(column["voltage"], np.float64), cycle=i["cycle"],
        step=i["step"] if "step" in at else i["step_count"], state=i["state"].astype(np.int8),
        signs="charge positive", control=np.zeros(len(column["time"]), np.int64), controls=("",),
        counter_ah=None if counter is None else np.abs(counter),
        counter_wh=numbers("wh"), clock_s=numbers("clock"),
        sensors={names[place]: np.frombuffer(extra[k], np.float64) for k, place in enumerate(warm)},
        current_resolution_a=seen["current"].value, voltage_resolution_v=seen["voltage"].value,
        time_resolution_s=10.0 ** -max(decimals(token) for token in last_times),
        counter_resolution_ah=seen["ah"].value if "ah" in seen else 0.0,
    )  # fmt: skip
