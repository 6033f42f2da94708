"""Stream data: the reply of register 4500, samples to amperes, and a line followed through its own bits."""

from __future__ import annotations

import pytest

from drivers.errors import BadLine, BadReply, Refused
from drivers.labjack_raster import Plan, plan
from drivers.labjack_settings import Scanner
from drivers.labjack_stream import Calibration, StreamReply, Tracker, parse_stream
from drivers.roles import Raster

SCANNER = Scanner(
    x_dac=0, y_dac=1, centre_v=2.5, scale_x_um_per_v=100.0, scale_y_um_per_v=200.0,
    pixel_clock=0, blank=1, settle_s=0.002, dwell_limit_s=0.1, allowed_gap_s=0.25,
)  # fmt: skip
PLAN: Plan = plan(Raster(nx=3, ny=2, width_um=100.0, height_um=300.0, dwell_s=0.02), SCANNER)
# the levels of one line with relay (bit 2) and permit (bit 5) high besides
LINE = [0x26, 0x25, 0x24, 0x25, 0x24, 0x25, 0x24, 0x27, 0x26]
PARKED = 0x26
ONE_VOLT, TWO_VOLTS = 36690, 39856  # 33523 + 1 V / 0.31580578 mV = 36689.5; + 2 V = 39856.0


def tracker(**changes: float) -> Tracker:
    values = {"scale_a_per_v": 1e-11, "scan_s": 0.01, "started_s": 50.0, "allowed_gap_s": 0.25, **changes}
    return Tracker(PLAN, Calibration(), **values)


def reply(levels: list[int], sample: int = TWO_VOLTS, status: int = 0, information: int = 0) -> StreamReply:
    return StreamReply([word for level in levels for word in (sample, level)], status, information)


def test_a_reply_is_what_it_says_and_no_more():
    assert parse_stream([2, 0, 0, 0, 39856, 0x26, 7, 7]) == StreamReply([39856, 0x26], 0, 0)
    assert parse_stream([0, 0, 0, 0, 1, 2]).samples == []
    assert not parse_stream([0, 0, 0, 0, 1, 2]).full
    assert parse_stream([120, 40, 0, 0, *range(120)]).full
    assert parse_stream([2, 0, 2941, 17, 0xFFFF, 0xFFFF]).skipped_scans == 17
    assert parse_stream([2, 0, 2940, 17, 1, 2]).skipped_scans == 0
    with pytest.raises(BadReply, match="4 stream samples in a reply for 2"):
        parse_stream([4, 0, 0, 0, 1, 2])
    with pytest.raises(BadReply):
        parse_stream([1, 0, 0, 0, 1, 2])


@pytest.mark.parametrize(
    ("status", "words"), [(2942, "overlap"), (2943, "overflow"), (2944, "itself"), (99, "99")]
)
def test_a_stopped_stream_says_why(status, words):
    with pytest.raises(Refused, match=words):
        parse_stream([0, 0, status, 0])


def test_nominal_calibration():
    volts = Calibration().volts
    assert volts(33523) == 0.0
    assert volts(65535) == pytest.approx(10.1096, abs=1e-4)  # (65535 - 33523) * 0.00031580578
    assert volts(0) == pytest.approx(-10.5868, abs=1e-4)
    assert volts(36690) == pytest.approx(1.000157, abs=1e-6)
    assert Calibration().plausible
    assert not Calibration(3.2e-5, -3.2e-5, 33523.0).plausible
    assert not Calibration(float("nan"), -3.2e-4, 33523.0).plausible


def test_a_line():
    follow = tracker()
    follow.feed(reply([PARKED] * 4))  # waiting, before the line was started
    follow.expect(1)
    assert not follow.ended
    follow.feed(reply([PARKED, *LINE[:3]]))
    assert not follow.ended
    assert follow.current_a == pytest.approx(2e-11)
    for level in LINE[3:]:
        assert not follow.ended
        follow.feed(reply([level]))
    assert follow.ended
    report = follow.report()
    # scan 5 still waiting, 6 the lead-in, first pulse in scan 7 as the scan before it had left the outputs
    assert (report.line, report.start_s, report.end_s) == (1, pytest.approx(50.06), pytest.approx(50.12))
    assert report.end_s - report.start_s == pytest.approx(3 * 0.02)
    assert report.pixel_charge_coulomb == pytest.approx((4e-13, 4e-13, 4e-13), rel=1e-4)  # 20 pA for 20 ms
    assert report.charge_coulomb == pytest.approx(1.2e-12, rel=1e-4)
    assert not report.late


