"""A watched folder as beamline software fills it: growing, late, twice, half, wrong. The clock is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from drivers.files import images
from drivers.frame_hdf5 import Hdf5Watch
from drivers.frame_watch import FolderWatch, Taken, TooMany, WatchSettings, whole_image

SHAPE = (6, 8)


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 60000, SHAPE, dtype=np.uint16)


class Folder:
    """A folder, its watch, and a clock."""

    def __init__(self, path: Path, **settings: float | str) -> None:
        told = {"settle_s": 1.0, "patience_s": 10.0, **settings}
        self.path, self.now_s = path, 100.0
        pattern = str(told.pop("pattern", "*.tif"))
        read = whole_image(SHAPE, images.read)
        self.watch = FolderWatch(WatchSettings(path, pattern, **told), read)  # type: ignore[arg-type]

    def write(self, name: str, number: int, *, part: float = 1.0) -> None:
        whole = self.path / f".whole-{name}"
        tifffile.imwrite(whole, image(number))
        data = whole.read_bytes()
        whole.unlink()
        (self.path / name).write_bytes(data[: round(part * len(data))])

    def look(self, seconds: float = 0.5) -> list[Taken]:
        self.now_s += seconds
        return list(self.watch.look(self.now_s))

    def later(self, seconds: float) -> list[Taken]:
        """Look twice a second for a while."""
        return [taken for _ in range(round(2 * seconds)) for taken in self.look()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.watch.start(made.now_s)
    return made


def numbers(found: list[Taken]) -> list[int]:
    return [taken.number for taken in found]


def test_whole_images_are_taken_once_and_as_they_are(folder: Folder) -> None:
    for number in (7, 8, 9):
        folder.write(f"cell_{number:05d}.tif", number)
    found = folder.later(3.0)
    assert numbers(found) == [7, 8, 9]
    assert np.array_equal(found[1].image, image(8))
    assert found[1].nbytes == (folder.path / "cell_00008.tif").stat().st_size
    assert folder.later(3.0) == []
    assert folder.watch.tally.as_dict() == {
        "frames": 3, "lost": 0, "repeated": 0, "held": 0, "incomplete": 0, "problems": [],
    }  # fmt: skip


def test_a_growing_file_is_not_touched_before_it_stands_still(folder: Folder) -> None:
    for part in (0.1, 0.4, 0.7, 0.9):
        folder.write("a_1.tif", 1, part=part)
        assert folder.look(0.9) == []
    folder.write("a_1.tif", 1)
    assert folder.look(0.5) == []
    assert numbers(folder.later(2.0)) == [1]


def test_a_half_file_blocks_nothing_and_is_counted_at_last(folder: Folder) -> None:
    folder.write("a_1.tif", 1, part=0.6)
    folder.write("a_2.tif", 2)
    assert numbers(folder.later(3.0)) == [2]
    assert folder.watch.tally.as_dict()["incomplete"] == 0  # there is still hope
    assert folder.later(12.0) == []
    told = folder.watch.tally.as_dict()
    assert told["incomplete"] == 1
    assert told["problems"][0].startswith("a_1.tif: ")
    folder.write("a_1.tif", 1)  # its writer came back
    assert numbers(folder.later(3.0)) == [1]
    assert folder.watch.tally.as_dict()["incomplete"] == 0


def test_renamed_into_place_and_temporary_names(folder: Folder) -> None:
    folder.write("a_1.tif.part", 1)
    folder.write(".a_2.tif", 2)
    assert folder.later(3.0) == []
    (folder.path / "a_1.tif.part").rename(folder.path / "a_1.tif")
    assert numbers(folder.later(2.0)) == [1]


def test_gaps_late_files_and_repeats_are_counted(folder: Folder) -> None:
    for number in (1, 2, 5):
        folder.write(f"a_{number}.tif", number)
    folder.later(2.0)
    assert folder.watch.tally.lost == 2
    folder.write("a_4.tif", 4)  # late, out of order
    assert numbers(folder.later(2.0)) == [4]
    assert folder.watch.tally.lost == 1
    folder.write("a_6.tif", 5)  # the same pixels under another number
    folder.write("b_4.tif", 44)  # the same number in another file
    assert folder.later(2.0) == []
    told = folder.watch.tally.as_dict()
    assert (told["frames"], told["repeated"], told["lost"]) == (4, 2, 1)


def test_the_wrong_things_are_named(folder: Folder) -> None:
    (folder.path / "a_1.tif").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    tifffile.imwrite(folder.path / "a_2.tif", np.zeros((3, 3), np.uint16))
    tifffile.imwrite(folder.path / "a_3.tif", np.zeros((2, *SHAPE), np.uint16))
    folder.write("without.tif", 4)
    (folder.path / "a_5.tif").mkdir()
    os.symlink("/etc/passwd", folder.path / "a_6.tif")
    (folder.path / "a_7.tif").write_bytes(b"")
    assert folder.later(15.0) == []
    problems = folder.watch.tally.incomplete
    assert set(problems) == {"a_1.tif", "a_2.tif", "a_3.tif", "a_7.tif", "without.tif"}
    assert "one image of 6 x 8" in problems["a_2.tif"]
    assert "no number" in problems["without.tif"]


@pytest.mark.parametrize("name", [f"a_{1 << 62}.tif", f"a_{10**200}.tif", "abc_7.tif"])
def test_a_number_that_nobody_counts_to_is_none(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path, number="a_([0-9]+)|(abc)")
    folder.watch.start(folder.now_s)
    folder.write(name, 1)
    assert folder.later(15.0) == []
    assert "nobody counts to" in folder.watch.tally.incomplete[name]
    assert folder.watch.tally.as_dict()["lost"] == 0


def test_what_was_there_and_what_began_before_is_not_used(tmp_path: Path) -> None:
    folder = Folder(tmp_path, hold_s=2.0)
    folder.write("a_1.tif", 1)
    folder.watch.start(folder.now_s)
    folder.write("a_2.tif", 2)  # its exposure began before the start
    assert folder.later(4.0) == []
    folder.write("a_3.tif", 3)
    assert numbers(folder.later(2.0)) == [3]
    assert folder.watch.tally.held == 1
    assert folder.watch.tally.lost == 0
    folder.write("a_1.tif", 11)  # the camera's numbers came round: a new file under an old name
    (folder.path / "x").write_bytes((folder.path / "a_1.tif").read_bytes())
    (folder.path / "x").rename(folder.path / "a_1.tif")
    assert numbers(folder.later(3.0)) == [1]


def test_a_file_that_changes_while_it_is_read_waits(folder: Folder) -> None:
    folder.write("a_1.tif", 1)
    folder.look()
    reader = folder.watch._read

    def disturbed(path: Path) -> tuple[np.ndarray, bytes, int]:
        found = reader(path)
        os.utime(path, ns=(1, 1))
        return found

    folder.watch._read = disturbed
    assert folder.later(1.5) == []
    folder.watch._read = reader
    assert numbers(folder.later(3.0)) == [1]


def test_too_many_files_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.frame_watch.MOST_FILES", 3)
    folder = Folder(tmp_path)
    for number in range(5):
        folder.write(f"a_{number}.tif", number)
    with pytest.raises(TooMany, match="folder of its own"):
        folder.watch.start(0.0)
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "nowhere").watch.start(0.0)


# --- growing HDF5 ----------------------------------------------------------------------------------------


def growing(path: Path, **settings: float) -> Hdf5Watch:
    told = WatchSettings(path, "*.h5", settle_s=1.0, patience_s=10.0, **settings)
    return Hdf5Watch(told, SHAPE, "/entry/data/data", "/entry/numbers")


WRITER = """
import sys, h5py, numpy as np
path, libver, swmr = sys.argv[1:4]
file = h5py.File(path, "w", libver=libver)
data = file.create_dataset("entry/data/data", (0, 6, 8), "u2", maxshape=(None, 6, 8), chunks=(1, 6, 8))
unique = file.create_dataset("entry/numbers", (0,), "i4", maxshape=(None,))
if swmr == "swmr":
    file.swmr_mode = True
