"""``operando reduce xrf``: spectra of one or more detectors, or a map, to line areas and element maps."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.recorded import one_each
from controller.offline.technique import Array, Axis, Job, Merge, Problems, Technique
from controller.offline.values import finite, parse_energy, pm, quantity, scale_report, table
from drivers.files import any_file
from drivers.files.recordings import RecordedEvents, RecordedMap, RecordedSpectrum, Recording
from edge.calibration import EnergyScale
from edge.spectra import MapSums, Projection, SpectrumSums, channels_within
from edge.xray_lines import LineGroup
from edge.xrf_reduce import MN_KA_KEV, ROI_HALF_KEV, XrfResult, centre_of_mass, parse_elements, reduce_xrf

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class XrfOptions:
    """What a person may choose."""

    groups: tuple[LineGroup, ...] | None = None
    offset_kev: float | None = None
    gain_kev: float | None = None
    low_kev: float = 1.3
    high_kev: float | None = None


@dataclass(frozen=True)
class ElementMap:
    """One group's map of one detector."""

    name: str
    detector: int
    roi: NDArray[np.int64]  # (ny, nx) counts in the region of interest, background included
    fitted: Floats  # (ny, nx) counts, neighbours and background separated
    sigma: Floats  # (ny, nx)


@dataclass(frozen=True)
class XrfReport:
    """A reduced recording: for machines (``data``), for people (``text``), and what the figures need."""

    data: dict[str, Any]
    text: str
    spectra: tuple[RecordedSpectrum, ...]
    results: tuple[XrfResult, ...]
    maps: tuple[ElementMap, ...] = ()
    recorded_map: RecordedMap | None = None
    totals: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, picture) of each figure."""
        from controller.offline import figures_xrf

        return figures_xrf.draw(self, fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield each detector's spectrum and each group's map, fitted and as counted."""
        for spectrum, result in zip(self.spectra, self.results, strict=True):
            energy = result.fit.scale.energy_kev(np.arange(spectrum.counts.size))
            yield Array(
                f"spectrum_{spectrum.detector}", spectrum.counts, "counts", np.sqrt(spectrum.counts),
                (Axis("energy", energy, "keV"),), f"detector {spectrum.detector}, counts as recorded",
            )  # fmt: skip
        for m in self.maps:
            name = f"{m.name}_{m.detector}".replace(" ", "_")
            yield Array(f"{name}_fitted", m.fitted, "counts", m.sigma, (), f"{m.name}, neighbours separated")
            yield Array(f"{name}_region", m.roi, "counts", np.sqrt(m.roi), (), f"{m.name}, with background")


def reduce_recording(recording: Recording, options: XrfOptions) -> XrfReport:
    """Reduce one recording. Raises ValueError when it is no X-ray recording or nothing is found."""
    if isinstance(recording, RecordedEvents):
        recording = [recording.spectrum()]
    if isinstance(recording, RecordedMap):
        return _map(recording, options)
    results = tuple(_reduce(spectrum.counts, _scale(spectrum, options), options) for spectrum in recording)
    data = {
        "file": recording[0].path.name,
        "started": recording[0].started.isoformat(sep=" ") if recording[0].started else None,
        "detectors": [_detector(s, r) for s, r in zip(recording, results, strict=True)],
        "notes": list(recording[0].notes),
    }
    return XrfReport(data, _text(data, results), tuple(recording), results)


def _scale(recorded: RecordedSpectrum | RecordedMap, options: XrfOptions) -> EnergyScale:
    if options.gain_kev is not None:
        return EnergyScale((options.offset_kev or 0.0, options.gain_kev))
    if recorded.energy_kev is None:
        raise ValueError('the file has no energy calibration: give --gain "10 eV" (and --offset "0 eV")')
    return EnergyScale(recorded.energy_kev, recorded.centre)


def _reduce(counts: NDArray[np.int64], scale: EnergyScale, options: XrfOptions) -> XrfResult:
    return reduce_xrf(
        counts, scale, groups=options.groups, low_kev=options.low_kev, high_kev=options.high_kev
    )


