"""The Amptek twin on RS-232, driven by our driver: list mode and spectra over a pseudo-terminal."""

import asyncio
import contextlib

import numpy as np
import pytest

from drivers.amptek_dp5 import AmptekDp5
from drivers.ports import open_line
from hil_tests.sim.amptek_serial import AmptekSerialTwin
from hil_tests.sim.clock import LabClock
from hil_tests.test_twin_amptek import Script

SETTINGS = {"detector": "sdd", "channels": 8192, "list_clock_s": 1e-6}


@contextlib.asynccontextmanager
async def twin_on_a_line(script, speed=20.0):
    clock = LabClock(speed=speed)
    twin = AmptekSerialTwin(script, clock, {"full_scale_kev": 20.48, "channels": 8192})
    port = await twin.start()
    line = open_line("pixe", {"kind": "serial", "port": port, "baud": 115_200})
    try:
        yield twin, AmptekDp5(line, name="pixe", clock=clock, settings=SETTINGS)
    finally:
        await line.close()
        await twin.stop()


async def test_list_and_spectrum_hold_the_same_events():
    script = Script()
    script.time_s = list(np.arange(1.0, 400.0, 0.05))
    script.kev = [5.0 + 0.001 * n for n in range(len(script.time_s))]
    async with twin_on_a_line(script) as (twin, driver):
        notes = await driver.prepare()
        assert any("carries 2880 list words" in note for note in notes)
        await driver.start()
        while (await driver.status()).slow_counts < 50:
            await asyncio.sleep(0.01)
        await driver.stop()
        words = b""
        while chunk := (await driver.read_words()).words:
            words += chunk
        counts, status = await driver.spectrum()
        listed = [word for word in np.frombuffer(words, ">u4") if not word >> 31]
        assert sum(counts) == status.slow_counts == len(listed) >= 50
        heights = np.bincount([int(word) >> 16 & 0x3FFF for word in listed], minlength=8192)
        assert heights.tolist() == counts
        assert twin.counters()["lost_bytes"] == 0


async def test_a_whole_spectrum_takes_the_time_of_its_bytes():
    async with twin_on_a_line(Script()) as (twin, driver):
        began_s = twin._clock.now_s()
        counts, _ = await driver.spectrum()
        assert len(counts) == 8192
        assert 2.1 < twin._clock.now_s() - began_s < 12.0  # 24 648 bytes at 115 200 baud are 2.14 s


@pytest.mark.parametrize("kind", ["flipped", "doubled", "noise"])
async def test_damaged_replies_cost_a_repetition(kind):
    async with twin_on_a_line(Script()) as (twin, driver):
        before = (await driver.identify()).serial
        twin.inject({"kind": kind, "hex": "00 11"})
        assert (await driver.identify()).serial == before
