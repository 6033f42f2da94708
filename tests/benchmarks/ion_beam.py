"""List mode to cube, maps and projections against named peers; warm start. From packed records."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.cube import PIECE, Cube, bin_table
from edge.deadtime import live_fraction, smooth_rate_hz
from edge.event_kernels import RUN, accumulate, accumulate_maps
from edge.events import ranges_of
from edge.projection import project
from tests.benchmarks.race import Contender, demand, race, table

EVENTS = 10_000_000
NX = NY = 128
PIXELS = NX * NY
SEGMENTS, COMPONENTS = 6, 16
DWELL_S, TAU_S = 0.02, 8e-6
ONE = np.uint32(1)


@njit("void(u4[::1], u4[::1])", nogil=True, boundscheck=False)
def increment(keys, cube):  # type: ignore[no-untyped-def]  # the ceiling: nothing but increments
    """Add one at every key, in place."""
    for i in range(keys.size):
        cube[keys[i]] += ONE


@njit("u8(u8[::1])", nogil=True, boundscheck=False)
def read(records):  # type: ignore[no-untyped-def]  # the floor: nothing but reading
    """Return the sum of the records."""
    total = np.uint64(0)
    for i in range(records.size):
        total += records[i]
    return total


@dataclass
class Scan:
    """One pass of a raster, events as they come: pixel after pixel."""

    channels: int
    channel: NDArray[np.uint16]
    pixel: NDArray[np.int64]
    records: NDArray[np.uint64]
    lines: list[NDArray[np.uint64]]  # the same, line by line
    lookup: NDArray[np.uint8]

    @classmethod
    def make(cls, channels: int) -> Scan:
        """Draw events evenly over the raster; amplitudes fall as in a spectrum."""
        rng = np.random.default_rng(7)
        channel = np.minimum(rng.exponential(channels / 6, EVENTS), channels - 1).astype(np.uint16)
        pixel = np.sort(rng.integers(0, PIXELS, EVENTS))
        records = channel.astype(np.uint64) | pixel.astype(np.uint64) << np.uint64(16)
        ends = np.searchsorted(pixel, np.arange(NY + 1) * NX)
        lookup = np.zeros(channels + 1, np.uint8)
        for k in range(1, SEGMENTS):
            lookup[k * channels // 8 : k * channels // 8 + channels // 16] = k
        lines = [records[a:b] for a, b in itertools.pairwise(ends)]
        return cls(channels, channel, pixel, records, lines, lookup)


def cube(rounds: int) -> str:
    """Race list mode into a cube of 128 x 128 pixels."""
    return "\n".join(_cube(Scan.make(channels), rounds) for channels in (1024, 4096))


def _cube(scan: Scan, rounds: int) -> str:
    channels = scan.channels
    flat = scan.pixel * channels + scan.channel
    keys, plain = flat.astype(np.uint32), np.zeros(PIXELS * channels, np.uint32)
    mine, check = Wide(PIXELS, channels), Wide(PIXELS, channels)
    bins = bin_table(channels, np.arange(channels), channels)
    peer = "numpy add.at"
    contenders = [
        Contender(peer, lambda: np.add.at(plain, scan.pixel * channels + scan.channel, ONE)),
        Contender("add.at, index given", lambda: np.add.at(plain, flat, ONE), note="does less"),
        Contender("numpy bincount", lambda: np.bincount(flat, minlength=plain.size), note="index given"),
        *histograms(scan, channels),
        Contender("ceiling", lambda: increment(keys, plain), note="u32, index given"),
        Contender("edge cube", lambda: mine.add(scan.records, bins), 1.7, "packed, u16 and carry"),
    ]
    race(contenders, rounds)
    title = f"list mode to cube, 128x128x{channels}, {EVENTS / 1e6:g} M events"
    text = table(title, contenders, work=EVENTS, unit="M events/s", peer=peer)
    text += demand(contenders, "edge cube", "ceiling", 0.75 if channels == 1024 else 0.85)
    if any(one.name == "boost-histogram" for one in contenders):
        text += demand(contenders, "edge cube", "boost-histogram", 2.5)
    known = np.bincount(flat, minlength=plain.size).reshape(PIXELS, channels)
    check.add(scan.records, bins)
    return text + (
        "same counts\n" if np.array_equal(check.spectra(0, PIXELS), known) else "DIFFERENT COUNTS\n"
    )


class Wide(Cube):
    """The product's cube without its limit of 64 MB, so that native channels can be raced."""

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.pixels * self.bins + 1, np.uint16)
        self._keys, self._carried = np.empty(PIECE, np.uint32), np.empty(2 * PIECE, np.int64)


def histograms(scan: Scan, channels: int) -> list[Contender]:
    """Return the histogram libraries that are installed."""
    found = []
    if importlib.util.find_spec("boost_histogram") is not None:
        import boost_histogram as bh

        axes = (bh.axis.Integer(0, PIXELS, underflow=False, overflow=False),
                bh.axis.Integer(0, channels, underflow=False, overflow=False))  # fmt: skip
        reused = bh.Histogram(*axes, storage=bh.storage.Int64())
        found.append(
            Contender("boost-histogram", lambda: reused.fill(scan.pixel, scan.channel), note="Int64, reused")
        )
    if importlib.util.find_spec("fast_histogram") is not None:
        from fast_histogram import histogram2d

        ranges = [(-0.5, PIXELS - 0.5), (-0.5, channels - 0.5)]
        found.append(
            Contender("fast-histogram",
                      lambda: histogram2d(scan.pixel, scan.channel, (PIXELS, channels), ranges))
        )  # fmt: skip
    return found