def _detector(spectrum: RecordedSpectrum, result: XrfResult) -> dict[str, Any]:
    dead = None
    if spectrum.live_s is not None and spectrum.real_s:
        dead = 1 - spectrum.live_s / spectrum.real_s
    lines = {line.group.name: line for line in result.lines}
    return {
        "detector": spectrum.detector, "counts": int(spectrum.counts.sum()), "live_s": spectrum.live_s,
        "real_s": spectrum.real_s, "dead_fraction": dead,
        "recorded_calibration": scale_report(result.recorded), "calibration": scale_report(result.fit.scale),
        "resolution_at_5.895_kev": quantity(
            float(result.fit.detector.fwhm_kev(MN_KA_KEV)), result.fit.detector.fwhm_sigma_kev(MN_KA_KEV),
            0.0, "keV",
        ),
        "elements": list(result.found.elements),
        "peaks": [
            {"energy_kev": e, "significance": s, "explanation": w} for e, s, w in result.found.explained
        ],
        "groups": [
            {
                "name": a.group.name, "energy_kev": a.group.mean_kev,
                "area": quantity(a.area, a.sigma_stat, a.sigma_sys, "counts"),
                "rate": _rate(a.area, a.sigma_stat, a.sigma_sys, spectrum.live_s),
            }
            for a in result.fit.areas
        ],
        "single_peaks": [
            {
                "name": name, "energy": quantity(m.energy_kev, m.energy_sigma_kev, 0.0, "keV"),
                "fwhm": quantity(m.fwhm_kev, m.fwhm_sigma_kev, 0.0, "keV"),
                "area": quantity(m.area, m.area_sigma, m.area_sigma_sys, "counts"),
                "roi_counts": m.roi_counts,
            }
            for name, m in lines.items()
        ],
        "chi2": finite(result.fit.chi2), "ndf": result.fit.ndf,
    }  # fmt: skip


def _rate(area: float, stat: float, sys: float, live_s: float | None) -> dict[str, Any] | None:
    return quantity(area / live_s, stat / live_s, sys / live_s, "1/s") if live_s else None


def _map(recorded: RecordedMap, options: XrfOptions) -> XrfReport:
    """Reduce a map in two readings: sum spectra first, then every count into the maps."""
    scale = _scale(recorded, options)
    n_pixels, shape = recorded.ny * recorded.nx, (recorded.ny, recorded.nx)
    spectra = MapSums(
        n_pixels, recorded.n_detectors, np.zeros((0, recorded.n_detectors, recorded.n_channels), bool)
    )
    for block in recorded.blocks():
        spectra.add(block.pixel, block.detector, block.channel, block.counts)
    results = tuple(_reduce(spectra.spectra[d], scale, options) for d in range(recorded.n_detectors))
    names = sorted({a.group.name for r in results for a in r.fit.areas}, key=lambda n: _mean_kev(results, n))
    windows = np.stack([
        np.broadcast_to(channels_within(scale, recorded.n_channels, _mean_kev(results, name), ROI_HALF_KEV),
                        (recorded.n_detectors, recorded.n_channels))
        for name in names
    ])  # fmt: skip
    gain = np.zeros((recorded.n_detectors, len(names), recorded.n_channels))
    for d, result in enumerate(results):
        for k, area in enumerate(result.fit.areas):
            part = slice(result.fit.first, result.fit.first + result.fit.counts.size)
            gain[d, names.index(area.group.name), part] = result.fit.gain[k]
    sums, fitted = MapSums(n_pixels, recorded.n_detectors, windows), Projection(n_pixels, gain)
    for block in recorded.blocks():
        sums.add(block.pixel, block.detector, block.channel, block.counts)
        fitted.add(block.pixel, block.detector, block.channel, block.counts)
    maps = tuple(
        ElementMap(
            name, d, sums.maps[k, d].reshape(shape), fitted.amplitude[k, d].reshape(shape),
            np.sqrt(fitted.variance[k, d]).reshape(shape),
        )
        for k, name in enumerate(names) for d in range(recorded.n_detectors)
    )  # fmt: skip
    single = tuple(
        RecordedSpectrum(recorded.path, sums.spectra[d], detector=d, energy_kev=recorded.energy_kev)
        for d in range(recorded.n_detectors)
    )
    data = {
        "file": recorded.path.name, "started": recorded.title or None,
        "map": {"nx": recorded.nx, "ny": recorded.ny, "detectors": recorded.n_detectors,
                "channels": recorded.n_channels, "width_um": recorded.width_um,
                "height_um": recorded.height_um,
                "dwell_s": recorded.dwell_s, "mean_dead_fraction": _mean_dead(recorded)},
        "detectors": [_detector(s, r) for s, r in zip(single, results, strict=True)],
        "maps": [_map_report(m) for m in maps], "notes": list(recorded.notes),
    }  # fmt: skip
    totals = sums.totals.reshape(recorded.n_detectors, *shape)
    return XrfReport(data, _text(data, results), single, results, maps, recorded, totals)


