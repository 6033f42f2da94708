"""The kernels of photon counting in frames: hits, clusters, energies, histogram. Integers throughout.

Layout of the bits: row r begins at word ``pad + r*words``; ``words`` is large enough that at least two bits
behind every row stay zero, so a shift of the whole string by one or two never joins two rows. ``pad`` words
of zeros stand before and behind. A frame is worked on alone; its result does not depend on any order of
pixels, so frames may come in any order, in any chunks, on any number of threads.

Energies are fixed point, in units of 2^-40 of a bin, so every machine gets the same bin.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edge.compton_bits import above_16, above_64, count_bits, lowest_bit

DITHER_BITS = 10
GAIN_BITS = 30
ENERGY_BITS = DITHER_BITS + GAIN_BITS
PLANES = 8  # of the bit-sliced counters: flushed every 255 frames
HITS, NEAR, MEMBERS, PAIRS = range(4)  # per pixel: hits; frames with a hit in the neighbourhood (itself
# included); hits that belong to a pair; pairs that are counted here
FLUSH_FRAMES = (1 << PLANES) - 1
ADDRESSES = 1 << 13  # increments that wait for the short loop that does them
EAGER = 2  # bits of a word that are taken out without asking whether they exist
_ALL, _B1, _B2, _B62, _B63 = (np.uint64(k) for k in (0, 1, 2, 62, 63))


@njit(
    "i8(u2[:,::1], i8, u2[::1], i8, i8, i8, i8, u8[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def _find_hits(frames, number, threshold, ny, nx, words, pad, bits):  # type: ignore[no-untyped-def]
    """Write one bit per pixel above threshold; return how many words are not zero."""
    start = number * (ny * nx)
    full, whole = nx // 64, nx // 16 * 16
    busy = 0
    for row in range(ny):
        base = row * nx
        place = pad + row * words
        for word in range(full):
            value = above_64(frames, start + base + word * 64, threshold, base + word * 64)
            bits[place + word] = value
            busy += value != np.uint64(0)
        value = np.uint64(0)
        for column in range(full * 64, whole, 16):
            some = above_16(frames, start + base + column, threshold, base + column)
            value |= some << np.uint64(column & 63)
        for column in range(whole, nx):
            hit = frames[number, base + column] > threshold[base + column]
            value |= np.uint64(hit) << np.uint64(column & 63)
        bits[place + full] = value
        busy += value != np.uint64(0)
    return busy


@njit("u8(u8, u8, u8)", cache=True, nogil=True)
def _beside(before, w, after):  # type: ignore[no-untyped-def]
    """Return the pixels of word ``w`` with a set pixel to their left or right; the words beside are given."""
    return (w << _B1) | (before >> _B63) | (w >> _B1) | (after << _B63)


@njit("u8(u8, u8, u8)", cache=True, nogil=True)
def _within_two(before, w, after):  # type: ignore[no-untyped-def]
    """The same for two columns to either side."""
    left = (w << _B1) | (w << _B2) | (before >> _B63) | (before >> _B62)
    return left | (w >> _B1) | (w >> _B2) | (after << _B63) | (after << _B62)


@njit("void(u8[::1], u8[::1], i8, i8, i8)", cache=True, nogil=True, boundscheck=False)
def _neighbours(bits, out, ring, words, pad):  # type: ignore[no-untyped-def]
    """Set ``out`` where a pixel of the neighbourhood (itself excluded) is set.

    Slices instead of offsets: numba then knows that no index is negative, and the loop becomes vector code.
    """
    n = bits.size - 2 * pad
    result = out[pad : pad + n]
    here = bits[pad - 1 : pad + n + 1]
    up, down = bits[pad - words - 1 : pad - words + n + 1], bits[pad + words - 1 : pad + words + n + 1]
    if ring == 1:
        for j in range(n):
            found = _beside(here[j], here[j + 1], here[j + 2])
            found |= _beside(up[j], up[j + 1], up[j + 2]) | up[j + 1]
            found |= _beside(down[j], down[j + 1], down[j + 2]) | down[j + 1]
            result[j] = found
        return
    far = 2 * words
    top, bottom = bits[pad - far - 1 : pad - far + n + 1], bits[pad + far - 1 : pad + far + n + 1]
    for j in range(n):
        found = _within_two(here[j], here[j + 1], here[j + 2])
        found |= _within_two(up[j], up[j + 1], up[j + 2]) | up[j + 1]
        found |= _within_two(down[j], down[j + 1], down[j + 2]) | down[j + 1]
        found |= _within_two(top[j], top[j + 1], top[j + 2]) | top[j + 1]
        found |= _within_two(bottom[j], bottom[j + 1], bottom[j + 2]) | bottom[j + 1]
        result[j] = found


@njit("void(u8[::1], u8[::1], i8, i8, i8)", cache=True, nogil=True, boundscheck=False)
def _one_neighbour(bits, out, ring, words, pad):  # type: ignore[no-untyped-def]
    """Set ``out`` where a set pixel has exactly one set neighbour (planes "one or more", "two or more")."""
    n = bits.size - 2 * pad
    result = out[pad : pad + n]
    here = bits[pad - 1 : pad + n + 1]
    if ring == 1:
        up, down = bits[pad - words - 1 : pad - words + n + 1], bits[pad + words - 1 : pad + words + n + 1]
        for j in range(n):
            w = here[j + 1]
            one = (w << _B1) | (here[j] >> _B63)
            right = (w >> _B1) | (here[j + 2] << _B63)
            two = one & right
            one |= right
            w = up[j + 1]
            two |= one & w
            one |= w
            left = (w << _B1) | (up[j] >> _B63)
            right = (w >> _B1) | (up[j + 2] << _B63)
            two |= (one & left) | ((one | left) & right)
            one |= left | right
            w = down[j + 1]
            two |= one & w
            one |= w
            left = (w << _B1) | (down[j] >> _B63)
            right = (w >> _B1) | (down[j + 2] << _B63)
            two |= (one & left) | ((one | left) & right)
            one |= left | right
            result[j] = here[j + 1] & one & ~two
        return
    for j in range(n):
        one, two = _ALL, _ALL
        for step in range(-2, 3):
            k = pad + j + step * words
            w, before, after = bits[k], bits[k - 1], bits[k + 1]
            if step != 0:
                two |= one & w
                one |= w
            for s in range(1, 3):
                left = (w << np.uint64(s)) | (before >> np.uint64(64 - s))
                right = (w >> np.uint64(s)) | (after << np.uint64(64 - s))
                two |= (one & left) | ((one | left) & right)
                one |= left | right
        result[j] = here[j + 1] & one & ~two


@njit("void(u8[::1], u8[:,::1])", cache=True, nogil=True, boundscheck=False)
def _count(bits, planes):  # type: ignore[no-untyped-def]
    """Add one to the bit-sliced counter of every set pixel."""
    for j in range(bits.size):
        carry = bits[j]
        for k in range(PLANES):
            plane = planes[k, j]
            planes[k, j] = plane ^ carry
            carry &= plane


@njit("void(u8[:,:,::1], u4[:,::1], i8, i8, i8, i8)", cache=True, nogil=True, boundscheck=False)
def flush_planes(planes, counts, ny, nx, words, pad):  # type: ignore[no-untyped-def]
    """Add the bit-sliced counters (kind, PLANES, string) to counts (kind, ny*nx) and clear them."""
    for kind in range(planes.shape[0]):
        for row in range(ny):
            for word in range(words):
                j = pad + row * words + word
                p0, p1, p2, p3 = (
                    planes[kind, 0, j],
                    planes[kind, 1, j],
                    planes[kind, 2, j],
                    planes[kind, 3, j],
                )
                p4, p5, p6, p7 = (
                    planes[kind, 4, j],
                    planes[kind, 5, j],
                    planes[kind, 6, j],
                    planes[kind, 7, j],
                )
                if (p0 | p1 | p2 | p3 | p4 | p5 | p6 | p7) == _ALL:
                    continue
                place = row * nx + word * 64
                part = counts[kind, place : place + min(64, nx - word * 64)]
                for column in range(part.size):
                    c = np.uint64(column)
                    low = ((p0 >> c) & _B1) | ((p1 >> c) & _B1) << _B1 | ((p2 >> c) & _B1) << _B2
                    low |= ((p3 >> c) & _B1) << np.uint64(3) | ((p4 >> c) & _B1) << np.uint64(4)
                    low |= ((p5 >> c) & _B1) << np.uint64(5) | ((p6 >> c) & _B1) << np.uint64(6)
                    low |= ((p7 >> c) & _B1) << np.uint64(7)
                    part[column] += np.uint32(low)
        planes[kind] = 0


@njit("i8(u8[::1], i4[::1], i8, i8, i8, i8)", cache=True, nogil=True, boundscheck=False)
def _list_pixels(bits, pixels, ny, nx, words, pad):  # type: ignore[no-untyped-def]
    """Write the pixel numbers of the set bits; return how many."""
    n = 0
    for row in range(ny):
        for word in range(words):
            w = bits[pad + row * words + word]
            base = row * nx + word * 64
            more = n + count_bits(w)
            for k in range(EAGER):
                pixels[n + k] = base + np.int64(lowest_bit(w))
                w &= w - np.uint64(1)
            n += EAGER
            while w != np.uint64(0):
                pixels[n] = base + np.int64(lowest_bit(w))
                w &= w - np.uint64(1)
                n += 1
            n = more
    return n


@njit(
    "i8(u2[:,::1], i8, i8, i4[::1], i8, i8[:,::1], i8, i8, i8, i4[::1], i8)",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def _single_addresses(  # type: ignore[no-untyped-def]
    frames, number, index, pixels, n, scale, origin, bins, dither, addresses, filled
):
    """Write the histogram address of each single-pixel photon; return the new fill."""
    scrambled = index * np.int64(40503)
    for k in range(n):
        p = np.int64(pixels[k])
        u = (((scrambled + p * np.int64(26699)) >> np.int64(3)) & np.int64(1023)) - np.int64(512)
        x = (np.int64(frames[number, p]) << np.int64(DITHER_BITS)) + u * dither
        bin_ = ((scale[p, 0] * x + scale[p, 1] - origin) >> np.int64(ENERGY_BITS)) + 1
        bin_ = min(max(bin_, np.int64(0)), bins + 1)
        addresses[filled + k] = p * (bins + 2) + bin_
    return filled + n


@njit(
    "i8(u2[:,::1], i8, i8, i4[::1], i8, i8[:,::1], i8, i8, i8, i4[::1], i8, u4[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def _pair_addresses(  # type: ignore[no-untyped-def]
    frames, number, index, pixels, n, scale, origin, bins, dither, addresses, filled, pairs
):
    """The same for pairs (pixel, step to the other): energies added, counted where the larger energy is."""
    scrambled = index * np.int64(40503)
    for k in range(n):
        p = np.int64(pixels[2 * k])
        q = p + np.int64(pixels[2 * k + 1])
        u = (((scrambled + p * np.int64(26699)) >> np.int64(3)) & np.int64(1023)) - np.int64(512)
        x = (np.int64(frames[number, p]) << np.int64(DITHER_BITS)) + u * dither
        first = scale[p, 0] * x + scale[p, 1]
        u = (((scrambled + q * np.int64(26699)) >> np.int64(3)) & np.int64(1023)) - np.int64(512)
        x = (np.int64(frames[number, q]) << np.int64(DITHER_BITS)) + u * dither
        second = scale[q, 0] * x + scale[q, 1]
        bin_ = ((first + second - origin) >> np.int64(ENERGY_BITS)) + 1
        bin_ = min(max(bin_, np.int64(0)), bins + 1)
        winner = q if second > first else p
        pairs[winner] += 1
        addresses[filled + k] = winner * (bins + 2) + bin_
    return filled + n


@njit("void(i4[::1], i8, u4[::1])", cache=True, nogil=True, boundscheck=False)
def _increment(addresses, n, histogram):  # type: ignore[no-untyped-def]
    for k in range(n):
        histogram[addresses[k]] += 1


@njit("i8(u8[::1], i8, i8, i8, i8, i8, i4[::1])", cache=True, nogil=True, boundscheck=False)
def _list_pairs(bits, ring, ny, nx, words, pad, pixels):  # type: ignore[no-untyped-def]
    """Write first pixel and step of every pair of set pixels, one behind the other; return how many pairs.

    ``bits`` holds pixels of pairs only, so each has one partner; the first is the one with the lower number.
    """
    n = 0
    for row in range(ny):
        for word in range(words):
            j = pad + row * words + word
            open_ = bits[j]
            if open_ == _ALL:
                continue
            base = row * nx + word * 64
            for dy in range(ring + 1):
                for dx in range(-ring if dy else 1, ring + 1):
                    k = j + dy * words
                    w = bits[k]
                    if dx > 0:
                        w = (w >> np.uint64(dx)) | (bits[k + 1] << np.uint64(64 - dx))
                    elif dx < 0:
                        w = (w << np.uint64(-dx)) | (bits[k - 1] >> np.uint64(64 + dx))
                    w &= open_
                    while w != _ALL:
                        pixels[n] = base + np.int64(lowest_bit(w))
                        pixels[n + 1] = dy * nx + dx
                        n += 2
                        w &= w - _B1
    return n // 2


@njit(
    "i8(u2[:,::1], i8, u2[::1], i8[:,::1], i8, i8, b1, i8, i8, i8, i8, u4[::1], u4[:,::1],"
    " u8[:,::1], u8[:,:,::1], i8, i4[::1], i4[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def reduce_frames(  # type: ignore[no-untyped-def]
    frames, first, threshold, scale, origin, bins, add, ring, ny, nx, dither, histogram, counts,
    scratch, planes, waiting, pixels, addresses,
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
        histogram: uint32, shape (ny*nx * (bins+2),).
        counts: uint32, shape (4, ny*nx), see HITS to PAIRS.
        scratch: uint64, shape (3, string), zeros.
        planes: uint64, shape (3, 8, string): bit-sliced counters, for ``flush_planes``.
        waiting: frames in ``planes``, below 255; the new number is returned.
        pixels: int32, at least ny*nx + 64.
        addresses: int32, at least ADDRESSES + ny*nx + 64.
    """
    words = (nx + 2 + 63) // 64
    pad = 2 * words + 1
    bits, lone, lone_2 = scratch[0], scratch[1], scratch[2]
    filled = 0
    for number in range(frames.shape[0]):
        if _find_hits(frames, number, threshold, ny, nx, words, pad, bits) == 0:
            continue
        index = first + number
        _count(bits, planes[0])
        _neighbours(bits, lone, ring, words, pad)
        for j in range(bits.size):
            lone_2[j] = bits[j] | lone[j]
            lone[j] = bits[j] & ~lone[j]
        _count(lone_2, planes[1])
        n = _list_pixels(lone, pixels, ny, nx, words, pad)
        filled = _single_addresses(
            frames, number, index, pixels, n, scale, origin, bins, dither, addresses, filled
        )
        if add:
            _one_neighbour(bits, lone, ring, words, pad)
            _neighbours(lone, lone_2, ring, words, pad)
            for j in range(bits.size):
                lone_2[j] &= lone[j]
            _count(lone_2, planes[2])
            n = _list_pairs(lone_2, ring, ny, nx, words, pad, pixels)
            filled = _pair_addresses(
                frames, number, index, pixels, n, scale, origin, bins, dither, addresses, filled,
                counts[PAIRS],
            )  # fmt: skip
        if filled >= ADDRESSES:
            _increment(addresses, filled, histogram)
            filled = 0
        waiting += 1
        if waiting == FLUSH_FRAMES:
            flush_planes(planes, counts, ny, nx, words, pad)
            waiting = 0
    _increment(addresses, filled, histogram)
    return waiting
