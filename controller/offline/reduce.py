"""``operando reduce TECHNIQUE FILES... [--out DIR] [--json]``: the reductions on recorded and foreign files.

Exit codes: 0 all files reduced; 2 wrong arguments, or no file could be reduced; 6 some were and some were
not.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.offline.technique import Job, Problems, Report, Technique
from drivers.files.errors import FileError

DONE, WRONG, GAPS = 0, 2, 6
SCHEMA = "operando/reduce/1"
RUNS = "ion-beam"
TECHNIQUES = {
    "gamma": ("controller.offline.gamma", "gamma spectra: lines, corrected energies, the 7Be decision"),
    "xrf": ("controller.offline.xrf", "X-ray fluorescence spectra and maps: elements, areas, element maps"),
}
"""Name: (module with a TECHNIQUE, help). Only what is asked for is imported."""
EXAMPLES = """examples:
  operando reduce gamma soil.Spe background.Spe --out results
  operando reduce ion-beam runs/<id> --out results   (a recorded run, from its raw events)
  operando reduce TECHNIQUE --help                   (the options of one technique)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [RUNS]:  # a run of this project: its own raw events, with its own options
        from controller.offline import ion_beam

        return ion_beam.main(words[1:])
    try:
        args = build_parser(words[:1]).parse_args(words)
        jobs: list[Job] = args.chosen.jobs(args)
    except SystemExit as stop:
        return int(stop.code or 0)
    except Problems as wrong:  # everything that is wrong at once, and nothing half done
        for problem in wrong.problems:
            print(f"operando reduce: {problem}", file=sys.stderr)
        return WRONG
    except (FileError, ValueError) as error:
        print(f"operando reduce: {error}", file=sys.stderr)
        return WRONG
    reports, gaps = _reduce(jobs)
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


def build_parser(wanted: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the argument parser, with the options of the techniques in ``wanted``."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="operando reduce", description="Reduce recorded or foreign files: tables, JSON and figures.",
        epilog=EXAMPLES, formatter_class=shape,
    )  # fmt: skip
    choices = parser.add_subparsers(dest="technique", required=True, metavar="TECHNIQUE")
    for name, (module, text) in TECHNIQUES.items():
        if name not in wanted:
            choices.add_parser(name, help=text)
            continue
        technique: Technique = importlib.import_module(module).TECHNIQUE
        own = choices.add_parser(
            name, help=text, description=technique.help, formatter_class=shape,
            epilog=f"example:\n  {technique.example}",
        )  # fmt: skip
        own.add_argument("files", nargs="+", type=Path, metavar="FILE", help=technique.files)
        own.add_argument("--out", type=Path, metavar="DIR", help="write results, tables and figures here")
        own.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
        own.add_argument("--figures", choices=("png", "svg"), default="png", help="format of the figures")
        technique.add_arguments(own)
        own.set_defaults(chosen=technique)
    choices.add_parser(RUNS, help="a recorded run of this project, from its raw events")
    return parser


def _reduce(jobs: Sequence[Job]) -> tuple[list[tuple[Job, Report]], list[dict[str, str]]]:
    reports: list[tuple[Job, Report]] = []
    gaps: list[dict[str, str]] = []
    for number, job in enumerate(jobs, 1):
        if sys.stderr.isatty():
            print(f"reducing {number} of {len(jobs)}: {job.file.name}", file=sys.stderr)
        try:
            reports.append((job, job.run()))
        except ValueError as error:
            gaps.append({"file": str(job.file), "why": str(error)})
    return reports, gaps


def _document(
    args: argparse.Namespace, reports: Sequence[tuple[Job, Report]], gaps: Sequence[dict[str, str]]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "technique": args.technique,
        "files": [{**report.data, **_origin(job)} for job, report in reports],
        "not_reduced": list(gaps),
    }  # fmt: skip


def _origin(job: Job) -> dict[str, Any]:
    if job.inputs == (job.file,):
        return {"sha256": _sha256(job.file)}
    return {"inputs": [{"file": path.name, "sha256": _sha256(path)} for path in job.inputs]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _print(
    args: argparse.Namespace, reports: Sequence[tuple[Job, Report]], gaps: Sequence[dict[str, str]],
    written: Sequence[Path],
) -> None:  # fmt: skip
    if args.json:
        print(json.dumps(_document(args, reports, gaps), indent=1, allow_nan=False))
        return
    print("\n\n".join(report.text for _, report in reports))
    if written:
        print(f"\nwritten to {args.out}: {', '.join(path.name for path in written)}")


def _write(args: argparse.Namespace, reports: Sequence[tuple[Job, Report]]) -> list[Path]:
    """Write result.json, tables.txt, result.h5 and the figures; each file appears whole or not at all."""
    import matplotlib as mpl  # loaded only when figures are wanted

    from controller.offline.arrays_out import write_arrays
    from controller.offline.plot_style import STYLE

    args.out.mkdir(parents=True, exist_ok=True)
    document = json.dumps(_document(args, reports, []), indent=1, allow_nan=False) + "\n"
    tables = "\n\n".join(report.text for _, report in reports) + "\n"
    written = [
        _whole(args.out / "result.json", document.encode()), _whole(args.out / "tables.txt", tables.encode())
    ]  # fmt: skip
    arrays = [(job.file.stem, list(report.arrays())) for job, report in reports]
    if any(found for _, found in arrays):
        write_arrays(args.out / "result.h5", arrays)
        written.append(args.out / "result.h5")
    taken: set[str] = set()
    with mpl.rc_context(STYLE):
        for job, report in reports:
            stem = job.file.stem if job.file.stem not in taken else f"{job.file.stem}-{len(taken) + 1}"
            taken.add(stem)
            for name, picture in report.figures(args.figures):
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
