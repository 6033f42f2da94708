"""The ion-beam reduction of a recorded run, from its raw events, bit for bit as it was done live.

``operando reduce ion-beam RUN... [--analysis FILE] [--out DIR] [--json]`` reads ``RUN/raw``: the index with
what control told the reduce process, and the words of the detectors. ``--analysis`` takes another [analysis]
table, and other layers, in place of the recorded ones. Nothing in RUN is changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.apart import program
from controller.config import files
from controller.config.experiment import experiment_from
from controller.config.files import Source
from controller.config.problems import ConfigErrors
from controller.config.settings import analysis_settings
from controller.offline.technique import Array, Job, Problems, Technique
from controller.rawfile import INDEX_NAME, read_index
from controller.reduce.session import Session
from edge.ion_beam import IonBeamReducer, Settings

REPLACED = "analysis", "sample"  # tables that FILE of --analysis may hold; of the sample its layers


def reduce_run(
    run_dir: Path, *, settings: dict[str, Any] | None = None, products: Path | None = None
) -> dict[str, Any]:
    """Return the result of a run from its raw files.

    Args:
        run_dir: folder of the run.
        settings: instead of those of the run: other regions, lines, calibration.
        products: also write maps, profiles and spectra into this folder.

    Raises:
        FileNotFoundError: if there is no index of raw events.
        ValueError: if the index tells of no run, or the settings are wrong.
    """
    return _reduced(run_dir, settings, products)[1]


def _reduced(
    run_dir: Path, settings: dict[str, Any] | None, products: Path | None = None
) -> tuple[IonBeamReducer, dict[str, Any]]:
    session = Session(folder=run_dir, products=products)
    begun = False
    for message in _replayed(run_dir):
        if message["k"] == "run":
            begun = True
            message = message if settings is None else {**message, "settings": settings}
        for _ in session.handle(message):
            pass
    if not begun:
        raise ValueError(f"{run_dir}: the index of the raw events tells of no run")
    answers = list(session.handle({"k": "finish"}))
    result: dict[str, Any] = answers[-1]["result"]
    return session.reducer, result


def other_settings(run_dir: Path, analysis: Path) -> dict[str, Any]:
    """Return the settings of a recorded run with another analysis.

    The file holds an [analysis] table as in an experiment file and, for other regions, [[sample.layer]]
    tables; what it does not hold is as recorded. It is validated with the recorded experiment around it.

    Args:
        run_dir: folder of the run, with ``experiment.toml`` and ``raw``.
        analysis: the file.

    Raises:
        ConfigErrors: with everything that is wrong.
        FileNotFoundError: if there is no index of raw events.
        ValueError: if the reduction refuses the combination, or the index tells of no run.
    """
    recorded, given = files.read(run_dir / "experiment.toml"), files.read(analysis)
    wrong = [f"{given.name}: {key} cannot be replaced" for key in given.data if key not in REPLACED]
    sample = given.data.get("sample", {})
    keys = sample if isinstance(sample, Mapping) else ()
    wrong += [f"{given.name}: sample.{key} cannot be replaced" for key in keys if key != "layer"]
    if not given.data:
        wrong.append(f"{given.name}: there is neither [analysis] nor [[sample.layer]] in it")
    data = {**recorded.data, **{k: v for k, v in given.data.items() if k == "analysis"}}
    if keys:
        data["sample"] = {**recorded.data.get("sample", {}), **sample}
    try:
        experiment = experiment_from(Source(given.name, data, given.path, given.lines))
    except ConfigErrors as error:
        raise Problems([*wrong, *(str(problem) for problem in error.problems)]) from None
    if wrong:
        raise Problems(wrong)
    begin = next((message for message in _replayed(run_dir) if message["k"] == "run"), None)
    if begin is None:
        raise ValueError(f"{run_dir}: the index of the raw events tells of no run")
    if begin["settings"] is None:
        raise ValueError(f"{run_dir}: nothing was scanned in this run")
    kept = {name: begin["settings"][name] for name in ("detectors", "lithium_line", "beam")}
    if experiment.analysis is None:
        raise ValueError(f"{run_dir}: nothing was counted in this run")
    settings = {**kept, **analysis_settings(experiment.analysis, experiment)}
    Settings.from_dict(settings)
    return settings


@dataclass
class IonBeamReport:
    """A run that has been reduced again."""

    folder: Path
    reducer: IonBeamReducer
    data: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The result in words."""
        return "\n".join(lines(self.data))

    def figures(self, fmt: str) -> Iterator[tuple[str, bytes]]:
        """Yield maps, profiles and residual image of the last scan."""
        from controller.offline import figures_ion_beam

        yield from figures_ion_beam.draw(self.reducer, self._residuals(), fmt)

    def arrays(self) -> Iterator[Array]:
        """Yield every map, profile and spectrum of every scan, and the residual images."""
        from controller.offline import ion_beam_arrays

        yield from ion_beam_arrays.arrays(self.reducer, self._residuals())

    def _residuals(self) -> Any:
        from controller.offline import ion_beam_residual

        if not hasattr(self, "_found"):
            self._found = ion_beam_residual.residuals(self.folder, self.reducer)
        return self._found


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--analysis",
        type=Path,
        metavar="FILE.toml",
        help="other lines, windows, methods, calibration, reference: an [analysis] table, and for other "
        "regions [[sample.layer]] tables, in place of the recorded ones",
    )


