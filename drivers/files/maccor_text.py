"""Maccor text exports: some head lines, a line of names from ``Rec#``, tab-separated records.

Currents are printed without sign; the state tells it: C charge (+), D discharge (-), R rest, anything else
must be without current. Auxiliary channels come as pairs of value and unit.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from drivers.files.cycler_log import (
    CHARGE,
    DISCHARGE,
    MAX_HEAD_LINES,
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

STATES = {"C": CHARGE, "D": DISCHARGE, "R": REST}
NEEDED = ("Rec#", "Cyc#", "Step", "TestTime", "StepTime", "Amp-hr", "Watt-hr", "Amps", "Volts", "State")
CLOCKS = ("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S")


def recognises(head: list[str]) -> bool:
    """Whether the first lines are of this format."""
    return any(line.startswith("Rec#\t") for line in head)


def read(path: Path) -> CyclerLog:
    """Read a Maccor text export. Raises FileError."""
    source, names, number, title = lines(path), [""], 0, ""
    for line in source:
        number += 1
        if line.startswith("Rec#\t"):
            names = fields_of(path, number, line, "\t")
            break
        if "Filename:" in line:
            title = line.split("Filename:", 1)[1].split("\t")[1].strip() if "\t" in line else ""
        if number >= MAX_HEAD_LINES:
            break
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise FileError(path, "names", f"columns {', '.join(missing)} after Rec#")
    at = {name: names.index(name) for name in (*NEEDED, "DPt Time") if name in names}
    sensors = [k for k, name in enumerate(names[:-1]) if name.startswith("Aux #") and names[k + 1] == "Units"]
    sensors = sensors[:MAX_SENSORS]
    column = {name: array("d") for name in ("time", "step_time", "ah", "wh", "a", "v", "clock")}
    whole = {name: array("q") for name in ("cycle", "step", "state")}
    extra = [array("d") for _ in sensors]
    units = [""] * len(sensors)
    seen = {name: Resolution() for name in ("Amps", "Volts", "Amp-hr")}
    width = max(max(at.values()), max(sensors, default=0) + 1)
    for line in source:
        number += 1
        if not line.strip():
            continue
        part = fields_of(path, number, line, "\t")
        if len(part) <= width:
            raise FileError(path, f"line {number}", f"at least {width + 1} fields", len(part))
        if len(column["a"]) >= MAX_RECORDS:
            raise FileError(path, "", f"at most {MAX_RECORDS} records")
        amps, letter = number_of(path, number, "Amps", part[at["Amps"]]), part[at["State"]]
        if letter not in STATES and amps != 0:
            raise FileError(path, f"line {number}", "state C, D or R where a current flows", token=letter)
        state = STATES.get(letter, REST)
        column["a"].append(amps * state if state else amps)
        whole["state"].append(state)
        column["v"].append(number_of(path, number, "Volts", part[at["Volts"]]))
        column["ah"].append(number_of(path, number, "Amp-hr", part[at["Amp-hr"]]))
        column["wh"].append(number_of(path, number, "Watt-hr", part[at["Watt-hr"]]))
        column["time"].append(seconds_of(path, number, "TestTime", part[at["TestTime"]]))
        column["step_time"].append(seconds_of(path, number, "StepTime", part[at["StepTime"]]))
        column["clock"].append(clock_of(part[at["DPt Time"]], CLOCKS) if "DPt Time" in at else np.nan)
        whole["cycle"].append(index_of(path, number, "Cyc#", part[at["Cyc#"]]))
        whole["step"].append(index_of(path, number, "Step", part[at["Step"]]))
        for name, one in seen.items():
            one.see(part[at[name]])
        for k, place in enumerate(sensors):
            extra[k].append(number_of(path, number, names[place], part[place]))
            units[k] = part[place + 1]
    if not column["a"]:
        raise FileError(path, "records", "at least one record", "none")
    f = {name: np.frombuffer(values, np.float64) for name, values in column.items()}
    i = {name: np.frombuffer(values, np.int64) for name, values in whole.items()}
    return CyclerLog(
        path=path, program="Maccor", time_s=f["time"], current_a=f["a"], voltage_v=f["v"], cycle=i["cycle"],
        step=i["step"], state=i["state"].astype(np.int8), signs="unsigned, C and D in the state column",
        control=np.zeros(f["a"].size, np.int64), controls=("",), step_time_s=f["step_time"],
        counter_ah=f["ah"],
        counter_wh=f["wh"], clock_s=None if np.isnan(f["clock"]).any() else f["clock"],
        sensors={
            f"{names[place]} / {units[k]}": np.frombuffer(extra[k], np.float64)
            for k, place in enumerate(sensors)
        },
        current_resolution_a=seen["Amps"].value, voltage_resolution_v=seen["Volts"].value,
        time_resolution_s=0.01, counter_resolution_ah=seen["Amp-hr"].value, title=title,
    )  # fmt: skip
