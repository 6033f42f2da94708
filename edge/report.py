"""The result of a run as plain values: what a report, a summary and a message need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.analysis import Analysis
from edge.appearance import appearance, first_seen, gone_again, part_of
from edge.constants import ELEMENTARY_CHARGE_COULOMB
from edge.deadtime import PILE_UP_FLAG, CounterCheck, pile_up_fraction
from edge.ion_beam_detection import decisions, missing, undetected
from edge.layer_result import LayerResult
from edge.lithium import paper_budget
from edge.measure import fitted_lines, observed_rates_hz
from edge.placement import Placement
from edge.scan_data import ScanData, tally_dict
from edge.soc import AGREE_Z, change_verdict, outside_range, relative_soc
from edge.uncertainty import Estimate, difference_z

SCHEMA = "operando/ion_beam/1"
UM2_PER_CM2 = 1e8
DEAD_TIME_Z = 4.0
SERIES_PURPOSES = ("charging", "discharging")

Whole = dict[tuple[str, str], LayerResult]  # of a scan and a layer, by their names


@dataclass(frozen=True)
class Result:
    """Plain values only: dictionaries, lists, strings, numbers, None. Never NaN."""

    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for a message or a file."""
        return dict(self.data)


def report(analysis: Analysis, checks: Mapping[tuple[int, int], Mapping[str, CounterCheck]]) -> Result:
    """Return everything that can be said now about all scans of a run."""
    flags = list(analysis.settings.flags)
    whole: Whole = {}
    scans = [_scan(analysis, scan, flags, whole) for scan in analysis.scans.values()]
    _relative(analysis, scans)
    series = _series(analysis, whole)
    _undetected(analysis, scans, series)
    final = _final(analysis, scans)
    first_seen(scans, series)
    flags += gone_again(scans, final)
    flags += [
        f"scan {scan}, pass {n}: {name} counted {c.lost} events more than arrived"
        for (scan, n), found in checks.items()
        for name, c in found.items()
        if c.lost
    ]
    flags += [
        f"scan {scan}, pass {n}: {name} fast counter {c.z:+.1f} sigma from the dead-time model"
        for (scan, n), found in checks.items()
        for name, c in found.items()
        if abs(c.z) > DEAD_TIME_Z
    ]
    flags += [
        f"{line.element}: no profile and no local state of charge by the method fit, "
        "whose fits are per layer; ask for window or projection"
        for line in analysis.settings.lines
        if line.method == "fit"
    ]
    if analysis.reference is None:
        flags.append(f"no good pass of the reference scan {analysis.settings.reference!r} yet")
    data = {
        "schema": SCHEMA,
        "technique": "ion_beam",
        "layers": final,
        "scans": scans,
        "series": series,
        "dead_time": {name: {"tau_s": d.tau_s, "sigma_s": d.sigma_s} for name, d in analysis.dead.items()},
        "energy_scale": {name: asdict(gain) for name, gain in analysis.gains.items()},
        "continuum_slope_per_kev": asdict(analysis.slope),
        "budget": {"paper": paper_budget(analysis.settings), "priors": dict(analysis.settings.priors)},
        "dose": _dose(analysis),
        "flags": list(dict.fromkeys(flags)),
        "provenance": _provenance(analysis),
    }
    return Result(plain(data))


