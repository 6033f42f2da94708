"""Starting things from the command line: a run under its supervisor, the bench, offline modules."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from controller.config import ConfigErrors, Experiment, check_files, load_experiment
from controller.local import LocalError, ask, watch
from controller.paths import StateDir, StationBusy, StationLock

START_S = 60.0
ORPHAN_S = 15.0  # what a control without its supervisor needs to make everything safe and to end
EXIT_FILES, EXIT_INSTRUMENT = 2, 3


def run(args: argparse.Namespace) -> int:
    """``operando run``: supervise a run, show it, print its result."""
    try:
        experiment, name, broker = _files(args)
        own_state = args.bench and args.state is None
        if not own_state:
            _must_be_free(StateDir.of(name, args.state))
    except ConfigErrors as error:
        return _refuse(error)
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    except StationBusy as error:
        print(error, file=sys.stderr)
        return EXIT_INSTRUMENT
    run_dir = _new_run_dir(args.out, experiment.experiment.name)
    state = StateDir(run_dir / "state") if own_state else StateDir.of(name, args.state)
    copy = run_dir / "experiment.toml"
    shutil.copyfile(args.experiment, copy)
    command = ["--experiment", str(copy), "--name", name, "--broker", broker]
    station = run_dir / "bench" / "station.toml" if args.bench else args.station.absolute()
    if args.bench:
        command += ["--bench", json.dumps(_bench_arguments(args, station.parent, _scenario(experiment)))]
    else:
        command += ["--station", str(station)]
    start: dict[str, Any] = {
        "station": str(station),
        "name": name,
        "broker": broker,
        "state": str(state.path),
    }
    if args.bench:
        start["seeds"] = {"bench": args.seed}
    (run_dir / "start.json").write_text(json.dumps(start))
    return _supervise(command, run_dir, state, as_json=args.json)


def resume(args: argparse.Namespace) -> int:
    """``operando resume``: go on with a run that did not end."""
    run_dir: Path = args.run_dir.absolute()
    start = run_dir / "start.json"
    if not start.is_file():
        print(f"{run_dir} is not the folder of a run: it has no start.json", file=sys.stderr)
        return EXIT_FILES
    told = json.loads(start.read_text())
    station = Path(told["station"])
    if not station.is_file():
        print(f"{run_dir}: its station file {station} is gone", file=sys.stderr)
        return EXIT_FILES
    state = StateDir((args.state or Path(told["state"])).absolute())
    if not _is_open(state, run_dir.name):
        print(f"{run_dir.name} is not an interrupted run: there is nothing to go on with", file=sys.stderr)
        return EXIT_FILES
    try:
        _must_be_free(state)
    except StationBusy as error:
        print(error, file=sys.stderr)
        return EXIT_INSTRUMENT
    command = ["--experiment", str(run_dir / "experiment.toml"), "--name", told["name"]]
    command += ["--station", str(station), "--broker", told["broker"], "--resume"]
    return _supervise(command, run_dir, state, as_json=args.json)


def bench(args: argparse.Namespace) -> int:
    """``operando bench``: the virtual bench in the foreground, until Ctrl-C."""
    command = [sys.executable, "-m", "hil_tests.bench", *_bench_arguments(args, args.dir, args.scenario)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            return process.wait()


def module(name: str, arguments: Sequence[str]) -> int:
    """Run an offline module in a process of its own: this one never loads the numerical libraries."""
    return subprocess.run([sys.executable, "-m", name, *arguments], check=False).returncode


# --- inside --------------------------------------------------------------------------------------------


def _files(args: argparse.Namespace) -> tuple[Experiment, str, str]:
    """Check the files; return the experiment, the station's name and how link reaches its broker."""
    if args.bench:
        if args.station is not None:
            raise ValueError("--bench makes its own station: leave out --station")
        return load_experiment(args.experiment), "bench", "embedded"
    if args.station is None:
        raise ValueError("--station FILE is needed (or --bench for the virtual bench)")
    if args.speed != 1.0:
        raise ValueError(
            "--speed is for the virtual bench only: time does not run faster on real instruments"
        )
    station, experiment = check_files(args.station, args.experiment)
    if station.broker.kind == "embedded":
        return experiment, station.station.name, "embedded"
    return experiment, station.station.name, station.broker.model_dump_json()


def _is_open(state: StateDir, run: str) -> bool:
    """Return whether the journal has a run that began and did not end."""
    from controller.journal_read import JournalReader
    from controller.journal_rows import JournalError

    try:
        with JournalReader.open(state.journal) as journal:
            return run in [row.run for row in journal.open_runs()]
    except JournalError as error:
        print(error, file=sys.stderr)
        return False


