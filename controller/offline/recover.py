"""The record of a run, also of one whose host did not live to write it: then rebuilt from the journal.

What cannot be known is None. Nothing here is estimated: charge and its error are those of the last reading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.config import ConfigErrors, load_station
from controller.journal_read import JournalReader
from controller.journal_rows import JournalError, Run
from controller.offline.run_files import RunFiles
from controller.stamps import confirmed_by_person

EXIT_GUARD = 4
SUPERVISOR_ACTED = EXIT_GUARD  # the supervisor's own exit code after it had to make everything safe

Record = dict[str, Any]


def record_of(run: RunFiles) -> tuple[Record, list[str]]:
    """Return the record of a run, and in words what of it had to be rebuilt or is missing."""
    if run.record is not None:
        return _whole(run, run.record), []
    notes = run.missing() if run.journal is not None else []
    samples = _last_samples(run)
    row = _row(run.journal, run.run)
    lived = [at for at in (_span(run)) if at is not None]
    record: Record = {
        "run": run.run,
        "experiment": run.experiment.name if run.experiment is not None else run.run,
        "station": _station_name(run),
        "exit_code": row.exit_code if row is not None else None,
        "outcome": (row.reason if row is not None else None) or "the host ended without closing the run",
        "speed": _speed(run),
        "lab_s": max(lived) - min(lived) if lived else None,
        "wall_s": None,
        "began": row.started_wall_s if row is not None else None,
        "steps": _steps(run),
        "gaps": [_told(body) for body in run.events("gap")],
        "trips": [_told(body) for body in run.events("trip")],
        "counters": {},
        "instruments": _last(run, "instruments") or {},
        "charge": {
            "coulomb": samples.get("charge_coulomb"),
            "sigma": _charge_sigma(run),
            "uncounted_s": None,
        },
        "confirmed_by_person": _confirmed(run),
    }
    for entry in supervisor_log(run):
        notes.append(f"supervisor: {entry.get('what', '')}")
        if "results" in entry and (row is None or row.outcome is None):  # else it was resumed, and ended
            record["exit_code"] = SUPERVISOR_ACTED
            record["outcome"] = str(entry.get("what") or record["outcome"])
    if not record["steps"]:
        notes += [f"log: {line}" for line in run.log_tail()]
        record["outcome"] = "the run did not start" if row is None else record["outcome"]
    return record, notes


def _whole(run: RunFiles, record: Record) -> Record:
    """Return the record of a run that was interrupted with what was done before: control only knows its own.

    The duration is that of the whole run, the interruption included: cell and sample have lived through it.
    """
    row = _row(run.journal, run.run)
    known = {_key(step) for step in record["steps"]}
    earlier = [step for step in _steps(run) if _key(step) not in known] if row is not None else []
    if row is None or not (earlier or any(run.events("interrupted"))):
        return record
    for step in earlier:
        if step["ended_lab_s"] is None:
            step["reason"] = "interrupted"
    whole = {**record, "steps": [*earlier, *record["steps"]]}
    for name, kind in (("gaps", "gap"), ("trips", "trip")):
        own = {(one.get("lab_s"), one.get("text")) for one in record[name]}
        others = [_told(body) for body in run.events(kind)]
        before = [one for one in others if (one.get("lab_s"), one.get("text")) not in own]
        first_s = min((one["lab_s"] for one in record[name]), default=math.inf)
        whole[name] = [*(one for one in before if (one.get("lab_s") or 0.0) < first_s), *record[name]]
    if row.started_wall_s is not None and record.get("began") is not None:
        before_s = max(0.0, record["began"] - row.started_wall_s)
        whole["began"] = row.started_wall_s
        for name, speed in (("wall_s", 1.0), ("lab_s", float(record.get("speed") or 1.0))):
            if record.get(name) is not None:
                whole[name] = record[name] + speed * before_s
    return whole


def _key(step: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(step.get("path", ())), step.get("begun_lab_s")


def supervisor_log(run: RunFiles) -> list[dict[str, Any]]:
    """Return what the supervisor did on its own in this run: from its file, later from the journal."""
    found = [body for body in run.events("supervisor") if body.get("run", run.run) == run.run]
    folders = [run.path / "state", Path(str(run.start.get("state", run.path / "state")))]
    for path in dict.fromkeys(folder / "supervisor.jsonl" for folder in folders):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("run", run.run) == run.run:
                found.append(entry)
    return found


def seeds_of(run: RunFiles) -> dict[str, int]:
    """Return the seeds of everything random in a run; empty on real instruments."""
    given = run.start.get("seeds")
    if isinstance(given, dict):
        return {str(name): int(value) for name, value in given.items()}
    arguments = run.start.get("bench")
    if isinstance(arguments, str):
        arguments = arguments.split()
    if isinstance(arguments, list) and "--seed" in arguments[:-1]:
        return {"bench": int(arguments[arguments.index("--seed") + 1])}
    return {}


def _steps(run: RunFiles) -> list[dict[str, Any]]:
    """Return the steps that were begun; one that never ended says so."""
    steps: dict[tuple[Any, ...], dict[str, Any]] = {}
    for body in run.events("step", "sequence"):
        key = _key(body)
        told = {name: value for name, value in _told(body).items() if name != "state"}
        steps[key] = {"reason": "did not end", "ended_lab_s": None, **told}
    return list(steps.values())


def _span(run: RunFiles) -> list[float | None]:
    """Return the lab times of the first and last sign of life."""
    times = [body["lab_s"] for kind in ("instruments", "step", "sample") for body in run.events(kind)]
    known = [at for at in times if at is not None]
    return [min(known), max(known)] if known else []


def _last(run: RunFiles, kind: str) -> dict[str, Any] | None:
    found = None
    for body in run.events(kind):
        found = {name: value for name, value in body.items() if name not in ("wall_s", "lab_s")}
    return found


def _last_samples(run: RunFiles) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for body in run.events("sample", "cell"):
        found = body
    return found


def _charge_sigma(run: RunFiles) -> float | None:
    found = None
    for body in run.events("pass"):
        found = (body.get("stamp") or {}).get("charge_sigma_coulomb", found)
    return found


def _told(body: dict[str, Any]) -> dict[str, Any]:
    """Return an event as it was recorded, with lab time only."""
    return {name: value for name, value in body.items() if name != "wall_s"}


def _row(journal: Path | None, run: str) -> Run | None:
    if journal is None:
        return None
    try:
        with JournalReader.open(journal) as reader:
            return next((row for row in reader.runs() if row.run == run), None)
    except JournalError:
        return None


def _station_file(run: RunFiles) -> Path | None:
    places = [Path(str(run.start["station"]))] if "station" in run.start else []
    return next((place for place in [*places, run.path / "bench" / "station.toml"] if place.is_file()), None)


def _station_name(run: RunFiles) -> str:
    if run.journal is not None:
        try:
            with JournalReader.open(run.journal) as reader:
                return reader.meta().get("station", "")
        except JournalError:
            pass
    return str(run.start.get("name", ""))


def _speed(run: RunFiles) -> float | None:
    path = _station_file(run)
    if path is None:
        return None
    try:
        station = load_station(path)
    except (ConfigErrors, OSError):
        return None
    return station.bench.speed if station.bench is not None else 1.0


def _confirmed(run: RunFiles) -> list[dict[str, Any]]:
    path = _station_file(run)
    if path is None:
        return []
    try:
        return confirmed_by_person(load_station(path))
    except (ConfigErrors, OSError):
        return []
