"""Writing a cycling log as CSV in Battery Data Format (columns of the Battery Data Alliance)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drivers.files.cycler_log import CyclerLog
from edge.cycling import StepResult

MAX_SURFACE_SENSORS = 5


def write_bdf(
    path: Path, log: CyclerLog, steps: Sequence[StepResult], good_sensors: Sequence[str]
) -> list[str]:
    """Write a log, whole or not at all, and return the names of its columns.

    Current is positive when it charges, as the format wants. ``Step Count`` counts the steps that ran, ``Step
    Index`` is the number in the cycler's program. The cycler's own counter becomes ``Step Capacity``. A
    wall clock without a time zone is not a Unix time and is left out; so are sensors that are not connected.
    """
    count = np.zeros(log.n, np.int64)
    for number, one in enumerate(steps, 1):
        count[one.first : one.last] = number
    columns: dict[str, list[str]] = {
        "Test Time / s": _written(log.time_s, log.time_resolution_s or 1e-3),
        "Voltage / V": _written(log.voltage_v, log.voltage_resolution_v),
        "Current / A": _written(log.current_a, log.current_resolution_a),
        "Cycle Count / 1": [str(v) for v in log.cycle],
        "Step Count / 1": [str(v) for v in count],
        "Step Index / 1": [str(v) for v in log.step],
    }
    if log.counter_ah is not None:
        columns["Step Capacity / Ah"] = _written(log.counter_ah, log.counter_resolution_ah)
    if log.counter_wh is not None:
        columns["Step Energy / Wh"] = _written(log.counter_wh, 1e-8)
    for number, name in enumerate(good_sensors[:MAX_SURFACE_SENSORS], 1):
        columns[f"Surface Temperature T{number} / degC"] = _written(log.sensors[name], 1e-3)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="ascii", newline="") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(",".join(row) + "\n" for row in zip(*columns.values(), strict=True))
    part.replace(path)
    return list(columns)


def _written(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], resolution: float) -> list[str]:
    """Return numbers as text: as many decimals as the source printed, never fewer than it had."""
    places = 9 if resolution <= 0 else max(0, min(12, -int(np.floor(np.log10(resolution) + 1e-9))))
    return [f"{value:.{places}f}" for value in values]
