"""The steps of a run as a list for people: what there is to do, how far it is, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller.steps import title_of

if TYPE_CHECKING:
    from controller.config import Experiment
    from controller.config.steps import Step

Path = tuple[int, ...]
COUNTED = ("scan", "calibrate")  # steps whose goals are of layers; photons of an exposure are of none
ABSOLUTE = ("x", "soc_beam")  # quantities whose uncertainty goal is absolute


def plan(experiment: Experiment, expected_s: Sequence[float]) -> list[dict[str, Any]]:
    """Return every step in order, those inside ``parallel`` and ``repeat`` after their parent.

    Args:
        experiment: the file.
        expected_s: expected lab seconds of each step, in the order of ``experiment.walk()``.
    """
    steps = [_entry(path, step) for path, step in _walk(experiment.steps)]
    for entry, seconds in zip(steps, expected_s, strict=True):
        entry["estimate_s"] = round(seconds, 1)
    return steps


def followed(
    steps: Sequence[Mapping[str, Any]], timeline: Sequence[Mapping[str, Any]], *, done: int, ended: bool
) -> list[dict[str, Any]]:
    """Return the plan with what has become of each step.

    Args:
        steps: of ``plan``.
        timeline: what the sequence has begun, in order, each with its path (turns of a repetition included).
        done: top-level steps that were finished, also before an interruption.
        ended: whether the run has ended: what was not begun is skipped.
    """
    repeats = {tuple(step["at"]) for step in steps if step["do"] == "repeat"}
    newest: dict[Path, Mapping[str, Any]] = {}
    turns: dict[Path, int] = {}
    for record in timeline:
        place, within = _place(tuple(record["path"]), repeats)
        newest[place] = record
        turns |= within
    told = []
    for step in steps:
        place = tuple(step["at"])
        record = newest.get(place, {})
        entry = {key: value for key, value in step.items() if key != "at"}
        entry |= {
            "state": _state(record, finished=place[0] < done, ended=ended),
            "begun_lab_s": record.get("begun_lab_s"), "ended_lab_s": record.get("ended_lab_s"),
            "reason": record.get("reason", ""),
        }  # fmt: skip
        if place in turns:
            entry["turn"] = turns[place] + 1
        told.append(entry)
    return told


def left_s(steps: Sequence[Mapping[str, Any]], now_lab_s: float) -> float:
    """Return the estimated lab seconds to the end: of the top-level steps, the rest of the one that runs.

    A step that takes longer than estimated counts as about to end.
    """
    total_s = 0.0
    for step in steps:
        if step["depth"]:
            continue
        if step["state"] == "waiting":
            total_s += step["estimate_s"]
        elif step["state"] == "running":
            total_s += max(0.0, step["estimate_s"] - (now_lab_s - step["begun_lab_s"]))
    return total_s


def goals(
    step: Mapping[str, Any], progress: Mapping[str, Any], *, passes: int, dose_per_cm2: float | None
) -> list[dict[str, Any]]:
    """Return how far a scan is from each of its goals, as ``{kind, of, layer, now, goal, unit, fraction}``.

    Args:
        step: of the plan.
        progress: newest message of reduce about this scan; empty before the first.
        passes: good ones so far.
        dose_per_cm2: so far, None where nobody counts it.
    """
    told = []
    for goal in step["goals"]:
        now: float | None = None
        if goal["kind"] == "passes":
            now = float(passes)
        elif goal["kind"] == "dose":
            now = dose_per_cm2
        elif goal["kind"] == "counts":
            net = progress.get("counts", {}).get(goal["layer"], {}).get(goal["of"])
            now = None if net is None else net[0]
        else:
            now = _sigma(progress.get("quantities", {}).get(f"{goal['layer']}.{goal['of']}"), goal["of"])
        told.append({**goal, "now": now, "fraction": _fraction(goal, now)})
    return told


def _fraction(goal: Mapping[str, Any], now: float | None) -> float | None:
    """Return how much of a goal is reached, by counts: an uncertainty falls with their square root."""
    if now is None:
        return None
    if goal["kind"] == "uncertainty":
        return 1.0 if now <= goal["goal"] else float((goal["goal"] / now) ** 2)
    return float(min(1.0, max(0.0, now / goal["goal"])))


def _sigma(found: Mapping[str, Any] | None, quantity: str) -> float | None:
    if found is None:
        return None
    return float(found["sigma_stat"] / (1.0 if quantity in ABSOLUTE else abs(found["value"]) or 1.0))


def _walk(steps: Sequence[Step], path: Path = ()) -> Iterator[tuple[Path, Step]]:
    for index, step in enumerate(steps):
        here = (*path, index)
        yield here, step
        if step.do in ("parallel", "repeat"):
            yield from _walk(step.steps, here)


def _entry(path: Path, step: Step) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "at": list(path), "path": ".".join(map(str, path)), "number": path[0] + 1, "depth": len(path) - 1,
        "do": step.do, "title": title_of(step),
        "goals": _goals(getattr(step, "until", None)) if step.do in COUNTED else [],
    }  # fmt: skip
    if step.do == "repeat":
        entry["times"] = step.times
    return entry


def _goals(until: Any) -> list[dict[str, Any]]:
    """Return the goals of a scan, without how far they are reached."""
    found = []
    passes, dose = getattr(until, "passes", None), getattr(until, "dose_per_cm2", None)
    counts, uncertainty = getattr(until, "counts", None), getattr(until, "uncertainty", None)
    if passes is not None:
        found.append(_goal("passes", "passes", "", passes, ""))
    if counts is not None:
        found.append(_goal("counts", counts.element, counts.layer, counts.at_least, "counts"))
    if uncertainty is not None:
        unit = "1" if uncertainty.quantity in ABSOLUTE else "relative"
        found.append(_goal("uncertainty", uncertainty.quantity, uncertainty.layer, uncertainty.below, unit))
    if dose is not None:
        found.append(_goal("dose", "dose", "", dose, "1/cm2"))
    return found


def _goal(kind: str, of: str, layer: str, goal: float, unit: str) -> dict[str, Any]:
    return {"kind": kind, "of": of, "layer": layer, "goal": goal, "unit": unit}


def _place(path: Path, repeats: set[Path]) -> tuple[Path, dict[Path, int]]:
    """Return where a step stands in the plan, and the turns of it and of the repetitions around it.

    In a path of the sequence the number of a repetition is followed by that of its turn.
    """
    place: Path = ()
    turns: dict[Path, int] = {}
    rest = list(path)
    while rest:
        place = (*place, rest.pop(0))
        if place in repeats and rest:
            turns[place] = rest.pop(0)
    if turns:
        turns[place] = list(turns.values())[-1]
    return place, turns


def _state(record: Mapping[str, Any], *, finished: bool, ended: bool) -> str:
    if not record:
        return "done" if finished else "skipped" if ended else "waiting"
    if "ended_lab_s" not in record:
        return "running"
    short = record.get("failed") or record.get("reason") in ("cut short", "stopped early")
    return "cut short" if short else "done"
