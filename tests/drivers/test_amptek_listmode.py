"""The list-mode decoder against words of the guide and against a plain loop written from the same guide."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.amptek_listmode import ListModeDecoder
from drivers.errors import BadReply


def event(channel: int, low: int) -> bytes:
    return struct.pack(">HH", channel, low)


def tag(time: int) -> bytes:
    return struct.pack(">I", 0x80000000 | time % 2**30)


def frame(number: int, time: int) -> bytes:
    return struct.pack(">I", 0xC0000000 | (number % 65536) << 14 | (time >> 16) % 2**14)


def test_worked_words():
    decoder = ListModeDecoder()
    events = decoder.feed(bytes.fromhex("02 a5 12 34"))
    assert (events.channel.tolist(), events.time_ticks.tolist()) == ([677], [4660])
    assert (events.frame.tolist(), events.untagged) == ([-1], 1)
    events = decoder.feed(bytes.fromhex("80 01 00 00"))
    assert (events.channel.size, events.last_time, events.last_frame) == (0, 65536, -1)
    events = decoder.feed(bytes.fromhex("c0 00 40 01"))
    assert (events.channel.size, events.last_time, events.last_frame) == (0, 65536, 1)
    events = decoder.feed(bytes.fromhex("3f ff ff ff"))
    assert (events.channel.tolist(), events.time_ticks.tolist()) == ([16383], [131071])
    assert (events.frame.tolist(), events.untagged) == ([1], 0)
    assert (events.channel.dtype, events.time_ticks.dtype, events.frame.dtype) == (
        np.uint16,
        np.uint64,
        np.int64,
    )


def test_nothing_in_nothing_out():
    events = ListModeDecoder().feed(b"")
    assert (events.channel.size, events.last_frame, events.last_time, events.untagged) == (0, -1, 0, 0)


def test_several_pulses_without_events_in_between():
    stream = frame(1, 0) + frame(2, 0) + event(5, 10) + frame(3, 0) + frame(4, 0) + frame(7, 0) + event(6, 20)
    events = ListModeDecoder().feed(stream)
    assert events.frame.tolist() == [2, 7]
    assert events.last_frame == 7


def test_frame_and_time_wrap():
    decoder = ListModeDecoder()
    late = 2**30 - 65536
    first = decoder.feed(tag(late) + frame(65535, late) + event(1, 0xFFFF))
    assert (first.frame.tolist(), first.time_ticks.tolist()) == ([65535], [2**30 - 1])
    second = decoder.feed(frame(65536, 2**30) + event(2, 3) + tag(2**30 + 65536) + event(3, 4))
    assert second.frame.tolist() == [65536, 65536]
    assert second.time_ticks.tolist() == [2**30 + 3, 2**30 + 65536 + 4]
    assert second.last_frame == 65536


def test_a_step_of_less_than_half_the_range_is_forward():
    decoder = ListModeDecoder()
    decoder.feed(frame(10, 0))
    assert decoder.feed(frame(10 + 32767, 0)).last_frame == 10 + 32767
    with pytest.raises(BadReply, match="frame steps back"):
        decoder.feed(frame(10 + 32767 + 32768, 0))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (frame(7, 0), frame(6, 0)),
        (frame(7, 5 << 16), frame(8, 4 << 16)),
        (tag(9 << 16), tag(8 << 16)),
        (tag(9 << 16 | 5), tag(9 << 16 | 4)),
        (tag(9 << 16), frame(1, 8 << 16)),
    ],
)
def test_stepping_back_is_refused_and_changes_nothing(before, after):
    with pytest.raises(BadReply, match="steps back"):
        ListModeDecoder().feed(before + after)
    decoder = ListModeDecoder()
    last = decoder.feed(before + event(1, 1)).last_frame
    with pytest.raises(BadReply, match="steps back"):
        decoder.feed(event(2, 2) + after)
    assert decoder.feed(event(3, 7)).frame.tolist() == [last]


def test_datagrams_that_changed_places_are_noticed():
    words = b"".join(frame(i, 0) + event(100, i) for i in range(300))
    datagrams = [words[i : i + 520] for i in range(0, len(words), 520)]
    datagrams[1], datagrams[2] = datagrams[2], datagrams[1]
    with pytest.raises(BadReply, match="frame steps back from 194 to 65"):
        ListModeDecoder().feed(b"".join(datagrams))


def test_after_a_pause_the_time_may_be_anything_but_frames_count_on():
    decoder = ListModeDecoder()
    decoder.feed(frame(65535, 900 << 16) + tag(901 << 16))
    decoder.restart_time()
    events = decoder.feed(event(1, 5) + tag(3 << 16) + frame(65536, 3 << 16) + event(2, 6))
    assert events.time_ticks.tolist() == [5, 3 * 65536 + 6]
    assert events.frame.tolist() == [65535, 65536]
    assert (events.untagged, events.last_time) == (1, 3 * 65536 + 6)


def test_a_stream_may_begin_anywhere():
    decoder = ListModeDecoder()
    events = decoder.feed(
        event(1, 1) + tag(2**30 - 65536) + event(2, 2) + frame(60000, 2**30 - 65536) + event(3, 3)
    )
    assert events.untagged == 1
    assert events.frame.tolist() == [-1, -1, 60000]
    assert events.time_ticks.tolist() == [1, 2**30 - 65536 + 2, 2**30 - 65536 + 3]


def plain_loop(stream: bytes) -> tuple[list[int], list[int], list[int]]:
    """The guide's rules, one word at a time."""
    channels, times, frames = [], [], []
    upper, number = 0, -1
    seen_upper = False
    for (word,) in struct.iter_unpack(">I", stream):
        if word >> 31 == 0:
            channels.append((word >> 16) & 0x3FFF)
            times.append(upper * 65536 + (word & 0xFFFF))
            frames.append(number)
            continue
        new = word & 0x3FFF if word >> 30 == 3 else (word >> 16) & 0x3FFF
        upper = upper + (new - upper) % 2**14 if seen_upper else new
        seen_upper = True
        if word >> 30 == 3:
            new = (word >> 14) & 0xFFFF
            number = new if number == -1 else number + (new - number) % 65536
    return channels, times, frames


