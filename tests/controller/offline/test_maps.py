"""Several frames of one raster are one map: added exactly, in any order; what is unlike is refused."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from controller.offline import reduce
from controller.offline.maps import parse_lines
from controller.offline.maps_reduce import reduce_sums
from controller.offline.maps_sums import MapOptions, sums_of
from drivers.files.recordings_images import MassSpectrum, RecordedMassMap
from tests.data_sets import need
from tests.drivers.files.makers_images import npz

WORDS = (
    "--lines",
    "Fe=3.0 keV, Cu=4.5 keV",
    "--half-width",
    "0.35 keV",
    "--gain",
    "0.1 keV",
    "--ratio",
    "Fe/Cu",
)


def without(data: dict, *names: str) -> dict:
    return {name: value for name, value in data.items() if name not in names}


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Three frames of 12 x 10 pixels and 64 channels, and their sum."""
    rng = np.random.default_rng(3)
    mean = np.full((12, 10, 64), 0.5)
    mean[:, 3:, 27:34] += 4.0
    mean[6:, :, 42:49] += 2.0
    parts = [rng.poisson(mean).astype(np.uint16) for _ in range(3)]
    return [*parts, np.sum(parts, axis=0, dtype=np.uint16)]


def test_frames_of_one_raster_are_one_map(frames, tmp_path: Path, capsys):
    paths = [tmp_path / f"{name}.npz" for name in ("a", "b", "c", "whole")]
    for path, counts in zip(paths, frames, strict=True):
        path.write_bytes(npz(counts=counts))
    assert reduce.main(["maps", str(paths[3]), *WORDS, "--json"]) == 0
    (whole,) = json.loads(capsys.readouterr().out)["files"]
    for order in itertools.permutations(paths[:3]):
        assert reduce.main(["maps", *map(str, order), *WORDS, "--merge", "--json"]) == 0
        (merged,) = json.loads(capsys.readouterr().out)["files"]
        said = f"3 frames added: {', '.join(path.name for path in order)}"
        assert [note for note in merged["notes"] if note not in whole["notes"]] == [said]
        assert without(merged, "file", "notes", "inputs") == without(whole, "file", "notes", "sha256")
    paths[1].write_bytes(npz(counts=frames[1][:, :9]))
    assert reduce.main(["maps", *map(str, paths[:2]), *WORDS, "--merge"]) == 2
    assert "b.npz and a.npz have different columns" in capsys.readouterr().err
    paths[1].write_bytes(npz(counts=frames[1][..., :60]))
    assert reduce.main(["maps", *map(str, paths[:2]), *WORDS, "--merge"]) == 2
    assert "different channels" in capsys.readouterr().err


def test_named_images_are_added_and_others_refused(frames, tmp_path: Path, capsys):
    maps = [frame.sum(axis=2) for frame in frames]
    paths = [tmp_path / f"{k}.npz" for k in range(3)]
    for path, values in zip(paths, maps, strict=False):
        path.write_bytes(npz(Fe=values, Cu=values // 3))
    assert reduce.main(["maps", *map(str, paths), "--merge", "--json"]) == 0
    (merged,) = json.loads(capsys.readouterr().out)["files"]
    gross = {line["name"]: line["gross_counts"] for line in merged["lines"]}
    assert gross == {"Fe": int(maps[3].sum()), "Cu": int(sum((one // 3).sum() for one in maps[:3]))}
    paths[2].write_bytes(npz(Fe=maps[2], Ni=maps[2]))
    assert reduce.main(["maps", *map(str, paths), "--merge"]) == 2
    assert "2.npz and 0.npz have different images" in capsys.readouterr().err


def test_mass_spectra_of_other_ranges_come_onto_common_bins():
    """The sum spectrum loses no count and coarsens exactly; maps are those of one file with all spectra."""
    rng = np.random.default_rng(8)

    def recorded(name: str, spectra: list[MassSpectrum]) -> RecordedMassMap:
        return RecordedMassMap(Path(name), 3, 2, len(spectra), 999, lambda: iter(spectra))

    def drawn(pixel: int, low: float, high: float) -> MassSpectrum:
        mass = np.sort(rng.uniform(low, high, 400))
        return MassSpectrum(pixel, mass, rng.poisson(3.0, 400).astype(np.float64))

    spectra = [
        drawn(k % 6, low, high) for k, (low, high) in enumerate([(0.5, 20.0), (3.0, 300.0), (6.0, 7.9)] * 4)
    ]
    options = MapOptions(parse_lines("Li=7.016 Da"), relative=0.2)
    whole = reduce_sums([sums_of(recorded("all", spectra), options)], options)
    parts = [sums_of(recorded(str(k), spectra[k::3]), options) for k in range(3)]
    assert len({part["bins"][0] for part in parts}) > 1
    for order in itertools.permutations(parts):
        merged = reduce_sums(order, options)
        assert without(merged.data, "file", "notes") == without(whole.data, "file", "notes")
        ours, theirs = merged.counted.spectrum, whole.counted.spectrum
        assert ours is not None
        assert theirs is not None
        assert np.array_equal(ours.counts, theirs.counts)
        assert np.array_equal(ours.axis, theirs.axis)
    assert whole.counted.spectrum.counts.sum() == sum(int(s.intensity.sum()) for s in spectra)


def test_nothing_but_the_reason_is_printed_when_nothing_was_reduced(capsys):
    code = reduce.main(["maps", str(need("xrf/xfm_20x10_2det.npz", "command line")), "--lines", "Fe"])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "no energy calibration: give --gain" in err


def test_a_centre_of_mass_has_errors_and_a_unit(capsys):
    path = need("xrf/xfm_20x10_2det.npz", "command line")
    words = ["maps", str(path), "--lines", "Fe", "--gain", "10 eV", "--offset", "0 eV"]
    assert reduce.main(words) == 0
    out = capsys.readouterr().out
    assert "centre of mass y, x / pixels" in out
    assert re.search(r"\d\.\d+ ± 0\.0\d+, \d+\.\d+ ± 0\.0\d+$", out, re.MULTILINE)
