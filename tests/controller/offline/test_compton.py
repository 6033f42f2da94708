"""``operando reduce compton`` from the command line: simulated photons, and measured frames."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
from scipy.special import ndtr

from controller.offline import campaign, compton_text, reduce
from controller.offline.campaign_work import work
from controller.offline.product import unpack, unpack_product
from tests.data_sets import need
from tests.drivers.files.test_hexitec import hxt
from tests.edge import compton_model as model

NY, NX, PITCH_MM = 16, 20, 1.0
GAIN, OFFSET, LEVEL = 0.027, 1.5, 1005.0
SPREAD_AU = math.hypot(0.3, 8 * 0.027) / 0.2 * 0.2269  # of the simulated detector


def angle_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = (x - (NX - 1) / 2) * PITCH_MM, (y - (NY - 1) / 2) * PITCH_MM
    return np.arccos(u / np.sqrt(u**2 + v**2 + 150.0**2))


def energy_of(p: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Invert the momentum by a table."""
    e = model.scattered(theta)
    for _ in range(30):
        slope = (model.momentum(e + 0.01, theta) - model.momentum(e, theta)) / 0.01
        e = e - (model.momentum(e, theta) - p) / slope
    return e


def photons(valence: float):
    def draw(rng, y, x):
        narrow = rng.random(y.size) < valence
        p = np.where(narrow, rng.normal(0, 0.9, y.size), rng.normal(0, 3.0, y.size))
        return energy_of(p, angle_of(x, y)) + rng.normal(0, 0.3, y.size) - OFFSET

    return draw


