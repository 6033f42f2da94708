"""From a run's files to what the report draws: values as they are, units those of the axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from controller.offline.line_fit import fitted
from controller.offline.overview import Overview, overviews
from controller.offline.plots_overview import shown
from controller.offline.run_files import Product, RunFiles
from controller.offline.sweeps import reduced
from controller.offline.told import Planned, plan
from controller.offline.view import (
    Bar,
    Floats,
    Geometry,
    MapView,
    Mark,
    Point,
    ProfileView,
    SpectrumView,
    Timeline,
    Trace,
    View,
    Window,
)
from controller.offline.words import COULOMB_PER_UAH
from controller.summary import total

LANES = {
    "scan": "beam", "calibrate": "beam", "background": "beam", "expose": "beam", "heat": "heater",
    "cool": "heater",
    "charge": "cell", "discharge": "cell", "pulse": "cell", "ocv": "cell", "rest": "cell", "eis": "cell",
}  # fmt: skip
LOST_PERIODS = 8.0  # a line through readings is broken where so many are missing
UNEXPOSED = ("background", "overview", "calibrate")  # scans that are not compared with the reference

Plain = Mapping[str, Any]


def gather(run: RunFiles, summary: Plain) -> View:
    """Return everything that is drawn; what cannot be read is named under ``missing``."""
    missing: list[str] = []
    return View(
        timeline=timeline(run, summary),
        maps=list(maps(run, missing)),
        profiles=list(profiles(run, missing)),
        spectra=list(spectra(run, summary, missing)),
        points=list(points(run, summary)),
        hosts=[layer["name"] for layer in summary["layers"] if layer["kind"] == "host"],
        soc_maps=list(maps(run, missing, stream="soc")),
        missing=missing,
        sweeps=list(reduced(run)),
        overviews=_overviews(run, missing),
        radiographs=list((run.result or {}).get("radiographs", ())),
    )


def _overviews(run: RunFiles, missing: list[str]) -> list[Overview]:
    found, unread = overviews(run)
    missing += unread
    return shown(found)


# --- time ----------------------------------------------------------------------------------------------


def timeline(run: RunFiles, summary: Plain) -> Timeline | None:
    """Return the run in time; None when nothing was ever recorded."""
    heater, cell = list(run.events("sample", "heater")), list(run.events("sample", "cell"))
    passes = list(run.events("pass", "scan"))
    steps = summary["steps"]
    times = [body["lab_s"] for body in (*heater, *cell, *passes) if body["lab_s"] is not None]
    begun = [step["begun_lab_s"] for step in steps]
    if not times and not begun:
        return None
    zero_s = _zero_s(summary, times)
    ends = [step["ended_lab_s"] for step in steps if step["ended_lab_s"] is not None]
    clock = _Clock(zero_s)
    stamps = [body["stamp"] | {"lab_s": body["lab_s"]} for body in passes if body.get("stamp")]
    return Timeline(
        bars=[
            Bar(step["title"], step["do"], clock.minutes(step["begun_lab_s"]), clock.end(step), lane)
            for step in steps
            if (lane := LANES.get(step["do"])) is not None
        ],
        marks=sorted(_marks(run, summary, passes, clock), key=lambda mark: mark.minutes),
        gaps=_gaps(summary["gaps"], clock, max([*times, *ends, *begun])),
        temperature_k=clock.trace(heater, "temperature_k"),
        target_k=clock.trace(heater, "target_k"),
        voltage_v=clock.trace(cell, "voltage_v", broken=True),
        current_ua=clock.trace(cell, "current_a", 1e6, broken=True),
        charge_uah=clock.trace(cell, "charge_coulomb", 1.0 / COULOMB_PER_UAH),
        charge_sigma_uah=clock.trace(stamps, "charge_sigma_coulomb", 1.0 / COULOMB_PER_UAH),
        end=clock.minutes(max([*times, *ends, *begun])), planned=planned(plan(run, summary)),
    )  # fmt: skip


def planned(steps: Sequence[Planned]) -> tuple[Bar, ...]:
    """Return the steps as they were expected; none when one of them cannot be placed in time."""
    bars = []
    for step in steps:
        lane = LANES.get(step.do)
        if lane is None or not step.expected_s:
            continue
        if step.begin_s is None or step.times > 1:
            return ()
        begin = step.begin_s / 60.0
        bars.append(Bar(step.title, step.do, begin, begin + step.expected_s / 60.0, lane))
    return tuple(bars)


def _zero_s(summary: Plain, times: Sequence[float] = ()) -> float:
    """Return the lab time from which everything that is shown counts: when the first step began."""
    begun = [step["begun_lab_s"] for step in summary["steps"]]
    return float(min(begun or times, default=0.0))


class _Clock:
    """Minutes since the run began."""

    def __init__(self, zero_s: float) -> None:
        self._zero_s = zero_s

    def minutes(self, lab_s: float) -> float:
        return (lab_s - self._zero_s) / 60.0

    def end(self, step: Plain) -> float | None:
        """Return when a step ended, None when it never did."""
        return None if step["ended_lab_s"] is None else self.minutes(step["ended_lab_s"])

    def trace(
        self, bodies: list[dict[str, Any]], key: str, scale: float = 1.0, *, broken: bool = False
    ) -> Trace:
        """Return a reading in time; ``broken`` leaves it open where readings are missing."""
        used = [body for body in bodies if body["lab_s"] is not None]
        t = np.array([self.minutes(body["lab_s"]) for body in used])
        v = np.array([np.nan if body.get(key) is None else scale * body[key] for body in used], float)
        if broken and t.size > 2:
            step = np.diff(t)
            holes = np.flatnonzero(step > LOST_PERIODS * max(float(np.median(step)), 1e-9)) + 1
            t, v = np.insert(t, holes, t[holes - 1]), np.insert(v, holes, np.nan)
        return Trace(t, v)


def _marks(run: RunFiles, summary: Plain, passes: list[dict[str, Any]], clock: _Clock) -> Iterator[Mark]:
    for body in passes:
        if body["lab_s"] is not None:
            kind = "pass" if body["good"] else "quarantined"
            yield Mark(clock.minutes(body["lab_s"]), kind, f"scan {body['scan']} pass {body['n']}")
    for trip in summary["trips"]:
        if trip.get("lab_s") is not None:
            yield Mark(clock.minutes(trip["lab_s"]), "trip", str(trip.get("text", "")))
    for body in summary.get("commands", []):
        if body.get("lab_s") is not None:
            yield Mark(clock.minutes(body["lab_s"]), "command", str(body.get("do", "")))
    phase = ""
    for body in run.events("cell_event", "cell"):
        now = str(body.get("detail", "")) if body.get("event") == "phase" else ""
        if now == "cv" and phase == "cc" and body["lab_s"] is not None:
            yield Mark(clock.minutes(body["lab_s"]), "switch", "CC → CV")
        phase = now or phase


def _gaps(gaps: list[dict[str, Any]], clock: _Clock, last_s: float) -> list[tuple[float, float]]:
    """Return stretches without data; one that nobody ended lasts to the end of the run."""
    open_s: dict[str, float] = {}
    found = []
    for gap in gaps:
        if gap["module"] != "beam" or gap.get("lab_s") is None:
            continue
        if not gap.get("end"):
            open_s.setdefault(gap["module"], gap["lab_s"])
        elif gap["module"] in open_s:
            found.append((clock.minutes(open_s.pop(gap["module"])), clock.minutes(gap["lab_s"])))
    return found + [(clock.minutes(begin), clock.minutes(last_s)) for begin in open_s.values()]


# --- pictures ------------------------------------------------------------------------------------------


def maps(run: RunFiles, missing: list[str], stream: str = "map") -> Iterator[MapView]:
    """Yield the element maps (or those of the local state of charge) of every scan that counts."""
    wanted = _elements(run)
    for product, fields in _loaded(run, stream, missing, order=wanted if stream == "map" else None):
        scale, unit = (100.0, "%") if stream == "soc" else (1.0, f"{fields['unit']} per pixel")
        yield MapView(
            element=product.what or "SoC", scan=str(fields["name"]), purpose=str(fields["purpose"]),
            values=scale * np.asarray(fields["values"], float), unit=unit,
            extent_um=_extent(fields["x_um"], fields["y_um"]), passes=len(fields["passes"]),
            geometry=geometry(run, product.scan), sigma=_typical(fields, scale) if stream == "soc" else None,
        )  # fmt: skip


def profiles(run: RunFiles, missing: list[str]) -> Iterator[ProfileView]:
    """Yield the profiles of every scan that counts."""
    for product, fields in _loaded(run, "profile", missing, order=_elements(run)):
        size = np.asarray(fields["values"]).size
        yield ProfileView(
            element=product.what, scan=str(fields["name"]), purpose=str(fields["purpose"]),
            position_um=np.asarray(fields["position_um"], float), value=np.asarray(fields["values"], float),
            sigma=np.asarray(fields["sigma"], float),
            sigma_sys=np.asarray(fields.get("sigma_sys", np.zeros(size)), float), unit=str(fields["unit"]),
        )  # fmt: skip


def spectra(run: RunFiles, summary: Plain, missing: list[str]) -> Iterator[SpectrumView]:
    """Yield the spectra of every scan and every background."""
    beam_s = {scan["scan"]: scan.get("live_s") for scan in summary["scans"]}
    windows = _windows(run)
    for product, fields in _loaded(run, "spectrum", missing, everything=True):
        off = fields["purpose"] == "background"
        counts = fields["beam_off"] if off else fields["values"]
        view = SpectrumView(
            detector=product.what, scan=str(fields["name"]), purpose=str(fields["purpose"]),
            energy_kev=np.asarray(fields["energy_kev"], float), counts=np.asarray(counts, float),
            live_s=None if off else beam_s.get(product.scan) or None,
            windows=tuple(w for detector, w in windows if detector == product.what),
        )  # fmt: skip
        yield view if off else replace(view, fits=_fits(run, view))


def geometry(run: RunFiles, scan: int | None) -> Geometry | None:
    """Return where the layers lie in a scan, None when it could not be levelled."""
    scans = (run.result or {}).get("scans", [])
    found = next((entry.get("geometry") for entry in scans if entry.get("scan") == scan), None)
    if not found:
        return None
    names = [layer.name for layer in run.experiment.sample.layers] if run.experiment is not None else []
    bounds = [pair or [None, None] for pair in found.get("layers_um", [])]
    layers = tuple(
        (name, -math.inf if low is None else low, math.inf if high is None else high)
        for name, (low, high) in zip(names, bounds, strict=False)
        if low is None or high is None or high > low
    )
    between = [
        0.5 * (below[1] + above[0])
        for below, above in pairwise(bounds)
        if below[1] is not None and above[0] is not None and above[0] > below[1]
    ]
    return Geometry(
        math.radians(found["angle_deg"]), found.get("pivot_x_um", 0.0), found["interface_um"],
        tuple(between), layers,
    )  # fmt: skip


# --- state of charge -----------------------------------------------------------------------------------


def points(run: RunFiles, summary: Plain) -> Iterator[Point]:
    """Yield the state of charge of every host layer in every group of passes, from both sides."""
    result = run.result or {}
    clock = _Clock(_zero_s(summary))
    purposes = {scan["name"]: scan.get("purpose", "") for scan in summary["scans"]}
    series = result.get("series") or {}
    for scan in result.get("scans", []):
        if scan.get("purpose") in UNEXPOSED:
            continue
        groups = series.get(scan["name"]) or [scan]
        for group in groups:
            for layer in group.get("layers", []):
                point = _point(layer, group.get("interval") or {}, clock, purposes.get(scan["name"], ""))
                if point is not None:
                    yield point


def _point(layer: Plain, interval: Plain, clock: _Clock, purpose: str) -> Point | None:
    beam, charge = layer["quantities"].get("soc_beam"), layer["quantities"].get("soc_charge", {})
    error = total(beam or {})
    if beam is None or error is None:
        return None
    times = interval.get("lab_s")
    own = total(charge)
    return Point(
        layer=str(layer["name"]), scan=str(interval.get("scan", "")), purpose=purpose,
        passes=tuple(interval.get("passes") or (0, 0)),
        minutes=None if not times else (clock.minutes(times[0]), clock.minutes(times[-1])),
        beam=100.0 * beam["value"], beam_stat=100.0 * beam["sigma_stat"], beam_total=100.0 * error,
        charge=None if own is None else 100.0 * charge["value"],
        charge_total=None if own is None else 100.0 * own,
    )  # fmt: skip


# --- inside --------------------------------------------------------------------------------------------


def _loaded(
    run: RunFiles, kind: str, missing: list[str], *, order: list[str] | None = None, everything: bool = False
) -> Iterator[tuple[Product, dict[str, Any]]]:
    """Yield the products of one kind with their fields, those of ``order`` in that order.

    A damaged one is named under ``missing``; without ``everything`` scans that are not compared are left out.
    """
    chosen = [product for product in run.products if product.kind == kind]
    if order is not None:
        chosen = sorted((p for p in chosen if p.what in order), key=lambda p: order.index(p.what))
    for product in chosen:
        try:
            fields = product.load()
            if everything or fields["purpose"] not in UNEXPOSED:
                yield product, fields
        except (ValueError, KeyError) as error:
            missing.append(f"{product.path.name}: {error}")


def _elements(run: RunFiles) -> list[str]:
    """Return the elements that are analysed, in the order of the experiment file."""
    if run.experiment is None:
        return [product.what for product in run.products if product.kind == "profile"]
    return [line.element for line in run.experiment.analysis.lines] if run.experiment.analysis else []


def _windows(run: RunFiles) -> list[tuple[str, Window]]:
    """Return detector and window of every line, as the reduction says it used them."""
    lines = ((run.result or {}).get("provenance") or {}).get("lines", [])
    return [(line["detector"], _window(line)) for line in lines]


def _fits(run: RunFiles, view: SpectrumView) -> dict[str, tuple[Floats, Floats, Floats]]:
    """Return the lithium line of the station fitted to a spectrum, by element."""
    told = next((message.get("settings") for message in run.index if message.get("k") == "run"), None) or {}
    line = told.get("lithium_line")
    window = next((window for window in view.windows if window.element == "Li"), None)
    if not line or window is None:
        return {}
    slope = ((run.result or {}).get("continuum_slope_per_kev") or {}).get("value") or 0.0
    fit = fitted(view, window, line["centroid_kev"], line["fwhm_kev"], slope)
    return {} if fit is None else {"Li": fit}


def _window(line: Plain) -> Window:
    low, high = line["window_kev"]
    bands = tuple((float(a), float(b)) for a, b in line["bands_kev"])
    return Window(line["element"], str(line.get("line") or ""), low, high, bands)


def _typical(fields: Plain, scale: float) -> float | None:
    """Return the median error of a map, None when it has none."""
    sigma = np.asarray(fields.get("sigma", []), float)
    known = sigma[np.isfinite(sigma)]
    return scale * float(np.median(known)) if known.size else None


def _extent(x_um: Any, y_um: Any) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of a raster from the centres of its pixels."""
    edges = []
    for centres in (np.asarray(x_um, float), np.asarray(y_um, float)):
        half = 0.5 * (centres[-1] - centres[0]) / max(centres.size - 1, 1)
        edges += [float(centres[0] - half), float(centres[-1] + half)]
    return edges[0], edges[1], edges[2], edges[3]
