from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controller.offline.gather import gather
from controller.offline.line_fit import fitted
from controller.offline.plots_maps import boundary, joined, scale_bar_um, scan_colours
from controller.offline.plots_timeline import thinned
from controller.offline.run_files import RunFiles
from controller.offline.svg import inline, page_style, picture
from controller.offline.view import Bar, Geometry, MapView, SpectrumView, View, Window
from tests.controller.offline.make_run import INTERFACE, QUANTITIES, TILT, charge_coulomb, make_run, stamp

FIRST = 5.0  # seconds: when the first step began, from where everything that is shown counts


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    from controller.offline.finish import Finish

    path = make_run(tmp_path_factory.mktemp("view"))
    finish = Finish(path)
    finish._read()
    return gather(RunFiles(path), finish.summary())


def raster(values: np.ndarray, width: float, height: float, passes: int = 1) -> MapView:
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    return MapView("Li", "after", "after", values, "counts", extent, passes, None)


# --- maps ----------------------------------------------------------------------------------------------


def test_joining_pixels_loses_no_count() -> None:
    counts = np.random.default_rng(1).poisson(3.0, (64, 64)).astype(float)
    cells = joined(raster(counts, 100.0, 300.0, passes=4), across=20.0)
    assert cells.values.shape == (64, 16)  # 1.56 x 4.69 um pixels: four side by side, none stacked
    assert cells.values.sum() * 4 == pytest.approx(counts.sum())
    assert cells.values[5, 2] == counts[5, 8:12].sum() / 4
    assert cells.unit == "net counts per 6.2 × 4.7 µm² and pass"


def test_large_pixels_stay_as_they_are() -> None:
    counts = np.arange(12.0).reshape(4, 3)
    assert np.array_equal(joined(raster(counts, 30.0, 40.0), across=20.0).values, counts)


def test_what_can_be_seen_sets_the_size_of_a_cell() -> None:
    counts = np.ones((128, 128))
    assert joined(raster(counts, 450.0, 450.0), across=42.0).values.shape == (
        32,
        32,
    )  # 3 pixels, next divisor 4
    assert joined(raster(counts, 450.0, 450.0), across=200.0).values.shape == (128, 128)


def test_no_two_scans_share_a_colour() -> None:
    scans = [
        ("as prepared", "reference"),
        ("charging", "charging"),
        ("charged", "after"),
        ("cooling", "after"),
    ]
    colours = scan_colours(scans)
    assert len(set(colours.values())) == 4
    assert scan_colours(scans[:3]) == {name: colours[name] for name, _ in scans[:3]}


@pytest.mark.parametrize(("width", "bar"), [(100.0, 50), (50.0, 20), (450.0, 200), (3.0, 1)])
def test_scale_bar_is_round_and_fits(width: float, bar: int) -> None:
    assert scale_bar_um(width) == bar


def test_a_boundary_lies_where_the_pose_says() -> None:
    geometry = Geometry(math.radians(10.0), 5.0, -20.0, (30.0,), ())
    (x0, x1), (y0, y1) = boundary(geometry, 30.0, (-50.0, 50.0, -150.0, 150.0))
    assert (x0, x1) == (-50.0, 50.0)
    for x, y in ((x0, y0), (x1, y1)):  # edge.geometry: y cos a - (x - pivot) sin a = position
        distance = y * math.cos(math.radians(10.0)) - (x - 5.0) * math.sin(math.radians(10.0)) + 20.0
        assert distance == pytest.approx(30.0)


def test_boundaries_stand_between_the_pure_layers(view: View) -> None:
    geometry = view.maps[0].geometry
    assert geometry is not None
    assert geometry.boundaries_um == pytest.approx((-89.0, 0.0))  # between -94 and -84, -6 and 6
    assert [name for name, _, _ in geometry.layers] == ["anode", "separator", "cathode"]
    assert geometry.angle_rad == pytest.approx(TILT)
    assert geometry.interface_um == INTERFACE


def test_maps_are_those_of_the_scans_that_count(view: View) -> None:
    scans = ["as prepared", "charging", "after"]
    elements = ["Li", "Co", "P"]  # as the experiment file has them
    assert [(m.element, m.scan) for m in view.maps] == [(e, s) for e in elements for s in scans]
    assert [(p.element, p.scan) for p in view.profiles] == [(e, s) for e in elements for s in scans]
    assert {m.scan for m in view.soc_maps} == {"charging", "after"}
    assert view.soc_maps[0].sigma == pytest.approx(5.0)
    assert np.nanmedian(view.soc_maps[0].values) == pytest.approx(50.0, abs=2.0)  # in percent
    left, right, bottom, top = view.maps[0].extent_um
    assert (left, right, bottom, top) == pytest.approx((-50.0, 50.0, -150.0, 150.0), rel=1e-5)


