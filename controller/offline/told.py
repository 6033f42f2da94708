"""What a report tells beyond the summary: plan and what was done, limits, questions, calibrations, files.

Read from the run's folder. What is not known is left out or None; nothing is estimated that was not
planned.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.config import ConfigErrors, Experiment, Station, load_station
from controller.config.course import Visit, visits
from controller.config.steps import CONTAINERS
from controller.config.timing import Timing
from controller.estimate_steps import timing_of
from controller.offline.headlines import Headline, headlines
from controller.offline.run_files import RunFiles
from controller.steps import title_of

HASHED_BYTES = 1 << 30  # a larger file is named with its size alone: a small board reads 100 MB in a second
PIECE_BYTES = 1 << 20
CHECKSUMS = "checksums.sha256"
NOT_LISTED = ("summary.json", "report.html", "report.pdf", CHECKSUMS)  # written after the list, or with it
FOLDERS = ("raw",)  # whose files are listed too; products and maps can be made again from them
SAME_S = 1e-3

Plain = Mapping[str, Any]


@dataclass(frozen=True)
class Planned:
    """One step of the experiment file, and what became of it."""

    title: str
    do: str
    depth: int  # how many parallel and repeat steps it is inside of
    times: int  # how often ``repeat`` asked for it
    begin_s: float | None  # expected, since the run began, lab seconds
    expected_s: float | None
    done: tuple[Plain, ...]  # of the summary's steps, in order of time

    @property
    def reached(self) -> bool:
        """Whether it was ever begun."""
        return bool(self.done)


@dataclass(frozen=True)
class Limit:
    """A value that the guard kept, in the units of the station file."""

    what: str
    low: float | None
    high: float | None
    unit: str


@dataclass(frozen=True)
class File:
    """A file of the run; without a checksum where it is too large or cannot be read."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Told:
    """All of it."""

    plan: list[Planned] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    talk: list[Plain] = field(default_factory=list)  # when, who, what: questions and answers
    calibrations: list[tuple[str, str, str]] = field(default_factory=list)  # of what, value, source
    files: list[File] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)  # command, what it makes
    headlines: list[Headline] = field(default_factory=list)


def tell(run: RunFiles, summary: Plain) -> Told:
    """Return everything that a run's folder says beyond its summary."""
    return Told(
        plan=plan(run, summary), limits=limits(run), talk=list(talk(run)),
        calibrations=list(calibrations(run, summary)), files=list(files(run.path)),
        commands=list(commands(run, summary)), headlines=headlines(run, summary),
    )  # fmt: skip


# --- plan ----------------------------------------------------------------------------------------------


def plan(run: RunFiles, summary: Plain) -> list[Planned]:
    """Return every step of the experiment file in its order, with what was done of it."""
    if run.experiment is None:
        return []
    timing = _timing(run, run.experiment)
    ends: dict[tuple[Any, ...], float | None] = {(): 0.0}  # of each container: where its next step begins
    found: list[Planned] = []
    steps = list(run.experiment.walk())
    begun = {visit.placed.key: visit for visit in reversed(visits(steps, run.experiment.sample))}
    for placed in steps:
        numbers = [key for key in placed.path if isinstance(key, int)]
        around = placed.path[:-2]
        begin = ends.get(around, 0.0)
        expected = None if timing is None else _expected(timing, begun[placed.key])
        ends[placed.path] = begin
        inside_parallel = bool(placed.parents) and placed.parents[-1].do == "parallel"
        if not inside_parallel:
            ends[around] = None if begin is None or expected is None else begin + expected
        if placed.step.do not in CONTAINERS:
            done = tuple(step for step in summary["steps"] if _belongs(step, numbers))
            found.append(
                Planned(
                    title_of(placed.step), placed.step.do, len(placed.parents), placed.repeats, begin,
                    expected, done,
                )
            )  # fmt: skip
    return found


def _belongs(step: Plain, numbers: Sequence[int]) -> bool:
    """Say whether something done is that step of the file."""
    return list(step["path"]) == list(numbers)


