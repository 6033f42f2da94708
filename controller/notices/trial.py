"""``operando notify STATION``: a test message to everybody whom it names, and what became of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from controller.config import ConfigErrors, load_station
from controller.files_given import EXIT_FILES, refused
from controller.notices import post
from controller.notices.notice import Notice, letter
from controller.notices.watcher import lanes

if TYPE_CHECKING:
    from controller.config.notify import Notify

EXIT_INSTRUMENT = 3


def main(args: argparse.Namespace) -> int:
    """Send a test message each way; 0 when every one got through."""
    try:
        station = load_station(args.station)
    except ConfigErrors as error:
        return refused(error)
    if station.notify is None:
        print(f"{args.station} has no [notify]: nobody is told of anything", file=sys.stderr)
        return EXIT_FILES
    results = asyncio.run(_try(station.notify, station.name))
    if args.json:
        print(json.dumps({"ok": not any(results.values()), "results": results}))
    else:
        for name, why in results.items():
            print(f"{name:<28} {why or 'sent'}")
    return EXIT_INSTRUMENT if any(results.values()) else 0


async def _try(table: Notify, station: str) -> dict[str, str]:
    """Return by receiver why it was not reached; empty if it was."""
    now = time.time()
    text = "If you can read this, trips, ends and questions of this station reach you."
    message = letter(station, [Notice(f"test:{now!r}", "test", False, "a test", text, now)])

    async def one(name: str, work: object) -> tuple[str, str]:
        try:
            await work  # type: ignore[misc]
        except post.PostError as error:
            return name, str(error)
        return name, ""

    ways = [(lane.name, lane.post(message)) for lane in lanes(table, station, lambda: None, print)]
    if table.heartbeat is not None:
        ways.append(("heartbeat", post.beat(table.heartbeat)))
    return dict(await asyncio.gather(*(one(name, work) for name, work in ways)))
