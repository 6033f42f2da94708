"""The guard and the stage: what trips, and what a healthy move never trips."""

import pytest

from controller.guard_stage import StageCheck

THERE = {"moving": False, "x": 100.0, "y": 200.0}


@pytest.fixture
def check():
    return StageCheck("stage", 5.0)


def ids(findings):
    return [one.id for one in findings]


def arrived(check, now_s=10.0):
    check.leaves()
    check.stays((100.0, 200.0), now_s)
    return check


def test_a_move_in_the_dark_and_a_scan_afterwards_are_fine(check):
    check.leaves()
    for moving in (True, True, False):
        assert ids(check.reading({**THERE, "moving": moving}, True, 5.0)) == []
        assert ids(check.beam(True)) == []
    check.stays((100.0, 200.0), 10.0)
    for n in range(10):
        assert ids(check.beam(False)) == []
        assert ids(check.reading(THERE, False, 11.0 + n)) == []


@pytest.mark.parametrize("told", [True, False])
def test_the_beam_on_a_stage_that_moves_trips(check, told):
    """Whether control has said that it sends it away, or the stage says itself that it moves."""
    if told:
        check.leaves()
        assert ids(check.beam(False)) == ["stage-beam"]
    else:
        assert ids(check.reading({**THERE, "moving": True}, False, 1.0)) == ["stage-beam"]
        assert ids(check.beam(False)) == ["stage-beam"]


def test_a_reading_that_was_begun_on_the_way_does_not_count_after_it(check):
    """It is slow: it was asked before the stage had arrived, and answered when the beam was on again."""
    arrived(check, 10.0)
    assert ids(check.reading({"moving": True, "x": 50.0, "y": 200.0}, False, 9.9)) == []
    assert ids(check.beam(False)) == []
    assert ids(check.reading({**THERE, "moving": True}, False, 10.1)) == ["stage-beam"]


def test_a_stage_away_from_where_it_was_left_trips_at_the_second_reading(check):
    arrived(check)
    away = {**THERE, "x": 105.1}
    assert ids(check.reading(away, True, 11.0)) == []
    (found,) = check.reading(away, True, 12.0)
    assert (found.id, found.limit, found.unit) == ("stage-displaced", 5.0, "um")
    assert found.value == pytest.approx(5.1)


def test_within_the_tolerance_and_one_odd_reading_are_fine(check):
    arrived(check)
    for n, x in enumerate((104.9, 95.1, 300.0, 100.0, 300.0, 100.0)):
        assert ids(check.reading({**THERE, "x": x}, False, 11.0 + n)) == []


def test_a_stage_that_nobody_can_read_any_more_trips_at_the_third_reading(check):
    arrived(check)
    lost = {"moving": None, "x": None, "y": None}
    assert ids(check.reading(lost, True, 11.0)) == ids(check.reading(lost, True, 12.0)) == []
    assert ids(check.reading(lost, True, 13.0)) == ["stage-unknown"]


def test_a_stage_that_was_never_moved_may_stand_anywhere(check):
    for x in (0.0, None, 7.0, None, None, None):
        assert ids(check.reading({**THERE, "x": x}, False, 1.0)) == []
