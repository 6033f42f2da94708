"""What happened in a run beyond its record: scans and passes, dose, what was refused, who asked for what.

Read from the run's journal and the index of its raw files; nothing is reduced here.
"""

from __future__ import annotations

from typing import Any

from controller.config import Experiment
from controller.offline.recover import supervisor_log
from controller.offline.run_files import RunFiles

ELEMENTARY_CHARGE_C = 1.602176634e-19  # exact, SI 2019
CM2_PER_UM2 = 1e-8

Plain = dict[str, Any]


def facts_of(run: RunFiles) -> Plain:
    """Return title, reference, scans, quarantined passes, commands and dose of a run."""
    experiment = run.experiment
    analysis = experiment.analysis if experiment is not None else None
    scans = _scans(run)
    passes = list(run.events("pass", "scan"))
    for one in passes:
        _count(scans.setdefault(one["scan"], {"scan": one["scan"], "name": "", "purpose": ""}), one)
    return {
        "title": experiment.experiment.title if experiment is not None else "",
        "reference": analysis.reference if analysis is not None else None,
        "sample": _sample(experiment) if experiment is not None else None,
        "scans": list(scans.values()),
        "quarantined": [_refused(one, scans) for one in passes if not one["good"]],
        "commands": [*run.events("command"), *run.events("answer")],
        "dose": _dose(scans),
        "safe": _safe(run),
    }


def _safe(run: RunFiles) -> list[Plain]:
    """Return what became of the off commands at the end: of control, or of the supervisor in its place."""
    found: list[Plain] = []
    for body in run.events("safe"):
        found = list(body.get("results", []))
    for entry in supervisor_log(run):
        found = list(entry.get("results", found))
    return found


def _sample(experiment: Experiment) -> Plain:
    """Return what the experiment file says of the sample, as far as a report repeats it."""
    sample = experiment.sample
    return {
        "name": sample.name, "chemistry": sample.chemistry, "capacity_coulomb": sample.capacity_coulomb,
        "capacity_error": sample.capacity_error,
        "layers": {
            layer.name: {
                "kind": layer.kind, "host": layer.host, "normaliser": layer.normaliser,
                "mass_fractions": dict(layer.mass_fractions),
            }
            for layer in sample.layers
        },
    }  # fmt: skip


def _scans(run: RunFiles) -> dict[int, Plain]:
    """Return every scan that was begun, by number."""
    found: dict[int, Plain] = {}
    for message in run.index:
        if message.get("k") == "scan":
            raster = message.get("raster")
            found[message["scan"]] = {
                "scan": message["scan"], "name": message["name"], "purpose": message["purpose"],
                "raster": raster, "good_passes": 0, "quarantined_passes": 0, "lines": 0, "beam_coulomb": 0.0,
                "live_s": 0.0, "received": {}, "lost": {},
            }  # fmt: skip
    return found


def _count(scan: Plain, one: Plain) -> None:
    """Add a pass to its scan; a quarantined pass counts for the beam, not for the events."""
    for key, more in {
        "good_passes" if one["good"] else "quarantined_passes": 1, "lines": one.get("lines_done", 0),
        "beam_coulomb": one.get("charge_coulomb", 0.0), "live_s": one.get("live_s", 0.0),
    }.items():  # fmt: skip
        scan[key] = scan.get(key, 0) + more
    for key, told in (("received", "events" if one["good"] else ""), ("lost", "lost")):
        counts = scan.setdefault(key, {})
        for detector, number in one.get(told, {}).items():
            counts[detector] = counts.get(detector, 0) + number
    stamp = one.get("stamp") or {}
    for key in ("temperature_k", "voltage_v", "soc"):
        value = stamp.get(key)
        if value is not None:
            low, high = scan.get(key, [value, value])
            scan[key] = [min(low, value), max(high, value)]


def _refused(one: Plain, scans: dict[int, Plain]) -> Plain:
    return {
        "scan": one["scan"], "name": scans[one["scan"]]["name"], "n": one["n"], "why": one["why"],
        "lab_s": one["lab_s"],
    }  # fmt: skip


def _dose(scans: dict[int, Plain]) -> Plain | None:
    """Return the protons per area of all scans together, as if every raster lay on the same place."""
    per_scan = {}
    for scan in scans.values():
        raster = scan.get("raster")
        if raster:
            area_cm2 = raster["width_um"] * raster["height_um"] * CM2_PER_UM2
            protons = scan["beam_coulomb"] / ELEMENTARY_CHARGE_C / area_cm2
            scan["protons_per_cm2"] = protons
            per_scan[f"{scan['scan']}: {scan['name']}"] = protons
    if not per_scan:
        return None
    return {"protons_per_cm2": sum(per_scan.values()), "scans": per_scan}
