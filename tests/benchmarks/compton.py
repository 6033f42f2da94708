"""HEXITEC frames to spectra and S maps: our kernels against numpy, scipy.ndimage and a loop over hits."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge.compton_frames import Compton, EnergyBins, PixelScale, Tables
from edge.compton_physics import Pinhole, momentum_au, window_edges_kev
from edge.compton_profile import ratios, s_values, window_sums
from tests.benchmarks.race import Contender, race, table

DETECTOR_HZ = 9118.87  # frames/s of the control software
NY = NX = 80
FRAMES, BLOCK = 2000, 400  # a block of 5 MB is what is read from a file at a time
BINS = EnergyBins()
GAIN, LEVEL, THRESHOLD_KEV = 0.0271828, 1000, 3.0
SHARED = 0.35
Floats = NDArray[np.float64]
Frames = NDArray[np.uint16]


def frames(occupancy: float, n: int = FRAMES) -> Frames:
    """Draw frames in which so many samples are above threshold, 35 % of the photons in two pixels."""
    rng = np.random.default_rng(1)
    adu = rng.normal(LEVEL, 8.0, (n, NY, NX))
    number = rng.poisson(occupancy / (1 + SHARED), (n, NY, NX))
    f, y, x = (np.repeat(axis, number[np.nonzero(number)]) for axis in np.nonzero(number))
    kev = rng.uniform(20.0, 120.0, f.size)
    split = rng.random(f.size) < SHARED
    part = np.where(split, rng.uniform(0.55, 0.8, f.size), 1.0)
    step = rng.integers(0, 4, f.size)
    y2 = np.clip(y + np.array([0, 0, 1, -1])[step], 0, NY - 1)
    x2 = np.clip(x + np.array([1, -1, 0, 0])[step], 0, NX - 1)
    np.add.at(adu, (f, y, x), kev * part / GAIN)
    np.add.at(adu, (f[split], y2[split], x2[split]), (kev * (1 - part) / GAIN)[split])
    return np.clip(np.rint(adu), 0, 65535).astype(np.uint16)


def tables() -> Tables:
    """Return the tables of the detector."""
    flat = np.zeros((NY, NX))
    return PixelScale(flat + LEVEL, flat, flat + GAIN, flat, flat == 0).tables(THRESHOLD_KEV, BINS)


def energies(adu: Frames) -> Floats:
    """Return the energy of every sample, float32 as the peers have it."""
    return np.asarray((adu.astype(np.float32) - LEVEL) * np.float32(GAIN))


def numpy_discriminate(adu: Frames) -> NDArray[np.int64]:
    """numpy and ndimage: hits without a neighbour, histogrammed. No maps, no acceptance."""
    kev = energies(adu)
    hit = kev >= THRESHOLD_KEV
    near = ndimage.uniform_filter(hit.astype(np.uint8) * 9, size=(1, 3, 3), mode="constant")
    return spectra(np.flatnonzero(hit & (near == 1)), kev)


def spectra(where: NDArray[np.intp], kev: Floats) -> NDArray[np.int64]:
    """Return the histogram of some samples."""
    k = (kev.reshape(-1)[where] / 0.2).astype(np.int64)
    good = (k >= 0) & (k < BINS.count)
    flat = where[good] % (NY * NX) * BINS.count + k[good]
    return np.bincount(flat, minlength=NY * NX * BINS.count)


def label_add(adu: Frames) -> NDArray[np.int64]:
    """ndimage.label: clusters of one or two pixels, energies added. No maps, no acceptance."""
    kev = energies(adu)
    within = np.zeros((3, 3, 3), bool)
    within[1] = True
    labels, n = ndimage.label(kev >= THRESHOLD_KEV, within)
    at = np.flatnonzero(labels)
    which, energy = labels.reshape(-1)[at], kev.reshape(-1)[at]
    size = np.bincount(which, minlength=n + 1)
    total = np.bincount(which, energy, minlength=n + 1)
    order = np.lexsort((energy, which))
    last = np.append(np.flatnonzero(np.diff(which[order])), which.size - 1)
    strongest = at[order][last]
    few = size[which[order][last]] <= 2
    k = (total[which[order][last]][few] / 0.2).astype(np.int64)
    good = (k >= 0) & (k < BINS.count)
    flat = strongest[few][good] % (NY * NX) * BINS.count + k[good]
    return np.bincount(flat, minlength=NY * NX * BINS.count)


def loop_over_hits(adu: Frames) -> int:
    """A loop over the hits of each frame, as published Python code does it, on a fiftieth of the frames."""
    found = 0
    for image in energies(adu[: FRAMES // 50]):
        for y, x in np.argwhere(image >= THRESHOLD_KEV):
            part = image[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            found += np.count_nonzero(part >= THRESHOLD_KEV) == 1
    return found


def read_floor(adu: Frames) -> int:
    """Read every sample once."""
    return int(adu.reshape(-1).view(np.uint64).max())


def in_blocks(call: Callable[[Frames], Any], adu: Frames) -> None:
    """Hand frames over as they are read: block by block."""
    for start in range(0, adu.shape[0], BLOCK):
        call(adu[start : start + BLOCK])


def same(adu: Frames, add: bool, theirs: NDArray[np.int64]) -> int:
    """Return how many counts differ (an energy on a bin edge may)."""
    ours = Compton(tables(), add_pairs=add, dither=False)
    ours.add(adu)
    mine = ours.result().spectra.reshape(-1)
    return int(np.abs(mine - theirs).sum())


def discriminate(rounds: int) -> str:
    """Race both ways of treating shared photons at 1, 5 and 10 % occupancy."""
    text = []
    targets = {0.01: (33.0, 28.0, 40.0), 0.05: (14.0, 15.0, 15.0), 0.10: (11.0, 15.0, 10.0)}
    known = tables()
    for occupancy, (alone, added, detector) in targets.items():
        adu = frames(occupancy)
        for add, peer, call, target in (
            (False, "numpy + ndimage", numpy_discriminate, alone),
            (True, "ndimage.label", label_add, added),
        ):
            reducer = Compton(known, add_pairs=add)
            contenders = [
                Contender(peer, lambda c=call, a=adu: in_blocks(c, a), note="spectra only"),
                Contender(
                    "edge",
                    lambda r=reducer, a=adu: in_blocks(r.add, a),
                    target,
                    "and five maps, under, overflow",
                ),
                Contender("read the frames", lambda a=adu: in_blocks(read_floor, a), note="floor"),
            ]
            race(contenders, rounds)
            kind = "add <= 2 px" if add else "discriminate"
            title = (
                f"{kind} at {(adu > 1110).mean():.1%} occupancy, {same(adu, add, call(adu))} counts differ"
            )
            text.append(table(title, contenders, work=FRAMES, unit="k frames/s", peer=peer))
            rate = FRAMES / statistics.median(contenders[1].seconds) / DETECTOR_HZ
            asked = "" if add else f" (asked >= {detector:g}: {'ok' if rate >= detector else 'MISSED'})"
            text.append(f"{rate:.1f} x the detector's {DETECTOR_HZ} frames/s{asked}\n")
        loop = Contender("loop over hits in Python", lambda a=adu: loop_over_hits(a))
        race([loop], max(1, rounds // 3))
        slow = FRAMES / 50 / statistics.median(loop.seconds)
        text.append(f"a loop over hits in Python: {slow:.0f} frames/s\n")
    return "\n".join(text)


def numpy_s(counts: NDArray[np.int64], angles: Floats) -> tuple[Floats, Floats]:
    """numpy, all pixels at once: angle per pixel, fractional bins, errors."""
    p = momentum_au(115.0, BINS.edges_kev()[None, 1:], angles[:, None])
    low, high = p[:, :-1], p[:, 1:]
    n = counts[:, 1:]

    def inside(a: float, b: float) -> Floats:
        return np.asarray(np.clip((np.minimum(high, b) - np.maximum(low, a)) / (high - low), 0.0, 1.0))

    core, wings = inside(-1, 1), inside(-5, -1) + inside(1, 5)
    c, w = (core * n).sum(1), (wings * n).sum(1)
    vc, vw, cov = (core**2 * n).sum(1), (wings**2 * n).sum(1), (core * wings * n).sum(1)
    s = c / w
    return s, s * np.sqrt(vc / c**2 + vw / w**2 - 2 * cov / (c * w))


def one_angle(counts: NDArray[np.int64], weights: Floats) -> tuple[Floats, Floats]:
    """numpy matmul with one angle for all pixels: does less."""
    sums = counts @ weights
    s = sums[:, 0] / sums[:, 1]
    return s, s * np.sqrt(sums[:, 2] / sums[:, 0] ** 2 + sums[:, 3] / sums[:, 1] ** 2)


def s_map(rounds: int) -> str:
    """Race the S map of 6400 pixels with errors."""
    rng = np.random.default_rng(2)
    angles = Pinhole().angles_rad(NY, NX).ravel()
    middle = BINS.edges_kev()[:-1] + 0.1
    counts = rng.poisson(40 * np.exp(-0.5 * ((middle - 93.87) / 2.0) ** 2) + 1, (NY * NX, BINS.count))
    edges_kev = window_edges_kev(115.0, angles)
    edges = np.ascontiguousarray(edges_kev / 0.2)
    sums, s, sigma = np.empty((NY * NX, 5)), np.empty(NY * NX), np.empty(NY * NX)
    weights = rng.random((BINS.count, 4))
    floats: Any = counts.astype(np.float64)

    def kernel() -> None:
        window_sums(counts, edges, sums)
        ratios(sums, s, sigma)

    contenders = [
        Contender("numpy 2-D", lambda: numpy_s(counts, angles), note="angle per pixel, bins cut evenly"),
        Contender(
            "numpy matmul", lambda: one_angle(floats, weights), note="one angle, no covariance: does less"
        ),
        Contender("edge, s_values", lambda: s_values(counts, edges_kev, BINS), 100.0, "with its allocations"),
        Contender("edge, kernel", kernel, 100.0, "edges at hand"),
    ]
    race(contenders, rounds)
    best = statistics.median(contenders[3].seconds) * 1e3
    ours, theirs = s_values(counts, edges_kev, BINS), numpy_s(counts, angles)
    off = float(np.max(np.abs(ours.s - theirs[0]) / ours.sigma))
    title = (
        f"S map, 6400 pixels x 900 bins, largest difference {off:.2f} sigma (bins cut with slope or evenly)"
    )
    matmul = statistics.median(
        b / a for a, b in zip(contenders[3].seconds, contenders[1].seconds, strict=True)
    )
    verdict = "ok" if best <= 2.0 else "MISSED"
    return (
        table(title, contenders, work=NY * NX, unit="k pixels/s", peer="numpy 2-D")
        + f"{best:.2f} ms for the map (asked <= 2 ms: {verdict}); {matmul:.1f} x the matmul (asked >= 7)\n"
    )


def compton(rounds: int) -> str:
    """Frames and the S map."""
    return discriminate(rounds) + "\n" + s_map(rounds)
