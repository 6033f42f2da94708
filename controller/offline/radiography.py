"""``operando reduce radiography``: neutron images to transmission, 6Li, profiles, diffusion."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline import radiography_options
from controller.offline.radiography_options import Options
from controller.offline.radiography_recorded import is_run, states
from controller.offline.radiography_run import Radiographs, summed
from controller.offline.radiography_summary import Summary, hardening, slopes, summary
from controller.offline.radiography_text import text_of
from controller.offline.technique import Array, Axis, Job, Merge, Problems, Technique
from controller.offline.values import estimated, finite, quantity
from drivers.files import images
from drivers.files.errors import FileError
from edge.radiography import ImageSums
from edge.radiography_depth import Line, transmission_map

Floats = NDArray[np.float64]


class RadiographyReport:
    """A set of radiographs, reduced."""

    def __init__(self, run: Radiographs) -> None:
        self.run = run
        self.options = run.options
        self.states = [summary(run, number) for number in range(len(run.options.states))]
        self.data: Mapping[str, Any] = _data(run, self.states)
        self.text = text_of(run, self.states)

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield the pictures."""
        from controller.offline.figures_radiography import draw

        yield from draw(self, fmt)

    def maps(self, number: int) -> tuple[Floats, Floats]:
        """Return transmission and its error of one state (computed again from its image)."""
        state, reference, _ = self.run.pair(number)
        return transmission_map(state.sample, reference, self.run.setting)

    def plain_map(self, number: int) -> Floats:
        """Return the transmission without scattering correction."""
        state, _, reference = self.run.pair(number)
        return transmission_map(state.plain, reference, self.run.setting)[0]

    def arrays(self) -> Iterator[Array]:
        """Yield mask, transmission maps and profiles."""
        pixel = self.options.pixel_um
        unit, step = ("um", pixel) if pixel else ("px", 1.0)
        shape = self.run.dark.mean.shape
        axes = tuple(
            Axis(name, step * np.arange(n, dtype=np.float64), unit)
            for name, n in zip(("y", "x"), shape, strict=True)
        )
        mask = self.run.mask
        title = f"reasons (1 dark, 2 spot, 4 saturated, 8 given); mask {mask.name}, version {mask.version}"
        yield Array("mask", mask.bits, "", axes=axes, title=title)
        for number, one in enumerate(self.states):
            t, sigma = self.maps(number)
            title = f"transmission, {one.label}; its error is counting alone, without the dose"
            yield Array(
                f"transmission_{number:03d}", t.astype(np.float32), "1", sigma.astype(np.float32), axes, title
            )
            if one.depth.size:
                along = (Axis("row", one.centre_px * step, unit),)
                title = f"-ln T along the cell, {one.label}; error by counting"
                yield Array(f"profile_{number:03d}", one.depth, "1", one.sigma_stat, along, title)
            if one.lithium is not None and one.depth.size:
                kind = one.lithium
                title = f"6Li along the cell, {one.label}"
                yield Array(f"lithium6_{number:03d}", kind.values, kind.unit, kind.sigma_stat, along, title)


def _slope(one: Line) -> dict[str, Any]:
    return quantity(one.slope, one.slope_sigma, one.slope_sys, "1/mm")


def _data(run: Radiographs, states: Sequence[Summary]) -> dict[str, Any]:
    options, noise, mask = run.options, run.noise, run.mask
    fields: dict[str, Any] = {"corrected": bool(options.black_body)}
    if options.black_body:
        field = run.state(len(states) - 1).sample.field
        fields |= {
            "bodies": len(run.bodies), "grid_transmission": run.grid_share,
            "sample_field_sigma_adu": field.sigma if field else None,
            "left_out_adu": field.left_out.tolist() if field else None,
        }  # fmt: skip
    return {
        "file": options.samples[0].name,
        "pixels": list(run.dark.mean.shape),
        "noise": {
            "scale_px": list(noise.scales_px), "adu_of_variance_per_adu": list(noise.gains_adu),
            "sigma": list(noise.gain_sigmas_adu), "read_variance_adu2": noise.read_variance,
            "source": noise.source,
        },
        "mask": {"name": mask.name, "version": mask.version, "settings": mask.settings, **mask.counts()},
        "scattering": fields,
        "states": [state_data(one) for one in states],
        "assumptions": _assumptions(options),
    }  # fmt: skip


def _assumptions(options: Options) -> list[str]:
    said = ["the dark is the same in all images", "the air region sees the open beam in all images"]
    if options.black_body:
        said.append("black bodies let nothing through; the reference scatters like the open beam")
    else:
        said.append(
            "scattering was not measured and not subtracted: depths are too small by an unknown amount"
        )
    if options.wavelength_angstrom or options.maxwell_k:
        what = "6Li and the given matrix" if options.matrix_per_cm else "6Li"
        said.append(f"all attenuation against the reference is {what}")
    return said


