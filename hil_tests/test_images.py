"""Images of the bench's camera through the reduction: the truth comes out, and again to the last bit."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from controller.config import experiment_from, from_text
from controller.offline import radiography, reduce
from controller.rawfile import RawIndex, read_index
from controller.reduce.session import Session
from hil_tests.sim import scenario
from hil_tests.sim.physics.neutrons import LITHIUM6_SHARE, Radiograph

SETTINGS = """
[experiment]
name = "images"
[sample]
name = "cell"
chemistry = "lithium metal"
capacity = "20 uAh"
capacity_error = "5 %"
[radiography]
air = { rows = [10, 150], columns = [4, 56] }
along = { rows = [0, 160], columns = [72, 184] }
bin = 4
wavelength = "0.1798 nm"
[[radiography.region]]
name = "cathode"
rows = [FIRST, LAST]
columns = [72, 184]
[[step]]
do = "rest"
duration = "1 s"
"""
EXPOSURES = (("dark", "dark", 4), ("open beam", "flat", 8), ("as prepared", "sample", 8))


class Taken:
    """The files and messages of a run, as control leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        world = scenario.build(scenario.read("quickstart"), seed=3)
        self.camera = Radiograph(world.sample, np.random.default_rng(1), {"neutrons_per_s": 200.0})
        self.truth = self.camera.truth()["cathode"]
        first, last = self.truth["rows"]
        text = SETTINGS.replace("FIRST", str(first)).replace("LAST", str(last))
        table = experiment_from(from_text(text, "images.toml")).radiography
        assert table is not None
        self.messages: list[dict[str, Any]] = [
            {"k": "run", "run": "r", "dir": str(folder), "settings": None, "radiography": table.settings()}
        ]
        source = {"kind": "images", "shape": [160, 256], "exposure_s": 2.0}
        for n, (name, purpose, frames) in enumerate(EXPOSURES, 1):
            begun = {"n": n, "role": "radiography", "name": name, "purpose": purpose, "source": source}
            self.messages.append({"k": "exposure", **begun})
            place = folder / "raw" / f"radiography_{n:04d}"
            place.mkdir(parents=True)
            for number in range(1, frames + 1):
                open_s = 0.0 if purpose == "dark" else 2.0
                image = self.camera.image(open_s, sample_in=purpose == "sample")
                tifffile.imwrite(place / f"{number:08d}.tif", image, metadata=None)
                stamp = {"lab_s": 10.0 * n + number, "soc": 0.01 * number, "temperature_k": 300.0}
                file = f"radiography_{n:04d}/{number:08d}.tif"
                self.messages.append({"k": "image", "n": n, "number": number, "file": file, "stamp": stamp})
            counters = {"frames": frames}
            self.messages.append({"k": "exposure_end", "n": n, "position": 0, "counters": counters})

    def reduced(self, products: Path, **patched: Mapping[str, Any]) -> list[dict[str, Any]]:
        session = Session(clock=lambda: 0.0, products=products)
        told = [*self.messages, {"k": "finish"}]
        return [answer for message in told for answer in session.handle(message)]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return Taken(tmp_path_factory.mktemp("images"))