print("ready", flush=True)
for line in sys.stdin:
    number = int(line)
    image = np.random.default_rng(number).integers(0, 60000, (6, 8), dtype=np.uint16)
    for one, value in ((data, image), (unique, number)):
        one.resize(one.shape[0] + 1, axis=0)
        one[-1] = value
        one.flush()
    file.flush()
    print(number, flush=True)
file.close()
"""


class Writer:
    """Beamline software: another process, for the library shares files inside one."""

    def __init__(self, path: Path, *, libver: str = "latest", swmr: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), libver, "swmr" if swmr else "plain"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answer()

    def _answer(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def append(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        self._answer()

    def close(self) -> None:
        self.process.communicate(timeout=20.0)


def test_swmr_is_read_while_it_grows(tmp_path: Path) -> None:
    watch = growing(tmp_path)
    watch.start(0.0)
    writer = Writer(tmp_path / "run.h5", swmr=True)
    found: list[Taken] = []
    for number in (3, 4, 6):
        writer.append(number)
        found += watch.look(0.2 * number)
    assert numbers(found) == [3, 4]  # the newest is used when the next one has begun ...
    assert watch.tally.lost == 0
    assert numbers(list(watch.look(2.5))) == [6]  # ... or when nothing grows any more
    assert np.array_equal(found[1].image, image(4))
    writer.close()
    assert list(watch.look(4.0)) == []
    assert watch.tally.as_dict()["lost"] == 1
    assert watch.tally.as_dict()["frames"] == 3


def test_any_other_file_waits_until_it_stands_still(tmp_path: Path) -> None:
    watch = growing(tmp_path)
    watch.start(0.0)
    writer = Writer(tmp_path / "run.h5", libver="earliest")
    writer.append(1)
    assert list(watch.look(0.5)) == []
    writer.append(2)
    assert list(watch.look(0.9)) == []
    writer.close()
    assert list(watch.look(1.0)) == []
    assert numbers([*watch.look(2.1), *watch.look(3.3)]) == [1, 2]


def test_what_an_hdf5_file_held_before_is_left(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run.h5", swmr=True)
    writer.append(1)
    watch = growing(tmp_path)
    watch.start(0.0)
    list(watch.look(0.1))
    writer.append(2)
    writer.append(3)
    assert numbers(list(watch.look(0.3))) == [2]
    writer.close()


def test_half_an_hdf5_file_is_counted_at_last(tmp_path: Path) -> None:
    watch = growing(tmp_path)
    watch.start(0.0)
    writer = Writer(tmp_path / "whole.hdf")
    writer.append(1)
    writer.close()
    (tmp_path / "cut.h5").write_bytes((tmp_path / "whole.hdf").read_bytes()[:900])
    for now_s in (0.5, 2.0, 8.0):
        assert list(watch.look(now_s)) == []
    assert watch.tally.incomplete == {}
    assert list(watch.look(11.0)) == []
    assert set(watch.tally.incomplete) == {"cut.h5"}


@pytest.mark.parametrize(
    "told",
    [
        np.array(7), np.array([[1, 2]]), np.array([1.0, np.nan]), np.array([b"1", b"2"]), np.array([-1, 2]),
        np.array([1 << 63, 2], np.uint64), None,
    ],
    ids=["one", "table", "fractions", "text", "negative", "huge", "group"],
)  # fmt: skip
def test_numbers_that_are_none_end_nothing_but_their_file(tmp_path: Path, told: np.ndarray | None) -> None:
    watch = growing(tmp_path)
    watch.start(0.0)
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        file["entry/data/data"] = np.stack([image(1), image(2)])
        if told is None:
            file.create_group("entry/numbers")
        else:
            file["entry/numbers"] = told
    with h5py.File(tmp_path / "right.h5", "w") as file:
        file["entry/data/data"], file["entry/numbers"] = image(3)[None], np.array([1])
    found = [taken for now_s in (0.5, 2.0, 5.0, 11.0, 12.0) for taken in watch.look(now_s)]
    assert [taken.origin for taken in found] == ["right.h5[0]"]
    assert set(watch.tally.incomplete) == {"wrong.h5"}
