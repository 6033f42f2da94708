"""``operando reduce gamma``: one recording to lines, corrected energies and the 7Be decision."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.offline.recorded import one_each
from controller.offline.technique import Array, Axis, Job, Merge, Problems, Technique
from controller.offline.values import finite, fit_report, pm, quantity, scale_report, table
from drivers.files import any_file
from drivers.files.recordings import RecordedEvents, RecordedSpectrum, Recording
from edge.calibration import EnergyScale
from edge.gamma import GammaResult, MeasuredLine, reduce_germanium
from edge.gamma_be7 import ALPHA, Be7Result, find_be7
from edge.gamma_broad import BroadResult, reduce_broad
from edge.gamma_lines import BROAD_SETS, CALIBRATION_SETS
from edge.gamma_unexplained import Residual, Unexplained, find_unexplained
from edge.spectra import SpectrumSums

SUMMARY_LINES = ("K-40 1460.8", "Cs-137 661.7")


@dataclass(frozen=True)
class GammaOptions:
    """What a person may choose."""

    source: str | None = None
    alpha: float = ALPHA


@dataclass(frozen=True)
class GammaReport:
    """A reduced recording: for machines (``data``), for people (``text``), and what the figures need."""

    data: dict[str, Any]
    text: str
    spectrum: RecordedSpectrum
    germanium: GammaResult | None = None
    be7: Be7Result | None = None
    broad: BroadResult | None = None
    residual: Residual | None = None

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, picture) of each figure."""
        from controller.offline import figures_gamma

        return figures_gamma.draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield the spectrum on its corrected energy scale (by channel where there is none)."""
        counts = self.spectrum.counts
        fitted = self.germanium.corrected if self.germanium else self.broad.scale if self.broad else None
        channel = np.arange(counts.size)
        axis = Axis("channel", channel.astype(np.float64), "")
        if fitted is not None:
            axis = Axis("energy", fitted.scale.energy_kev(channel), "keV")
        yield Array("spectrum", counts, "counts", np.sqrt(counts), (axis,), "counts as recorded")


def reduce_recording(recording: Recording, options: GammaOptions) -> GammaReport:
    """Reduce one recording. Raises ValueError when it is no gamma spectrum or nothing is recognised."""
    if isinstance(recording, RecordedEvents):
        spectrum, events = recording.spectrum(), _events(recording)
    elif isinstance(recording, list) and len(recording) == 1:
        spectrum, events = recording[0], {}
    else:
        raise ValueError("a map or several detectors: use the technique xrf")
    head = _head(spectrum) | events
    if spectrum.energy_kev is None:
        return _broad(spectrum, head, options)
    return _germanium(spectrum, head, options)


def _head(spectrum: RecordedSpectrum) -> dict[str, Any]:
    return {
        "file": spectrum.path.name,
        "started": spectrum.started.isoformat(sep=" ") if spectrum.started else None,
        "channels": int(spectrum.counts.size),
        "counts": int(spectrum.counts.sum()),
        "live_s": spectrum.live_s,
        "real_s": spectrum.real_s,
        "notes": list(spectrum.notes),
    }


def _events(recording: RecordedEvents) -> dict[str, Any]:
    """Return what only list mode tells, reading the file once more in pieces."""
    first, last, low, high = None, 0, 1 << 16, 0
    for block in recording.blocks():
        if block.channel.size:
            first = int(block.time_ticks[0]) if first is None else first
            last = int(block.time_ticks[-1])
            low, high = min(low, int(block.channel.min())), max(high, int(block.channel.max()))
    return {
        "events": recording.n_events,
        "first_event_s": (first or 0) * recording.tick_s,
        "last_event_s": last * recording.tick_s,
        "adc_min": low,
        "adc_max": high,
        "rate_per_s": recording.n_events / recording.real_s if recording.real_s else None,
    }


def _germanium(spectrum: RecordedSpectrum, head: dict[str, Any], options: GammaOptions) -> GammaReport:
    recorded = EnergyScale(spectrum.energy_kev or (), spectrum.centre)
    result = reduce_germanium(spectrum.counts, recorded, source=options.source)
    be7, why = None, "the source is not natural radioactivity, so its neighbours cannot be predicted"
    if result.source == "natural":
        try:
            be7, why = find_be7(spectrum.counts, result, alpha=options.alpha), ""
        except ValueError as error:
            why = str(error)
    residual = find_unexplained(spectrum.counts, result)
    first, last = recorded.range_kev(spectrum.counts.size)
    data = head | {
        "detector": "germanium", "source": result.source,
        "recorded_calibration": scale_report(recorded) | {"first_kev": first, "last_kev": last},
        "calibration": fit_report(result.corrected) | {"lines": [m.line.name for m in result.calibration]},
        "lines": [_line(m) for m in result.lines],
        "be7": _be7(be7) if be7 else {"decided": False, "why": why},
        "unexplained": _unexplained(residual),
    }  # fmt: skip
    text = "\n".join([_germanium_text(data, result, be7, why), *_unexplained_text(residual)])
    return GammaReport(data, text, spectrum, result, be7, residual=residual)


def _line(m: MeasuredLine) -> dict[str, Any]:
    alone, peak = m.alone, m.fit.peaks[0]
    gain = m.fwhm_kev / peak.fwhm
    return {
        "name": m.line.name, "known_kev": m.line.energy_kev, "found": m.found,
        "significance": finite(m.significance),
        "channel": quantity(m.channel, peak.centroid_sigma, m.centroid_sigma_sys_kev / gain, "channel"),
        "recorded_energy": quantity(m.recorded_kev, m.centroid_sigma_kev, m.centroid_sigma_sys_kev, "keV"),
        "energy": quantity(m.energy_kev, m.centroid_sigma_kev, m.energy_sigma_sys_kev, "keV"),
        "fwhm": quantity(m.fwhm_kev, m.fwhm_sigma_kev, 0.0, "keV"),
        "area": quantity(m.area, m.area_sigma_stat, m.area_sigma_sys, "counts"),
        "single_gaussian": None if alone is None else {
            "area": quantity(alone.area, alone.area_sigma, m.area_sigma_sys, "counts"),
            "fwhm": quantity(alone.fwhm * gain, alone.fwhm_sigma * gain, 0.0, "keV"),
        },
        "chi2_per_ndf": finite(m.fit.chi2_per_ndf),
    }  # fmt: skip


def _be7(result: Be7Result) -> dict[str, Any]:
    d = result.decision
    eff = result.efficiency
    ratio, ratio_sigma = eff.ratio(478.33, 911.204)[0], eff.ratio_sigma(478.33, 911.204)
    return {
        "decided": True, "detected": d.detected, "energy_kev": result.energy_kev,
        "net": quantity(d.value, d.sigma_stat, d.sigma_sys, "counts"),
        "decision_threshold": d.threshold, "detection_limit": finite(d.detection_limit),
        "sigmas_of_zero": d.value / math.sqrt(d.variance_at_zero),
        "upper_limit": d.upper_limit, "lower_limit": d.lower_limit if d.detected else None,
        "alpha": d.alpha, "beta": d.beta, "gamma": d.gamma, "unit": "counts",
        "uncertainty_budget": dict(result.budget),
        "neighbours": [
            {"name": s.line.name, "energy_kev": s.line.energy_kev, "from": s.reference.name,
             "area": quantity(s.area, s.sigma_stat, s.sigma_sys, "counts")} for s in result.shares
        ],
        "relative_efficiency": {
            "formula": "ln eff = const + b x + c x^2, x = ln(E / 600 keV)", "b": eff.b, "c": eff.c,
            "covariance": eff.covariance.tolist(), "scatter": eff.scatter,
            "lines": [m.line.name for m in eff.lines],
            "ratio_478_911": quantity(ratio, 0.0, ratio_sigma, "1"),
        },
        "chi2": result.chi2, "ndf": result.ndf,
    }  # fmt: skip


def _germanium_text(data: dict[str, Any], result: GammaResult, be7: Be7Result | None, why: str) -> str:
    rows = [
        (
            m.line.name,
            pm(m.recorded_kev, m.centroid_sigma_kev, digits=3),
            pm(m.energy_kev, m.centroid_sigma_kev, m.energy_sigma_sys_kev, digits=3),
            pm(m.fwhm_kev, m.fwhm_sigma_kev, digits=3),
            pm(m.area, m.area_sigma_stat, m.area_sigma_sys, digits=0),
            pm(m.alone.area, m.alone.area_sigma, digits=0) if m.alone else "-",
        )
        for m in result.lines
        if m.found
    ]
    heads = ("line", "recorded / keV", "corrected / keV", "FWHM / keV", "net area / counts", "one Gaussian")
    worst = float(np.abs(result.corrected.residuals_kev).max())
    hidden = ", ".join(m.line.name for m in result.lines if not m.found)
    lines = [
        _title(data),
        f"  germanium, {result.source} lines; energy corrected with {len(result.calibration)} of them, "
        f"largest residual {worst:.3f} keV",
        table(heads, rows),
        "  errors: statistical ± systematic; 'one Gaussian': without the neighbours, where these are weaker",
    ]
    lines += [f"  not found: {hidden}"] if hidden else []
    lines += _be7_text(be7) if be7 else [f"  7Be 477.6 keV: not decided, {why}"]
    return "\n".join(lines)


def _be7_text(result: Be7Result) -> list[str]:
    d, share = result.decision, result.shares[0]
    net = f"{pm(d.value, d.sigma_stat, d.sigma_sys, digits=0)} counts"
    part = pm(share.area, share.sigma_stat, share.sigma_sys, digits=1)
    sigmas = d.value / math.sqrt(d.variance_at_zero)
    verdict = f"DETECTED, {net}" if d.detected else f"not claimed, {net} are below the threshold"
    return [
        f"  7Be 477.6 keV: {verdict} ({sigmas:.1f} sigma of a zero amount)",
        f"    decision threshold {d.threshold:.0f}, detection limit {d.detection_limit:.0f}, upper limit "
        f"{d.upper_limit:.0f} counts (alpha {d.alpha:.2g}, beta {d.beta:.2g}, interval {1 - d.gamma:.0%})",
        f"    subtracted before: {share.line.name} keV {part} counts, predicted from "
        f"{share.reference.name} keV, and {len(result.shares) - 1} other neighbours",
    ]


def _unexplained(residual: Residual | None) -> dict[str, Any]:
    if residual is None:
        return {"searched": False, "why": "too few lines to know the resolution"}
    return {
        "searched": True, "alpha": residual.alpha, "above_kev": residual.lowest_kev,
        "lines": [_peak(one) for one in residual.lines],
        "weaker_lines_of_the_nuclides": [_peak(one) for one in residual.weaker],
    }  # fmt: skip


def _peak(one: Unexplained) -> dict[str, Any]:
    d = one.decision
    return {
        "energy": quantity(one.energy_kev, one.energy_sigma_kev, one.energy_sigma_sys_kev, "keV"),
        "area": quantity(d.value, d.sigma_stat, d.sigma_sys, "counts"),
        "significance": finite(one.significance), "decision_threshold": d.threshold,
        "candidates": list(one.candidates),
    }  # fmt: skip


def _unexplained_text(residual: Residual | None) -> list[str]:
    """Return the table of peaks that no nuclide of the analysis has."""
    if residual is None:
        return ["  unexplained lines: not searched, too few lines to know the resolution"]
    also = f"  {len(residual.weaker)} further peaks are weaker lines of its nuclides, as strong as expected"
    if not residual.lines:
        return [
            f"  no line above {residual.lowest_kev:.0f} keV is left that its nuclides do not explain",
            also,
        ]
    heads = ("unexplained / keV", "net area / counts", "sigma of zero", "threshold", "might be")
    rows = [
        (
            pm(one.energy_kev, one.energy_sigma_kev, one.energy_sigma_sys_kev, digits=2),
            pm(one.decision.value, one.decision.sigma_stat, one.decision.sigma_sys, digits=0),
            f"{one.significance:.1f}",
            f"{one.decision.threshold:.0f}",
            "; ".join(one.candidates) or "nothing listed",
        )
        for one in residual.lines
    ]
    return [f"  {len(rows)} lines that no nuclide of the analysis has:", table(heads, rows), also]


def _broad(spectrum: RecordedSpectrum, head: dict[str, Any], options: GammaOptions) -> GammaReport:
    result = reduce_broad(spectrum.counts, source=options.source)
    data = head | {
        "detector": "scintillator", "source": result.source, "recorded_calibration": None,
        "calibration": fit_report(result.scale) | {"lines": [one.line.name for one in result.lines]},
        "lines": [
            {
                "name": one.line.name, "known_kev": one.line.energy_kev, "found": True,
                "significance": one.significance,
                "channel": quantity(one.channel, one.channel_sigma, 0.1 * one.fwhm_channels, "channel"),
                "energy": quantity(one.energy_kev, one.channel_sigma * one.fwhm_kev / one.fwhm_channels,
                                   result.scale.excess_kev, "keV"),
                "predicted_by_others": quantity(
                    one.predicted_kev, one.predicted_sigma_kev, result.scale.excess_kev, "keV"
                ),
                "fwhm": quantity(one.fwhm_kev, one.fwhm_sigma_kev, 0.0, "keV"),
                "area": quantity(one.area, one.area_sigma, 0.0, "counts"),
            }
            for one in result.lines
        ],
        "be7": {"decided": False, "why": "a scintillator does not separate 477.6 keV from its neighbours"},
    }  # fmt: skip
    rows = [
        (
            one.line.name,
            pm(one.channel, one.channel_sigma, digits=1),
            pm(one.energy_kev, one.channel_sigma * one.fwhm_kev / one.fwhm_channels, result.scale.excess_kev),
            pm(one.predicted_kev, one.predicted_sigma_kev, result.scale.excess_kev),
            pm(one.fwhm_kev, one.fwhm_sigma_kev),
            pm(one.area, one.area_sigma, digits=0),
        )
        for one in result.lines
    ]
    heads = ("line", "channel", "energy / keV", "from the others / keV", "FWHM / keV", "net area / counts")
    text = "\n".join([
        _title(data),
        f"  no calibration in the file; recognised by its pattern as {result.source}",
        table(heads, rows),
        f"  energies scatter by {result.scale.excess_kev:.0f} keV about the scale: their systematic error",
    ])  # fmt: skip
    return GammaReport(data, text, spectrum, broad=result)


def _title(data: dict[str, Any]) -> str:
    times = f", live {data['live_s']:g} s, real {data['real_s']:g} s" if data["live_s"] else ""
    listed = ""
    if "events" in data:
        listed = (
            f", {data['events']} events from {data['first_event_s']:.4f} s to {data['last_event_s']:.4f} s"
        )
    return f"{data['file']}: {data['counts']} counts in {data['channels']} channels{times}{listed}"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", help=f"what the lines come from ({', '.join(_SOURCES)}); default: recognised"
    )
    parser.add_argument(
        "--alpha", type=float, default=ALPHA, metavar="P",
        help="accepted rate of false claims of 7Be (default 0.00135, that is 3 sigma)",
    )  # fmt: skip


def _jobs(args: argparse.Namespace) -> list[Job]:
    problems = []
    if not 0 < args.alpha < 0.5:
        problems.append(f"--alpha {args.alpha} must lie between 0 and 0.5")
    if args.source is not None and args.source not in _SOURCES:
        problems.append(f"--source {args.source!r} is not one of {', '.join(_SOURCES)}")
    if problems:
        raise Problems(problems)
    options = GammaOptions(source=args.source, alpha=args.alpha)
    return one_each(args.files, lambda recording: reduce_recording(recording, options))


def _part(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Return the counts and times of one recording."""
    recording = any_file.read(file)
    spectrum = recording.spectrum() if isinstance(recording, RecordedEvents) else None
    if isinstance(recording, list) and len(recording) == 1:
        spectrum = recording[0]
    if spectrum is None:
        raise ValueError("a map or several detectors cannot be merged as one gamma spectrum")
    return {
        "file": file.name, "counts": spectrum.counts, "live_s": spectrum.live_s, "real_s": spectrum.real_s,
        "energy_kev": list(spectrum.energy_kev) if spectrum.energy_kev else None, "centre": spectrum.centre,
    }  # fmt: skip


