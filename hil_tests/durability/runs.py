"""A light run that is killed and resumed as often as a test likes, and what must be true of it at the end.

The cell is charged and discharged by the same amount, so that one bench serves any number of runs. All truth
is the bench's: the coulombs that its twin counted, the state of its outputs.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_model

from controller.rawfile import passes_on_disk, read_index
from hil_tests.durability.power import cut
from hil_tests.harness import (
    ROLES,
    Run,
    World,
    edited_station,
    eventually,
    experiment,
    processes_of,
    scan_step,
)

NOTES = "notes.jsonl"
SITE = Path(__file__).parent / "site"
SPEED = 2.0  # of lab time: deadlines at which a busy machine still keeps up
PIXELS, DWELL_MS = (8, 12), 10.0  # a pass of one lab second
PASSES = {"as prepared": 3, "after": 2}  # what the file asks for; the scan beside the charge has no number
CURRENT_A, PHASE_S = 10e-6, 8.0
INTERVAL_S = 1.0  # between two readings of the cell
PHASE_COULOMB = CURRENT_A * PHASE_S
PATIENCE_S = 120.0
HOST = ("supervisor", "control", "reduce", "link", "web", "finish")
SIGMAS = 5.0
BEAM_WANDER = 0.02  # of the current, from one scan to the next
TRIES = 5  # of a command, until the run has ended
LATE = ("no reading of", "ran out: whoever had switched it on")


def steps() -> str:
    """Return the light experiment: scan, charge under the beam, discharge, scan."""

    def cell(do: str, header: str) -> str:
        edge = "4.0 V" if do == "charge" else "2.8 V"
        return (
            f'{header}\ndo = "{do}"\ncurrent = "{CURRENT_A * 1e6:g} uA"\nvoltage = "{edge}"\n'
            f'until = {{ charge = "{PHASE_COULOMB / 3.6 * 1e3:.6f} uAh" }}\ntimeout = "2 h"\n'
            f'interval = "{INTERVAL_S:g} s"\n\n'
        )

    def scan(name: str, until: str = "", header: str = "[[step]]") -> str:
        return scan_step(name, PIXELS, DWELL_MS, until, timeout="2 h", header=header)

    return (
        scan("as prepared", f"until = {{ passes = {PASSES['as prepared']} }}")
        + '[[step]]\ndo = "parallel"\n\n'
        + cell("charge", "[[step.step]]")
        + scan("charging", header="[[step.step]]")
        + cell("discharge", "[[step]]")
        + scan("after", f"until = {{ passes = {PASSES['after']} }}")
    )


def station_of(world: World, path: Path, broker: Mapping[str, str] | None) -> Path:
    """Write the bench's station file, with a broker of our own if there is one, and patient readings.

    Heater and I/O are read less often than at a real station, and are stale later: what is tested here is not
    how soon a guard acts, and a machine that does other work shall not end the run.
    """
    table = "\n".join(f'{key} = "{value}"' for key, value in (broker or {"kind": "embedded"}).items())

    def edit(text: str) -> str:
        for often, seldom in (
            ('period = "0.25 s"', 'period = "1 s"'),
            ('period = "0.1 s"', 'period = "0.3 s"'),
        ):
            assert text.count(often) == 1, often
            text = text.replace(often, seldom)
        return text.replace('kind = "embedded"', table)

    return edited_station(world, path, edit)


@contextlib.contextmanager
def switched(**told: Any) -> Iterator[None]:
    """Put the switch of ``switch.py`` into the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in ("OPERANDO_TEST_PATH", "OPERANDO_TEST_SWITCH")}
    os.environ["OPERANDO_TEST_PATH"] = str(SITE)
    os.environ["OPERANDO_TEST_SWITCH"] = json.dumps({"role": "controller.host", **told}, default=str)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class TooSlow(Exception):
    """The guard ended a run because nothing was heard in time: this machine was too busy, nothing is told."""


