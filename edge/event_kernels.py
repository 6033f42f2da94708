"""The kernels of list-mode events: into records, and from records to counts per window and pixel and spectra.

A record has eight bytes: bits 0-15 channel, 16-47 pixel. The raster is worked out once, in ``pack``, whatever
is made of the events then.

An event is one increment where its pixel has many: only the spectrum of the line is counted, and what the
pixel adds to a window is what the sum of the spectrum over the window has grown by. Where pixels have few
events, the window is looked up for each. Both count the same; the spectrum may wrap, differences do not care.

Maps alone, of events whose spectra are known, need no increment: 64 channels are compared with a window
at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edge.machine import channels_16, inside_64, one_pixel_16, pack_16, prefetch, prefetch_to_write

STRIDE = 16  # frames, or records, that are compared at once
FEW = 512  # records that are counted one by one before long runs are looked for again
AHEAD = 256  # records from the one being counted to the one that is fetched: 2 kB, some hundred nanoseconds
RUN = 4096  # channels of one pixel that are compared with the windows together: 8 kB stay near
FAR = 1024  # the same where windows are compared: that is faster, so more has to be under way
NONE = np.uint16(0xFFFF)  # a channel that no detector has

RECEIVED, ON, BEFORE, PARKED, OUTSIDE, UNDERFLOW, OVERFLOW = range(7)  # tallies

PIXEL_SHIFT = np.uint64(16)
CHANNEL_MASK = np.uint64(0xFFFF)
_1 = np.uint64(1)


@njit(
    "UniTuple(i8, 3)(u2[::1], i8[::1], i8, i8, i8, i8, u8[::1], i8[::1])",
    cache=True,
    nogil=True,
    boundscheck=False,
)
def pack(  # type: ignore[no-untyped-def]  # numba compiles the signature above
    channel, frame, start, nx, ny, channels, records, tallies
):
    """Pack events of one line into records and tally them; return (records, next event, line).

    Frame f (pulses since the pass began) belongs to line (f-1) // (nx+1), column (f-1) % (nx+1). Column nx
    is the parked beam, f <= 0 the blanked beam before the first pulse: both go to the beam-off pixel nx ny,
    line ny. f > ny (nx+1) is outside the raster: tallied, no record. A channel of at least ``channels``
    becomes ``channels``, the overflow. Stops where the line changes and where ``records`` is full.

    Args:
        channel: amplitudes, uint16, shape (n,).
        frame: pulses since the start of the pass, int64, shape (n,).
        start: first event to look at.
        nx: pixels per line.
        ny: lines.
        channels: of the detector, below 65 536.
        records: uint64, shape (room,).
        tallies: int64, shape (5,), the first of ``TALLIES``: those that the frame decides.
    """
    n = channel.size
    pulses = ny * (nx + 1)
    top = np.uint16(channels)
    kept = 0
    current = -1
    i = start
    while i < n and kept < records.size:
        f = frame[i]
        pixel = nx * ny
        line = ny
        kind = ON
        if f <= 0:
            kind = BEFORE
        elif f > pulses:
            kind = OUTSIDE
        else:
            row = (f - 1) // (nx + 1)
            column = (f - 1) - row * (nx + 1)
            if column == nx:
                kind = PARKED
            else:
                line = row
                pixel = row * nx + column
        if kind != OUTSIDE and current >= 0 and line != current:
            break
        high = np.uint64(pixel) << PIXEL_SHIFT
        end = i
        step = 0 if kind == OUTSIDE else 1  # what is outside the raster is written over by the next
        same = STRIDE
        while end + STRIDE <= n and kept + STRIDE <= records.size:
            prefetch(frame, np.uint64(end + AHEAD))
            prefetch(frame, np.uint64(end + AHEAD + 8))
            prefetch(channel, np.uint64(end + 2 * AHEAD))
            same = pack_16(frame, channel, np.uint64(end), f, top, high, records, np.uint64(kept))
            if same != STRIDE:  # a jump that is foreseen, instead of a sum that is waited for
                break
            end += STRIDE
            kept += STRIDE * step
        if same != STRIDE:
            end += same
            kept += same * step
        while same == STRIDE and end < n and kept < records.size and frame[end] == f:
            records[kept] = high | np.uint64(min(channel[end], top))
            end += 1
            kept += step
        tallies[kind] += end - i
        if kind != OUTSIDE:
            current = line
        i = end
    tallies[RECEIVED] += i - start
    return kept, i, current


@njit("void(u8[::1], u8, u8, u1[::1], u4[::1], u8, u4[::1])", cache=True, nogil=True, boundscheck=False)
def _one_by_one(  # type: ignore[no-untyped-def]
    records, start, stop, segment_of, flat, segments, spectrum
):
    """Add records ``start`` to ``stop - 1``, each to its segment and to the spectrum.

    Four places of the piece are worked on in turn: neighbouring events mostly fall into one pixel, and four
    counters in flight hide the time that an increment of the same one takes.
    """
    quarter = (stop - start) >> np.uint64(2)
    second, third, fourth = start + quarter, start + np.uint64(2) * quarter, start + np.uint64(3) * quarter
    for i in range(quarter):
        a, b = records[start + i], records[second + i]
        c, d = records[third + i], records[fourth + i]
        flat[(a >> PIXEL_SHIFT) * segments + segment_of[a & CHANNEL_MASK]] += np.uint32(1)
        flat[(b >> PIXEL_SHIFT) * segments + segment_of[b & CHANNEL_MASK]] += np.uint32(1)
        flat[(c >> PIXEL_SHIFT) * segments + segment_of[c & CHANNEL_MASK]] += np.uint32(1)
        flat[(d >> PIXEL_SHIFT) * segments + segment_of[d & CHANNEL_MASK]] += np.uint32(1)
        spectrum[a & CHANNEL_MASK] += np.uint32(1)
        spectrum[b & CHANNEL_MASK] += np.uint32(1)
        spectrum[c & CHANNEL_MASK] += np.uint32(1)
        spectrum[d & CHANNEL_MASK] += np.uint32(1)
    for i in range(fourth + quarter, stop):
        a = records[i]
        flat[(a >> PIXEL_SHIFT) * segments + segment_of[a & CHANNEL_MASK]] += np.uint32(1)
        spectrum[a & CHANNEL_MASK] += np.uint32(1)


@njit("u8(u8[::1], u8, u8, u4[::1])", cache=True, nogil=True, boundscheck=False)
def _one_pixel(records, start, stop, spectrum):  # type: ignore[no-untyped-def]
    """Add the records of one pixel from ``start`` on to the spectrum; return the first of another."""
    first = records[start]
    i = start
    while i + np.uint64(STRIDE) <= stop and one_pixel_16(records, i, first):
        prefetch(records, i + np.uint64(AHEAD))
        prefetch(records, i + np.uint64(AHEAD + 8))
        for k in range(STRIDE):
            spectrum[records[i + np.uint64(k)] & CHANNEL_MASK] += np.uint32(1)
        i += np.uint64(STRIDE)
    while i < stop and (records[i] ^ first) >> PIXEL_SHIFT == 0:
        spectrum[records[i] & CHANNEL_MASK] += np.uint32(1)
        i += _1
    return i


@njit("u4(u4[::1], u8, u8)", cache=True, nogil=True, boundscheck=False)
def _sum(spectrum, start, stop):  # type: ignore[no-untyped-def]
    total = np.uint32(0)
    for channel in range(start, stop):
        total = np.uint32(total + spectrum[channel])
    return total


@njit(
    "void(u8[::1], u1[::1], i8[:,::1], u4[:,::1], u4[::1], u4[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def accumulate(records, segment_of, ranges, counts, spectrum, before):  # type: ignore[no-untyped-def]
    """Add records of one line to the counts per pixel and segment and to a spectrum, in place.

    Args:
        records: from ``pack``, shape (n,).
        segment_of: channel to segment, uint8, shape (channels + 1,); the last entry is the overflow.
        ranges: the same as rows (first channel, one beyond the last, segment), int64, shape (rows, 3); what
            is in none belongs to segment 0.
        counts: uint32, shape (pixels + 1, segments).
        spectrum: of the line, or of the beam off, uint32, shape (channels + 1,). It may be scratch with
            anything in it: when other windows are laid over spectra that are known.
        before: scratch, uint32, at least as long as ``ranges``.
    """
    segments, rows = np.uint64(counts.shape[1]), ranges.shape[0]
    flat = counts.reshape(-1)
    many = np.uint64(32 + 20 * rows)  # events of a pixel from which sums are cheaper than looking up
    for row in range(rows):
        many += np.uint64(ranges[row, 1] - ranges[row, 0]) >> np.uint64(4)
    n = np.uint64(records.size)
    i = np.uint64(0)
    known = False
    if records.size >= spectrum.size:  # a long piece: that of another line came before
        for ahead in range(0, spectrum.size, 16):
            prefetch_to_write(spectrum, np.uint64(ahead))
    while i < n:
        first = records[i]
        if i + many > n or (records[i + many - _1] ^ first) >> PIXEL_SHIFT != 0:
            stop = min(n, i + np.uint64(FEW))
            for ahead in range(stop, stop + np.uint64(FEW), 8):
                prefetch(records, np.uint64(ahead))
            _one_by_one(records, i, stop, segment_of, flat, segments, spectrum)
            known, i = False, stop
            continue
        if not known:
            for row in range(rows):
                before[row] = _sum(spectrum, np.uint64(ranges[row, 0]), np.uint64(ranges[row, 1]))
            known = True
        stop = _one_pixel(records, i, n, spectrum)
        place = (first >> PIXEL_SHIFT) * segments
        rest = np.uint32(stop - i)
        for row in range(rows):
            now = _sum(spectrum, np.uint64(ranges[row, 0]), np.uint64(ranges[row, 1]))
            grown = np.uint32(now - before[row])
            before[row] = now
            rest = np.uint32(rest - grown)
            flat[place + np.uint64(ranges[row, 2])] += grown
        flat[place] += rest
        i = stop


@njit(
    "void(u8[::1], u1[::1], i8[:,::1], u4[:,::1], u4[::1], u2[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def accumulate_maps(records, segment_of, ranges, counts, aside, channels):  # type: ignore[no-untyped-def]
    """Add records to the counts per pixel and segment only, in place: spectra are known, windows are new.

    Args:
        records: as for ``accumulate``, of any lines.
        segment_of: as there.
        ranges: as there.
        counts: as there.
        aside: scratch, uint32, as long as ``segment_of``.
        channels: scratch, uint16, shape (RUN + 64,).
    """
    segments, rows = np.uint64(counts.shape[1]), ranges.shape[0]
    flat = counts.reshape(-1)
    many = np.uint64(48 + 3 * rows)
    n, full, step = np.uint64(records.size), np.uint64(RUN), np.uint64(STRIDE)
    i = np.uint64(0)
    while i < n:
        first = records[i]
        if i + many > n or (records[i + many - _1] ^ first) >> PIXEL_SHIFT != 0:
            stop = min(n, i + np.uint64(FEW))
            for ahead in range(stop, stop + np.uint64(FEW), 8):
                prefetch(records, np.uint64(ahead))
            _one_by_one(records, i, stop, segment_of, flat, segments, aside)
            i = stop
            continue
        kept = np.uint64(0)
        while i + step <= n and kept < full and channels_16(records, i, first, channels, kept):
            prefetch(records, i + np.uint64(FAR))
            prefetch(records, i + np.uint64(FAR + 8))
            i += step
            kept += step
        while i < n and kept < full and (records[i] ^ first) >> PIXEL_SHIFT == 0:
            channels[kept] = np.uint16(records[i] & CHANNEL_MASK)
            i += _1
            kept += _1
        for k in range(64):
            channels[kept + np.uint64(k)] = NONE
        place = (first >> PIXEL_SHIFT) * segments
        rest = kept
        for row in range(rows):
            low, width = np.uint16(ranges[row, 0]), np.uint16(ranges[row, 1] - ranges[row, 0])
            inside = np.uint64(0)
            for k in range(np.uint64(0), kept, np.uint64(64)):
                inside += inside_64(channels, np.uint64(k), low, width)
            rest -= inside
            flat[place + np.uint64(ranges[row, 2])] += np.uint32(inside)
        flat[place] += np.uint32(rest)
