"""What a hurried reader of a report is told first when no layer has a state of charge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.config.steps import CONTAINERS
from controller.offline import words
from controller.offline.run_files import RunFiles

Plain = Mapping[str, Any]
Headline = tuple[str, str, str]  # what, value, more


def cut_short(step: Plain) -> bool:
    """Tell whether a step ended before it was done: by a trip, an abort, a fault, or a step beside it."""
    reason = str(step.get("reason", ""))
    return bool(step.get("failed")) or reason == "cut short" or reason.startswith("CancelledError")


def headlines(run: RunFiles, summary: Plain) -> list[Headline]:
    """Return what was done, in numbers: time, temperature, charge, sweeps, images, passes."""
    return list(_all(run, summary))


def _all(run: RunFiles, summary: Plain) -> Iterator[Headline]:
    lab_s = summary["durations"].get("lab_s")
    steps = [step for step in summary["steps"] if step["do"] not in CONTAINERS]
    if steps or lab_s is not None:
        done = sum(step["ended_lab_s"] is not None and not cut_short(step) for step in steps)
        yield "duration", words.seconds(lab_s), f"{done} of {len(steps)} begun steps are done"
    kelvin = [
        b["temperature_k"] for b in run.events("sample", "heater") if b.get("temperature_k") is not None
    ]
    if kelvin:
        reached = f"{words.fixed(max(kelvin), 1)} K"
        yield "highest temperature", reached, f"from {words.fixed(min(kelvin), 1)} K, in the holder"
    volts = [
        b["voltage_v"] for b in run.events("sample", "cell") if b.get("voltage_v") is not None and b["valid"]
    ]
    if volts:
        charge = summary["charge"]
        yield (
            "charge passed",
            words.charge(charge.get("coulomb"), charge.get("sigma")),
            (f"cell between {words.fixed(min(volts), 3)} and {words.fixed(max(volts), 3)} V"),
        )
    sweeps = summary.get("impedance") or []
    if sweeps:
        good = sum(bool((one.get("kramers_kronig") or {}).get("passed")) for one in sweeps)
        yield "impedance sweeps", str(len(sweeps)), f"{good} passed the Kramers-Kronig test"
    exposures = summary.get("exposures") or []
    if exposures:
        frames = sum(int(one.get("frames") or 0) for one in exposures)
        lost = sum(int(one.get("lost") or 0) for one in exposures)
        yield "exposures", str(len(exposures)), f"{words.count(frames)} images, {words.count(lost)} lost"
    passes = sum(int(scan.get("good_passes") or 0) for scan in summary["scans"])
    if summary["scans"]:
        refused = len(summary["quarantined"])
        yield "good passes of the beam", str(passes), f"{refused} did not count" if refused else ""