def state_data(one: Summary) -> dict[str, Any]:
    """Return one state as plain values."""
    curve = hardening(one.regions)
    answer: dict[str, Any] = {
        "file": one.state_file, "label": one.label, "frames": one.n_frames, "dose": estimated(one.dose),
        "masked_pixels": one.masked,
        "regions": [
            {
                "name": now.region.name, "rows": [now.region.rows.start, now.region.rows.stop],
                "columns": [now.region.columns.start, now.region.columns.stop],
                "thickness_mm": now.region.thickness_mm, "pixels": now.n_pixels,
                "optical_depth": estimated(now.depth), "transmission": estimated(now.transmission),
                "median_of_pixels": estimated(now.median_depth),
                "scattered_share": estimated(now.scattered_share),
                "optical_depth_before_scattering_correction": estimated(before.depth),
                "median_of_pixels_before": estimated(before.median_depth),
            }
            for now, before in zip(one.regions, one.regions_plain, strict=True)
        ],
        "lithium6_of_regions": [estimated(value) for value in one.region_lithium],
        "slopes": {k: _slope(v) for k, v in slopes(one.regions).items()},
        "slopes_of_medians_before": {
            k: _slope(v) for k, v in slopes(one.regions_plain, medians=True).items()
        },
        "slopes_before": {
            k: _slope(v) for k, v in slopes(one.regions_plain).items()
        },
    }  # fmt: skip
    if curve is not None:
        answer["hardening"] = {
            "formula": "depth = mu d + q d^2",
            "mu": quantity(curve.mu_per_mm, curve.sigmas[0], 0.0, "1/mm"),
            "q": quantity(curve.q_per_mm2, curve.sigmas[1], 0.0, "1/mm2"),
        }
    if one.depth.size:
        answer["profile"] = {
            "row": one.centre_px.tolist(), "depth": [finite(v) for v in one.depth],
            "sigma_stat": [finite(v) for v in one.sigma_stat],
            "sigma_common": [finite(v) for v in one.sigma_common],
        }  # fmt: skip
    if one.lithium is not None:
        answer["lithium6"] = {
            "unit": one.lithium.unit, "values": [finite(v) for v in one.lithium.values],
            "sigma_stat": [finite(v) for v in one.lithium.sigma_stat],
            "sigma_common": [finite(v) for v in one.lithium.sigma_common],
            "mean": estimated(one.lithium.mean),
        }  # fmt: skip
    if one.diffusion is not None:
        d = one.diffusion
        answer["diffusion"] = {
            "flux": estimated(d.flux), "apparent": estimated(d.apparent),
            "nernst_einstein": estimated(d.nernst_einstein), "ratio": estimated(d.ratio),
            "voltage_that_agrees": estimated(d.voltage_that_agrees),
        }  # fmt: skip
    return answer


def _run(options: Options) -> RadiographyReport:
    return _report(Radiographs(options))


def _report(run: Radiographs) -> RadiographyReport:
    report, options = RadiographyReport(run), run.options
    if options.save_mask is not None:
        mask = run.mask
        images.write_mask(
            options.save_mask, mask.bits, mask.settings | {"name": mask.name, "version": mask.version}
        )
    return report


def _jobs(args: argparse.Namespace) -> list[Job]:
    if not is_run(args.files):
        options = _checked(args)
        return [Job(options.samples[0], options.inputs, partial(_run, options))]
    if getattr(args, "merge", False):
        raise Problems(["--merge: the exposures of a run are merged by their names already"])
    made, wrong = states(args)
    for _, options in made:
        wrong += [text for text in _misfits(options.inputs, options) if text not in wrong]
    if wrong:
        raise Problems(wrong)
    return [Job(one.samples[0].parent, one.inputs, partial(_run, one)) for _, one in made]


def _part(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Return the sums of one of several files of exposures of one state."""
    sums, full_adu = summed([file])
    return sums.state() | {"file": file.name, "full_adu": full_adu}


def _merge(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> RadiographyReport:
    """Add the exposures of all files, in their order, and reduce the one state that they show."""
    options = _checked(args)
    total = ImageSums.restored(parts[0])
    for part in parts[1:]:
        try:
            total.merge(ImageSums.restored(part, total.n_frames))
        except ValueError as error:
            raise ValueError(f"{part['file']}: {error}") from error
    return _report(Radiographs(options, total.result(), min(part["full_adu"] for part in parts)))


def _checked(args: argparse.Namespace) -> Options:
    """Return the options; raises Problems with all that is wrong with them and with the files."""
    options, wrong = radiography_options.parse_options(args)
    needed = {"--open": args.open, "--dark": args.dark, "--air": args.air}
    if missing := [option for option, value in needed.items() if not value]:
        wrong.append(f"{', '.join(missing)}: needed with images (the folder of a run has its own)")
    paths = [*args.files, *args.open, *args.dark, *args.reference, *args.black_body, *args.black_body_open]
    wrong += _misfits([*paths, *([args.mask] if args.mask else [])], options)
    if wrong or options is None:
        raise Problems(list(dict.fromkeys(wrong)))
    return options


def _misfits(paths: Sequence[Path], options: Options | None) -> list[str]:
    """Return what is wrong with the images: unreadable, of several sizes, too small for a region."""
    wrong: list[str] = []
    sizes: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            recorded = images.read(path)
            sizes.setdefault((recorded.ny, recorded.nx), path.name)
        except FileError as error:
            wrong.append(str(error))
    if len(sizes) > 1:
        wrong.append(
            "images differ in size: " + ", ".join(f"{n} is {y} x {x}" for (y, x), n in sizes.items())
        )
    if options is not None and len(sizes) == 1:
        (ny, nx), *_ = sizes
        places = [options.air, *options.regions, *([options.along] if options.along else [])]
        wrong += [
            f"region {p.name!r} is not inside {ny} x {nx} pixels"
            for p in places
            if p.rows.stop > ny or p.columns.stop > nx
        ]
    return wrong


TECHNIQUE = Technique(
    name="radiography",
    help="Neutron images to transmission, 6Li per area and volume, profiles per state of charge.",
    files="TIFF images of the sample, one state each (several pages, or --merge: exposures of one state); or "
    "the folder of a run: its images and its [radiography] table, where options do not say otherwise",
    example='operando reduce radiography cell.tif --open open.tif --dark dark.tif --air "30:80, 700:790"',
    add_arguments=radiography_options.add_arguments,
    jobs=_jobs,
    merge=Merge(_part, _merge, lambda args: _checked(args).inputs, alone=True),
)