# --- time ----------------------------------------------------------------------------------------------


def test_time_counts_from_the_beginning_in_minutes(view: View) -> None:
    run = view.timeline
    assert run is not None
    assert run.end == pytest.approx((5085.0 - FIRST) / 60.0)
    bars = {bar.title: bar for bar in run.bars}
    assert bars["charge 14.0 uA"].begin == pytest.approx((1185.0 - FIRST) / 60.0)
    assert bars["charge 14.0 uA"].lane == "cell"
    assert bars['scan "after"'].lane == "beam"
    assert bars["cool to 313.0 K"].lane == "heater"


def test_the_switch_gaps_and_bad_passes_are_marked(view: View) -> None:
    run = view.timeline
    assert run is not None
    assert [m.minutes for m in run.marks if m.kind == "switch"] == pytest.approx([(3200.0 - FIRST) / 60.0])
    assert [m.text for m in run.marks if m.kind == "quarantined"] == ["scan 2 pass 3"]
    assert run.gaps == [pytest.approx(((3000.0 - FIRST) / 60.0, (3060.0 - FIRST) / 60.0))]


def test_readings_are_open_where_they_were_invalid(view: View) -> None:
    run = view.timeline
    assert run is not None
    at = run.temperature_k.minutes * 60.0 + FIRST
    assert np.isnan(run.temperature_k.value[(at >= 2500.0) & (at < 2520.0)]).all()
    assert np.isfinite(run.temperature_k.value).sum() == run.temperature_k.value.size - 4
    voltage = run.voltage_v
    at = voltage.minutes * 60.0 + FIRST
    pause = (at > 925.0) & (at < 1155.0)
    assert not np.isfinite(voltage.value[pause]).any()
    assert np.isnan(voltage.value).sum() == 2  # one overload, one hole between the two open circuits


def test_charge_is_in_microampere_hours(view: View) -> None:
    run = view.timeline
    assert run is not None
    assert run.charge_uah.value[-1] == pytest.approx(charge_coulomb(4115.0) / 3.6e-3)
    assert run.charge_sigma_uah.value[-1] == pytest.approx(stamp(5025.0)["charge_sigma_coulomb"] / 3.6e-3)


def test_thinning_keeps_extremes_and_holes() -> None:
    minutes = np.linspace(0.0, 10.0, 20_000)
    value = np.sin(minutes)
    value[7777], value[12_000:12_100] = 9.0, np.nan
    t, v = thinned(minutes, value, points=600)
    assert t.size < 1000
    assert np.nanmax(v) == 9.0
    assert np.isnan(v).any()
    assert (t[0], t[-1]) == (minutes[0], minutes[-1])
    assert np.all(np.diff(t) > 0)


def test_few_points_are_not_thinned() -> None:
    t, v = thinned(np.arange(5.0), np.arange(5.0))
    assert t.size == v.size == 5


# --- state of charge, spectra --------------------------------------------------------------------------


def test_points_are_those_of_the_result_in_percent(view: View) -> None:
    assert [p.scan for p in view.points] == ["charging"] * 6 + ["after"]
    last = view.points[-1]
    value, stat, sys = QUANTITIES["soc_beam"]
    assert (last.beam, last.beam_stat) == pytest.approx((100 * value, 100 * stat))
    assert last.beam_total == pytest.approx(100 * math.hypot(stat, sys))
    assert last.charge == pytest.approx(100 * QUANTITIES["soc_charge"][0])
    assert last.passes == (1, 4)
    assert last.minutes == pytest.approx(((4125.0 - FIRST) / 60.0, (5025.0 - FIRST) / 60.0))


def test_windows_are_those_of_the_reduction(view: View) -> None:
    pige = next(s for s in view.spectra if s.detector == "pige")
    assert pige.windows == (Window("Li", "gamma", 475.0, 487.0, ((490.0, 505.0),)),)
    assert pige.live_s == pytest.approx(4 * 216.0)


def spectrum(counts: np.ndarray) -> SpectrumView:
    return SpectrumView("pige", "a", "after", 460.0 + 0.25 * np.arange(counts.size), counts, None, ())


