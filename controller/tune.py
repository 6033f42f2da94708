"""``operando tune``: identify the heater of a station, and find the gains of a loop in the host.

The experiment runs in a short host of its own (``tune_host``); what it measured goes to a file before
anything is computed from it, and the computing is another process (``controller.offline.identify``), when
everything is off already.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

from controller.apart import module
from controller.autotune import SWING_HIGH_K, SWING_LOW_K
from controller.clock import BenchError, bench_clock
from controller.config import ConfigErrors
from controller.config.quantities import QuantityError, parse
from controller.files_given import EXIT_FILES, load_files, refused
from controller.journal import AsyncJournal, JournalError
from controller.local import LocalError, ask
from controller.offline.files_out import write_json
from controller.paths import StateDir, StationBusy, StationLock
from controller.tune_host import Record, Stopped, TuneHost, Wanted
from drivers.clock import RealClock
from drivers.errors import DriverError

if TYPE_CHECKING:
    from controller.config import Experiment, Station
    from drivers.clock import Clock

EXIT_INSTRUMENT = 3
ROOM_LOW_K, ROOM_HIGH_K = 253.15, 323.15  # -20 to 50 degC: beyond, a unit was mistyped
ROOM_WITHIN = "0.5 K"


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    try:
        station, experiment = load_files(args.station, args.experiment)
        wanted = _wanted(args)
    except ConfigErrors as error:
        return refused(error)
    except (QuantityError, ValueError) as error:
        print(f"operando tune: {error}", file=sys.stderr)
        return EXIT_FILES
    state = StateDir.of(station.station.name, args.state)
    lock = StationLock(state)
    try:
        lock.acquire({"pid": os.getpid(), "since": time.time(), "doing": "operando tune"})
    except (StationBusy, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_INSTRUMENT
    try:
        if _control_lives(state):
            print("a host of this station still runs without its supervisor", file=sys.stderr)
            return EXIT_INSTRUMENT
        record = asyncio.run(_experiment(station, experiment, state, wanted))
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return stopped.code
    except (DriverError, BenchError, JournalError, TimeoutError) as error:
        print(f"stopped: {error or 'it took too long'}", file=sys.stderr)
        return EXIT_INSTRUMENT
    finally:
        lock.release()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "record.json"
    write_json(path, record.as_dict())
    return module(
        "controller.offline.identify", [str(path), "--out", str(args.out), *(["--json"] if args.json else [])]
    )


def _wanted(args: argparse.Namespace) -> Wanted:
    """Return what the words on the command line ask for, in SI.

    Raises:
        ValueError, QuantityError: one of them is no quantity of its kind.
    """
    swing_k = parse(args.swing, "delta K")
    if not SWING_LOW_K <= swing_k <= SWING_HIGH_K:
        raise ValueError(f"a swing of {swing_k:g} K is not from {SWING_LOW_K:g} to {SWING_HIGH_K:g} K")
    return Wanted(
        at_k=parse(args.at, "K"), swing_k=swing_k,
        cap_w=None if args.power_cap is None else parse(args.power_cap, "W"),
        full_w=None if args.power is None else parse(args.power, "W"),
        room_k=_room(args.room, args.room_within),
    )  # fmt: skip


def _room(room: str | None, within: str | None) -> tuple[float, float] | None:
    """Return what is known of the room: refused now, not when the heater has run for an hour."""
    if room is None:
        if within is not None:
            raise ValueError("--room-within is the error of --room, which is missing")
        return None
    room_k, within_k = parse(room, "K"), parse(within or ROOM_WITHIN, "delta K")
    if not ROOM_LOW_K <= room_k <= ROOM_HIGH_K:
        raise ValueError(
            f"--room {room_k:g} K is not from {ROOM_LOW_K:g} to {ROOM_HIGH_K:g} K: no room is so cold or warm"
        )
    if within_k <= 0.0:
        raise ValueError("--room-within: what was measured has an error above zero")
    return room_k, within_k


def _control_lives(state: StateDir) -> bool:
    try:
        ask(state.socket("control"), {"do": "status"}, timeout_s=1.0)
    except LocalError:
        return False
    return True


async def _experiment(
    station: Station, experiment: Experiment | None, state: StateDir, wanted: Wanted
) -> Record:
    clock: Clock = RealClock()
    if station.bench is not None:
        clock = await bench_clock(station.bench.model_dump())
    journal = await AsyncJournal.open(state.journal, station=station.station.name, clock=clock.now_s)
    try:
        await journal.boot("tune")
        host = TuneHost(station, experiment, clock, state, journal, wanted, _say)
        body = {
            "at_k": wanted.at_k,
            "swing_k": wanted.swing_k,
            "cap_w": wanted.cap_w,
            "room_k": wanted.room_k,
        }
        await journal.record("tune", "host", {"state": "begun", **body})
        outcome = "failed"
        try:
            record = await host.run()
            outcome = "done"
        finally:
            results = [one.as_dict() for one in host.results]
            await journal.record("tune", "host", {"state": "ended", "outcome": outcome, "off": results})
        return record
    finally:
        await journal.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
