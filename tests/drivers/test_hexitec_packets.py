"""Packets to frames: every frame number has exactly one fate, whatever happens on the way."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from drivers.hexitec_packets import LEAP, MEMORY, WINDOW, Assembler, Counts, Layout

LAYOUT = Layout()
SIZES = (8000, 4800)


def samples(number: int) -> bytes:
    return np.random.default_rng(number).integers(0, 65536, 6400, np.uint16).astype("<u2").tobytes()


def packets(number: int, *, extended: bool = False) -> list[bytes]:
    """A frame as STFC's producer cuts it, written from the header file once more."""
    data = samples(number)
    found = []
    for index, (start, size) in enumerate(((0, 8000), (8000, 4800))):
        flags = (1 << 31 if index == 0 else 0) | (1 << 30 if index == 1 else 0)
        if extended:  # the producer writes one u64 with bit 63 or 62: the same bytes
            head = struct.pack("<QQ", number, index | flags << 32).ljust(64, b"\0")
        else:
            head = struct.pack("<II", number & 0xFFFFFFFF, index | flags)
        found.append(head + data[start : start + size])
    return found


class Taker:
    """An assembler with what it delivered."""

    def __init__(self, layout: Layout = LAYOUT, first: int = 0) -> None:
        self.whole: dict[int, bytes] = {}
        self.order: list[int] = []
        self.assembler = Assembler(layout, self.deliver, first=first)

    def deliver(self, number: int, memory: memoryview) -> None:
        assert number not in self.whole
        self.whole[number] = bytes(memory)
        self.order.append(number)

    def take(self, *pieces: bytes) -> Counts:
        for piece in pieces:
            self.assembler.packet[: len(piece)] = piece
            self.assembler.take(len(piece))
        return self.assembler.counts

    def end(self) -> Counts:
        self.assembler.flush()
        return self.assembler.counts


def test_the_bytes_of_one_frame() -> None:
    taker = Taker()
    first, second = packets(0)
    assert (first[:8].hex(), second[:8].hex()) == ("0000000000000080", "0000000001000040")
    taker.take(first)
    assert not taker.whole
    assert taker.take(second) == Counts(packets=2, frames=1)
    assert taker.whole == {0: samples(0)}


def test_the_extended_header_holds_long_numbers() -> None:
    number = 5 << 32
    taker = Taker(Layout(header="extended"), first=number)
    assert taker.take(*packets(number, extended=True)).frames == 1
    assert taker.whole == {number: samples(number)}


def test_a_frame_is_whole_with_its_last_packet_first() -> None:
    taker = Taker()
    counts = taker.take(*reversed(packets(0)), *packets(1))
    assert (counts.frames, counts.reordered, counts.lost_packets) == (2, 1, 0)
    assert taker.whole == {0: samples(0), 1: samples(1)}


def test_the_end_flag_alone_makes_no_frame() -> None:
    taker = Taker()
    taker.take(packets(0)[1], *packets(1))
    counts = taker.end()
    assert taker.whole == {1: samples(1)}
    assert (counts.frames, counts.incomplete, counts.missing, counts.lost_packets) == (1, 1, 0, 1)


def test_a_lost_packet_costs_its_frame_and_no_other() -> None:
    taker = Taker()
    for number in range(100):
        taker.take(*(packets(number)[:1] if number == 40 else packets(number)))
    counts = taker.end()
    assert sorted(taker.whole) == [n for n in range(100) if n != 40]
    assert (counts.frames, counts.incomplete, counts.missing) == (99, 1, 0)


def test_what_comes_after_its_frame_was_given_up_is_never_used() -> None:
    taker = Taker()
    late = packets(3)
    for number in range(3 + WINDOW + 1):
        taker.take(*(late[:1] if number == 3 else packets(number)))
    counts = taker.take(late[1])
    assert 3 not in taker.whole
    assert (counts.late, counts.incomplete) == (1, 1)


