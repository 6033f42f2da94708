"""The driver of a camera against its real process: images, a process that hangs, one that dies, a stream."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from drivers import frame_process
from drivers.clock import RealClock
from drivers.errors import Refused
from drivers.files import images
from drivers.frame_folder import FrameFolder
from drivers.frame_live import FrameLive
from drivers.frame_stream import BadMessage, image_of
from drivers.frame_watch import Tally
from drivers.ports import open_line
from drivers.roles import FrameDetector, ImageDetector

SHAPE = (6, 8)
SETTINGS = {
    "pixels": (8, 6), "exposure_s": 0.1, "period_s": 0.05, "delay_s": 0.0, "settle_s": 0.1,
    "patience_s": 5.0, "files": "*.tif",
}  # fmt: skip


def image(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 60000, SHAPE, dtype=np.uint16)


async def until(probe: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    """Ask until there is an answer."""
    deadline = time.monotonic() + seconds
    while not (found := await probe()):
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.05)
    return found


def folder_camera(folder: Path) -> FrameFolder:
    line = open_line("camera", {"kind": "folder", "path": str(folder)})
    return FrameFolder(line, name="camera", clock=RealClock(), settings=SETTINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "watched"
    made.mkdir()
    return made


async def test_images_lie_on_the_disk_before_anybody_hears_of_them(folder: Path, tmp_path: Path) -> None:
    camera = folder_camera(folder)
    assert isinstance(camera, FrameDetector)
    assert isinstance(camera, ImageDetector)
    notes = await camera.prepare()
    assert "file server" in notes[0]
    try:
        with pytest.raises(Refused):
            await camera.start()
        tifffile.imwrite(folder / "n_1.tif", image(1))  # before the start: not ours
        camera.keep_in(str(tmp_path / "kept"))
        await camera.start()
        await asyncio.sleep(0.2)  # an exposure that lies after the start
        tifffile.imwrite(folder / "n_2.tif", image(2))
        (record,) = await until(camera.next_images)
        assert (record.number, record.origin, record.exposure_s) == (2, "n_2.tif", 0.1)
        assert record.nbytes == (folder / "n_2.tif").stat().st_size
        assert len(record.sha256) == 64
        assert np.array_equal(next(iter(images.read(Path(record.path)).frames())), image(2))
        await camera.stop()
        status = await camera.status()
        assert (status.frames, status.running, status.problems) == (1, False, ())
        tifffile.imwrite(folder / "n_3.tif", image(3))
        await asyncio.sleep(0.4)
        assert await camera.next_images() == []
        assert (await camera.status()).frames == 1
    finally:
        await camera.close()
    assert await camera.next_images() == []


async def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    camera = folder_camera(tmp_path / "nowhere")
    try:
        with pytest.raises(Refused, match=r"cannot see its images: .*No such file"):
            await camera.prepare()
    finally:
        await camera.close()


async def test_a_hanging_file_system_blocks_nobody(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_process, "SILENT_S", 1.0)
    monkeypatch.setattr(frame_process, "STOP_S", 0.3)
    camera = folder_camera(folder)
    camera.keep_in(str(tmp_path / "kept"))
    await camera.prepare()
    await camera.start()
    process = camera._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # as in a system call that does not come back
    try:

        async def told() -> bool:
            began = time.monotonic()
            status = await camera.status()
            assert time.monotonic() - began < 0.5
            return any("hang" in text for text in status.problems)

        await until(told, 10.0)
        began = time.monotonic()
        await camera.stop()
        assert time.monotonic() - began < 3.0
        assert any("hang" in text or "did not answer" in text for text in (await camera.status()).problems)
        await camera.start()  # the next one has a process of its own
        assert (await camera.status()).running
    finally:
        await camera.close()


async def test_a_process_that_dies_is_replaced_and_the_gap_is_seen(folder: Path, tmp_path: Path) -> None:
    camera = folder_camera(folder)
    camera.keep_in(str(tmp_path / "kept"))
    await camera.prepare()
    await camera.start()
    try:
        await asyncio.sleep(0.2)
        tifffile.imwrite(folder / "n_1.tif", image(1))
        await until(camera.next_images)
        process = camera._process
        assert process is not None
        process.kill()
        await process.wait()
        tifffile.imwrite(folder / "n_2.tif", image(2))  # nobody looks
        await camera.status()

        async def begun() -> bool:
            return camera._counters.get("k", True) and bool(camera._counters)

        await until(begun)
        await asyncio.sleep(0.2)
        tifffile.imwrite(folder / "n_3.tif", image(3))
        (record,) = await until(camera.next_images)
        assert record.number == 3
        status = await camera.status()
        assert (status.frames, status.lost) == (2, 1)
        assert any("died" in text for text in status.problems)
    finally:
        await camera.close()


# --- messages ----------------------------------------------------------------------------------------------


def message(number: int, **changes: Any) -> list[bytes]:
    header = {
        "htype": "array-1.0", "type": "uint16", "shape": [6, 8], "frame": number, "timeStamp": 1.1e9,
        "encoding": "", "ndattr": {"Gain": 1}, **changes,
    }  # fmt: skip
    return [json.dumps(header).encode(), image(number).astype("<u2").tobytes()]


def test_a_message_as_the_plug_in_sends_it_today_and_before_2022() -> None:
    number, found, time_s = image_of(message(7), SHAPE)
    assert number == 7
    assert np.array_equal(found, image(7))
    assert time_s == pytest.approx(1.1e9 + 631152000.0)
    assert image_of(message(7, htype=["array-1.0"], shape=[8, 6], timeStamp=1.7e9), SHAPE)[2] == 1.7e9


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([b"{}"], "1 parts"),
        ([b"{", b""], "no JSON"),
        ([b"[]", b""], "no JSON object"),
        (message(1, htype="bsr_m-1.1"), "instead of array-1.0"),
        (message(1, encoding="blosc"), "switch the codec off"),
        (message(1, type="float64"), "whole ADU"),
        (message(1, shape=[8, 6]), "instead of"),
        (message(1, frame=True), "no number"),
        (message(1, frame=1 << 62), "no number"),
        ([message(1)[0], b"short"], "5 bytes"),
    ],
)
def test_what_is_no_image_says_why(parts: list[bytes], why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        image_of(parts, SHAPE)


@pytest.mark.parametrize("time_s", [10**400, -1, 0, 1e12, True, "now", None])
def test_a_time_that_no_camera_has_is_none(time_s: object) -> None:
    assert image_of(message(1, timeStamp=time_s), SHAPE)[2] is None


def test_hours_of_messages_that_are_no_images_are_counted_and_cost_no_memory() -> None:
    tally = Tally()
    for _ in range(10_000):
        tally.refuse_message("compressed by " + "x" * 60_000)
    told = tally.as_dict()
    assert told["incomplete"] == 10_000
    assert len(json.dumps(told)) < 10_000
    assert sum(map(len, tally.incomplete.values())) < 10_000


async def test_a_stream_with_gaps_repeats_and_nonsense(tmp_path: Path) -> None:
    zmq = pytest.importorskip("zmq")
    publisher = zmq.Context.instance().socket(zmq.PUB)
    publisher.setsockopt(zmq.LINGER, 0)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    line = open_line("camera", {"kind": "zmq", "host": "127.0.0.1", "port": port})
    told = {key: value for key, value in SETTINGS.items() if key not in ("files", "settle_s", "patience_s")}
    camera = FrameLive(line, name="camera", clock=RealClock(), settings={**told, "socket": "sub"})
    camera.keep_in(str(tmp_path / "kept"))
    try:
        await camera.prepare()
        await camera.start()
        await asyncio.sleep(0.3)
        found = []

        async def arrives() -> bool:
            publisher.send_multipart(message(1))  # until the subscription is there
            found.extend(await camera.next_images())
            return bool(found)

        await until(arrives)
        for parts in (message(2), message(2), message(5), message(6, type="float32")):
            publisher.send_multipart(parts)

        async def all_told() -> bool:
            found.extend(await camera.next_images())
            status = await camera.status()
            return status.incomplete == 1 and status.frames == 3

        await until(all_told)
        assert [record.number for record in found] == [1, 2, 5]
        await camera.stop()
        status = await camera.status()
        assert status.lost == 2
        assert status.repeated >= 1
        assert "whole ADU" in status.problems[0]
    finally:
        await camera.close()
        publisher.close()
