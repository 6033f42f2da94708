"""The items: each says in a few lines what it has seen, or why it could not look, or what is wrong."""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
import sys

from hil_tests.soak import acceptance, catalogue, durability, fuzz
from hil_tests.soak.data_out import data_out
from hil_tests.soak.frames import frame_faults, frames
from hil_tests.soak.fresh_user import fresh_user
from hil_tests.soak.long_run import long_run
from hil_tests.soak.network import store_and_forward
from hil_tests.soak.page import page_viewers
from hil_tests.soak.page_growth import page_growth
from hil_tests.soak.runner import ROOT, Failed, Item, Workshop
from hil_tests.soak.runs import Run, chi_square_bound, on_the_bench
from hil_tests.soak.sweeps import sweeps

SEEDS = range(1, 21)
QUICK_SPEED = 60.0
PAPER_SPEED = 40.0
SEQUENCES = 1000
FAR_Z = 3.09  # one run in a thousand is further off


def wheels(work: Workshop) -> str:
    """Ask pip whether every locked package has a wheel for 64-bit ARM, for Python 3.11 and 3.13."""
    done = work.run([sys.executable, ROOT / ".ci" / "check_wheels.py", "3.11", "3.13"])
    if done.returncode:
        raise Failed(done.stdout.strip()[-1500:])
    return done.stdout.strip()


def moeller2021(work: Workshop) -> str:
    """Run the paper's whole protocol; its honest answer is that the change is not resolved."""
    run = on_the_bench(work, "moeller2021", speed=PAPER_SPEED, seed=1, limit_s=1800.0)
    value, stat, sys_ = run.quantity("cathode", "soc_beam")
    layer = run.layer("cathode")
    verdict, change = layer["verdict"], layer["change"]
    lab_s = run.summary["durations"]["lab_s"]
    said = (
        f"SoC from the beam {value:.1%} +- {stat:.1%} +- {sys_:.1%}, true {run.true_soc():.2%}; "
        f"verdict: {verdict}; {change['text']}\n{_charge(run)}; lab time {lab_s:.0f} s"
    )
    if verdict != "no change resolved" or change["seen"] is not False:
        raise Failed(f"a change was claimed that these counts cannot show\n{said}")
    if abs(value - run.true_soc()) > FAR_Z * math.hypot(stat, sys_):
        raise Failed(f"the value is more than {FAR_Z} sigma from the truth\n{said}")
    _check_charge(run, said)
    return said


def quickstart_seeds(work: Workshop) -> str:
    """Run the quickstart with twenty seeds; beam against atoms, coulomb count against the twin's."""
    runs, failed = [], []
    for seed in SEEDS:
        try:
            runs.append(on_the_bench(work, "quickstart", speed=QUICK_SPEED, seed=seed, limit_s=300.0))
        except Failed as reason:
            failed.append(str(reason))
    said = [f"{len(runs)} of {len(SEEDS)} runs finished"]
    if failed:
        raise Failed("\n".join([*said, *failed]))
    off = [(run.quantity("cathode", "soc_beam"), run.true_soc()) for run in runs]
    by_stat = [(value - true) / stat for (value, stat, _), true in off]
    by_total = [(value - true) / math.hypot(stat, sys_) for (value, stat, sys_), true in off]
    said.append(f"SoC from the beam less truth, over sigma_stat: {_pulls(by_stat)}")
    said.append(f"SoC from the beam less truth, over the total error: {_pulls(by_total)}")
    resolved = sum(run.layer("cathode")["verdict"] == "change resolved" for run in runs)
    said.append(f"change resolved in {resolved} of {len(runs)} runs")
    said.append(f"charge: {_charge(max(runs, key=lambda run: abs(_charge_z(run))))} (the worst of all)")
    text = "\n".join(said)
    count = len(runs)
    if abs(statistics.fmean(by_total)) > 3.0 / math.sqrt(count):
        raise Failed(f"the mean pull is too far from zero for {count} runs\n{text}")
    if sum(pull**2 for pull in by_total) > chi_square_bound(count, FAR_Z):
        raise Failed(f"the values scatter more than their total errors allow\n{text}")
    for run in runs:
        _check_charge(run, text)
    return text


def quickstart_with(cell: str, work: Workshop) -> str:
    """Run the whole quickstart with another instrument at the cell; the coulombs must be the true ones."""
    run = on_the_bench(work, "quickstart", speed=20.0, seed=3, limit_s=1500.0, cell=cell)
    _check_charge(run, cell)
    return f"{cell}: {run.summary['outcome']}; charge: {_charge(run)}"


def benches(work: Workshop) -> str:
    """Measure one bench at 40 times real time, and twenty at real time."""
    told = []
    for number, speed in ((1, 40), (20, 1)):
        command = [sys.executable, "-m", "tests.benchmarks.benches", "--benches", str(number)]
        done = work.run([*command, "--speed", str(speed), "--seconds", "60"], limit_s=900.0)
        if done.returncode:
            raise Failed(done.stdout.strip()[-2500:])
        found = json.loads(done.stdout)
        if found["speed_reached"] < 0.98 * speed:
            raise Failed(f"slower than {speed} times real time\n{done.stdout.strip()}")
        told.append(done.stdout.strip())
    return "\n".join(told)