def test_doubled_packets_are_counted_and_change_nothing() -> None:
    taker = Taker()
    a, b = packets(0)
    counts = taker.take(a, a, b, b, a, *packets(1))
    assert (counts.frames, counts.doubled, counts.packets) == (2, 3, 7)


@pytest.mark.parametrize("gap", [WINDOW, WINDOW + 1, 500, MEMORY + 7, LEAP - 1])
def test_missing_numbers_are_counted_however_many(gap: int) -> None:
    taker = Taker()
    taker.take(*packets(0), *packets(1 + gap))
    counts = taker.end()
    assert (counts.frames, counts.missing, counts.lost_packets) == (2, gap, 2 * gap)


def test_a_gap_of_minutes_is_believed_when_the_numbers_go_on() -> None:
    taker = Taker()
    taker.take(*packets(0))
    for number in range(10_000_000, 10_000_040):
        taker.take(*packets(number))
    counts = taker.end()
    assert counts.frames + counts.missing + counts.incomplete == 10_000_040
    assert counts.frames >= 30
    assert counts.resets == 0


def test_one_absurd_number_does_not_move_the_others() -> None:
    taker = Taker()
    taker.take(*packets(0), *packets(3_000_000), *packets(1))
    counts = taker.end()
    assert sorted(taker.whole) == [0, 1]
    assert (counts.leaps, counts.missing) == (2, 0)


def test_a_camera_that_numbers_anew_is_followed_and_told() -> None:
    taker = Taker(first=0)
    for number in range(5000, 5040):
        taker.take(*packets(number))
    for number in range(40):
        taker.take(*packets(number))
    counts = taker.end()
    assert (counts.resets, counts.incomplete) == (1, 0)
    assert counts.frames + counts.missing == 5040 + 40


def test_numbers_wrap_at_32_bits() -> None:
    first = (1 << 32) - 3
    taker = Taker(first=first)
    for number in range(first, first + 6):
        taker.take(*packets(number))
    assert taker.end() == Counts(packets=12, frames=6)
    assert taker.order == list(range(first, first + 6))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\0" * 8,
        packets(0)[0][:-2],
        packets(0)[0] + b"\0",
        packets(0)[1][:8] + packets(0)[0][8:],  # number and size do not belong together
        struct.pack("<II", 0, 2) + bytes(4800),
        struct.pack("<II", 0, 0) + bytes(8000),  # without its start flag
    ],
)
def test_what_is_no_packet_of_this_camera_is_bad(wrong: bytes) -> None:
    taker = Taker()
    assert taker.take(wrong) == Counts(packets=1, bad=1)
    assert taker.take(*packets(0)).frames == 1


@pytest.mark.parametrize("seed", range(6))
def test_every_number_has_one_fate(seed: int) -> None:
    """Random loss, doubling and shuffling; the sums are known from what was done to the packets."""
    rng = random.Random(seed)
    sent, arrived, stream = 400, {}, []
    for number in range(sent):
        for index, packet in enumerate(packets(number)):
            if rng.random() < 0.03:
                continue
            for _ in range(1 + (rng.random() < 0.03)):
                stream.append((2 * number + index + rng.uniform(0, 12), number, index, packet))
    stream.sort(key=lambda entry: entry[0])
    taker = Taker()
    for _, number, index, packet in stream:
        arrived.setdefault(number, set()).add(index)
        taker.take(packet)
    counts = taker.end()
    newest = max(arrived)
    whole = [number for number, got in arrived.items() if len(got) == 2]
    assert sorted(taker.whole) == sorted(whole)
    assert all(taker.whole[number] == samples(number) for number in whole)
    assert counts.frames + counts.incomplete + counts.missing == newest + 1
    assert counts.missing == newest + 1 - len(arrived)
    assert counts.packets == 2 * counts.frames + (len(arrived) - len(whole)) + counts.doubled + counts.late
