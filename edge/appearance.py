"""Lithium where the reference scan had none: plated on the way, or astray. How many counts, and how sure.

A ratio to nothing is no number, so such a layer has no relative signal, no x, no SoC. What it has is counts:
those beyond what the reference shows for the same beam charge in the same region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edge.ion_beam_detection import decide_line
from edge.layer_result import LayerResult, Variants, View
from edge.lithium import Measured, Method, Pair, combined_systematic, common_variance, net_counts
from edge.settings import Settings
from edge.uncertainty import Estimate

GAINED = "gained"


def gained(method: Method, index: int, now: Measured, reference: Measured) -> Pair | None:
    """Return the lithium counts of a layer beyond those of the reference for the same beam charge.

    d = n - r n_ref with r = q / q_ref, the live charges in the layer;
    var d = var n + r^2 var n_ref - 2 r cov, the covariance being that of shared beam-off counts.

    Args:
        method: settings and slope.
        index: of the layer.
        now: the scan.
        reference: the reference scan in the same regions.

    Returns:
        (d, sigma), counts; None where the beam charge of either is not known or zero.
    """
    line = method.settings.line("Li")
    if line is None or not (now.charge_known and reference.charge_known):
        return None
    charge, before = (m.live_charge[line.detector][..., index] for m in (now, reference))
    if not (float(charge) > 0.0 and float(before) > 0.0):
        return None
    ratio = charge / before
    net, then = net_counts(method, line, now), net_counts(method, line, reference)
    shared = common_variance(method, now, reference)
    covariance = 0.0 if shared is None else shared[..., index]
    variance = net[1][..., index] ** 2 + (ratio * then[1][..., index]) ** 2 - 2.0 * ratio * covariance
    return net[0][..., index] - ratio * then[0][..., index], variance.clip(min=0.0) ** 0.5


def against_reference(
    settings: Settings, index: int, view: View, variants: Variants
) -> tuple[dict[str, Estimate], Estimate | None]:
    """Return the counts of the reference in the region of a layer, by name, and what was gained since.

    Args:
        settings: of the analysis.
        index: of the layer.
        view: the scan and its reference.
        variants: both at plus and minus one sigma of each nuisance; none: statistical errors only.
    """
    found = _pairs(view, index)
    varied = {name: [_pairs(one, index) for one in pair] for name, pair in variants.items()}
    estimates = {}
    for name, (value, sigma) in found.items():
        moves = {
            nuisance: (float(plus[name][0]), float(minus[name][0]))
            for nuisance, (plus, minus) in varied.items()
            if nuisance != "central"
        }
        base = float(varied["central"][0][name][0]) if varied else 0.0
        effects = combined_systematic(base, moves)
        if name == GAINED:  # the ratio of the charges is as good as the monitor of the beam
            effects["beam_charge"] = (
                math.sqrt(2.0) * settings.priors["beam_charge"] * abs(_scaled(view, index))
            )
        total = math.sqrt(sum(effect**2 for effect in effects.values()))
        estimates[name] = Estimate(float(value), float(sigma), total, "counts")
    more = estimates.pop(GAINED, None)
    return estimates, more


def appearance(
    now: Estimate | None, before: Estimate | None, more: Estimate | None, kind: str = "separator"
) -> dict[str, Any] | None:
    """Return what is said of lithium that has appeared in a layer, None where none has.

    It has appeared where its line is not detected in the reference, is detected now, and what was gained for
    the same beam charge is a detection, too: a longer scan that finds what was always there is no appearance.
    All three by the rule of every line (``decide_line``).

    Where the reference shows a little (the salt of a polymer), more than as much again must have come: its
    ratio has the error of almost nothing and would hide that. Hosts are told by their ratio then.

    Args:
        now: net lithium counts.
        before: those of the reference in the same region.
        more: those gained, see ``gained``.
        kind: of the layer.

    Returns:
        Plain values: ``counts``, ``gained``, ``reference`` (estimates), ``none_before``,
        ``reference_below`` (upper limit of its counts), ``threshold`` of the gain, ``sigmas`` (the gain over
        its error if nothing had been gained), ``text``.

    Source: ISO 11929-1:2019; L. A. Currie, Anal. Chem. 40 (1968) 586.
    """
    if now is None or before is None or more is None:
        return None
    then = decide_line("Li", before).decision
    gain = decide_line("Li", more).decision
    if not gain.detected or not decide_line("Li", now).decision.detected:
        return None
    if then.detected and (kind == "host" or more.value < now.value - more.value):
        return None
    sigmas = gain.value / math.sqrt(gain.variance_at_zero)
    counts = f"{now.value:.0f} ± {now.total:.0f} counts"
    had = f"{before.value:.0f} ± {before.total:.0f}" if then.detected else "none"
    text = f"lithium appeared: {counts}, {had} in the reference; {sigmas:.1f} sigma"
    return {
        "counts": now.to_dict(), "gained": more.to_dict(), "reference": before.to_dict(),
        "none_before": not then.detected, "reference_below": then.upper_limit,
        "threshold": gain.threshold, "sigmas": sigmas, "text": text,
    }  # fmt: skip


def part_of(layer: LayerResult, whole: LayerResult | None) -> LayerResult:
    """Return a part of a scan with its share of the systematic errors of the whole, of what is compared here.

    They were not computed for parts; those of counts grow as the beam charge does.
    """
    if layer.gained is None or whole is None or whole.gained is None:
        return layer
    charges = [_charge_nc(one) for one in (layer, whole)]
    share = charges[0] / charges[1] if charges[1] > 0.0 else 1.0
    before = {
        name: replace(one, sigma_sys=whole.before[name].sigma_sys)
        for name, one in layer.before.items()
        if name in whole.before
    }
    more = replace(layer.gained, sigma_sys=share * whole.gained.sigma_sys)
    return replace(layer, before=before, gained=more)


def first_seen(scans: Sequence[Mapping[str, Any]], series: Mapping[str, Any]) -> None:
    """Add to each appearance ``first``: the interval in which it was first seen, of the finest there is.

    Args:
        scans: of a result, in order, with ``layers``.
        series: of a result: by name of the scan, intervals with ``layers``.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for scan in scans:
        parts = [layer for one in series.get(scan["name"], ()) for layer in one["layers"]]
        here = [layer for layer in scan["layers"] if layer["appeared"]]
        names = {layer["name"] for layer in here}
        for layer in [one for one in parts if one["appeared"] and one["name"] in names] + here:
            found.setdefault(layer["name"], layer["interval"])
            layer["appeared"]["first"] = found[layer["name"]]


