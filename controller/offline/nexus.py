"""The run as a NeXus file: sample, instruments, readings, maps, profiles, spectra, results with their errors.

``/entry`` follows the NeXus base classes (there is no application definition for PIXE and PIGE with a
cell): every group has its class, every NXdata names its signal and axes, ``default`` leads from the root to
the lithium map of the last scan, uncertainties are ``<name>_errors``, and every number has its units (empty
where it has none). ``/readings`` obeys NXsensor_scan (``nexus_readings.py``).
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from controller.offline.files_out import replacing
from controller.offline.nexus_readings import write_readings
from controller.offline.overview import write_overviews
from controller.offline.run_files import Product, RunFiles

NOT_TOLD = "not told"
LOGS = {
    "temperature": ("heater", "temperature_k", "K"),
    "target_temperature": ("heater", "target_k", "K"),
    "voltage": ("cell", "voltage_v", "V"),
    "current": ("cell", "current_a", "A"),
    "charge": ("cell", "charge_coulomb", "C"),
    "beam_current": ("io", "beam_a", "A"),
}
"""Readings in time: module, entry and unit in the journal."""
MORE = {"gross": "counts", "background": "counts", "beam_off": "counts", "sigma_position_um": "um"}
"""Further arrays of a product, with their units."""
UNITS = {"1": "", "counts": "counts", "pC": "pC", "1/nC": "1/nC"}

Plain = Mapping[str, Any]


def write_nexus(run: RunFiles, summary: Plain, path: Path) -> list[str]:
    """Write the file; return in words what could not be put into it.

    Args:
        run: the run's files.
        summary: its summary.
        path: where.
    """
    with replacing(path) as scratch, h5py.File(scratch, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        file.attrs["creator"] = f"operando {summary['versions'].get('operando', '')}".strip()
        file.attrs["file_time"] = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
        entry = _group(file, "entry", "NXentry")
        file.attrs["default"] = "entry"
        _about(entry, summary)
        _sample(_group(entry, "sample", "NXsample"), run, summary)
        instrument = _group(entry, "instrument", "NXinstrument")
        _instrument(instrument, summary)
        _monitors(instrument, run)
        default, problems = _products(entry, run)
        _stage_positions(entry, run)
        problems += write_overviews(entry, run)
        if default is not None:
            entry.attrs["default"] = default
        _results(_group(entry, "process", "NXprocess"), summary)
        if write_readings(file, run, summary) and default is None:
            file.attrs["default"] = "readings"  # nothing was scanned: the readings are what there is to see
    return problems


def _about(entry: h5py.Group, summary: Plain) -> None:
    entry["title"] = summary.get("title") or summary["experiment"]
    entry["entry_identifier"] = summary["run"]
    entry["experiment_identifier"] = summary["experiment"]
    began = summary.get("began")
    if began is not None:
        start = datetime.datetime.fromtimestamp(began, tz=datetime.UTC)
        entry["start_time"] = start.isoformat()
        wall_s = summary["durations"].get("wall_s")
        if wall_s is not None:
            entry["end_time"] = (start + datetime.timedelta(seconds=wall_s)).isoformat()
    note = _group(entry, "outcome", "NXnote")
    note["description"] = f"{summary['outcome']} (exit code {summary['exit_code']})"
    note["type"] = "application/json"
    note["data"] = json.dumps(summary, ensure_ascii=False)


def _sample(group: h5py.Group, run: RunFiles, summary: Plain) -> None:
    sample = summary.get("sample") or {}
    group["name"] = sample.get("name") or summary["experiment"]
    group["type"] = "sample"
    if sample.get("chemistry"):
        group["description"] = sample["chemistry"]
    environment = _group(group, "environment", "NXenvironment")
    environment["name"] = "sealed holder with heater and cell contacts"
    for name, (module, key, unit) in LOGS.items():
        bodies = [body for body in run.events("sample", module) if body["lab_s"] is not None]
        if not bodies:
            continue
        log = _group(environment, name, "NXlog")
        values = [np.nan if body.get(key) is None else body[key] for body in bodies]
        _field(log, "value", np.array(values, float), unit)
        _field(log, "time", np.array([body["lab_s"] for body in bodies]), "s")
        if summary.get("began") is not None:
            log["time"].attrs["start"] = "lab clock of the run"


def _monitors(group: h5py.Group, run: RunFiles) -> None:
    """Write what every further device measured, each value in its own unit."""
    logs: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for name, body in run.by_module("monitor"):
        for channel, value in body["values"].items():
            if body["lab_s"] is not None:
                key = (name, channel, body["units"].get(channel) or "")
                logs.setdefault(key, []).append((body["lab_s"], np.nan if value is None else float(value)))
    for (name, channel, unit), readings in logs.items():
        device = group.require_group(_name(name))
        device.attrs.setdefault("NX_class", "NXcollection")
        log = _group(device, _name(channel), "NXlog")
        times, values = np.array(readings).T
        _field(log, "value", values, unit)
        _field(log, "time", times, "s")


def _instrument(group: h5py.Group, summary: Plain) -> None:
    group["name"] = summary["station"] or NOT_TOLD
    source = _group(group, "source", "NXsource")
    source["type"] = "Ion Source"
    source["probe"] = "proton"
    for name, told in summary["instruments"].items():
        device = _group(group, _name(name), "NXdetector" if name in ("pixe", "pige") else "NXcollection")
        identity = told.get("identity", {})
        device["description"] = " ".join(
            str(identity[key]) for key in ("manufacturer", "model") if identity.get(key)
        ) or NOT_TOLD  # fmt: skip
        maker = _group(device, "fabrication", "NXfabrication")
        for key, field in (("manufacturer", "vendor"), ("model", "model"), ("serial", "serial_number")):
            maker[field] = identity.get(key) or NOT_TOLD
        more = _group(device, "notes", "NXcollection")
        more["firmware"] = identity.get("firmware") or NOT_TOLD
        for number, text in enumerate(told.get("notes", [])):
            more[f"note_{number}"] = text


def _products(entry: h5py.Group, run: RunFiles) -> tuple[str | None, list[str]]:
    """Write every product as NXdata; return the name of the last lithium map, and what could not be read."""
    default, problems = None, []
    for product in run.products:
        name = _name_of(product)
        try:
            fields = product.load()
        except ValueError as error:
            problems.append(str(error))
            continue
        if "values" in fields:
            _data(_group(entry, name, "NXdata"), product, fields)
            default = name if product.stream == "map/Li" or default is None else default
    return default, problems


def _name_of(product: Product) -> str:
    kind, number = product.place
    return _name(f"{product.stream}_{kind}_{number}")


def _stage_positions(entry: h5py.Group, run: RunFiles) -> None:
    """Say at every map where the stage stood while it was taken, um, in the stage's own coordinates."""
    stood = {body["scan"]: (body.get("stamp") or {}).get("stage_um") for body in run.events("pass", "scan")}
    for product in run.products:
        name = _name_of(product)
        if name in entry and stood.get(product.scan):
            entry[name].attrs["operando_stage_um"] = np.array(stood[product.scan], float)