def system_benchmark(work: Workshop) -> str:
    """Run the system benchmark at its full length."""
    done = work.run([sys.executable, "-m", "tests.benchmarks", "--only", "system"], limit_s=2400.0)
    if done.returncode:
        raise Failed(done.stdout[-2500:])
    if "MISSED" in done.stdout:
        raise Failed(f"a target was missed\n{done.stdout.strip()}")
    return done.stdout.strip()


def any_order(work: Workshop) -> str:
    """Try many more random sequences of commands, faults and time than ``make test`` does."""
    place = ROOT / "tests" / "controller" / "test_any_order.py"
    env = os.environ | {"OPERANDO_EXAMPLES": str(SEQUENCES)}
    done = work.run([sys.executable, "-m", "pytest", "-q", "-n0", place], env=env)
    if done.returncode:
        raise Failed(done.stdout.strip()[-2500:])
    return f"{SEQUENCES} sequences of at most 8 actions: nothing unsafe lasted, every trip latched"


def stations(work: Workshop) -> str:
    """Run whole small experiments on benches with fewer instruments, and with cameras, live and resumed."""
    names = ("test_run_stations.py", "test_run_images_resume.py", "test_run_frames_resume.py")
    places = [ROOT / "hil_tests" / name for name in names]
    done = work.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "soak or slow", *places], limit_s=1800.0
    )
    if done.returncode:
        raise Failed(done.stdout.strip()[-2500:])
    return done.stdout.strip().splitlines()[-1]


def stage(work: Workshop) -> str:
    """Move a stage and scan mosaics in whole runs: recorded, interrupted, failing, pushed under the beam."""
    place = ROOT / "hil_tests" / "test_run_stage.py"
    done = work.run([sys.executable, "-m", "pytest", "-q", "-n0", "-m", "soak", place], limit_s=1800.0)
    if done.returncode:
        raise Failed(done.stdout.strip()[-2500:])
    return done.stdout.strip().splitlines()[-1]


def manual(work: Workshop) -> str:
    """Let others command in whole runs: a plan, a SECoP client, one that vanishes, a host that is killed."""
    place = ROOT / "hil_tests" / "test_run_manual.py"
    done = work.run([sys.executable, "-m", "pytest", "-q", "-n0", "-m", "soak", place], limit_s=1800.0)
    if done.returncode:
        raise Failed(done.stdout.strip()[-2500:])
    return done.stdout.strip().splitlines()[-1]


def page_runs(work: Workshop) -> str:
    """Hold what the live page tells of whole runs against the journal, as messages and as drawn."""
    places = [ROOT / "hil_tests" / name for name in ("test_run_page.py", "test_page_live.py")]
    done = work.run([sys.executable, "-m", "pytest", "-q", "-n0", "-m", "soak", *places], limit_s=1200.0)
    if done.returncode:
        raise Failed(done.stdout.strip()[-2500:])
    return done.stdout.strip().splitlines()[-1]


ITEMS: dict[str, Item] = {
    "page-runs": page_runs,
    "stage": stage,
    "manual": manual,
    "wheels": wheels,
    "data-out": data_out,
    "fresh-user": fresh_user,
    "moeller2021": moeller2021,
    "quickstart-seeds": quickstart_seeds,
    "quickstart-keithley-2400": functools.partial(quickstart_with, "keithley_2400"),
    "quickstart-keithley-2450": functools.partial(quickstart_with, "keithley_2450"),
    "benches": benches,
    "system-benchmark": system_benchmark,
    **dict(catalogue.items()),
    **dict(durability.items()),
    "store-and-forward": store_and_forward,
    "long-run": long_run,
    "page-viewers": page_viewers,
    "page-growth": page_growth,
    "frames": frames,
    "frame-faults": frame_faults,
    "any-order": any_order,
    "stations": stations,
    "sweeps": sweeps,
    **dict(acceptance.items()),
    **dict(fuzz.items()),
}


def _pulls(pulls: list[float]) -> str:
    worst = max(pulls, key=abs)
    return f"mean {statistics.fmean(pulls):+.2f}, sd {statistics.stdev(pulls):.2f}, worst {worst:+.2f}"


def _charge_z(run: Run) -> float:
    charge = run.summary["charge"]
    return float((charge["coulomb"] - run.true_coulomb()) / charge["sigma"])


def _charge(run: Run) -> str:
    charge = run.summary["charge"]
    return (
        f"counted {charge['coulomb']:.6f} +- {charge['sigma']:.6f} C, the twin passed "
        f"{run.true_coulomb():.6f} C ({_charge_z(run):+.2f} sigma)"
    )


def _check_charge(run: Run, said: str) -> None:
    if abs(_charge_z(run)) > FAR_Z:
        raise Failed(f"the coulomb count is off: {_charge(run)}\n{said}")
