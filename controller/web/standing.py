"""``operando web``: the live page as a process of its own, which stays from run to run.

It reads like every other page and commands nothing. With a broker of the station's own it follows that; the
embedded one ends with its run, so the journal is followed instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from controller.config import ConfigErrors, load_station
from controller.config.web import Web
from controller.files_given import refused
from controller.paths import StateDir
from controller.web import address
from controller.web.__main__ import Page, PortBusy, modest, told_to_end
from controller.web.access import AccessError

if TYPE_CHECKING:
    from controller.config import Station

AGAIN_S = 2.0  # between two attempts at a port that the page of a run still has


def main(args: argparse.Namespace) -> int:
    """``operando web STATION``: serve until told to end. Exit code 2: it cannot be served like this."""
    try:
        station = load_station(args.station)
    except ConfigErrors as error:
        return refused(error)
    name = station.station.name
    state = StateDir.of(name, args.state)
    if already := address.standing(state.path):
        print(f"the page of station {name} is on {already} already", file=sys.stderr)
        return 2
    modest()
    return asyncio.run(_serve(args, station, state))


async def _serve(args: argparse.Namespace, station: Station, state: StateDir) -> int:
    """Serve; wait while the page of a run that was begun before has the port."""
    end, told = told_to_end(), False
    while not end.is_set():
        try:
            await _page(args, station, state).run(end)
        except PortBusy as error:
            of_a_run = address.page_address(state)
            if of_a_run is None:
                print(error, file=sys.stderr)
                return 2
            if not told:
                print(f"the run that is on has its page on {of_a_run}: this one follows when it ends")
                told = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), AGAIN_S)
        except AccessError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


def _page(args: argparse.Namespace, station: Station, state: StateDir) -> Page:
    """Return the page of a station; without ``[web]`` on this machine only. Raises AccessError."""
    own = station.broker.kind == "external"
    broker = station.broker.model_dump_json() if own else "none"
    beside = args.station.absolute().parent
    name = station.station.name
    return Page(station.web or Web(), name, broker, state.path, None, beside, standing=True)
