"""Follow a run from the terminal that started it: show it, carry Ctrl-C to it, wait until it has ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from controller.apart import module
from controller.finishing import FINISH_S, missing
from controller.local import LocalError, ask, watch
from controller.paths import StateDir
from controller.progress import Steps
from controller.verdict import EXIT_INSTRUMENT

START_S = 60.0
LISTENS_S = 15.0  # a supervisor that has just been started may take this long to answer
ANSWER_S = 1.0
SILENT_S = 20.0  # a supervisor that is silent for so long is frozen; the slowest disk lets it answer before
ORPHAN_S = 15.0  # what a control without its supervisor needs to make everything safe and to end


def note_stops() -> list[str]:
    """From here on something would be left behind: note Ctrl-C and SIGTERM until there is someone to tell."""
    early: list[str] = []
    _on_stop(lambda number, _: early.append(signal.Signals(number).name))
    return early


def follow_run(
    process: subprocess.Popen[bytes], run_dir: Path, state: StateDir, early: Sequence[str], *, as_json: bool
) -> int:
    """Show the run until its supervisor has ended; Ctrl-C and SIGTERM end the run, however often they come.

    A terminal that hangs up takes only this view with it: the run goes on, and ``operando watch`` shows it.
    """
    watch_file: Path | None = run_dir / "watch.txt"
    asked, armed = "", False
    while True:
        try:
            if not armed:
                _on_stop(_stopped)
                armed = True
                asked = early[0] if early else ""
            if asked:
                told, asked = asked, ""
                _interrupt(state, process, told)
            if not as_json:
                _show(_events(state, process), watch_file)
                watch_file = None
            with Steps("control has ended: the results are written", 0):
                return ended(process, state)
        except KeyboardInterrupt as error:
            asked = str(error)


def ended(process: subprocess.Popen[bytes], state: StateDir) -> int:
    """Wait for the supervisor to end; one that lives and answers nobody is ended from here.

    Control has made everything safe by then, or the watchdog of the I/O box has: a frozen supervisor neither
    beats nor feeds. It holds the station's lock, so it must not stay.
    """
    heard = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(ANSWER_S)
        try:
            ask(state.socket("supervisor"), {"do": "status"}, timeout_s=ANSWER_S)
            heard = time.monotonic()
        except LocalError:
            if time.monotonic() - heard > SILENT_S:
                text = f"the supervisor has not answered for {SILENT_S:g} s: it is frozen, and is ended"
                print(text, file=sys.stderr)
                process.kill()
                return process.wait()


def orphaned(state: StateDir, run_dir: Path, how: str) -> int:
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
    module(
        "controller.offline.finish", [str(run_dir)], limit_s=FINISH_S, late=lambda: missing(run_dir, FINISH_S)
    )
    return EXIT_INSTRUMENT


# --- inside --------------------------------------------------------------------------------------------


def _events(state: StateDir, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the events of control as soon as it listens, until the supervisor has ended."""
    began = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(LocalError):
            heard = time.monotonic()
            for event in watch(state.socket("control"), timeout_s=1.0):
                if event is not None:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENT_S:
                    return  # frozen: its supervisor would have ended it, if that were not frozen, too
                yield event
            return
        if time.monotonic() - began > START_S:
            return
        time.sleep(0.1)
        yield None


def _show(events: Iterator[dict[str, Any] | None], watch_file: Path | None) -> None:
    """Show the run on the terminal; a terminal or pipe that is gone ends the view, not the run."""
    from rich.console import Console

    from controller.display import follow

    try:
        with Steps("starting the host", 0):
            first = next((event for event in events if event is not None), None)
        if first is not None:
            if watch_file is not None and watch_file.is_file():
                print(f"from elsewhere:\n  {watch_file.read_text().strip()}", flush=True)
            follow(itertools.chain([first], events), Console())
    except (OSError, SystemExit):  # rich makes a SystemExit of a broken pipe
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as this process lives


def _on_stop(handler: Callable[[int, Any], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell starts what is in the background
            signal.signal(number, handler)


def _stopped(number: int, _frame: Any) -> None:
    """SIGTERM is Ctrl-C by another program: it ends the run, not only this view of it."""
    raise KeyboardInterrupt("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


def _interrupt(state: StateDir, process: subprocess.Popen[bytes], what: str) -> None:
    """Ctrl-C: everything off and the run ended in order; when control does not take it, SIGTERM."""
    print("\naborting: everything off ...", file=sys.stderr)
    try:
        ask(state.socket("control"), {"do": "abort", "by": f"{what} of {os.environ.get('USER', 'a person')}"})
    except LocalError:
        _terminate(state, process)


def _terminate(state: StateDir, process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the supervisor as soon as it answers: before that it would just die of it."""
    deadline = time.monotonic() + LISTENS_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(LocalError):
            ask(state.socket("supervisor"), {"do": "status"}, timeout_s=1.0)
            break
        time.sleep(0.05)
    process.terminate()
