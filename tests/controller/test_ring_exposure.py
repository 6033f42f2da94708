"""From the ring to photons and to the record: every frame counted once, and again from its hits."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controller.offline import compton_read
from controller.rawfile import RawIndex, replayed
from controller.reduce import hit_files, ring_exposure
from controller.reduce.exposures import Exposures
from controller.reduce.hit_files import Rules, load_rules, recount
from controller.reduce.products import ProductFolder
from controller.reduce.ring_exposure import RingExposure
from drivers.files import hit_list
from drivers.files.errors import FileError
from drivers.frame_ring import Ring, RingWriter, Word
from edge.compton_frames import Compton, EnergyBins, PixelScale
from edge.frame_hits import readout_order

ROWS, COLUMNS, SLOTS = 8, 80, 256
DARK, GAIN = 1000.0, 0.027
PATIENCE_S = 20.0


class Camera:
    """A writer of frames, and the same frames as an image for the comparison."""

    def __init__(self, folder: Path, *, slots: int = SLOTS, seed: int = 1) -> None:
        self.path, self.slots = folder / "ring", slots
        self.ring = Ring(self.path, slots, 2 * ROWS * COLUMNS, create=True)
        self.writer = RingWriter(self.ring)
        self.ring.words[Word.EXPOSURE] = 1
        self.rng = np.random.default_rng(seed)
        self.images = np.zeros((0, ROWS, COLUMNS), np.uint16)

    @property
    def source(self) -> dict[str, Any]:
        return {
            "kind": "ring", "path": str(self.path), "slots": self.slots, "rows": ROWS, "columns": COLUMNS,
            "interleaved": True, "first": 0, "exposure": self.ring.words[Word.EXPOSURE], "frame_s": 1e-4,
            "whole_frames_bytes": 7 * 2 * ROWS * COLUMNS,
            "threshold_kev": 3.0, "sharing": "add", "neighbours": 1, "gain_kev": GAIN, "offset_kev": 0.0,
        }  # fmt: skip

    def draw(self, n: int, photons: int = 12) -> None:
        """Take n frames with photons in random pixels, some of them neighbours; all at once into the ring."""
        images = self.rng.normal(DARK, 7.0, (n, ROWS, COLUMNS)).round().astype(np.uint16)
        at = self.rng.integers(0, ROWS * COLUMNS - 1, (n, photons))
        flat = images.reshape(n, -1)
        for frame in range(n):
            flat[frame, at[frame]] += self.rng.integers(400, 4000, photons).astype(np.uint16)
            flat[frame, at[frame, :3] + 1] += 900  # shared
        for image in images:
            wire = bytearray(2 * ROWS * COLUMNS)
            samples = np.frombuffer(wire, np.uint16).reshape(ROWS, 4 * (COLUMNS // 4))
            for c in range(COLUMNS):  # the sheet: sample c = 4 j + k belongs to column j + 20 k
                samples[:, c] = image[:, c // 4 + 20 * (c % 4)]
            self.writer.put(len(self.images), memoryview(bytes(wire)))
            self.images = np.concatenate([self.images, image[None]])


def rules() -> Rules:
    flat = np.full((ROWS, COLUMNS), DARK)
    scale = PixelScale(flat, flat * 0 + 7.0, flat * 0 + GAIN, flat * 0, flat > 0)
    return Rules(scale, 3.0, EnergyBins(0.2, 600), add_pairs=True, ring=1)


def directly(images: np.ndarray[Any, Any], first: int = 0) -> Compton:
    reducer = rules().reducer()
    reducer.add(images, first)
    return reducer


def same(one: Compton, other: Compton) -> bool:
    a, b = one.result(), other.result()
    names = ("spectra", "underflow", "overflow", "hits", "singles", "doubles", "discarded", "near")
    return a.frames == b.frames and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def until(done: Any) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.002)


def test_read_out_order_is_that_of_the_sheet() -> None:
    order = readout_order(80, 80)
    assert list(order[:6]) == [0, 20, 40, 60, 1, 21]
    assert order[80 + 79] == 80 + 79
    assert np.array_equal(np.sort(order), np.arange(6400))


def test_live_and_again_from_the_hits_are_the_frames_themselves(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    camera.draw(200)
    one = RingExposure(camera.source, tmp_path, "compton_0001", rules(), keep=5)
    one.begin()
    until(lambda: one.frames == 200)
    camera.draw(100)
    one.end(300, PATIENCE_S)
    assert (one.frames, one.unread, one.problem) == (300, 0, "")
    assert one.reducer is not None
    assert same(one.reducer, directly(camera.images))
    assert same(recount(tmp_path, "compton_0001"), one.reducer)
    parts = list(hit_list.parts(tmp_path, "compton_0001"))
    assert [int(n) for part in parts for n in part.numbers] == list(range(300))
    assert (tmp_path / "compton_0001.bin").stat().st_size == 5 * 2 * ROWS * COLUMNS
    assert one.hits == int(one.reducer.result().hits.sum()) == sum(part.pixels.size for part in parts)


def test_what_was_overwritten_is_counted_and_the_rest_is_right(tmp_path: Path) -> None:
    camera = Camera(tmp_path, slots=64)
    camera.draw(300)
    one = RingExposure(camera.source, tmp_path, "compton_0001", rules())
    one.begin()
    one.end(300, PATIENCE_S)
    assert one.frames + one.unread == 300
    assert 0 < one.frames <= 64
    assert one.reducer is not None
    assert same(one.reducer, directly(camera.images[300 - one.frames :], 300 - one.frames))
    assert same(recount(tmp_path, "compton_0001"), one.reducer)


def test_a_frame_that_is_written_over_while_it_is_copied_is_not_believed(tmp_path: Path) -> None:
    camera = Camera(tmp_path, slots=64)
    camera.draw(64)
    camera.ring.words[Word.CLAIMED] = 64 + 10  # the writer is inside the eleventh slot already
    one = RingExposure(camera.source, tmp_path, "compton_0001", rules())
    one.begin()
    one.end(64, PATIENCE_S)
    assert one.unread >= 10
    assert one.frames == 64 - one.unread


def test_a_reduce_that_is_started_again_goes_on_from_the_record(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    camera.draw(120)
    first = RingExposure(camera.source, tmp_path, "compton_0001", rules())
    first.begin()
    first.end(120, PATIENCE_S)  # what it had written; then it dies
    camera.draw(80)
    second = RingExposure(camera.source, tmp_path, "compton_0001", rules())
    assert second.recovered
    second.begin()
    second.end(200, PATIENCE_S)
    assert (second.frames, second.unread) == (200, 0)
    assert second.reducer is not None
    assert same(second.reducer, directly(camera.images))
    assert same(recount(tmp_path, "compton_0001"), second.reducer)


def test_another_exposure_ends_the_reading(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    source = camera.source
    camera.draw(50)
    camera.ring.words[Word.EXPOSURE] = 2
    one = RingExposure(source, tmp_path, "compton_0001", rules())
    one.begin()
    one.end(50, 1.0)
    assert (one.frames, one.unread) == (0, 50)
    assert "another exposure" in one.problem


def test_a_full_disk_costs_the_record_and_not_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = hit_files.put

    def full(path: Path, write: Any) -> None:
        if path.suffix == ".hits":
            raise OSError(28, "No space left on device")
        real(path, write)

    monkeypatch.setattr(hit_files, "put", full)
    camera = Camera(tmp_path)
    camera.draw(100)
    one = RingExposure(camera.source, tmp_path, "compton_0001", rules())
    one.begin()
    one.end(100, PATIENCE_S)
    assert one.quick() | {"hits": 0} == {"frames": 100, "hits": 0, "unread": 0, "unrecorded": 100}
    assert one.reducer is not None
    assert same(one.reducer, directly(camera.images))
    assert one.writer is not None
    assert "No space left" in one.writer.error


def test_a_disk_that_is_too_slow_costs_the_record_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_files, "PART_BYTES", 1)  # a part for each block
    monkeypatch.setattr(hit_files, "WAITING", 1)
    monkeypatch.setattr(ring_exposure, "BLOCK", 8)
    released: list[int] = []
    real = hit_files.put

    def slow(path: Path, write: Any) -> None:
        until(lambda: bool(released))
        real(path, write)

    camera = Camera(tmp_path)
    one = RingExposure(camera.source, tmp_path, "compton_0001", rules())
    monkeypatch.setattr(hit_files, "put", slow)
    camera.draw(100)
    one.begin()
    until(lambda: one.frames == 100)
    released.append(1)
    one.end(100, PATIENCE_S)
    numbers = [int(n) for part in hit_list.parts(tmp_path, "compton_0001") for n in part.numbers]
    assert one.quick()["unrecorded"] == 100 - len(numbers) > 0
    assert len(set(numbers)) == len(numbers)


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    rules().save(tmp_path / "t.npz")
    again = load_rules(tmp_path / "t.npz")
    assert np.array_equal(again.reducer().tables.scale, rules().reducer().tables.scale)
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(FileError, match="tables of an exposure"):
        load_rules(tmp_path / "t.npz")


@pytest.mark.parametrize("cut", [4, 11, 40, -3])
def test_a_torn_hit_list_is_refused(tmp_path: Path, cut: int) -> None:
    path = hit_list.part_path(tmp_path, "compton_0001", 1)
    one = np.array([1], np.uint16)
    part = hit_list.Part(path, "compton_0001", ROWS, COLUMNS, 0, one.astype(np.uint64), one, one, one)
    path.write_bytes(hit_list.pack(part)[:cut])
    with pytest.raises(FileError):
        hit_list.read(path)
    path.write_bytes(hit_list.pack(part))
    assert hit_list.read(path).pixels.tolist() == [1]


# --- the messages ----------------------------------------------------------------------------------------


def exposure(camera: Camera, n: int, purpose: str) -> dict[str, Any]:
    return {
        "k": "exposure", "n": n, "role": "compton", "name": purpose, "purpose": purpose, "keep": 0,
        "source": {**camera.source, "first": camera.ring.words[Word.WRITTEN]},
    }  # fmt: skip


def ended(camera: Camera, n: int, frames: int, **more: int) -> dict[str, Any]:
    counters = {"frames": frames, "held": 0, **more}
    return {"k": "exposure_end", "n": n, "position": camera.ring.words[Word.WRITTEN], "counters": counters}


def test_dark_frames_then_a_sample_give_maps_that_add_up(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    products = ProductFolder(tmp_path / "products")
    manager = Exposures("run", tmp_path, products, time.monotonic)
    assert list(manager.begin(exposure(camera, 1, "dark"))) == []
    camera.draw(100, photons=3)
    (dark,) = list(manager.end(ended(camera, 1, 100)))
    assert dark["ok"]
    assert dark["dark"]["frames"] == 100
    assert dark["dark"]["level"]["value"] == pytest.approx(DARK, abs=1.0)
    camera.ring.words[Word.EXPOSURE] = 2
    assert list(manager.begin(exposure(camera, 2, "sample"))) == []
    camera.draw(150)
    told = list(manager.end(ended(camera, 2, 150)))
    found = told[-1]
    assert (found["ok"], found["why"], found["frames"]) == (True, "", 150)
    streams = {message["stream"] for message in told if message["k"] == "product"}
    assert streams == {"map/compton", "map/compton_acceptance", "map/compton_s", "spectrum/compton"}
    assert found["photons"] + found["discarded"] > 0
    assert sum(message["hits"] for message in told if message["k"] == "hits") == found["hits"]
    again = recount(tmp_path / "raw", "compton_0002").result()
    assert int(again.singles.sum() + again.doubles.sum()) == found["photons"]
    first = hit_list.part_path(tmp_path / "raw", "compton_0002", 1)
    offline = compton_read.load(first, SimpleNamespace(mask=None))  # type: ignore[arg-type]
    assert np.array_equal(offline.spectra, again.spectra)
    second = shutil.copy(first, hit_list.part_path(tmp_path / "raw", "compton_0002", 2))
    with pytest.raises(FileError, match=r"the first part of the exposure, compton_0002_0001\.hits"):
        compton_read.load(Path(second), SimpleNamespace(mask=None))  # type: ignore[arg-type]


def test_whole_frames_are_kept_within_the_budget_of_the_run(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    manager = Exposures("run", tmp_path, None, time.monotonic)
    for n in (1, 2, 3):
        camera.ring.words[Word.EXPOSURE] = n
        list(manager.begin({**exposure(camera, n, "dark"), "keep": 5}))
        camera.draw(70)
        list(manager.end(ended(camera, n, 70)))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "raw").glob("*.bin"))]
    assert sizes == [5 * 2 * ROWS * COLUMNS, 2 * 2 * ROWS * COLUMNS]


def test_without_dark_frames_a_sample_is_refused(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    manager = Exposures("run", tmp_path, None, time.monotonic)
    (refused,) = manager.begin(exposure(camera, 1, "sample"))
    assert refused["k"] == "exposure_refused"
    assert "dark" in refused["why"]


def test_a_frame_that_nobody_counted_is_told(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    manager = Exposures("run", tmp_path, None, time.monotonic)
    list(manager.begin(exposure(camera, 1, "dark")))
    camera.draw(100)
    (found,) = manager.end(ended(camera, 1, 101))
    assert not found["ok"]
    assert "100 frames counted and 0 unread of 101" in found["why"]


def test_a_restarted_reduce_finds_the_dark_frames_and_both_exposures(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    first = Exposures("run", tmp_path, None, time.monotonic)
    messages = [exposure(camera, 1, "dark")]
    list(first.begin(messages[0]))
    camera.draw(100)
    messages.append(ended(camera, 1, 100))
    list(first.end(messages[1]))
    camera.ring.words[Word.EXPOSURE] = 2
    messages.append(exposure(camera, 2, "sample"))
    list(first.begin(messages[2]))
    camera.draw(100)
    messages.append(ended(camera, 2, 100))
    before = list(first.end(messages[3]))[-1]
    camera.ring.words[Word.EXPOSURE] = 3  # the camera is elsewhere by now
    shutil.rmtree(tmp_path / "products", ignore_errors=True)
    second = Exposures("run", tmp_path, None, time.monotonic)
    answers = []
    for message in messages:
        answers += list(second.begin(message) if message["k"] == "exposure" else second.end(message))
    after = [answer for answer in answers if answer["k"] == "exposure_checked"][-1]
    keys = ("frames", "photons", "hits", "discarded", "s", "unread")
    assert {key: after[key] for key in keys} == {key: before[key] for key in keys}


def test_what_a_dead_host_left_is_counted_and_the_ring_is_left_alone(tmp_path: Path) -> None:
    camera, index = Camera(tmp_path), RawIndex(tmp_path / "raw")
    first = Exposures("run", tmp_path, None, time.monotonic)

    def told(message: dict[str, Any]) -> list[dict[str, Any]]:
        index.write(message)
        return list(first.begin(message) if message["k"] == "exposure" else first.end(message))

    told(exposure(camera, 1, "dark"))
    camera.draw(100)
    told(ended(camera, 1, 100))
    camera.ring.words[Word.EXPOSURE] = 2
    told(exposure(camera, 2, "sample"))
    (_, one) = first._open[2]
    for frames in (60, 100):  # two parts of the record
        camera.draw(frames - one.frames)
        until(lambda frames=frames: one.frames == frames)
        assert one.writer is not None
        one.writer.cut()
        until(lambda: len(list((tmp_path / "raw").glob("*.hits"))) == {60: 1, 100: 2}[frames])  # noqa: B023
    camera.draw(30)
    until(lambda: one.frames == 130)
    one._stop.set()  # here it dies, with 30 frames that are not on the disk
    camera.draw(40)  # and the camera, whose shutter has closed, goes on
    parts = {path: path.read_bytes() for path in (tmp_path / "raw").glob("*.hits")}

    index.write({"k": "exposure_end", "n": 2, "position": 0, "interrupted": True, "seen": 130})
    second, answers = Exposures("run", tmp_path, None, time.monotonic), []
    for message in replayed(tmp_path / "raw"):
        answers += list(second.begin(message) if message["k"] == "exposure" else second.end(message))
        answers += list(second.poll(behind=False))
    found = next(one for one in answers if one["k"] == "exposure_checked" and one["n"] == 2)
    assert (found["ok"], found["interrupted"], found["frames"]) == (True, True, 100)
    assert (found["lost_with_host"], found["lost_with_host_s"]) == (30, pytest.approx(30e-4))
    assert found["counters"] == {"frames": 100, "held": 0, "missing": 0}
    again = recount(tmp_path / "raw", "compton_0002").result()
    assert (again.frames, found["photons"]) == (100, int(again.singles.sum() + again.doubles.sum()))
    assert {path: path.read_bytes() for path in (tmp_path / "raw").glob("*.hits")} == parts
    rows = [one for one in answers if one["k"] == "hits"]
    assert [(row["path"], row["first"], row["frames"]) for row in rows] == [
        ("compton_0002_0001.hits", 0, 60), ("compton_0002_0002.hits", 60, 40),
    ]  # fmt: skip
    index.close()


def test_dark_frames_of_a_dead_host_are_no_dark_level(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    camera.draw(90)
    end = {"k": "exposure_end", "n": 1, "position": 0, "interrupted": True, "seen": 90}
    manager = Exposures("run", tmp_path, None, time.monotonic)
    list(manager.begin({**exposure(camera, 1, "dark"), "end": end}))
    (found,) = manager.end(end)
    assert (found["frames"], found["lost_with_host"], found["interrupted"]) == (0, 90, True)
    assert not list((tmp_path / "raw").glob("*.dark.npz"))
