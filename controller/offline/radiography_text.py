"""Tables of ``operando reduce radiography`` for people."""

from __future__ import annotations

from collections.abc import Sequence

from controller.offline.radiography_run import Radiographs
from controller.offline.radiography_summary import Summary, slopes
from controller.offline.values import percent, pm, table
from edge.uncertainty import Estimate


def text_of(run: Radiographs, states: Sequence[Summary]) -> str:
    """Return all tables."""
    noise, counts = run.noise, run.mask.counts()
    ny, nx = run.dark.mean.shape
    curve = ", ".join(f"{g:.1f} at {b} px" for b, g in zip(noise.scales_px, noise.gains_adu, strict=True))
    lines = [
        f"{len(states)} state{'s' if len(states) != 1 else ''} of {ny} x {nx} pixels",
        f"  noise: variance/signal {curve} (ADU); read-out {noise.read_variance**0.5:.1f} ADU",
        f"    from {noise.source}",
        f"  mask {run.mask.name}: {counts['any']} pixels "
        f"({100 * counts['any'] / (ny * nx):.2f} %; dark {counts['dark']}, spots {counts['spot']}, "
        f"saturated {counts['saturated']}), and the spots of each sample",
    ]
    if run.options.black_body:
        lines.append(
            f"  scattering: {len(run.bodies)} black bodies; their grid lets {100 * run.grid_share:.1f} % pass"
        )
    else:
        lines.append("  scattering: not measured, not subtracted")
    return "\n".join([*lines, *(_state_text(run, one) for one in states)])


def _state_text(run: Radiographs, one: Summary) -> str:
    lines = [f"\n{one.label}: dose {pm(one.dose.value, one.dose.sigma_stat, one.dose.sigma_sys)} ADU"]
    if one.regions:
        lines += _region_tables(run, one)
        lines += _slope_lines(one)
    lines += [
        f"  6Li, {now.region.name}: {_powers(li)}"
        for now, li in zip(one.regions, one.region_lithium, strict=False)
    ]
    if one.lithium is not None:
        mean = one.lithium.mean
        lines.append(f"  6Li, mean of the profile: {_powers(mean)}")
    if one.diffusion is not None:
        d = one.diffusion
        lines += [
            f"  apparent diffusion coefficient {_powers(d.apparent)} (the cell voltage taken as the field)",
            f"  Nernst-Einstein, same conductivity: {_powers(d.nernst_einstein)}, {d.ratio.value:.0f} times"
            f" less; both agree at {1e3 * d.voltage_that_agrees.value:.0f} mV across the separator",
        ]
    return "\n".join(lines)


def _region_tables(run: Radiographs, one: Summary) -> list[str]:
    heads = ["region", "thickness / mm", "T", "-ln T", "median of pixels"]
    subtracted = bool(run.options.black_body)
    rows = [
        [
            now.region.name, "-" if now.region.thickness_mm is None else f"{now.region.thickness_mm:g}",
            _pm4(now.transmission), _pm4(now.depth), _pm4(now.median_depth),
            *([percent(now.scattered_share)] if subtracted else []),
        ]
        for now in one.regions
    ]  # fmt: skip
    tables = [table([*heads, "scattered"] if subtracted else heads, rows)]
    if subtracted:
        plain = [[was.region.name, _pm4(was.depth), _pm4(was.median_depth)] for was in one.regions_plain]
        tables += ["  scattering not subtracted:", table(["region", "-ln T", "median of pixels"], plain)]
    return tables


def _slope_lines(one: Summary) -> list[str]:
    before, after = slopes(one.regions_plain), slopes(one.regions)
    lines = []
    for name, line in before.items():
        text = f"  slope {name}: {pm(line.slope, line.slope_sigma, line.slope_sys)} /mm"
        if one.regions is not one.regions_plain:
            now = after[name]
            text += f", scattering subtracted {pm(now.slope, now.slope_sigma, now.slope_sys)} /mm"
        lines.append(text)
    if len(before) == 2 and one.regions is not one.regions_plain:
        was, then = (([line.slope for line in group.values()]) for group in (before, after))
        lost, left = (1 - min(pair) / max(pair) for pair in (was, then))
        lines.append(
            f"  nonlinearity (1 - smaller / larger slope): {100 * lost:.0f} % before, {100 * left:.0f} %"
            f" after: {100 * (1 - left / lost):.0f} % of it removed"
        )
    return lines


def _pm4(one: Estimate) -> str:
    return pm(one.value, one.sigma_stat, one.sigma_sys, digits=4)


def _powers(one: Estimate) -> str:
    parts = " ± ".join(f"{v:.3g}" for v in (one.value, one.sigma_stat, one.sigma_sys))
    return f"{parts} {one.unit}"