def true_s(valence: float) -> float:
    def within(a: float) -> float:
        narrow, wide = (2 * ndtr(a / math.hypot(w, SPREAD_AU)) - 1 for w in (0.9, 3.0))
        return valence * narrow + (1 - valence) * wide

    return within(1.0) / (within(5.0) - within(1.0))


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Three depth regions, dark frames and calibration texts; 30 % of the photons in two pixels."""
    folder = tmp_path_factory.mktemp("cell")
    rng = np.random.default_rng(5)
    parts = {"cathode": (0.30, 0.010), "separator": (0.55, 0.006), "anode": (0.75, 0.020)}
    held = {"one": (1, 1, 0.64), "two": (0, 1, 0.89), "three": (0, 0, 1)}
    for name, fractions in held.items():
        total = np.full((2500, NY, NX), 0.0)
        for (valence, rate), fraction in zip(parts.values(), fractions, strict=True):
            if fraction:
                drawn = model.frames(
                    rng, 2500, NY, NX, rate * fraction, shared=0.3, noise=0.0, pedestal=0.0, gain=GAIN,
                    energy=photons(valence),
                )  # fmt: skip
                total += drawn.adu
        adu = total + rng.normal(LEVEL, 8.0, total.shape)
        np.rint(adu).astype("<u2").tofile(folder / f"{name}.bin")
    np.rint(rng.normal(LEVEL, 8.0, (800, NY, NX))).astype("<u2").tofile(folder / "dark.bin")
    np.savetxt(folder / "m.txt", np.full((NY, NX), GAIN))
    np.savetxt(folder / "c.txt", np.full((NY, NX), OFFSET))
    return folder


def options(cell, *more):
    return [
        "--shape", f"{NY}x{NX}", "--dark", str(cell / "dark.bin"), "--gain", str(cell / "m.txt"), "--offset",
        str(cell / "c.txt"), "--pitch", "1 mm", "--threshold", "3 keV", *more,
    ]  # fmt: skip


def run(capsys, *words) -> dict:
    assert reduce.main(["compton", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["files"]


def test_s_of_simulated_photons_comes_out(cell, capsys):
    (found,) = run(capsys, cell / "three.bin", *options(cell, "--lithium", "nmc811"))
    s = found["S"]
    error = math.hypot(s["sigma_stat"], s["sigma_sys"])
    assert abs(s["value"] - true_s(0.75)) < 3.5 * error
    assert error < 0.06
    frames = found["frames"]
    assert frames["number"] == 2500
    assert frames["dark"]["noise"]["value"] == pytest.approx(8.0, abs=0.1)
    assert 0.8 < frames["acceptance_mean"]["value"] < 0.95
    assert frames["doubles"] == 0
    assert abs(found["scale_shift"]["value"]) < 0.15
    assert found["lithium"]["one_minus_x"]["value"] == pytest.approx(0.43306 * s["value"] - 0.28154, abs=2e-4)


def test_adding_pairs_finds_more_photons_and_threads_change_nothing(cell, capsys, monkeypatch):
    from drivers.files import hexitec_frames

    monkeypatch.setattr(hexitec_frames, "BLOCK_BYTES", 64 * 2 * NY * NX)
    (alone,) = run(capsys, cell / "three.bin", *options(cell, "--mode", "discriminate"))
    results = [
        run(capsys, cell / "three.bin", *options(cell, "--mode", "add", "--offset", "0 keV", "--threads", n))[
            0
        ]
        for n in ("1", "2")
    ]
    assert results[0] == results[1]
    assert results[0]["frames"]["singles"] == alone["frames"]["singles"]
    assert results[0]["frames"]["doubles"] > 0.25 * alone["frames"]["singles"]


def test_depth_regions_unmixed_with_figures_and_arrays(cell, capsys, tmp_path):
    files = [cell / f"{name}.bin" for name in ("one", "two", "three")]
    words = [*files, *options(cell, "--unmix", "huang2024", "--lithium", "nmc811"), "--out", tmp_path]
    assert reduce.main(["compton", *map(str, words)]) == 0
    text = capsys.readouterr().out
    assert "cathode = +1 region 1 -1 region 2 +0.25 region 3" in text
    (found,) = json.loads((tmp_path / "result.json").read_text())["files"]
    for name, valence in (("cathode", 0.30), ("separator", 0.55), ("anode", 0.75)):
        s = found["components"][name]["S"]
        assert abs(s["value"] - true_s(valence)) < 3.5 * math.hypot(s["sigma_stat"], s["sigma_sys"]), name
    names = {path.name for path in tmp_path.glob("*.png")}
    assert {"one-depth.png", "one-region-1-s-map.png", "one-region-3-counts.png"} <= names
    with h5py.File(tmp_path / "result.h5") as file:
        (entry,) = file.values()
        assert entry["region_1_spectra/values"].shape == (NY, NX, 900)
        assert entry["region_2_acceptance/values"].shape == (NY, NX)


def test_a_mixing_of_ones_own(cell, capsys, tmp_path):
    mixing = tmp_path / "mixing.toml"
    mixing.write_text('regions = ["a", "b"]\ncomponents = ["x", "y"]\nfractions = [[1, 0.5], [0, 1]]\n')
    found = run(capsys, cell / "one.bin", cell / "three.bin", *options(cell, "--unmix", mixing))[0]
    assert found["components"]["y"]["S"]["value"] == found["regions"][1]["S"]["value"]
    mixing.write_text('regions = ["a"]\n')
    assert reduce.main(["compton", str(cell / "one.bin"), *options(cell, "--unmix", str(mixing))]) == 2
    assert "regions, components and a table of fractions" in capsys.readouterr().err


def test_merged_files_are_their_sum(cell, capsys, tmp_path):
    raw = (cell / "three.bin").read_bytes()
    cut = 1000 * 2 * NY * NX
    for name, part in (("a.bin", raw[:cut]), ("b.bin", raw[cut:])):
        (tmp_path / name).write_bytes(part)
    (whole,) = run(capsys, cell / "three.bin", *options(cell))
    drawn = ("--figures", "svg", "--out", tmp_path / "out")
    (merged,) = run(capsys, tmp_path / "a.bin", tmp_path / "b.bin", *options(cell), "--merge", *drawn)
    assert ">2 files: " in (tmp_path / "out" / "a-spectrum.svg").read_text()  # the title
    for key in ("number", "hits", "singles", "discarded_hits", "acceptance_mean"):
        assert merged["frames"][key] == whole["frames"][key]
    assert merged["S"]["value"] == pytest.approx(whole["S"]["value"], rel=0.01)  # the pattern began anew


def test_on_a_cluster_a_worker_gets_its_own_file_and_its_own_factor(cell, capsys):
    """Also with files that are sent, and when the files are parts of one measurement."""
    files = [cell / "one.bin", cell / "three.bin"]
    words = ["compton", *map(str, files), *options(cell, "--attenuation", "1.015,1.005")]
    together = run(capsys, *words[1:])
    args = reduce.build_parser(words).parse_args(words)
    tasks = campaign.plan(args, "controller.offline.compton", args.chosen.jobs(args), send=True)
    beside = [cell / name for name in ("dark.bin", "m.txt", "c.txt")]
    for task, file, entry in zip(tasks, files, together, strict=True):
        assert task.files == (file,)
        assert [path for path, _ in task.inputs] == [file, *beside]
        data = unpack_product(work(campaign._with_content(task)).product).data
        assert data == {name: value for name, value in entry.items() if name != "inputs"}
    words = ["compton", *map(str, files), *options(cell, "--attenuation", "1.015"), "--merge"]
    (merged,) = run(capsys, *words[1:])
    assert [entry["file"] for entry in merged["inputs"]] == [path.name for path in (*files, *beside)]
    args = reduce.build_parser(words).parse_args(words)
    parts = campaign.plan_parts(args, "controller.offline.compton", send=True)
    assert all([path for path, _ in part.inputs][1:] == beside for part in parts)
    states = [unpack(work(campaign._with_content(part)).product) for part in parts]
    data = args.chosen.merge.finish(args, states).data
    assert data["S"] == merged["S"]
    assert data["frames"] == merged["frames"]


def test_a_histogram_file(capsys, tmp_path):
    rng = np.random.default_rng(9)
    edges = 70.0 + 0.25 * np.arange(161)
    y, x = np.mgrid[:NY, :NX]
    p = model.momentum(edges, angle_of(x, y)[..., None])
    rates = np.diff(0.5 * ndtr(p / 0.9) + 0.5 * ndtr(p / 3.0), axis=-1)
    path = tmp_path / "run.hxt"
    path.write_bytes(hxt(rng.poisson(800 * rates), low=70.0, width=0.25))
    (found,) = run(capsys, path, "--pitch", "1 mm")
    core, inside = (0.5 * (4 - 2) - 1 + ndtr(a / 0.9) + ndtr(a / 3.0) - 1 for a in (1.0, 5.0))
    s = found["S"]
    assert abs(s["value"] - core / (inside - core)) < 3.5 * math.hypot(s["sigma_stat"], s["sigma_sys"])
    assert "frames" not in found
    path.write_bytes(hxt(rng.poisson(800 * rates), low=0.0, width=40.0))
    assert reduce.main(["compton", str(path)]) == 2
    assert "cannot be in keV" in capsys.readouterr().err


def test_a_mask_leaves_pixels_out(cell, capsys, tmp_path):
    mask = np.ones((NY, NX), int)
    mask[:, :5] = 0
    np.savetxt(tmp_path / "mask.txt", mask, fmt="%d")
    (found,) = run(capsys, cell / "three.bin", *options(cell, "--mask", tmp_path / "mask.txt"))
    assert found["pixels"] == NY * (NX - 5)


def test_measured_frames_without_photons_in_the_windows(capsys):
    path = need("hexitec/raw_80x80_first_frames.dat", "the first frames of the stream")
    words = [path, "--dark", "self", "--gain", "0.027 keV", "--threshold", "13.4 keV"]
    (found,) = run(capsys, *words)
    assert found["frames"]["number"] == 6
    assert found["frames"]["dark"]["level"]["value"] == pytest.approx(1005.4, abs=1.0)
    assert found["S"]["value"] is None
    assert reduce.main(["compton", *map(str, words)]) == 0
    assert "S: not determined" in capsys.readouterr().out


def test_everything_wrong_is_said_at_once(cell, capsys, tmp_path):
    (tmp_path / "bad.bin").write_bytes(b"123")
    words = [str(cell / "three.bin"), "--energy", "115", "--gain", "3", "--angle", "90 keV", "--shape", "80"]
    assert reduce.main(["compton", *words]) == 2
    said = capsys.readouterr().err
    for part in ('--energy "115" has no unit', '--gain "3" is no file', "--angle", "--shape '80'"):
        assert part in said
    assert (
        reduce.main(["compton", str(tmp_path / "bad.bin"), str(cell / "three.bin"), "--shape", "16x20"]) == 2
    )
    said = capsys.readouterr().err
    assert "whole frames of 16 x 20 uint16" in said
    assert "frames need --dark FILE" in said
    assert "frames need --gain" in said
    assert reduce.main(["compton", str(cell / "one.bin"), *options(cell, "--unmix", "huang2024")]) == 2
    assert "3 FILES wanted" in capsys.readouterr().err


def test_the_table_of_the_papers():
    text = compton_text.paper()
    assert "93.874" in text
    assert "misprint" in text
