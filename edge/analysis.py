"""All scans of a run to results: quantities per layer with both errors, series, registration, checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge.appearance import against_reference
from edge.deadtime import DeadTime
from edge.drift import Gain
from edge.events import Segmentation
from edge.intervals import Interval, charge_side, interval_of
from edge.ion_beam_residual import unexplained
from edge.layer_result import LayerResult, Variants, View
from edge.line_counts import Slope, continuum_slope, placement_error
from edge.lithium import (
    Measured,
    Method,
    Pair,
    combined_systematic,
    layer_quantities,
    prior_systematic,
    through_table,
    unit_of,
)
from edge.measure import (
    BeamOff,
    beam_off,
    combined_dead_time,
    fitted_lines,
    measured,
    scan_dead_time,
    whole,
)
from edge.placement import Placement, place_reference, place_scan, visible
from edge.scan_data import ScanData
from edge.settings import Settings
from edge.uncertainty import Estimate

SERIES_BINS = 8


class Analysis:
    """Reduces scans; keeps what is expensive (placements) between calls for scans that did not change."""

    def __init__(self, settings: Settings, segmentations: Mapping[str, Segmentation]) -> None:
        self.settings = settings
        self.segmentations = segmentations
        self.scans: Mapping[int, ScanData] = {}
        self.gains: Mapping[str, Gain] = {}
        self.dead: dict[str, DeadTime] = {}
        self.slope = Slope()
        self._dead_times: dict[tuple[int, str], tuple[tuple[int, ...], DeadTime | None]] = {}
        self._placements: dict[int, tuple[tuple[int, ...], Placement | str]] = {}
        self._unexplained: dict[int, tuple[tuple[int, ...], dict[str, list[dict[str, Any]]]]] = {}

    def update(self, scans: Mapping[int, ScanData], gains: Mapping[str, Gain]) -> None:
        """Take the present state of all scans; nothing of it is changed."""
        self.scans, self.gains = scans, gains
        used = [scan for scan in scans.values() if scan.blocks]
        self.dead = {name: self._dead_time(used, name) for name in self.segmentations}
        self.slope = self._continuum(used)

    @property
    def reference(self) -> ScanData | None:
        """The reference scan: the first of its name with a good pass."""
        named = (s for s in self.scans.values() if s.start.name == self.settings.reference and s.blocks)
        return next((scan for scan in named if scan.start.grid is not None), None)

    def placement(self, scan: ScanData) -> Placement | str:
        """Return where the layers lie in a scan, or a sentence saying why that is not known."""
        reference = self.reference
        key = tuple(scan.passes) + (-1,) + (tuple(reference.passes) if reference is not None else ())
        known = self._placements.get(scan.start.scan)
        if known is not None and known[0] == key:
            return known[1]
        found: Placement | str
        try:
            if reference is None or scan is reference:
                found = place_reference(self.settings, self.segmentations, scan)
            else:
                base = self.placement(reference)
                found = base if isinstance(base, str) else self._placed(scan, base)
        except ValueError as error:
            found = f"{scan.start.name}: {error}"
        self._placements[scan.start.scan] = (key, found)
        return found

    def layers(self, scan: ScanData, keys: Sequence[int] | None = None) -> list[LayerResult]:
        """Return every layer of a scan, or of some of its blocks.

        Raises:
            ValueError: if the scan cannot be levelled.
        """
        placement = self._known(scan)
        reference = self.reference
        base = None if reference is None or reference is scan else reference
        bounds = self._bounds(scan, placement, base)
        view = self._view(scan, placement, base, bounds, keys)
        variants = self._variants(scan, placement, base, bounds) if keys is None else {}

        found = []
        for index in range(len(self.settings.layers)):
            if bounds[index][1] <= bounds[index][0]:
                continue
            found.append(self._layer(index, scan, view, variants, keys, base))
        return found

    def bounds(self, scan: ScanData) -> tuple[tuple[float, float], ...]:
        """Return the layers as they are counted in a scan: cut to what it and the reference both show.

        Raises:
            ValueError: if one of them cannot be levelled.
        """
        reference = self.reference
        base = None if reference is None or reference is scan else reference
        return self._bounds(scan, self._known(scan), base)

    def series(self, scan: ScanData) -> list[tuple[Interval, list[LayerResult]]]:
        """Return the scan in time: neighbouring blocks in up to ``SERIES_BINS`` bins of equal passes.

        Errors are statistical; what is common to the whole scan stands with the scan.
        """
        keys = sorted(scan.blocks)
        if len(keys) < 2:
            return []
        groups = [part.tolist() for part in np.array_split(keys, min(SERIES_BINS, len(keys)))]
        return [(self.interval(scan, group), self.layers(scan, group)) for group in groups]

    def unexplained(self, scan: ScanData) -> dict[str, list[dict[str, Any]]]:
        """Return the lines that no known element explains, by X-ray detector; kept while it is the same."""
        passes = tuple(scan.passes)
        known = self._unexplained.get(scan.start.scan)
        if known is None or known[0] != passes:
            found = {
                name: unexplained(self.settings, detector, scan)
                for name, detector in self.settings.detectors.items()
                if detector.kind == "sdd"
            }
            known = self._unexplained[scan.start.scan] = passes, found
        return known[1]

    def interval(self, scan: ScanData, keys: Sequence[int] | None = None) -> Interval:
        """Return which passes that is, and the state of the cell over them."""
        return interval_of(scan, keys, self.reference, self.settings)

    # --- inside ------------------------------------------------------------------------------------------

    def _dead_time(self, scans: Sequence[ScanData], detector: str) -> DeadTime:
        """Combine the dead times of all scans; a scan that has not changed is not fitted again."""
        found = []
        for scan in scans:
            key, passes = (scan.start.scan, detector), tuple(scan.passes)
            known = self._dead_times.get(key)
            if known is None or known[0] != passes:
                known = passes, scan_dead_time(self.settings, scan, detector)
                self._dead_times[key] = known
            found.append(known[1])
        return combined_dead_time(found, self.settings.priors["dead_time"])

    def _known(self, scan: ScanData) -> Placement:
        placement = self.placement(scan)
        if isinstance(placement, str):
            raise ValueError(placement)  # noqa: TRY004  # a sentence about the data, not a wrong type
        return placement

    def _placed(self, scan: ScanData, base: Placement) -> Placement:
        return place_scan(self.settings, self.segmentations, scan, base)

    def _bounds(
        self, scan: ScanData, placement: Placement, base: ScanData | None
    ) -> tuple[tuple[float, float], ...]:
        ranges = [visible(scan, placement)]
        if base is not None:
            ranges.append(visible(base, self._known(base)))
        return placement.visible_bounds_um(ranges)

    def _backgrounds(self, scan: ScanData) -> list[ScanData]:
        """Return the background scans next before and next after a scan."""
        known = [s for s in self.scans.values() if s.start.grid is None and s.blocks]
        before = [s for s in known if s.start.scan < scan.start.scan][-1:]
        after = [s for s in known if s.start.scan > scan.start.scan][:1]
        return [*before, *after]

    def _off(self, scans: Sequence[ScanData]) -> dict[str, BeamOff]:
        return {name: beam_off(scans, name, s.size) for name, s in self.segmentations.items()}

    def _measured(
        self,
        scan: ScanData,
        placement: Placement,
        bounds: Sequence[tuple[float, float]],
        keys: Sequence[int] | None = None,
        *,
        total: bool = False,
        moved: tuple[float, float] = (0.0, 0.0),
        dead: Mapping[str, float] | None = None,
    ) -> Measured:
        """Return the counts in the layers; ``total`` takes all blocks as one, ``moved`` turns and shifts."""
        dead_s = {name: d.tau_s for name, d in self.dead.items()} | dict(dead or {})
        if total:
            parts = [(whole(scan), placement.pose.moved(*moved))]
        else:
            chosen = sorted(scan.blocks) if keys is None else keys
            parts = [(scan.blocks[key], placement.pose_of(key)) for key in chosen]
        off = self._off([scan, *self._backgrounds(scan)])
        return measured(self.settings, self.segmentations, scan, parts, bounds, dead_s, off)

    def _view(
        self,
        scan: ScanData,
        placement: Placement,
        base: ScanData | None,
        bounds: Sequence[tuple[float, float]],
        keys: Sequence[int] | None,
    ) -> View:
        method = Method(self.settings, self.segmentations, self.slope.value)
        now = self._measured(scan, placement, bounds, keys)
        then = self._measured(base, self._known(base), bounds) if base is not None else None
        if base is not None:
            others = self._backgrounds(base)
            both = self._off([s for s in self._backgrounds(scan) if any(s is other for other in others)])
            now = replace(now, beam_off_common={name: off.counts for name, off in both.items()})
        fit = [line.element for line in self.settings.lines if line.method == "fit"]
        if fit and keys is None:
            now = replace(now, fitted=self._fitted(scan, placement, bounds, fit))
            if base is not None and then is not None:
                then = replace(then, fitted=self._fitted(base, self._known(base), bounds, fit))
        return View(method, now, then)

    def _fitted(
        self, scan: ScanData, placement: Placement, bounds: Sequence[tuple[float, float]], fit: Sequence[str]
    ) -> dict[str, Pair]:
        return fitted_lines(self.settings, self.segmentations, scan, placement, bounds, self.slope.value, fit)

    def _variants(
        self,
        scan: ScanData,
        placement: Placement,
        base: ScanData | None,
        bounds: Sequence[tuple[float, float]],
    ) -> Variants:
        """Return, per nuisance, the view at plus and at minus one sigma; "central" is the view they vary."""
        method = Method(self.settings, self.segmentations, self.slope.value)
        other = self._known(base) if base is not None else None
        now = self._measured(scan, placement, bounds, total=True)
        then = None
        if base is not None and other is not None:
            then = self._measured(base, other, bounds, total=True)
        found = {"central": (View(method, now, then),) * 2}

        def both(name: str, make: list[View]) -> None:
            found[name] = (make[0], make[1])

        signs = (1.0, -1.0)
        both(
            "background_slope",
            [View(replace(method, slope=self.slope.value + s * self.slope.sigma), now, then) for s in signs],
        )
        for kind, which in (("angle", 0), ("shift", 1)):

            def moved(target: ScanData, place: Placement, sign: float, which: int = which) -> Measured:
                sigma = place.pose.sigma_angle_rad if which == 0 else place.pose.sigma_position_um
                step = (sign * sigma, 0.0) if which == 0 else (0.0, sign * sigma)
                return self._measured(target, place, bounds, total=True, moved=step)

            both(kind, [View(method, moved(scan, placement, s), then) for s in signs])
            if base is not None and other is not None:
                both(f"{kind}_reference", [View(method, now, moved(base, other, s)) for s in signs])
        for name, dead in self.dead.items():
            views = []
            for s in signs:
                tau = {name: max(dead.tau_s + s * dead.sigma_s, 0.0)}
                varied = self._measured(scan, placement, bounds, total=True, dead=tau)
                old = None
                if base is not None and other is not None:
                    old = self._measured(base, other, bounds, total=True, dead=tau)
                views.append(View(method, varied, old))
            both(f"dead_time_{name}", views)
        return found

    def _layer(
        self,
        index: int,
        scan: ScanData,
        view: View,
        variants: Variants,
        keys: Sequence[int] | None,
        base: ScanData | None,
    ) -> LayerResult:
        layer = self.settings.layers[index]
        pairs = layer_quantities(view.method, layer, index, view.now, view.reference)
        varied = {
            name: tuple(layer_quantities(v.method, layer, index, v.now, v.reference) for v in pair)
            for name, pair in variants.items()
        }
        estimates: dict[str, Estimate] = {}
        budgets: dict[str, dict[str, float]] = {}
        for name, (value, sigma) in pairs.items():
            central = float(value)
            if name in ("x", "soc_beam"):
                effects = self._table_effects(name, float(pairs["li_relative"][0]), budgets["li_relative"])
            else:
                effects = self._effects(name, varied)
                effects |= prior_systematic(self.settings, name, central)
                effects |= self._scale_effects(name, central, layer.normaliser, base is not None)
            budgets[name] = effects
            estimates[name] = Estimate(central, float(sigma), _quadrature(effects), unit_of(name))
        if layer.kind == "host" and base is not None:
            charge = charge_side(scan, keys, base, self.settings)
            if charge is not None:
                estimates["soc_charge"] = charge
        shown = budgets.get("x", budgets.get("li_relative", budgets.get("li_per_charge", {})))
        before, gained = against_reference(self.settings, index, view, variants)
        return LayerResult(layer.name, layer.kind, estimates, shown, layer.normaliser, before, gained)

    @staticmethod
    def _effects(name: str, varied: Mapping[str, tuple[dict[str, Pair], ...]]) -> dict[str, float]:
        if name not in varied.get("central", ({},))[0]:
            return {}
        central = float(varied["central"][0][name][0])
        pairs = {
            nuisance: (float(plus[name][0]), float(minus[name][0]))
            for nuisance, (plus, minus) in varied.items()
            if nuisance != "central"
        }
        return combined_systematic(central, pairs)

    def _table_effects(self, name: str, signal: float, effects: Mapping[str, float]) -> dict[str, float]:
        table = self.settings.table
        if table is None:
            return {}
        on_x = through_table(table, signal, effects)
        return on_x if name == "x" else {key: 2.0 * effect for key, effect in on_x.items()}

    def _scale_effects(
        self, name: str, value: float, normaliser: str | None, two_scans: bool
    ) -> dict[str, float]:
        """Return the effect of the error of the energy scale, through the placement of the windows."""
        errors = {}
        for line in self.settings.lines:
            gain = self.gains.get(line.detector, Gain())
            sigma_kev = gain.sigma * line.window.centroid_kev
            table = self.segmentations[line.detector].projection
            if line.method == "projection" and table is not None:
                errors[line.element] = table.placement_error(line.window, sigma_kev)
            else:
                errors[line.element] = placement_error(line.window, sigma_kev)
        element = next((e for e in errors if name.startswith(f"{e.lower()}_")), "Li")
        effect = errors[element]
        if name in ("li_per_normaliser", "li_relative") and normaliser in errors:
            effect = math.hypot(effect, errors[normaliser])
        if name.startswith("li_relative") and two_scans:
            effect *= math.sqrt(2.0)
        return {"energy_scale": effect * abs(value)}

    def _continuum(self, scans: Sequence[ScanData]) -> Slope:
        """Return the slope of the continuum in the lithium band, from all beam-on spectra together."""
        line = self.settings.line("Li")
        prior = self.settings.priors["background_slope_per_kev"]
        if line is None:
            return Slope()
        detector = self.settings.detectors[line.detector]
        beam_on = [s for s in scans if s.start.grid is not None and line.detector in s.spectra]
        if not beam_on:
            return Slope(0.0, prior)
        spectrum = np.sum([s.spectra[line.detector].on for s in beam_on], axis=0)
        gain = self.gains.get(line.detector, Gain()).value
        energy = np.array([detector.energy_kev(c, gain) for c in range(detector.channels)])
        band = (line.window.bands_kev[0][0], line.window.bands_kev[-1][1])
        return continuum_slope(spectrum, energy, band, prior)


def _quadrature(effects: Mapping[str, float]) -> float:
    return math.sqrt(sum(effect**2 for effect in effects.values()))
