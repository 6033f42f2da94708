"""``operando off``: every output off while no host runs, by the supervisor's own off path.

For the start of a board, for the end of a unit however it ended, and for a person who does not trust what was
left behind. A station whose host runs is left alone: that is what ``operando safe`` is for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any

from controller import offpath
from controller.config import ConfigErrors, Station, load_station
from controller.files_given import refused
from controller.local import LocalError, ask
from controller.paths import StateDir, StationBusy, StationLock

EXIT_DONE, EXIT_INSTRUMENT = 0, 3
ORPHAN_S = 15.0  # what a control without its supervisor needs to make everything safe and to end
AGAIN_S = 1.0


def main(args: argparse.Namespace) -> int:
    """Run the command; return 0 when every output confirmed that it is off, 3 when not."""
    try:
        station = load_station(args.station)
    except ConfigErrors as error:
        return refused(error)
    try:
        state = StateDir.of(station.station.name, args.state)
        lock = StationLock(state)
        lock.acquire({"pid": os.getpid(), "since": time.time(), "doing": "operando off"})
    except StationBusy as error:
        print(f"{error}; operando safe makes a running one safe", file=sys.stderr)
        return EXIT_INSTRUMENT
    except OSError as error:
        print(f"the state folder of the station cannot be used: {error}", file=sys.stderr)
        return EXIT_INSTRUMENT
    try:
        _let_control_end(state)
        results = asyncio.run(_until_off(station, args.wait))
        _note(state, results)
    finally:
        lock.release()
    if args.json:
        print(json.dumps({"ok": _all_off(results), "results": results}))
    else:
        for result in results:
            so = "off, confirmed" if result["confirmed"] else f"NOT CONFIRMED: {result['error']}"
            print(f"{result['output']:<8} {so}  ({result['seconds'] * 1e3:.0f} ms)")
    return EXIT_DONE if _all_off(results) else EXIT_INSTRUMENT


def _let_control_end(state: StateDir) -> None:
    """Wait for a control that has lost its supervisor: it makes everything safe and frees the lines."""
    deadline = time.monotonic() + ORPHAN_S
    while time.monotonic() < deadline:
        try:
            ask(state.socket("control"), {"do": "status"}, timeout_s=1.0)
        except LocalError:
            return
        time.sleep(0.1)


async def _until_off(station: Station, wait_s: float) -> list[dict[str, Any]]:
    """Drive off, again and again until all is confirmed or the time is up: ports come up late at a start."""
    deadline = time.monotonic() + wait_s
    while True:
        results = await offpath.drive_off(station)
        if _all_off(results) or time.monotonic() >= deadline:
            return results
        await asyncio.sleep(AGAIN_S)


def _all_off(results: list[dict[str, Any]]) -> bool:
    return all(result["confirmed"] for result in results)


def _note(state: StateDir, results: list[dict[str, Any]]) -> None:
    """Leave word for the journal, where the next control reads it before anything else."""
    line = json.dumps({"t": time.time(), "what": "operando off", "results": results}, default=str)
    fd = os.open(state.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line.encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
