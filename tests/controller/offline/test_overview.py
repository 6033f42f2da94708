"""Tiles stitched into an overview: by counting pixels, adding where they overlap, open where nothing was."""

import numpy as np
import pytest

from controller.offline import plots_overview
from controller.offline.overview import overviews

NX, NY = 4, 3


class Tile:
    kind = "map"

    def __init__(self, scan, what, image, **fields):
        self.scan, self.what = scan, what
        self._fields = {
            "values": image, "x_um": np.arange(NX) * 10.0 - 15.0, "y_um": np.arange(NY) * 20.0 - 20.0,
            "unit": "pC", **fields,
        }  # fmt: skip

    def load(self):
        return self._fields


class Run:
    """Three tiles of two by two, with one shared column and row; the fourth was never scanned."""

    def __init__(self, products, overlap=1, tiles=(2, 2)):
        self.products = products
        pitch_um = ((NX - overlap) * 10.0, (NY - overlap) * 20.0)
        self._tiles = [
            {
                "scan": scan, "name": "wide", "column": column, "row": row, "tiles": tiles,
                "overlap": overlap,
                "shift_um": [(column - 0.5) * pitch_um[0], (row - 0.5) * pitch_um[1]],
            }
            for scan, column, row in ((2, 0, 0), (3, 1, 0), (4, 1, 1))
        ]  # fmt: skip

    def events(self, kind, module):
        assert (kind, module) == ("tile", "scan")
        return iter(self._tiles)


def test_tiles_lie_where_their_pixels_are_counted_and_overlaps_add():
    run = Run([Tile(scan, "dose", np.full((NY, NX), float(scan)), unit="1/cm2") for scan in (2, 3, 4)])
    ((dose,), missing) = overviews(run)
    assert missing == []
    assert dose.values.tolist() == [
        [2, 2, 2, 5, 3, 3, 3],
        [2, 2, 2, 5, 3, 3, 3],
        [2, 2, 2, 9, 7, 7, 7],
        [0, 0, 0, 4, 4, 4, 4],
        [0, 0, 0, 4, 4, 4, 4],
    ]
    assert (dose.unit, dose.tiles, dose.of) == ("1/cm2", 3, 4)
    assert dose.x_um == pytest.approx(np.arange(-30.0, 31.0, 10.0))
    assert dose.y_um == pytest.approx(np.arange(-40.0, 41.0, 20.0))


def test_counts_are_open_where_nothing_was_scanned():
    images = [np.full((NY, NX), 1.5) for _ in range(3)]
    run = Run([Tile(n + 2, "Co", image, gross=np.ones((NY, NX), int)) for n, image in enumerate(images)])
    ((counts,), _) = overviews(run)
    assert counts.unit == "counts"
    assert np.isnan(counts.values[4, 0])
    assert np.nansum(counts.values) == 3 * NX * NY  # every count of every tile once, net values are not taken


def test_a_product_that_cannot_be_read_is_named():
    class Broken(Tile):
        def load(self):
            raise ValueError("map-Co.cbor is damaged")

    found, missing = overviews(Run([Broken(2, "Co", None)]))
    assert found == []
    assert missing == ["overview wide, Co: map-Co.cbor is damaged"]


def test_a_run_without_a_mosaic_has_none():
    run = Run([])
    run._tiles = []
    assert overviews(run) == ([], [])


def test_the_report_draws_elements_and_dose_and_nothing_where_no_tile_was():
    products = [Tile(scan, "dose", np.full((NY, NX), float(scan)), unit="1/cm2") for scan in (2, 3, 4)]
    products += [Tile(scan, "Li", np.ones((NY, NX)), gross=np.full((NY, NX), 5.0)) for scan in (2, 3, 4)]
    products += [Tile(2, "pile_up_pige", np.ones((NY, NX)))]
    found = plots_overview.shown(overviews(Run(products))[0])
    assert [one.what for one in found] == ["dose", "Li"]
    figure = plots_overview.overviews(found)
    drawn = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}
    assert set(drawn) == {"“wide”, dose\n3 of 4 tiles", "“wide”, Li\n3 of 4 tiles"}
    lithium = drawn["“wide”, Li\n3 of 4 tiles"].images[0]
    assert lithium.get_extent() == pytest.approx([-35.0, 35.0, -50.0, 50.0])
    assert np.ma.getmaskarray(lithium.get_array())[3:, :3].all(), "the tile that was never scanned"
    assert lithium.get_array()[2, 3] == 15.0, "where three tiles overlap"
