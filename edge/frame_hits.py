"""Frames to their hits and back: what lies above threshold is all that a photon counter ever uses.

A hit list is counts per frame, then pixels and values in order. ``scatter`` makes frames of it again that
hold the values of the hits and zero elsewhere: every later step gives the same integers as with the whole
frames.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.compton_strings import find_hits, layout, list_pixels

Frames = NDArray[np.uint16]
Order = NDArray[np.uint16]
READOUT_BLOCKS = 4
_NONE = np.uint64(0)  # no bit set


def readout_order(rows: int, columns: int, blocks: int = READOUT_BLOCKS) -> Order:
    """Return the image pixel of each sample as the camera sends them.

    Sample c = blocks j + k of a row belongs to column j + (columns/blocks) k: the read-out blocks take turns.

    Raises:
        ValueError: if the blocks cannot share the columns, or a pixel number needs more than 16 bits.
    """
    if columns % blocks or rows * columns >= 1 << 16:
        raise ValueError(f"{rows} x {columns} pixels cannot be read by {blocks} blocks in 16 bits")
    sample = np.arange(columns)
    column = sample // blocks + columns // blocks * (sample % blocks)
    return (np.arange(rows)[:, None] * columns + column[None, :]).ravel().astype(np.uint16)


class Scratch:
    """Memory of ``extract`` for one shape of frames: one for each thread."""

    def __init__(self, rows: int, columns: int) -> None:
        self.words, self.pad, length = layout(rows, columns)
        self.bits = np.zeros(length, np.uint64)
        self.found = np.zeros(rows * columns + 64, np.int32)


@njit(
    "i8(u2[:,::1], i8, u2[::1], u2[::1], u2[::1], u2[::1], u2[::1], u8[::1], i4[::1], i8, i8)",
    cache=True, nogil=True, boundscheck=False,
)  # fmt: skip
def _extract(  # type: ignore[no-untyped-def]
    frames, n, threshold, order, counts, pixels, values, bits, found, pad, words
):
    end = 0
    for number in range(n):
        counts[number] = 0
        if find_hits(frames, number, threshold, bits, pad) == _NONE:
            continue
        hits = list_pixels(bits, found, 0, pad, words)
        for k in range(hits):
            sample = found[k]
            pixels[end + k] = order[sample]
            values[end + k] = frames[number, sample]
        end += hits
        counts[number] = hits
    return end


def extract(
    frames: Frames, n: int, threshold: Frames, order: Order, counts: Frames, pixels: Frames, values: Frames,
    scratch: Scratch,
) -> int:  # fmt: skip
    """List the samples above threshold of the first n frames; return how many there are.

    Args:
        frames: uint16, shape (>= n, samples), in any order of samples.
        n: frames to look at.
        threshold: uint16, shape (samples,), in the same order; a hit is > threshold.
        order: uint16, shape (samples,): the pixel that a sample belongs to.
        counts: uint16, shape (>= n,): hits of each frame, written.
        pixels: uint16, at least n * samples: written.
        values: as ``pixels``: the samples themselves, written.
        scratch: of this shape of frames.
    """
    mine = (scratch.bits, scratch.found, scratch.pad, scratch.words)
    return int(_extract(frames, n, threshold, order, counts, pixels, values, *mine))


@njit("void(u2[::1], i8, u2[::1], u2[::1], u2[:,::1])", cache=True, nogil=True, boundscheck=False)
def scatter(counts, n, pixels, values, frames):  # type: ignore[no-untyped-def]
    """Write the hits of n frames into frames (>= n, pixels), which must be zero there."""
    at = 0
    for number in range(n):
        for _ in range(counts[number]):
            frames[number, pixels[at]] = values[at]
            at += 1


@njit("void(u2[::1], i8, u2[::1], u2[:,::1])", cache=True, nogil=True, boundscheck=False)
def wipe(counts, n, pixels, frames):  # type: ignore[no-untyped-def]
    """Make zero again the pixels of n frames, shape (>= n, pixels), that ``scatter`` wrote."""
    at = 0
    for number in range(n):
        for _ in range(counts[number]):
            frames[number, pixels[at]] = 0
            at += 1


def warm() -> None:
    """Run the kernels once on next to nothing."""
    frames = np.zeros((1, 16), np.uint16)
    one, order = np.zeros(16, np.uint16), np.arange(16, dtype=np.uint16)
    counts, pixels, values = np.zeros(1, np.uint16), np.zeros(64, np.uint16), np.zeros(64, np.uint16)
    extract(frames, 1, one, order, counts, pixels, values, Scratch(1, 16))
    scatter(counts, 1, pixels, values, frames)
    wipe(counts, 1, pixels, frames)
