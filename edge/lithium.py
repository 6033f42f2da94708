"""From counts in a layer to lithium and x. Arrays in, arrays out; nothing is clipped.

``Measured`` holds what one scan counted in each layer; every function broadcasts over leading axes, so that a
test draws thousands of experiments through the same code that reduces one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.calibration_tables import CalibrationTable
from edge.events import Segmentation
from edge.line_counts import coefficients, window_net
from edge.settings import AnalysisLine, Layer, Settings
from edge.soc import soc_of
from edge.uncertainty import ratio

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]  # a value and its statistical one-sigma error

NANO = 1e9


@dataclass(frozen=True)
class Measured:
    """What one scan counted, per detector name; leading axes are independent experiments."""

    sums: Mapping[str, Floats]  # (..., layers, segments): counts weighted by area
    variances: Mapping[str, Floats]  # same: sum of squared weights times counts
    live_charge: Mapping[str, Floats]  # (..., layers): beam charge while live, C (time, if not known)
    live_time_s: Mapping[str, Floats]  # (..., layers)
    beam_off: Mapping[str, Floats]  # (..., segments): counts with the beam off
    beam_off_live_s: Mapping[str, float]
    channels_in: Mapping[str, Floats]  # (segments,): channels per segment, mean over passes
    fitted: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)  # element: net, variance
    beam_off_common: Mapping[str, Floats] = field(default_factory=dict)  # those also used by the reference
    projected: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)  # (..., layers, columns):
    # projected sums with weights w, and with w^2
    beam_off_projected: Mapping[str, Floats | None] = field(default_factory=dict)  # (..., columns)
    charge_known: bool = True  # False: exposure is time, only element ratios mean something


@dataclass(frozen=True)
class Method:
    """What turns counts into lines: segments of each detector, and the slope under the lithium line."""

    settings: Settings
    segmentations: Mapping[str, Segmentation]
    slope: float = 0.0


def net_counts(method: Method, line: AnalysisLine, measured: Measured) -> Pair:
    """Return net counts of a line in every layer, beam-off line subtracted, and their one-sigma error.

    net = c . S - (t_live / t_off) c . S_off, the second term being the line that stays when the beam is off
    (7Be for lithium), with the same c; var = sum c^2 var(S) + (t_live / t_off)^2 sum c^2 max(S_off, 1).

    Returns:
        (net, sigma), each of shape (..., layers).
    """
    name = line.detector
    c = coefficients(method.segmentations[name], line.window, measured.channels_in[name], method.slope)
    if line.element in measured.fitted:
        net, variance = measured.fitted[line.element]
    elif line.method == "projection" and (table := method.segmentations[name].projection) is not None:
        net, variance = table.net(line.element, *measured.projected[name], method.slope)
    else:
        net, variance = window_net(measured.sums[name], measured.variances[name], c)
    off_s = measured.beam_off_live_s.get(name, 0.0)
    if line.element == "Li" and off_s > 0.0:
        off = measured.beam_off[name]
        share = measured.live_time_s[name] / off_s
        used = np.where(c != 0.0, np.maximum(off, 1.0), 0.0)  # no count is not no error
        stays, stays_variance = off @ c, used @ c**2
        events = measured.beam_off_projected.get(name)
        table = method.segmentations[name].projection
        if line.method == "projection" and table is not None and events is not None:
            stays, stays_variance = table.net(line.element, events, events, method.slope)
            stays_variance = np.maximum(stays_variance, table.least_variance(line.element))
        net = net - share * stays[..., None]
        variance = variance + share**2 * stays_variance[..., None]
    return net, np.sqrt(variance)


def common_error(method: Method, now: Measured, reference: Measured) -> Floats | None:
    """Return the relative covariance of the lithium counts of two scans, shape (..., layers), or None.

    cov / (net_now net_ref), see ``common_variance``.
    """
    variance, line = common_variance(method, now, reference), method.settings.line("Li")
    if variance is None or line is None:
        return None
    nets = net_counts(method, line, now)[0] * net_counts(method, line, reference)[0]
    result: Floats = variance / np.where(nets == 0.0, np.nan, nets)
    return result


def common_variance(method: Method, now: Measured, reference: Measured) -> Floats | None:
    """Return the covariance of the lithium counts of two scans, counts^2, shape (..., layers), or None.

    Beam-off counts that both scans use (background scans) shift both alike:
    cov = (t / t_off)_now (t / t_off)_ref sum c^2 S_common.
    """
    line = method.settings.line("Li")
    name = "" if line is None else line.detector
    times = [m.beam_off_live_s.get(name, 0.0) for m in (now, reference)]
    if line is None or name not in now.beam_off_common or min(times) <= 0.0:
        return None
    c = coefficients(method.segmentations[name], line.window, now.channels_in[name], method.slope)
    shares = now.live_time_s[name] / times[0] * reference.live_time_s[name] / times[1]
    result: Floats = shares * (now.beam_off_common[name] @ c**2)[..., None]
    return result


def per_charge(method: Method, line: AnalysisLine, measured: Measured) -> Pair:
    """Return net counts per live beam charge, 1/nC, and sigma; NaN where there was no charge."""
    net, sigma = net_counts(method, line, measured)
    charge = measured.live_charge[line.detector] * NANO
    safe = np.where(charge > 0.0, charge, np.nan)
    return net / safe, sigma / safe


def lithium_ratio(method: Method, normaliser: AnalysisLine, measured: Measured) -> Pair:
    """Return lithium over the normalising element, each per live charge of its own detector, and sigma.

    The charge cancels, the live fractions of the two detectors do not.
    """
    line = method.settings.line("Li")
    if line is None:
        raise ValueError("lithium is not among the analysis lines")
    return ratio(*per_charge(method, line, measured), *per_charge(method, normaliser, measured))


def relative(now: Pair, reference: Pair, covariance: Floats | float = 0.0) -> Pair:
    """Return a signal over that of the reference scan, and sigma; for element ratios the double ratio.

    sigma^2 = r^2 [(s_a/a)^2 + (s_b/b)^2 - 2 covariance], the covariance being a relative one.
    """
    value, sigma = ratio(now[0], now[1], reference[0], reference[1])
    return value, np.sqrt(np.maximum(sigma**2 - 2.0 * covariance * value**2, 0.0))


def x_of(table: CalibrationTable, signal: Pair) -> Pair:
    """Return x in Li_xCoO2 and sigma from a relative signal by the table's local slope."""
    x = table.x_of(signal[0])
    sigma: Floats = np.abs(signal[1] / table.slope(signal[0]))
    return x, sigma


