"""The owner of the cameras: what is counted, told and missing, against a camera and a reduce of this test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller import exposing as module
from controller.config.exposures import Expose
from controller.exposing import Exposing
from controller.rawfile import INDEX_NAME, RawIndex, read_index
from controller.steps import frames as steps
from controller.steps.context import Ended
from drivers.errors import NoReply
from drivers.roles import FrameStatus


class Camera:
    """Ten frames for each look."""

    def __init__(self) -> None:
        self.running, self.frames, self.starts = False, 0, 0
        self.held = self.missing = self.restarts = 0
        self.problems: tuple[str, ...] = ()
        self.silent = False

    @property
    def source(self) -> dict[str, Any]:
        return {"kind": "ring", "first": 100 * self.starts}

    @property
    def position(self) -> int:
        return 100 * self.starts + self.frames

    def counts(self) -> dict[str, int]:
        return {
            "frames": self.frames, "held": self.held, "missing": self.missing, "incomplete": 0,
            "restarts": self.restarts,
        }  # fmt: skip

    async def start(self) -> None:
        self.running, self.frames, self.starts = True, 0, self.starts + 1

    async def stop(self) -> None:
        self.running = False

    async def status(self) -> FrameStatus:
        self.frames += 0 if self.silent else 10
        return FrameStatus(0.0, True, self.frames, self.missing, 0, 0, problems=self.problems)


class Recorder:
    def __init__(self) -> None:
        self.gaps: list[str] = []
        self.faults: list[str] = []
        self.lines: list[str] = []
        self.counters: dict[str, int] = {}

    def gap(self, _module: str, text: str, _lab_s: float) -> None:
        self.gaps.append(text)

    def fault(self, _module: str, text: str) -> None:
        self.faults.append(text)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def post(self, *_: Any, **__: Any) -> None: ...

    def state(self, *_: Any, **__: Any) -> None: ...


PLACE = (2, 0, 1)  # of the step, in a repeat


class Reduce:
    """Takes messages, answers the end of an exposure."""

    def __init__(self, raw: Path) -> None:
        self.index, self.sent = RawIndex(raw), list[dict[str, Any]]()
        self.answer: dict[str, Any] | None = {}
        self.exposing: Exposing

    def send(self, message: dict[str, Any]) -> bool:
        self.index.write(message)
        self.sent.append(message)
        if message["k"] == "exposure_end" and self.answer is not None:
            found = {"frames": message["counters"]["frames"], "unread": 0, "unrecorded": 0, "why": ""}
            found |= {"counters": message["counters"], **self.answer}
            self.exposing.take({"k": "exposure_checked", "n": message["n"], **found})
        return True

    async def sync(self) -> None:
        self.index.sync()


class Shutter:
    def __init__(self) -> None:
        self.is_open, self.openings = False, 0

    async def open(self) -> None:
        self.is_open, self.openings = True, self.openings + 1

    async def close(self) -> None:
        self.is_open = False

    def keep(self) -> None:
        assert self.is_open


async def timed_out(_step: Any, text: str) -> str:
    return text


class World:
    def __init__(self, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steps, "LOOK_S", 0.0)
        self.camera, self.recorder, self.reduce = Camera(), Recorder(), Reduce(raw)
        clock = SimpleNamespace(now_s=time.monotonic, speed=1.0)
        self.exposing = Exposing(
            {"compton": self.camera}, self.reduce, self.recorder, clock, raw,  # type: ignore[dict-item, arg-type]
            *([dict] if "stamp" in module.Exposing.__init__.__code__.co_varnames else []),
        )  # fmt: skip
        self.reduce.exposing = self.exposing
        self.shutter = Shutter()
        self.context: Any = SimpleNamespace(
            host=SimpleNamespace(
                exposing=self.exposing,
                sequence=SimpleNamespace(timed_out=timed_out, place_of=lambda _: PLACE),
            ),
            scanning=SimpleNamespace(shutter=self.shutter),
            recorder=self.recorder, clock=clock, paused=False, finishing=False, had_images={}, counted={},
            sleep=lambda _s: asyncio.sleep(0),
        )  # fmt: skip

    async def expose(self, **more: Any) -> str:
        table = {
            "do": "expose", "name": "one", "detector": "compton", "until": {"frames": 100}, "timeout": "1 h",
        }  # fmt: skip
        return await steps.expose(self.context, Expose.model_validate({**table, **more}))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    one = World(tmp_path / "raw", monkeypatch)
    yield one
    one.reduce.index.close()


async def test_frames_are_counted_under_an_open_shutter(world: World, tmp_path: Path) -> None:
    assert await world.expose() == "100 frames"
    assert (world.shutter.openings, world.shutter.is_open, world.camera.running) == (1, False, False)
    told = list(read_index(tmp_path / "raw"))
    assert [(m["k"], m["n"]) for m in told] == [("exposure", 1), ("exposure_end", 1)]
    assert told[1]["position"] == 200
    assert world.recorder.gaps == []
    assert world.recorder.counters["compton_frames"] == 100


async def test_dark_frames_leave_the_shutter_alone(world: World) -> None:
    await world.expose(purpose="dark")
    assert world.shutter.openings == 0


async def test_a_number_is_never_used_twice(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.expose()
    again = World(tmp_path / "raw", monkeypatch)  # a host that resumes the run
    await again.expose()
    again.reduce.index.close()
    assert [m["n"] for m in again.reduce.sent] == [2, 2]


async def test_a_pause_closes_the_shutter_and_splits_the_exposure(world: World) -> None:
    status = world.camera.status
    looks = []

    async def looked() -> FrameStatus:
        looks.append(world.shutter.is_open)
        world.context.paused = len(looks) == 4
        return await status()

    async def slept(_s: float) -> None:
        assert not world.shutter.is_open
        world.context.paused = False

    world.camera.status = looked  # type: ignore[method-assign]
    world.context.sleep = slept
    assert await world.expose() == "100 frames"
    assert (world.camera.starts, world.shutter.openings) == (2, 2)
    assert "100 frames" in world.recorder.lines[-1]


@pytest.mark.parametrize(
    ("camera", "answer", "told"),
    [
        ({"restarts": 1, "missing": 7}, {}, "started again 1 times, 7 frames are missing"),
        ({}, {"unread": 5}, "5 frames were overwritten before they were counted"),
        ({}, {"unrecorded": 6}, "6 frames are counted and not in the raw record"),
        ({}, {"why": "97 frames counted of 100"}, "97 frames counted of 100"),
    ],
)
async def test_what_the_data_cannot_show_is_a_gap(
    world: World, camera: dict[str, int], answer: dict[str, Any], told: str
) -> None:
    for name, value in camera.items():
        setattr(world.camera, name, value)
    world.reduce.answer = answer
    await world.expose()
    assert [told in gap for gap in world.recorder.gaps] == [True]


async def test_lost_packets_alone_are_counted_and_no_gap(world: World) -> None:
    world.camera.missing = 3
    await world.expose()
    assert world.recorder.gaps == []
    assert world.recorder.counters["compton_frames_lost"] == 3


async def test_a_reduce_that_does_not_answer_is_a_gap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKED_S", 0.0)
    world.reduce.answer = None
    await world.expose()
    assert "has not counted exposure 1" in world.recorder.gaps[0]


async def test_a_camera_that_cannot_be_stopped_is_told_and_its_frames_stay(world: World) -> None:
    async def fails() -> None:
        raise NoReply("no reply", device="compton")

    world.camera.stop = fails  # type: ignore[method-assign]
    await world.expose()
    assert "no reply" in world.recorder.gaps[0]
    assert world.reduce.sent[-1]["position"] == 200


async def test_a_problem_is_told_once_whatever_its_numbers(world: World) -> None:
    async def counting() -> FrameStatus:
        world.camera.frames += 10
        texts = (f"{world.camera.frames} frames/s come",)
        return FrameStatus(0.0, True, world.camera.frames, 0, 0, 0, problems=texts)

    world.camera.status = counting  # type: ignore[method-assign]
    await world.expose()
    assert world.recorder.faults == ["compton: 10 frames/s come"]


async def test_a_silent_camera_ends_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SILENT_ENDS_S", 0.0)
    world.camera.silent = True
    with pytest.raises(Ended, match="no frame for"):
        await world.expose()
    assert not world.camera.running
    assert not world.shutter.is_open


async def test_photons_and_the_error_of_s_end_an_exposure(world: World) -> None:
    world.exposing.progress[1] = {"k": "exposure_progress", "n": 1, "photons": 900}
    assert await world.expose(until={"counts": 500}) == "900 photons"
    world.exposing.progress[2] = {"k": "exposure_progress", "n": 2, "s": {"value": 0.8, "sigma_stat": 0.004}}
    until = {"uncertainty": {"quantity": "s", "below": "0.5 %"}}
    assert await world.expose(until=until) == "uncertainty of S 0.004"


async def test_what_reduce_refuses_ends_the_run(world: World) -> None:
    world.exposing.progress[1] = {"k": "exposure_refused", "n": 1, "why": "there are no dark frames"}
    with pytest.raises(Ended, match="there are no dark frames"):
        await world.expose()


async def test_a_run_that_is_taken_up_keeps_what_it_had_exposed(world: World, tmp_path: Path) -> None:
    raw = tmp_path / "before"
    raw.mkdir()
    lines = [{"k": "exposure", "n": n, "role": "compton"} for n in (1, 2)]
    (raw / INDEX_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (raw / "compton_0001.json").write_text(
        json.dumps({"n": 1, "role": "compton", "frames": 5, "problem": ""})
    )
    (raw / "compton_0002.json").write_text("{broken")
    clock = SimpleNamespace(now_s=time.monotonic, speed=1.0)
    later = Exposing({"compton": world.camera}, world.reduce, world.recorder, clock, raw)
    assert later.n == 2
    assert [(one["n"], one["frames"], one["ok"]) for one in later.results] == [(1, 5, True)]