def _jobs(args: argparse.Namespace) -> list[Job]:
    jobs, problems = [], []
    for folder in args.files:
        raw = folder / "raw"
        if not (raw / INDEX_NAME).is_file():
            problems.append(f"{folder}: no index of raw events (raw/{INDEX_NAME})")
            continue
        settings = None
        inputs = [raw / INDEX_NAME, *sorted(raw.glob("*.words"))]
        try:
            if args.analysis is not None:
                settings = other_settings(folder, args.analysis)
                inputs.append(args.analysis)
        except Problems as wrong:
            problems += [problem for problem in wrong.problems if problem not in problems]
            continue
        except (ConfigErrors, ValueError) as error:
            problems.append(str(error))
            continue
        jobs.append(_job(folder, tuple(inputs), settings))
    if problems:
        raise Problems(problems)
    return jobs


def _job(folder: Path, inputs: tuple[Path, ...], settings: dict[str, Any] | None) -> Job:
    def run() -> IonBeamReport:
        reducer, result = _reduced(folder, settings)
        return IonBeamReport(folder, reducer, result)

    return Job(folder, inputs, run)


def _row(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return SoC and x of the host layers of the last scan."""
    found = {}
    for layer in data["layers"]:
        for name in ("soc_beam", "x", "li_relative"):
            if name in layer["quantities"] and name not in layer.get("undetected", {}):
                found[f"{layer['name']} {name}"] = layer["quantities"][name]
    return found


TECHNIQUE = Technique(
    name="ion-beam",
    help="A recorded run of this project: lithium, x and state of charge per layer, from its raw events.",
    files="folder of a run",
    example="operando reduce ion-beam runs/<id> --analysis other.toml --out again",
    add_arguments=_add_arguments,
    jobs=_jobs,
    row=_row,
    each=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``operando reduce ion-beam``; return its exit code."""
    from controller.offline import reduce

    return reduce.main([TECHNIQUE.name, *(sys.argv[1:] if argv is None else argv)])


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result in words."""
    yield f"{result['run']}: {len(result['scans'])} scans"
    for layer in result["layers"]:
        interval = layer["interval"]
        yield f"  {layer['name']} ({interval['scan']}, passes {interval['passes']}): {layer['verdict']}"
        for name, quantity in layer["quantities"].items():
            lost = layer.get("undetected", {}).get(name)
            if lost is not None:
                limit = "" if lost["upper_limit"] is None else f" < {lost['upper_limit']:.2g},"
                yield f"    {name:20s}{limit} {lost['text']}"
            elif not name.endswith(("_counts", "_per_charge")):
                shown = (quantity["value"], quantity["sigma_stat"], quantity["sigma_sys"])
                yield "    {:20s} {:8.4f} ± {:.4f} ± {:.4f}".format(name, *shown)
        if layer.get("appeared"):
            yield f"    {layer['appeared']['text']}"
        for decision in layer["detection"].values():
            yield "    " + decision["text"].replace(" +- ", " ± ")
        if layer["z"] is not None:
            agree = "agree" if layer["agree"] else "do not agree"
            yield f"    beam and charge {agree}: z = {layer['z']:+.2f}"
    for scan in result["scans"]:
        for detector, found in scan.get("unexplained", {}).items():
            for line in found:
                yield f"  {scan['name']}, {detector}: " + line["text"].replace(" +- ", " ± ")
    for flag in result["flags"]:
        yield f"  note: {flag}"
    yield (
        "  errors: one sigma, statistical ± systematic, of counts both together; lithium is relative to the "
        "reference, soc 1 is charged: both without unit"
    )


def _replayed(run_dir: Path) -> Iterator[dict[str, Any]]:
    if not (run_dir / "raw" / INDEX_NAME).is_file():
        raise FileNotFoundError(f"{run_dir}: no index of raw events (raw/{INDEX_NAME})")
    return (message for message in read_index(run_dir / "raw") if not _of_a_ring(message))


def _of_a_ring(message: Mapping[str, Any]) -> bool:
    """Return whether it begins an exposure whose frames lay in a ring: that is gone, or another's by now."""
    source = message.get("source")
    return message.get("k") == "exposure" and isinstance(source, Mapping) and source.get("kind") == "ring"


if __name__ == "__main__":
    sys.exit(program(main))
