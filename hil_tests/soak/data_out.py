"""Soak item: what a run exports, given to the programs of others in an environment of their own."""

from __future__ import annotations

import sys
from pathlib import Path

from hil_tests.soak.runner import ROOT, Failed, Workshop
from hil_tests.soak.runs import on_the_bench

SPEED = 20.0
PEERS = (
    "nexusformat==2.1.0", "pynxtools==0.16.0", "silx==3.1.3", "tiled[server,client]==0.2.20",
    "bluesky==1.15.1", "bluesky-tiled-plugins==2.0.12",
)  # fmt: skip
"""Too large for ``make test``: 2 GB with what they need. Versions with which the exports were compared."""
LOOKS = ("definition", "viewers", "documents")


def data_out(work: Workshop) -> str:
    """Run the quickstart, export and print everything; validate, open and replay it with other programs."""
    on_the_bench(work, "quickstart", speed=SPEED, seed=1, limit_s=1500.0)
    run = max((work.folder / "quickstart-seed001" / "runs").iterdir())
    for command in (["export", run], ["report", run, "--pdf"]):
        done = work.operando(*command, limit_s=600.0)
        if done.returncode:
            raise Failed(done.stdout[-1500:])
    python = _environment(work)
    told = [f"{(run / 'report.pdf').stat().st_size} bytes of report.pdf"]
    for look in LOOKS:
        script = ROOT / "hil_tests" / "soak" / "data_out_peers.py"
        done = work.run([python, script, look, run], limit_s=900.0)
        if done.returncode:
            raise Failed(done.stdout[-1500:])
        told.append(done.stdout.strip())
    return "\n".join(told)


def _environment(work: Workshop) -> Path:
    """Return the interpreter of an environment with the others' programs, made once."""
    place = work.folder / "peers"
    python = place / "bin" / "python"
    if (place / "ready").is_file():
        return python
    for command in (
        [sys.executable, "-m", "venv", place],
        [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *PEERS],
    ):
        done = work.run(command, limit_s=1800.0)
        if done.returncode:
            raise Failed(done.stdout[-1500:])
    (place / "ready").touch()
    return python
