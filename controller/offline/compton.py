"""``operando reduce compton``: HEXITEC frames or histograms to S, lithium, profiles, depth regions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.offline import compton_text
from controller.offline.compton_options import Options, add_arguments, read_options
from controller.offline.compton_read import Recorded, check, finish, is_histogram, load, prepare
from controller.offline.compton_read import count as count_frames
from controller.offline.technique import Array, Axis, Job, Merge, Problems, Technique
from controller.offline.values import estimated, finite, quantity
from drivers.files import hexitec_frames
from edge.compton import Analysis, analyse, at_depth
from edge.compton_frames import Compton
from edge.compton_lithium import Unmixed, stoichiometry, unmix_spectra, unmix_sums
from edge.uncertainty import Estimate


@dataclass(frozen=True)
class Depth:
    """The depth regions of a cell, unmixed."""

    unmixed: Unmixed
    spectra: Any  # (components, bins)
    spectra_sigma: Any


@dataclass(frozen=True)
class ComptonReport:
    """One recording, or the depth regions of one cell."""

    data: dict[str, Any]
    text: str
    options: Options
    recorded: tuple[Recorded, ...]
    analyses: tuple[Analysis, ...]
    names: tuple[str, ...]
    depth: Depth | None = None

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield the pictures."""
        from controller.offline import figures_compton

        yield from figures_compton.draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield maps, spectra and profiles."""
        for name, recorded, analysis in zip(self.names, self.recorded, self.analyses, strict=True):
            prefix = f"{_safe(name)}_" if len(self.names) > 1 else ""
            yield from _arrays(prefix, recorded, analysis)
        if self.depth is not None:
            yield from _depth_arrays(self)


def make_report(
    recorded: Sequence[Recorded], options: Options, factors: Sequence[float], name: str = ""
) -> ComptonReport:
    """Analyse recordings: one alone (``name`` if not that of its file), or the depth regions of one cell.

    Raises:
        ValueError: the regions do not belong together.
    """
    analyses = tuple(
        analyse(one.spectra, one.bins, one.mask, at_depth(options.setup, factor))
        for one, factor in zip(recorded, factors, strict=True)
    )
    mixing, depth = options.mixing, None
    names = tuple(name or one.path.stem for one in recorded)
    if mixing is not None:
        if len({one.bins for one in recorded}) != 1:
            raise ValueError("the depth regions have different energy bins: reduce them with the same ones")
        names = mixing.regions
        sums = np.stack([one.sums for one in analyses])
        spectra = np.stack([one.spectrum for one in analyses]).astype(np.float64)
        depth = Depth(unmix_sums(sums, mixing, factors), *unmix_spectra(spectra, mixing, factors))
    regions = [
        _region(name, one, analysis) for name, one, analysis in zip(names, recorded, analyses, strict=True)
    ]
    data: dict[str, Any] = {
        "file": recorded[0].path.name, "provenance": _provenance(options),
        **({"regions": regions} if mixing is not None else regions[0]),
    }  # fmt: skip
    if depth is not None:
        data["components"] = _components(depth, options)
    report = ComptonReport(data, "", options, tuple(recorded), analyses, names, depth)
    return ComptonReport(data, compton_text.text(report), options, tuple(recorded), analyses, names, depth)


def _region(name: str, recorded: Recorded, a: Analysis) -> dict[str, Any]:
    core, wings = float(a.sums[0]), float(a.sums[1])
    out: dict[str, Any] = {
        "region": name, "recording": recorded.path.name, "kind": recorded.kind, "notes": list(recorded.notes),
        "pixels": int(a.mask.sum()), "attenuation": a.setup.attenuation,
        "S": quantity(a.s.value, a.s.sigma_stat, a.s.sigma_sys, "1"),
        "S_interval_95": None if a.s_interval_95 is None else [finite(v) for v in a.s_interval_95],
        "S_budget": {key: finite(value) for key, value in a.budget.items()},
        "scale_shift": quantity(a.shift.value, a.shift.sigma_stat, a.shift.sigma_sys, "keV"),
        "core": quantity(core, float(np.sqrt(a.sums[2])), 0.0, "counts"),
        "wings": quantity(wings, float(np.sqrt(a.sums[3])), 0.0, "counts"),
        "peak": None,
        "lithium": None,
    }  # fmt: skip
    if a.lithium is not None:
        out["lithium"] = _lithium(a.lithium, a)
    if a.peak is not None:
        p, units = a.peak, ("counts", "keV", "keV", "1", "counts per bin", "counts per bin and keV")
        from edge.compton_fit import PARAMETERS

        out["peak"] = {
            key: quantity(p.value(key), p.sigma(key), 0.0, unit)
            for key, unit in zip(PARAMETERS, units, strict=True)
        } | {"chi2": finite(p.chi2), "ndf": p.ndf, "converged": p.converged}
    if recorded.counts is not None:
        out["frames"] = _frames(recorded)
    return out


def _lithium(found: Any, a: Analysis) -> dict[str, Any]:
    line = a.setup.line
    assert line is not None  # noqa: S101  # lithium exists with a line only
    return {
        "formula": "1-x = slope S + intercept", "slope": line.slope, "intercept": line.intercept,
        "covariance": line.covariance.tolist(), "source": line.source, "range_S": [line.low_s, line.high_s],
        "one_minus_x": quantity(float(found.value), float(found.sigma_stat), float(found.sigma_sys), "1"),
        "extrapolated": bool(found.extrapolated),
    }  # fmt: skip


def _frames(recorded: Recorded) -> dict[str, Any]:
    c = recorded.counts
    assert c is not None  # noqa: S101  # asked for frames only
    used = recorded.mask
    occupancy = c.occupancy(used)
    k = int(np.nanargmin(np.where(used, c.acceptance, np.nan)))
    lowest = Estimate(float(c.acceptance.flat[k]), float(c.acceptance_sigma.flat[k]), 0.0, "1")
    dark = recorded.dark
    hits = int(c.hits[used].sum())
    return {
        "number": c.frames, "hits": hits, "occupancy": estimated(occupancy),
        "singles": int(c.singles[used].sum()), "doubles": int(c.doubles[used].sum()),
        "discarded_hits": int(c.discarded[used].sum()),
        "underflow": int(c.underflow[used].sum()), "overflow": int(c.overflow[used].sum()),
        "acceptance_mean": estimated(c.mean_acceptance(used)),
        "acceptance_lowest": estimated(lowest), "same_pixel_chance": estimated(occupancy),
        "pixels_with_threshold_from_noise": recorded.noisy,
        "dark": None if dark is None else {
            "frames": dark.frames, "level": estimated(dark.level), "noise": estimated(dark.noise),
            "level_pixel_std_adu": finite(float(np.nanstd(dark.mean_adu))), "values_outside": dark.outside,
            "pixels_without": int(np.isnan(dark.mean_adu).sum()),
        },
    }  # fmt: skip


def _components(depth: Depth, options: Options) -> dict[str, Any]:
    u, mixing = depth.unmixed, options.mixing
    assert mixing is not None  # noqa: S101  # asked for depth regions only
    out: dict[str, Any] = {
        "regions": list(mixing.regions), "fractions": mixing.fractions.tolist(),
        "covariance_S": [[finite(v) for v in row] for row in u.covariance],
    }  # fmt: skip
    for k, name in enumerate(mixing.components):
        entry: dict[str, Any] = {
            "S": quantity(float(u.s.s[k]), float(u.s.sigma[k]), float(u.sigma_sys[k]), "1"),
            "counts_per_volume": quantity(
                float(u.counts[k]), float(u.counts_sigma[k]), float(u.counts_sigma_sys[k]), "counts/volume"
            ),
        }
        if options.setup.line is not None:
            x = stoichiometry(u.s.s[k], u.s.sigma[k], u.sigma_sys[k], options.setup.line)
            entry["one_minus_x"] = quantity(float(x.value), float(x.sigma_stat), float(x.sigma_sys), "1")
            entry["extrapolated"] = bool(x.extrapolated)
        out[name] = entry
    return out


def _provenance(options: Options) -> dict[str, Any]:
    setup, pinhole = options.setup, options.setup.pinhole
    return {
        "beam_kev": setup.energy_kev, "angle_deg": pinhole.angle_deg, "sheet_mm": pinhole.sheet_mm,
        "camera_mm": pinhole.detector_mm, "pitch_mm": pinhole.pitch_mm, "beam": pinhole.beam,
        "threshold_kev": options.threshold_kev, "mode": "add" if options.add_pairs else "discriminate",
        "ring": options.ring, "bin_kev": options.bins.width_kev,
        "dark": options.dark.name if isinstance(options.dark, Path) else str(options.dark),
        "priors": {"gain": setup.priors.gain, "offset_kev": setup.priors.offset_kev,
                   "angle_deg": setup.priors.angle_deg},
        "inputs": [path.name for path in options.inputs],
    }  # fmt: skip


def _arrays(prefix: str, recorded: Recorded, a: Analysis) -> Iterator[Array]:
    ny, nx = a.mask.shape
    y, x = a.setup.pinhole.offsets_mm(ny, nx)
    scale = a.setup.pinhole.sheet_mm / a.setup.pinhole.detector_mm
    place = (Axis("y", y[:, 0] * scale, "mm"), Axis("x", x[0] * scale, "mm"))
    energy = Axis("energy", a.bins.edges_kev(), "keV")
    counts = recorded.counts
    if counts is not None:
        for name in ("hits", "singles", "doubles", "discarded", "underflow", "overflow"):
            yield Array(f"{prefix}{name}", getattr(counts, name), "counts", axes=place)
        yield Array(f"{prefix}acceptance", counts.acceptance, "", counts.acceptance_sigma, place)
    yield Array(f"{prefix}spectra", recorded.spectra, "counts", axes=(*place, energy), title="per pixel")
    yield Array(
        f"{prefix}spectrum", a.spectrum, "counts", np.sqrt(a.spectrum), (energy,), "sum of the pixels"
    )
    yield Array(f"{prefix}angle", np.degrees(a.angles_rad), "deg", axes=place)
    yield Array(f"{prefix}S", a.map.s, "", a.map.sigma, place, "core / wings, statistical errors")
    yield Array(f"{prefix}S_sigma_sys", a.map_sigma_sys, "", axes=place)
    yield Array(f"{prefix}electron_density", a.density, "", a.density_sigma, place, "relative to the mean")
    if a.lithium_map is not None:
        yield Array(f"{prefix}one_minus_x", a.lithium_map.value, "", a.lithium_map.sigma_stat, place)
    if a.profile is not None:
        axis = (Axis("momentum", a.profile.momentum_au, "a.u."),)
        yield Array(f"{prefix}J", a.profile.j, "1/a.u.", a.profile.sigma, axis, "Compton profile")


def _depth_arrays(report: ComptonReport) -> Iterator[Array]:
    mixing, depth = report.options.mixing, report.depth
    if mixing is None or depth is None:
        return
    energy = Axis("energy", report.analyses[0].bins.edges_kev(), "keV")
    for k, name in enumerate(mixing.components):
        yield Array(
            f"{_safe(name)}_per_volume", depth.spectra[k], "counts/volume", depth.spectra_sigma[k], (energy,)
        )


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _jobs(args: argparse.Namespace) -> list[Job]:
    """Check options and headers; one job per file, or one for all depth regions. Raises Problems."""
    options = read_options(args)
    problems = [problem for file in args.files for problem in check(file, options)]
    if problems:
        raise Problems(list(dict.fromkeys(problems)))
    if options.mixing is not None:
        files = tuple(args.files)
        return [Job(files[0], files + options.inputs, lambda: _run(files, options, options.attenuation))]

    def job(file: Path, factor: float) -> Job:
        own = {"attenuation": repr(factor)}
        return Job(file, (file, *options.inputs), lambda: _run((file,), options, (factor,)), own)

    return [job(file, factor) for file, factor in zip(args.files, options.attenuation, strict=True)]


def _run(files: Sequence[Path], options: Options, factors: Sequence[float]) -> ComptonReport:
    return make_report([load(file, options) for file in files], options, factors)


def _part(args: argparse.Namespace, file: Path) -> Mapping[str, Any]:
    """Return the counts of one of several files of one measurement."""
    options = read_options(args)
    if is_histogram(file):
        raise ValueError(f"{file}: histograms are not merged, frames are")
    recording = hexitec_frames.read(file, options.shape)
    tables, _, _ = prepare(recording, options)
    return count_frames(recording, tables, options).state() | {"shape": [recording.ny, recording.nx]}


def _merge(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> ComptonReport:
    """Add the counts of all files and analyse the sum."""
    options = read_options(args)
    first = hexitec_frames.read(args.files[0], options.shape)
    tables, dark, usable = prepare(first, options)
    total = Compton(tables, add_pairs=options.add_pairs, ring=options.ring)
    for part in parts:
        one = Compton(tables, add_pairs=options.add_pairs, ring=options.ring)
        one.restore(dict(part))
        total.merge(one)
    notes = (f"{len(parts)} files added",)
    recorded = finish(args.files[0], first.kind, total, dark, usable, options, notes)
    return make_report([recorded], options, options.attenuation, f"{len(parts)} files")


def _row(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the quantities of a line of the summary."""
    if "regions" in data:
        parts = {name: one for name, one in data["components"].items() if isinstance(one, dict)}
        return {f"S {name}": one["S"] for name, one in parts.items()}
    row = {"S": data["S"]}
    if data.get("lithium"):
        row["1-x"] = data["lithium"]["one_minus_x"]
    return row


TECHNIQUE = Technique(
    "compton", "HEXITEC X-ray Compton scattering imaging: frames to S, lithium, profiles and depth regions.",
    "frames (raw uint16, flight stream, HDF5) or .hxt histograms",
    'operando reduce compton region1.bin --dark dark.bin --gain m.txt --offset c.txt --threshold "3 keV"'
    " --mode discriminate --lithium nmc811 --out results",
    add_arguments, _jobs, Merge(_part, _merge, lambda args: read_options(args).inputs), _row,
    each=True,
)  # fmt: skip
