"""The host dies in mid-exposure: every image that was acknowledged counts, once; only the rest is taken."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from controller.rawfile import read_index
from hil_tests.harness import (
    Run,
    World,
    a_bench,
    edited_station,
    ending,
    eventually,
    operando,
)
from hil_tests.test_run_stations import NO_BEAM, SAMPLE, image_steps

CAMERA = (
    *NO_BEAM, "--with", "radiography=frame_folder", "--with", "heater=none", "--with", "cell=none",
)  # fmt: skip
FRAMES = 5
SLACK = 4  # images that come while the host, which looks four times a second, sees that there are enough
SPEED = 1.0  # of lab time: deadlines at which a busy machine still keeps up


def calm(station: str) -> str:
    """Let the I/O box be read once a second: no times of trips are claimed here."""
    return re.sub(r'(driver = "labjack_t7".*?\nperiod = )"[^"]+"', r'\1"1 s"', station, flags=re.S)


def images(run: Run, purpose: str) -> list[dict[str, Any]]:
    """Return the index's lines of all images of a purpose, in order."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        told = list(read_index(run.run_dir / "raw"))
        of = {m["n"] for m in told if m["k"] == "exposure" and m["purpose"] == purpose}
        found = [m for m in told if m["k"] == "image" and m["n"] in of]
    return found


def rows(run: Run) -> Counter[tuple[int, int]]:
    return Counter((row["body"]["n"], row["body"]["number"]) for row in run.events("image"))


def lithium(summary: dict[str, Any]) -> tuple[float, float]:
    (state,) = summary["radiographs"]
    one = state["lithium6_of_regions"][0]
    return float(one["value"]), float(one["sigma_stat"])


def start(folder: Path, bench: World) -> Run:
    experiment = folder / "part.toml"
    experiment.write_text(SAMPLE.replace('[bench]\nscenario = "SCENARIO"\n', "") + image_steps(frames=FRAMES))
    station = edited_station(bench, folder / "station.toml", calm)
    return Run.start(folder / "run", experiment, "--station", str(station))


def whole(folder: Path) -> dict[str, Any]:
    """Return the summary of the same run on a bench of its own, which nobody interrupts."""
    folder.mkdir()
    with (
        a_bench(folder / "bench", speed=SPEED, seed=4, more=CAMERA) as bench,
        ending(start(folder, bench)) as one,
    ):
        assert one.ended(seconds=240.0) == 0, one.tell()
    return dict(json.loads((one.run_dir / "summary.json").read_text()))


def interrupted(folder: Path, purpose: str) -> tuple[Run, dict[str, Any]]:
    """Kill the host in the middle of an exposure, resume, and hold everything against the disk."""
    with a_bench(folder / "bench", speed=SPEED, seed=3, more=CAMERA) as bench:
        with ending(start(folder, bench)) as first:
            half = FRAMES // 2
            first.until(lambda _: len(images(first, purpose)) >= half, f"half of {purpose}", seconds=180.0)
            first.kill_host()
        acknowledged = rows(first) | Counter((m["n"], m["number"]) for m in images(first, purpose))
        told = [m for m in read_index(first.run_dir / "raw") if m["k"] == "exposure_end"]
        assert all(purpose != one.get("purpose") for one in told), "it was killed too late"
        eventually(
            lambda: not bench.ask("counters")["twins"]["io"]["shutter_open"],
            "the watchdog of the I/O box has closed the shutter",
        )
        with ending(Run.resume(first)) as again:
            assert again.ended(seconds=240.0) == 6, (
                again.tell()
            )  # done, and the interruption is a gap that is named
    summary = json.loads((again.run_dir / "summary.json").read_text())
    assert summary["problems"] == []

    # Nothing acknowledged is lost, and nothing stands anywhere twice: journal, index, disk, result.
    found = rows(again)
    assert set(acknowledged) <= set(found)
    assert set(found.values()) == {1}
    lines = Counter(m["file"] for m in read_index(again.run_dir / "raw") if m["k"] == "image")
    assert set(lines.values()) == {1}
    on_disk = {str(p.relative_to(again.run_dir / "raw")) for p in (again.run_dir / "raw").rglob("*.tif")}
    assert set(lines) == on_disk
    assert len(found) == len(on_disk)
    counted = summary["exposures"]
    assert [one["ok"] for one in counted] == [True] * 4, counted
    assert sum(one["frames"] for one in counted) == len(on_disk)
    return again, summary


@pytest.mark.soak
def test_killed_in_mid_sample_the_rest_is_taken_and_the_result_is_the_same(tmp_path: Path) -> None:
    again, summary = interrupted(tmp_path, "sample")
    parts = summary["exposures"]
    assert [(one["purpose"], one.get("interrupted", False)) for one in parts] == [
        ("dark", False), ("flat", False), ("sample", True), ("sample", False),
    ]  # fmt: skip
    had, more = parts[2]["frames"], parts[3]["frames"]
    assert FRAMES // 2 <= had < FRAMES
    assert FRAMES - had <= more <= FRAMES - had + SLACK  # only what was missing
    begun = [row["body"]["title"] for row in again.events("step") if row["body"]["state"] == "begun"]
    assert [title.count('"dark"') + title.count('"open beam"') for title in begun] == [1, 1, 0, 0]

    # Dark and open beam are those of before: the same images give the same numbers again, offline.
    (state,) = summary["radiographs"]
    assert state["frames"] == had + more
    told = operando("reduce", "radiography", str(again.run_dir), "--json")
    (offline,) = [one["states"][0] for one in json.loads(told.stdout)["files"]]
    assert offline["lithium6_of_regions"] == state["lithium6_of_regions"]
    value, sigma = lithium(summary)
    assert value == pytest.approx(5.08e20, rel=0.03)  # the twin's own truth

    # And they are those of a run that nobody interrupted, within the errors of both.
    other, its_sigma = lithium(whole(tmp_path / "whole"))
    assert abs(value - other) < 4.0 * math.hypot(sigma, its_sigma)
    assert sigma == pytest.approx(its_sigma, rel=0.3)  # as many images, as much known


@pytest.mark.soak
def test_killed_in_mid_dark_the_sum_of_both_parts_is_the_dark(tmp_path: Path) -> None:
    _, summary = interrupted(tmp_path, "dark")
    parts = summary["exposures"]
    assert [one["purpose"] for one in parts] == ["dark", "dark", "flat", "sample"]
    assert FRAMES <= parts[0]["frames"] + parts[1]["frames"] <= FRAMES + SLACK
    value, _ = lithium(summary)
    assert value == pytest.approx(5.08e20, rel=0.03)
