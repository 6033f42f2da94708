"""The host dies in mid-exposure of a pixel camera: hits on the disk count once, and only the rest is taken.

The camera is slower than a real one: what is tried is who counts what, not how fast.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from controller.reduce.hit_files import recount
from drivers.files import hit_list
from hil_tests.harness import SCENARIOS, Run, a_bench, edited_station, ending, eventually
from hil_tests.test_run_images_resume import calm
from hil_tests.test_run_stations import NO_BEAM, SAMPLE

PIXELS = (*NO_BEAM, "--with", "compton=hexitec", "--with", "heater=none", "--with", "cell=none")
FRAME_HZ, FRAMES, DARK = 500.0, 15_000, 1000
SLACK = 4 * FRAME_HZ  # frames that come while the host sees that there are enough
STEPS = f"""
[[step]]
do = "expose"
name = "dark"
detector = "compton"
purpose = "dark"
until = {{ frames = {DARK} }}
timeout = "2 min"
[[step]]
do = "expose"
name = "as prepared"
detector = "compton"
until = {{ frames = {FRAMES} }}
timeout = "5 min"
"""


def acquiring(run: Run) -> int:
    """Return the acquire process of a run: a child of its supervisor."""
    above = run.pids(("supervisor",))
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in above and b"controller.acquire" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise AssertionError(f"no acquire process below {above}")


@pytest.mark.soak
def test_killed_in_mid_sample_the_hits_on_the_disk_count_and_the_rest_is_taken(tmp_path: Path) -> None:
    scenario = tmp_path / "slow.toml"
    scenario.write_text(
        (SCENARIOS / "quickstart.toml").read_text() + f"\n[hexitec]\nframe_hz = {FRAME_HZ:g}\n"
    )
    experiment = tmp_path / "part.toml"
    experiment.write_text(SAMPLE.replace('[bench]\nscenario = "SCENARIO"\n', "") + STEPS)
    more = {"speed": 1.0, "seed": 3, "more": PIXELS, "scenario": scenario}
    with a_bench(tmp_path / "bench", warm=False, **more) as bench:
        station = edited_station(bench, tmp_path / "station.toml", calm)
        with ending(Run.start(tmp_path / "run", experiment, "--station", str(station))) as first:
            raw = first.run_dir / "raw"
            first.until(lambda _: len(list(raw.glob("*.hits"))) >= 2, "two parts", seconds=180.0)
            acquire = acquiring(first)
            os.kill(acquire, signal.SIGSTOP)  # nobody is left to put the ring away
            first.kill_host()
            os.kill(acquire, signal.SIGKILL)
        parts = {path.name: path.read_bytes() for path in sorted(raw.glob("*.hits"))}
        had = sum(hit_list.read(raw / name).frames for name in parts)
        eventually(
            lambda: not bench.ask("counters")["twins"]["io"]["shutter_open"],
            "the watchdog of the I/O box has closed the shutter",
        )
        with ending(Run.resume(first)) as again:
            assert again.ended(seconds=300.0) == 6, again.tell()
    summary = json.loads((again.run_dir / "summary.json").read_text())
    assert summary["problems"] == []
    dark, cut_off, rest = summary["exposures"]
    assert [dark["purpose"], cut_off["purpose"], rest["purpose"]] == ["dark", "sample", "sample"]
    assert (cut_off["interrupted"], cut_off["frames"], cut_off["ok"]) == (True, had, True)
    assert rest.get("interrupted") is None
    assert FRAMES <= had + rest["frames"] <= FRAMES + SLACK  # only what was missing
    assert 0 <= cut_off["lost_with_host"] < 10.0 * FRAME_HZ
    assert f"{had} frames are on the disk and count" in " ".join(gap["text"] for gap in summary["gaps"])

    # Nothing came to the record afterwards, and every part has one row, with its checksum.
    earlier = {path.name: path.read_bytes() for path in raw.glob("compton_0002_*.hits")}
    assert earlier == parts
    rows = Counter(row["body"]["path"] for row in again.events("hits"))
    assert rows == Counter(path.name for path in raw.glob("*.hits"))
    assert recount(raw, "compton_0002").result().frames == had
    assert cut_off["s"]["value"] == pytest.approx(rest["s"]["value"], abs=4.0 * cut_off["s"]["sigma_stat"])