def result(answers: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [answer["result"] for answer in answers if answer["k"] == "result"]
    return dict(found)


def reduced_states(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    (one,) = json.loads(capsys.readouterr().out)["files"]
    return list(one["states"])


def test_lithium_of_the_cathode_comes_out(taken: Taken, tmp_path: Path) -> None:
    (state,) = result(taken.reduced(tmp_path))["radiographs"]
    assert (state["name"], state["frames"]) == ("as prepared", 8)
    assert state["soc"] == {"mean": pytest.approx(0.045), "low": 0.01, "high": 0.08}
    found = state["lithium6_of_regions"][0]
    truth = taken.truth["lithium6_per_cm2"]
    assert found["unit"] == "1/cm2"
    assert found["sigma_stat"] < 0.02 * truth
    # The lithium of a region is taken from its mean transmission: where it is uneven that is a little less.
    off = found["value"] - truth
    assert abs(off) < 4.0 * np.hypot(found["sigma_stat"], found["sigma_sys"]) + 0.01 * truth
    assert LITHIUM6_SHARE == 0.0759


def test_told_again_every_byte_is_the_same(taken: Taken, tmp_path: Path) -> None:
    first, second = taken.reduced(tmp_path / "a"), taken.reduced(tmp_path / "b")
    assert json.dumps(result(first)) == json.dumps(result(second))
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files
    assert any("6Li" in name for name in files)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_reduce_that_is_started_again_knows_every_image_from_the_index(
    taken: Taken, tmp_path: Path
) -> None:
    index = RawIndex(tmp_path / "raw")
    for message in taken.messages:
        index.write(message)
    index.close()
    session = Session(clock=lambda: 0.0, products=tmp_path / "products")
    told = [*read_index(tmp_path / "raw"), {"k": "finish"}]
    again = [answer for message in told for answer in session.handle(message)]
    assert json.dumps(result(again)) == json.dumps(result(taken.reduced(tmp_path / "first")))


def test_the_folder_of_a_run_is_reduced_again_to_the_last_bit(
    taken: Taken, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(taken.folder / "raw", run / "raw")
    index = RawIndex(run / "raw")
    for message in taken.messages:
        index.write(message)
    index.close()
    (live,) = result(taken.reduced(tmp_path / "products"))["radiographs"]
    assert reduce.main(["radiography", str(run), "--json"]) == 0
    (state,) = reduced_states(capsys)
    assert state["label"] == "as prepared"
    for name in ("regions", "lithium6_of_regions", "lithium6", "profile", "dose"):
        assert state[name] == live[name]
    # Another region stands for that of the run; the rest is as it was.
    assert reduce.main(["radiography", str(run), "--json", "--region", "half = 90:120, 72:184"]) == 0
    (other,) = reduced_states(capsys)
    assert [one["name"] for one in other["regions"]] == ["half"]
    assert other["profile"] == live["profile"]


@pytest.mark.parametrize(
    ("without", "words", "wrong"),
    [
        ("dark", [], "no image of dark was recorded in this run: give some by --dark"),
        ("sample", [], "no image of a sample was recorded in this run"),
        ("", ["--maxwell", "60 K", "--wavelength", "2 A"], "--wavelength and --maxwell exclude each other"),
        ("", ["--region", "far = 0:999, 0:10"], "region 'far' is not inside 160 x 256 pixels"),
        ("", ["--soc", "0 %"], "go with images, not with the folder of a run"),
    ],
)
def test_what_a_run_does_not_hold_is_named(
    taken: Taken,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    without: str,
    words: list[str],
    wrong: str,
) -> None:
    index, left_out = RawIndex(tmp_path / "raw"), set[int]()
    for message in taken.messages:
        if message["k"] == "exposure" and message["purpose"] == without:
            left_out.add(message["n"])
        if message.get("n") not in left_out:
            file = str(taken.folder / "raw" / message["file"]) if "file" in message else None
            index.write({**message, "file": file} if file else message)
    index.close()
    assert reduce.main(["radiography", str(tmp_path), *words]) == 2
    assert wrong in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reduce.main(["radiography", str(tmp_path)]) == 2
    assert "this folder is not a run" in capsys.readouterr().err


def test_the_offline_command_finds_the_same_numbers(taken: Taken, tmp_path: Path) -> None:
    (state,) = result(taken.reduced(tmp_path))["radiographs"]
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    radiography.TECHNIQUE.add_arguments(parser)
    files = [sorted((taken.folder / "raw" / f"radiography_{n:04d}").iterdir()) for n in (1, 2, 3)]
    dark, flat, sample = ([str(path) for path in one] for one in files)
    first, last = taken.truth["rows"]
    args = parser.parse_args([
        *sample, "--open", *flat, "--dark", *dark, "--air", "10:150,4:56", "--profile", "0:160,72:184",
        "--bin", "4", "--wavelength", "1.798 A", "--region", f"cathode={first}:{last},72:184",
    ])  # fmt: skip
    args.merge = True
    parts = [radiography._part(args, path) for path in args.files]
    report = radiography._merge(args, parts)
    offline = report.data["states"][0]
    for key in ("dose", "regions", "profile", "lithium6_of_regions"):
        assert json.dumps(offline[key]) == json.dumps(state[key]), key


def test_an_image_that_is_gone_is_left_out_and_told(taken: Taken, tmp_path: Path) -> None:
    gone = dict(taken.messages[-3])
    messages = [*taken.messages]
    messages[-3] = {**gone, "file": "radiography_0003/00000099.tif"}
    session = Session(clock=lambda: 0.0, products=tmp_path)
    answers = [answer for message in messages for answer in session.handle(message)]
    checked = [answer for answer in answers if answer["k"] == "exposure_checked"]
    assert [one["frames"] for one in checked] == [4, 8, 7]
    assert checked[-1]["ok"] is False
    assert "is left out" in checked[-1]["why"]
