"""Projections to slices, slab by slab, from one file or from several of one scan; the report of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from controller.offline.technique import Array, Axis
from controller.offline.tomography import MAX_ROWS, SliceOptions
from controller.offline.values import pm, quantity, table
from drivers.files.recordings_images import RecordedProjections
from edge import tomography
from edge.tomography import Centre
from edge.tomography_scan import Slab, TomographyReducer, centre_rows, rows_at_once
from edge.tomography_segment import Threshold, otsu

Floats = NDArray[np.float64]
Parts = tuple[float, float, float]  # value, sigma_stat, sigma_sys
MAX_SLICES_BYTES = 2 << 30
SLAB_BYTES = 256 << 20  # of projections that are held at a time
BLOCK_BYTES = 32 << 20  # that are read at a time
FLAT_DRIFT = 0.01  # between files of one scan; from here it is said


@dataclass(frozen=True)
class Scan:
    """What the report says of a scan: name, (projections, rows, columns), notes."""

    name: str
    shape: tuple[int, int, int]
    notes: tuple[str, ...]


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
    """Reconstruct the rows asked for, slab by slab. Raises ValueError when a row cannot be reduced."""
    rows = chosen_rows(recorded, options)
    at_once = rows_at_once(recorded.n_angles, recorded.n_columns, recorded.dtype.itemsize, SLAB_BYTES)
    slabs = [rows[k : k + at_once] for k in range(0, len(rows), at_once)]
    shape = (recorded.n_angles, recorded.n_rows, recorded.n_columns)
    scan = Scan(recorded.path.name, shape, recorded.notes)
    return _reduced(scan, slabs, lambda some: load(recorded, some).result(), options)


def part(recorded: RecordedProjections, options: SliceOptions) -> dict[str, Any]:
    """Return what one file of a scan holds at the rows asked for. Raises ValueError."""
    state = load(recorded, chosen_rows(recorded, options)).state()
    return state | {
        "file": recorded.path.name,
        "detector_rows": recorded.n_rows,
        "notes": list(recorded.notes),
    }


def reduce_parts(parts: Sequence[Mapping[str, Any]], options: SliceOptions) -> SliceReport:
    """Reconstruct a scan in several files. Raises ValueError when they do not belong together."""
    first, *others = parts
    total = TomographyReducer.restored(first)
    for one in others:
        if one["detector_rows"] != first["detector_rows"]:
            raise ValueError(f"{one['file']} and {first['file']} have different numbers of rows")
        try:
            total.merge(TomographyReducer.restored(one))
        except ValueError as error:
            raise ValueError(f"{one['file']}: {error}") from error
    notes = [note for one in parts for note in one["notes"]]
    notes.append(f"one scan in {len(parts)} files: " + ", ".join(one["file"] for one in parts))
    levels = [float(one["flats"].mean()) / one["n_flats"] for one in parts if one["n_flats"]]
    if len(levels) > 1 and max(levels) > (1.0 + FLAT_DRIFT) * min(levels):
        share = 100.0 * (max(levels) / min(levels) - 1.0)
        notes.append(
            f"the flats of the files differ by {share:.1f} %; their mean is used for all projections"
        )
    slab = total.result()
    shape = (total.n_projections, int(first["detector_rows"]), total.n_columns)
    _check_size(slab.rows, total.n_columns, double=slab.double)
    return _reduced(Scan(first["file"], shape, tuple(notes)), [slab.rows], lambda rows: slab, options)


def chosen_rows(recorded: RecordedProjections, options: SliceOptions) -> tuple[int, ...]:
    """Return the detector rows that are asked for. Raises ValueError for rows outside, or too many."""
    if options.rows is None:
        count = min(recorded.n_rows, MAX_ROWS)
        rows = tuple(int(k) for k in np.linspace(0, recorded.n_rows - 1, count).round())
    else:
        first, last, step = options.rows
        if last > recorded.n_rows:
            raise ValueError(f"rows {first} to {last} are not inside 0 to {recorded.n_rows}")
        rows = tuple(range(first, last, step))
    _check_size(rows, recorded.n_columns, double=tomography.is_double_field(recorded.angles_deg))
    return rows


def load(recorded: RecordedProjections, rows: Sequence[int]) -> TomographyReducer:
    """Read some rows of a file, a few images at a time. Raises ValueError when they do not fit the memory."""
    reducer = TomographyReducer(rows, recorded.n_columns)
    block = max(1, BLOCK_BYTES // (4 * len(rows) * recorded.n_columns))

    def pieces(kind: str, number: int) -> Iterator[tuple[int, int, NDArray[Any]]]:
        for first in range(0, number, block):
            last = min(first + block, number)
            yield first, last, recorded.images(kind, first, last, rows)

    for *_, images in pieces("flats", recorded.n_flats):
        reducer.add_flats(images)
    for *_, images in pieces("darks", recorded.n_darks):
        reducer.add_darks(images)
    for first, last, images in pieces("projections", recorded.n_angles):
        reducer.add(images, recorded.angles_deg[first:last])
    return reducer


def _check_size(rows: Sequence[int], n_columns: int, *, double: bool) -> None:
    size = 4 * len(rows) * (n_columns * (2 if double else 1)) ** 2
    if size > MAX_SLICES_BYTES:
        raise ValueError(
            f"{len(rows)} slices need {size} bytes, above {MAX_SLICES_BYTES}: ask for fewer --rows"
        )


def _reduced(
    scan: Scan,
    slabs: Sequence[tuple[int, ...]],
    read: Callable[[tuple[int, ...]], Slab],
    options: SliceOptions,
) -> SliceReport:
    """Find the axis and make the slices; ``read`` returns the rows of one slab."""
    rules = options.rules
    rows = tuple(row for slab in slabs for row in slab)
    some = centre_rows(rows)
    slab = read(rows if len(slabs) == 1 else some)
    centre = slab.centre(rules, some)
    made = np.empty((len(rows), 0, 0), np.float32)
    zingers = black = 0
    sums: list[tuple[float, float]] = []
    shown = slab.sinogram(rows[0], rules.zinger).absorbance
    for part in slabs:
        if len(slabs) > 1:
            slab = read(part)
        for row in part:
            one = slab.sinogram(row, rules.zinger)
            zingers, black = zingers + one.zingers, black + one.dark_pixels
            total = one.absorbance.sum(axis=1, dtype=np.float64)
            image = slab.slice(one, centre, rules)
            if not made.size:
                made = np.empty((len(rows), *image.shape), np.float32)
            made[len(sums)] = image
            sums.append((float(total.mean()), float(total.std())))
    counts, edges = np.histogram(made, 1024)
    data = _data(scan, slab, options, rows, centre, sums, made, otsu(counts, edges))
    data |= {"zingers": zingers, "pixels_without_light": black, "notes": list(scan.notes)}
    return SliceReport(data, _text(data), rows, made, shown, slab.angles_deg, centre, options.pixel_um)


def _data(
    scan: Scan, slab: Slab, options: SliceOptions, rows: tuple[int, ...], centre: Centre,
    sums: list[tuple[float, float]], slices: NDArray[np.float32], threshold: Threshold,
) -> dict[str, Any]:  # fmt: skip
    c = centre.estimate
    objects = [
        _object(one, threshold, std / abs(mean) / math.sqrt(slab.angles_deg.size) if mean else math.nan)
        for one, (mean, std) in zip(slices, sums, strict=True)
    ]
    return {
        "file": scan.name, "kind": "projections", "projections": list(scan.shape),
        "flats": slab.n_flats, "darks": slab.n_darks,
        "angles_deg": [float(slab.angles_deg[0]), float(slab.angles_deg[-1])], "double_field": slab.double,
        "method": options.method, "rings": options.rings, "rows": list(rows),
        "centre": quantity(c.value, c.sigma_stat, c.sigma_sys, "px"), "centre_methods": dict(centre.methods),
        "sum_of_absorbance": [
            {"row": row, "mean": mean, "std": std} for row, (mean, std) in zip(rows, sums, strict=True)
        ],
        "slice_pixels": int(slices.shape[1]),
        "otsu_per_pixel": quantity(threshold.value, 0.0, threshold.sigma, "1/px"),
        "object_pixels": [quantity(*area, "px") for area, _ in objects],
        "object_mean_per_pixel": [quantity(*mean, "1/px") for _, mean in objects],
        "pixel_um": options.pixel_um,
    }  # fmt: skip


def _object(image: NDArray[np.float32], threshold: Threshold, scatter: float) -> tuple[Parts, Parts]:
    """Return area and mean of what lies above the threshold: value, sigma_stat, sigma_sys.

    sigma_stat of the mean: ``scatter``, the relative error of the sum of absorbance that its scatter over
    the angles gives. sigma_sys: half of what one sigma of the threshold up and down changes, and with the
    mean how far that without its outermost pixels lies from it, where the edge is blurred into the air.
    """

    def mean_of(part: NDArray[np.bool_]) -> float:
        return float(image[part].mean(dtype=np.float64)) if part.any() else math.nan

    inside, low, high = (image > threshold.value + k * threshold.sigma for k in (0, -1, 1))
    mean, core = mean_of(inside), mean_of(binary_erosion(inside))
    edge = abs(mean - core) if math.isfinite(core) else 0.0
    sys = math.hypot(abs(mean_of(low) - mean_of(high)) / 2.0, edge)
    area_sys = float(low.sum() - high.sum()) / 2.0
    return (float(inside.sum()), 0.0, area_sys), (mean, abs(mean) * scatter, sys)


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
    for entry, area, mean in zip(
        data["sum_of_absorbance"], data["object_pixels"], data["object_mean_per_pixel"], strict=True
    ):
        lines.append((
            str(entry["row"]), f"{entry['mean']:.2f} ± {entry['std']:.2f}",
            pm(area["value"], area["sigma_sys"]),
            "-" if mean["value"] is None else pm(mean["value"], mean["sigma_stat"], mean["sigma_sys"]),
        ))  # fmt: skip
    heads = ("row", "sum of -ln T (mean, scatter over angles)", "object / pixels", "mean mu per pixel")
    otsu_there = pm(data["otsu_per_pixel"]["value"], data["otsu_per_pixel"]["sigma_sys"])
    tail = [
        f"  object: above Otsu's threshold {otsu_there} (a prior); "
        f"{data['zingers']} zingers replaced, "
        f"{data['pixels_without_light']} pixels without light",
        "  errors: statistical ± systematic (axis: half the methods' difference; mu: threshold, edge)",
    ]
    return "\n".join([*head, table(heads, lines), *tail, *(f"  note: {note}" for note in data["notes"])])