def counts_and_quantities(layers: list[LayerResult]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the counts {layer: {element: [net, sigma]}} and quantities {"layer.name": ...} of a scan.

    What rests on a line that is not detected is left out: a ratio to nothing is no number.
    """
    counts: dict[str, Any] = {}
    quantities: dict[str, Any] = {}
    for layer in layers:
        now = {"quantities": {n: e.to_dict() for n, e in layer.quantities.items()}}
        found, before = (
            {element: one.to_dict() for element, one in decisions(q).items()}
            for q in (layer.quantities, layer.before)
        )
        lost = undetected({**now, "detection": found}, before, layer.normaliser)
        for name, estimate in layer.quantities.items():
            if name in lost:
                continue
            if name.endswith("_counts"):
                element = name.removesuffix("_counts").capitalize()
                counts.setdefault(layer.name, {})[element] = [estimate.value, estimate.sigma_stat]
            elif math.isfinite(estimate.value) and math.isfinite(estimate.total):
                quantities[f"{layer.name}.{name}"] = estimate.to_dict()
    return counts, quantities


def appeared(layers: list[LayerResult]) -> dict[str, Any]:
    """Return the layers in which lithium has appeared that the reference did not show, by name."""
    found = {
        layer.name: appearance(
            layer.quantities.get("li_counts"), layer.before.get("li_counts"), layer.gained, layer.kind
        )
        for layer in layers
    }
    return {name: one for name, one in found.items() if one is not None}


def beam_against_charge(layer: LayerResult) -> float | None:
    """Return the difference of the state of charge by beam and by charge over its error; None without both.

    Args:
        layer: one layer of a scan.

    Returns:
        (beam - charge) / sigma, without unit.
    """
    beam, charge = layer.quantities.get("soc_beam"), layer.quantities.get("soc_charge")
    if beam is None or charge is None or not math.isfinite(beam.value) or not math.isfinite(beam.total):
        return None
    return difference_z(beam, charge)


def plain(value: Any) -> Any:
    """Return a value with lists for tuples, Python numbers for numpy ones, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _scan(analysis: Analysis, scan: ScanData, flags: list[str], whole: Whole) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "scan": scan.start.scan,
        "name": scan.start.name,
        "purpose": scan.start.purpose,
        "passes": scan.passes,
        "refused": {str(n): why for n, why in scan.refused.items()},
        "events": _events(analysis, scan, flags),
        "layers": [],
    }
    if not scan.blocks:
        return entry
    entry["interval"] = analysis.interval(scan).to_dict()
    if scan.start.grid is None:
        return entry
    try:
        layers = analysis.layers(scan)
    except ValueError as error:
        flags.append(str(error))
        return entry
    whole |= {(scan.start.name, layer.name): layer for layer in layers}
    placement = analysis.placement(scan)
    if isinstance(placement, Placement):
        entry["geometry"] = _geometry(placement, analysis.bounds(scan))
        entry["methods"] = _methods(analysis, scan, placement)
    entry["unexplained"] = analysis.unexplained(scan)
    entry["layers"] = [_layer(layer, entry["interval"]) for layer in layers]
    flags += [
        f"{scan.start.name}, {layer['name']}: {flag}" for layer in entry["layers"] for flag in layer["flags"]
    ]
    return entry


def _layer(layer: LayerResult, interval: dict[str, Any]) -> dict[str, Any]:
    quantities = {
        name: estimate.to_dict()
        for name, estimate in layer.quantities.items()
        if math.isfinite(estimate.value) and math.isfinite(estimate.total)
    }
    found = decisions(layer.quantities)
    entry: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind,
        "quantities": quantities,
        "budget": dict(layer.budget),
        "interval": interval,
        "z": None,
        "agree": None,
        "verdict": "reference",
        "flags": [],
        "detection": {element: one.to_dict() for element, one in found.items()},
        "appeared": appearance(
            layer.quantities.get("li_counts"), layer.before.get("li_counts"), layer.gained, layer.kind
        ),
    }
    z = beam_against_charge(layer)
    if z is not None:
        entry["z"] = z
        entry["agree"] = abs(z) <= AGREE_Z
    name = "li_relative" if "li_relative" in quantities else "li_relative_charge"
    if name in quantities:
        entry["verdict"] = change_verdict([layer.quantities[name]])
    if "x" in quantities:
        outside = outside_range(layer.quantities["x"].value)
        entry["flags"] = [outside] if outside else []
    needed = ("Li",) if layer.normaliser is None else ("Li", layer.normaliser)
    entry["flags"] += missing(found, needed)
    return entry


