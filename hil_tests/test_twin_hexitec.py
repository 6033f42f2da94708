"""Camera, twin and acquire process together: what is sent is received or known to be lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.config.instruments.hexitec import Hexitec as Model
from drivers import hexitec as driver
from drivers.clock import RealClock
from drivers.errors import NoReply, Refused
from drivers.frame_ring import ring_path
from drivers.hexitec import Hexitec
from drivers.ports import open_line
from hil_tests.sim.hexitec import HexitecTwin
from hil_tests.sim.hexitec_stream import Stream
from hil_tests.sim.physics.compton import Geometry, Photons, s_of

ROOT = Path(__file__).parents[1]
FRAME_HZ = 400.0  # counting, not speed
PATIENCE_S = 60.0


class Table:
    """Twin, acquire process and driver, as a station would have them."""

    def __init__(self, twin: HexitecTwin, camera: Hexitec, process: asyncio.subprocess.Process) -> None:
        self.twin, self.camera, self.process = twin, camera, process

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not done():
                await asyncio.sleep(0.01)

    async def frames(self, n: int) -> None:
        await self.until(lambda: self.camera.counts()["frames"] >= n)

    async def stop(self) -> tuple[dict[str, int], dict[str, Any]]:
        await self.camera.stop()
        await self.until(lambda: self.twin.counters().get("running") is False)
        return self.camera.counts(), self.twin.counters()


def settings(port: int, **more: Any) -> dict[str, Any]:
    table = {
        "driver": "hexitec", "line": "x", "period": "1 s", "listen": {"host": "127.0.0.1", "port": port},
        "frame_rate": f"{FRAME_HZ:g} Hz", "bias": "-500 V", "settle": "1.5 s", "threshold": "3 keV",
        "energy": {"gain": "0.027 keV"}, "buffer": "5 s", **more,
    }  # fmt: skip
    return Model.model_validate(table).settings()


@contextlib.asynccontextmanager
async def a_table(**more: Any) -> AsyncIterator[Table]:
    twin = HexitecTwin({"frame_hz": FRAME_HZ, "pool_frames": 256})
    where = await twin.start()
    host, _, port = where.rpartition(":")
    found = settings(twin.frames_port, **more)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller.acquire", "--port", str(twin.frames_port), "--slots",
        str(found["ring_frames"]), cwd=ROOT, stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    line = open_line("compton", {"kind": "tcp", "host": host, "port": int(port)})
    await line.open()
    camera = Hexitec(line, name="compton", clock=RealClock(), settings=found)
    table = Table(twin, camera, process)
    try:
        await table.until(ring_path(twin.frames_port).exists)
        yield table
    finally:
        await camera.close()
        await line.close()
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await twin.stop()
        ring_path(twin.frames_port).unlink(missing_ok=True)


async def test_a_camera_from_hello_to_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identity, notes, bias, counting with every fault of the wire, and off: one camera, to save seconds."""
    async with a_table() as table:
        twin, camera = table.twin, table.camera
        identity = await camera.identify()
        assert (identity.model, identity.firmware) == ("HEXITEC 80 x 80", "1.2.7")
        assert any("no watchdog" in note for note in await camera.prepare())
        await camera.start()
        assert twin.counters()["bias_v"] < -490.0
        await table.frames(100)
        for kinds in (("lost", "doubled", "wrong_size"), ("swapped",), ("late",), ()):
            for kind in kinds:
                twin.inject({"kind": kind, "count": 3})
            await table.until(lambda kinds=kinds: all(  # type: ignore[misc]
                twin.counters().get(f"fault_{kind}") == 3 for kind in kinds
            ))  # fmt: skip
            await table.frames(camera.counts()["frames"] + 60)
        twin.inject({"kind": "skip", "count": 25})
        await table.until(lambda: twin.counters().get("fault_skip") == 25)
        await table.frames(camera.counts()["frames"] + 60)
        status = await camera.status()
        assert status.running
        assert status.lost >= 25
        counts, sent = await table.stop()
        assert counts["frames"] + counts["missing"] + counts["incomplete"] == sent["next_frame"]
        assert counts["missing"] >= 25
        assert counts["incomplete"] + counts["missing"] - 25 >= 6  # lost, late and wrong sizes cost frames
        assert (counts["doubled"], counts["bad"], counts["late"]) == (3, 3, 3)
        assert counts["reordered"] >= 3
        assert counts["packets"] == sent["packets"]
        await camera.off()
        assert not twin.counters()["sending"]
        assert not twin.counters()["running"]
        await table.until(lambda: twin.counters()["bias_v"] > -5.0)