def _sum(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> GammaReport:
    """Add spectra of one measurement; they must have the same channels and the same recorded calibration."""
    first = parts[0]
    sums = SpectrumSums(first["counts"].size)
    for part in parts:
        if part["counts"].shape != first["counts"].shape:
            raise ValueError(f"{part['file']} and {first['file']} have different numbers of channels")
        if (part["energy_kev"], part["centre"]) != (first["energy_kev"], first["centre"]):
            raise ValueError(f"{part['file']} and {first['file']} are calibrated differently")
        sums.add(part["counts"], part["live_s"], part["real_s"])
    counts, live_s, real_s = sums.result()
    energy = first["energy_kev"]
    merged = RecordedSpectrum(
        Path(str(first["file"])), counts,
        live_s=live_s, real_s=real_s, energy_kev=tuple(energy) if energy else None,
        centre=first["centre"], notes=("the sum of " + ", ".join(part["file"] for part in parts),),
    )  # fmt: skip
    return reduce_recording([merged], GammaOptions(source=args.source, alpha=args.alpha))


def _row(data: Mapping[str, Any]) -> dict[str, Any]:
    rows = {
        line["name"]: line["area"]
        for line in data["lines"]
        if line["name"] in ("K-40 1460.8", "Cs-137 661.7")
    }
    return ({"7Be 477.6": data["be7"]["net"]} if data["be7"]["decided"] else {}) | rows


_SOURCES = tuple(dict.fromkeys([*CALIBRATION_SETS, *BROAD_SETS]))
TECHNIQUE = Technique(
    "gamma", "Gamma spectra: lines, energies corrected by the spectrum itself, the decision on 7Be.",
    any_file.FORMATS, "operando reduce gamma soil.Spe background.Spe --out results", _add_arguments, _jobs,
    Merge(_part, _sum, alone=True), _row, each=True,
)  # fmt: skip
