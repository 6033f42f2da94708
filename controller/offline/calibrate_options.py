"""Options of ``operando calibrate``, for the command line and the program behind it."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "operando calibrate eu152.Spe --lines Eu-152 --out calibration"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "source", type=Path, metavar="FILE|RUN",
        help="a recorded spectrum or list-mode file, or a run's folder: its calibrate steps, else all scans",
    )  # fmt: skip
    parser.add_argument(
        "--lines", action="append", required=True, metavar="NAME[,NAME]",
        help="lines that are there: Fe, 'Fe Kb' (X-rays), Eu-152, natural (all strong), 'Cs-137 661.7', "
        "annihilation, 'F-19 197.1', 'Al-27 843.8' (under protons); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--detector", metavar="D", help="of a run: pixe or pige; of a file with several: its number, from 0"
    )
    parser.add_argument("--scan", metavar="S", help="of a run: only the scan of this name or number")
    parser.add_argument(
        "--near", metavar="OFFSET,GAIN",
        help="the rough calibration in keV, such as 0,0.37 (default: what file or run say, if they do)",
    )  # fmt: skip
    parser.add_argument("--blind", action="store_true", help="do not use the calibration that is in the file")
    parser.add_argument(
        "--device", metavar="NAME", help="name of the device in the station file (default: detector)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("calibration"), metavar="DIR",
        help="a folder for energy.toml, calibration.json and calibration.png (default calibration)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print calibration.json instead of the table")


def words(args: argparse.Namespace) -> list[str]:
    """Return parsed options as words again, for the program that does the work."""
    found = [str(args.source), "--out", str(args.out)]
    for lines in args.lines:
        found += ["--lines", lines]
    for name in ("detector", "scan", "device"):
        if getattr(args, name) is not None:
            found += [f"--{name}", getattr(args, name)]
    found += [f"--near={args.near}"] if args.near is not None else []  # it may begin with a minus
    return found + [f"--{name}" for name in ("blind", "json") if getattr(args, name)]