def _must_be_free(state: StateDir) -> None:
    """Refuse a second run before anything of it is written; the supervisor takes the lock for good."""
    lock = StationLock(state)
    lock.acquire({"pid": os.getpid(), "since": time.time()})
    lock.release()


def _scenario(experiment: Experiment) -> str:
    return experiment.bench.scenario if experiment.bench is not None else "quickstart"


def _bench_arguments(args: argparse.Namespace, folder: Path, scenario: str) -> list[str]:
    arguments = ["--dir", str(folder.absolute()), "--scenario", scenario]
    arguments += ["--speed", str(args.speed), "--seed", str(args.seed)]
    for name in ("fault", "truth"):
        path = getattr(args, name)
        if path is not None:
            arguments += [f"--{name}", str(path.absolute())]
    return arguments


def _new_run_dir(out: Path, name: str) -> Path:
    """Make ``out/<time>-<name>``, with a number behind it when two runs start in the same second."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    for number in range(100):
        path = out.absolute() / (stem if number == 0 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"{out / stem}: a hundred runs in one second")


def _refuse(error: ConfigErrors) -> int:
    for problem in error.problems:
        print(problem.message, file=sys.stderr)
    return EXIT_FILES


def _supervise(command: Sequence[str], run_dir: Path, state: StateDir, *, as_json: bool) -> int:
    (run_dir / "logs").mkdir(exist_ok=True)
    full = [sys.executable, "-m", "controller.supervise", *command]
    full += ["--state", str(state.path), "--run-dir", str(run_dir)]
    with (run_dir / "logs" / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            full, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    signal.signal(signal.SIGTERM, _terminated)
    events = _events(state, process)
    while True:
        try:
            _show(events, as_json=as_json)
            code = process.wait()
            break
        except KeyboardInterrupt as error:
            _interrupt(state, process, str(error) or "Ctrl-C")
            events = _events(state, process)
    if code < 0:
        code = _orphaned(state, run_dir, signal.Signals(-code).name)
    if code == EXIT_FILES or not (run_dir / "summary.json").is_file():
        for name in ("supervisor.log", "control.log"):
            path = run_dir / "logs" / name
            sys.stderr.write(path.read_text() if path.is_file() else "")
    if code == EXIT_FILES and "--resume" not in command:
        shutil.rmtree(run_dir)  # a wrong file leaves nothing behind
        with contextlib.suppress(OSError):
            run_dir.parent.rmdir()  # only if it is empty
        return code
    module("controller.offline.show", [str(run_dir), *(["--json"] if as_json else [])])
    return code


def _events(state: StateDir, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the events of control as soon as it listens, until the supervisor has ended."""
    began = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(LocalError):
            yield from watch(state.socket("control"), timeout_s=1.0)
            return
        if time.monotonic() - began > START_S:
            return
        time.sleep(0.1)
        yield None


def _show(events: Iterator[dict[str, Any] | None], *, as_json: bool) -> None:
    if as_json:
        for _ in events:
            pass
        return
    from rich.console import Console

    from controller.display import follow

    follow(events, Console())


def _terminated(number: int, _frame: Any) -> None:
    """SIGTERM is Ctrl-C by another program: it ends the run, not only this view of it."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def _interrupt(state: StateDir, process: subprocess.Popen[bytes], what: str) -> None:
    """Ctrl-C: everything off and the run ended in order; when control does not take it, SIGTERM."""
    print("\naborting: everything off ...", file=sys.stderr)
    try:
        ask(state.socket("control"), {"do": "abort", "by": f"{what} of {os.environ.get('USER', 'a person')}"})
    except LocalError:
        process.terminate()


def _orphaned(state: StateDir, run_dir: Path, how: str) -> int:
    """The supervisor was killed: wait for control, which makes everything safe, and write the summary."""
    print(f"the supervisor was killed ({how}); waiting for control to make everything safe", file=sys.stderr)
    deadline = time.monotonic() + ORPHAN_S
    while time.monotonic() < deadline:
        try:
            ask(state.socket("control"), {"do": "status"}, timeout_s=1.0)
        except LocalError:
            break
        time.sleep(0.1)
    if not (run_dir / "record.json").is_file():
        print(
            "control did not say that everything is off. The watchdog of the I/O box opens the relay, blanks "
            "the beam and closes the shutter; the cell's program ends by its own limits. Look at them.",
            file=sys.stderr,
        )
    module("controller.offline.finish", [str(run_dir)])
    return EXIT_INSTRUMENT
