"""``operando reduce TECHNIQUE FILES... [--out DIR] [--json]``: the reductions on recorded and foreign files.

Exit codes: 0 all files reduced; 2 wrong arguments, or no file could be reduced; 3 no Dask cluster, or it was
lost; 5 aborted by a person; 6 some files were reduced and some not.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.apart import program, read_at_will
from controller.offline import (
    campaign,
    one_thread,  # noqa: F401  # before anything that loads numpy
    results_out,
)
from controller.offline.campaign_work import Answer, sha256
from controller.offline.product import pack, produce, unpack, unpack_product
from controller.offline.results_out import Result
from controller.offline.technique import Job, Problems, Technique
from controller.progress import Steps
from drivers.files.errors import FileError

DONE, WRONG, NO_CLUSTER, ABORTED, GAPS = 0, 2, 3, 5, 6
TECHNIQUES = {
    "compton": (
        "controller.offline.compton",
        "X-ray Compton scattering: HEXITEC frames to S, lithium, profiles",
    ),
    "cycling": ("controller.offline.cycling", "logs of battery cyclers: capacity, efficiency, dQ/dV"),
    "gamma": ("controller.offline.gamma", "gamma spectra: lines, corrected energies, the 7Be decision"),
    "impedance": (
        "controller.offline.impedance",
        "impedance sweeps: R_s, R_ct, diffusion, Kramers-Kronig test",
    ),
    "ion-beam": ("controller.offline.ion_beam", "a recorded run of this project, from its raw events"),
    "maps": ("controller.offline.maps", "maps from others: EDS, micro-XRF, ToF-SIMS"),
    "particles": ("controller.offline.particles", "single-particle ICP: events, ratios, inactive lithium"),
    "radiography": (
        "controller.offline.radiography",
        "neutron images: transmission, 6Li, profiles, isotopes",
    ),
    "tomography": ("controller.offline.tomography", "projections to slices; volumes to porosity, tortuosity"),
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
    try:
        args, unknown = build_parser(words[:1]).parse_known_args(words)
        if unknown:
            return _say(WRONG, *_unknown(unknown, args))
        results = _results(args)
    except SystemExit as stop:
        return int(stop.code or 0)
    except Problems as wrong:  # everything that is wrong at once, and nothing half done
        return _say(WRONG, *wrong.problems)
    except campaign.ClusterError as error:
        kept = ", what is finished is kept: give the same command again" if args.out else ""
        return _say(NO_CLUSTER, f"{error}{kept}")
    except KeyboardInterrupt:
        return _say(ABORTED, "aborted")
    except (FileError, ValueError, ImportError) as error:
        return _say(WRONG, str(error))
    gaps = [one for one in results if one.product is None]
    written: list[Path] = []
    if args.out and len(gaps) < len(results):
        try:
            written = results_out.write(args, results)
        except OSError as error:
            return _say(WRONG, f"cannot write to {args.out}: {error.strerror or error}")
        campaign.forget(args.out / campaign.KEPT)
    with read_at_will():
        _print(args, results, written)
    _say(GAPS, *(f"not reduced: {one.file}: {one.why}" for one in gaps))
    if not gaps:
        return DONE
    return GAPS if len(gaps) < len(results) else WRONG


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
        _add_common(own, technique)
        technique.add_arguments(own)
        own.set_defaults(chosen=technique)
    return parser


def _unknown(words: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Say what words that no option takes may have been meant to be."""
    if not hasattr(args, "chosen"):
        return [f"the technique comes first: operando reduce {args.technique} FILE ... {words[0]} ..."]
    own = argparse.ArgumentParser()
    _add_common(own, args.chosen)
    args.chosen.add_arguments(own)
    known = set(re.findall(r"--[a-z][a-z0-9-]*", own.format_usage()))
    wrong = [word.partition("=")[0] for word in words if word.startswith("-")]
    if not wrong:
        told = f"{' '.join(words)!r} belongs to no option: write all files before the options"
        return [f'{told}, and a value with spaces in quotes ("1 mm")']
    return [
        f"{args.technique} has no option {word}"
        + (f"; did you mean {near[0]}?" if (near := difflib.get_close_matches(word, known, n=1)) else "")
        + f" (operando reduce {args.technique} --help)"
        for word in wrong
    ]


