"""``python -m controller.notices``: the process that tells people; the supervisor starts it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from controller.config import ConfigErrors, load_station
from controller.notices.keep import Busy, Keeper
from controller.notices.watcher import LINGER_S, Watcher, hand_over
from controller.paths import StateDir

ORDERED_S = 2.0  # a supervisor that ends in order sends SIGTERM right after it has closed our input
EXIT_FILES, EXIT_BUSY = 2, 3


def say(text: str) -> None:
    """Write a line into the log of this process."""
    with contextlib.suppress(OSError):
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


async def _watch(watcher: Watcher, arguments: Sequence[str], keeper: Keeper) -> None:
    """Look on until the supervisor ends us, or is no more."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    gone = asyncio.Event()

    def heard() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            gone.set()

    with contextlib.suppress(PermissionError, OSError):  # a file or nothing at all as input
        loop.add_reader(0, heard)
    work = asyncio.create_task(watcher.run())
    waits = [asyncio.create_task(told.wait()), asyncio.create_task(gone.wait())]
    await asyncio.wait({work, *waits}, return_when=asyncio.FIRST_COMPLETED)
    if not told.is_set() and not work.done():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORDERED_S):
                await told.wait()
    ordered = told.is_set()
    for task in (work, *waits):
        task.cancel()
    results = await asyncio.gather(work, *waits, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]
    if ordered:
        await watcher.last_words()
        if watcher.waiting:
            keeper.unlock()
            hand_over(arguments)
        return
    if not watcher.ended:
        text = "It went without a word. Control then makes everything safe and ends: look at the station."
        watcher.tell([watcher.of_host("the supervisor is gone", text)])
    await watcher.last_words()
    await watcher.linger()


async def _linger(watcher: Watcher) -> None:
    """Deliver what waits; a new run of the station ends this."""
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(watcher.linger(LINGER_S))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    await asyncio.gather(work, return_exceptions=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m controller.notices``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="controller.notices", description=__doc__)
    parser.add_argument("--station", type=Path, required=True, help="the station file")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--linger", action="store_true", help="only deliver what waits, then end")
    args = parser.parse_args(arguments)
    try:
        station = load_station(args.station)
    except ConfigErrors as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    if station.notify is None:
        return 0
    keeper = Keeper(args.state)
    try:
        keeper.lock()
    except (Busy, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_BUSY
    watcher = Watcher(station.notify, station.name, StateDir(args.state), args.run_dir, keeper, say)
    if args.linger:
        asyncio.run(_linger(watcher))
    else:
        asyncio.run(_watch(watcher, [one for one in arguments if one != "--linger"], keeper))
    return 0


if __name__ == "__main__":
    sys.exit(main())
