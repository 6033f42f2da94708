"""The kernels of photon counting in frames: hits, clusters, energies, histogram. Integers throughout.

The logic of neighbours is that of ``compton_strings``. Every frame has its own strings; its result does not
depend on any order of pixels, so frames may come in any order, in any chunks, on any number of threads.

``GROUP`` frames go through each step together. What is counted per pixel is added for the whole group. And a
step reads in wide loads what an earlier one wrote in narrow stores; with seven frames between, it does not
wait for them.

Energies are fixed point, in units of 2^-40 of a bin, so every machine gets the same bin.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edge.compton_strings import (
    GROUP,
    PLANES,
    around,
    find_hits,
    first_of_pairs,
    flush_planes,
    fold,
    list_pixels,
    one_neighbour,
    sideways,
    two_sideways,
)
from edge.machine import borrowed, prefetch_to_write

DITHER_BITS = 10
GAIN_BITS = 30
ENERGY_BITS = DITHER_BITS + GAIN_BITS
HITS, NEAR, MEMBERS, PAIRS = range(4)  # per pixel: hits; frames with a hit in the neighbourhood (itself
# included); hits that belong to a pair; pairs that are counted here
KINDS = 2  # of them are counted in planes
SCRATCH = 5 * GROUP + 2  # strings
FLUSH_FRAMES = (1 << PLANES) - GROUP
ADDRESSES = 1 << 10  # increments that wait for the short loop that does them
_NONE = np.uint64(0)  # no bit set


@njit(
    "i8(u2[:,::1], i8, i8, i4[::1], i8, i8, i8[:,::1], i8, i8, i8, i4[::1], i8, u1[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def _single_addresses(  # type: ignore[no-untyped-def]
    frames, number, index, pixels, start, stop, scale, origin, bins, dither, addresses, filled, narrow
):
    """Write the histogram address of each single-pixel photon and ask for it; return the new fill."""
    scrambled = index * np.int64(40503)
    here, out = pixels[start:stop], addresses[filled : filled + stop - start]
    for k in range(stop - start):
        p = np.int64(here[k])
        u = (((scrambled + p * np.int64(26699)) >> np.int64(3)) & np.int64(1023)) - np.int64(512)
        x = (np.int64(frames[number, p]) << np.int64(DITHER_BITS)) + u * dither
        bin_ = ((scale[p, 0] * x + scale[p, 1] - origin) >> np.int64(ENERGY_BITS)) + 1
        bin_ = min(max(bin_, np.int64(0)), bins + 1)
        out[k] = p * (bins + 2) + bin_
        prefetch_to_write(narrow, np.uint64(p * (bins + 2) + bin_))
    return filled + stop - start


@njit(
    "i8(u2[:,::1], i8, i8, i4[::1], i8, i8, i8, i8[:,::1], i8, i8, i8, i4[::1], i8, u4[:,::1], u1[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def _pair_addresses(  # type: ignore[no-untyped-def]
    frames,
    number,
    index,
    pixels,
    start,
    stop,
    step,
    scale,
    origin,
    bins,
    dither,
    addresses,
    filled,
    counts,
    narrow,
):
    """The same for pairs of a pixel and the one ``step`` behind it: the sum, where the larger energy is."""
    scrambled = index * np.int64(40503)
    members, pairs = counts[MEMBERS], counts[PAIRS]
    here, out = pixels[start:stop], addresses[filled : filled + stop - start]
    for k in range(stop - start):
        p = np.int64(here[k])
        q = p + step
        u = (((scrambled + p * np.int64(26699)) >> np.int64(3)) & np.int64(1023)) - np.int64(512)
        x = (np.int64(frames[number, p]) << np.int64(DITHER_BITS)) + u * dither
        first = scale[p, 0] * x + scale[p, 1]
        u = (((scrambled + q * np.int64(26699)) >> np.int64(3)) & np.int64(1023)) - np.int64(512)
        x = (np.int64(frames[number, q]) << np.int64(DITHER_BITS)) + u * dither
        second = scale[q, 0] * x + scale[q, 1]
        bin_ = ((first + second - origin) >> np.int64(ENERGY_BITS)) + 1
        bin_ = min(max(bin_, np.int64(0)), bins + 1)
        winner = q if second > first else p
        members[p] += 1
        members[q] += 1
        pairs[winner] += 1
        out[k] = winner * (bins + 2) + bin_
        prefetch_to_write(narrow, np.uint64(winner * (bins + 2) + bin_))
    return filled + stop - start


@njit("void(i4[::1], i8, u1[::1], u4[::1])", cache=True, nogil=True, boundscheck=False)
def _increment(addresses, n, narrow, histogram):  # type: ignore[no-untyped-def]
    for k in range(n):
        value = np.uint8(narrow[addresses[k]] + np.uint8(1))
        narrow[addresses[k]] = value
        if value == 0:
            histogram[addresses[k]] += np.uint32(1 << 8)


@njit(
    "i8(u2[:,::1], i8, u2[::1], i8[:,::1], i8, i8, b1, i8, i8, i8, i8, u1[::1], u4[::1], u4[:,::1],"
    " u8[:,::1], u8[:,::1], u8[:,:,::1], i8, i8[:,::1], i4[::1], i4[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def reduce_frames(  # type: ignore[no-untyped-def]
    frames, first, threshold, scale, origin, bins, add, ring, ny, nx, dither, narrow, histogram, counts,
    sides, scratch, planes, waiting, group_of, pixels, addresses,
):  # fmt: skip
    """Add frames to the accumulators in place. No allocation, no lock, no order.

    A hit is ADU > threshold. Neighbours are the 8 (ring 1) or 24 (ring 2) pixels around. ``add`` False:
    hits without neighbour are photons, all others are discarded. ``add`` True: two hits that have only
    each other as neighbour are one photon of the summed energy too, counted where the larger energy is (the
    first of the two if equal). Everything else, that is every cluster of three or more, is discarded.

    energy / bin width = (scale[0] * (ADU * 2^10 + u) + scale[1]) / 2^40, u a fixed pattern from -512 to 511
    that depends on frame number and pixel (0 if ``dither`` is 0): it fills the steps that whole ADU would
    make.

    Args:
        frames: uint16 ADU, shape (n, ny*nx).
        first: number of the first frame in its recording (only for the pattern).
        threshold: uint16, shape (ny*nx,); 65535 masks a pixel.
        scale: gain and offset, int64 fixed point, shape (ny*nx, 2).
        origin: lower edge of the first bin, fixed point.
        bins: number of bins; bin 0 of a row of the histogram is underflow, bin ``bins + 1`` overflow.
        add: see above.
        ring: 1 or 2.
        ny: rows of the detector.
        nx: columns.
        dither: 1 or 0.
        narrow: uint8, shape (ny*nx * (bins+2),): it stays nearer than 32 bits; what it overflows by goes to
        histogram: uint32, same shape; the counts are the sum of both.
        counts: uint32, shape (4, ny*nx), see HITS to PAIRS.
        sides: of ``sides_of``.
        scratch: uint64, shape (SCRATCH, length of a string), zeros.
        planes: uint64, shape (KINDS, PLANES, words): bit-sliced counters, for ``flush_planes``.
        waiting: frames in ``planes``, below FLUSH_FRAMES; the new number is returned.
        group_of: int64, shape (4, 16): frame numbers of a group in row 1, ends of their pixels in row 2.
        pixels: int32, at least GROUP * ny*nx + 64.
        addresses: int32, at least ADDRESSES + ny*nx + 64.
    """
    scratch, sides, planes = borrowed(scratch), borrowed(sides), borrowed(planes)
    pixels, addresses, group_of = borrowed(pixels), borrowed(addresses), borrowed(group_of)
    counts, histogram, scale = borrowed(counts), borrowed(histogram), borrowed(scale)
    narrow = borrowed(narrow)
    n = (ny * nx + 63) // 64
    pad = (2 * nx + 2) // 64 + 2
    hits, near, beside, row, lone = (
        scratch[:GROUP], scratch[GROUP : 2 * GROUP], scratch[2 * GROUP : 3 * GROUP],
        scratch[3 * GROUP : 4 * GROUP], scratch[4 * GROUP : 5 * GROUP],
    )  # fmt: skip
    numbers, ends = group_of[1], group_of[2]
    two, row_two = scratch[5 * GROUP], scratch[5 * GROUP + 1]
    filled = number = 0
    while number < frames.shape[0]:
        group = 0
        while group < GROUP and number < frames.shape[0]:
            numbers[group] = number
            group += find_hits(frames, number, threshold, hits[group], pad) != _NONE
            number += 1
        for k in range(group):
            sideways(hits[k], sides, ring, pad, n, beside[k], row[k])
        for k in range(group):
            around(hits[k], beside[k], row[k], ring, nx, pad, n, near[k], lone[k])
        end = 0
        for k in range(group):
            end = list_pixels(lone[k], pixels, end, pad, n)
            ends[k] = end
        end = 0
        for k in range(group):
            filled = _single_addresses(
                frames, numbers[k], first + numbers[k], pixels, end, ends[k], scale, origin, bins, dither,
                addresses, filled, narrow,
            )  # fmt: skip
            end = ends[k]
            if filled >= ADDRESSES:
                _increment(addresses, filled, narrow, histogram)
                filled = 0
        if add:
            for k in range(group):
                two_sideways(hits[k], sides, ring, pad, n, beside[k], two, row_two)
                one_neighbour(hits[k], beside[k], row[k], two, row_two, ring, nx, pad, n, lone[k])
            for dy in range(ring + 1):
                for dx in range(-ring if dy else 1, ring + 1):
                    for k in range(group):
                        first_of_pairs(lone[k], sides, dy, dx, nx, pad, n, row[k])
                    end = 0
                    for k in range(group):
                        end = list_pixels(row[k], pixels, end, pad, n)
                        ends[k] = end
                    end = 0
                    for k in range(group):
                        filled = _pair_addresses(
                            frames, numbers[k], first + numbers[k], pixels, end, ends[k], dy * nx + dx, scale,
                            origin, bins, dither, addresses, filled, counts, narrow,
                        )  # fmt: skip
                        end = ends[k]
                        if filled >= ADDRESSES:
                            _increment(addresses, filled, narrow, histogram)
                            filled = 0
        fold(hits, group, planes[HITS], pad, n)
        fold(near, group, planes[NEAR], pad, n)
        waiting += group
        if waiting >= FLUSH_FRAMES:
            flush_planes(planes, counts)
            waiting = 0
    _increment(addresses, filled, narrow, histogram)
    return waiting