def _relative(analysis: Analysis, scans: list[dict[str, Any]]) -> None:
    """Add the SoC relative to the scans that the settings name, where they are there."""
    if analysis.settings.relative_zero is None:
        return
    tables: dict[str, dict[str, dict[str, Estimate]]] = {}
    for entry in scans:
        for layer in entry["layers"]:
            found = {name: Estimate(**q) for name, q in layer["quantities"].items()}
            tables.setdefault(layer["name"], {})[entry["name"]] = found
    for entry in scans:
        for layer in entry["layers"]:
            by_scan = tables[layer["name"]]
            relative = relative_soc(analysis.settings, by_scan, by_scan[entry["name"]])
            if relative is not None:
                layer["quantities"]["soc_beam_relative"] = relative.to_dict()


def _undetected(analysis: Analysis, scans: list[dict[str, Any]], series: Mapping[str, Any]) -> None:
    """Name in every layer the quantities that rest on a line which is not there, and what is left of them."""
    reference = analysis.reference
    number = reference.start.scan if reference is not None else None
    before = {
        layer["name"]: layer["detection"] for e in scans if e["scan"] == number for layer in e["layers"]
    }
    binned = [layer for bins in series.values() for one in bins for layer in one["layers"]]
    for layer in [layer for entry in scans for layer in entry["layers"]] + binned:
        own = analysis.settings.layers[analysis.settings.layer_index(layer["name"])]
        layer["undetected"] = undetected(layer, before.get(layer["name"], {}), own.normaliser)
        lost = [name for name in ("li_relative", "li_relative_charge") if name in layer["undetected"]]
        if lost and all(layer["undetected"][name]["upper_limit"] is None for name in lost):
            layer["verdict"] = "not detected" if layer["appeared"] is None else "appeared"
        elif layer["appeared"] and layer["appeared"]["none_before"]:
            layer["appeared"] = None  # the reference alone shows a line there: its relative signal says it
        elif layer["appeared"]:
            layer["verdict"] = "appeared"


