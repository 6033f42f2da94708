"""An exposure that its host did not see the end of: what is on the disk counts once, the rest is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from controller import exposing as module
from controller.exposures_resumed import HadImages, cut_off_rings, resumed
from controller.rawfile import RawIndex
from controller.reduce.session import Session
from tests.controller.test_exposing import PLACE, World

SOURCE = {"kind": "images", "shape": [4, 6], "exposure_s": 2.0}
ROLE = "radiography"


class Raw:
    """The raw data of a run, as a host leaves them."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "raw"
        self.index = RawIndex(self.folder)
        self.rows: set[tuple[int, int]] = set()

    def begin(self, n: int, step: tuple[int, ...], name: str = "one", purpose: str = "sample") -> None:
        self.index.write({
            "k": "exposure", "n": n, "role": ROLE, "name": name, "purpose": purpose, "source": SOURCE,
            "step": list(step),
        })  # fmt: skip

    def image(self, n: int, number: int, *, line: bool = True, row: bool = True) -> None:
        file = f"{ROLE}_{n:04d}/{number:08d}.tif"
        (self.folder / file).parent.mkdir(exist_ok=True)
        tifffile.imwrite(self.folder / file, np.full((4, 6), 100 * n + number, np.uint16), metadata=None)
        if line:
            self.index.write({"k": "image", "n": n, "number": number, "file": file, "stamp": {"soc": 0.1}})
        if row:
            self.rows.add((n, number))

    def end(self, n: int) -> None:
        self.index.write({"k": "exposure_end", "n": n, "position": 0, "counters": {}})


@pytest.fixture
def raw(tmp_path: Path) -> Any:
    one = Raw(tmp_path)
    one.begin(1, (0,), "dark", "dark")
    for number in (1, 2):
        one.image(1, number)
    one.end(1)
    one.begin(2, (2, 0, 1))  # one part, a pause, the next part: a turn of a repeat
    one.image(2, 7)
    one.end(2)
    one.begin(3, (2, 0, 1))
    one.image(3, 21)
    one.image(3, 22, row=False)
    one.image(3, 24, line=False, row=False)
    (one.folder / f"{ROLE}_0003" / ".00000025.tif.part").write_bytes(b"half of it")
    yield one
    one.index.close()


def test_what_a_step_has_on_disk_is_known_by_its_place(raw: Raw) -> None:
    assert resumed(raw.folder).had == {(0,): HadImages(2, 4.0), (2, 0, 1): HadImages(4, 8.0)}


def test_an_image_without_a_line_counts_once_and_is_stamped_with_nothing(raw: Raw) -> None:
    (cut_off,) = resumed(raw.folder).unfinished
    image, end = cut_off.messages
    assert (image["number"], image["file"], image["stamp"]) == (24, f"{ROLE}_0003/00000024.tif", {})
    assert end == {
        "k": "exposure_end", "n": 3, "position": 0, "counters": {"frames": 3, "missing": 1},
    }  # fmt: skip
    for message in cut_off.messages:
        raw.index.write(message)
    assert resumed(raw.folder).unfinished == ()  # interrupted once more: nothing is ended twice
    assert resumed(raw.folder).had[(2, 0, 1)].frames == 4


def test_rings_are_left_alone_and_a_run_without_raw_data_has_nothing(raw: Raw, tmp_path: Path) -> None:
    raw.index.write({"k": "exposure", "n": 4, "role": "compton", "name": "c", "source": {"kind": "ring"}})
    assert [one.n for one in resumed(raw.folder).unfinished] == [3]
    assert resumed(tmp_path / "elsewhere").had == {}


async def test_the_host_ends_it_and_writes_the_rows_that_are_missing(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(raw.folder, monkeypatch)
    rows: list[tuple[int, int]] = []
    ended: list[dict[str, Any]] = []

    def post(kind: str, role: str, body: dict[str, Any]) -> None:
        assert role == ROLE
        if kind == "image":
            assert "stamp" not in body
            rows.append((body["n"], body["number"]))
        else:
            ended.append(body)

    monkeypatch.setattr(world.recorder, "post", post)
    world.exposing.take_up(resumed(raw.folder), raw.rows)
    assert rows == [(3, 22), (3, 24)]
    assert [(one["n"], one["frames"], one["interrupted"]) for one in world.exposing.results] == [(3, 3, True)]
    assert [(one["n"], one["state"]) for one in ended] == [(3, "ended")]
    assert 'exposure "one" had 3 images' in world.recorder.lines[0]
    world.reduce.index.close()


@pytest.mark.parametrize(
    ("until", "exposures"), [({"frames": 100}, 1), ({"frames": 60}, 0), ({"duration": "120 s"}, 0)]
)
async def test_only_what_is_missing_is_exposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: dict[str, Any], exposures: int
) -> None:
    world = World(tmp_path / "raw", monkeypatch)
    world.context.had_images[PLACE] = HadImages(60, 120.0)
    await world.expose(until=until)
    assert world.camera.starts == world.shutter.openings == exposures
    assert world.recorder.counters.get("compton_frames", 0) == 40 * exposures
    world.reduce.index.close()


