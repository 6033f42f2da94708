"""Simulated frames and spectra, written apart from the reduction: photons, sharing, noise, ADU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

E1, MC2, MC_AU = 115.0, 511.0, 137.036


def scattered(theta: np.ndarray | float, e1: float = E1) -> np.ndarray:
    """Energy of a photon scattered at rest."""
    return np.asarray(e1 * MC2 / (MC2 + e1 * (1 - np.cos(theta))))


def momentum(e2: np.ndarray, theta: np.ndarray | float, e1: float = E1) -> np.ndarray:
    """p_z in atomic units, from energy and momentum transfer: (omega stuff) / |k1 - k2|."""
    k = np.sqrt(e1**2 + e2**2 - 2 * e1 * e2 * np.cos(theta))
    lost = e1 - e2
    free = e1 * e2 * (1 - np.cos(theta)) / MC2
    return np.asarray((free - lost) / k * MC_AU)


@dataclass
class Frames:
    """Simulated frames with what went in."""

    adu: np.ndarray  # (n, ny, nx) uint16
    photons: np.ndarray  # (n, ny, nx) photons per pixel
    shared: np.ndarray  # photons of two pixels


def frames(
    rng: np.random.Generator, n: int, ny: int, nx: int, rate: object, *, shared: float = 0.35,
    pedestal: float = 1000.0, noise: float = 8.0, gain: float = 0.027, energy: object = None,
) -> Frames:  # fmt: skip
    """Photons with Poisson numbers, energies uniform from 20 to 120 keV unless ``energy(rng, y, x)`` says."""
    adu = rng.normal(pedestal, noise, (n, ny, nx))
    number = rng.poisson(rate, (n, ny, nx))
    f, y, x = np.nonzero(number)
    repeat = number[f, y, x]
    f, y, x = np.repeat(f, repeat), np.repeat(y, repeat), np.repeat(x, repeat)
    kev = rng.uniform(20, 120, f.size) if energy is None else energy(rng, y, x)
    split = rng.random(f.size) < shared
    part = np.where(split, rng.uniform(0.55, 0.8, f.size), 1.0)
    step = rng.integers(0, 4, f.size)
    y2, x2 = y + np.array([0, 0, 1, -1])[step], x + np.array([1, -1, 0, 0])[step]
    np.add.at(adu, (f, y, x), kev * part / gain)
    on = split & (y2 >= 0) & (y2 < ny) & (x2 >= 0) & (x2 < nx)
    np.add.at(adu, (f[on], y2[on], x2[on]), (kev * (1 - part) / gain)[on])
    return Frames(np.clip(np.rint(adu), 0, 65535).astype(np.uint16), number, split)


@dataclass
class Reference:
    """What scipy's labelling makes of frames."""

    spectra: np.ndarray
    under: np.ndarray
    over: np.ndarray
    hits: np.ndarray
    singles: np.ndarray
    doubles: np.ndarray
    discarded: np.ndarray
    near: np.ndarray


def by_labels(
    adu: np.ndarray, threshold: np.ndarray, energy: object, width: float, bins: int, add: bool, ring: int
) -> Reference:
    """Clusters by scipy's labels; for ring 2 pixels belong together up to 2 rows and columns apart."""
    n, ny, nx = adu.shape
    out = Reference(np.zeros((ny, nx, bins), int), *(np.zeros((ny, nx), int) for _ in range(7)))
    window = np.ones((2 * ring + 1, 2 * ring + 1))
    for number in range(n):
        hit = adu[number] > threshold
        out.hits += hit
        out.near += ndimage.maximum_filter(hit, footprint=window, mode="constant", cval=0)
        labels, count = components(hit, ring)
        e = energy(number, adu[number].astype(float))
        for members in [np.argwhere(labels == k) for k in range(1, count + 1)]:
            kev = [e[tuple(m)] for m in members]
            if len(members) == 1 or (len(members) == 2 and add):
                where = tuple(members[int(np.argmax(kev))])
                k = math.floor(sum(kev) / width)
                if k < 0:
                    out.under[where] += 1
                elif k >= bins:
                    out.over[where] += 1
                else:
                    out.spectra[where][k] += 1
                (out.singles if len(members) == 1 else out.doubles)[where] += 1
            else:
                for m in members:
                    out.discarded[tuple(m)] += 1
    return out


def components(hit: np.ndarray, ring: int) -> tuple[np.ndarray, int]:
    """Connected components; ring 2 through a graph of distances."""
    if ring == 1:
        return ndimage.label(hit, np.ones((3, 3)))
    from scipy.sparse.csgraph import connected_components

    where = np.argwhere(hit)
    labels = np.zeros(hit.shape, int)
    if where.size == 0:
        return labels, 0
    apart = np.abs(where[:, None, :] - where[None, :, :]).max(axis=2)
    count, which = connected_components(apart <= ring)
    labels[tuple(where.T)] = which + 1
    return labels, count
