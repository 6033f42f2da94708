"""Scans with trouble: what is lost is noticed, not counted, repeated, and named in the end.

Most of it happens to one long run, one trouble after the other; every pass leaves a row in the journal.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hil_tests.harness import (
    Run,
    World,
    a_bench,
    edited_station,
    ending,
    eventually,
    experiment,
    scan_step,
)

PIXELS = (16, 24)
GAP = 'allowed_gap = "0.1 s"'
PULSES = (PIXELS[0] + 1) * PIXELS[1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_bench(tmp_path_factory.mktemp("scan-bench"), speed=10.0, seed=21) as world:
        yield world


@pytest.fixture(scope="module")
def run(bench: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A scan without an end."""
    folder = tmp_path_factory.mktemp("scan-run")
    step = scan_step("as prepared", PIXELS, 20.0, 'until = { duration = "2 h" }', timeout="3 h")
    station = edited_station(  # a refill later than this counts as missed, also at this speed
        bench,
        folder / "station.toml",
        lambda text: text.replace('settle = "2 ms"', f'settle = "2 ms", {GAP}'),
    )
    run = Run.start(folder, experiment(folder / "scan.toml", step), "--station", str(station))
    with ending(run):
        yield run


def passes(run: Run) -> list[dict[str, Any]]:
    return [row["body"] for row in run.events("pass")]


def wait_for(run: Run, met: Callable[[dict[str, Any]], Any], what: str, *, after: int = 0) -> dict[str, Any]:
    """Wait for a pass later than ``after`` that meets a condition."""

    def probe() -> dict[str, Any] | None:
        found = [body for body in passes(run) if body["n"] > after and met(body)]
        assert run.process.poll() is None, run.tell()
        return found[0] if found else None

    found: dict[str, Any] = eventually(probe, what, poll_s=0.1, tell=run.tell)
    return found


def in_mid_pass(run: Run) -> int:
    """Wait until a pass has just begun; return its number."""
    status = run.until(lambda now: now["scan"] and 1 <= now["scan"]["line"] <= 6, "a pass in its first lines")
    number: int = status["scan"]["n"]
    return number


def quarantined_then_good(run: Run, n: int, *words: str) -> None:
    bad = wait_for(run, lambda body: not body["good"], "a quarantined pass", after=n - 1)
    assert bad["n"] in (n, n + 1)  # what is injected late in a pass strikes in the next
    assert any(word in bad["why"] for word in words), bad["why"]
    good = wait_for(run, lambda body: body["good"], "a good pass after it", after=bad["n"])
    assert good["n"] <= bad["n"] + 2
    assert f"pass {bad['n']} is quarantined" in run.lines()


def test_both_detectors_advance_by_the_pulses_of_the_scanner(run: Run, bench: World) -> None:
    first = wait_for(run, lambda body: body["good"], "a good pass")
    second = wait_for(run, lambda body: body["good"], "another good pass", after=first["n"])
    for detector in ("pixe", "pige"):
        advanced = second["frame0"][detector] - first["frame0"][detector]
        assert advanced == PULSES * (second["n"] - first["n"])
        assert first["events"][detector] == first["counters"][detector]["slow"]
        assert first["lost"][detector] == 0
    # 20 ms of beam on each pixel, and no more than the settling at the ends of lines besides.
    assert second["live_s"] == pytest.approx(0.02 * PIXELS[0] * PIXELS[1], rel=0.3)
    assert second["charge_coulomb"] == pytest.approx(24e-12 * 0.02 * PIXELS[0] * PIXELS[1], rel=0.05)


@pytest.mark.parametrize(("detector", "pulses"), [("pixe", -1), ("pige", 1)])
def test_a_pixel_pulse_lost_or_doubled(run: Run, bench: World, detector: str, pulses: int) -> None:
    n = in_mid_pass(run)
    bench.fault(detector, "pixel", pulses=pulses)
    quarantined_then_good(
        run, n, f"{detector} advanced by {PULSES + pulses} pixels, the scanner made {PULSES}"
    )


