"""What an interrupted run had really passed: its last checkpoint, brought up to what came after it.

Checkpoints are seconds apart; readings of the cell, with the charge that the instrument's own script has
integrated, are nearer to the end. From the last reading to the moment at which the circuit was opened the
current is taken to have gone on, within the time and charge limits of the script that ran; that charge is
counted, with an error as large. The moment is the supervisor's (it saw the circuit open), or at the latest
the one at which the next host had reached the instruments: no script runs on beyond that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.journal_rows import Checkpoint, Event
from controller.rawfile import passes_on_disk
from controller.scanning import PassOutcome
from controller.steps.context import Had

if TYPE_CHECKING:
    from controller.journal import AsyncJournal
    from controller.journal_read import Reads

CHARGING = ("cc", "cv", "eis", "geis")  # current flows: a sweep has a bias
ENDS = ("finished", "aborted", "runtime_error")


@dataclass(frozen=True)
class Carried:
    """Where a run goes on, and what to say about it."""

    body: dict[str, Any]  # of the checkpoint, brought up to date
    text: str


async def take_up(journal: AsyncJournal, run: str, speed: float, cell: str) -> Carried | None:
    """Return where an interrupted run goes on, from its journal; None if it never had a checkpoint.

    Args:
        journal: the station's.
        run: its id.
        speed: lab seconds per second, of the interrupted run.
        cell: name of the potentiostat in the station file.
    """

    def look(reads: Reads) -> Carried | None:
        checkpoint = reads.last_checkpoint(run, "sequence")
        if checkpoint is None:
            return None
        before = reads.latest(run, "cell_event", "cell", checkpoint.seq, 4)
        before += reads.latest(run, "sample", "cell", checkpoint.seq, 1)
        before.sort(key=lambda event: event.seq)
        later = reads.all_events(after=checkpoint.seq)
        return carried_on(checkpoint, later, run, speed, time.time(), before=before, cell=cell)

    return await journal.read(look)


def had_of(raw: Path) -> dict[int, Had]:
    """Return what the raw files of a run hold of each scan."""
    found = {}
    for scan, passes in passes_on_disk(raw).items():
        good = sum(bool(end.get("good")) for end in passes.values())
        charge = sum(line[3] or 0.0 for end in passes.values() for line in end.get("lines", ()))
        found[scan] = Had(max(passes), good, charge)
    return found


async def passes_without_a_row(
    journal: AsyncJournal, run: str, raw: Path
) -> list[tuple[int, PassOutcome, dict[str, Any]]]:
    """Return the passes that are on disk and count, but whose row in the journal was not written any more.

    A pass is on disk before its row is. Each as (scan, outcome, message): what ``Recorder.scan_pass`` takes.
    """
    rows = await journal.read(lambda reads: list(reads.all_events(run, "pass")))
    known = {(row.body["scan"], row.body["n"]) for row in rows}
    ended = await asyncio.to_thread(passes_on_disk, raw)
    return [
        (scan, _outcome(n, message), message)
        for scan, passes in ended.items()
        for n, message in passes.items()
        if message and (scan, n) not in known
    ]


async def images_with_a_row(journal: AsyncJournal, run: str) -> set[tuple[int, int]]:
    """Return number of exposure and of image of every image in the journal of a run."""
    rows = await journal.read(lambda reads: list(reads.all_events(run, "image")))
    return {(row.body["n"], row.body["number"]) for row in rows}


def _outcome(n: int, message: dict[str, Any]) -> PassOutcome:
    """Return what the message of its end tells of a pass; of a good one every counted event had arrived."""
    lines = message["lines"]
    events = {name: int(counters["slow"]) for name, counters in message["counters"].items()}
    return PassOutcome(
        n, bool(message["good"]), str(message["why"]), len(lines), bool(message["good"]), 0, events, {},
        sum(line[3] or 0.0 for line in lines), sum(line[2] - line[1] for line in lines),
    )  # fmt: skip


def carried_on(
    checkpoint: Checkpoint,
    later: Iterable[Event],
    run: str,
    speed: float,
    now_wall_s: float,
    *,
    before: Iterable[Event] = (),
    cell: str = "",
) -> Carried:
    """Return where a run goes on.

    Args:
        checkpoint: the last one of the run.
        later: all events after it, oldest first, also those of the supervisor.
        run: its id.
        speed: lab seconds per second, of the interrupted run.
        now_wall_s: wall seconds, for the age of the checkpoint.
        before: the last readings and programs of the cell before the checkpoint, oldest first.
        cell: name of the potentiostat in the station file.
    """
    count = _Count(dict(checkpoint.body), run, speed, cell)
    for event in before:
        count.see(event)
    for event in later:
        count.take(event)
    age_s = now_wall_s - checkpoint.wall_s
    text = f"resume: {count.body['done']} steps were done, the last checkpoint is {age_s:.0f} s old"
    return Carried(count.body, "; ".join([text, *count.close()]))


class _Count:
    """Follows the cell through the events of a run; ``body`` is the checkpoint, brought up to date."""

    def __init__(self, body: dict[str, Any], run: str, speed: float, cell: str) -> None:
        self.body = body
        self._run = run
        self._cell = cell
        self._speed = speed
        self._since_wall_s: float | None = None  # of the last reading; None when the circuit is open
        self._current_a: float | None = None
        self._elapsed_s = 0.0  # in its program
        self._program: dict[str, Any] = {}
        self._told: list[str] = []

    def see(self, event: Event) -> None:
        """Take what the checkpoint has counted already: what ran, not what it passed."""
        if event.kind == "sample":
            self._read(event)
        else:
            self._happened(event, counted=True)

    def take(self, event: Event) -> None:
        """Take an event after the checkpoint."""
        if event.kind == "supervisor" and event.body.get("run") == self._run:
            results = event.body.get("results") or []
            if any(result["output"] == "cell" and result["confirmed"] for result in results):
                self._opened(float(event.body["t"]))
        elif event.run != self._run:
            return
        elif event.kind == "sample" and event.module == "cell":
            self._pass(event)
        elif event.kind == "cell_event":
            self._happened(event, counted=False)
        elif event.kind == "instruments":  # the next host has made everything safe
            reached = event.body.get(self._cell) or {}
            self._opened(float(reached.get("t", event.wall_s)), at_the_latest=True)

    def close(self) -> list[str]:
        """Return what is to be said, when all has been taken."""
        if self._since_wall_s is not None:
            self._told.append("nobody saw the circuit being opened: the charge since is not known")
        return self._told

    def _happened(self, event: Event, *, counted: bool) -> None:
        """Take a change of the cell's program."""
        told = event.body
        if told.get("event") == "program":
            self._program, self._elapsed_s = told, 0.0
            self._current_a = told.get("current_a")
            self._since_wall_s = event.wall_s if told.get("limits") else None
        elif told.get("event") == "opened":
            if not counted:
                self._add(float(told["charge_coulomb"]) - float(self.body["charge_coulomb"]), 0.0)
                for name in ("charged_s", "unmeasured_s", "missed_coulomb"):
                    self.body[name] = told[name]
            self._since_wall_s = None
        elif told.get("event") in ENDS:
            self._since_wall_s = None

    def _pass(self, event: Event) -> None:
        """Count a reading after the checkpoint."""
        elapsed_s = float(event.body.get("elapsed_s") or 0.0)
        if event.body["phase"] in CHARGING:
            began = self._elapsed_s if elapsed_s >= self._elapsed_s else 0.0
            gained = float(event.body["charge_coulomb"]) - float(self.body["charge_coulomb"])
            self._add(gained, elapsed_s - began)
        self._read(event)

    def _read(self, event: Event) -> None:
        """Remember the reading that may be the last."""
        charging = event.body["phase"] in CHARGING
        self._elapsed_s = float(event.body.get("elapsed_s") or 0.0)
        self._since_wall_s = event.wall_s if charging else None
        if event.body.get("current_a") is not None or not charging:  # an invalid reading: the one before it
            self._current_a = event.body.get("current_a")

    def _opened(self, wall_s: float, *, at_the_latest: bool = False) -> None:
        """Count from the last reading to the opened circuit."""
        if self._since_wall_s is None:
            return
        open_s = self._speed * max(0.0, wall_s - self._since_wall_s)
        limits = self._program.get("limits") or {}
        current_a = self._current_a or 0.0
        beyond_s = float(self._program.get("interval_s") or 0.0)  # a script looks at its limits when it reads
        if "duration_s" in limits:
            open_s = min(open_s, max(0.0, limits["duration_s"] - self._elapsed_s) + beyond_s)
        missed = current_a * open_s
        if "charge_coulomb" in limits:
            began = float(self._program.get("charge_coulomb", 0.0))
            most = max(0.0, limits["charge_coulomb"] - abs(float(self.body["charge_coulomb"]) - began))
            most += abs(current_a) * beyond_s
            missed = max(-most, min(most, missed))
        self._add(missed, open_s)
        self.body["unmeasured_s"] = float(self.body["unmeasured_s"]) + open_s
        self.body["missed_coulomb"] = float(self.body["missed_coulomb"]) + abs(missed)
        self._since_wall_s = None
        how = " at the most" if at_the_latest else ""
        self._told.append(f"the cell went on for {open_s:.1f} s{how} after its last reading")

    def _add(self, coulomb: float, seconds: float) -> None:
        body = self.body
        body["charge_coulomb"] = float(body["charge_coulomb"]) + coulomb
        body["throughput_coulomb"] = float(body["throughput_coulomb"]) + abs(coulomb)
        body["charged_s"] = float(body["charged_s"]) + seconds
        passed, elapsed_s = body["part"]
        body["part"] = [passed + coulomb, elapsed_s + seconds]
