"""``operando calibrate``: energy scale of a detector from known lines, as a station file takes it."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.apart import program
from controller.config.quantities import show
from controller.offline.calibrate_options import EXAMPLE, add_arguments
from controller.offline.run_files import Product, RunFiles
from controller.offline.values import pm, table
from drivers.files import any_file
from drivers.files.errors import FileError
from drivers.files.recordings import RecordedEvents, RecordedMap
from edge.calibration import EnergyScale
from edge.identify_lines import Calibrated, calibrate
from edge.known_lines import KnownLine, resolve
from edge.peaks import Peak

EXIT_DONE, EXIT_FILES = 0, 2
NAMES = ("energy.toml", "calibration.json", "calibration.png")


@dataclass(frozen=True)
class Taken:
    """A spectrum to be calibrated, where it is from, and what was known of its scale."""

    counts: NDArray[np.float64]
    source: str
    sha256: str
    on: datetime.date
    detector: str
    scale: EnergyScale | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="operando calibrate", description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        _free(args.out)
        lines = resolve([name for words in args.lines for name in words.split(",")])
        taken = take(args.source, args.detector, args.scan)
        near = _near(args.near) or (None if args.blind else taken.scale)
        found = calibrate(taken.counts, lines, near=near)
    except (ValueError, FileError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    told = report(found, taken)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "energy.toml").write_text(as_toml(found, taken, args.device or taken.detector))
    (args.out / "calibration.json").write_text(json.dumps(told, indent=1) + "\n")
    from controller.offline.figure_calibration import draw

    (args.out / "calibration.png").write_bytes(draw(found, taken.counts, taken.source))
    print(json.dumps(told) if args.json else as_text(found, taken, args.out))
    return EXIT_DONE


def take(source: Path, detector: str | None, scan: str | None) -> Taken:
    """Return the spectrum of a file or of a run. Raises: ValueError, FileError."""
    if source.is_dir():
        return _of_run(source, detector, scan)
    recording = any_file.read(source)
    if isinstance(recording, RecordedEvents):
        spectra = [recording.spectrum()]
    elif isinstance(recording, RecordedMap):
        raise ValueError(f"{source} is a map: give a spectrum, or reduce it (operando reduce maps)")  # noqa: TRY004
    else:
        spectra = list(recording)
    number = int(detector) if detector is not None and detector.isdigit() else 0
    if detector is None and len(spectra) > 1:
        raise ValueError(f"{source} has {len(spectra)} detectors: --detector 0 to {len(spectra) - 1}")
    if (detector is not None and not detector.isdigit()) or number >= len(spectra):
        raise ValueError(
            f"{source} has no detector {detector}: they are counted from 0 to {len(spectra) - 1}"
        )
    one = spectra[number]
    scale = EnergyScale(one.energy_kev, one.centre) if one.energy_kev is not None else None
    on = one.started.date() if one.started is not None else _written_on(source)
    return Taken(one.counts.astype(np.float64), source.name, _sha256(source), on, "detector", scale)


def _of_run(folder: Path, detector: str | None, scan: str | None) -> Taken:
    """Add up the spectra of the calibrate steps of a run, else of all its scans."""
    run = RunFiles(folder)
    products = [one for one in run.products if one.kind == "spectrum"]
    if not products:
        raise ValueError(f"{folder} holds no spectrum: is it the folder of a run?")
    there = sorted({one.what for one in products})
    if detector is None and len(there) > 1:
        raise ValueError(f"{folder} has spectra of {', '.join(there)}: --detector {there[0]}")
    wanted = detector or there[0]
    loaded = [(one, one.load()) for one in products if one.what == wanted]
    if not loaded:
        raise ValueError(f"{folder} has no spectra of {wanted}: there are {', '.join(there)}")
    chosen = [(one, fields) for one, fields in loaded if _is(one, fields, scan)]
    only = [(one, fields) for one, fields in chosen if fields["purpose"] == "calibrate"]
    chosen = only or [(one, fields) for one, fields in chosen if fields["purpose"] != "background"]
    if not chosen:
        names = ", ".join(dict.fromkeys(str(fields["name"]) for _, fields in loaded))
        raise ValueError(f"{folder} has no scan {scan}: there are {names}")
    last = {
        one.place: (one, fields) for one, fields in chosen
    }  # of each scan or exposure the newest, which holds all passes
    counts = np.sum([np.asarray(fields["values"], np.float64) for _, fields in last.values()], axis=0)
    axis = np.asarray(chosen[0][1]["energy_kev"], np.float64)
    gain = float((axis[-1] - axis[0]) / (axis.size - 1))
    digest = hashlib.sha256(b"".join(one.path.read_bytes() for one, _ in last.values())).hexdigest()
    names = ", ".join(str(fields["name"]) for _, fields in last.values())
    on = _written_on(chosen[0][0].path)
    return Taken(counts, f"{run.run}: {names}", digest, on, wanted, EnergyScale((float(axis[0]), gain)))


def _is(product: Product, fields: dict[str, Any], scan: str | None) -> bool:
    return scan is None or scan in (str(product.scan), str(fields["name"]))


def _near(text: str | None) -> EnergyScale | None:
    if text is None:
        return None
    try:
        offset, gain = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--near {text}: two numbers in keV, such as --near 0,0.37") from None
    if not gain > 0.0:
        raise ValueError(f"--near {text}: the gain must be more than 0 keV per channel")
    return EnergyScale((offset, gain))


def _free(folder: Path) -> None:
    there = [name for name in NAMES if (folder / name).exists()]
    if there:
        raise ValueError(f"{folder} holds {there[0]} already: nothing is overwritten; name another --out")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written_on(path: Path) -> datetime.date:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, tz=datetime.UTC).date()


def _rows(found: Calibrated) -> Iterator[tuple[KnownLine, Peak, float, float]]:
    fit = found.fit
    for line, peak, miss, sigma in zip(
        found.lines, found.peaks, fit.residuals_kev, fit.sigma_kev, strict=True
    ):
        yield line, peak, float(miss), float(sigma)


def _errors(found: Calibrated) -> tuple[float, float, float]:
    """Return the errors of offset and gain (keV), and their correlation."""
    covariance = found.fit.scale.covariance
    assert covariance is not None  # noqa: S101  # fit_scale always gives one
    offset, gain = (math.sqrt(value) for value in np.diag(covariance))
    return offset, gain, float(covariance[0, 1] / (offset * gain))


def as_toml(found: Calibrated, taken: Taken, device: str) -> str:
    """Return the table for the station file."""
    offset, gain = found.fit.scale.coefficients
    offset_error, gain_error, correlation = _errors(found)
    names = ", ".join(json.dumps(line.name) for line in found.lines)
    return "\n".join([
        "# Written by `operando calibrate`: it takes the place of energy in the table of this device.",
        f"[device.{device}.energy]",
        f'offset = "{show(offset, "keV", 7)}"',
        f'gain = "{show(gain, "keV", 8)}"',
        "",
        f"[device.{device}.energy.measured]",
        f'offset_error = "{show(offset_error, "keV", 3)}"',
        f'gain_error = "{show(gain_error, "keV", 3)}"',
        f"correlation = {correlation:.4f}",
        f"lines = [{names}]",
        f"on = {taken.on.isoformat()}",
        f"source = {json.dumps(taken.source, ensure_ascii=False)}",
        f'sha256 = "{taken.sha256}"',
        "",
    ])  # fmt: skip


def report(found: Calibrated, taken: Taken) -> dict[str, Any]:
    """Return everything for machines. Energies in keV, places in channels, errors are one sigma."""
    fit = found.fit
    offset_error, gain_error, correlation = _errors(found)
    rows = [
        {
            "name": line.name, "energy_kev": line.energy_kev, "energy_sigma_kev": line.sigma_kev,
            "channel": peak.centroid, "channel_sigma": peak.centroid_sigma, "fwhm_channels": peak.fwhm,
            "area": peak.area, "residual_kev": float(miss), "residual_sigma_kev": float(sigma),
        }
        for line, peak, miss, sigma in _rows(found)
    ]  # fmt: skip
    return {
        "schema": "operando/calibration/1", "source": taken.source, "sha256": taken.sha256,
        "on": taken.on.isoformat(),
        "offset_kev": fit.scale.coefficients[0], "gain_kev": fit.scale.coefficients[1],
        "offset_error_kev": offset_error, "gain_error_kev": gain_error, "correlation": correlation,
        "excess_kev": fit.excess_kev, "chi2": fit.chi2, "ndf": fit.ndf,
        "sure": found.sure if math.isfinite(found.sure) else None, "lines": rows,
    }  # fmt: skip


def as_text(found: Calibrated, taken: Taken, out: Path) -> str:
    """Return what a person reads."""
    fit = found.fit
    offset, gain = fit.scale.coefficients
    offset_error, gain_error, _ = _errors(found)
    rows = [
        (line.name, f"{line.energy_kev:.3f}", pm(peak.centroid, peak.centroid_sigma, digits=2),
         f"{peak.fwhm * gain:.3f}", f"{1000 * miss:+.1f}", f"{1000 * sigma:.1f}")
        for line, peak, miss, sigma in _rows(found)
    ]  # fmt: skip
    lines = [
        f"{taken.source}: {len(found.lines)} lines found",
        table(("line", "keV", "channel", "FWHM / keV", "beside / eV", "± eV"), rows),
        f"  offset {show(offset, 'keV', 5)} ± {show(offset_error, 'keV', 2)}, "
        f"gain {show(gain, 'keV', 7)} ± {show(gain_error, 'keV', 2)} per channel",
    ]
    if fit.excess_kev > 0.0:
        lines.append(
            f"  the lines scatter by {1000 * fit.excess_kev:.0f} eV more than their own errors: in the errors"
        )
    if taken.scale is not None:
        middle = float(np.mean([peak.centroid for peak in found.peaks]))
        moved = float(fit.scale.energy_kev(middle) - taken.scale.energy_kev(middle))
        lines.append(
            f"  the calibration in the file was {-1000 * moved:+.0f} eV beside it at channel {middle:.0f}"
        )
    return "\n".join([*lines, f"  wrote {', '.join(str(out / name) for name in NAMES)}"])


if __name__ == "__main__":
    sys.exit(program(main))
