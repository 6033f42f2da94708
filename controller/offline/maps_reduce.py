"""A map of others reduced, or several frames of one raster: windows and counts, regions, and the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.maps_sums import Counted, MapOptions, Sums, added, counted, sums_of
from controller.offline.technique import Array, Axis
from controller.offline.values import finite, pm, quantity, table
from drivers.files.foreign_maps import ForeignMap
from edge.binning import Goal, painted
from edge.foreign_maps import RegionTable, divide
from edge.xrf_reduce import centre_of_mass, centre_of_mass_sigma

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
CLEAR_SIGMA = 3.0  # a ratio is compared where its denominator is clear


@dataclass(frozen=True)
class MapReport:
    """A reduced map: for machines (``data``), for people (``text``), and what figures need."""

    data: dict[str, Any]
    text: str
    counted: Counted
    table: RegionTable
    options: MapOptions
    guide: str

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, picture) of each figure."""
        from controller.offline import figures_foreign_maps

        return figures_foreign_maps.draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield maps, regions, and what each region holds."""
        axes = _axes(self.counted, self.table.labels.shape)
        yield Array("regions", self.table.labels, "", None, axes, "number of each pixel's region, -1 outside")
        if self.counted.spectrum is not None:
            s = self.counted.spectrum
            axis = (Axis("axis", s.axis, s.unit),)
            yield Array("sum_spectrum", s.counts, "counts", np.sqrt(s.counts), axis, "all pixels")
        for k, line in enumerate(self.counted.lines):
            sigma = np.sqrt(line.variance)
            yield Array(f"{line.name}_gross", line.gross, "counts", None, axes, f"{line.name}, in the window")
            yield Array(
                f"{line.name}_net", line.net, "counts", sigma, axes, f"{line.name}, background subtracted"
            )
            per = self.table.regions.pixels
            value, error = (
                painted(self.table.labels, v / per) for v in (self.table.net[k], self.table.sigma[k])
            )
            yield Array(
                f"{line.name}_regions", value, "counts/pixel", error, axes, f"{line.name}, mean of regions"
            )
        for a, b in self.options.ratios:
            value, error = (painted(self.table.labels, v) for v in self.table.ratio(a, b))
            yield Array(f"{a}_over_{b}", value, "1", error, axes, f"{a}/{b} of regions")


def _axes(counted: Counted, shape: tuple[int, ...]) -> tuple[Axis, ...]:
    if counted.size_um is None:
        return ()
    return tuple(
        Axis(name, (np.arange(n) + 0.5) * size / n, "um")
        for name, n, size in zip("yx", shape, counted.size_um, strict=True)
    )


def reduce_map(recorded: ForeignMap, options: MapOptions) -> MapReport:
    """Reduce one map. Raises ValueError when the lines do not fit the file or it holds no counts."""
    return reduce_sums([sums_of(recorded, options)], options)


def reduce_sums(parts: Sequence[Sums], options: MapOptions) -> MapReport:
    """Reduce the sums of one map, or of several frames of one raster. Raises ValueError."""
    sums = added(parts)
    found = counted(sums, options)
    inside = _inside(found.lines[0].gross.shape, options)
    inside_sum = {line.name: float(line.net[inside].sum()) for line in found.lines}
    name = options.guide or min(inside_sum, key=lambda n: inside_sum[n])
    guide = next((line for line in found.lines if line.name == name), None)
    if guide is None:
        raise ValueError(f"there is no map {name!r}: {', '.join(inside_sum)}")
    goal = Goal(options.minimum or 0.0, options.relative if options.relative is not None else math.inf)
    table = divide(found.lines, guide, goal, inside, options.regions, found.live_s)
    data = _data(sums["file"], found, table, options, name)
    return MapReport(data, _text(data), found, table, options, name)


def _inside(shape: tuple[int, ...], options: MapOptions) -> Mask:
    inside = np.ones(shape, bool)
    if options.rectangle is not None:
        x0, x1, y0, y1 = options.rectangle
        if x1 > shape[1] or y1 > shape[0]:
            raise ValueError(f"the rectangle ends outside the map of {shape[1]} x {shape[0]} pixels")
        inside[:] = False
        inside[y0:y1, x0:x1] = True
    return inside


def _data(file: str, counted: Counted, found: RegionTable, options: MapOptions, guide: str) -> dict[str, Any]:
    ny, nx = found.labels.shape
    windows = {w.name: w for w in counted.spectrum.windows} if counted.spectrum else {}
    lines = []
    for line in counted.lines:
        y, x = centre_of_mass(line.gross)
        window = windows.get(line.name)
        lines.append({
            "name": line.name, "gross_counts": int(line.gross.sum()), "max_pixel": int(line.gross.max()),
            "window": None if window is None else [window.low, window.high],
            "bands": None if window is None else [list(band) for band in window.bands],
            "axis_unit": counted.spectrum.unit if counted.spectrum else None,
            "centre_of_mass_y_x": [finite(y), finite(x)],
            "centre_of_mass_sigma_y_x": [finite(one) for one in centre_of_mass_sigma(line.gross)],
            "net": quantity(
                float(line.net.sum()), float(np.sqrt(line.variance.sum())), line.sigma_sys, "counts"
            ),
        })  # fmt: skip
    regions, chosen = found.regions, found.names.index(guide)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = found.sigma[chosen] / found.net[chosen]
    data: dict[str, Any] = {
        "file": file, "nx": nx, "ny": ny, "lines": lines, "size_um": counted.size_um,
        "live_s": None if counted.live_s is None else float(counted.live_s.sum()),
        "regions": {
            "way": options.regions, "guide": guide, "wanted_relative": options.relative,
            "wanted_counts": options.minimum, "number": int(regions.pixels.size),
            "not_reached": int((~regions.reached).sum()), "pixels": int(regions.pixels.sum()),
            "median_pixels": float(np.median(regions.pixels)),
            "median_relative": finite(float(np.median(relative))),
            "largest_relative": finite(float(relative.max())),
        },
        "ratios": [_ratio(found, counted, a, b) for a, b in options.ratios], "notes": list(counted.notes),
    }  # fmt: skip
    return data


def _ratio(found: RegionTable, counted: Counted, a: str, b: str) -> dict[str, Any]:
    """Return the ratio of the sums, and how far regions scatter beyond their errors."""
    value, sigma = found.ratio(a, b)
    i, j = found.names.index(a), found.names.index(b)
    top, bottom = float(found.net[i].sum()), float(found.net[j].sum())
    s_top, s_bottom = (float(np.sqrt((found.sigma[k] ** 2).sum())) for k in (i, j))
    sys = (
        math.hypot(counted.lines[i].sigma_sys / top, counted.lines[j].sigma_sys / bottom)
        if top and bottom
        else 0.0
    )
    whole = top / bottom if bottom else math.nan
    stat = abs(whole) * math.hypot(s_top / top, s_bottom / bottom) if top and bottom else math.nan
    good = np.isfinite(value) & (sigma > 0.0) & (found.net[j] > CLEAR_SIGMA * found.sigma[j])
    chi2 = float((((value[good] - whole) / sigma[good]) ** 2).sum())
    return {
        "name": f"{a}/{b}", "sum": quantity(whole, stat, abs(whole) * sys, "1"),
        "regions": int(good.sum()),
        "smallest": finite(float(value[good].min(initial=math.inf))),
        "largest": finite(float(value[good].max(initial=-math.inf))),
        "chi2_uniform": chi2, "ndf": max(int(good.sum()) - 1, 0),
    }  # fmt: skip


def _text(data: dict[str, Any]) -> str:
    r = data["regions"]
    rows = []
    for line in data["lines"]:
        net, window = line["net"], line["window"]
        span = "-" if window is None else f"{window[0]:.3f} to {window[1]:.3f} {line['axis_unit']}"
        bands = "-" if line["bands"] is None else str(len(line["bands"]))
        centre = zip(line["centre_of_mass_y_x"], line["centre_of_mass_sigma_y_x"], strict=True)
        place = ["-" if at is None else pm(at, sigma) for at, sigma in centre]
        rows.append((
            line["name"], span, bands, str(line["gross_counts"]),
            pm(net["value"], net["sigma_stat"], net["sigma_sys"], digits=0), ", ".join(place),
        ))  # fmt: skip
    wanted = [] if r["wanted_relative"] is None else [f"{100 * r['wanted_relative']:g} %"]
    wanted += [] if r["wanted_counts"] is None else [f"{r['wanted_counts']:g} counts"]
    relative = r["median_relative"]
    plural, goal = "" if r["number"] == 1 else "s", " and ".join(wanted)
    heads = ("line", "window", "bands", "gross / counts", "net / counts", "centre of mass y, x / pixels")
    out = [
        f"{data['file']}: map of {data['nx']} x {data['ny']} pixels", table(heads, rows),
        f"  {r['number']} region{plural} ({r['way']}) by {r['guide']}, wanted {goal} each: median "
        f"{r['median_pixels']:g} pixels, error {'-' if relative is None else f'{100 * relative:.1f} %'}; "
        f"{r['not_reached']} do not reach it",
    ]  # fmt: skip
    for ratio in data["ratios"]:
        s = ratio["sum"]
        out.append(
            f"  {ratio['name']} = {pm(s['value'], s['sigma_stat'], s['sigma_sys'])} of the sums"
            if s["value"] is not None
            else f"  {ratio['name']}: no net counts to divide by"
        )
        out.append(
            f"    {ratio['regions']} regions with {ratio['name'].split('/')[1]} above 3 sigma: "
            f"{_number(ratio['smallest'])} to {_number(ratio['largest'])}; one value for all: "
            f"chi2 {ratio['chi2_uniform']:.0f} for {ratio['ndf']} degrees of freedom"
        )
    if data["live_s"] is not None:
        out.append(f"  live time {data['live_s']:.2f} detector seconds")
    out += [f"  note: {note}" for note in data["notes"]]
    out.append("  errors: statistical ± systematic (shape of the background)")
    return "\n".join(out)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