class Journey:
    """One light run from its start over kills and resumes to its end."""

    def __init__(self, world: World, folder: Path, station: Path) -> None:
        self.world = world
        self.folder = folder
        self.station = station
        self.notes = folder / NOTES
        self.file = experiment(folder / "light.toml", steps())
        self.before = self._charges()
        self.run: Run | None = None
        self.attempts = 0
        self.tape = folder / "tape-0"

    def _charges(self) -> dict[str, float]:
        told: dict[str, float] = self.world.truth()["charge_coulomb"]
        return told

    def passed(self) -> dict[str, float]:
        """Return the coulombs that went through the twin's terminals since the beginning, by direction."""
        now = self._charges()
        return {name: now[name] - self.before[name] for name in self.before}

    def go(self, **switch: Any) -> Run:
        """Start the run, or take it up again; with a switch in control."""
        self.tape = self.folder / f"tape-{self.attempts}"
        if switch.pop("taped", False):
            switch["tape"] = self.tape
            self._begin_tape()
        with switched(notes=self.notes, **switch):
            if self.run is None or not self.open():
                self.run = Run.start(
                    self.folder, self.file, "--station", str(self.station), state=self.folder / "state"
                )
            else:
                self.run = Run.resume(self.run)
        self.attempts += 1
        return self.run

    def open(self) -> bool:
        """Return whether the journal has this run as begun and not ended: then it can be resumed."""
        run = self.run
        if run is None:
            return False
        rows = run.rows(f"SELECT outcome FROM runs WHERE run = '{run.run_dir.name}'")  # noqa: S608 - our own name
        return bool(rows) and rows[0][0] is None

    def ended(self) -> bool:
        """Return whether the run came to its end in the journal."""
        run = self.run
        assert run is not None
        rows = run.rows(f"SELECT outcome FROM runs WHERE run = '{run.run_dir.name}'")  # noqa: S608 - our own name
        return bool(rows) and rows[0][0] is not None

    def kill_host(self) -> None:
        """SIGKILL every process of the host at once; the broker is not a part of it here."""
        assert self.run is not None
        self.run.kill_host(HOST)

    def cut_power(self) -> str:
        """As ``kill_host``, and what was not on the disk is lost; return what that was.

        The attempt must have been started with ``taped=True``.
        """
        self.kill_host()
        return cut(self.tape, self.folder, f"{self.folder.name} {self.attempts}")

    def _begin_tape(self) -> None:
        """Begin the tape with what is there, and safe: the journal, its log folded in, and the raw files."""
        journal = self.folder / "state" / "journal.sqlite"
        with self.tape.open("wb") as tape:
            if journal.exists():
                with contextlib.closing(sqlite3.connect(journal)) as base:
                    base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                content = journal.read_bytes()
                tape.write(json.dumps({"op": "w", "f": str(journal), "o": 0, "n": len(content)}).encode())
                tape.write(b"\n" + content)
                tape.write(json.dumps({"op": "s", "f": str(journal)}).encode() + b"\n")
            for path in self.folder.glob("runs/*/raw/*"):
                told = {"op": "fs", "f": str(path), "o": path.stat().st_size}
                tape.write(json.dumps(told).encode() + b"\n")

    def kill_control(self) -> None:
        """SIGKILL control; the supervisor makes everything safe and ends."""
        for pid in processes_of(self.folder, ROLES["control"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.collapsed()

    def collapsed(self) -> None:
        """Wait for the end of a run whose control is dead; its report is not waited for."""
        self.world.until(lambda outputs: outputs.off, "everything is off", seconds=PATIENCE_S)
        assert self.run is not None
        self.finished()

    def finished(self) -> int:
        """Wait for the end of the command; report and exports are cut short, they are not what is tested."""
        run = self.run
        assert run is not None

        def probe() -> bool:
            for pid in processes_of(self.folder, ROLES["finish"]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return run.process.poll() is not None

        eventually(probe, "the run ends", seconds=PATIENCE_S, poll_s=0.1, tell=run.tell)
        eventually(lambda: not run.pids(HOST), "no process left over", seconds=20.0, tell=run.tell)
        return int(run.process.returncode)

    def check(self, code: int) -> None:
        """Assert that a run has ended in order; TooSlow when this machine was late for the guard."""
        run = self.run
        assert run is not None
        lines = run.lines()
        if code == 4 and any(text in lines for text in LATE):
            raise TooSlow(lines.splitlines()[-1])
        assert code in (0, 6), f"exit code {code}\n{run.tell()}"

    @staticmethod
    def notes_of(folder: Path) -> list[dict[str, Any]]:
        """Return the notes of the switch; a line that a kill cut off is none."""
        notes = []
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / NOTES).read_text().splitlines():
                with contextlib.suppress(ValueError):
                    notes.append(json.loads(line))
        return notes

    def finish(self) -> int:
        """Take the run up until it has ended in order; return the last exit code."""
        for _ in range(TRIES):
            self.go()
            code = self.finished()
            if code == 3 and self.open():
                continue  # an instrument was not reached in time: a person would type it once more
            self.check(code)
            if self.ended():
                return code
        assert self.run is not None
        raise AssertionError(f"not ended after {TRIES} attempts\n{self.run.tell()}")


@dataclass(frozen=True)
class Account:
    """What was found when a journey had ended."""

    counted_coulomb: float
    true_coulomb: float
    missed_coulomb: float  # the bound that the host itself states for what nobody measured
    sigma_coulomb: float  # of what was measured
    passes: int
    documents: int
    acknowledged: int

    def __str__(self) -> str:
        off = self.counted_coulomb - self.true_coulomb
        return (
            f"charge {1e6 * self.counted_coulomb:.1f} uC counted, {1e6 * self.true_coulomb:.1f} true, off by "
            f"{1e6 * off:+.1f} of {1e6 * self.missed_coulomb:.1f} allowed; {self.passes} passes, "
            f"{self.documents} documents, {self.acknowledged} rows promised"
        )


def settle(journey: Journey) -> Account:
    """Assert everything that must be true of a run that was killed and resumed, and has ended."""
    run = journey.run
    assert run is not None
    outputs = journey.world.outputs()
    assert outputs.off, outputs
    acknowledged = _nothing_promised_is_lost(journey, run)
    charge = _charge(journey, run)
    return Account(*charge, _passes(run), _documents(run), acknowledged)


def _nothing_promised_is_lost(journey: Journey, run: Run) -> int:
    """Every number that the journal has returned is in it, without a gap, and SQLite finds nothing wrong."""
    with contextlib.closing(sqlite3.connect(run.state / "journal.sqlite")) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        seqs = [row[0] for row in base.execute("SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    notes = journey.notes_of(journey.folder)
    promised = {seq for note in notes for seq in note.get("seqs", ())}
    assert promised <= set(seqs), sorted(promised - set(seqs))
    unknown = {note["site"] for note in notes if note.get("site", "").startswith("unknown")}
    assert not unknown, unknown
    return len(promised)


def _charge(journey: Journey, run: Run) -> tuple[float, float, float, float]:
    """The count agrees with the twin's within what was measured and what is stated as missed."""
    told = run.record["charge"]
    (body,) = run.rows(
        f"SELECT body FROM checkpoints WHERE run = '{run.run_dir.name}' AND name = 'sequence'"  # noqa: S608
    )[0]
    missed = float(json.loads(body)["missed_coulomb"])
    measured = math.sqrt(max(told["sigma"] ** 2 - missed**2, 0.0))
    passed = journey.passed()
    true = passed["passed_charge"] - passed["passed_discharge"]
    off = abs(told["coulomb"] - true)
    bound = missed + SIGMAS * measured
    assert off <= bound, f"{told} against {passed}: off by {off:.3g} C, {bound:.3g} C stated"
    # And each phase went as far as the file says, beyond it by a reading and what was missed at the most.
    room = missed + SIGMAS * measured + 3 * CURRENT_A * INTERVAL_S + 0.02 * PHASE_COULOMB
    for name in ("passed_charge", "passed_discharge"):
        assert abs(passed[name] - PHASE_COULOMB) <= room, f"{name}: {passed} with {missed} C missed"
    return told["coulomb"], true, missed, measured


def _passes(run: Run) -> int:
    """Every pass is there once: in the raw files, in the journal and in the result."""
    raw = run.run_dir / "raw"
    ends = [(m["scan"], m["n"]) for m in read_index(raw) if m["k"] == "pass_end" and m["good"]]
    assert len(ends) == len(set(ends)), "a pass ended twice"
    rows = [(row["body"]["scan"], row["body"]["n"]) for row in run.events("pass") if row["body"]["good"]]
    assert sorted(rows) == sorted(ends)
    names = {m["scan"]: m["name"] for m in read_index(raw) if m["k"] == "scan"}
    assert set(passes_on_disk(raw)) <= set(names)
    for name, wanted in PASSES.items():
        scans = [scan for scan, known in names.items() if known == name]
        assert len(scans) == 1, f"{name}: begun as scans {scans}"
        assert sum(scan == scans[0] for scan, _ in ends) == wanted, f"{name}: {ends}"
    result = json.loads((run.run_dir / "result.json").read_text())
    reduced = {entry["scan"]: entry["passes"] for entry in result["scans"]}
    for scan in names:
        counted = sum(end[0] == scan for end in ends)
        assert _number(reduced.get(scan, 0)) == counted, f"scan {scan}: {reduced} reduced, {ends}"
    _counts_agree({entry["name"]: entry for entry in result["scans"]})
    return len(ends)


def _counts_agree(scans: dict[str, dict[str, Any]]) -> None:
    """A pass of the scan before holds as many events as one of the scan after: the cell is as it was.

    Whichever of them was cut off and went on: a pass that counted twice, or half, would stand out.
    """
    for detector in ("pixe", "pige"):
        found = {name: (scans[name]["events"][detector]["on"], len(scans[name]["passes"])) for name in PASSES}
        (a, n), (b, m) = found.values()
        sigma = math.sqrt(a / n**2 + b / m**2 + (BEAM_WANDER * a / n) ** 2)
        assert abs(a / n - b / m) <= SIGMAS * sigma, f"{detector}: {found}"


def _number(passes: Any) -> int:
    return len(passes) if isinstance(passes, list) else int(passes)


def _documents(run: Run) -> int:
    """Valid by event-model's own schemas; one stop for each start, with its counts; each start linked."""
    rows = [row for row in run.events() if row["kind"].startswith("doc/")]
    for row in rows:
        schema = event_model.DocumentNames[row["kind"].removeprefix("doc/")]
        event_model.schema_validators[schema].validate(row["body"])
    bodies: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        bodies.setdefault(row["kind"].removeprefix("doc/"), []).append(row["body"])
    starts, stops = bodies["start"], bodies["stop"]
    assert [stop["run_start"] for stop in stops] == [start["uid"] for start in starts]
    assert [start.get("resumed_from") for start in starts] == [None, *(s["uid"] for s in starts[:-1])]
    # A run that was killed after its last document and before its row was closed says success twice.
    assert {stop["exit_status"] for stop in stops[:-1]} <= {"abort", "success"}
    assert stops[-1]["exit_status"] == "success"
    streams = {body["uid"]: body for body in bodies["descriptor"]}
    counts: dict[tuple[str, str], int] = {}
    for event in bodies["event"]:
        stream = streams[event["descriptor"]]
        key = (stream["run_start"], stream["name"])
        counts[key] = counts.get(key, 0) + 1
        assert event["seq_num"] == counts[key]
    for stop in stops:
        for name, number in stop["num_events"].items():
            assert counts.get((stop["run_start"], name), 0) == number, (name, stop)
    return len(rows)


def wait_running(journey: Journey, seconds: float) -> bool:
    """Wait until the steps run; False if the run has ended before."""
    run = journey.run
    assert run is not None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = run.status()
        if status is not None and status["state"] == "running":
            return True
        if run.process.poll() is not None:
            return False
        time.sleep(0.02)
    return False
