"""Every driver against instruments that mean harm: bounded time, bounded memory, and only its own errors."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_labjack import SETTINGS as T7

from drivers import modbus
from drivers.clock import RealClock
from drivers.errors import BadReply, DriverError
from drivers.ports import open_line
from drivers.registry import driver_class

sys.path.insert(0, str(Path(__file__).parent))
from hostile_ends import ENDS

CONFIRMED = {
    "setting": "latching",
    "safe_output": 0.0,
    "confirmed_by": "a test",
    "confirmed_on": "2026-01-01",
}
DRIVERS = {
    "eurotherm": ("eurotherm_3200", {"unit_id": 1, "period_s": 0.25, "sensor_break": CONFIRMED}, ("read",)),
    "emstat": ("palmsens_emstat4", {"model": "es4_hr", "period_s": 1.0}, ("read_ocv",)),
    "t7": ("labjack_t7", T7, ("read", "blank")),
    "amptek": (
        "amptek_dp5",
        {"detector": "sdd", "channels": 2048, "list_clock_s": 1e-6, "fifo_words": 8192, "period_s": 0.05},
        ("read_words",),
    ),
}
LONGEST_S = 12.0  # for anything that a driver is asked; alone it is 6.2, the potentiostat told twice to stop
GROWTH_MB = 48.0  # of all twenty together
STALL_CPU_S = 0.2  # that nobody else is served; the guard looks ten times a second


@pytest.fixture
def places():
    with subprocess.Popen(
        [sys.executable, Path(__file__).parent / "hostile_ends.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def rss_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def watch(turns):
    """Measure the processor time between two turns of the loop, in which nobody else is served."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - began)


async def meet(name, place):
    """Ask everything of one driver; return what took how long and how it ended."""
    module, settings, questions = DRIVERS[name.partition(":")[0]]
    line = open_line("x", place)
    await line.open()
    device = driver_class(module)(line, name="it", clock=RealClock(), settings=settings)
    told = {}
    for question in ("identify", *questions, "off"):
        began = time.monotonic()
        try:
            async with asyncio.timeout(2 * LONGEST_S):
                await getattr(device, question)()
            outcome = "done"
        except DriverError as error:
            outcome = f"{type(error).__name__}: {error}"
        told[question] = (time.monotonic() - began, outcome)
    await device.close()
    await line.close()
    return told


async def test_every_driver_survives_hostile_instruments(places):
    """All at once: what one of them sends must not keep another, or the guard, from its turn."""
    names = list(ENDS)
    assert {name.partition(":")[0] for name in names} == set(DRIVERS)
    before = rss_mb()
    turns: list[float] = []
    watching = asyncio.ensure_future(watch(turns))
    met = await asyncio.gather(*(meet(name, places[name]) for name in names))
    watching.cancel()
    assert rss_mb() - before < GROWTH_MB
    assert max(turns) < STALL_CPU_S
    for name, told in zip(names, met, strict=True):
        assert max(len(outcome) for _, outcome in told.values()) < 2000, "a message as long as what was sent"
        assert told["identify"][1] != "done", f"{name} passes for the instrument"
        slow = {question: seconds for question, (seconds, _) in told.items() if seconds > LONGEST_S}
        assert not slow, (name, slow)


def test_a_frame_of_unknown_length_is_none_beyond_256_bytes():
    """Looking for its checksum in all that comes took a second of processor time for 4 kB."""
    request = modbus.rtu_request(modbus.read_request(5, 2), 1)
    assert modbus.parse_rtu(b"\xff\x00" * 127, request) is None
    began = time.thread_time()
    with pytest.raises(BadReply, match="checksum"):
        modbus.parse_rtu(b"\xff\x00" * 4096, request)
    assert time.thread_time() - began < 0.2
