"""Start things from the command line: a run under its supervisor, a run that was interrupted, the bench."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from controller.apart import module
from controller.config import ConfigErrors, Experiment, check_files, load_experiment
from controller.following import follow_run, note_stops, orphaned
from controller.journal_rows import JournalError
from controller.notify import Notifier
from controller.offline.files_out import write_text
from controller.paths import StateDir, StationBusy, StationLock
from controller.verdict import EXIT_ABORTED, EXIT_FILES, EXIT_INSTRUMENT


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
    early = note_stops()
    run_dir = _new_run_dir(args.out, experiment.experiment.name)
    state = StateDir(run_dir / "state") if own_state else StateDir.of(name, args.state)
    copy = run_dir / "experiment.toml"
    write_text(copy, args.experiment.read_text())  # what ``resume`` needs is on the disk before anything runs
    command = ["--experiment", str(copy), "--name", name, "--broker", broker]
    station = run_dir / "bench" / "station.toml" if args.bench else args.station.absolute()
    if args.bench:
        arguments = _bench_arguments(args, station.parent, _scenario(experiment))
        command += ["--bench", json.dumps([*arguments, "--page"])]
    else:
        command += ["--station", str(station)]
    command += _trace_arguments(args)
    start: dict[str, Any] = {
        "station": str(station),
        "name": name,
        "broker": broker,
        "state": str(state.path),
        "command": ["operando", *sys.argv[1:]],  # the report tells how to do it again
    }
    if args.bench:
        start["seeds"] = {"bench": args.seed}
    write_text(run_dir / "start.json", json.dumps(start))
    if args.service:
        _become_supervisor(command, run_dir, state)
    return _supervise(command, run_dir, state, early, as_json=args.json)


def resume(args: argparse.Namespace) -> int:
    """``operando resume``: go on with a run that did not end."""
    if (args.run_dir is None) != args.interrupted:
        print("either the folder of a run or --interrupted is needed", file=sys.stderr)
        return EXIT_FILES
    found = args.run_dir
    if args.interrupted:
        try:
            found = interrupted_run(StateDir.of(args.station_name, args.state))
        except JournalError as error:
            print(error, file=sys.stderr)
            return EXIT_INSTRUMENT
    if found is None:
        Notifier().send("READY=1", "STATUS=no run was interrupted")  # a unit of type notify must be told
        print("no run of this station was interrupted: there is nothing to go on with")
        return 0
    run_dir: Path = found.absolute()
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
    early = note_stops()
    command = ["--experiment", str(run_dir / "experiment.toml"), "--name", told["name"]]
    command += ["--station", str(station), "--broker", told["broker"], "--resume"]
    command += _trace_arguments(args)
    if args.service:
        _become_supervisor(command, run_dir, state)
    return _supervise(command, run_dir, state, early, as_json=args.json)


def bench(args: argparse.Namespace) -> int:
    """``operando bench``: the virtual bench in the foreground, until Ctrl-C."""
    command = [sys.executable, "-m", "hil_tests.bench", *_bench_arguments(args, args.dir, args.scenario)]
    if args.replay_trace is not None:
        command = [sys.executable, "-m", "hil_tests.replay_trace", str(args.replay_trace)]
        command += ["--dir", str(args.dir.absolute())]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        if process.stdin is not None and _is_owned():
            threading.Thread(target=_ends_with, args=(process.stdin,), daemon=True).start()
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            return process.wait()


def _is_owned() -> bool:
    """Return whether standard input is a pipe: of a program, which takes its bench with it."""
    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # there is none
        return False


def _ends_with(bench: IO[bytes]) -> None:
    """End the bench when our own standard input closes."""
    with open(0, "rb", buffering=0, closefd=False) as owner:
        while owner.read(4096):
            pass
    bench.close()


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
    for choice in args.chosen:
        arguments += ["--with", choice]
    return arguments


def _trace_arguments(args: argparse.Namespace) -> list[str]:
    return ["--trace-wire", str(args.trace_wire.absolute())] if args.trace_wire is not None else []


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


def interrupted_run(state: StateDir) -> Path | None:
    """Return the folder of the latest run of a station that began and did not end, None if there is none.

    A run whose folder is gone cannot be gone on with. Raises JournalError for a journal that cannot be read.
    """
    from controller.journal_read import JournalReader

    if not state.journal.is_file():
        return None
    with JournalReader.open(state.journal) as journal:
        folders = [Path(row.directory) for row in journal.open_runs()]
    there = [folder for folder in folders if (folder / "start.json").is_file()]
    return there[-1] if there else None


def _become_supervisor(command: Sequence[str], run_dir: Path, state: StateDir) -> NoReturn:
    """Be the supervisor from here on: a service manager knows one process, and that is who it must be."""
    (run_dir / "logs").mkdir(exist_ok=True)
    full = [sys.executable, "-m", "controller.supervise", *command]
    os.execv(sys.executable, [*full, "--state", str(state.path), "--run-dir", str(run_dir)])  # noqa: S606


def _supervise(
    command: Sequence[str], run_dir: Path, state: StateDir, early: Sequence[str], *, as_json: bool
) -> int:
    (run_dir / "logs").mkdir(exist_ok=True)
    full = [sys.executable, "-m", "controller.supervise", *command]
    full += ["--state", str(state.path), "--run-dir", str(run_dir)]
    with (run_dir / "logs" / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            full, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    code = follow_run(process, run_dir, state, early, as_json=as_json)
    if code < 0:
        code = orphaned(state, run_dir, signal.Signals(-code).name)
    resumed = "--resume" in command
    if code == EXIT_ABORTED and not resumed and not (run_dir / "logs" / "control.log").is_file():
        print("aborted before anything was begun: nothing was written", file=sys.stderr)
        _remove(run_dir)
        return code
    if code == EXIT_FILES or not (run_dir / "summary.json").is_file():
        for name in ("supervisor.log", "control.log"):
            path = run_dir / "logs" / name
            sys.stderr.write(path.read_text() if path.is_file() else "")
    if code == EXIT_FILES and not resumed:
        _remove(run_dir)  # a wrong file leaves nothing behind
        return code
    with contextlib.suppress(KeyboardInterrupt):  # the run has ended: its code is what counts
        module("controller.offline.show", [str(run_dir), *(["--json"] if as_json else [])])
    return code


def _remove(run_dir: Path) -> None:
    shutil.rmtree(run_dir)
    with contextlib.suppress(OSError):
        run_dir.parent.rmdir()  # only if it is empty
