"""Tables of a Compton reduction, for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from controller.offline.values import percent, pm, table
from edge.compton_checks import checks
from edge.compton_fit import PARAMETERS

if TYPE_CHECKING:
    from controller.offline.compton import ComptonReport
    from controller.offline.compton_read import Recorded
    from edge.compton import Analysis

_UNITS = ("counts", "keV", "keV", "", "counts/bin", "counts/bin/keV")
_WORDS = ("area", "centre", "FWHM", "Lorentzian part", "background", "its slope")


def text(report: ComptonReport) -> str:
    """Return everything: counting, S, peak, depth."""
    lines: list[str] = []
    for name, recorded, analysis in zip(report.names, report.recorded, report.analyses, strict=True):
        lines += _recording(name, recorded, report) + _s(analysis) + _peak(analysis)
    if report.depth is not None:
        lines += _depth(report)
    lines.append("  errors: one sigma, statistical ± systematic")
    return "\n".join(lines)


def _recording(name: str, recorded: Recorded, report: ComptonReport) -> list[str]:
    head = f"{name}: {recorded.path.name}, {recorded.kind}, {int(recorded.mask.sum())} pixels used"
    lines = [head, *(f"  note: {note}" for note in recorded.notes)]
    c, used = recorded.counts, recorded.mask
    if c is None:
        return lines
    if recorded.dark is not None:
        d = recorded.dark
        level, noise = (pm(one.value, one.sigma_stat) for one in (d.level, d.noise))
        lines.append(
            f"  dark: {level} ADU (pixels spread {np.nanstd(d.mean_adu):.2f}), noise {noise} ADU, "
            f"{d.frames} frames, {d.outside} values outside the windows"
        )
    hits = int(c.hits[used].sum())
    occupancy = c.occupancy(used)
    rule = "added up to 2 pixels" if report.options.add_pairs else "discarded"
    lines.append(
        f"  {c.frames} frames, {hits} hits ({percent(occupancy)} of samples), threshold "
        f"{report.options.threshold_kev:g} keV; shared photons {rule}, ring {report.options.ring}"
    )
    lines.append(
        f"  {int(c.singles[used].sum())} single, {int(c.doubles[used].sum())} double, "
        f"{int(c.discarded[used].sum())} hits discarded; {int(c.underflow[used].sum())} below and "
        f"{int(c.overflow[used].sum())} above the spectra"
    )
    acceptance, mean = c.acceptance[used], c.mean_acceptance(used)
    sigmas = c.acceptance_sigma[used]
    lines.append(
        f"  a photon stays alone with {percent(mean)} (pixels {np.nanmin(acceptance):.2%} to "
        f"{np.nanmax(acceptance):.2%}, each ± {np.nanmedian(sigmas):.2%}); a second one in the same pixel "
        f"{percent(occupancy)}"
    )
    if recorded.noisy:
        lines.append(
            f"  {recorded.noisy} pixels: the threshold is set by 5 sigma of noise, not by the energy"
        )
    return lines


def _s(a: Analysis) -> list[str]:
    degrees = np.degrees(a.angles_rad[a.mask])
    lines = [
        f"  angles {degrees.min():.2f} to {degrees.max():.2f} deg; windows |pz| < 1, 1 to 5 a.u., per pixel",
        f"  core {_counts(a.sums[0], a.sums[2])}, wings {_counts(a.sums[1], a.sums[3])} counts",
    ]
    if not math.isfinite(a.s.value):
        return [*lines, "  S: not determined, core or wings are empty or outside the spectra"]
    if a.shift.sigma_stat < 0.99 * a.shift.sigma_sys:
        far = " CHECK CALIBRATION AND GEOMETRY" if abs(a.shift.value) > 3 * a.shift.sigma_sys else ""
        lines.append(
            f"  windows centred on the data: {pm(a.shift.value, a.shift.sigma_stat)} keV "
            f"(prior 0 ± {a.shift.sigma_sys:.3f}){far}"
        )
    parts = ", ".join(f"{name} {value:.4f}" for name, value in a.budget.items())
    lines.append(f"  S = {pm(a.s.value, a.s.sigma_stat, a.s.sigma_sys)} (systematic: {parts})")
    if a.s_interval_95 is not None:
        low, high = a.s_interval_95
        lines.append(f"    few counts: exact 95 % interval {low:.3f} to {high:.3f}")
    good = np.isfinite(a.map.s)
    lines.append(
        f"  S map: {int(good.sum())} of {int(a.mask.sum())} pixels with wings above 3 sigma, "
        f"median {np.nanmedian(a.map.s):.3f}, median error {np.nanmedian(a.map.sigma):.3f} per pixel"
        if good.any() else "  S map: no pixel has enough counts (wings above 3 sigma)"
    )  # fmt: skip
    if a.lithium is not None and a.setup.line is not None:
        x, line = a.lithium, a.setup.line
        warning = ""
        if bool(x.extrapolated):
            warning = f" EXTRAPOLATED: calibrated for S from {line.low_s:g} to {line.high_s:g}"
        lines.append(
            f"  1-x = {pm(float(x.value), float(x.sigma_stat), float(x.sigma_sys))} from {line.slope:.5f} S "
            f"{line.intercept:+.5f} ({line.source}){warning}"
        )
    return lines


def _counts(value: float, variance: float) -> str:
    """Return counts with their error; a sum of fractions that is 0 but for rounding is 0, never -0."""
    if variance <= 0.0:
        return "0"
    return pm(value if abs(value) > 1e-6 else 0.0, math.sqrt(variance), digits=1)


def _peak(a: Analysis) -> list[str]:
    if a.peak is None:
        return ["  peak: none fitted (too few counts, an area below 3 sigma, or outside the spectra)"]
    p = a.peak
    rows = [
        (word, f"{pm(p.value(key), p.sigma(key))} {unit}".rstrip())
        for key, word, unit in zip(PARAMETERS, _WORDS, _UNITS, strict=True)
    ]
    state = ""
    if p.chi2 > 2.0 * p.ndf:
        state = ": this shape does not describe the peak within counting errors"
    head = f"  peak, Gauss-Lorentz: chi2 {p.chi2:.0f} for {p.ndf} degrees of freedom{state}"
    return [head, table(("  parameter", "value"), [("  " + word, value) for word, value in rows])]


def _depth(report: ComptonReport) -> list[str]:
    mixing, depth = report.options.mixing, report.depth
    if mixing is None or depth is None:
        return []
    u = depth.unmixed
    lines = [
        "depth regions unmixed: " + "; ".join(
            f"{name} = " + " ".join(
                f"{weight:+.3g} {region}"
                for weight, region in zip(mixing.inverse[k], mixing.regions, strict=True)
                if abs(weight) > 1e-9
            )
            for k, name in enumerate(mixing.components)
        )
    ]  # fmt: skip
    rows = [
        (name, pm(float(u.s.s[k]), float(u.s.sigma[k]), float(u.sigma_sys[k])),
         pm(float(u.counts[k]), float(u.counts_sigma[k]), float(u.counts_sigma_sys[k])))
        for k, name in enumerate(mixing.components)
    ]  # fmt: skip
    lines.append(table(("component", "S", "counts / volume"), rows))
    spread = np.sqrt(np.diag(u.covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = u.covariance / np.outer(spread, spread)
    pairs = [
        f"{mixing.components[i]}-{mixing.components[j]} {correlation[i, j]:+.2f}"
        for i in range(len(spread)) for j in range(i + 1, len(spread))
    ]  # fmt: skip
    lines.append("  correlation of S: " + ", ".join(pairs))
    return lines


def paper() -> str:
    """Return what the papers print beside what their own formulas give."""
    rows = [(c.what, c.ours, c.printed, c.verdict) for c in checks()]
    return table(("Huang 2022 and 2024", "computed", "printed", ""), rows)