def _expected(timing: Timing, first: Visit) -> float | None:
    """Return how long a step takes the first time."""
    try:
        return timing.expected_s(first.placed, first.start_k, first.net_coulomb)
    except (TypeError, ValueError, ArithmeticError):
        return None


def _timing(run: RunFiles, experiment: Experiment) -> Timing | None:
    """Return what durations follow from; None when the station file is gone."""
    name = run.start.get("station")
    try:
        station: Station = load_station(Path(str(name)))
    except (ConfigErrors, OSError):
        return None
    return timing_of(station, experiment, float((run.record or {}).get("speed") or 1.0))


# --- limits, people ------------------------------------------------------------------------------------

_LIMITS = (
    ("temperature", "temperature_low_k", "temperature_high_k", "K", 1.0),
    ("change of temperature", None, "temperature_rate_k_per_s", "K/min", 60.0),
    ("cell voltage", "voltage_low_v", "voltage_high_v", "V", 1.0),
    ("cell current, either way", None, "current_a", "µA", 1e6),
    ("charge, either way", None, "charge_coulomb", "mAh", 1e3 / 3600.0),
    ("protons per cm²", None, "dose_per_cm2", "1/cm²", 1.0),
    ("dwell of the beam on a pixel", None, "dwell_s", "s", 1.0),
)


def limits(run: RunFiles) -> list[Limit]:
    """Return the limits that held, as the host described itself when the run began."""
    told: Plain = {}
    for body in run.events("describe"):
        told = body.get("limits") or told
    found = []
    for what, low, high, unit, scale in _LIMITS:
        ends = [None if key is None or told.get(key) is None else scale * told[key] for key in (low, high)]
        if any(end is not None for end in ends):
            found.append(Limit(what, ends[0], ends[1], unit))
    return found


def talk(run: RunFiles) -> Iterator[Plain]:
    """Yield questions and answers in the order of time, as ``{lab_s, wall_s, who, text}``."""
    asked: dict[str, str] = {}
    rows = [*run.events("question"), *run.events("answer")]
    for body in sorted(rows, key=lambda row: row["wall_s"]):
        when = {key: body.get(key) for key in ("lab_s", "wall_s")}
        id_ = str(body.get("id", ""))
        if "choices" in body:
            asked[id_] = str(body.get("text", ""))
            choices = ", ".join(str(choice) for choice in body.get("choices") or ())
            yield {
                **when,
                "who": "question",
                "text": f"“{asked[id_]}”" + (f" ({choices})" if choices else ""),
            }
        elif id_:
            choice = body.get("choice", body.get("text", ""))
            about = f" to “{asked[id_]}”" if asked.get(id_) else ""
            yield {**when, "who": str(body.get("by") or "a person"), "text": f"answered “{choice}”{about}"}


# --- calibrations --------------------------------------------------------------------------------------


def calibrations(run: RunFiles, summary: Plain) -> Iterator[tuple[str, str, str]]:
    """Yield what numbers were made with: of what, value with its error, where it is from."""
    begun = next((message for message in run.index if message.get("k") == "run"), {})
    settings, result = begun.get("settings") or {}, run.result or {}
    for name, detector in (settings.get("detectors") or {}).items():
        if "gain_kev" in detector:
            gain_ev = 1e3 * detector["gain_kev"]
            scale = f"{detector['offset_kev']:g} keV + {gain_ev:g} eV × channel"
            measured = ((run.record or {}).get("energy_scales") or {}).get(name)
            if measured:
                yield f"{name}: energy scale, set", *_measured(detector, measured)
            else:
                yield f"{name}: energy scale, set", scale, "station file"
        own = (result.get("energy_scale") or {}).get(name)
        if own:
            yield (
                f"{name}: factor on it", _pm(own["value"], own["sigma"]),
                f"this run's own lines, mean of {own['passes']} passes",
            )  # fmt: skip
        dead = (result.get("dead_time") or {}).get(name)
        if dead:
            tau = _pm(1e6 * dead["tau_s"], 1e6 * dead["sigma_s"])
            yield f"{name}: dead time per pulse", f"{tau} µs", "this run's slow and fast counters"
    line = settings.get("lithium_line")
    if line:
        shape = f"{line['centroid_kev']:g} keV, width {line['fwhm_kev']:g} keV (FWHM)"
        yield "lithium line as it is seen", shape, "station file"
    slope = result.get("continuum_slope_per_kev") or {}
    if slope.get("sigma"):
        yield (
            "slope of the continuum under it", f"{_pm(slope['value'], slope['sigma'])} per keV",
            "this run's spectra",
        )  # fmt: skip
    sample = summary.get("sample") or {}
    if sample.get("capacity_coulomb"):
        capacity_uah = sample["capacity_coulomb"] / 3.6e-3
        error = sample.get("capacity_error")
        text = f"{capacity_uah:g}" if not error else _pm(capacity_uah, error * capacity_uah)
        yield "capacity of the cell, SoC 0 to 1", f"{text} µAh", "experiment file"
    yield from _stated(settings.get("priors") or {})


