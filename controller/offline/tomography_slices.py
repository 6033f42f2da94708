"""Projections to slices, row by row; the report of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.technique import Array, Axis
from controller.offline.tomography import MAX_ROWS, SliceOptions
from controller.offline.values import pm, quantity, table
from drivers.files.recordings_images import RecordedProjections
from edge import tomography
from edge.tomography import Centre, Sinogram
from edge.tomography_segment import otsu
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
MAX_SLICES_BYTES = 2 << 30
CENTRE_ROWS = 5  # at most, of which the axis is found


@dataclass(frozen=True)
class SliceReport:
    """Slices with how they came about."""

    data: dict[str, Any]
    text: str
    rows: tuple[int, ...]
    slices: NDArray[np.float32]  # (rows, n, n), attenuation per pixel
    sinogram: NDArray[np.float32]  # of the first row, -ln T before the removal of rings
    angles_deg: Floats
    centre: Centre
    pixel_um: float | None

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, picture) of each figure."""
        from controller.offline import figures_tomography

        yield "slices", figures_tomography.saved(figures_tomography.slices(self), fmt)
        yield "sinogram", figures_tomography.saved(figures_tomography.sinogram(self), fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield the slices."""
        per, unit = (1.0, "1/pixel") if self.pixel_um is None else (1e4 / self.pixel_um, "1/cm")
        row = Axis("row", np.array(self.rows, np.float64), "")
        yield Array(
            "slices", self.slices * np.float32(per), unit, None, (row,), "linear attenuation coefficient"
        )


def reduce_projections(recorded: RecordedProjections, options: SliceOptions) -> SliceReport:
    """Reconstruct the rows asked for. Raises ValueError when a row cannot be reduced."""
    rows = _rows(recorded, options)
    middle = rows if len(rows) <= CENTRE_ROWS else rows[:: max(1, len(rows) // CENTRE_ROWS)][:CENTRE_ROWS]
    sample = [_row(recorded, row, options) for row in middle]
    double = tomography.is_double_field(recorded.angles_deg)
    centre = _centre(recorded, sample, options, double)
    made: list[NDArray[np.float32]] = []
    zingers = black = 0
    sums: list[tuple[float, float]] = []
    for row in rows:
        one = _row(recorded, row, options)
        zingers, black = zingers + one.zingers, black + one.dark_pixels
        total = one.absorbance.sum(axis=1, dtype=np.float64)
        sums.append((float(total.mean()), float(total.std())))
        made.append(_slice(recorded, one, options, centre, double))
    slices = np.stack(made)
    first = sample[0]
    counts, edges = np.histogram(slices, 1024)
    parted = otsu(counts, edges)
    data = _data(recorded, options, rows, centre, double, sums, slices, parted.value)
    data |= {"zingers": zingers, "pixels_without_light": black, "notes": list(recorded.notes)}
    return SliceReport(
        data, _text(data), rows, slices, first.absorbance, recorded.angles_deg, centre, options.pixel_um
    )


def _rows(recorded: RecordedProjections, options: SliceOptions) -> tuple[int, ...]:
    if options.rows is None:
        count = min(recorded.n_rows, MAX_ROWS)
        rows = tuple(int(k) for k in np.linspace(0, recorded.n_rows - 1, count).round())
    else:
        first, last, step = options.rows
        if last > recorded.n_rows:
            raise ValueError(f"rows {first} to {last} are not inside 0 to {recorded.n_rows}")
        rows = tuple(range(first, last, step))
    wide = recorded.n_columns * (2 if tomography.is_double_field(recorded.angles_deg) else 1)
    size = 4 * len(rows) * wide**2
    if size > MAX_SLICES_BYTES:
        raise ValueError(
            f"{len(rows)} slices need {size} bytes, above {MAX_SLICES_BYTES}: ask for fewer --rows"
        )
    return rows


def _row(recorded: RecordedProjections, row: int, options: SliceOptions) -> Sinogram:
    projections, flats, darks = (part[:, 0] for part in recorded.rows(row, row + 1))
    return tomography.sinogram(projections, flats, darks, options.zinger)


def _centre(
    recorded: RecordedProjections, sample: list[Sinogram], options: SliceOptions, double: bool
) -> Centre:
    if options.centre_px is not None:
        return Centre(Estimate(options.centre_px, 0.0, 0.0, "px"), {"given": options.centre_px})
    if double:
        return tomography.centre_of_full_turn([one.transmission for one in sample])
    return tomography.centre_of_half_turn([one.absorbance for one in sample], recorded.angles_deg)


def _slice(
    recorded: RecordedProjections, one: Sinogram, options: SliceOptions, centre: Centre, double: bool
) -> NDArray[np.float32]:
    angles, axis = recorded.angles_deg, centre.estimate.value
    absorbance = one.absorbance
    if double:
        wide, angles, axis = tomography.joined(one.transmission, angles, axis)
        absorbance = np.asarray(-np.log(np.maximum(wide, tomography.FLOOR)), np.float32)
    clean = tomography.without_rings(absorbance, options.rings)
    return tomography.reconstruct(clean, angles, axis, options.method)


def _data(
    recorded: RecordedProjections, options: SliceOptions, rows: tuple[int, ...], centre: Centre, double: bool,
    sums: list[tuple[float, float]], slices: NDArray[np.float32], threshold: float,
) -> dict[str, Any]:  # fmt: skip
    c = centre.estimate
    inside = slices > threshold
    return {
        "file": recorded.path.name, "kind": "projections",
        "projections": [recorded.n_angles, recorded.n_rows, recorded.n_columns],
        "flats": recorded.n_flats, "darks": recorded.n_darks,
        "angles_deg": [float(recorded.angles_deg[0]), float(recorded.angles_deg[-1])], "double_field": double,
        "method": options.method, "rings": options.rings, "rows": list(rows),
        "centre": quantity(c.value, c.sigma_stat, c.sigma_sys, "px"), "centre_methods": dict(centre.methods),
        "sum_of_absorbance": [
            {"row": row, "mean": mean, "std": std} for row, (mean, std) in zip(rows, sums, strict=True)
        ],
        "slice_pixels": int(slices.shape[1]), "otsu_per_pixel": threshold,
        "object_pixels": [int(part.sum()) for part in inside],
        "object_mean_per_pixel": [
            float(one[part].mean()) if part.any() else None for one, part in zip(slices, inside, strict=True)
        ],
        "pixel_um": options.pixel_um,
    }  # fmt: skip


def _text(data: dict[str, Any]) -> str:
    n, rows, columns = data["projections"]
    c = data["centre"]
    methods = ", ".join(f"{name} {value:.2f}" for name, value in data["centre_methods"].items())
    turn = "a full turn, halves joined" if data["double_field"] else "a half turn"
    head = [
        f"{data['file']}: {n} projections of {rows} x {columns} pixels, "
        f"{data['flats']} flats, {data['darks']} darks",
        f"  angles {data['angles_deg'][0]:g} to {data['angles_deg'][1]:.3f} degrees: {turn}",
        f"  axis of rotation {pm(c['value'], c['sigma_stat'], c['sigma_sys'], digits=2)} px ({methods})",
    ]  # fmt: skip
    lines = []
    for k, entry in enumerate(data["sum_of_absorbance"]):
        mean = data["object_mean_per_pixel"][k]
        lines.append((
            str(entry["row"]), f"{entry['mean']:.2f} ± {entry['std']:.2f}", str(data["object_pixels"][k]),
            "-" if mean is None else f"{mean:.6f}",
        ))  # fmt: skip
    heads = ("row", "sum of -ln T (mean, scatter over angles)", "object / pixels", "mean mu per pixel")
    tail = [
        f"  object: above Otsu's threshold {data['otsu_per_pixel']:.6f}; {data['zingers']} zingers replaced, "
        f"{data['pixels_without_light']} pixels without light",
        "  errors: statistical ± systematic (half the difference of the methods)",
    ]
    return "\n".join([*head, table(heads, lines), *tail, *(f"  note: {note}" for note in data["notes"])])
