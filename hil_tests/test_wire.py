"""The wires of the bench: the lab clock, a pseudo-terminal with the time of a real line, and its faults."""

import asyncio
import os
import time

import pytest
import serial

from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.serial_pty import SerialPty
from hil_tests.sim.wire.text import LineReceiver

# --- clock -----------------------------------------------------------------------------------------------


def test_lab_time_is_the_scaled_monotonic_clock():
    epoch = time.monotonic() - 10.0
    clock = LabClock(speed=60.0, epoch=epoch)
    before = (time.monotonic() - epoch) * 60.0
    now = clock.now_s()
    assert before <= now <= (time.monotonic() - epoch) * 60.0
    with pytest.raises(ValueError, match="positive"):
        LabClock(speed=0.0)


@pytest.mark.parametrize(
    ("speed", "deadline_s", "wall_s"),
    [(1.0, 3.0, 3.0), (60.0, 3.0, 0.5), (60.0, 0.1, 0.1), (60.0, 600.0, 10.0)],
)
def test_safety_deadlines_at_speed(speed, deadline_s, wall_s):
    assert LabClock(speed=speed).wall_timeout_s(deadline_s) == wall_s


async def test_sleep_is_in_lab_time():
    clock = LabClock(speed=1000.0)
    before = time.monotonic()
    await clock.sleep(10.0)
    assert 0.009 < time.monotonic() - before < 1.0


async def test_manual_clock_wakes_sleepers_in_order():
    clock = ManualClock()
    woken = []

    async def sleeper(lab_s):
        await clock.sleep(lab_s)
        woken.append((lab_s, clock.now_s()))
        if lab_s == 1.0:
            await clock.sleep(0.5)
            woken.append(("again", clock.now_s()))

    tasks = [asyncio.ensure_future(sleeper(lab_s)) for lab_s in (3.0, 1.0, 2.0)]
    await clock.advance(2.5)
    assert woken == [(1.0, 1.0), ("again", 1.5), (2.0, 2.0)]
    assert clock.now_s() == 2.5
    await clock.advance(1.0)
    assert woken[-1] == (3.0, 3.0)
    await asyncio.gather(*tasks)


# --- pseudo-terminal -------------------------------------------------------------------------------------


async def test_bytes_take_their_time_on_the_wire_divided_by_the_speed():
    heard = []
    loop = asyncio.get_running_loop()
    port = SerialPty(lambda data: heard.append((loop.time(), data)), baud=9600, speed=2.0)
    with serial.Serial(port.open(), 9600, timeout=1.0) as host:
        begin = loop.time()
        await asyncio.to_thread(host.write, bytes(48))  # 50 ms at 9600 baud, 25 ms here
        while sum(len(data) for _, data in heard) < 48 and loop.time() < begin + 2.0:
            await asyncio.sleep(0.002)
        assert b"".join(data for _, data in heard) == bytes(48)
        assert heard[-1][0] - begin > 0.024
        begin = time.monotonic()
        port.send(bytes(24))
        port.send(bytes(24))
        assert len(await asyncio.to_thread(host.read, 48)) == 48
        assert time.monotonic() - begin > 0.024
    port.close()


async def test_the_host_may_come_and_go():
    heard = []
    port = SerialPty(heard.append, baud=921600, speed=100.0)
    name = port.open()
    for k in range(2):
        with serial.Serial(name, 9600, timeout=1.0) as host:
            await asyncio.to_thread(host.write, bytes([k]))
            while len(heard) <= k:
                await asyncio.sleep(0.001)
    assert b"".join(heard) == b"\x00\x01"
    port.close()
    assert not os.path.exists(name)


async def test_a_host_that_does_not_read_stops_nobody():
    port = SerialPty(lambda data: None, baud=921600, speed=1000.0)
    with serial.Serial(port.open(), 9600):
        for _ in range(100):
            port.send(bytes(1000))
        await asyncio.sleep(0.02)
        assert port.lost_bytes > 0
        assert port.sent_bytes + port.lost_bytes == 100_000
    port.close()


async def test_unplugged_the_name_is_gone_and_the_host_hangs_up():
    port = SerialPty(lambda data: None, baud=921600)
    name = port.open()
    host = serial.Serial(name, 9600, timeout=0.2)
    port.unplug()
    assert not os.path.exists(name)
    with pytest.raises(serial.SerialException):
        host.read(1)
    host.close()
    port.send(b"lost")
    assert port.lost_bytes == 4
    port.replug()
    port.replug()  # harmless
    with serial.Serial(name, 9600, timeout=1.0) as again:
        port.send(b"here")
        assert await asyncio.to_thread(again.read, 4) == b"here"
    port.close()


# --- faults ----------------------------------------------------------------------------------------------

SENT = b"abcdef"


@pytest.mark.parametrize(
    ("fault", "pieces"),
    [
        ({"kind": "lost"}, [(0.0, b"abcef")]),
        ({"kind": "lost", "at": 0, "bytes": 2}, [(0.0, b"cdef")]),
        ({"kind": "flipped", "at": 0, "bit": 5}, [(0.0, b"Abcdef")]),
        ({"kind": "doubled"}, [(0.0, SENT), (0.0, SENT)]),
        ({"kind": "doubled", "at": 1}, [(0.0, b"abbcdef")]),
        ({"kind": "late", "delay_s": 2.5}, [(2.5, SENT)]),
        ({"kind": "silence"}, []),
        ({"kind": "noise", "hex": "ff00"}, [(0.0, b"\xff\x00abcdef")]),
    ],
)
def test_what_a_fault_does_to_a_reply(fault, pieces):
    faults = WireFaults()
    faults.inject(fault)
    assert faults.outgoing(SENT) == pieces
    assert faults.outgoing(SENT) == [(0.0, SENT)]  # only once
    assert faults.counts == {fault["kind"]: 1}


def test_late_reply_of_the_previous_request_and_swapped_ones():
    faults = WireFaults()
    faults.inject({"kind": "previous"})
    assert faults.outgoing(b"1") == []
    assert faults.outgoing(b"2") == [(0.0, b"1"), (0.0, b"2")]
    faults.inject({"kind": "swapped"})
    assert faults.outgoing(b"3") == []
    assert faults.outgoing(b"4") == [(0.0, b"4"), (0.0, b"3")]


def test_count_and_skip():
    faults = WireFaults()
    faults.inject({"kind": "silence", "skip": 1, "count": 2})
    assert [len(faults.outgoing(SENT)) for _ in range(4)] == [1, 0, 0, 1]


def test_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="no such wire fault"):
        WireFaults().inject({"kind": "gremlin"})


# --- text ------------------------------------------------------------------------------------------------


def test_lines_whatever_the_pieces():
    whole = b"one\r\ntwo\n\nthree\n"
    for cut in range(len(whole)):
        receiver = LineReceiver()
        lines = [*receiver.feed(whole[:cut]), *receiver.feed(whole[cut:])]
        assert lines == [("one", False), ("two", False), ("", False), ("three", False)]


def test_a_line_that_is_too_long_is_cut_and_said_to_be():
    receiver = LineReceiver(longest=4)
    assert list(receiver.feed(b"abcdefgh\nij\n")) == [("abcd", True), ("ij", False)]
    assert receiver.overlong == 1
