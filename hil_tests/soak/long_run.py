"""Soak item: 36 hours of an experiment in 54 minutes; no process may grow, leak or come later and later."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from hil_tests.harness import ROLES, Run, World, a_bench, ending, experiment, processes_of, scan_step
from hil_tests.soak.runner import Failed, Workshop

SPEED = 40.0
LAB_H = 36.0
CYCLE_H = 3.0  # charge, rest, discharge, rest
SAMPLE_S = 10.0  # wall
SETTLING = 0.2  # of the samples: caches and the first results are allowed to fill
WATCHED = ("supervisor", "control", "reduce", "link", "broker", "bench")
# Of the wall: 8 MB an hour at speed 40 would be 5 MB a day of the experiment. What reduce keeps for good by
# its nature, the sums of each pass, is more than the others have.
GROWTH_MB_PER_H = {"reduce": 24.0}
GROWTH_ANY_MB_PER_H = 8.0
MORE_DESCRIPTORS, MORE_THREADS = 2, 1  # at the end than in the beginning
LATER_S = 0.25  # the median of the last third against that of the first


@dataclass
class Track:
    """What one process was seen to hold, sample by sample."""

    at_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)


def long_run(work: Workshop, lab_h: float = LAB_H) -> str:
    """Cycle and scan a cell for 36 hours at speed 40, and watch every process."""
    place = work.folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    tracks = {role: Track() for role in WATCHED}
    with a_bench(place / "bench", speed=SPEED, seed=36) as world:
        path = experiment(place / "long.toml", _steps(max(1, round(lab_h / CYCLE_H)), min(lab_h, CYCLE_H)))
        with ending(Run.start(place / "run", path, "--station", str(world.station))) as run:
            began = time.monotonic()
            while run.process.poll() is None:
                time.sleep(SAMPLE_S)
                with contextlib.suppress(OSError, ValueError, IndexError, AssertionError, sqlite3.Error):
                    _sample(run, world, tracks, time.monotonic() - began)
            code = run.process.returncode
            if not (run.run_dir / "record.json").is_file():
                raise Failed((place / "run" / "cli.err").read_text()[-1500:])
            outcome = json.loads((run.run_dir / "record.json").read_text())["outcome"]
            counters = json.loads((run.run_dir / "record.json").read_text())["counters"]
    kept = {name: {**vars(track), "pids": sorted(track.pids)} for name, track in tracks.items()}
    (work.folder / "samples.json").write_text(json.dumps(kept))
    table, problems = judge(tracks)
    wall_s = tracks["control"].at_s[-1] if tracks["control"].at_s else 0.0
    head = (
        f"{lab_h:g} lab hours in {wall_s / 60.0:.0f} min: exit code {code}, {outcome}; "
        f"ticks {counters.get('ticks')}, missed {counters.get('ticks_missed')}, "
        f"latest {counters.get('worst_tick_late_ms')} ms"
    )
    said = "\n".join([head, *table])
    if code not in (0, 6):
        problems.append(f"the run ended with {code}: {outcome}")
    if problems:
        raise Failed("\n".join([*problems, said]))
    shutil.rmtree(place)
    return said


def _steps(cycles: int, cycle_h: float) -> str:
    """Return the steps: a reference scan, then cycles of charge and discharge under the beam, with rests."""
    half_s = 0.45 * cycle_h * 3600.0

    def phase(do: str, edge: str) -> str:
        return (
            '[[step.step]]\ndo = "parallel"\n\n[[step.step.step]]\n'
            f'do = "{do}"\ncurrent = "2 uA"\nvoltage = "{edge}"\n'
            f'until = {{ duration = "{half_s:g} s" }}\ntimeout = "{2 * half_s:g} s"\n\n'
            + scan_step(f"under {do}", (16, 24), 100.0, header="[[step.step.step]]")
            + f'[[step.step]]\ndo = "rest"\nduration = "{0.05 * cycle_h * 3600.0:g} s"\n\n'
        )

    reference = scan_step("as prepared", (16, 24), 20.0, "until = { passes = 2 }", timeout="1 h")
    repeat = f'[[step]]\ndo = "repeat"\ntimes = {cycles}\n\n'
    return reference + repeat + phase("charge", "4.0 V") + phase("discharge", "2.8 V")


def _sample(run: Run, world: World, tracks: dict[str, Track], at_s: float) -> None:
    """Look at every process once."""
    late = _lateness(run, world)
    for role, track in tracks.items():
        folder = world.station.parent if role == "bench" else run.folder
        pids = processes_of(folder, ROLES[role])
        if not pids:
            continue
        proc = Path("/proc") / str(pids[0])
        lines = (proc / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        descriptors = len(os.listdir(proc / "fd"))
        track.at_s.append(at_s)
        track.rss_mb.append(int(status["VmRSS"].split()[0]) / 1024.0)
        track.descriptors.append(descriptors)
        track.threads.append(int(status["Threads"]))
        track.pids.add(pids[0])
        if role in late:
            track.late_s.append(late[role])


def _lateness(run: Run, world: World) -> dict[str, float]:
    """Return how late each process is, by what it owes: an answer, a delivery, a result."""
    found: dict[str, float] = {}
    for role in ("control", "supervisor"):
        began = time.monotonic()
        run.ask("status", of=role)
        found[role] = time.monotonic() - began
    began = time.monotonic()
    world.ask("counters")
    found["bench"] = time.monotonic() - began
    ((oldest,),) = run.rows("SELECT min(e.wall_s) FROM outbox o JOIN events e USING (seq)")
    found["link"] = 0.0 if oldest is None else max(0.0, time.time() - oldest)
    waited = run.rows(
        "SELECT c.wall_s - p.wall_s FROM events c JOIN events p ON p.kind = 'pass' "
        "AND c.kind = 'pass_checked' AND p.run = c.run "
        "AND json_extract(p.body, '$.scan') = json_extract(c.body, '$.scan') "
        "AND json_extract(p.body, '$.n') = json_extract(c.body, '$.n') "
        "WHERE c.seq > (SELECT max(seq) FROM events) - 3000 AND p.seq > (SELECT max(seq) FROM events) - 6000 "
        "ORDER BY c.seq DESC LIMIT 1"
    )
    if waited:
        found["reduce"] = max(0.0, waited[0][0])
    return found


def judge(tracks: dict[str, Track]) -> tuple[list[str], list[str]]:
    """Return the table and what in it is beyond its limit."""
    table = [
        "process     RSS MB begin  end  MB/h ± (limit)  descriptors  threads  late ms first third, last third"
    ]
    problems = []
    for role, track in tracks.items():
        settled = int(SETTLING * len(track.at_s))
        at_h = [at / 3600.0 for at in track.at_s[settled:]]
        if len(at_h) < 4:
            problems.append(f"{role}: only {len(track.at_s)} samples")
            continue
        rss = track.rss_mb[settled:]
        slope, sigma = slope_of(at_h, rss)
        limit = GROWTH_MB_PER_H.get(role, GROWTH_ANY_MB_PER_H)
        third = max(1, len(at_h) // 3)
        handles = track.descriptors[settled:]
        first, last = max(handles[:third]), max(handles[-third:])
        threads = track.threads[settled:]
        early, late = max(threads[:third]), max(threads[-third:])
        waits = track.late_s[settled:]
        before, after = (statistics.median(part) if part else 0.0 for part in (waits[:third], waits[-third:]))
        table.append(
            f"{role:<11} {rss[0]:>12.1f} {rss[-1]:>4.1f}  {slope:+.2f} ± {sigma:.2f} ({limit:g})  "
            f"{first} -> {last}  {early} -> {late}  {1e3 * before:.1f}, {1e3 * after:.1f}"
        )
        if slope - 2.0 * sigma > limit:
            problems.append(f"{role} grows by {slope:.1f} MB an hour, {limit:g} are allowed")
        if last > first + MORE_DESCRIPTORS or late > early + MORE_THREADS:
            problems.append(f"{role} leaks: descriptors {first} -> {last}, threads {early} -> {late}")
        if after > before + LATER_S:
            problems.append(
                f"{role} comes later: {before:.3f} s in the first third, {after:.3f} s in the last"
            )
        if len(track.pids) > 1:
            problems.append(f"{role} was started again: {sorted(track.pids)}")
    return table, problems


def slope_of(x: list[float], y: list[float]) -> tuple[float, float]:
    """Return slope and its standard error of a straight line through y(x), by least squares.

    Source: Bevington and Robinson, Data Reduction and Error Analysis, 3rd ed., section 6.3, with the variance
    estimated from the residuals. ValueError for less than three points.
    """
    n = len(x)
    if n < 3:
        raise ValueError(f"{n} points have no slope with an error")
    middle = statistics.fmean(x)
    spread = sum((one - middle) ** 2 for one in x)
    mean = statistics.fmean(y)
    slope = sum((a - middle) * (b - mean) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean - slope * (a - middle)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, (rest / (n - 2) / spread) ** 0.5
