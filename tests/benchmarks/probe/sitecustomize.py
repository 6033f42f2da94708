"""Writes down how late every periodic task of the control process was; nothing of the product changes.

Python imports a module of this name at its start. The system benchmark puts this folder on PYTHONPATH and
names a folder in OPERANDO_BENCHMARK_TICKS; without that, and in every other process, this does nothing.
"""

import atexit
import json
import os
import sys
import time
from array import array

FOLDER = os.environ.get("OPERANDO_BENCHMARK_TICKS")


def watch(folder):
    """Replace the iteration of Ticker by one that keeps (monotonic second, lateness) of every tick."""
    from controller.clock import Ticker

    begin, ticks = Ticker.__init__, Ticker.__aiter__
    kept = []

    def start(self, clock, period_s):
        begin(self, clock, period_s)
        owner = sys._getframe(1).f_code.co_qualname
        kept.append((owner, period_s, self, array("d"), array("d")))
        self._kept = kept[-1][3:]

    async def tick(self):
        at, late = self._kept
        async for dt in ticks(self):
            at.append(time.monotonic())
            late.append(self.late_s)
            yield dt

    def write():
        rows = [
            {
                "owner": owner,
                "period_s": period_s,
                "missed": ticker.missed,
                "at": list(at),
                "late_s": list(late),
            }
            for owner, period_s, ticker, at, late in kept
        ]
        with open(os.path.join(folder, f"ticks-{os.getpid()}.json"), "w") as file:
            json.dump(rows, file)

    Ticker.__init__, Ticker.__aiter__ = start, tick
    atexit.register(write)


if FOLDER and "controller.host" in sys.orig_argv:
    watch(FOLDER)