def maps(rounds: int) -> str:
    """Race list mode into maps of five windows, alone and with spectrum and live time."""
    scan = Scan.make(2048)
    counts = np.zeros((PIXELS + 1, SEGMENTS), np.uint32)
    spectra = np.zeros((NY, scan.channels + 1), np.uint32)
    ranges, aside, before = ranges_of(scan.lookup), np.zeros_like(spectra[0]), np.zeros(SEGMENTS, np.uint32)
    run = np.zeros(RUN + 64, np.uint16)

    def numpy_maps() -> NDArray[np.int64]:
        return np.bincount(scan.pixel * SEGMENTS + scan.lookup[scan.channel], minlength=PIXELS * SEGMENTS)

    def maps_alone() -> None:
        accumulate_maps(scan.records, scan.lookup, ranges, counts, aside, run)

    def everything() -> NDArray[np.float64]:
        for line, spectrum in zip(scan.lines, spectra, strict=True):
            accumulate(line, scan.lookup, ranges, counts, spectrum, before)
        events = sum(counts[:-1, k] for k in range(SEGMENTS)).reshape(NY, NX)
        rate = smooth_rate_hz(events, np.full((NY, NX), DWELL_S * float(events.mean()) / 12.0))
        return live_fraction(rate, TAU_S)

    peer, alone, together = "numpy LUT + bincount", "edge, maps", "edge, maps, spectra, live time"
    contenders = [
        Contender(peer, numpy_maps, note="maps only"),
        *boost_maps(scan),
        Contender(alone, maps_alone, 4.0),
        Contender(together, everything, 2.5, "one pass, line spectra"),
        Contender("reading", lambda: read(scan.records), note="the records, nothing else"),
    ]
    race(contenders, rounds)
    title = f"list mode to maps of {SEGMENTS - 1} windows, 128x128, {EVENTS / 1e6:g} M events"
    text = table(title, contenders, work=EVENTS, unit="M events/s", peer=peer)
    text += demand(contenders, alone, "reading", 0.25) + demand(contenders, together, alone, 0.70)
    if any(one.name == "boost-histogram" for one in contenders):
        text += demand(contenders, alone, "boost-histogram", 15.0)
    counts[...] = 0
    maps_alone()
    return text + (
        "same counts\n" if np.array_equal(counts[:-1].ravel(), numpy_maps()) else "DIFFERENT COUNTS\n"
    )


def boost_maps(scan: Scan) -> list[Contender]:
    """Return boost-histogram on pixel and segment, if it is installed."""
    if importlib.util.find_spec("boost_histogram") is None:
        return []
    import boost_histogram as bh

    reused = bh.Histogram(
        bh.axis.Integer(0, PIXELS, underflow=False, overflow=False),
        bh.axis.Integer(0, SEGMENTS, underflow=False, overflow=False),
        storage=bh.storage.Int64(),
    )
    return [Contender("boost-histogram", lambda: reused.fill(scan.pixel, scan.lookup[scan.channel]))]


def projection(rounds: int) -> str:
    """Race the event-by-event projection of sixteen components with their variances."""
    scan = Scan.make(1024)
    rng = np.random.default_rng(5)
    gains = rng.normal(0.0, 0.5, (scan.channels + 1, COMPONENTS))
    columns = np.rint(np.concatenate([gains, gains**2], axis=1) * (1 << 20)).astype(np.int32)
    sums = np.zeros((PIXELS + 1, 2 * COMPONENTS), np.int64)
    wide, known = columns.astype(np.int64), np.zeros((PIXELS, 2 * COMPONENTS), np.int64)
    part = EVENTS // 8

    def rows() -> None:
        np.add.at(known, scan.pixel[:part], wide[scan.channel[:part]])

    contenders = [
        Contender("numpy add.at of rows", rows, note="on an eighth of the events"),
        Contender(
            "edge projection", lambda: project(scan.records, columns, sums), 12.0, "image and variance"
        ),
        Contender("reading", lambda: read(scan.records), note="the records, nothing else"),
    ]
    race(contenders, rounds)
    contenders[0].seconds = [8 * s for s in contenders[0].seconds]
    contenders[0].clock_s = [8 * s for s in contenders[0].clock_s]
    title = f"projection, {COMPONENTS} components with variance, 128x128, {EVENTS / 1e6:g} M events"
    text = table(title, contenders, work=EVENTS, unit="M events/s", peer="numpy add.at of rows")
    rate = EVENTS / sorted(contenders[1].seconds)[rounds // 2] / 1e6
    return (
        text
        + f"aim 100 M events/s: {rate:.0f}, {'ok' if rate >= 100 else 'MISSED'} (absolute, on this machine)\n"
    )


def warm_start(rounds: int) -> str:
    """Start the kernels of a live run in a fresh process, compiled before."""
    code = (
        "import time; wall, own = time.perf_counter(), time.process_time()\n"
        "from edge import cube, events\n"
        "events.warm(); cube.warm()\n"
        "print(time.process_time() - own, time.perf_counter() - wall)"
    )
    command = [sys.executable, "-c", code]
    times = []
    for _ in range(max(rounds, 3) + 1):
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        times.append([float(word) for word in ran.stdout.split()])
    own, wall = np.median(times[1:], axis=0)
    verdict = "ok" if own <= 0.7 else "MISSED"
    return (
        f"warm start of the kernel set: {own:.2f} s of processor, asked <= 0.7 s {verdict} "
        f"({wall:.2f} s on the clock, which also counts what others take)\n"
    )


def ion_beam(rounds: int) -> str:
    """Run all of them."""
    return "\n".join(part(rounds) for part in (cube, maps, projection, warm_start))
