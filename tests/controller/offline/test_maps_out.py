"""Maps as OME-TIFF and CSV: read back with tifffile and csv, compared with the products."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tifffile

from controller.offline.maps_out import write_maps
from controller.offline.run_files import RunFiles
from tests.controller.offline.make_run import HEIGHT, NX, NY, WIDTH, make_run

OME = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("maps"))
    assert write_maps(RunFiles(path), path / "maps") == []
    return path


def test_every_map_is_there_as_picture_and_table(folder: Path) -> None:
    products = [p for p in RunFiles(folder).products if p.kind in ("map", "soc")]
    names = {path.name for path in (folder / "maps").iterdir()}
    assert len(products) > 9
    assert names == {
        f"scan{p.scan:03d}_{p.what or p.kind}{end}" for p in products for end in (".ome.tif", ".csv")
    }


def test_pixels_are_those_of_the_product_the_highest_y_on_top(folder: Path) -> None:
    product = RunFiles(folder).find("map/Li", 3)
    assert product is not None
    fields = product.load()
    pixels = tifffile.imread(folder / "maps" / "scan003_Li.ome.tif")
    assert pixels.shape == (2, NY, NX)
    assert fields["y_um"][0] < fields["y_um"][-1]
    assert np.array_equal(pixels[0][::-1], fields["values"])
    assert np.array_equal(pixels[1][::-1], fields["sigma"])


def test_a_viewer_is_told_size_unit_and_channels(folder: Path) -> None:
    with tifffile.TiffFile(folder / "maps" / "scan003_Li.ome.tif") as image:
        assert image.is_ome
        assert image.series[0].axes == "CYX"
        root = ElementTree.fromstring(image.ome_metadata or "")
        tags = image.pages[0].tags
        per_cm = [a / b for a, b in (tags["XResolution"].value, tags["YResolution"].value)]
        assert tags["ResolutionUnit"].value == 3  # centimetres
    pixels = root.find(".//ome:Pixels", OME)
    assert pixels is not None
    assert float(pixels.attrib["PhysicalSizeX"]) == pytest.approx(WIDTH / NX)
    assert float(pixels.attrib["PhysicalSizeY"]) == pytest.approx(HEIGHT / NY)
    assert pixels.attrib["PhysicalSizeXUnit"] == "µm"
    assert per_cm == pytest.approx([1e4 * NX / WIDTH, 1e4 * NY / HEIGHT], rel=1e-4)
    names = [channel.attrib["Name"] for channel in root.findall(".//ome:Channel", OME)]
    assert names == ["value", "sigma statistical"]


def test_a_table_has_place_value_and_error(folder: Path) -> None:
    product = RunFiles(folder).find("map/Co", 2)
    assert product is not None
    fields = product.load()
    with (folder / "maps" / "scan002_Co.csv").open() as stream:
        head, *rows = csv.reader(stream)
    assert head == ["x / um", "y / um", "value / counts", "sigma statistical / counts"]
    assert len(rows) == NX * NY
    place = 5 * NX + 3
    assert float(rows[place][0]) == pytest.approx(float(fields["x_um"][3]))
    assert float(rows[place][1]) == pytest.approx(float(fields["y_um"][5]))
    assert np.float32(rows[place][2]) == fields["values"][5, 3]
    assert np.float32(rows[place][3]) == fields["sigma"][5, 3]


def test_the_same_run_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    write_maps(RunFiles(folder), tmp_path / "again")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (folder / "maps" / path.name).read_bytes(), path.name


def test_without_maps_there_is_no_folder(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=3.0)
    assert write_maps(RunFiles(path), path / "maps") == []
    assert not (path / "maps").exists()


def test_a_damaged_map_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=1000.0)
    (path / "products" / "scan001_map_Co_0004.cbor").write_bytes(b"\xff")
    missing = write_maps(RunFiles(path), path / "maps")
    assert len(missing) == 1
    assert "scan001_map_Co_0004.cbor" in missing[0]
    assert (path / "maps" / "scan001_Li.ome.tif").is_file()
