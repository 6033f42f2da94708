"""The command on a scan in several files: the same bits as on one file, and what does not fit is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from controller.offline import reduce, tomography_slices
from controller.offline.tomography import SliceOptions
from controller.offline.tomography_slices import reduce_projections
from drivers.files import tomo_hdf5
from tests.data_sets import need
from tests.drivers.files.makers_images import npz, tomogram

WORDS = ("--centre", "295.25", "--rings", "none")
OPTIONS = SliceOptions(centre_px=295.25, rings="none")
NAMES = ("data", "data_white", "data_dark", "theta")


def save(path: Path, **parts: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in parts.items():
            file[f"exchange/{name}"] = values
    return path


@pytest.fixture(scope="module")
def tooth(tmp_path_factory) -> tuple[Path, list[Path]]:
    """The measured row of a tooth; and dealt out to three files, of which not every one has references."""
    folder = tmp_path_factory.mktemp("scan")
    path = need("ct/tooth_row0.h5", "tooth, first row")
    with h5py.File(path) as file:
        data, flats, darks, theta = (file[f"exchange/{name}"][:] for name in NAMES)
    parts = [
        save(folder / "a.h5", data=data[:60], theta=theta[:60], data_white=flats[:4]),
        save(folder / "b.h5", data=data[60::2], theta=theta[60::2], data_dark=darks),
        save(folder / "c.h5", data=data[61::2], theta=theta[61::2], data_white=flats[4:]),
    ]
    return path, parts


def reduced(path: Path) -> tuple[dict, np.ndarray]:
    report = reduce_projections(tomo_hdf5.read(path), OPTIONS)
    return report.data, report.slices


def without(data: dict, *names: str) -> dict:
    return {name: value for name, value in data.items() if name not in names}


def test_a_scan_in_several_files_is_the_scan(tooth, tmp_path, capsys):
    whole, parts = tooth
    one, slices = reduced(whole)
    files = [str(part) for part in parts]
    out = tmp_path / "out"
    assert reduce.main(["tomography", *files, "--merge", *WORDS, "--out", str(out)]) == 0
    assert "181 projections of 1 x 640 pixels, 10 flats, 10 darks" in capsys.readouterr().out
    (merged,) = json.loads((out / "result.json").read_text())["files"]
    assert merged["notes"] == ["one scan in 3 files: a.h5, b.h5, c.h5"]
    assert [entry["file"] for entry in merged["inputs"]] == ["a.h5", "b.h5", "c.h5"]
    assert without(merged, "file", "notes", "inputs") == without(one, "file", "notes")
    with h5py.File(out / "result.h5") as file:
        assert file["a/slices/values"][()].tobytes() == slices.tobytes()
    assert (out / "a-slices.png").stat().st_size > 10_000
    assert reduce.main(["tomography", *reversed(files), "--merge", *WORDS, "--json"]) == 0
    (turned,) = json.loads(capsys.readouterr().out)["files"]
    assert without(turned, "file", "notes", "inputs") == without(merged, "file", "notes", "inputs")


def test_the_summary_of_several_volumes_has_their_porosity(tmp_path, capsys):
    pores = np.zeros((8, 8, 8), bool)
    pores[:, 2:6, 2:6] = True
    paths = [tmp_path / f"{name}.npz" for name in "ab"]
    paths[0].write_bytes(npz(im=pores))
    paths[1].write_bytes(npz(im=~pores))
    assert reduce.main(["tomography", *map(str, paths), "--regions", "2", "--tortuosity", "z"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[1].split() == ["file", "porosity", "tortuosity", "z"]
    assert [float(line.split()[1]) for line in lines[2:4]] == [0.25, 0.75]
    tortuosity = re.split(r"\s{2,}", lines[2].strip())[2]
    assert float(tortuosity.split()[0]) == pytest.approx(1.0, abs=0.01)  # a straight channel


def test_what_is_no_part_of_one_scan_is_refused(tooth, tmp_path, capsys):
    _, (a, b, c) = tooth
    volume = tmp_path / "volume.npz"
    volume.write_bytes(npz(im=np.zeros((4, 4, 4), bool)))
    other = tmp_path / "other.h5"
    other.write_bytes(tomogram())
    again = save(tmp_path / "again.h5", data=np.ones((2, 1, 640), "f4"), theta=np.array([0.0, 200.0]))
    bare = save(tmp_path / "bare.h5", data=np.ones((2, 1, 640), "f4"))
    for files, expected in (
        ((a, c), "the scan has no darks"),
        ((a, b, volume), "volume.npz: only projections"),
        ((a, other), "other.h5 and a.h5 have different numbers of rows"),
        ((a, again), "again.h5: two parts of a scan both have a projection at 0 degrees"),
        ((a, bare), "bare.h5: /exchange/theta: expected a dataset"),
    ):
        assert reduce.main(["tomography", *map(str, files), "--merge", *WORDS]) == 2
        assert expected in capsys.readouterr().err
    assert reduce.main(["tomography", str(a), *WORDS]) == 2  # a part alone is no scan
    assert "/exchange/data_dark: expected a dataset" in capsys.readouterr().err


def test_flats_that_changed_between_files_are_told(tooth, tmp_path, capsys):
    _, (a, b, c) = tooth
    with h5py.File(c) as file:
        data, flats, theta = (file[f"exchange/{name}"][:] for name in ("data", "data_white", "theta"))
    brighter = save(tmp_path / "brighter.h5", data=data, theta=theta, data_white=1.05 * flats)
    assert reduce.main(["tomography", *map(str, (a, b, brighter)), "--merge", *WORDS]) == 0
    assert "the flats of the files differ by 5." in capsys.readouterr().out


def test_slabs_of_rows_are_the_rows_together(tmp_path, monkeypatch):
    """A scan that does not fit is read slab by slab: the same bits."""
    rng = np.random.default_rng(9)
    x = np.arange(48) - 23.5
    chord = 0.02 * 2.0 * np.sqrt(np.clip(15.0**2 - x**2, 0.0, None))
    mean = 50 + 20_000 * np.exp(-chord)
    data = rng.poisson(np.broadcast_to(mean, (61, 7, 48))).astype("u2")
    path = save(
        tmp_path / "disc.h5", data=data, theta=np.linspace(0.0, 180.0, 61),
        data_white=np.full((2, 7, 48), 20_050, "u2"), data_dark=np.full((2, 7, 48), 50, "u2"),
    )  # fmt: skip
    found = []
    for budget in (1 << 20, 61 * 48 * 2 * 3):
        monkeypatch.setattr(tomography_slices, "SLAB_BYTES", budget)
        monkeypatch.setattr(tomography_slices, "BLOCK_BYTES", budget // 16)
        report = reduce_projections(tomo_hdf5.read(path), SliceOptions(rings="none"))
        found.append((report.data, report.slices.tobytes()))
    assert found[0] == found[1]
    mean = found[0][0]["object_mean_per_pixel"][3]
    sigma = float(np.hypot(mean["sigma_stat"], mean["sigma_sys"]))
    assert 0 < sigma < 0.001
    assert mean["value"] == pytest.approx(0.02, abs=3 * sigma)
    area = found[0][0]["object_pixels"][3]
    assert area["value"] == pytest.approx(np.pi * 15.0**2, abs=3 * area["sigma_sys"])