def test_a_lost_datagram_of_the_list(run: Run, bench: World) -> None:
    n = in_mid_pass(run)
    bench.fault("pige", "silence")
    quarantined_then_good(run, n, "pige: ", "events")


def test_a_host_that_is_late(run: Run, bench: World) -> None:
    """The line that plays ends on a blanked sample and stays there; the pass goes on, and says so."""
    n = in_mid_pass(run)
    pid = run.pid("control")
    before = bench.outputs()
    run.signal("control", signal.SIGSTOP)
    blank = bench.until(lambda outputs: outputs.lab_s > before.lab_s + 1.0, "the line is over")
    still = bench.until(lambda outputs: outputs.lab_s > before.lab_s + 2.0, "nothing for a while")
    run.signal("control", signal.SIGCONT)
    assert blank.blanked
    assert still.blanked
    assert still.pulses == blank.pulses <= before.pulses + 2 * (PIXELS[0] + 1)
    body = wait_for(run, lambda body: body["n"] >= n, "that pass", after=n - 1)
    assert body["missed_refills"] >= 1
    assert pid == run.pid("control")
    wait_for(run, lambda body: body["good"], "a good pass", after=body["n"])


def test_beam_lost_for_seconds(run: Run, bench: World) -> None:
    n = in_mid_pass(run)
    bench.fault("io", "beam_loss", lost=True)
    run.until_line("the beam is away: the scan waits, blanked")
    bench.until(lambda outputs: outputs.blanked, "blanked while the beam is away")
    waiting = bench.outputs()
    later = eventually(
        lambda: (now := bench.outputs()).lab_s > waiting.lab_s + 5.0 and now, "5 s", poll_s=0.1
    )
    assert later.pulses == waiting.pulses
    bench.fault("io", "beam_loss", lost=False)
    run.until_line("the beam is back: the scan goes on")
    body = wait_for(run, lambda body: body["n"] == n, "that pass")
    whole = 0.02 * PIXELS[0] * PIXELS[1]
    assert body["live_s"] < 1.5 * whole  # without the seconds of waiting
    assert body["counters"]["pige"]["real_s"] > body["live_s"] + 5.0
    assert body["charge_coulomb"] < 1.05 * 24e-12 * whole


def test_the_end_names_the_gap_and_counts_the_losses(run: Run, bench: World) -> None:
    """Last: what of all that is told, and that the counted charge is the charge on the sample."""
    wait_for(run, lambda body: body["n"] >= 2, "passes")
    assert run.operando("stop").returncode == 0
    assert run.ended() == 6
    record = run.record
    bad = [body for body in passes(run) if not body["good"]]
    assert record["counters"].get("quarantined_passes", 0) == len(bad)
    assert {gap["text"] for gap in record["gaps"]} >= {"the beam is away: the scan waits, blanked"}
    counted = sum(body["charge_coulomb"] for body in passes(run))
    assert counted == pytest.approx(bench.truth()["beam"]["charge_coulomb"], rel=0.02)


@pytest.mark.soak
@pytest.mark.slow
def test_counters_wrap(tmp_path: Path) -> None:
    """More than 2^16 pixels and 2^30 us: neither wrap loses or invents anything."""
    with a_bench(tmp_path / "bench", warm=False, speed=60.0, seed=3) as bench:
        run_through_the_wraps(bench, tmp_path)


def run_through_the_wraps(bench: World, tmp_path: Path) -> None:
    steps = scan_step("as prepared", (64, 64), 15.0, "until = { passes = 16 }", timeout="2 h")
    steps += '[[step]]\ndo = "background"\nduration = "200 s"\n'
    path = experiment(tmp_path / "long.toml", steps)
    with ending(Run.start(tmp_path / "run", path, "--station", str(bench.station))) as run:
        assert run.ended(seconds=180.0) == 0
        truth = bench.truth()
    assert truth["twins"]["pige"]["frame"] >= 1 << 16
    assert truth["lab_s"] > (1 << 30) * 1e-6
    bodies = passes(run)
    assert len(bodies) == 17
    for body in bodies:
        assert body["good"], body["why"]
        assert set(body["lost"].values()) == {0}
    assert bodies[-1]["events"]["pige"] > 300  # what the room gives