@st.composite
def streams(draw):
    """A device that counts on: events, tags at every roll-over of the low time, frame words for pulses."""
    time = draw(st.integers(0, 2**31))
    number = draw(st.integers(0, 140_000))
    stream = b""
    for kind, step in draw(
        st.lists(st.tuples(st.sampled_from("eeft"), st.integers(0, 3_000_000)), max_size=60)
    ):
        if (time + step) >> 16 != time >> 16:
            stream += tag((time + step) >> 16 << 16)
        time += step
        if kind == "f":
            number += draw(st.sampled_from([1, 1, 1, 2, 300, 20_000]))
            stream += frame(number, time)
        elif kind == "t":
            stream += tag(time)
        else:
            stream += event(draw(st.integers(0, 16383)), time % 65536)
    return stream


@settings(max_examples=150, deadline=None)
@given(streams(), st.data())
def test_splitting_anywhere_gives_the_same_and_it_is_the_plain_loop(stream, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = ListModeDecoder()
    parts = [decoder.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    channels, times, frames = plain_loop(stream)
    assert np.concatenate([part.channel for part in parts]).tolist() == channels
    assert np.concatenate([part.time_ticks for part in parts]).tolist() == times
    assert np.concatenate([part.frame for part in parts]).tolist() == frames
    whole = ListModeDecoder().feed(stream)
    assert whole.channel.tolist() == channels
    assert (whole.last_frame, whole.last_time) == (parts[-1].last_frame, parts[-1].last_time)
    assert sum(part.untagged for part in parts) == whole.untagged