def _mean_kev(results: tuple[XrfResult, ...], name: str) -> float:
    return next(a.group.mean_kev for r in results for a in r.fit.areas if a.group.name == name)


def _mean_dead(recorded: RecordedMap) -> list[float] | None:
    if recorded.dead_fraction is None:
        return None
    return [float(value) for value in recorded.dead_fraction.mean(axis=(0, 1))]


def _map_report(m: ElementMap) -> dict[str, Any]:
    y, x = centre_of_mass(m.roi)
    return {
        "name": m.name, "detector": m.detector, "roi_counts": int(m.roi.sum()), "roi_half_kev": ROI_HALF_KEV,
        "max_pixel": int(m.roi.max()), "centre_of_mass_y_x": [finite(y), finite(x)],
        "fitted": quantity(float(m.fitted.sum()), float(np.sqrt((m.sigma**2).sum())), 0.0, "counts"),
    }  # fmt: skip


def _text(data: dict[str, Any], results: tuple[XrfResult, ...]) -> str:
    lines = [f"{data['file']}: {_what(data)}"]
    for entry, result in zip(data["detectors"], results, strict=True):
        single = {m.group.name: m for m in result.lines}
        rows = []
        for a in result.fit.areas:
            m = single.get(a.group.name)
            rows.append((
                a.group.name,
                pm(m.energy_kev, m.energy_sigma_kev, digits=4) if m else "-",
                pm(m.fwhm_kev, m.fwhm_sigma_kev, digits=4) if m else "-",
                pm(a.area, a.sigma_stat, a.sigma_sys, digits=0),
                pm(m.area, m.area_sigma, m.area_sigma_sys, digits=0) if m else "-",
                pm(m.roi_counts, math.sqrt(m.roi_counts), digits=0) if m else "-",
            ))  # fmt: skip
        dead = f", dead time {entry['dead_fraction']:.1%}" if entry["dead_fraction"] is not None else ""
        live = f", live {entry['live_s']:g} s" if entry["live_s"] else ""
        lines.append(
            f"  detector {entry['detector']}: {entry['counts']} counts{live}{dead}; "
            f"{_ev(entry['resolution_at_5.895_kev'])} eV at 5.9 keV"
        )
        heads = (
            "lines",
            "centroid / keV",
            "FWHM / keV",
            "area of the fit / counts",
            "one peak / counts",
            "region",
        )
        lines.append(table(heads, rows))
    lines.append(
        "  area of the fit: all groups together; centroid, FWHM and one peak: a Gaussian on a straight"
    )
    lines.append(
        "  line on the recorded scale; region: counts within 85 eV of the line, background included;"
    )
    lines.append("  errors: statistical ± systematic")
    return "\n".join(lines)


def _ev(kev: dict[str, Any]) -> str:
    sigma = kev["sigma_stat"]
    return pm(1000 * kev["value"], math.nan if sigma is None else 1000 * sigma)