def _measured(detector: Plain, measured: Plain) -> tuple[str, str]:
    """Return a scale that ``operando calibrate`` found, with its errors, and from what."""
    offset = _pm(detector["offset_kev"], measured["offset_error_kev"])
    gain = _pm(1e3 * detector["gain_kev"], 1e3 * measured["gain_error_kev"])
    lines = f"{len(measured['lines'])} lines of {measured['source']}"
    source = f"measured on {measured['on']} with {lines} (sha256 {measured['sha256'][:16]})"
    return f"{offset} keV + {gain} eV × channel, correlation {measured['correlation']:.2f}", source


def _stated(priors: Plain) -> Iterator[tuple[str, str, str]]:
    for name, value in priors.items():
        if isinstance(value, int | float):
            yield f"{name.replace('_', ' ')}, one sigma", f"{value:g}", "station file, stated"


def _pm(value: float, sigma: float) -> str:
    from controller.offline import words

    digits = words.digits_of(sigma)
    return f"{words.fixed(value, digits)} ± {words.fixed(sigma, digits)}"


# --- files, commands -----------------------------------------------------------------------------------


def files(folder: Path) -> Iterator[File]:
    """Yield the files of a run that its results can be traced to, with their checksums."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    for name in FOLDERS:
        paths += sorted(path for path in (folder / name).rglob("*") if path.is_file())
    for path in paths:
        if path.name.startswith(".") or path.name in NOT_LISTED or path.name.endswith(("-wal", "-shm")):
            continue
        try:
            size = path.stat().st_size
            if not path.stat().st_mode & 0o077:  # a key or an account of somebody
                continue
            known = sha256(path) if size <= HASHED_BYTES else None
        except OSError:
            continue
        yield File(path.relative_to(folder).as_posix(), size, known)


def sha256(path: Path) -> str:
    """Return the checksum of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def commands(run: RunFiles, summary: Plain) -> Iterator[tuple[str, str]]:
    """Yield the commands that do it again: the run, the reduction, the report, the exports."""
    name = shlex.quote(run.run)
    own = run.start.get("command")
    if own:
        yield shlex.join([str(word) for word in own]), "as it was started"
    seed, speed = summary["seeds"].get("bench"), summary["durations"].get("speed")
    if seed is not None:
        more = "" if speed in (None, 1.0) else f" --speed {speed:g}"
        yield (
            f"operando run {name}/experiment.toml --bench{more} --seed {seed}",
            "the run, on the virtual bench",
        )
    elif run.start.get("station"):
        station = shlex.quote(str(run.start["station"]))
        yield f"operando run {name}/experiment.toml --station {station}", "the run, with these instruments"
    if summary["scans"]:
        yield f"operando reduce ion-beam {name}", "x, SoC, maps and spectra from the raw events"
    yield f"operando report {name} --pdf", "this page, and as PDF"
    yield f"operando export {name}", "NeXus, CSV, TIFF, documents"
