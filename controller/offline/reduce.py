"""``operando reduce TECHNIQUE FILES... [--out DIR] [--json]``: the reductions on recorded and foreign files.

Exit codes: 0 all files reduced; 2 wrong arguments, or no file could be reduced; 6 some were and some were
not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from controller.offline import gamma, xrf
from controller.offline.values import parse_energy
from drivers.files import any_file
from drivers.files.errors import FileError
from drivers.files.recordings import Recording
from edge.gamma_be7 import ALPHA
from edge.gamma_lines import BROAD_SETS, CALIBRATION_SETS
from edge.xrf_reduce import parse_elements

DONE, WRONG, GAPS = 0, 2, 6
SCHEMA = "operando/reduce/1"
RUNS = "ion-beam"
EXAMPLES = """examples:
  operando reduce gamma soil.Spe background.Spe --out results
  operando reduce gamma source.Lis --source Ba-133 --json
  operando reduce xrf map.GeoPIXE --out results
  operando reduce ion-beam runs/<id> (a recorded run, from its raw events; see --help there)
  operando reduce xrf steel.spe --gain "11.93 eV" --elements "Cr, Mn, Fe, Ni, Cu, W:L"
"""
Report = gamma.GammaReport | xrf.XrfReport


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [RUNS]:  # a run of this project: its own raw events, with its own options
        from controller.offline import ion_beam

        return ion_beam.main(words[1:])
    parser = build_parser()
    try:
        args = parser.parse_args(words)
        reduce_one = _technique(args)
    except SystemExit as stop:
        return int(stop.code or 0)
    except ValueError as error:
        print(f"operando reduce: {error}", file=sys.stderr)
        return WRONG
    recordings, problems = _read(args.files)
    if problems:  # every wrong file at once, and nothing half done
        for problem in problems:
            print(f"operando reduce: {problem}", file=sys.stderr)
        return WRONG
    reports, gaps = _reduce(recordings, reduce_one)
    try:
        written = _write(args, reports) if args.out and reports else []
    except OSError as error:
        print(f"operando reduce: cannot write to {args.out}: {error.strerror or error}", file=sys.stderr)
        return WRONG
    _print(args, reports, gaps, written)
    for gap in gaps:
        print(f"operando reduce: not reduced: {gap['file']}: {gap['why']}", file=sys.stderr)
    if not gaps:
        return DONE
    return GAPS if reports else WRONG


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser (also read by the documentation test)."""
    parser = argparse.ArgumentParser(
        prog="operando reduce", description="Reduce recorded or foreign files: tables, JSON and figures.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("technique", choices=("gamma", "xrf", RUNS), help="what the files hold")
    parser.add_argument("files", nargs="+", type=Path, help=any_file.FORMATS)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write result.json, tables and figures here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    parser.add_argument("--figures", choices=("png", "svg"), default="png", help="format of the figures")
    sources = ", ".join(dict.fromkeys([*CALIBRATION_SETS, *BROAD_SETS]))
    parser.add_argument("--source", help=f"gamma: what the lines come from ({sources}); default: recognised")
    parser.add_argument(
        "--alpha", type=float, default=ALPHA, metavar="P",
        help="gamma: accepted rate of false claims (default 0.00135, that is 3 sigma)",
    )  # fmt: skip
    parser.add_argument("--elements", help='xrf: for example "Cr, Fe, W:L"; default: found in the spectrum')
    parser.add_argument("--offset", help='xrf: energy of channel 0, for example "-10 eV"')
    parser.add_argument("--gain", help='xrf: energy per channel, for example "10 eV"; overrides the file')
    parser.add_argument("--low", default="1.3 keV", help="xrf: start of the fitted range (default 1.3 keV)")
    parser.add_argument("--high", help="xrf: end of the fitted range; default: above the last line found")
    return parser


def _technique(args: argparse.Namespace) -> Callable[[Recording], Report]:
    """Return the reduction with its options. Raises ValueError for an option that makes no sense."""
    if args.technique == "gamma":
        if not 0 < args.alpha < 0.5:
            raise ValueError(f"--alpha {args.alpha} must lie between 0 and 0.5")
        known = [*CALIBRATION_SETS, *BROAD_SETS]
        if args.source is not None and args.source not in known:
            raise ValueError(f"--source {args.source!r} is not one of {', '.join(dict.fromkeys(known))}")
        options = gamma.GammaOptions(source=args.source, alpha=args.alpha)
        return lambda recording: gamma.reduce_recording(recording, options)
    settings = xrf.XrfOptions(
        groups=parse_elements(args.elements) if args.elements else None,
        offset_kev=parse_energy(args.offset) if args.offset else None,
        gain_kev=parse_energy(args.gain) if args.gain else None,
        low_kev=parse_energy(args.low),
        high_kev=parse_energy(args.high) if args.high else None,
    )
    if settings.gain_kev is not None and settings.gain_kev <= 0:
        raise ValueError(f"--gain {args.gain!r} must be positive")
    if settings.offset_kev is not None and settings.gain_kev is None:
        raise ValueError("--offset needs --gain")
    if settings.high_kev is not None and settings.high_kev <= settings.low_kev:
        raise ValueError("--high must be above --low")
    return lambda recording: xrf.reduce_recording(recording, settings)


def _read(files: Sequence[Path]) -> tuple[list[tuple[Path, Recording]], list[str]]:
    recordings, problems = [], []
    for path in files:
        try:
            recordings.append((path, any_file.read(path)))
        except FileError as error:
            problems.append(str(error))
    return recordings, problems


def _reduce(
    recordings: Sequence[tuple[Path, Recording]], reduce_one: Callable[[Recording], Report]
) -> tuple[list[tuple[Path, Report]], list[dict[str, str]]]:
    reports: list[tuple[Path, Report]] = []
    gaps: list[dict[str, str]] = []
    for number, (path, recording) in enumerate(recordings, 1):
        if sys.stderr.isatty():
            print(f"reducing {number} of {len(recordings)}: {path.name}", file=sys.stderr)
        try:
            reports.append((path, reduce_one(recording)))
        except ValueError as error:
            gaps.append({"file": str(path), "why": str(error)})
    return reports, gaps


def _document(
    args: argparse.Namespace, reports: Sequence[tuple[Path, Report]], gaps: Sequence[dict[str, str]]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "technique": args.technique,
        "files": [report.data | {"sha256": _sha256(path)} for path, report in reports],
        "not_reduced": list(gaps),
    }  # fmt: skip


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _print(
    args: argparse.Namespace, reports: Sequence[tuple[Path, Report]], gaps: Sequence[dict[str, str]],
    written: Sequence[Path],
) -> None:  # fmt: skip
    if args.json:
        print(json.dumps(_document(args, reports, gaps), indent=1, allow_nan=False))
        return
    print("\n\n".join(report.text for _, report in reports))
    if written:
        print(f"\nwritten to {args.out}: {', '.join(path.name for path in written)}")


def _write(args: argparse.Namespace, reports: Sequence[tuple[Path, Report]]) -> list[Path]:
    """Write result.json, tables.txt and the figures; each file appears whole or not at all."""
    from controller.offline import figures  # matplotlib is loaded only when figures are wanted

    args.out.mkdir(parents=True, exist_ok=True)
    document = json.dumps(_document(args, reports, []), indent=1, allow_nan=False) + "\n"
    tables = "\n\n".join(report.text for _, report in reports) + "\n"
    written = [
        _whole(args.out / "result.json", document.encode()), _whole(args.out / "tables.txt", tables.encode())
    ]  # fmt: skip
    taken: set[str] = set()
    for path, report in reports:
        stem = path.stem if path.stem not in taken else f"{path.stem}-{len(taken) + 1}"
        taken.add(stem)
        for name, picture in figures.draw(report, args.figures):
            written.append(_whole(args.out / f"{stem}-{name}.{args.figures}", picture))
    return written


def _whole(path: Path, data: bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
