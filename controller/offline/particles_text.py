"""What the particle reduction says: plain values for machines, tables for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.values import estimated, finite, pm, quantity, table
from edge.particles_baseline import Baseline
from edge.particles_lithium import GAUSS_ABOVE_TWO_SIGMA
from edge.particles_ratios import TWO_SIGMA_OUTSIDE, GaussianFit

if TYPE_CHECKING:
    from controller.offline.particles import ParticleReport


def data_of(report: ParticleReport) -> dict[str, Any]:
    """Return the result as JSON has it."""
    result, rules = report.result, report.result.rules
    return {
        "file": report.trace.path.name,
        "dwell_s": report.dwell_s,
        "samples": result.n_samples,
        "missing_samples": result.n_missing,
        "notes": _notes(report),
        "rules": {
            "threshold": rules.threshold.kind, "alpha": rules.threshold.alpha,
            "epsilon": rules.threshold.epsilon,
            "sigma_ion": rules.threshold.sigma_ion if rules.threshold.kind == "compound" else None,
            "edge": rules.edge, "min_points": rules.min_points, "window_samples": rules.window,
            "variance_per_count": rules.noise,
        },
        "lines": [_line(report, k) for k in range(len(result.lines))],
        "ratio": _ratio(report),
        "calibration": _calibration(report),
        "diverging": _diverging(report),
        "held_back": estimated(report.held_back),
        "inactive": estimated(report.inactive),
        "capacity_mah_g": report.options.capacity_mah_g,
    }  # fmt: skip


def _notes(report: ParticleReport) -> list[str]:
    """Return what the reader noted, and that columns got other names: --lines may have been mistyped."""
    theirs, ours = report.trace.lines, report.result.lines
    renamed = (
        [] if set(ours) <= set(theirs) else [f"{', '.join(theirs)} of the file: called {', '.join(ours)}"]
    )
    return [*report.trace.notes, *renamed]


def _line(report: ParticleReport, k: int) -> dict[str, Any]:
    result, events = report.result, report.result.events[k]
    baselines = [b for _, b in result.baselines[k]]
    n = len(events)
    seconds = result.n_samples * report.dwell_s if report.dwell_s else None
    whole = events.where(~events.cut)
    return {
        "name": result.lines[k],
        "events": n,
        "cut_events": int(np.count_nonzero(events.cut)),
        "rate": quantity(n / seconds, math.sqrt(n) / seconds, 0.0, "1/s") if seconds else None,
        "false_events_at_most": _false(report, k),
        "baselines": [
            {
                "window": number, "mean": quantity(b.mean_counts, b.sigma_counts, 0.0, "counts"),
                "iterated_counts": b.iterated_counts, "samples": b.n_samples,
                "dispersion": quantity(b.dispersion, b.sigma_dispersion, 0.0, "1"),
                "threshold_counts": b.threshold, "borrowed": b.borrowed,
            }
            for number, b in result.baselines[k]
        ],
        "mean_background": quantity(
            float(np.mean([b.mean_counts for b in baselines])),
            math.hypot(*(b.sigma_counts for b in baselines)) / len(baselines), 0.0, "counts",
        ),
        "area_median_counts": _median(whole.area_counts[:, k]),
        "gross_median_counts": _median(whole.gross_counts[:, k]),
        "height_median_counts": _median(whole.height_counts),
        "mean_length": _mean(events.stop - events.start, "samples"),
        "area": _gauss(report.areas[k], "counts"),
    }  # fmt: skip


def _mean(values: NDArray[np.int64], unit: str) -> dict[str, Any] | None:
    """Return the mean with its standard error (not known of a single one)."""
    if not values.size:
        return None
    sigma = float(np.std(values, ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.nan
    return quantity(float(np.mean(values)), sigma, 0.0, unit)


def _false(report: ParticleReport, k: int) -> float:
    """Return how many samples of Poisson background lie above their thresholds: no more events than that."""
    result = report.result
    share = result.n_samples / max(sum(b.n_samples for _, b in result.baselines[k]), 1)
    return float(
        sum(
            b.n_samples * share * result.rules.threshold.false_rate(b.iterated_counts)
            for _, b in result.baselines[k]
        )
    )


def _median(values: Any) -> dict[str, Any] | None:
    """Return the median; its error is half the distance of the ranks n/2 -+ sqrt(n)/2; not known for one."""
    n = len(values)
    if n == 0:
        return None
    if n == 1:
        return quantity(float(values[0]), math.nan, 0.0, "counts")
    ordered = np.sort(values)
    half = math.sqrt(n) / 2
    low, high = max(math.floor(n / 2 - half), 0), min(math.ceil(n / 2 + half), n - 1)
    return quantity(float(np.median(ordered)), float(ordered[high] - ordered[low]) / 2, 0.0, "counts")


def _gauss(fit: GaussianFit | None, unit: str) -> dict[str, Any] | None:
    if fit is None:
        return None
    sigma = [float(s) for s in fit.sigma]
    return {
        "mean": quantity(float(fit.mean), sigma[0], 0.0, unit),
        "width": quantity(float(fit.width), sigma[1], 0.0, unit),
        "in_gaussian": quantity(float(fit.main), sigma[2], 0.0, ""), "particles": fit.n,
    }  # fmt: skip


def _ratio(report: ParticleReport) -> dict[str, Any] | None:
    r = report.ratios
    if r is None:
        return None
    names, pairs = report.result.lines, r.pairs
    gauss = _gauss(r.fit, "") or {"mean": None, "width": None, "in_gaussian": None}
    return {
        "numerator": names[r.numerator], "denominator": names[r.denominator], "particles": int(r.values.size),
        **{key: gauss[key] for key in ("mean", "width", "in_gaussian")},
        "median_sigma": finite(float(np.median(r.sigma))) if r.sigma.size else None,
        "coincident": len(pairs), "ambiguous": int(np.count_nonzero(pairs.ambiguous)),
        "accidental": pairs.accidental,
        "accidental_delayed": estimated(pairs.accidental_delayed), "pile_up_fraction": pairs.pile_up,
        "only_numerator": len(report.result.events[r.numerator]) - len(pairs),
        "only_denominator": len(report.result.events[r.denominator]) - len(pairs),
    }  # fmt: skip


def _calibration(report: ParticleReport) -> dict[str, Any] | None:
    c = report.calibration
    if c is None:
        return None
    frames = [
        {
            "name": f.name, "lithiation": quantity(x, s, 0.0, ""), "particles": n,
            "mean": quantity(f.mean, f.sigma_mean, 0.0, ""),
            "width": quantity(f.width, f.sigma_width, 0.0, ""),
            "low": quantity(f.low, f.sigma_low, 0.0, ""), "high": quantity(f.high, f.sigma_high, 0.0, ""),
        }
        for f, (x, s), n in zip(c.frames, c.lithiation, c.particles, strict=True)
    ]  # fmt: skip
    line = None
    if c.line is not None:
        line = {
            "formula": "ratio = intercept + slope * lithiation",
            "intercept": quantity(c.line.intercept, math.sqrt(c.line.covariance[0, 0]), 0.0, ""),
            "slope": quantity(c.line.slope, math.sqrt(c.line.covariance[1, 1]), 0.0, ""),
            "covariance": c.line.covariance.tolist(), "chi2": c.line.chi2, "ndf": c.line.ndf,
        }  # fmt: skip
    return {"frames": frames, "line": line, "frame_used": c.frame.name}


def _diverging(report: ParticleReport) -> dict[str, Any] | None:
    d = report.diverging
    if d is None:
        return None
    return {
        "particles": d.n, "above": d.above, "below": d.below, "fraction": estimated(d.fraction),
        "interval_68": list(d.interval), "interval_95": list(d.interval95), "outside": estimated(d.outside),
        "expected_above": d.expected, "excess": estimated(d.excess), "gaussian_above": GAUSS_ABOVE_TWO_SIGMA,
        "gaussian_outside": TWO_SIGMA_OUTSIDE,
    }  # fmt: skip


def text_of(report: ParticleReport) -> str:
    """Return the tables."""
    result, data = report.result, report.data
    seconds = f", {result.n_samples * report.dwell_s:.4g} s" if report.dwell_s else ""
    rules = result.rules
    how = f"alpha {rules.threshold.alpha:g}" if rules.threshold.kind != "currie-ld" else "5 % and 5 %"
    parts = [
        f"{data['file']}: {result.n_samples} samples{seconds}, {result.n_missing} missing",
        f"  threshold {rules.threshold.kind} ({how}), events down to the {rules.edge}, at least "
        f"{rules.min_points} "
        "samples above the threshold",
        *(f"  note: {note}" for note in _notes(report)),
        _lines_table(report),
    ]
    if report.ratios is not None:
        parts.append(_ratio_text(report))
    if report.calibration is not None:
        parts.append(_calibration_text(report))
    if report.diverging is not None:
        parts.append(_diverging_text(report))
    if report.inactive is not None:
        value = report.inactive
        parts.append(f"  inactive lithium (digestion - charge): {pm(value.value, value.total)} mAh/g")
    return "\n".join(parts)


def _lines_table(report: ParticleReport) -> str:
    rows = []
    for k, line in enumerate(report.data["lines"]):
        baselines = [b for _, b in report.result.baselines[k]]
        rows.append([
            line["name"], _range(baselines, "mean_counts"), _range(baselines, "threshold"),
            f"{line['events']} ± {math.sqrt(line['events']):.0f}", _quantity(line["rate"]),
            f"{line['cut_events']}",
            f"{line['false_events_at_most']:.2g}", _quantity(line["area_median_counts"]),
            _quantity(line["height_median_counts"]), _quantity(line["mean_length"]),
        ])  # fmt: skip
    heads = [
        "line", "background", "threshold", "events", "rate / (1/s)", "cut", "false <", "median area",
        "median height", "length",
    ]  # fmt: skip
    baselines = [b for k in range(len(report.result.lines)) for _, b in report.result.baselines[k]]
    widest = max(baselines, key=lambda b: b.dispersion)
    text = (
        table(heads, rows) + "\n  background and threshold in counts per sample; area and height in counts "
        "above the background; length in samples"
    )
    if widest.dispersion > 1.2:
        text += (
            f"\n  the background scatters {pm(widest.dispersion, widest.sigma_dispersion)} times as much as "
            "counts would: particles too small to be seen, or a detector that spreads single ions "
            "(--threshold compound)"
        )
    return text


def _range(baselines: list[Baseline], name: str) -> str:
    values = [getattr(b, name) for b in baselines]
    low, high = min(values), max(values)
    if len(values) == 1 and name == "mean_counts":
        return pm(low, baselines[0].sigma_counts)
    return f"{low:.3g}" if math.isclose(low, high) else f"{low:.3g} to {high:.3g}"


def _quantity(value: dict[str, Any] | None) -> str:
    if value is None:
        return "-"
    if value["sigma_stat"] is None:
        return f"{value['value']:.3g} ± not known"
    return pm(value["value"], value["sigma_stat"])


def _percent(q: dict[str, Any]) -> str:
    systematic = [100 * q["sigma_sys"]] if q["sigma_sys"] else []
    return pm(100 * q["value"], 100 * q["sigma_stat"], *systematic)


def _ratio_text(report: ParticleReport) -> str:
    r = report.data["ratio"]
    names = f"{r['numerator']}/{r['denominator']}"
    text = (
        f"  {names}: {r['particles']} particles (events of {r['denominator']}); coincident "
        f"{r['coincident']}, of which "
        f"by accident {r['accidental']:.2g} (delayed: {_quantity(r['accidental_delayed'])}), ambiguous "
        f"{r['ambiguous']}; "
        f"only {r['numerator']} {r['only_numerator']}, only {r['denominator']} {r['only_denominator']}; "
        f"two particles in one event {100 * r['pile_up_fraction']:.2g} %"
    )
    if r["mean"] is not None:
        text += (
            f"\n  Gaussian of the ratio: mean {_quantity(r['mean'])}, width {_quantity(r['width'])}, "
            f"{_percent(r['in_gaussian'])} % of the particles inside it; counting error of one "
            f"particle "
            f"{r['median_sigma']:.2g}"
        )
    return text


def _calibration_text(report: ParticleReport) -> str:
    c = report.data["calibration"]
    rows = [
        [
            f["name"] + (" (frame)" if f["name"] == c["frame_used"] else ""), _quantity(f["lithiation"]),
            str(f["particles"]), _quantity(f["mean"]), _quantity(f["width"]),
            f"{f['low']['value']:.3g} to {f['high']['value']:.3g}",
        ]
        for f in c["frames"]
    ]  # fmt: skip
    text = table(["cell", "lithiation", "particles", "ratio", "width", "mean ± 2 widths"], rows)
    if c["line"] is not None:
        line = c["line"]
        text += (
            f"\n  ratio = ({_quantity(line['intercept'])}) + ({_quantity(line['slope'])}) x lithiation, chi2 "
            f"{line['chi2']:.2g} for {line['ndf']} degrees of freedom"
        )
    return text


def _diverging_text(report: ParticleReport) -> str:
    d = report.data["diverging"]
    f, e, o = d["fraction"], d["excess"], d["outside"]

    text = (
        f"  above the frame: {d['above']} of {d['particles']} particles, {_percent(f)} % (68 %: "
        f"{100 * d['interval_68'][0]:.1f} to {100 * d['interval_68'][1]:.1f} %); spread and counting errors "
        f"alone put {100 * d['expected_above']:.1f} % there, so {_percent(e)} % diverge; outside on both "
        f"sides "
        f"{_percent(o)} %"
    )
    if report.held_back is not None:
        h = report.held_back
        text += f"\n  lithium that they hold back: {pm(h.value, h.sigma_stat, h.sigma_sys)} mAh/g"
    return text