def _add_common(own: argparse.ArgumentParser, technique: Technique) -> None:
    own.add_argument("files", nargs="+", type=Path, metavar="FILE", help=technique.files)
    own.add_argument("--out", type=Path, metavar="DIR", help="write results, tables and figures here")
    own.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    own.add_argument("--figures", choices=("png", "svg"), default="png", help="format of the figures")
    if technique.merge is not None:
        own.add_argument("--merge", action="store_true", help="all files are one measurement: add them up")
    cluster = own.add_argument_group("on a Dask cluster (extra dask; the result is the same in every bit)")
    cluster.add_argument(
        "--dask", metavar="ADDRESS", help="of its scheduler, for example tcp://10.0.0.1:8786"
    )
    cluster.add_argument("--send", action="store_true", help="the workers do not see these files: send them")
    cluster.add_argument(
        "--wait", type=campaign.parse_wait_s, default=30.0, metavar="TIME",
        help="how long to wait for a scheduler and for a worker (default 30 s)",
    )  # fmt: skip


def _results(args: argparse.Namespace) -> list[Result]:
    """Reduce, here or on a cluster."""
    if getattr(args, "merge", False):
        return [_merged(args)]
    jobs: list[Job] = args.chosen.jobs(args)
    if not args.dask:
        results = []
        with Steps("reducing", len(jobs)) as shown:
            for job in jobs:
                shown.begin(job.file.name)
                results.append(_reduced(args, job))
        return results
    named = [(job.file, job.inputs) for job in jobs]
    tasks = campaign.plan(args, _module(args), jobs, send=args.send)
    del jobs  # and with them what they have read
    return [
        Result(file, inputs, None if one.product is None else unpack_product(one.product), one.why)
        for (file, inputs), one in zip(named, _spread(args, tasks), strict=True)
    ]


def _merged(args: argparse.Namespace) -> Result:
    """Add the sums of all files up, in their order. A file that cannot be read is an error, not a gap."""
    merge = args.chosen.merge
    if twice := _twice(args.files):
        raise Problems(twice)
    if args.dask:
        answers = _spread(args, campaign.plan_parts(args, _module(args), send=args.send))
    else:
        answers = []
        with Steps("reducing", len(args.files)) as shown:
            for file in args.files:
                shown.begin(file.name)
                answers.append(_part(args, file))
    problems = [
        one.why if one.why.startswith(f"{file}:") else f"{file}: {one.why}"  # a reader names its file itself
        for file, one in zip(args.files, answers, strict=True)
        if one.product is None
    ]
    if problems:
        raise Problems(problems)
    report = merge.finish(args, [unpack(one.product) for one in answers if one.product is not None])
    inputs = tuple(dict.fromkeys((*args.files, *merge.also(args))))
    return Result(args.files[0], inputs, produce(report, args.figures if args.out else None))


def _twice(files: Sequence[Path]) -> list[str]:
    """Say which files would be counted twice: the same one, or a copy. Content is read where sizes agree."""
    problems, sizes = [], defaultdict[int, list[Path]](list)
    for file, times in Counter(files).items():
        if times > 1:
            problems.append(f"{file}: given twice, it would be counted twice")
        if file.is_file() and os.access(file, os.R_OK):  # what cannot be read is told by who reads it
            sizes[file.stat().st_size].append(file)
    first: dict[str, Path] = {}
    for file in (file for alike in sizes.values() if len(alike) > 1 for file in alike):
        known = first.setdefault(sha256(file), file)
        if known != file:
            problems.append(f"{file} has the same content as {known}: it would be counted twice")
    return problems


def _part(args: argparse.Namespace, file: Path) -> Answer:
    try:
        return Answer(pack(args.chosen.merge.part(args, file)))
    except ValueError as error:
        return Answer(why=str(error))


def _spread(args: argparse.Namespace, tasks: Sequence[Any]) -> list[Answer]:
    keep = args.out / campaign.KEPT if args.out else None
    return campaign.spread(tasks, campaign.Cluster(args.dask, args.send, args.wait), keep)


def _reduced(args: argparse.Namespace, job: Job) -> Result:
    try:
        report = job.run()
    except (OSError, ValueError) as error:
        return Result(job.file, job.inputs, None, str(error))
    return Result(job.file, job.inputs, produce(report, args.figures if args.out else None))


def _module(args: argparse.Namespace) -> str:
    return TECHNIQUES[args.technique][0]


def _print(args: argparse.Namespace, results: Sequence[Result], written: Sequence[Path]) -> None:
    if args.json:
        print(json.dumps(results_out.document(args.technique, results), indent=1, allow_nan=False))
        return
    text = results_out.text(args, results)
    if text:
        print(text)
    if written:
        print(f"\nwritten to {args.out}: {', '.join(path.name for path in written)}")


def _say(code: int, *problems: str) -> int:
    for problem in problems:
        print(f"operando reduce: {problem}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(program(main))
