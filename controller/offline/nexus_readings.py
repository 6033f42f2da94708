"""The readings of a run as a NeXus entry of its own that obeys the application definition NXsensor_scan.

Scan points are the valid readings of the cell (without a cell, those of the heater); every quantity has a
value at each of them, the one nearest in time, NaN where there is none within half a minute. What each
device really told, at its own times, is in its ``value_log``.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from controller.offline.run_files import RunFiles

NEAR_S = 30.0  # a reading counts for a scan point that is no farther away
NOT_TOLD = "not told"
NXDL = "v2026.01"  # release of the definitions that it was written against

Plain = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sensor:
    """One quantity of the environment: where it is in the journal, and what NeXus is told of it."""

    name: str
    module: str
    key: str
    unit: str
    measurement: str  # a word of NXsensor
    set_by_us: bool = False


SENSORS = (
    Sensor("target_temperature", "heater", "target_k", "K", "temperature", True),
    Sensor("temperature", "heater", "temperature_k", "K", "temperature"),
    Sensor("voltage", "cell", "voltage_v", "V", "voltage"),
    Sensor("current", "cell", "current_a", "A", "current"),
    Sensor("charge", "cell", "charge_coulomb", "C", "charge"),
    Sensor("beam_current", "io", "beam_a", "A", "current"),
)
KNOWN_WORDS = ("temperature", "voltage", "current")  # of NXsensor's list of measurements


def write_readings(file: h5py.File, run: RunFiles, summary: Plain, name: str = "readings") -> bool:
    """Write the entry; return whether there was anything to write (without a reading there is no entry)."""
    told = {module: _bodies(run, module) for module in ("cell", "heater", "io")}
    points = [b for b in told["cell"] if b.get("valid") and b.get("voltage_v") is not None] or told["heater"]
    if not points:
        return False
    lab_s = np.array([body["lab_s"] for body in points])
    entry = _group(file, name, "NXentry")
    _about(entry, summary, points[0]["wall_s"], points[-1]["wall_s"])
    place = _group(_group(entry, "instrument", "NXinstrument"), "environment", "NXenvironment")
    place["name"] = "sealed holder with heater and cell contacts"
    present = [sensor for sensor in SENSORS if _known(told[sensor.module], sensor.key)]
    data = _group(entry, "data", "NXdata")
    for sensor in present:
        values = _nearest(told[sensor.module], sensor.key, lab_s)
        _sensor(place, sensor, values, told[sensor.module], summary)
        _field(data, sensor.name, values, sensor.unit)
    place["independent_controllers"] = _names(s.name for s in present if s.set_by_us)
    place["measurement_sensors"] = _names(s.name for s in present if not s.set_by_us)
    _plot(data, present, lab_s - lab_s[0])
    return True


def _about(entry: h5py.Group, summary: Plain, first_s: float, last_s: float) -> None:
    """Write what the definition wants to know of every measurement."""
    entry["definition"] = "NXsensor_scan"
    entry["definition"].attrs["version"] = NXDL
    entry["title"] = f"Readings of {summary['run']}: {summary.get('title') or summary['experiment']}"
    entry["identifier_experiment"] = summary["run"]
    entry["experiment_description"] = str(summary.get("title") or summary["experiment"])
    entry["start_time"], entry["end_time"] = _iso(first_s), _iso(last_s)
    process = _group(entry, "process", "NXprocess")
    process["program"] = "operando"
    process["program"].attrs["version"] = str(summary["versions"].get("operando") or NOT_TOLD)
    process["program"].attrs["program_url"] = NOT_TOLD  # required, and there is no such page
    _group(entry, "user", "NXuser")["name"] = NOT_TOLD  # a run knows names of commands and confirmations only
    sample = _group(entry, "sample", "NXsample")
    sample["name"] = (summary.get("sample") or {}).get("name") or summary["experiment"]
    entry.attrs["default"] = "data"


def _sensor(
    place: h5py.Group, sensor: Sensor, values: Floats, bodies: Sequence[Plain], summary: Plain
) -> None:
    """Write one NXsensor: its value at every scan point, and what it told at its own times."""
    group = _group(place, sensor.name, "NXsensor")
    group["name"] = sensor.name
    if sensor.measurement in KNOWN_WORDS:
        group["measurement"] = sensor.measurement
    identity = (summary["instruments"].get(sensor.module) or {}).get("identity") or {}
    model = " ".join(str(identity[key]) for key in ("manufacturer", "model") if identity.get(key))
    group["model"] = model or NOT_TOLD
    _field(group, "value", values, sensor.unit)
    log = _group(group, "value_log", "NXlog")
    _field(log, "value", _values(bodies, sensor.key), sensor.unit)
    _field(log, "time", np.array([body["wall_s"] for body in bodies]) - bodies[0]["wall_s"], "s")
    log["time"].attrs["start"] = _iso(bodies[0]["wall_s"])


def _plot(data: h5py.Group, present: Sequence[Sensor], seconds: Floats) -> None:
    """Say what is to be plotted: the voltage against lab time, the others beside it."""
    names = [sensor.name for sensor in present]
    first = next((name for name in ("voltage", "temperature") if name in names), names[0])
    data["title"] = "readings against lab time since the first of them"
    data.attrs["signal"] = first
    others = [name for name in names if name != first]
    if others:
        data.attrs["auxiliary_signals"] = _names(others)
    _field(data, "time", seconds, "s")
    data.attrs["axes"] = _names(["time"])
    data.attrs["time_indices"] = 0


def _bodies(run: RunFiles, module: str) -> list[dict[str, Any]]:
    return [body for body in run.events("sample", module) if body["lab_s"] is not None]


def _known(bodies: Sequence[Plain], key: str) -> bool:
    return any(body.get(key) is not None for body in bodies)


def _values(bodies: Sequence[Plain], key: str) -> Floats:
    return np.array([np.nan if body.get(key) is None else body[key] for body in bodies], float)


def _nearest(bodies: Sequence[Plain], key: str, lab_s: Floats) -> Floats:
    """Return the reading nearest to each moment; NaN where it was invalid or is too far away."""
    at, values = np.array([body["lab_s"] for body in bodies]), _values(bodies, key)
    after = np.clip(np.searchsorted(at, lab_s), 1, max(at.size - 1, 1))
    before = after - 1
    after = np.minimum(after, at.size - 1)
    chosen = np.where(np.abs(at[after] - lab_s) < np.abs(at[before] - lab_s), after, before)
    found: Floats = np.where(np.abs(at[chosen] - lab_s) <= NEAR_S, values[chosen], np.nan)
    return found


def _iso(wall_s: float) -> str:
    return datetime.datetime.fromtimestamp(wall_s, tz=datetime.UTC).isoformat(timespec="milliseconds")


def _names(texts: Any) -> Any:
    return np.array(list(texts), dtype=h5py.string_dtype())


def _field(group: h5py.Group, name: str, values: Any, unit: str) -> None:
    group.create_dataset(name, data=values).attrs["units"] = unit


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group
