"""Line buffers: counted pulses, blanked ends, untouched neighbours, voltages by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import OutOfRange
from drivers.labjack_raster import plan
from drivers.labjack_settings import Scanner
from drivers.roles import Raster

SCANNER = Scanner(
    x_dac=0, y_dac=1, centre_v=2.5, scale_x_um_per_v=100.0, scale_y_um_per_v=200.0,
    pixel_clock=0, blank=1, settle_s=0.002, dwell_limit_s=0.1, allowed_gap_s=0.25,
)  # fmt: skip
RASTER = Raster(nx=4, ny=3, width_um=100.0, height_um=300.0, dwell_s=0.03)


def test_a_line_by_hand():
    buffers = plan(RASTER, SCANNER).buffers(1)
    # inhibit everything but FIO0 and FIO1: high byte fc; blank = bit 1, pixel clock = bit 0
    assert [f"{value:04x}" for value in buffers.bits] == [
        "fc02",
        "fc01", "fc00", "fc01", "fc00", "fc01", "fc00", "fc01", "fc00",
        "fc03", "fc02",
    ]  # fmt: skip
    # columns at -37.5, -12.5, 12.5, 37.5 um, 100 um/V about 2.5 V
    assert buffers.x_v == pytest.approx(
        [2.125, 2.125, 2.125, 2.375, 2.375, 2.625, 2.625, 2.875, 2.875, 2.875, 2.875]
    )
    assert buffers.y_v == (2.5,)
    assert plan(RASTER, SCANNER).buffers(0).y_v == pytest.approx([2.0])  # -100 um at 200 um/V
    assert plan(RASTER, SCANNER).scan_rate_hz == pytest.approx(66.6667, abs=1e-4)


def test_off_centre_and_mirrored():
    mirrored = Scanner(**{**SCANNER.__dict__, "scale_x_um_per_v": -100.0, "pixel_clock": 6, "blank": 7})
    raster = Raster(
        nx=1, ny=1, width_um=10.0, height_um=10.0, dwell_s=0.03, centre_x_um=50.0, centre_y_um=-40.0
    )
    buffers = plan(raster, mirrored).buffers(0)
    assert buffers.x_v == (2.0,) * 5
    assert buffers.y_v == pytest.approx([2.3])
    assert [f"{value:04x}" for value in buffers.bits] == ["3f80", "3f40", "3f00", "3fc0", "3f80"]


@pytest.mark.parametrize(
    ("settle_s", "dwell_s", "lead"),
    [(0.002, 0.03, 1), (0.015, 0.03, 1), (0.016, 0.03, 2), (0.0, 0.03, 1), (0.01, 0.001, 20)],
)
def test_settling_time_is_whole_blanked_scans(settle_s, dwell_s, lead):
    raster = Raster(nx=2, ny=1, width_um=1.0, height_um=1.0, dwell_s=dwell_s)
    checked = plan(raster, Scanner(**{**SCANNER.__dict__, "settle_s": settle_s}))
    assert checked.lead == lead
    assert [value & 2 for value in checked.buffers(0).bits[: lead + 1]] == [2] * lead + [0]
    assert checked.line_scans == len(checked.buffers(0).bits) == lead + 6


@settings(max_examples=60, deadline=None)
@given(
    nx=st.integers(1, 600),
    ny=st.integers(1, 50),
    dwell_s=st.floats(2e-4, 0.1),
    lines=st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True),
    data=st.data(),
)
def test_every_line(nx, ny, dwell_s, lines, data):
    clock, blank = (1 << line for line in lines)
    scanner = Scanner(**{**SCANNER.__dict__, "pixel_clock": lines[0], "blank": lines[1]})
    checked = plan(Raster(nx, ny, 200.0, 200.0, dwell_s), scanner)
    buffers = checked.buffers(data.draw(st.integers(0, ny - 1)))
    bits = buffers.bits
    assert len(buffers.x_v) == len(bits) == checked.line_scans
    rising = sum(a & clock < b & clock for a, b in zip((0, *bits), bits, strict=False))
    assert rising == nx + 1
    assert bits[0] & blank
    assert bits[-1] & blank
    assert not bits[-1] & clock  # the value that repeats
    assert bits[-2] & blank
    assert bits[-2] & clock  # the parking pulse
    assert sum(value & blank == 0 for value in bits) == 2 * nx
    assert {value >> 8 for value in bits} == {0xFF & ~(clock | blank)}
    assert all(value & 0xFF & ~(clock | blank) == 0 for value in bits)
    assert all(0.0 <= value <= 5.0 for value in buffers.x_v + buffers.y_v)
    assert 2 * (2 * len(bits) + 1) <= checked.buffer_bytes - 2
    assert checked.buffer_bytes in {2**n for n in range(5, 15)}
    assert checked.parked(0).bits == (bits[-1],)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dwell_s": 0.11}, "dwell 0.11 s, allowed is more than 0 and at most 0.1 s"),
        ({"dwell_s": 0.0}, "dwell"),
        ({"dwell_s": float("nan")}, "dwell"),
        ({"dwell_s": 9e-5}, "needs 111111 of 100000 samples/s"),
        ({"nx": 0}, "0 x 3 pixels"),
        ({"nx": 2100}, "the largest has 16384"),
        ({"width_um": 700.0}, "x needs -0.125 V"),
        ({"centre_x_um": 250.0}, "x needs 5.375 V"),
        ({"centre_y_um": 450.0}, "y needs 5.250 V"),
        ({"height_um": float("nan")}, "y needs nan V"),
    ],
)
def test_what_is_refused(change, why):
    with pytest.raises(OutOfRange, match=why):
        plan(Raster(**{**RASTER.__dict__, **change}), SCANNER, name="io")


def test_the_fastest_scan_that_the_datasheet_allows():
    assert plan(Raster(2, 1, 1.0, 1.0, 1e-4), SCANNER).scan_rate_hz == pytest.approx(20_000.0)