def test_each_pixel_gets_its_own_current():
    follow = tracker()
    follow.expect(0)
    for at, level in enumerate(LINE):
        follow.feed(reply([level], ONE_VOLT if at < 4 else TWO_VOLTS))
    # samples 1 2 | 3 4 | 5 6 belong to the pixels; sample 3 still at 1 V, 4 at 2 V
    assert follow.report().pixel_charge_coulomb == pytest.approx((2e-13, 3e-13, 4e-13), rel=1e-3)


def test_how_long_still():
    follow = tracker()
    follow.expect(0)
    assert follow.remaining_s == pytest.approx(
        0.10
    )  # lead 1, 3 pixels and the parking pulse of 2, last value
    follow.feed(reply(LINE[:2]))
    assert follow.remaining_s == pytest.approx(0.07)
    follow.feed(reply(LINE[2:8]))
    assert follow.remaining_s == pytest.approx(0.01)
    follow.feed(reply(LINE[8:]))
    assert follow.remaining_s == 0.0


@pytest.mark.parametrize(("waited", "late"), [(0, False), (25, False), (26, True)])
def test_a_late_refill_is_counted(waited, late):
    follow = tracker()
    follow.expect(0)
    follow.feed(reply(LINE))
    assert not follow.report().late
    follow.feed(reply([PARKED] * waited))
    follow.expect(1)
    follow.feed(reply(LINE))
    assert follow.report().late is late


def test_an_overload_is_no_current():
    follow = tracker()
    follow.expect(0)
    follow.feed(reply(LINE[:4]))
    follow.feed(reply(LINE[4:5], 0xFFFF))
    assert follow.current_a is None
    follow.feed(reply(LINE[5:]))
    report = follow.report()
    assert report.charge_coulomb is None
    assert report.pixel_charge_coulomb == ()
    assert report.end_s - report.start_s == pytest.approx(0.06)


@pytest.mark.parametrize("first_lost", range(1, 8))
def test_skipped_scans_are_never_taken_for_a_current(first_lost):
    follow = tracker()
    follow.expect(0)
    follow.feed(reply(LINE[:first_lost]))
    follow.feed(StreamReply([0xFFFF, 0xFFFF], 2941, 0))  # one scan lost, one dummy in its place
    assert follow.current_a is None
    follow.feed(reply(LINE[first_lost + 1 :]))
    assert not follow.ended  # pulses may have gone unseen: only time and the blanked end tell
    follow.feed(reply([PARKED]))
    assert follow.ended
    assert follow.report().charge_coulomb is None


@pytest.mark.parametrize("gap", [True, False])
def test_a_clock_that_was_left_high_is_not_taken_for_a_pulse(gap):
    follow = tracker()
    if gap:
        follow.feed(reply([PARKED]))
        follow.feed(StreamReply([0xFFFF, 0xFFFF], 2941, 5))
    follow.feed(reply([PARKED | 1, PARKED]))
    follow.expect(0)
    follow.feed(reply(LINE))
    assert follow.ended
    assert follow.report().charge_coulomb is not None


def test_skipped_scans_count_as_time():
    follow = tracker()
    follow.expect(0)
    follow.feed(reply(LINE[:2]))
    follow.feed(StreamReply([0xFFFF, 0xFFFF], 2941, 40))
    follow.feed(reply([PARKED]))
    assert follow.ended
    assert follow.scans == 44


def test_the_outputs_must_do_what_the_buffer_says():
    follow = tracker()
    with pytest.raises(BadReply, match="while no line"):
        follow.feed(reply([0x24]))
    follow = tracker()
    follow.expect(0)
    with pytest.raises(BadReply, match="unblanked at pulse 0"):
        follow.feed(reply([0x24]))
    follow = tracker()
    follow.expect(3)
    follow.feed(reply([*LINE[:6], 0x26, 0x27, 0x26]))  # blanked one scan too early
    with pytest.raises(BadLine, match="line 3 was unblanked for 5 scans instead of 6"):
        follow.report()
