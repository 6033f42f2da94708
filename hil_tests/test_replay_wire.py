"""A measured gamma spectrum through the HPGe twin, across the wire, into the same reduction."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from controller.offline.gamma import GammaOptions, reduce_recording
from drivers.amptek_dp5 import AmptekDp5
from drivers.amptek_listmode import ListModeDecoder
from drivers.clock import RealClock
from drivers.files import any_file
from drivers.ports import open_line
from hil_tests.sim.amptek_dp5 import AmptekTwin
from hil_tests.sim.clock import ManualClock
from hil_tests.sim.replay import Replay, read_spe

SOIL = Path(__file__).parent.parent / "tests" / "data" / "gamma" / "soil_be7_ucb009.Spe"
SETTINGS = {"detector": "hpge", "channels": 8192, "list_clock_s": 1e-6, "lifetime_s": 200_000.0}
STEP_S = 150.0  # lab seconds between two reads: events and time tags fill the FIFO to about a half


async def test_the_be7_spectrum_crosses_the_wire_unchanged_and_reduces_to_the_same_result() -> None:
    recording = read_spe(SOIL)
    clock = ManualClock()
    replay = Replay(recording, np.random.default_rng(7), start_s=10.0)
    twin = AmptekTwin(replay, clock, {"detector": "hpge", "channels": 8192})
    host, port = (await twin.start()).split(":")
    line = open_line("pige", {"kind": "udp", "host": host, "port": int(port)})
    detector = AmptekDp5(line, name="pige", clock=RealClock(), settings=SETTINGS)
    await line.open()
    try:
        await detector.identify()
        await detector.prepare()
        await detector.clear()
        await detector.start()
        decoder = ListModeDecoder()
        counts = np.zeros(8192, dtype=np.int64)
        while replay.left:
            await clock.advance(STEP_S)
            while words := await _words(detector):
                counts += np.bincount(decoder.feed(words).channel, minlength=8192)
        status = await detector.status()
    finally:
        await detector.off()
        await line.close()
        await twin.stop()

    [spectrum] = any_file.read(SOIL)
    assert counts.tolist() == spectrum.counts.tolist()
    assert status.slow_counts == counts.sum() == 1_002_737  # the data's own README
    assert 1.0 - status.slow_counts / status.fast_counts > 0.0

    crossed = dataclasses.replace(spectrum, counts=counts)
    direct = reduce_recording([spectrum], GammaOptions())
    assert reduce_recording([crossed], GammaOptions()).data == direct.data
    assert direct.data["be7"]["detected"] is True


async def _words(detector: AmptekDp5) -> bytes:
    chunk = await detector.read_words()
    assert not chunk.overflow
    return chunk.words