def gone_again(scans: Sequence[Mapping[str, Any]], final: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for lithium that had appeared in a scan and that the last one does not show."""
    last = {layer["name"] for layer in final if layer["appeared"]}
    return [
        f"{scan['name']}, {layer['name']}: {layer['appeared']['text']}"
        for scan in scans
        for layer in scan["layers"]
        if layer["appeared"] and layer["name"] not in last
    ]


def _charge_nc(layer: LayerResult) -> float:
    """Return the live beam charge in a layer: its counts over its counts per charge, by their errors."""
    counts, rate = layer.quantities["li_counts"], layer.quantities.get("li_per_charge")
    return counts.sigma_stat / rate.sigma_stat if rate is not None and rate.sigma_stat > 0.0 else 0.0


def _pairs(view: View, index: int) -> dict[str, Pair]:
    """Return net counts of every line of the reference, and what was gained, with statistical errors."""
    if view.reference is None:
        return {}
    found = {}
    for line in view.method.settings.lines:
        net = net_counts(view.method, line, view.reference)
        found[f"{line.element.lower()}_counts"] = net[0][..., index], net[1][..., index]
    more = gained(view.method, index, view.now, view.reference)
    return found if more is None else {**found, GAINED: more}


def _scaled(view: View, index: int) -> float:
    """Return the lithium counts of the reference for the beam charge of the scan."""
    line = view.method.settings.line("Li")
    if line is None or view.reference is None:
        return 0.0
    ratio = view.now.live_charge[line.detector] / view.reference.live_charge[line.detector]
    return float((ratio * net_counts(view.method, line, view.reference)[0])[..., index])