async def test_silence_and_a_dead_acquire_process_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "QUIET_S", 0.3)
    async with a_table() as table:
        await table.camera.start()
        await table.frames(20)
        await table.camera.status()
        table.twin.inject({"kind": "silence", "wall_s": 1.5})
        seen: list[str] = []

        async def told(text: str) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not any(text in one for one in seen):
                    seen[:] = (await table.camera.status()).problems
                    await asyncio.sleep(0.05)

        await told("no frame for")
        frames = table.camera.counts()["frames"]
        await table.frames(frames + 20)  # it goes on by itself, and the gap is known
        assert table.camera.counts()["missing"] > 0
        table.process.kill()
        await told("acquire process is dead or frozen")
        with pytest.raises(NoReply, match="acquire process did not answer"):
            await table.camera.stop()


async def test_frames_of_a_bias_refresh_are_held() -> None:
    refresh = {"interval": "0.3 s", "time": "0.3 s"}
    async with a_table(refresh=refresh, settle="0.1 s", bias="-20 V") as table:  # near 0 the monitor agrees
        await table.camera.start()
        await table.until(lambda: table.camera.counts()["held"] > 50)
        await table.until(lambda: table.camera.counts()["frames"] - table.camera.counts()["held"] > 100)
        status = await table.camera.status()
        counts, sent = await table.stop()
        assert counts["frames"] + counts["missing"] + counts["incomplete"] == sent["next_frame"]
        assert status.held > 50
        assert status.live_s == pytest.approx(status.frames / FRAME_HZ)


async def test_water_on_the_sensor_and_another_detector_are_refused() -> None:
    async with a_table() as table:
        table.twin.inject({"kind": "damp"})
        assert any("water would condense" in note for note in await table.camera.prepare())
        with pytest.raises(Refused, match=r"no bias: .*water would condense"):
            await table.camera.start()
        assert table.twin.counters()["bias_v"] == 0.0
        table.twin.settings["rows"] = 160
        table.twin._registers[0x84] = 160
        with pytest.raises(Refused, match="has 160 x 80 pixels, the station file says 80 x 80"):
            await table.camera.identify()


async def test_a_kernel_that_holds_too_little_is_refused_with_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rmem_max").write_text("212992\n")
    monkeypatch.setattr(driver, "RMEM", tmp_path / "rmem_max")
    async with a_table(frame_rate="9118.87 Hz", buffer="0.1 s") as table:
        with pytest.raises(Refused, match=r"sysctl -w net.core.rmem_max=4194304") as refused:
            await table.camera.prepare()
        assert "117 MB/s" in str(refused.value)


def test_the_photons_of_the_twin_follow_the_lithium() -> None:
    """Direct draw: S from energies and angles, with code of this test alone, against the line of table 2."""
    geometry = Geometry()
    photons = Photons(geometry, np.random.default_rng(5), shared=0.0)
    angles = geometry.angles_rad().ravel()
    for lithium_lost in (0.0, 0.4):
        photons.set_lithium_lost(lithium_lost)
        pixel, energy, _, _ = photons.draw(400_000)
        energy = energy + np.random.default_rng(6).normal(0.0, 0.2, energy.size)
        cosine = np.cos(angles[pixel])
        change = energy - 115.0 + 115.0 * energy / 510.99895 * (1 - cosine)
        momentum = 137.036 * change / np.sqrt(115.0**2 + energy**2 - 230.0 * energy * cosine)
        size = np.abs(momentum)
        s = np.count_nonzero(size < 1) / np.count_nonzero((size > 1) & (size < 5))
        wanted = (lithium_lost + 0.28154) / 0.43306
        assert s == pytest.approx(wanted, rel=0.01)
        assert s_of(photons.fraction, photons.resolution_au) == pytest.approx(wanted, rel=1e-4)


def test_a_frame_of_the_twin_is_noise_and_its_photons() -> None:
    stream = Stream({"port": 9, "pool_frames": 256, "photons_per_frame": 64.0})
    stream.light = False
    stream._draw()
    dark = stream._block.copy()
    stream.light = True
    stream._draw()
    stream.close()
    high = np.count_nonzero(stream._block > 1200) / len(stream._block)
    assert np.count_nonzero(dark > 1200) == 0
    assert high == pytest.approx(64.0 * 1.2, rel=0.05)  # a fifth of the photons is seen by two pixels
