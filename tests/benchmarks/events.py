"""Events to maps and spectra: the accumulating kernel and the list-mode decoder against plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.amptek_listmode import ListModeDecoder
from edge.deadtime import live_fraction, smooth_rate_hz
from edge.events import PassCounts, Segmentation
from edge.settings import Settings
from tests.benchmarks.race import Contender, race, table

EVENTS = 4_000_000
NX = NY = 128
CHUNK_WORDS = 4096  # of one reply of a detector
DWELL_S = 0.02
TAU_S = 8e-6


def settings() -> Settings:
    """Return the analysis of the paper's own experiment."""
    return Settings.from_dict(
        {
            "detectors": {
                "pixe": {"kind": "sdd", "channels": 2048, "offset_kev": 0.0, "gain_kev": 0.01},
                "pige": {"kind": "hpge", "channels": 8192, "offset_kev": 0.0, "gain_kev": 0.25},
            },
            "lithium_line": {"centroid_kev": 481.0, "fwhm_kev": 6.0},
            "lines": [
                {"element": "Li", "detector": "pige"},
                {"element": "Co", "detector": "pixe"},
                {"element": "P", "detector": "pixe"},
            ],
            "layers": [
                {"name": "anode", "kind": "metal"},
                {"name": "separator", "kind": "separator", "normaliser": "P"},
                {"name": "cathode", "kind": "host", "host": "LiCoO2", "normaliser": "Co",
                 "mass_fractions": {"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05}},
            ],
            "interface": ["separator", "cathode"],
            "reference": "as prepared",
            "calibration": "lco-meep-2.91MeV",
            "beam": {"energy_kev": 2911.0, "angle_deg": 0.0},
            "capacity_coulomb": 0.072,
        }
    )  # fmt: skip


@dataclass
class Data:
    """One pass of events: channel, frame (pulses since the pass began), and the pixel they belong to."""

    segmentation: Segmentation
    channel: NDArray[np.uint16]
    frame: NDArray[np.int64]
    pixel: NDArray[np.uint16]
    segment_of: NDArray[np.uint8]

    @classmethod
    def make(cls, detector: str) -> Data:
        """Draw events, evenly over the raster and over the channels that a spectrum fills."""
        known = settings()
        windows = [line.window for line in known.lines_on(detector)]
        segmentation = Segmentation.of(known.detectors[detector], windows)
        rng = np.random.default_rng(7)
        channels = known.detectors[detector].channels
        channel = np.minimum(rng.exponential(channels / 6, EVENTS), channels - 1).astype(np.uint16)
        pixel = np.sort(rng.integers(0, NX * NY, EVENTS))
        frame = pixel // NX * (NX + 1) + pixel % NX + 1
        return cls(segmentation, channel, frame, pixel.astype(np.uint16), segmentation.tables(1.0).segment_of)


def numpy_maps(data: Data) -> NDArray[np.int64]:
    """Return maps of the windows only; the pixel numbers are given."""
    size = data.segmentation.size
    flat = data.pixel.astype(np.int64) * size + data.segment_of[data.channel]
    return np.bincount(flat, minlength=NX * NY * size)


def numpy_add_at(data: Data) -> NDArray[np.uint32]:
    """The same by unbuffered addition."""
    size = data.segmentation.size
    counts = np.zeros(NX * NY * size, np.uint32)
    np.add.at(counts, data.pixel.astype(np.int64) * size + data.segment_of[data.channel], np.uint32(1))
    return counts


def numpy_all(data: Data) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What the kernel does: pixels from frames, parked beam apart, maps of the windows, spectrum per line."""
    line, column = np.divmod(data.frame - 1, NX + 1)
    pixel = np.where(column == NX, NX * NY, line * NX + column)
    size, channels = data.segmentation.size, data.segmentation.detector.channels
    maps = np.bincount(pixel * size + data.segment_of[data.channel], minlength=(NX * NY + 1) * size)
    on = column < NX
    rows = np.bincount(line[on] * channels + data.channel[on], minlength=NY * channels)
    return maps, rows


def ours(data: Data) -> PassCounts:
    """Maps of the windows, spectrum per line, tallies."""
    counts = PassCounts.empty(NX, NY, data.segmentation, 1.0)
    counts.add(data.channel, data.frame)
    return counts


def ours_in_chunks(data: Data) -> PassCounts:
    """The same as it happens in a run: reply by reply."""
    counts = PassCounts.empty(NX, NY, data.segmentation, 1.0)
    for start in range(0, EVENTS, CHUNK_WORDS):
        counts.add(data.channel[start : start + CHUNK_WORDS], data.frame[start : start + CHUNK_WORDS])
    return counts


def ours_with_live_time(data: Data) -> NDArray[np.float64]:
    """The same and the live-time map of the pass."""
    counts = ours(data)
    events = counts.segments[:-1].sum(axis=1).reshape(NY, NX)
    rate = smooth_rate_hz(events, np.full((NY, NX), DWELL_S * EVENTS / (600 * DWELL_S * NX * NY)))
    return live_fraction(rate, TAU_S)


def same(data: Data) -> bool:
    """Tell whether both ways count the same."""
    mine, (maps, rows) = ours(data), numpy_all(data)
    return bool((mine.segments.ravel() == maps).all() and (mine.rows.ravel() == rows).all())


def accumulate(rounds: int) -> str:
    """Race the kernel for both detectors."""
    text = []
    for detector in ("pixe", "pige"):
        data = Data.make(detector)
        peer = "numpy LUT + bincount"
        contenders = [
            Contender(peer, lambda d=data: numpy_maps(d), note="maps only, pixels given: does less"),
            Contender(
                "numpy add.at", lambda d=data: numpy_add_at(d), note="maps only, pixels given: does less"
            ),
            Contender("numpy, all of it", lambda d=data: numpy_all(d), note="pixels, maps, line spectra"),
            Contender("edge", lambda d=data: ours(d), 2.5, "pixels, maps, line spectra, tallies"),
            Contender(
                "edge + live time", lambda d=data: ours_with_live_time(d), 2.5, "and the live-time map"
            ),
            Contender(
                "edge, by replies", lambda d=data: ours_in_chunks(d), note=f"{CHUNK_WORDS} events a call"
            ),
        ]
        race(contenders, rounds)
        agreed = "same counts" if same(data) else "DIFFERENT COUNTS"
        title = f"events to maps, {detector} {NX}x{NY}, {EVENTS / 1e6:g} M events, {agreed}"
        text.append(table(title, contenders, work=EVENTS, unit="M events/s", peer=peer))
    return "\n".join(text)


def list_words() -> bytes:
    """Return a list-mode stream: 24 events a frame, a frame word each, times rising."""
    per_frame = 24
    frames = 1_000_000 // (per_frame + 1)
    rng = np.random.default_rng(3)
    words = np.zeros((frames, per_frame + 1), np.uint32)
    tick = np.arange(frames, dtype=np.int64) * 20_000
    words[:, 0] = 0xC000_0000 | (np.arange(frames) & 0xFFFF) << 14 | tick >> 16 & 0x3FFF
    words[:, 1:] = rng.integers(0, 2048, (frames, per_frame)) << 16 | rng.integers(
        0, 1 << 16, (frames, per_frame)
    )
    return words.astype(">u4").tobytes()


def plain_decode(stream: bytes) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Channels and raw frame numbers only: no times, no wraps, no checks, no state."""
    word = np.frombuffer(stream, ">u4").astype(np.uint32)
    event, frame = word < 0x8000_0000, word >= 0xC000_0000
    frames = (word[frame] >> 14 & 0xFFFF).astype(np.int64)
    return word[event] >> 16, frames[np.cumsum(frame)[event] - 1]


def loop_decode(stream: bytes) -> int:
    """One word at a time, as published readers do, on a fiftieth of the stream."""
    events = frame = 0
    for word in np.frombuffer(stream[: len(stream) // 50 // 4 * 4], ">u4").tolist():
        if word < 0x8000_0000:
            events += 1
        elif word >= 0xC000_0000:
            frame = word >> 14 & 0xFFFF
    return events + frame


def in_replies(stream: bytes) -> None:
    """Decode as in a run: reply by reply."""
    decoder = ListModeDecoder()
    for start in range(0, len(stream), 4 * CHUNK_WORDS):
        decoder.feed(stream[start : start + 4 * CHUNK_WORDS])


def decoder(rounds: int) -> str:
    """Race the list-mode decoder."""
    stream = list_words()
    peer = "numpy, channels and frames only"
    contenders = [
        Contender(peer, lambda: plain_decode(stream), note="no times, wraps or checks: does less"),
        Contender("drivers, whole", lambda: ListModeDecoder().feed(stream), note="times, wraps, checks"),
        Contender("drivers, by replies", lambda: in_replies(stream), note=f"{CHUNK_WORDS} words a call"),
    ]
    race(contenders, rounds)
    words = len(stream) // 4
    rate = words / sorted(contenders[2].seconds)[rounds // 2]
    loop = Contender("Python loop, one word at a time", lambda: loop_decode(stream))
    race([loop], rounds)
    slow = words / 50 / sorted(loop.seconds)[rounds // 2]
    return (
        table("list-mode words to events", contenders, work=words, unit="M words/s", peer=peer)
        + f"one word at a time in a Python loop: {slow / 1e6:.3g} M words/s\n"
        + f"two detectors at 100 000 events/s take {2 * 1e5 / rate:.1%} of a core for decoding\n"
    )
