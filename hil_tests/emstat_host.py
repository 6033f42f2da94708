"""A plain host for the potentiostat's twin, and a script of the protocol sheet."""

import asyncio
import re
from contextlib import asynccontextmanager

import serial

from hil_tests.sim.clock import LabClock
from hil_tests.sim.palmsens_emstat4 import EmStatTwin
from hil_tests.sim.physics.cell import Cell, CellParameters

WARM_K = 333.15

# The CC-CV of the protocol sheet, its own text (a grammar example, not a safe script), for a small cell.
SHEET_CCCV = """
var p
var c
var t
set_pgstat_chan 0
set_pgstat_mode 6
set_max_bandwidth 40
set_range ab 5
set_range db 20u
set_i 13u
cell_on
timer_start
meas_loop_cp p c 13u 10 3600
  timer_get t
  pck_start
    pck_add t
    pck_add p
    pck_add c
  pck_end
  if p >= 4000m
    breakloop
  endif
endloop
set_pgstat_mode 2
set_range ba 10m
set_e 4000m
cell_on
meas_loop_ca p c 4000m 10 7200
  timer_get t
  pck_start
    pck_add t
    pck_add p
    pck_add c
  pck_end
  if c <= 2u
    breakloop
  endif
endloop
on_finished:
cell_off
"""


class Host:
    """A host with a terminal: sends text, reads lines."""

    def __init__(self, port):
        self.port = serial.Serial(port, 921600, timeout=2.0)

    async def send(self, text):
        """Send text as it is."""
        await asyncio.to_thread(self.port.write, text.encode("ascii"))

    async def line(self):
        """Return the next line without its end."""
        raw = await asyncio.to_thread(self.port.readline)
        if not raw.endswith(b"\n"):
            raise TimeoutError(f"no line came, only {raw!r}")
        return raw[:-1].decode("ascii")

    async def ask(self, text):
        """Send a command and return the line that answers it."""
        await self.send(text + "\n")
        return await self.line()

    async def lines_to_end(self):
        """Lines up to the empty one, or up to an error line."""
        found = []
        while (line := await self.line()) != "":
            found.append(line)
            if re.match(r".?![0-9A-F]{4}", line):
                break
        return found

    async def run(self, script):
        """Run a script whose lines may be indented; every line but the last is sent as it is."""
        await self.send("e\n" + script.strip("\n") + "\n\n")
        return await self.lines_to_end()


def value(text):
    """Decode one variable, independently of the twin."""
    if text[2:10] == "     nan":
        return float("nan")
    powers = dict(zip("afpnum kMGTPE", range(-18, 21, 3), strict=True))
    return (int(text[2:9], 16) - 2**27) * 10.0 ** powers.get(text[9], 0)


def packages(lines):
    """Return the values of the data packages among the lines, by variable type."""
    return [{part[:2]: value(part) for part in line[1:].split(";")} for line in lines if line[0] == "P"]


@asynccontextmanager
async def emstat_bench():
    """Give a function that makes a noiseless twin with its own cell, and a host; close both at the end."""
    made = []

    async def make(*, speed=200.0, kelvin=WARM_K, cell=None, **settings):
        twin = EmStatTwin(
            Cell(cell or CellParameters(start_x=0.8), temperature_k=lambda: kelvin),
            LabClock(speed=speed),
            {"voltage_noise_v": 0.0, "current_noise": 0.0, **settings},
        )
        host = Host(await twin.start())
        made.append((twin, host))
        return twin, host

    try:
        yield make
    finally:
        for twin, host in made:
            host.port.close()
            await twin.stop()
