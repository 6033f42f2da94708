"""A cycler's log in several files as one: records in the order of the test time, nothing made up between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from drivers.files.cycler_log import CyclerLog

NEEDED = ("time_s", "current_a", "voltage_v", "cycle", "step", "state")
OPTIONAL = ("step_time_s", "counter_ah", "counter_wh", "clock_s")  # dropped where one file has none
RESOLUTIONS = (
    "current_resolution_a", "voltage_resolution_v", "time_resolution_s", "counter_resolution_ah",
)  # fmt: skip


def part(log: CyclerLog) -> dict[str, Any]:
    """Return a log as plain values and arrays."""
    plain = {
        name: getattr(log, name) for name in (*NEEDED, *OPTIONAL, *RESOLUTIONS, "control", "signs", "title")
    }
    return plain | {
        "file": log.path.name, "program": log.program, "controls": list(log.controls),
        "sensors": dict(log.sensors), "notes": list(log.notes),
    }  # fmt: skip


def joined(parts: Sequence[Mapping[str, Any]]) -> CyclerLog:
    """Return the whole log; the order of the parts does not matter, but the first one names it.

    Raises:
        ValueError: if they are of different programs, or the test time does not go on from one to the next.
    """
    for one in parts[1:]:
        if (one["program"], one["signs"]) != (parts[0]["program"], parts[0]["signs"]):
            raise ValueError(f"{one['file']} and {parts[0]['file']} are logs of different programs")
    ordered = sorted(parts, key=lambda one: (one["time_s"][0], one["file"]))
    for before, after in pairwise(ordered):
        if not after["time_s"][0] > before["time_s"][-1]:
            raise ValueError(
                f"{after['file']} begins at {after['time_s'][0]:g} s of the test, before "
                f"{before['file']} ends ({before['time_s'][-1]:g} s): only a log whose test time "
                "goes on can be put together"
            )
    columns: dict[str, Any] = {name: np.concatenate([one[name] for one in ordered]) for name in NEEDED}
    for name in OPTIONAL:
        there = all(one[name] is not None for one in ordered)
        columns[name] = np.concatenate([one[name] for one in ordered]) if there else None
    for name in RESOLUTIONS:  # a part may happen to show fewer digits
        columns[name] = min((one[name] for one in ordered if one[name] > 0.0), default=0.0)
    controls = tuple(dict.fromkeys(name for one in ordered for name in one["controls"]))
    numbers = [np.array([controls.index(name) for name in one["controls"]], np.int64) for one in ordered]
    control = np.concatenate([table[one["control"]] for table, one in zip(numbers, ordered, strict=True)])
    sensors = [name for name in ordered[0]["sensors"] if all(name in one["sensors"] for one in ordered)]
    said = f"one log in {len(parts)} files: " + ", ".join(one["file"] for one in ordered)
    return CyclerLog(
        path=Path(str(parts[0]["file"])), program=ordered[0]["program"], signs=ordered[0]["signs"],
        control=control, controls=controls, title=ordered[0]["title"],
        sensors={name: np.concatenate([one["sensors"][name] for one in ordered]) for name in sensors},
        notes=(*dict.fromkeys(note for one in ordered for note in one["notes"]), said), **columns,
    )  # fmt: skip
