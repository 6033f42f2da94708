"""Exports of a run as CSV: cell data in Battery Data Format columns, profiles, impedance.

NeXus is in ``nexus.py``. An export is never the only copy: all of it can be made again from the run's folder.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controller.offline.files_out import replacing
from controller.offline.run_files import RunFiles

ZERO_CELSIUS_K = 273.15
COULOMB_PER_AH = 3600.0
NEAR_S = 30.0  # a temperature counts for a cell reading that is no farther away
CELL_STEPS = ("ocv", "rest", "charge", "discharge", "pulse", "eis")
BDF_COLUMNS = (
    "Test Time / s", "Voltage / V", "Current / A", "Unix Time / s", "Step Count / 1",
    "Ambient Temperature / degC", "Charging Capacity / Ah", "Discharging Capacity / Ah",
)  # fmt: skip
PROFILE_COLUMNS = (
    "scan", "name", "element", "position / um", "value", "sigma (statistical)", "sigma (systematic)", "unit",
)  # fmt: skip
EIS_COLUMNS = ("Test Time / s", "Frequency / Hz", "Real Impedance / ohm", "Imaginary Impedance / ohm")

Row = Sequence[object]


def write_bdf(run: RunFiles, steps: Sequence[dict[str, Any]], path: Path) -> int:
    """Write the cell's record as a Battery Data Format CSV; return how many invalid readings were left out.

    Columns as published by the Battery Data Alliance (ontology battery-data-format). Test time is lab time
    since the first reading, Unix time that of the wall; the ambient temperature is the holder's Pt100. At
    open circuit the current is zero by definition. Impedance points are no time series and stand elsewhere.
    Without readings there is no file.
    """
    temperature = _Readings(run.events("sample", "heater"), "temperature_k")
    begun = sorted(step["begun_lab_s"] for step in steps if step["do"] in CELL_STEPS)
    first_s: float | None = None
    charged = discharged = previous = 0.0
    rows: list[Row] = []
    left_out = 0
    for body in run.events("sample", "cell"):
        step_ah = body["charge_coulomb"] / COULOMB_PER_AH - previous
        previous += step_ah
        charged, discharged = charged + max(step_ah, 0.0), discharged + max(-step_ah, 0.0)
        if body["phase"] in ("eis", "geis"):
            continue
        if not body["valid"] or body["voltage_v"] is None:
            left_out += 1
            continue
        first_s = body["lab_s"] if first_s is None else first_s
        current_a = 0.0 if body["phase"] == "ocv" else body["current_a"]
        kelvin = temperature.near(body["lab_s"])
        celsius = "" if kelvin is None else f"{kelvin - ZERO_CELSIUS_K:.2f}"
        rows.append(
            (
                f"{body['lab_s'] - first_s:.3f}", f"{body['voltage_v']:.6f}",
                "" if current_a is None else f"{current_a:.9e}", f"{body['wall_s']:.3f}",
                int(np.searchsorted(begun, body["lab_s"], side="right")), celsius, f"{charged:.9e}",
                f"{discharged:.9e}",
            )
        )  # fmt: skip
    if rows:
        _write(path, BDF_COLUMNS, rows)
    return left_out


def write_impedance(run: RunFiles, path: Path) -> bool:
    """Write every impedance point as CSV; return whether there were any (without, no file is written)."""
    rows: list[Row] = []
    for body in run.events("sample", "cell"):
        if body.get("frequency_hz") is not None and body["valid"]:
            real, imaginary = body["z_ohm"]
            rows.append((f"{body['lab_s']:.3f}", body["frequency_hz"], real, imaginary))
    if rows:
        _write(path, EIS_COLUMNS, rows)
    return bool(rows)


def write_profiles(run: RunFiles, path: Path) -> bool:
    """Write every profile as one long CSV with both errors; return whether there were any.

    Raises:
        ValueError: a profile cannot be read.
    """
    rows: list[Row] = []
    for product in run.products:
        if product.kind != "profile":
            continue
        fields = product.load()
        columns = [np.asarray(fields[key], float) for key in ("position_um", "values", "sigma")]
        columns.append(np.asarray(fields.get("sigma_sys", np.zeros(columns[0].size)), float))
        rows += [
            (product.scan, fields["name"], fields["element"], *(_number(v) for v in values), fields["unit"])
            for values in zip(*columns, strict=True)
        ]
    if rows:
        _write(path, PROFILE_COLUMNS, rows)
    return bool(rows)


class _Readings:
    """Readings in time, to be asked for the one nearest to a moment."""

    def __init__(self, bodies: Iterable[dict[str, Any]], key: str) -> None:
        pairs = [(body["lab_s"], body.get(key)) for body in bodies if body["lab_s"] is not None]
        self._at = np.array([at for at, _ in pairs])
        self._values = [value for _, value in pairs]

    def near(self, lab_s: float) -> float | None:
        """Return the nearest reading; None when that is invalid or too far away."""
        if not self._values:
            return None
        after = int(np.searchsorted(self._at, lab_s))
        around = [index for index in (after - 1, after) if 0 <= index < len(self._values)]
        nearest = min(around, key=lambda index: abs(float(self._at[index]) - lab_s))
        return self._values[nearest] if abs(float(self._at[nearest]) - lab_s) <= NEAR_S else None


def _write(path: Path, head: Row, rows: Iterable[Row]) -> None:
    with replacing(path) as scratch, scratch.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(rows)


def _number(value: float) -> str:
    """Return a number with all digits that a 32-bit float has; empty when it is not one."""
    return f"{value:.9g}" if np.isfinite(value) else ""
