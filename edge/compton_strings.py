"""Frames as strings of bits: hits, neighbours, clusters of one and two pixels, counters per pixel.

Layout of the bits: pixel p is bit p of a string of words, without gaps between rows; ``pad`` words of zeros
stand before and behind. A neighbour is a shift of the string by ``dy * nx + dx``, and ``sides`` says where a
step to a side stays in its row.

``GROUP`` strings are added to bit-sliced counters together: seven full adders take in eight frames, where one
frame after the other would go through all planes eight times.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.compton_bits import above_16, above_64, lowest_bit, not_zero_64

PLANES = 10  # of the bit-sliced counters
GROUP = 8  # frames that are added to them at once
EAGER = 2  # bits of a word that are taken out without asking whether they exist
_NONE, _B1, _B2, _B62, _B63 = (np.uint64(k) for k in (0, 1, 2, 62, 63))


def layout(ny: int, nx: int) -> tuple[int, int, int]:
    """Return the words that hold a frame, the words before and behind, and the length of a string."""
    words = (ny * nx + 63) // 64
    pad = (2 * nx + 2) // 64 + 2
    return words, pad, (words + 63) // 64 * 64 + 2 * pad


def sides_of(ny: int, nx: int) -> NDArray[np.uint64]:
    """Return strings (5, length) of the pixels from which a step of -2 to 2 columns stays in the row."""
    words, pad, length = layout(ny, nx)
    sides = np.zeros((5, length), np.uint64)
    column = np.arange(ny * nx) % nx
    for step in range(-2, 3):
        inside = np.zeros(words * 64, np.uint8)
        inside[: ny * nx] = (column + step >= 0) & (column + step < nx)
        sides[step + 2, pad : pad + words] = np.packbits(inside, bitorder="little").view("<u8")
    return sides


@njit("u8(u2[:,::1], i8, u2[::1], u8[::1], i8)", cache=True, nogil=True, boundscheck=False)
def find_hits(frames, number, threshold, bits, pad):  # type: ignore[no-untyped-def]
    """Write one bit per pixel above threshold; return whether there is any (not 0)."""
    pixels = threshold.size
    start = number * pixels
    full, whole = pixels // 64, pixels // 16 * 16
    out = bits[pad : pad + full + 1]
    some = _NONE
    for word in range(full):
        value = above_64(frames, start + word * 64, threshold, word * 64)
        out[word] = value
        some |= value
    if full * 64 < pixels:
        value = _NONE
        for p in range(full * 64, whole, 16):
            value |= above_16(frames, start + p, threshold, p) << np.uint64(p & 63)
        for p in range(whole, pixels):
            value |= np.uint64(frames[number, p] > threshold[p]) << np.uint64(p & 63)
        out[full] = value
        some |= value
    return some


@njit("void(u8[::1], u8[:,::1], i8, i8, i8, u8[::1], u8[::1])", cache=True, nogil=True, boundscheck=False)
def sideways(bits, sides, ring, pad, n, beside, row):  # type: ignore[no-untyped-def]
    """Set ``beside`` where a pixel to the left or right is set, ``row`` where one of them or itself is.

    Slices instead of offsets: numba then knows that no index is negative, and the loop becomes vector code.
    """
    before, here, after = bits[pad - 1 : pad + n - 1], bits[pad : pad + n], bits[pad + 1 : pad + n + 1]
    west, east = sides[1][pad : pad + n], sides[3][pad : pad + n]
    out, out_row = beside[pad : pad + n], row[pad : pad + n]
    if ring == 1:
        for j in range(n):
            w = here[j]
            found = ((w << _B1) | (before[j] >> _B63)) & west[j]
            found |= ((w >> _B1) | (after[j] << _B63)) & east[j]
            out[j] = found
            out_row[j] = found | w
        return
    west_2, east_2 = sides[0][pad : pad + n], sides[4][pad : pad + n]
    for j in range(n):
        w = here[j]
        found = ((w << _B1) | (before[j] >> _B63)) & west[j]
        found |= ((w >> _B1) | (after[j] << _B63)) & east[j]
        found |= ((w << _B2) | (before[j] >> _B62)) & west_2[j]
        found |= ((w >> _B2) | (after[j] << _B62)) & east_2[j]
        out[j] = found
        out_row[j] = found | w


@njit(
    "void(u8[::1], u8[::1], u8[::1], i8, i8, i8, i8, u8[::1], u8[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def around(bits, beside, row, ring, nx, pad, n, near, lone):  # type: ignore[no-untyped-def]
    """Set ``near`` where a pixel of the neighbourhood or itself is set, ``lone`` where only itself is."""
    here, out_near, out_lone = bits[pad : pad + n], near[pad : pad + n], lone[pad : pad + n]
    own, own_row = beside[pad : pad + n], row[pad : pad + n]
    q, r, s = nx // 64, np.uint64(nx % 64), np.uint64(63 - nx % 64)
    a, b = row[pad - q : pad - q + n], row[pad - q - 1 : pad - q - 1 + n]
    c, d = row[pad + q : pad + q + n], row[pad + q + 1 : pad + q + 1 + n]
    if ring == 1:
        for j in range(n):
            found = (a[j] << r) | ((b[j] >> _B1) >> s) | (c[j] >> r) | ((d[j] << _B1) << s)
            out_near[j] = found | own_row[j]
            out_lone[j] = here[j] & ~(found | own[j])
        return
    q, r_2, s_2 = 2 * nx // 64, np.uint64(2 * nx % 64), np.uint64(63 - 2 * nx % 64)
    e, f = row[pad - q : pad - q + n], row[pad - q - 1 : pad - q - 1 + n]
    g, h = row[pad + q : pad + q + n], row[pad + q + 1 : pad + q + 1 + n]
    for j in range(n):
        found = (a[j] << r) | ((b[j] >> _B1) >> s) | (c[j] >> r) | ((d[j] << _B1) << s)
        found |= (e[j] << r_2) | ((f[j] >> _B1) >> s_2) | (g[j] >> r_2) | ((h[j] << _B1) << s_2)
        out_near[j] = found | own_row[j]
        out_lone[j] = here[j] & ~(found | own[j])


@njit(
    "void(u8[::1], u8[:,::1], i8, i8, i8, u8[::1], u8[::1], u8[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def two_sideways(bits, sides, ring, pad, n, beside, two, row_two):  # type: ignore[no-untyped-def]
    """As ``sideways``, where at least two pixels are set."""
    before, here, after = bits[pad - 1 : pad + n - 1], bits[pad : pad + n], bits[pad + 1 : pad + n + 1]
    west, east = sides[1][pad : pad + n], sides[3][pad : pad + n]
    own, out, out_row = beside[pad : pad + n], two[pad : pad + n], row_two[pad : pad + n]
    west_2, east_2 = sides[0][pad : pad + n], sides[4][pad : pad + n]
    if ring == 1:
        for j in range(n):
            w = here[j]
            left = ((w << _B1) | (before[j] >> _B63)) & west[j]
            right = ((w >> _B1) | (after[j] << _B63)) & east[j]
            out[j] = left & right
            out_row[j] = (left & right) | (own[j] & w)
        return
    for j in range(n):
        w = here[j]
        left = ((w << _B1) | (before[j] >> _B63)) & west[j]
        right = ((w >> _B1) | (after[j] << _B63)) & east[j]
        left_2 = ((w << _B2) | (before[j] >> _B62)) & west_2[j]
        right_2 = ((w >> _B2) | (after[j] << _B62)) & east_2[j]
        found = (left & right) | (left_2 & right_2) | ((left | right) & (left_2 | right_2))
        out[j] = found
        out_row[j] = found | (own[j] & w)


@njit(
    "void(u8[::1], u8[::1], u8[::1], u8[::1], u8[::1], i8, i8, i8, i8, u8[::1])",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def one_neighbour(  # type: ignore[no-untyped-def]
    bits, beside, row, two, row_two, ring, nx, pad, n, result
):
    """Set ``result`` where a set pixel has exactly one set neighbour."""
    here, own, own_two = bits[pad : pad + n], beside[pad : pad + n], two[pad : pad + n]
    out = result[pad : pad + n]
    q, r, s = nx // 64, np.uint64(nx % 64), np.uint64(63 - nx % 64)
    a, b = row[pad - q : pad - q + n], row[pad - q - 1 : pad - q - 1 + n]
    c, d = row[pad + q : pad + q + n], row[pad + q + 1 : pad + q + 1 + n]
    a2, b2 = row_two[pad - q : pad - q + n], row_two[pad - q - 1 : pad - q - 1 + n]
    c2, d2 = row_two[pad + q : pad + q + n], row_two[pad + q + 1 : pad + q + 1 + n]
    for j in range(n):
        up, down = (a[j] << r) | ((b[j] >> _B1) >> s), (c[j] >> r) | ((d[j] << _B1) << s)
        many = own_two[j] | (a2[j] << r) | ((b2[j] >> _B1) >> s) | (c2[j] >> r) | ((d2[j] << _B1) << s)
        many |= (up & down) | (own[j] & (up | down))
        any_ = own[j] | up | down
        out[j] = here[j] & (any_ if ring == 2 else any_ & ~many)
        if ring == 2:
            own[j], own_two[j] = any_, many
    if ring == 1:
        return
    q, r, s = 2 * nx // 64, np.uint64(2 * nx % 64), np.uint64(63 - 2 * nx % 64)
    a, b = row[pad - q : pad - q + n], row[pad - q - 1 : pad - q - 1 + n]
    c, d = row[pad + q : pad + q + n], row[pad + q + 1 : pad + q + 1 + n]
    a2, b2 = row_two[pad - q : pad - q + n], row_two[pad - q - 1 : pad - q - 1 + n]
    c2, d2 = row_two[pad + q : pad + q + n], row_two[pad + q + 1 : pad + q + 1 + n]
    for j in range(n):
        up, down = (a[j] << r) | ((b[j] >> _B1) >> s), (c[j] >> r) | ((d[j] << _B1) << s)
        many = own_two[j] | (a2[j] << r) | ((b2[j] >> _B1) >> s) | (c2[j] >> r) | ((d2[j] << _B1) << s)
        many |= (up & down) | (own[j] & (up | down))
        out[j] = here[j] & (own[j] | up | down) & ~many


@njit("void(u8[:,::1], i8, u8[:,::1], i8, i8)", cache=True, nogil=True, boundscheck=False)
def fold(strings, waiting, planes, pad, n):  # type: ignore[no-untyped-def]
    """Add the first ``waiting`` of ``GROUP`` strings to the bit-sliced counts of one kind."""
    for k in range(waiting, GROUP):
        strings[k, pad : pad + n] = _NONE
    d0, d1 = strings[0][pad : pad + n], strings[1][pad : pad + n]
    d2, d3 = strings[2][pad : pad + n], strings[3][pad : pad + n]
    d4, d5 = strings[4][pad : pad + n], strings[5][pad : pad + n]
    d6, d7 = strings[6][pad : pad + n], strings[7][pad : pad + n]
    p0, p1, p2, p3, p4 = planes[0], planes[1], planes[2], planes[3], planes[4]
    p5, p6, p7, p8, p9 = planes[5], planes[6], planes[7], planes[8], planes[9]
    for j in range(n):
        one, x, y = p0[j], d0[j], d1[j]
        u = one ^ x
        two_a, one = (one & x) | (u & y), u ^ y
        x, y = d2[j], d3[j]
        u = one ^ x
        two_b, one = (one & x) | (u & y), u ^ y
        x, y = d4[j], d5[j]
        u = one ^ x
        two_c, one = (one & x) | (u & y), u ^ y
        x, y = d6[j], d7[j]
        u = one ^ x
        two_d, p0[j] = (one & x) | (u & y), u ^ y
        two = p1[j]
        u = two ^ two_a
        four_a, two = (two & two_a) | (u & two_b), u ^ two_b
        u = two ^ two_c
        four_b, p1[j] = (two & two_c) | (u & two_d), u ^ two_d
        four = p2[j]
        u = four ^ four_a
        carry, p2[j] = (four & four_a) | (u & four_b), u ^ four_b
        old = p3[j]
        p3[j], carry = old ^ carry, old & carry
        old = p4[j]
        p4[j], carry = old ^ carry, old & carry
        old = p5[j]
        p5[j], carry = old ^ carry, old & carry
        old = p6[j]
        p6[j], carry = old ^ carry, old & carry
        old = p7[j]
        p7[j], carry = old ^ carry, old & carry
        old = p8[j]
        p8[j], carry = old ^ carry, old & carry
        p9[j] ^= carry


@njit("void(u8[:,:,::1], u4[:,::1])", cache=True, nogil=True, boundscheck=False)
def flush_planes(planes, counts):  # type: ignore[no-untyped-def]
    """Add the bit-sliced counters (kind, PLANES, words) to counts (kind, ny*nx) and clear them."""
    pixels = counts.shape[1]
    for kind in range(planes.shape[0]):
        for k in range(PLANES):
            for word in range(planes.shape[2]):
                w = planes[kind, k, word]
                if w == _NONE:
                    continue
                part = counts[kind, word * 64 : min(word * 64 + 64, pixels)]
                for column in range(part.size):
                    part[column] += np.uint32(((w >> np.uint64(column)) & _B1) << np.uint64(k))
        planes[kind] = 0


@njit("i8(u8[::1], i4[::1], i8, i8, i8)", cache=True, nogil=True, boundscheck=False)
def list_pixels(bits, pixels, filled, pad, words):  # type: ignore[no-untyped-def]
    """Write the pixel numbers of the set bits behind others; return the new fill."""
    n = np.uint64(filled)
    for block in range(0, words, 64):
        busy = not_zero_64(bits, pad + block)
        while busy != _NONE:
            word = np.uint64(block) + lowest_bit(busy)
            busy &= busy - _B1
            w = bits[np.uint64(pad) + word]
            base = word << np.uint64(6)
            for k in range(EAGER):
                pixels[n + np.uint64(k)] = np.int32(base + lowest_bit(w))
                last = w
                w &= w - _B1
            n += np.uint64(EAGER) - np.uint64(last == _NONE)
            while w != _NONE:
                pixels[n] = np.int32(base + lowest_bit(w))
                w &= w - _B1
                n += _B1
    return np.int64(n)


@njit("void(u8[::1], u8[:,::1], i8, i8, i8, i8, i8, u8[::1])", cache=True, nogil=True, boundscheck=False)
def first_of_pairs(bits, sides, dy, dx, nx, pad, n, result):  # type: ignore[no-untyped-def]
    """Set ``result`` where a pixel and the one ``dy`` rows below and ``dx`` columns to the right are set."""
    step = dy * nx + dx
    q, r, s = step // 64, np.uint64(step % 64), np.uint64(63 - step % 64)
    here, out, side = bits[pad : pad + n], result[pad : pad + n], sides[dx + 2][pad : pad + n]
    a, b = bits[pad + q : pad + q + n], bits[pad + q + 1 : pad + q + 1 + n]
    for j in range(n):
        out[j] = here[j] & side[j] & ((a[j] >> r) | ((b[j] << _B1) << s))
