import time

import pytest

from controller.journal import Journal, Record
from controller.outbox import Lanes, OutboxReader, ranges

LATE_S = 5.0


class Clocks:
    """Wall and monotonic time as the test wants them."""

    def __init__(self):
        self.wall_s = 1000.0
        self.mono_s = 0.0

    def wall(self):
        return self.wall_s

    def monotonic(self):
        return self.mono_s

    def pass_by(self, seconds):
        self.wall_s += seconds
        self.mono_s += seconds


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        journal.boot("test")
        yield journal


@pytest.fixture
def lanes(journal, clocks):
    with OutboxReader.open(journal.path) as reader:
        yield Lanes(reader, late_s=LATE_S, rate=10.0, wall=clocks.wall, monotonic=clocks.monotonic)


@pytest.fixture
def add(journal, clocks):
    """Record messages now; return their numbers."""

    def record(count=1, topic="tele", **more):
        records = [
            Record("k", "m", {"n": n}, topic=topic, wall_s=clocks.wall_s, **more) for n in range(count)
        ]
        return journal.record_many(records)

    return record


def take(lanes, limit=100):
    """Take what comes next as if all of it were delivered: (numbers, history)."""
    rows, history = lanes.next(limit)
    lanes.advance([row.seq for row in rows], history=history)
    return [row.seq for row in rows], history


def test_what_is_new_comes_in_order_and_once(lanes, add):
    seqs = add(5)
    assert take(lanes, 3) == (seqs[:3], False)
    assert take(lanes, 3) == (seqs[3:], False)
    assert take(lanes) == ([], False)
    more = add(2)
    assert take(lanes) == (more, False)


def test_what_is_not_settled_comes_again(lanes, add):
    seqs = add(4)
    rows, history = lanes.next(4)
    lanes.advance([rows[0].seq, rows[1].seq], history=history)
    assert take(lanes) == (seqs[2:], False)


def test_the_new_overtakes_the_late(lanes, add, clocks):
    late = add(3)
    clocks.pass_by(LATE_S + 1)
    new = add(2)
    assert take(lanes) == (new, False)
    assert take(lanes) == (late, True)
    newer = add(1)
    assert take(lanes) == (newer, False)


def test_history_is_rationed_and_says_how_long_to_wait(lanes, add, clocks):
    late = add(25)
    clocks.pass_by(LATE_S + 1)
    assert take(lanes) == (late[:10], True)  # ten a second, and no more than a second's worth at once
    assert take(lanes) == ([], False)
    assert lanes.wait_s() == pytest.approx(0.1)
    clocks.pass_by(0.55)
    assert take(lanes) == (late[10:15], True)
    new = add(3)
    assert take(lanes) == (new, False)  # which no ration holds back
    clocks.pass_by(60.0)
    assert take(lanes) == (late[15:25], True)
    assert take(lanes) == ([], False)
    assert lanes.wait_s() is None


def test_a_link_that_was_frozen_sets_aside_what_it_missed(lanes, add, clocks):
    first = add(2)
    assert take(lanes) == (first, False)
    missed = add(3)
    clocks.pass_by(LATE_S + 1)
    new = add(1)
    assert take(lanes) == (new, False)
    assert take(lanes) == (missed, True)


def test_a_new_connection_sends_again_what_was_not_acknowledged_and_nothing_else(lanes, add, journal):
    seqs = add(4)
    rows, _ = lanes.next(4)
    lanes.advance([row.seq for row in rows[:2]], history=False)
    lanes.restart()
    assert take(lanes) == (seqs[2:], False)
    lanes.restart()
    assert take(lanes) == ([], False)
    assert lanes.forget() == [(seqs[0], seqs[-1])]  # control has dropped nothing yet
    journal.acknowledge([(seqs[0], seqs[2])])
    assert lanes.forget() == [(seqs[3], seqs[3])]
    journal.acknowledge([(seqs[3], seqs[3])])
    assert lanes.forget() == []


def test_only_the_latest_of_a_topic_is_still_retained(lanes, add):
    add(2, "state/a/b", retain=True)
    add(1, "state/a/c", retain=True)
    rows, _ = lanes.next(10)
    assert [row.retain for row in rows] == [False, True, True]


def test_birth_leaves_to_the_live_lane_what_it_is_about_to_publish(lanes, add, clocks, journal):
    add(1, "state/a/old", retain=True)
    journal.acknowledge([(1, 100)])
    add(1, "state/a/late", retain=True)
    clocks.pass_by(LATE_S + 1)
    fresh = add(1, "state/a/fresh", retain=True)
    add(1, "alarm/cleared", retain=True, payload=b"")

    def born():
        topics, after = [], ""
        while True:
            page, after = lanes.to_be_born(after, 2)
            topics += [value.topic for value in page]
            if not after:
                return topics

    assert born() == ["state/a/late", "state/a/old"]
    rows, _ = lanes.next(1)
    assert rows[0].seq == fresh[0]
    lanes.advance([rows[0].seq], history=False)  # delivered, but control has not dropped it yet
    assert born() == ["state/a/fresh", "state/a/late", "state/a/old"]


def test_a_clock_that_jumps_loses_nothing(lanes, add, clocks):
    before = add(2)
    clocks.wall_s += 1e6
    between = add(2)
    clocks.wall_s -= 2e6
    after = add(2)
    found = []
    for _ in range(10):
        clocks.mono_s += 1.0
        found += take(lanes)[0]
    assert sorted(found) == before + between + after


def test_a_long_backlog_is_read_in_short_reads(lanes, journal, clocks):
    journal.record_many([Record("k", "m", {"n": 1}, topic="tele", wall_s=0.0) for _ in range(20_000)])
    began = time.monotonic()
    rows, history = lanes.next(20)
    assert time.monotonic() - began < 1.0
    assert (len(rows), history) == (10, True)


@pytest.mark.parametrize(
    ("numbers", "closed"),
    [([], []), ([5], [(5, 5)]), ([3, 1, 2], [(1, 3)]), ([1, 2, 4, 6, 7], [(1, 2), (4, 4), (6, 7)])],
)
def test_numbers_become_ranges(numbers, closed):
    assert ranges(numbers) == closed