def _data(group: h5py.Group, product: Product, fields: Plain) -> None:
    """Write one product: signal, its errors, axes, and what else it holds."""
    values = np.asarray(fields["values"])
    unit = UNITS.get(str(fields.get("unit", "")), str(fields.get("unit", "")))
    kind, number = product.place
    group["title"] = f"{product.stream.replace('/', ' ')}, {kind} {fields.get('name', number)}"
    group.attrs["signal"] = "values"
    _field(group, "values", values, unit)
    if "sigma" in fields:
        _field(group, "values_errors", np.asarray(fields["sigma"]), unit)
    if "sigma_sys" in fields:
        _field(group, "values_systematic_errors", np.asarray(fields["sigma_sys"]), unit)
    for key, more in MORE.items():
        if key in fields:
            _field(group, key, np.asarray(fields[key]), more)
    axes = _axes(values, fields)
    group.attrs["axes"] = [name for name, _, _ in axes]
    for index, (name, centres, axis_unit) in enumerate(axes):
        group.attrs[f"{name}_indices"] = index
        _field(group, name, centres, axis_unit)
    for key in ("run", "scan", "name", "purpose", "element", "detector"):
        if fields.get(key) is not None:
            group.attrs[f"operando_{key}"] = fields[key]
    group.attrs["operando_passes"] = np.asarray(fields.get("passes", []), np.int64)


def _axes(values: np.ndarray[Any, Any], fields: Plain) -> list[tuple[str, np.ndarray[Any, Any], str]]:
    """Return name, positions and unit of every axis of the values."""
    if values.ndim == 2 and "x_um" in fields:
        return [(name, np.asarray(fields[f"{name}_um"]), "um") for name in ("y", "x")]
    for key, name, unit in (("position_um", "position", "um"), ("energy_kev", "energy", "keV")):
        if key in fields:
            return [(name, np.asarray(fields[key]), unit)]
    return [(f"index_{n}", np.arange(size), "") for n, size in enumerate(values.shape)]


def _results(group: h5py.Group, summary: Plain) -> None:
    """Write every quantity of every layer with both errors and its unit."""
    group["program"] = "operando"
    group["version"] = summary["versions"].get("operando") or NOT_TOLD
    group["date"] = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    if summary.get("calibration"):
        note = _group(group, "calibration", "NXnote")
        note["type"] = "application/json"
        note["data"] = json.dumps(summary["calibration"], ensure_ascii=False)
    for layer in summary["layers"]:
        place = _group(group, _name(layer["name"]), "NXcollection")
        place["interval"] = json.dumps(layer.get("interval"), ensure_ascii=False)
        place["verdict"] = str((layer.get("change") or {}).get("text", ""))
        for name, quantity in layer["quantities"].items():
            unit = UNITS.get(quantity["unit"], quantity["unit"])
            for suffix, key in (
                ("", "value"), ("_errors", "sigma_stat"), ("_systematic_errors", "sigma_sys")
            ):  # fmt: skip
                number = np.nan if quantity[key] is None else quantity[key]
                _field(place, f"{_name(name)}{suffix}", np.float64(number), unit)


def _field(group: h5py.Group, name: str, values: Any, unit: str) -> None:
    group.create_dataset(name, data=values).attrs["units"] = unit


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _name(text: str) -> str:
    """Return a name that NeXus allows: letters, digits and underscores."""
    clean = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return clean if re.match(r"[A-Za-z_]", clean) else f"_{clean}"
