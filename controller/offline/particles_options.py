"""Options of ``operando reduce particles``, read and checked before any trace is."""

from __future__ import annotations

import argparse
import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from controller.config.quantities import QuantityError, parse
from controller.offline.technique import Problems
from drivers.files import time_traces, time_traces_npz
from drivers.files.bounded import read_lines
from drivers.files.errors import FileError
from drivers.files.time_traces import RecordedTrace
from edge.particles_lithium import NMC532_MAH_G
from edge.particles_runs import Edge, EventRules
from edge.particles_thresholds import KINDS, Threshold
from edge.uncertainty import Estimate

PLUS_MINUS = re.compile(r"\s*([-+]?[0-9.eE+-]+?)\s*(?:\+-|±|\+/-)\s*([0-9.eE+-]+)\s*(.*?)\s*\Z")
MAX_CELLS = 50


@dataclass(frozen=True)
class Cell:
    """A calibration cell: the trace of its particles and its degree of lithiation after digestion."""

    path: Path
    name: str
    lithiation: float
    sigma: float


@dataclass(frozen=True)
class Options:
    """What a person chose.

    Attributes:
        window_s: length of a baseline window; None: one baseline for the trace.
        coincidence_s: largest distance of two peaks; None: two samples.
        ratio: (numerator, denominator) lines; None with one line.
        frame: name of the calibration cell that the diverging particles are counted against.
        active: lithium that still comes out, mAh/g.
        lithiation: degree of lithiation of the material after digestion.
    """

    lines: tuple[str, ...] | None
    dwell_s: float | None
    threshold: Threshold
    edge: str
    min_points: int
    window_s: float | None
    coincidence_s: float | None
    ratio: tuple[str, str] | None
    cells: tuple[Cell, ...]
    frame: str | None
    capacity_mah_g: float
    active: Estimate | None
    lithiation: Estimate | None

    def rules(self, dwell_s: float | None) -> EventRules:
        """Return the event rules for a trace of this dwell time. ValueError when it is needed and unknown."""
        window = None
        if self.window_s is not None:
            if dwell_s is None:
                raise ValueError('--window needs the dwell time: give --dwell "0.1 ms"')
            window = max(1000, round(self.window_s / dwell_s))
        compound = self.threshold.kind == "compound"
        noise = math.exp(self.threshold.sigma_ion**2) if compound else 1.0
        edge: Edge = "threshold" if self.edge == "threshold" else "background"
        return EventRules(self.threshold, edge, self.min_points, window, noise)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this technique."""
    add = parser.add_argument
    add("--lines", metavar="A,B", help="columns to use by name, or names for the columns, e.g. Li,Mn")
    add("--dwell", metavar="T", help='time per sample, e.g. "0.1 ms"; default: from the file')
    add(
        "--threshold", choices=KINDS, default="poisson",
        help="poisson: exact quantile (default); currie: B + z sqrt(B + eps); currie-ld: B + 3.29 sqrt(B) "
        "+ 2.71; "
        "compound: compound Poisson-lognormal, for time-of-flight detectors",
    )  # fmt: skip
    add("--alpha", type=float, default=1e-6, help="chance of a false claim per sample (default 1e-6)")
    add("--epsilon", type=float, default=0.5, help="Currie's continuity term (default 0.5)")
    add("--sigma-ion", type=float, default=0.45, help="compound: log-deviation of one ion's signal (0.45)")
    add(
        "--edge", choices=("background", "threshold"), default="background",
        help="an event reaches down to the background mean (default) or only to the threshold",
    )  # fmt: skip
    add("--min-points", type=int, default=3, help="least samples above the threshold (default 3)")
    add("--window", metavar="T", help='a baseline and threshold for every "10 s"; default: one for the trace')
    add("--coincidence", metavar="T", help="largest distance of the peaks of two lines (default: 2 samples)")
    add("--ratio", metavar="A/B", help="B decides the events; default: first line / second line")
    add(
        "--cells", type=Path, metavar="CSV",
        help="calibration cells: columns file, lithiation, sigma (files relative to the CSV)",
    )  # fmt: skip
    add("--frame", metavar="FILE", help="cell whose frame counts; default: the one of lowest lithiation")
    add("--capacity", metavar="Q", help=f'theoretical capacity, default "{NMC532_MAH_G:.1f} mAh/g" (NMC532)')
    add("--active", metavar="Q", help='lithium that still comes out, e.g. "160 +- 3 mAh/g"')
    add("--lithiation", metavar="X", help='of the material after digestion, e.g. "0.62 +- 0.01"')


def read_options(args: argparse.Namespace) -> Options:
    """Check every option; raise Problems with all that are wrong."""
    wrong: list[str] = []

    def seconds(name: str) -> float | None:
        text = getattr(args, name)
        if text is None:
            return None
        try:
            value = parse(text, "s")
        except QuantityError as error:
            wrong.append(f"--{name} {text!r} {error}")
            return None
        if value <= 0:
            wrong.append(f"--{name} {text!r} must be positive")
        return value

    def guarded(call: object, *values: object) -> object:
        try:
            return call(*values)  # type: ignore[operator]
        except (ValueError, FileError) as error:
            wrong.append(str(error))
            return None

    threshold = guarded(Threshold, args.threshold, args.alpha, args.epsilon, args.sigma_ion)
    if args.min_points < 1:
        wrong.append(f"--min-points {args.min_points} must be at least 1")
    lines = tuple(part.strip() for part in args.lines.split(",")) if args.lines else None
    if lines is not None and (not all(lines) or len(set(lines)) != len(lines)):
        wrong.append(f"--lines {args.lines!r} must be different names")
    ratio = tuple(part.strip() for part in args.ratio.split("/")) if args.ratio else None
    if ratio is not None and (len(ratio) != 2 or not all(ratio) or ratio[0] == ratio[1]):
        wrong.append(f"--ratio {args.ratio!r} must be two lines, such as Li/Mn")
    cells = guarded(read_cells, args.cells) if args.cells else ()
    dwell_s, window_s, coincidence_s = seconds("dwell"), seconds("window"), seconds("coincidence")
    capacity = guarded(_plain, args.capacity, "mAh/g", "--capacity") if args.capacity else NMC532_MAH_G
    active = guarded(_with_error, args.active, "mAh/g", "--active") if args.active else None
    lithiation = guarded(_with_error, args.lithiation, "", "--lithiation") if args.lithiation else None
    if (args.active is None) != (args.lithiation is None):
        wrong.append("--active and --lithiation belong together")
    if args.frame and isinstance(cells, tuple) and args.frame not in [cell.name for cell in cells]:
        wrong.append(
            f"--frame {args.frame!r} is none of the cells: {', '.join(c.name for c in cells) or 'none'}"
        )
    if wrong:
        raise Problems(wrong)
    return Options(
        lines, dwell_s, threshold, args.edge, args.min_points, window_s, coincidence_s, ratio, cells,  # type: ignore[arg-type]
        args.frame, capacity, active, lithiation,  # type: ignore[arg-type]
    )  # fmt: skip


def read_cells(path: Path) -> tuple[Cell, ...]:
    """Read the list of calibration cells. Raises FileError."""
    rows = list(csv.DictReader(io.StringIO("\n".join(read_lines(path)))))
    if not 1 <= len(rows) <= MAX_CELLS:
        raise FileError(path, "", f"1 to {MAX_CELLS} cells under file,lithiation,sigma", f"{len(rows)}")
    cells = []
    for number, row in enumerate(rows, 2):
        try:
            name, value, sigma = (str(row[key] or "").strip() for key in ("file", "lithiation", "sigma"))
            cell = Cell(path.parent / name, Path(name).stem, float(value), float(sigma))
        except (KeyError, ValueError, TypeError):
            raise FileError(path, f"line {number}", "file, lithiation and sigma", str(dict(row))) from None
        if not (name and 0 <= cell.lithiation <= 1.5 and 0 < cell.sigma < 1):
            raise FileError(
                path, f"line {number}", "a lithiation from 0 to 1.5 with an error", str(dict(row))
            )
        cells.append(cell)
    if len({cell.name for cell in cells}) != len(cells):
        raise FileError(path, "", "cells of different names", ", ".join(cell.name for cell in cells))
    return tuple(cells)


def open_trace(path: Path) -> RecordedTrace:
    """Open a trace by its first bytes. Raises FileError."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    return time_traces_npz.read(path) if head == b"PK\x03\x04" else time_traces.read(path)


def _with_error(text: str, unit: str, option: str) -> Estimate:
    found = PLUS_MINUS.match(text)
    try:
        if found is None or found.group(3) != unit:
            raise ValueError  # noqa: TRY301
        return Estimate(float(found.group(1)), float(found.group(2)), 0.0, unit)
    except ValueError:
        raise ValueError(f'{option} {text!r} must be "value +- error{" " + unit if unit else ""}"') from None


def _plain(text: str, unit: str, option: str) -> float:
    words = text.split()
    try:
        value = float(words[0])
        if words[1:] != [unit] or not value > 0:
            raise ValueError  # noqa: TRY301
    except (ValueError, IndexError):
        raise ValueError(f"{option} {text!r} must be a number above 0 and the unit {unit}") from None
    return value