def _what(data: dict[str, Any]) -> str:
    if "map" not in data:
        return f"{len(data['detectors'])} detector(s)"
    m = data["map"]
    return f"map of {m['nx']} x {m['ny']} pixels, {m['detectors']} detector(s), {m['channels']} channels"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--elements", help='for example "Cr, Fe, W:L"; default: found in the spectrum')
    parser.add_argument("--offset", help='energy of channel 0, for example "-10 eV"')
    parser.add_argument("--gain", help='energy per channel, for example "10 eV"; overrides the file')
    parser.add_argument("--low", default="1.3 keV", help="start of the fitted range (default 1.3 keV)")
    parser.add_argument("--high", help="end of the fitted range; default: above the last line found")


def _part(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Return counts and times of each detector of one of several files."""
    recording = any_file.read(file)
    spectra = [recording.spectrum()] if isinstance(recording, RecordedEvents) else recording
    if isinstance(spectra, RecordedMap):
        raise ValueError("maps are added by operando reduce maps --merge")  # noqa: TRY004  # of the file
    return {
        "file": file.name,
        "detectors": [
            {
                "counts": one.counts, "live_s": one.live_s, "real_s": one.real_s, "detector": one.detector,
                "energy_kev": list(one.energy_kev) if one.energy_kev else None, "centre": one.centre,
            }
            for one in spectra
        ],
    }  # fmt: skip


def _merge(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> XrfReport:
    """Add the spectra of one sample detector by detector; channels and calibration must be the same."""
    first = parts[0]
    sums = [SpectrumSums(one["counts"].size) for one in first["detectors"]]
    for part in parts:
        if len(part["detectors"]) != len(sums):
            raise ValueError(f"{part['file']} and {first['file']} have different numbers of detectors")
        for total, one, known in zip(sums, part["detectors"], first["detectors"], strict=True):
            if any(one[name] != known[name] for name in ("detector", "energy_kev", "centre")):
                raise ValueError(f"{part['file']} and {first['file']} are calibrated differently")
            try:
                total.add(one["counts"], one["live_s"], one["real_s"])
            except ValueError as error:
                raise ValueError(f"{part['file']}: {error}") from error
    said = ("the sum of " + ", ".join(part["file"] for part in parts),)
    merged = []
    for total, known in zip(sums, first["detectors"], strict=True):
        counts, live_s, real_s = total.result()
        energy = tuple(known["energy_kev"]) if known["energy_kev"] else None
        merged.append(RecordedSpectrum(
            Path(str(first["file"])), counts, known["detector"], live_s, real_s, energy_kev=energy,
            centre=known["centre"], notes=said,
        ))  # fmt: skip
    return reduce_recording(merged, _options(args))


def _jobs(args: argparse.Namespace) -> list[Job]:
    options = _options(args)
    return one_each(args.files, lambda recording: reduce_recording(recording, options))


def _options(args: argparse.Namespace) -> XrfOptions:
    """Return the options; raises Problems with all that is wrong."""
    options = XrfOptions(
        groups=parse_elements(args.elements) if args.elements else None,
        offset_kev=parse_energy(args.offset) if args.offset else None,
        gain_kev=parse_energy(args.gain) if args.gain else None,
        low_kev=parse_energy(args.low),
        high_kev=parse_energy(args.high) if args.high else None,
    )
    problems = []
    if options.gain_kev is not None and options.gain_kev <= 0:
        problems.append(f"--gain {args.gain!r} must be positive")
    if options.offset_kev is not None and options.gain_kev is None:
        problems.append("--offset needs --gain")
    if options.high_kev is not None and options.high_kev <= options.low_kev:
        problems.append("--high must be above --low")
    if problems:
        raise Problems(problems)
    return options


TECHNIQUE = Technique(
    "xrf", "X-ray fluorescence: elements found, areas of line groups from one fit, element maps.",
    any_file.FORMATS, 'operando reduce xrf steel.spe --gain "11.93 eV" --elements "Cr, Mn, Fe, Ni, Cu, W:L"',
    _add_arguments, _jobs, Merge(_part, _merge, alone=True), each=True,
)  # fmt: skip
