"""Faults that must not end a run: it goes on, ends well, and has every event once.

A run is held before its last pass until what a strike broke is well again, so nothing depends on who is
faster. Well again is a good pass that began after the strike was over, or a good reading of the instrument.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controller.rawfile import read_words
from hil_tests.delivered import came_once_and_in_order, quiet
from hil_tests.harness import ROLES, Run, World, eventually, one_scan, processes_of, start_energised

if TYPE_CHECKING:
    from hil_tests.fault_run import Scene

Sign = Callable[[], Any]  # true when a strike has had its effect and is over

PASSES = 4  # and as many for each fault
PIXELS = (8, 12)
CHARGE_S = 30.0  # lab seconds, and as many for each fault
CALM = {'period = "0.25 s"': 'period = "1 s"', 'period = "0.1 s"': 'period = "0.5 s"'}
POLL_S = 0.05
ENDING_S = 240.0  # wall: reports on a busy machine


def calm(world: World, folder: Path) -> World:
    """Return the bench behind a station that reads heater and I/O less often.

    What a busy machine cannot do within three short periods is no fault of the row; no times of trips are
    claimed here.
    """
    other = copy.copy(world)
    text = world.station.read_text()
    for short, longer in CALM.items():
        text = text.replace(short, longer)
    other.station = folder / "calm.toml"
    folder.mkdir(parents=True, exist_ok=True)
    other.station.write_text(text)
    return other


def start_calmly(world: World, folder: Path) -> Run:
    """Start a run with everything on that goes on for long."""
    return start_energised(calm(world, folder), folder)


def start_scanning(world: World, folder: Path, faults: int = 1) -> Run:
    """Start a run of a few passes; return when the first has begun."""
    world = calm(world, folder)
    path = one_scan(folder / "scan.toml", passes=PASSES * (1 + faults), pixels=PIXELS)
    run = Run.start(folder, path, "--station", str(world.station))
    try:
        run.until(lambda status: status["scan"] and status["scan"]["line"] >= 1, "a scan")
    except BaseException:
        run.kill_all()
        raise
    return run


def start_charging(world: World, folder: Path, faults: int = 1) -> Run:
    """Start a run with everything on that ends by itself."""
    return start_energised(calm(world, folder), folder, charge_s=CHARGE_S * (1 + faults))


def well_again(scene: Scene, signs: Sequence[Sign], since_s: float) -> float:
    """Wait until every strike is over and the run has good data after it; return the wall seconds it took."""
    row, run = scene.row, scene.run
    longest_s = row.wall_s + row.lab_s / row.speed + 30.0

    def until(probe: Callable[[], Any], what: str, *, hold: bool) -> None:
        def look() -> Any:
            assert alive(run), f"{row.name}: {what}: the run ended before\n{run.tell()}"
            if hold and row.when == "scanning":
                _hold(run, passes_asked(scene) - 1)
            return probe()

        eventually(look, f"{row.name}: {what}", seconds=longest_s, tell=run.tell, poll_s=POLL_S)

    for sign in signs:
        until(sign, "the strike is over", hold=True)
    over_lab_s = scene.world.outputs().lab_s
    began = _begun(run)
    status = run.status()
    if status is not None and status["paused"]:
        run.ask("proceed")
    until(lambda: _good_data(scene, over_lab_s, began), "good data again", hold=False)
    return time.monotonic() - since_s


def alive(run: Run) -> bool:
    """Return whether the run goes on, with or without the command line that started it."""
    return run.process.poll() is None or bool(processes_of(run.folder, ROLES["supervisor"]))


def _hold(run: Run, passes: int) -> None:
    """Pause a scan before its last pass."""
    status = run.status()
    if status and status["scan"] and status["scan"]["n"] >= passes and not status["paused"]:
        run.ask("pause")


def passes_asked(scene: Scene) -> int:
    """Return how many passes the experiment of a scanning run asks for."""
    found = re.findall(r"until = \{ passes = (\d+) \}", (scene.run.run_dir / "experiment.toml").read_text())
    return int(found[-1])


def ended(run: Run, *, report: bool) -> int:
    """Return the exit code of a run, also of one whose command line was killed: that run goes on.

    Without ``report`` nobody waits for the files of its end, which other tests look at.
    """

    def over() -> bool:
        for pid in () if report else processes_of(run.folder, ROLES["finish"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not alive(run)

    eventually(over, "the end of the run", tell=run.tell, seconds=ENDING_S)
    return run.ended()


def only_late(run: Run) -> bool:
    """Return whether all gaps of a run are a beam that a busy machine read too late, and waited for."""
    gaps = [gap["text"] for gap in run.record["gaps"] if not gap["end"]]
    return bool(gaps) and set(gaps) == {"the beam is away: the scan waits, blanked"}


def _begun(run: Run) -> tuple[int, int]:
    """Return scan and number of the last pass that has ended; the next one had begun when we looked."""
    rows = passes(run)
    return (rows[-1]["scan"], rows[-1]["n"] + 1) if rows else (0, 1)


def _good_data(scene: Scene, over_lab_s: float, began: tuple[int, int]) -> bool:
    """Return whether there is a good reading, or a good pass, that began after all strikes were over."""
    readings = {str(part.get("target")) for part in scene.row.strike} & {"heater", "cell"}
    for module in readings:
        if not any(row["lab_s"] > over_lab_s and _good(row["body"]) for row in _samples(scene.run, module)):
            return False
    if readings:
        return True
    return any(body["good"] and (body["scan"], body["n"]) > began for body in passes(scene.run))


def _samples(run: Run, module: str) -> list[dict[str, Any]]:
    return [row for row in run.events("sample") if row["module"] == module]


def _good(body: dict[str, Any]) -> bool:
    return body.get("temperature_k") is not None or bool(body.get("valid"))


def passes(run: Run) -> list[dict[str, Any]]:
    """Return the passes that have ended."""
    return [row["body"] for row in run.events("pass")]


# --- afterwards ------------------------------------------------------------------------------------------


def every_event_once(scene: Scene) -> None:
    """Assert that what was counted arrived, is on disk as it came, and was reduced, once, for each good pass.

    Reduce has seen every pass by itself, also when it was started again: it counted the same.
    """
    run = scene.run
    checked = {(row["body"]["scan"], row["body"]["n"]): row["body"] for row in run.events("pass_checked")}
    good = [body for body in passes(run) if body["good"]]
    for body in good:
        which = body["scan"], body["n"]
        for name, counters in body["counters"].items():
            assert body["lost"][name] == 0, body
            assert body["events"][name] == counters["slow"], body
            words = read_words(run.run_dir / "raw", body["raw"][name], verify=True)
            events = sum(words[at] < 0x80 for at in range(0, len(words), 4))
            assert events == body["events"][name], (which, name)
        assert checked[which]["ok"], checked[which]
        assert checked[which]["events"] == body["events"], which
    if scene.row.when == "scanning":
        assert len(good) == passes_asked(scene)
    assert run.record["counters"]["lost_posts"] == 0


def every_message_once(scene: Scene) -> None:
    """Assert that a subscriber who keeps its session has got every message, once and in order."""
    recorder = scene.things["recorder"]
    eventually(lambda: recorder.bodies("doc/stop"), "the last document")
    quiet(recorder)
    came_once_and_in_order(scene.run, recorder)


def every_reading_true(scene: Scene) -> None:
    """Assert that nothing but true temperatures and voltages was recorded, whatever came over the wire."""
    for module, key, low, high in (
        ("heater", "temperature_k", 290.0, 345.0),
        ("cell", "voltage_v", 2.4, 4.1),
    ):
        values = [row["body"][key] for row in _samples(scene.run, module)]
        assert module != "heater" or values
        steps = [value for value in values if value is not None]
        assert all(low < value < high for value in steps), (module, min(steps), max(steps))


def counted(scene: Scene) -> None:
    """Assert that each line that was struck counted it: a damaged, a missing or a stray reply."""
    lines = scene.run.record["counters"]["lines"]
    for part in scene.row.strike:
        stats = lines[part["target"]]
        assert stats["bad_replies"] + stats["timeouts"] + stats["drained_bytes"] > 0, (part, stats)


def quarantined(scene: Scene) -> None:
    """Assert that the pass that was struck does not count, and was repeated."""
    assert [body for body in passes(scene.run) if not body["good"]]


def a_result(scene: Scene) -> None:
    """Assert that the run has its final result and every file of it."""
    run = scene.run
    assert (run.run_dir / "result.json").is_file()
    summary = json.loads((run.run_dir / "summary.json").read_text())
    assert summary["outcome"] == "done"
    assert summary["scans"][0]["good_passes"] == passes_asked(scene)


def durations_true(scene: Scene) -> None:
    """Assert that how long it took is not told by a clock that jumped."""
    record = scene.run.record
    assert record["wall_s"] == pytest.approx(record["lab_s"] / scene.row.speed, abs=1.0)


def a_new_run_works(scene: Scene) -> None:
    """Assert that the next run on the same station file works, when a person has cleared what latched."""
    for (trip,) in scene.run.rows("SELECT id FROM latches"):
        assert scene.run.operando("clear", trip).returncode == 0
    path = one_scan(scene.folder / "next.toml")
    run = Run.start(scene.folder / "next", path, "--station", str(scene.world.station), state=scene.run.state)
    try:
        assert ended(run, report=False) == 0, run.tell()
    finally:
        run.kill_all()


def resumes(scene: Scene) -> None:
    """Assert that ``operando resume`` takes the run up; it is told to stop in order then."""
    if "ballast" in scene.things:
        scene.things["ballast"].unlink()
    run = Run.resume(scene.run)
    try:
        run.until(lambda status: status["step"] and status["scan"], "a scan again", seconds=ENDING_S)
        run.ask("stop")
        assert ended(run, report=False) in (0, 6), run.tell()
    finally:
        run.kill_all()


AFTER: dict[str, Callable[[Scene], None]] = {
    "every event once": every_event_once,
    "every message once": every_message_once,
    "every reading true": every_reading_true,
    "counted": counted,
    "quarantined": quarantined,
    "a result": a_result,
    "durations true": durations_true,
    "a new run works": a_new_run_works,
    "resumes": resumes,
}
