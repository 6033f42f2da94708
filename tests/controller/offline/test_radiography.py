"""``operando reduce radiography`` on the measured step wedges: numbers, mask, files, problems."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

from controller.offline import reduce
from controller.offline.figures_radiography import areal
from controller.offline.radiography import TECHNIQUE, RadiographyReport
from controller.offline.radiography_lithium import lithium
from controller.offline.radiography_options import parse_options
from controller.offline.technique import Problems
from drivers.files import images
from edge.isotopes import lithium6_cross_section
from tests.data_sets import need, reference

STEPS = reference("neutron")["stepwedge_20s"]["steps"]
VALUES = "step wedge with scattering correction"


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    TECHNIQUE.add_arguments(parser)
    return parser.parse_args(words)


def region_words() -> list[str]:
    words = []
    for step in STEPS:
        rows, columns = (":".join(map(str, step[key])) for key in ("rows", "cols"))
        name = f"{step['wedge']} {step['water_mm']:g}"
        words += ["--region", f"{name} = {rows}, {columns}, {step['water_mm']} mm"]
    return words


def crop_words(*more: str) -> list[str]:
    path = {name: str(need(f"neutron/crop_{name}.tif", VALUES)) for name in ("h2o", "ob", "dc", "empty")}
    return [
        path["h2o"], "--open", path["ob"], "--dark", path["dc"], "--reference", path["empty"],
        "--air", "10:60, 10:100", *more,
    ]  # fmt: skip


def reduced(words: list[str]) -> RadiographyReport:
    (job,) = TECHNIQUE.jobs(arguments(words))
    report = job.run()
    assert isinstance(report, RadiographyReport)
    return report


@cache
def whole() -> RadiographyReport:
    path = {
        name: str(need(f"neutron/stepwedge_20s_{name}.tif", VALUES))
        for name in ("h2o", "ob", "dc", "empty", "bbob", "bbh2o")
    }
    return reduced([
        path["h2o"], "--open", path["ob"], "--dark", path["dc"], "--reference", path["empty"],
        "--air", "30:80, 700:790", "--black-body", path["bbh2o"], "--black-body-open", path["bbob"],
        *region_words(), "--profile", "100:640, 980:1230", "--bin", "4", "--pixel", "43.99 um",
    ])  # fmt: skip


def test_the_wedges_before_correction_are_those_of_the_reference():
    """Medians within 0.0028 (our dose leaves out gamma spots, theirs does not); slopes within 0.001."""
    state = whole().data["states"][0]
    for ours, theirs in zip(state["regions"], STEPS, strict=True):
        median = ours["median_of_pixels_before"]["value"]
        assert median == pytest.approx(theirs["minus_ln_T_water"], abs=0.0028)
        before = ours["optical_depth_before_scattering_correction"]["value"]
        assert before == pytest.approx(theirs["minus_ln_T_water"], abs=0.006)
    slopes = state["slopes_of_medians_before"]
    entry = reference("neutron")["stepwedge_20s"]
    assert slopes["thin"]["value"] == pytest.approx(entry["slope_per_mm_thin_0p5_to_2p5"], abs=0.001)
    assert slopes["thick"]["value"] == pytest.approx(entry["slope_per_mm_thick_3_to_5"], abs=0.001)


def test_most_of_the_nonlinearity_goes_with_the_scattered_field():
    """README: "correctable in part". Slopes 0.324 -> 0.226 (30 % apart) become 0.47 and 0.43 (9 % apart)."""
    report = whole()
    state = report.data["states"][0]
    before, after = state["slopes_before"], state["slopes"]
    lost, left = (1 - s["thick"]["value"] / s["thin"]["value"] for s in (before, after))
    assert lost == pytest.approx(0.30, abs=0.01)
    assert left == pytest.approx(0.09, abs=0.02)
    assert after["thin"]["value"] == pytest.approx(0.47, abs=0.01)
    assert after["thick"]["sigma_sys"] > after["thick"]["sigma_stat"]  # the field's error is told
    assert report.data["scattering"]["bodies"] == 15
    shares = [region["scattered_share"]["value"] for region in state["regions"]]
    assert np.all(np.diff(shares) > 0)
    assert shares[-1] == pytest.approx(0.62, abs=0.02)  # more than half behind 5 mm of water
    assert "of it removed" in report.text


def test_arrays_and_figures_of_the_wedges():
    report = whole()
    arrays = {one.name: one for one in report.arrays()}
    assert arrays["mask"].values.dtype == np.uint8
    t = arrays["transmission_000"]
    assert t.values.shape == (900, 1500)
    assert np.nanmedian(t.values[40:80, 700:790]) == pytest.approx(1.0, abs=0.02)
    assert t.axes[1].values[-1] == pytest.approx(1499 * 43.99)
    pictures = dict(report.figures("png"))
    assert set(pictures) == {"transmission", "thickness", "profile", "noise"}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    json.dumps(report.data, allow_nan=False)


def test_the_crop_with_a_mask_that_is_stored_and_used_again(tmp_path):
    region = ["--region", "step 2.5 = 86:170, 290:540, 2.5 mm"]
    mask = str(tmp_path / "mask.tif")
    first = reduced(crop_words(*region, "--save-mask", mask))
    depth = first.states[0].regions[0].depth
    assert depth.value == pytest.approx(0.8559, abs=0.01)
    assert first.data["scattering"] == {"corrected": False}
    bits, settings = images.read_mask(tmp_path / "mask.tif")
    assert settings["name"] == first.data["mask"]["name"]
    assert np.count_nonzero(bits) == first.data["mask"]["any"] > 1000
    again = reduced(crop_words(*region, "--mask", mask))
    assert again.data["mask"]["any"] == first.data["mask"]["any"]
    assert abs(again.states[0].regions[0].depth.value - depth.value) < 3 * depth.sigma_stat


def test_lithium_and_a_diffusion_coefficient_with_its_cross_check():
    """The water is read as if it were 6Li: the arithmetic of the options, not a lithium measurement."""
    report = reduced(crop_words(
        "--profile", "80:290, 290:540", "--bin", "5", "--pixel", "44 um", "--wavelength", "1.798 A",
        "--diameter", "3 mm", "--gradient", "80:290", "--conductivity", "2 mS/cm", "--voltage", "3.26 V",
        "--length", "0.83 mm", "--lithium", "2.66e22 /cm3", "--region", "a = 86:170, 290:540",
    ))  # fmt: skip
    one = report.states[0]
    assert one.lithium is not None
    path = np.pi * 0.3 / 4
    assert one.lithium.values == pytest.approx(one.depth / 940e-24 / path)
    assert one.region_lithium[0].value == pytest.approx(one.regions[0].depth.value / 940e-24 / path)
    d = report.data["states"][0]["diffusion"]
    assert d["nernst_einstein"]["value"] == pytest.approx(1.2e-8, rel=0.01)
    assert d["apparent"]["value"] > 0
    assert "Nernst-Einstein" in report.text
    assert len(areal(report).axes) == 2  # the map and its scale


def test_a_matrix_is_taken_off_and_a_white_beam_hardens():
    options, wrong = parse_options(
        arguments(crop_words("--maxwell", "60 K", "--path", "2 mm", "--matrix", "1 /cm"))
    )
    assert wrong == []
    assert options is not None
    depth = np.array([0.2, 0.5, np.nan])
    found = lithium(options, depth, np.full(3, 0.01), np.zeros(3))
    assert found is not None
    assert found.values[0] == pytest.approx(0.0, abs=1e12)  # 0.2 is the matrix alone
    assert found.values[1] > 0
    assert np.isnan(found.values[2])
    sigma = float(lithium6_cross_section(1.8)[0])
    assert found.mean.unit == "1/cm3"
    assert found.values[1] < 0.3 / sigma / 0.2


def test_all_problems_at_once(tmp_path):
    (tmp_path / "no.tif").write_bytes(b"nothing")
    words = crop_words(
        "--region", "x=1:2", "--profile", "5:3, 1:2", "--wavelength", "2.8", "--gradient", "1:5"
    )
    words += ["--black-body", str(tmp_path / "no.tif"), "--region", "far = 1:5000, 1:2"]
    with pytest.raises(Problems) as caught:
        TECHNIQUE.jobs(arguments(words))
    text = "\n".join(caught.value.problems)
    for part in (
        "--region",
        "--profile",
        "--wavelength",
        "belong together",
        "needs --conductivity",
        "no.tif",
    ):
        assert part in text
    with pytest.raises(Problems, match="not inside 290 x 550"):
        TECHNIQUE.jobs(arguments(crop_words("--region", "far = 1:5000, 1:2")))


def test_exposures_of_one_state_in_several_files_are_one_state(tmp_path, capsys):
    """Files of one, two and one page, merged: what a file of four pages says."""
    words = crop_words("--region", "step 2.5 = 86:170, 290:540, 2.5 mm", "--soc", "50 %")
    image = next(images.read(Path(words[0])).frames()).astype(np.int64)
    rng = np.random.default_rng(4)
    pages = [rng.binomial(image, 0.9).astype(np.uint16) for _ in range(4)]
    paths = []
    for name, part in (("a", pages[:1]), ("b", pages[1:3]), ("c", pages[3:]), ("all", pages)):
        paths.append(str(tmp_path / f"{name}.tif"))
        tifffile.imwrite(paths[-1], np.stack(part), photometric="minisblack", metadata=None)
    assert reduce.main(["radiography", paths[3], *words[1:], "--json"]) == 0
    (whole,) = json.loads(capsys.readouterr().out)["files"]
    assert reduce.main(["radiography", *paths[:3], *words[1:], "--merge", "--json"]) == 0
    (merged,) = json.loads(capsys.readouterr().out)["files"]
    assert [entry["file"] for entry in merged["inputs"]][:4] == ["a.tif", "b.tif", "c.tif", "crop_ob.tif"]
    (state,) = merged["states"]
    assert state["frames"] == 4
    for entry in (whole, merged):
        entry["states"][0].pop("file")
        for name in ("file", "inputs"):
            entry.pop(name)
    assert merged == whole
    assert reduce.main(["radiography", *paths[:2], *words[1:-1], "0 %, 50 %", "--merge"]) == 2
    assert "--soc: 1 values are needed" in capsys.readouterr().err
