"""``operando doctor``: looks at this machine, and tells in a table what is good, worth a look, or wrong."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from controller import scheduling
from controller.config.instruments.hexitec import Hexitec
from controller.doctor import board, disk, ports, software
from controller.doctor.finding import Finding, good, look
from controller.doctor.machine import Machine, clock_state, lateness_s, sync_times

if TYPE_CHECKING:
    from controller.config import Station

EXIT_GOOD, EXIT_FILES, EXIT_WRONG = 0, 2, 3
RECEIVE_BUFFER_BYTES = 4 << 20  # what a burst of two detectors takes; one asks for a quarter of it
MARKS = {"good": "[green]✓ good[/]", "look": "[yellow]● look[/]", "wrong": "[bold red]✗ wrong[/]"}
Step = Callable[[], Iterator[Finding]]


def _cameras(station: Station | None) -> str:
    """Return the names of cameras whose frames need the whole receive buffer."""
    devices = station.devices.items() if station is not None else ()
    fast = [name for name, table in devices if isinstance(table, Hexitec) and table.is_fast]
    return " and ".join(fast)


def examine(
    machine: Machine, station: Station | None, state: Path, runs: Path, *, loop_s: float = 2.0
) -> Iterator[Finding]:
    """Yield what is found, one after the other; a check that fails itself is told and ends no other.

    Args:
        machine: whose files are read; rights, time and lateness are always those of this process.
        station: whose ports are looked at.
        state: folder of the journal.
        runs: folder of the runs.
        loop_s: for how long lateness is measured.
    """
    steps: tuple[Step, ...] = (
        lambda: iter([board.system_time(clock_state(), bool(machine.names("sys/class/rtc")))]),
        lambda: _disks(machine, state, runs),
        lambda: iter([board.watchdog(machine)]),
        lambda: _ports(machine, station),
        lambda: iter(
            [
                board.receive_buffer(
                    machine.number("proc/sys/net/core/rmem_max"),
                    RECEIVE_BUFFER_BYTES,
                    cameras=_cameras(station),
                )
            ]
        ),
        lambda: iter([board.memory(*machine.memory_bytes())]),
        lambda: board.processor(machine, len(os.sched_getaffinity(0))),
        lambda: iter([scheduling_class(*scheduling.rights())]),
        lambda: iter([board.descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))]),
        lambda: iter([board.lateness(*lateness_s(loop_s))]),
        _software,
    )
    for step in steps:
        try:
            yield from step()
        except Exception as error:
            yield look("doctor", f"a check failed: {type(error).__name__}: {error}", "tell us")


def _disks(machine: Machine, state: Path, runs: Path) -> Iterator[Finding]:
    """Look at both folders, once if they are on one disk."""
    mounts = {machine.mount_of(_existing(folder)) for folder in (state, runs)}
    if len(mounts) == 1:
        yield from _disk(machine, "disk", state)
    else:
        yield from _disk(machine, "state", state)
        yield from _disk(machine, "runs", runs)


def _disk(machine: Machine, name: str, folder: Path) -> Iterator[Finding]:
    there = _existing(folder)
    mount = machine.mount_of(there)
    device = machine.disk_of(mount) if mount is not None else None
    yield from disk.file_system(name, mount)
    usage = shutil.disk_usage(there)
    yield disk.space(name, usage.free, usage.total)
    try:
        syncs = sync_times(there)
    except OSError:
        syncs = None
    yield disk.sync(name, syncs, device)
    yield from disk.wear(name, device)


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that is there already."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _ports(machine: Machine, station: Station | None) -> Iterator[Finding]:
    if station is None:
        return
    serial = {name: line.port for name, line in station.lines.items() if line.kind == "serial"}
    found = {name: ports.look_at(machine, path) for name, path in serial.items()}
    busy = ports.modem_programs(machine)
    yield from (ports.judge(name, port, busy) for name, port in found.items())
    yield from ports.console(machine, found)


def scheduling_class(realtime_limit: int, nice_limit: int, capable: bool) -> Finding:
    """Judge what control may ask the kernel for."""
    check = "scheduling"
    kind = scheduling.may(realtime_limit, nice_limit, capable)
    if kind == "round robin":
        return good(check, "control may take a real-time class (round robin)")
    do = (
        "the units of operando init systemd grant it; for a login: '@dialout - rtprio 1' and "
        "'@dialout - nice -5' in /etc/security/limits.d/operando.conf"
    )
    if kind == "nice":
        return look(check, "control may take nice -5, but no real-time class", do)
    return look(check, "control may only run as any other program", do)


def _software() -> Iterator[Finding]:
    yield software.python(sys.version_info[:3])
    yield software.sqlite(sqlite3.sqlite_version_info)
    yield from software.packages(metadata.requires("operando") or [], metadata.version)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code: 0, or 3 when something is wrong, 2 for a wrong station file."""
    from controller.config import ConfigErrors, load_station

    station = None
    if args.station is not None:
        try:
            station = load_station(args.station)
        except ConfigErrors as error:
            for problem in error.problems:
                print(problem.message, file=sys.stderr)
            return EXIT_FILES
    name = station.station.name if station is not None else "bench"
    state = args.state.absolute() if args.state is not None else _state_folder(name)
    findings = []
    for finding in _with_progress(examine(Machine(), station, state, args.out), shown=not args.json):
        findings.append(finding)
    if args.json:
        print(json.dumps({"ok": _ok(findings), "findings": [f.as_dict() for f in findings]}))
    else:
        show(findings)
    return EXIT_GOOD if _ok(findings) else EXIT_WRONG


def _state_folder(name: str) -> Path:
    """Return where the state of a station is, without making it."""
    from platformdirs import user_state_path

    return user_state_path("operando") / name


def _ok(findings: list[Finding]) -> bool:
    return all(finding.verdict != "wrong" for finding in findings)


def _with_progress(findings: Iterator[Finding], *, shown: bool) -> Iterator[Finding]:
    """Say what is being looked at, where somebody sits in front of it: it takes some seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield from findings
        return
    with console.status("looking at this machine ...") as status:
        for finding in findings:
            status.update(f"looking at this machine ... {finding.check}")
            yield finding


def show(findings: list[Finding]) -> None:
    """Print the table, and in one line what it comes to."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        title="this machine", title_justify="left", header_style="bold", pad_edge=False, box=SIMPLE_HEAD
    )
    table.add_column("", no_wrap=True, width=7)
    table.add_column("check", no_wrap=True)
    table.add_column("what is so, and what to do", overflow="fold")
    for finding in findings:
        text = _escaped(finding.what) + (f"\n[bold]→[/] {_escaped(finding.do)}" if finding.do else "")
        table.add_row(MARKS[finding.verdict], finding.check, text)
    console.print(table)
    number = {verdict: sum(f.verdict == verdict for f in findings) for verdict in MARKS}
    console.print(
        f"{number['good']} good, {number['look']} worth a look, {number['wrong']} wrong"
        + ("" if number["wrong"] else ": nothing here keeps an experiment from running"),
        highlight=False,
    )


def _escaped(text: str) -> str:
    """Return text that rich takes literally."""
    return text.replace("[", r"\[")