RING = {"kind": "ring", "first": 1000, "frame_s": 0.5}


def rings(raw: Raw, tmp: Path) -> Path:
    """Dark frames; a sample in two parts, the second one cut off; dark frames that were cut off, too."""
    folder = tmp / "rings" / "raw"
    index = RawIndex(folder)
    for n, purpose, ended in (
        (1, "dark", True),
        (2, "sample", True),
        (3, "sample", False),
        (4, "dark", False),
    ):
        begun = {"k": "exposure", "n": n, "role": "compton", "name": purpose, "purpose": purpose}
        index.write({**begun, "source": RING, "step": list(PLACE)})
        if ended:
            index.write({"k": "exposure_end", "n": n, "position": 1000, "counters": {"frames": 20}})
    index.close()
    return folder


async def test_a_ring_goes_on_with_what_its_record_has(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = rings(raw, tmp_path)
    world = World(folder, monkeypatch)
    assert resumed(folder).counted == {PLACE: (2, 3)}  # half of a dark level is none
    world.exposing.results.append({"n": 2, "frames": 20, "counters": {"frames": 20, "missing": 4}})
    hits: list[tuple[int, str]] = []
    monkeypatch.setattr(
        world.recorder, "post", lambda kind, _, body: hits.append(body["path"]) if kind == "hits" else None
    )
    world.reduce.answer = None
    world.exposing.end_rings(cut_off_rings(folder), {3: 70}, [(3, "a")])
    assert cut_off_rings(folder) == {}  # interrupted once more: nothing is ended twice
    for end in world.reduce.sent:
        assert (end["k"], end["interrupted"]) == ("exposure_end", True)
    assert [end.get("seen") for end in world.reduce.sent] == [70, None]
    for path in "ab":
        world.exposing.take({"k": "hits", "n": 3, "path": path})
    assert hits == ["b"]  # the other part had its row
    world.exposing.take({
        "k": "exposure_checked", "n": 3, "role": "compton", "name": "sample", "purpose": "sample",
        "frames": 50, "counters": {"frames": 50, "missing": 0}, "photons": 10, "interrupted": True,
        "lost_with_host": 20, "lost_with_host_s": 10.0, "s": {"value": 0.62, "sigma_stat": 0.02},
    })  # fmt: skip
    assert [(one["n"], one.get("interrupted")) for one in world.exposing.results] == [(2, None), (3, True)]
    said = "50 frames are on the disk and count, 20 more (10.0 s under the open shutter) are lost"
    assert said in world.recorder.gaps[0]

    world.context.counted = resumed(folder).counted
    world.reduce.answer = {"s": {"value": 0.66, "sigma_stat": 0.02}}
    assert await world.expose(until={"frames": 100}) == "100 frames"
    assert world.recorder.counters["compton_frames"] == 30
    assert "100 frames, 4 lost, 10 photons, S = 0.6400 +- 0.0141" in world.recorder.lines[-1]
    world.reduce.index.close()


async def test_the_time_that_was_exposed_before_counts(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(rings(raw, tmp_path), monkeypatch)
    world.context.counted = {PLACE: (2,)}
    monkeypatch.setattr(type(world.camera), "source", RING)
    world.exposing.results.append({"n": 2, "frames": 20, "counters": {"frames": 20, "missing": 4}})
    assert await world.expose(until={"duration": "12 s"}) == "duration"  # 24 frames of 0.5 s
    assert world.camera.starts == 0
    world.reduce.index.close()


async def test_a_record_that_is_not_counted_is_told_and_exposed_again(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(rings(raw, tmp_path), monkeypatch)
    world.context.counted = {PLACE: (2, 3)}
    monkeypatch.setattr(module, "RECOUNTED_S", 0.0)
    assert await world.expose(until={"frames": 100}) == "100 frames"
    assert world.recorder.counters["compton_frames"] == 100
    assert "all is exposed again" in world.recorder.gaps[0]
    world.reduce.index.close()


def test_a_reduce_that_is_told_again_has_every_image_once(raw: Raw) -> None:
    for message in resumed(raw.folder).unfinished[0].messages:
        raw.index.write(message)
    raw.begin(4, (2, 0, 1))
    raw.image(4, 31)
    raw.end(4)
    session = Session(clock=lambda: 0.0, products=None)
    run = {"k": "run", "run": "r", "dir": str(raw.folder.parent), "settings": None, "radiography": None}
    told = [run, *map(json.loads, (raw.folder / "index.jsonl").read_text().splitlines())]
    answers = [answer for message in told for answer in session.handle(message)]
    checked = [answer for answer in answers if answer["k"] == "exposure_checked"]
    assert [(one["n"], one["frames"], one["ok"]) for one in checked] == [
        (1, 2, True), (2, 1, True), (3, 3, True), (4, 1, True),
    ]  # fmt: skip
    assert len(list(raw.folder.rglob("*.tif"))) == sum(one["frames"] for one in checked)
