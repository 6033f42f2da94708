"""What an interrupted run had really passed: its last checkpoint, brought up to the last reading on disk.

Checkpoints are seconds apart, readings of the cell are not. Between the last reading and the moment at which
the circuit was opened the current is taken to have gone on; that charge is counted, with an error as large.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from controller.journal_rows import Checkpoint, Event

CHARGING = ("cc", "cv")
ENDS = ("finished", "aborted")


@dataclass(frozen=True)
class Carried:
    """Where a run goes on, and what to say about it."""

    body: dict[str, Any]  # of the checkpoint, brought up to date
    text: str


def carried_on(checkpoint: Checkpoint, later: Iterable[Event], run: str, speed: float) -> Carried:
    """Return where a run goes on.

    Args:
        checkpoint: the last one of the run.
        later: all events after it, oldest first, also those of the supervisor.
        run: its id.
        speed: lab seconds per second, of the interrupted run.
    """
    body = dict(checkpoint.body)
    age_s = time.time() - checkpoint.wall_s
    text = f"resume: {body['done']} steps were done, the last checkpoint is {age_s:.0f} s old"
    last, opened_wall_s = _last_reading(later, run)
    if last is None:
        return Carried(body, text)
    gained = float(last.body["charge_coulomb"]) - float(body["charge_coulomb"])
    _add(body, gained, (last.lab_s or 0.0) - (checkpoint.lab_s or last.lab_s or 0.0))
    charging = last.body["phase"] in CHARGING and last.body.get("current_a") is not None
    if not charging or opened_wall_s == last.wall_s:
        return Carried(body, text)
    open_s = speed * ((opened_wall_s or time.time()) - last.wall_s)
    body["unmeasured_s"] = float(body["unmeasured_s"]) + open_s
    if opened_wall_s is None:
        text += "; nobody saw the circuit being opened: the charge since its last reading is not known"
        return Carried(body, text)
    missed = float(last.body["current_a"]) * open_s
    _add(body, missed, open_s)
    body["missed_coulomb"] = float(body["missed_coulomb"]) + abs(missed)
    return Carried(body, f"{text}; the cell went on for {open_s:.1f} s after its last reading")


def _last_reading(later: Iterable[Event], run: str) -> tuple[Event | None, float | None]:
    """Return the last reading of the cell, and when its circuit was known to be open, in wall seconds."""
    last: Event | None = None
    open_s: float | None = None
    for event in later:
        told = event.body
        if event.kind == "supervisor" and told.get("run") == run and open_s is None:
            results = told.get("results") or []
            if any(result["output"] == "cell" and result["confirmed"] for result in results):
                open_s = float(told["t"])
        elif event.run == run and event.kind == "sample" and event.module == "cell":
            last, open_s = event, None
        elif event.run == run and event.kind == "cell_event" and told.get("event") in ENDS:
            open_s = last.wall_s if last is not None else None
    return last, open_s


def _add(body: dict[str, Any], coulomb: float, seconds: float) -> None:
    body["charge_coulomb"] = float(body["charge_coulomb"]) + coulomb
    body["throughput_coulomb"] = float(body["throughput_coulomb"]) + abs(coulomb)
    body["charged_s"] = float(body["charged_s"]) + seconds
    passed, elapsed_s = body["part"]
    body["part"] = [passed + coulomb, elapsed_s + seconds]
