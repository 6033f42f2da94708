"""Events of one line, counted where pixels have many and where they have few: always what numpy counts."""

import numpy as np
import pytest

from edge.event_kernels import (
    BEFORE,
    FEW,
    ON,
    OUTSIDE,
    PARKED,
    RECEIVED,
    RUN,
    accumulate,
    accumulate_maps,
    pack,
)
from edge.events import ranges_of

CHANNELS, PIXELS, SEGMENTS = 300, 40, 5
LOOKUP = np.zeros(CHANNELS + 1, np.uint8)
LOOKUP[20:60], LOOKUP[60:90], LOOKUP[200:230], LOOKUP[299], LOOKUP[100:110] = 1, 2, 3, 4, 1


def counted(channel, pixel, pieces=(0,), spectrum=0):
    records = channel.astype(np.uint64) | pixel.astype(np.uint64) << np.uint64(16)
    counts = np.zeros((PIXELS + 1, SEGMENTS), np.uint32)
    line = np.full(CHANNELS + 1, spectrum, np.uint32)
    ranges = ranges_of(LOOKUP)
    before = np.full(len(ranges), 77, np.uint32)
    for part in np.split(records, pieces):
        accumulate(part, LOOKUP, ranges, counts, line, before)
    return counts, line


def drawn(lengths):
    rng = np.random.default_rng(4)
    pixel = np.repeat(rng.integers(0, PIXELS + 1, len(lengths)), lengths)
    return rng.integers(0, CHANNELS + 1, pixel.size), pixel


@pytest.mark.parametrize(
    "lengths",
    [
        [1] * 3000,  # no order at all
        [7] * 400,
        [2000, 2000, 1, 2000],
        [RUN - 1, RUN, RUN + 1, 3 * RUN + 70],
        [FEW, FEW - 1, FEW + 1, 3],
        [900, 2, 3, 1, 900, 900, 40, 40, 700, 17, 15, 16, 2000, 5] * 3,
        [],
    ],
)
def test_runs_of_any_length_are_what_numpy_counts(lengths):
    channel, pixel = drawn(lengths)
    known = np.zeros((PIXELS + 1, SEGMENTS), np.int64)
    np.add.at(known, (pixel, LOOKUP[channel]), 1)
    counts, line = counted(channel, pixel)
    assert np.array_equal(counts, known)
    assert np.array_equal(line, np.bincount(channel, minlength=CHANNELS + 1))
    counts[...] = 0
    records = channel.astype(np.uint64) | pixel.astype(np.uint64) << np.uint64(16)
    aside, run = np.zeros(CHANNELS + 1, np.uint32), np.zeros(RUN + 64, np.uint16)
    accumulate_maps(records, LOOKUP, ranges_of(LOOKUP), counts, aside, run)
    assert np.array_equal(counts, known)


def test_a_spectrum_that_wraps_changes_no_map():
    channel, pixel = drawn([5000, 20, 5000])
    counts, line = counted(channel, pixel, spectrum=2**32 - 9)
    known, spectrum = counted(channel, pixel)
    assert np.array_equal(counts, known)
    assert np.array_equal((line + 9).astype(np.uint32), spectrum)


def test_any_pieces_count_the_same():
    channel, pixel = drawn([1500, 3, 800, 60, 60, 2500])
    whole, line = counted(channel, pixel)
    for cut in (1, 15, 700, 1501, 2300):
        parts, spectrum = counted(channel, pixel, np.arange(cut, channel.size, cut))
        assert np.array_equal(parts, whole)
        assert np.array_equal(spectrum, line)


def test_ranges_are_the_lookup_table_again():
    again = np.zeros_like(LOOKUP)
    for first, stop, segment in ranges_of(LOOKUP):
        again[first:stop] = segment
    assert np.array_equal(again, LOOKUP)
    assert ranges_of(np.zeros(9, np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("room", [1, 5, 16, 17, 64, 1000])
def test_records_of_any_room_hold_what_the_raster_says(room):
    nx, ny, top = 7, 5, 200
    rng = np.random.default_rng(room)
    lengths = rng.choice([1, 2, 15, 16, 17, 33, 90], 80)
    frame = np.repeat(np.sort(rng.integers(-3, ny * (nx + 1) + 6, lengths.size)), lengths)
    channel = rng.integers(0, 300, frame.size).astype(np.uint16)
    line, column = np.divmod(frame - 1, nx + 1)
    outside, before = frame > ny * (nx + 1), frame <= 0
    off = before | (column == nx)
    pixel = np.where(off, nx * ny, line * nx + column)[~outside]
    records, tallies, start, got = np.zeros(room, np.uint64), np.zeros(5, np.int64), 0, []
    while start < frame.size:
        kept, start, where = pack(channel, frame, start, nx, ny, top, records, tallies)
        got.append(records[:kept].copy())
        assert kept == 0 or set(got[-1] >> np.uint64(16)) <= (
            {nx * ny} if where == ny else set(range(where * nx, where * nx + nx))
        )
    known = pixel.astype(np.uint64) << np.uint64(16) | np.minimum(channel[~outside], top).astype(np.uint64)
    assert np.array_equal(np.concatenate(got), known)
    parked = off & ~before & ~outside
    tally = {RECEIVED: frame.size, BEFORE: before.sum(), PARKED: parked.sum(), OUTSIDE: outside.sum()}
    tally[ON] = frame.size - before.sum() - parked.sum() - outside.sum()
    assert tallies.tolist() == [tally[k] for k in range(5)]