def test_the_fitted_line_finds_line_and_continuum() -> None:
    energy = 460.0 + 0.25 * np.arange(240)
    sigma = 6.0 / 2.3548
    line = 1000.0 * 0.25 * np.exp(-0.5 * ((energy - 481.0) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    window = Window("Li", "gamma", 475.0, 487.0, ((490.0, 505.0),))
    fit = fitted(spectrum(20.0 + line), window, 481.0, 6.0, 0.0)
    assert fit is not None
    at, model, base = fit
    assert base == pytest.approx(np.full(at.size, 20.0), rel=1e-4)
    assert (model - base).sum() == pytest.approx(1000.0, rel=0.02)  # all but the tail below the range


def test_a_line_that_cannot_be_fitted_is_left_out() -> None:
    window = Window("Li", "gamma", 475.0, 487.0, ((490.0, 505.0),))
    assert fitted(spectrum(np.zeros(240)), window, 481.0, 6.0, 0.0) is None
    assert fitted(spectrum(np.ones(4)), window, 481.0, 6.0, 0.0) is None


# --- pictures ------------------------------------------------------------------------------------------


def test_a_figure_takes_the_colours_of_its_page() -> None:
    from matplotlib.figure import Figure

    from controller.offline.plot_style import INK, LINE

    with page_style():
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([0, 1], [0, 1], color=LINE)
        drawn = picture(figure, "a", "A & B", "caption")
    assert drawn.svg.startswith('<svg role="img" aria-label="A &amp; B"')
    assert "var(--blue)" in drawn.svg
    assert "var(--ink)" in drawn.svg or INK not in drawn.svg
    assert LINE not in drawn.svg
    assert "<style" not in drawn.svg
    assert "font-family" not in drawn.svg
    assert "--width: 288px" in drawn.svg  # 3 inches at 96 dots


def test_names_inside_two_figures_do_not_meet() -> None:
    svg = '<?xml?><svg width="72pt" height="36pt" viewBox="0 0 72 36"><g id="p1" clip-path="url(#c1)"/></svg>'
    one, two = inline(svg, "one", "t"), inline(svg, "two", "t")
    assert 'id="one-p1"' in one
    assert "url(#one-c1)" in one
    assert 'id="two-p1"' in two


def test_a_drawing_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no size"):
        inline("<svg></svg>", "x", "t")


def test_drawing_twice_gives_the_same(view: View, tmp_path: Path) -> None:
    from controller.offline.report import draw

    only = replace(view, maps=[], soc_maps=[], spectra=[], points=[], timeline=None)
    assert draw(only)[0]["profiles"].svg == draw(only)[0]["profiles"].svg


# --- what is read in a figure --------------------------------------------------------------------------


@pytest.mark.parametrize("scans", [1, 2, 3])
def test_the_unit_of_a_map_does_not_run_into_the_next(scans: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from controller.offline.plots_maps import element_maps

    counts = np.random.default_rng(1).poisson(3.0, (64, 64)).astype(float)
    views = [
        replace(raster(counts, 100.0, 300.0, passes=4), element=element, scan=f"scan {n}")
        for element in ("Li", "Co", "P")
        for n in range(scans)
    ]
    with page_style():
        figure = element_maps(views)
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [text.get_window_extent(renderer) for text in figure.texts]
    assert len(boxes) == 6
    for k, one in enumerate(boxes):
        assert one.x1 <= figure.bbox.x1
        assert not any(one.overlaps(other) for other in boxes[k + 1 :])


def radiograph(name: str, value: float) -> dict[str, object]:
    quantity = {"value": value, "sigma_stat": 8.6e17, "sigma_sys": 2e18, "unit": "1/cm2"}
    row = [0.0, 1.0, 2.0]
    return {
        "name": name, "soc": {"low": 0.0, "mean": value / 1e22, "high": 0.1},
        "regions": [{"name": "cathode", "optical_depth": quantity}], "lithium6_of_regions": [quantity],
        "profile": {"row": row, "depth": row, "sigma_stat": [0.1] * 3},
        "lithium6": {"values": [value, 0.0, -value], "sigma_stat": [8.6e17] * 3, "unit": "1/cm2"},
    }  # fmt: skip


def test_radiographs_are_seen_on_a_dark_page_with_plain_numbers() -> None:
    """Colours of the page, and a power of ten that is named on the axis instead of hung beside it."""
    from controller.offline.plots_radiographs import profiles, regions

    states = [radiograph("as prepared", 4.8e20), radiograph("charging", 5.05e20)]
    with page_style():
        for made in (profiles(states), regions(states)):
            assert made is not None
            drawn = picture(made, "r", "radiographs", "").svg
            assert "lithium-6 / (10²⁰ 1/cm²)" in drawn
            assert "1e2" not in drawn
            assert not set(re.findall(r"stroke: (#\w{6})", drawn))
        assert "var(--ink)" in picture(profiles(states), "r", "t", "").svg


def test_a_plan_much_longer_than_the_run_leaves_room_for_what_was_measured(view: View) -> None:
    from controller.offline.plots_timeline import MOST_PLAN, timeline

    assert view.timeline is not None
    long = Bar("scan", "scan", 0.0, 20.0 * view.timeline.end, "beam")
    with page_style():
        figure = timeline(replace(view.timeline, planned=(long,)))
    assert figure.axes[-1].get_xlim()[1] == pytest.approx(MOST_PLAN * view.timeline.end)
    told = [text.get_text() for text in figure.axes[0].texts]
    assert f"to {long.end:.0f} min →" in told
