"""What each figure shows, in sentences made from its numbers: for those who hear the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from controller.offline import words
from controller.offline.view import Timeline, Trace, View

POINTS_TOLD = 4  # of a series: more is listening to a table


def described(name: str, view: View) -> str:
    """Return what a figure shows; empty for one that nobody has described."""
    make = _MAKERS.get(name)
    return " ".join(make(view)) if make is not None else ""


def _timeline(view: View) -> Iterator[str]:
    run = view.timeline
    if run is None:
        return
    yield f"{len(run.bars)} steps in {words.fixed(run.end, 1)} minutes of lab time."
    for trace, what, unit, digits in _traces(run):
        known = trace.value[np.isfinite(trace.value)]
        if known.size:
            low, high, last = (words.fixed(float(v), digits) for v in (known.min(), known.max(), known[-1]))
            yield f"{what} between {low} and {high} {unit}, at the end {last} {unit}."
    good = sum(mark.kind == "pass" for mark in run.marks)
    bad = sum(mark.kind == "quarantined" for mark in run.marks)
    if good or bad:
        yield f"{good} good passes, {bad} that do not count."
    for mark in run.marks:
        if mark.kind == "switch":
            yield f"From constant current to constant voltage after {words.fixed(mark.minutes, 1)} minutes."
        elif mark.kind == "trip":
            yield f"Trip after {words.fixed(mark.minutes, 1)} minutes: {mark.text}."


def _traces(run: Timeline) -> tuple[tuple[Trace, str, str, int], ...]:
    return (
        (run.temperature_k, "Temperature", "K", 1), (run.voltage_v, "Voltage", "V", 3),
        (run.current_ua, "Current", "µA", 2), (run.charge_uah, "Charge", "µAh", 3),
    )  # fmt: skip


def _soc(view: View) -> Iterator[str]:
    for point in (*view.points[:-1][: POINTS_TOLD - 1], *view.points[-1:]):
        beam = f"{words.fixed(point.beam, 1)} ± {words.fixed(point.beam_total, 1)} % from the beam"
        charge = "" if point.charge is None else f", {words.fixed(point.charge, 1)} % from the charge"
        passes = f"passes {point.passes[0]} to {point.passes[-1]}"
        yield f"{point.layer}, scan {point.scan}, {passes}: {beam}{charge}."


def _maps(view: View) -> Iterator[str]:
    for one in view.maps:
        total = float(np.nansum(one.values))
        rows, columns = one.values.shape
        where = _brightest(one.values, one.extent_um)
        yield (
            f"{one.element}, scan {one.scan}: {words.count(total)} net counts in {columns} times {rows} "
            f"pixels and {one.passes} passes, most of them around y = {words.fixed(where, 0)} µm."
        )


def _soc_maps(view: View) -> Iterator[str]:
    for one in view.soc_maps:
        known = one.values[np.isfinite(one.values)]
        if known.size:
            low, high = words.fixed(float(known.min()), 0), words.fixed(float(known.max()), 0)
            error = "" if one.sigma is None else f", one sigma of a region {words.fixed(one.sigma, 0)} %"
            yield f"Scan {one.scan}: between {low} and {high} %{error}."


def _overviews(view: View) -> Iterator[str]:
    for one in view.overviews:
        rows, columns = one.values.shape
        known = one.values[np.isfinite(one.values)]
        most = float(known.max(initial=0.0))
        highest = words.powers(most) if most >= 1e6 else words.count(most)
        yield (
            f"{one.name}, {one.what}: {columns} times {rows} pixels of {one.tiles} of {one.of} tiles, at "
            f"most {highest} {one.unit} in one."
        )


def _profiles(view: View) -> Iterator[str]:
    for one in view.profiles:
        if not np.isfinite(one.value).any():
            continue
        top = int(np.nanargmax(one.value))
        error = float(np.hypot(one.sigma[top], np.nan_to_num(one.sigma_sys[top])))
        digits = words.digits_of(error)
        value = f"{words.fixed(float(one.value[top]), digits)} ± {words.fixed(error, digits)}"
        place = words.fixed(float(one.position_um[top]), 0)
        yield f"{one.element}, scan {one.scan}: highest at {place} µm with {value} {one.unit}."


def _lithium(view: View) -> Iterator[str]:
    for one in view.spectra:
        window = next((w for w in one.windows if w.element == "Li"), None)
        if window is not None:
            inside = (one.energy_kev >= window.low_kev) & (one.energy_kev < window.high_kev)
            number = words.count(float(one.counts[inside].sum()))
            yield f"Scan {one.scan}: {number} counts from {window.low_kev:g} to {window.high_kev:g} keV."


def _spectra(view: View) -> Iterator[str]:
    for one in view.spectra:
        if one.counts.sum() > 0:
            peak = float(one.energy_kev[int(np.argmax(one.counts))])
            yield (
                f"{one.detector}, scan {one.scan}: {words.count(float(one.counts.sum()))} counts, most of "
                f"them per channel at {words.fixed(peak, 1)} keV."
            )


def _impedance(view: View) -> Iterator[str]:
    for one in view.sweeps:
        told = one.told
        values = [f"{q} {words.cells(q, v).short}" for q, v in told["quantities"].items()]
        yield f"Sweep {told['number']}: {told['points']} points" + (
            f", {', '.join(values)}." if values else "."
        )


def _radiographs(view: View) -> Iterator[str]:
    for state in view.radiographs:
        names = ", ".join(str(region["name"]) for region in state.get("regions", ()))
        yield f"{state['name']}: {state['frames']} images, regions {names}."


def _brightest(values: np.ndarray, extent_um: tuple[float, float, float, float]) -> float:
    """Return the middle of what was counted along y, um."""
    rows = np.nansum(np.clip(values, 0.0, None), axis=1)
    y = np.linspace(extent_um[2], extent_um[3], rows.size)
    whole = float(rows.sum())
    return float((rows * y).sum() / whole) if whole > 0.0 else float(y.mean())


_MAKERS: dict[str, Callable[[View], Iterator[str]]] = {
    "timeline": _timeline, "soc": _soc, "maps": _maps, "soc_maps": _soc_maps, "overviews": _overviews,
    "profiles": _profiles, "lithium": _lithium, "spectra": _spectra, "impedance": _impedance,
    "radiograph_profiles": _radiographs,
    "radiograph_regions": _radiographs,
}  # fmt: skip