def layer_quantities(
    method: Method, layer: Layer, index: int, now: Measured, reference: Measured | None
) -> dict[str, Pair]:
    """Return every quantity of one layer with its statistical error, by name.

    x and SoC only for host layers, relative values only with a reference, element-normalised ones only with a
    normaliser. See ``UNITS`` for the names.

    Args:
        method: settings and slope.
        layer: of the sample.
        index: its place in the arrays of ``Measured``.
        now: the scan.
        reference: the reference scan in the same regions, or None if this is the reference.
    """
    settings = method.settings
    lithium = settings.line("Li")
    if lithium is None:
        raise ValueError("lithium is not among the analysis lines")
    found: dict[str, Pair] = {}
    for line in settings.lines:
        net = net_counts(method, line, now)
        charge = per_charge(method, line, now)
        found[f"{line.element.lower()}_counts"] = net[0][..., index], net[1][..., index]
        if now.charge_known:
            found[f"{line.element.lower()}_per_charge"] = charge[0][..., index], charge[1][..., index]
    shared: Floats | float = 0.0
    if reference is not None:
        common = common_error(method, now, reference)
        shared = 0.0 if common is None else common[..., index]
    if reference is not None and reference.charge_known and now.charge_known:
        then = per_charge(method, lithium, reference)
        found["li_relative_charge"] = relative(
            found["li_per_charge"], (then[0][..., index], then[1][..., index]), shared
        )
    normaliser = settings.line(layer.normaliser) if layer.normaliser else None
    if normaliser is None:
        return found
    signal = lithium_ratio(method, normaliser, now)
    found["li_per_normaliser"] = signal[0][..., index], signal[1][..., index]
    if reference is None:
        return found
    before = lithium_ratio(method, normaliser, reference)
    found["li_relative"] = relative(
        found["li_per_normaliser"], (before[0][..., index], before[1][..., index]), shared
    )
    if layer.kind == "host" and settings.table is not None:
        found["x"] = x_of(settings.table, found["li_relative"])
        found["soc_beam"] = soc_of(found["x"])
    return found