def _final(analysis: Analysis, scans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers of the last scan that is not the reference, an overview or a background."""
    measured = [entry for entry in scans if entry["layers"]]
    reference = analysis.reference
    number = reference.start.scan if reference is not None else None
    later = [e for e in measured if e["scan"] != number and e["purpose"] not in ("overview", "calibrate")]
    chosen = later or measured
    return list(chosen[-1]["layers"]) if chosen else []


def _series(analysis: Analysis, whole: Whole) -> dict[str, Any]:
    """Return scans during charging or discharging in bins of passes, each with its interval."""
    found: dict[str, Any] = {}
    for scan in analysis.scans.values():
        if scan.start.grid is None or scan.start.purpose not in SERIES_PURPOSES or len(scan.blocks) < 2:
            continue
        try:
            bins = analysis.series(scan)
        except ValueError:
            continue
        found[scan.start.name] = [
            {
                "interval": interval.to_dict(),
                "layers": [
                    _layer(part_of(layer, whole.get((scan.start.name, layer.name))), interval.to_dict())
                    for layer in layers
                ],
            }
            for interval, layers in bins
        ]
    return found


def _geometry(placement: Placement, bounds: Sequence[tuple[float, float]]) -> dict[str, Any]:
    pose = placement.pose
    return {
        "angle_deg": math.degrees(pose.angle_rad),
        "sigma_angle_deg": math.degrees(pose.sigma_angle_rad),
        "interface_um": pose.position_um,
        "sigma_interface_um": pose.sigma_position_um,
        "pivot_x_um": pose.pivot_x_um,
        "blur_um": placement.interface.width_um,
        "waviness_um": placement.interface.waviness_um,
        "chi2_per_dof": placement.interface.chi2_per_dof,
        "layers_um": [list(layer) for layer in bounds],
        "followed_um": {str(key): place for key, place in placement.block_um.items()},
        "registration": asdict(placement.registration) if placement.registration is not None else None,
    }


def _methods(analysis: Analysis, scan: ScanData, placement: Placement) -> dict[str, Any]:
    """Return the counts of every line by the linear fit, to stand beside those by windows."""
    bounds = analysis.bounds(scan)
    elements = [line.element for line in analysis.settings.lines]
    fits = fitted_lines(
        analysis.settings, analysis.segmentations, scan, placement, bounds, analysis.slope.value, elements
    )
    names = [layer.name for layer in analysis.settings.layers]
    return {
        element: {
            name: {"fit_counts": float(net), "sigma": math.sqrt(v) if v >= 0 else None}
            for name, net, v in zip(names, nets, variances, strict=True)
        }
        for element, (nets, variances) in fits.items()
    }


def _events(analysis: Analysis, scan: ScanData, flags: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in analysis.segmentations:
        total = scan.detector_sum(name) if scan.blocks else None
        if total is None:
            continue
        entry: dict[str, Any] = tally_dict(total.tallies)
        entry |= {"slow": total.slow, "fast": total.fast, "lost": total.slow - total.received}
        rate, _ = observed_rates_hz(scan, name)
        tau_s, fast_dead_s = analysis.dead[name].tau_s, analysis.settings.detectors[name].fast_dead_s
        pile_up = float(np.nanmax(pile_up_fraction(rate, tau_s, fast_dead_s), initial=0.0))
        entry["pile_up_max"] = pile_up
        flagged = pile_up_fraction(rate[:-1], tau_s, fast_dead_s) > PILE_UP_FLAG
        entry["pile_up_pixels"] = int(np.count_nonzero(flagged))
        if pile_up > PILE_UP_FLAG:
            flags.append(
                f"{scan.start.name}: {name} pile-up reaches {100 * pile_up:.1f} %, "
                f"{entry['pile_up_pixels']} pixels are above {100 * PILE_UP_FLAG:g} %"
            )
        found[name] = entry
    return found


def _dose(analysis: Analysis) -> dict[str, Any] | None:
    """Return the protons per area that the scans have put onto the sample, where the charge is known."""
    entries = []
    for scan in analysis.scans.values():
        grid = scan.start.grid
        if grid is None or not scan.blocks or not all(b.charge_known for b in scan.blocks.values()):
            continue
        charge = np.sum([block.charge_coulomb for block in scan.blocks.values()], axis=0)
        area_cm2 = grid.pitch_x_um * grid.pitch_y_um / UM2_PER_CM2
        fluence = charge / ELEMENTARY_CHARGE_COULOMB / area_cm2
        entries.append(
            {
                "scan": scan.start.scan,
                "name": scan.start.name,
                "charge_coulomb": float(charge.sum()),
                "protons_per_cm2_mean": float(fluence.mean()),
                "protons_per_cm2_max": float(fluence.max()),
            }
        )
    if not entries:
        return None
    return {
        "scans": entries,
        "charge_coulomb": sum(e["charge_coulomb"] for e in entries),
        "protons_per_cm2_max": sum(e["protons_per_cm2_max"] for e in entries),
    }


def _provenance(analysis: Analysis) -> dict[str, Any]:
    settings = analysis.settings
    table = settings.table
    return {
        "reference": settings.reference,
        "interface": list(settings.interface),
        "calibration": None
        if table is None
        else {
            "name": table.name,
            "host": table.host,
            "mass_fractions": dict(table.mass_fractions),
            "energy_kev": table.energy_kev,
            "angle_deg": table.angle_deg,
            "sigma_x": table.sigma_x,
            "source": table.source,
        },
        "lines": [
            {
                "element": line.element,
                "line": line.window.line,
                "detector": line.detector,
                "method": line.method,
                "window_kev": [line.window.low_kev, line.window.high_kev],
                "bands_kev": [list(band) for band in line.window.bands_kev],
            }
            for line in settings.lines
        ],
    }
