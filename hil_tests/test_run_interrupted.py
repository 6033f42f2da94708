"""Interrupted at odd moments: while it starts, more than once, or with nobody reading what it prints.

Ten lab seconds a second, the shared bench; nothing here waits for physics.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hil_tests.harness import OPERANDO, REPOSITORY, Run, World, ending, eventually, one_scan


@pytest.mark.parametrize(("name", "after_s"), [("SIGTERM", 0.0), ("SIGINT", 0.3), ("SIGTERM", 1.0)])
def test_ended_by_a_person_while_it_starts(world: World, tmp_path: Path, name: str, after_s: float) -> None:
    """Twice, for good measure. Before control is there nothing is left; after that, a record that says so."""
    number = getattr(signal, name)
    path = one_scan(tmp_path / "scan.toml", passes=50)
    with ending(Run.start(tmp_path / "run", path, "--station", str(world.station))) as run:
        time.sleep(after_s)  # the moment is what varies; what must come of it does not
        run.signal("cli", number)
        time.sleep(0.05)
        run.signal("cli", number)
        assert run.ended() == 5
    if run.run_dir.exists():
        assert run.record["exit_code"] == 5
        assert run.record["outcome"].startswith("aborted by ")
        assert (run.run_dir / "summary.json").is_file()
    else:
        assert "nothing was written" in run.err
        assert not (run.folder / "runs").exists()
    assert "killed" not in run.err
    assert world.outputs().off


def test_nobody_reads_what_it_prints(world: World, tmp_path: Path) -> None:
    """As in ``operando run ... | head -1``: the run goes on, and its exit code is its own."""
    path = one_scan(tmp_path / "scan.toml", passes=3)
    command = [
        *OPERANDO,
        "run",
        str(path),
        "--station",
        str(world.station),
        "--state",
        str(tmp_path / "state"),
    ]
    reading, writing = os.pipe()
    with (tmp_path / "cli.err").open("wb") as err:
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "runs")], stdin=subprocess.DEVNULL, stdout=writing, stderr=err,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    (tmp_path / "cli.out").write_text("")
    os.close(writing)
    with ending(Run(process, tmp_path, tmp_path / "state")) as run:
        with os.fdopen(reading) as first:
            assert first.readline() == "from elsewhere:\n"
            line = first.readline().strip()
        (run.run_dir,) = eventually(lambda: list((tmp_path / "runs").glob("*")), "the folder of the run")
        assert line == (run.run_dir / "watch.txt").read_text().strip()
        assert run.ended() == 0
        assert run.record["outcome"] == "done"
    assert run.err == ""