UNITS: Mapping[str, str] = {
    "li_relative": "1",
    "li_relative_charge": "1",
    "li_per_normaliser": "1",
    "x": "1",
    "soc_beam": "1",
    "soc_beam_relative": "1",
    "soc_charge": "1",
}


def unit_of(name: str) -> str:
    """Return the unit of a quantity by its name."""
    if name.endswith("_counts"):
        return "counts"
    return "1/nC" if name.endswith("_per_charge") else UNITS.get(name, "1")


def combined_systematic(central: float, variants: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the one-sigma effect of each nuisance: half the change between its +1 and -1 sigma variant.

    Where both variants move to the same side, the larger change counts.
    """
    found = {}
    for name, (plus, minus) in variants.items():
        up, down = plus - central, minus - central
        found[name] = 0.5 * abs(up - down) if up * down <= 0 else max(abs(up), abs(down))
    return found


def prior_systematic(settings: Settings, name: str, value: float) -> dict[str, float]:
    """Return the stated priors that apply to a quantity, as absolute one-sigma errors.

    The normalisation of the paper (2 %) applies to every signal relative to a reference; cell-to-cell spread
    (4 %) only if the reference is another cell; cross-sections and surface layers only to absolute contents,
    which are not claimed here.
    """
    priors = settings.priors
    found: dict[str, float] = {}
    if name in ("li_relative", "li_relative_charge"):
        found["normalisation"] = priors["normalisation"] * abs(value)
        if not settings.reference_is_same_cell:
            found["cell_to_cell"] = priors["cell_to_cell"] * abs(value)
    if name == "li_relative_charge":
        found["beam_charge"] = math.sqrt(2.0) * priors["beam_charge"] * abs(value)
    if name.endswith("_per_charge"):
        found["beam_charge"] = priors["beam_charge"] * abs(value)
    return found


def through_table(table: CalibrationTable, signal: float, effects: Mapping[str, float]) -> dict[str, float]:
    """Return the systematic effects on x from those on the relative signal, with the table's own error."""
    slope = abs(float(table.slope(signal)))
    found = {name: effect / slope for name, effect in effects.items()}
    return {**found, "calibration_table": table.sigma_x}


def paper_budget(settings: Settings, statistics: float = 0.01) -> dict[str, float]:
    """Return the error budget of the paper, relative: per contribution, and both sums.

    absolute^2 = statistics^2 + normalisation^2 + cell_to_cell^2 + evaluation^2 + surface_layer^2 (7.1 %);
    relative^2 = statistics^2 + normalisation^2 (2.2 %).

    Source: Moeller et al., Batteries 7 (2021) 41, section 4.4.
    """
    names = ("normalisation", "cell_to_cell", "evaluation", "surface_layer")
    parts = {"statistics": statistics, **{name: settings.priors[name] for name in names}}
    parts["absolute"] = math.sqrt(sum(part**2 for part in parts.values()))
    parts["relative"] = math.hypot(statistics, settings.priors["normalisation"])
    return parts
