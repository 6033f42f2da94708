"""Where a fit of a circuit may begin: values from the sweep alone, no guessing by a person."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from edge.impedance_circuits import Circuit, Element, Node, Parallel, elements_of

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

CANDIDATES = 9  # time constants tried as starts
BEST_STARTS = 12


def start_values(circuit: Circuit, frequency_hz: Floats, z_ohm: Complexes) -> Floats:
    """Return starts for the fit, shape (starts, p), found from the sweep alone.

    Every p(...) is taken as one relaxation. For each choice of time constants from a grid over the measured
    range the resistances follow from a linear least squares on R0 + sum R_k / (1 + j w tau_k) (negative ones
    set to a thousandth of the whole); the dozen choices that fit best are the starts. Then C = tau / R, Q =
    tau^a / R with a = 0.85; a diffusion element gets the resistance of its branch and the slowest time
    measured.
    """
    f, z = np.asarray(frequency_hz, np.float64), np.asarray(z_ohm, np.complex128)
    w = 2 * np.pi * f
    arcs = [part for part in circuit.root.parts if _is_arc(part)]
    grid = np.geomspace(1 / w.max(), 1 / w.min(), CANDIDATES)
    span = max(float(np.ptp(z.real)), 1e-3 * float(np.abs(z).max()))
    slow = any(
        e.kind in ("W", "Wo", "Ws") or (e is part and e.kind == "CPE")
        for part in circuit.root.parts
        for e in elements_of(part)
    )
    coil = any(e.kind == "L" for part in circuit.root.parts for e in elements_of(part))
    found = []
    for taus in itertools.combinations(grid, len(arcs)):
        columns = [np.ones_like(w, complex), *(1 / (1 + 1j * w * tau) for tau in taus)]
        if coil:
            columns.append(1j * w / w.max())
        if slow:
            columns.append((1 - 1j) / np.sqrt(w))
        design = np.column_stack(columns) / np.abs(z)[:, None]
        target = z / np.abs(z)
        x = np.linalg.lstsq(
            np.concatenate([design.real, design.imag]), np.concatenate([target.real, target.imag]), rcond=None
        )[0]
        x[: len(arcs) + 1] = np.maximum(x[: len(arcs) + 1], 1e-3 * span)
        found.append((float(np.sum(np.abs(target - design @ x) ** 2)), taus, x))
    found.sort(key=lambda entry: entry[0])
    return np.stack([_start(circuit, arcs, w, z, taus, x, span) for _, taus, x in found[:BEST_STARTS]])


def _is_arc(part: Node) -> bool:
    """Return whether this is a p(...) with a capacitance, one relaxation."""
    return isinstance(part, Parallel) and any(e.kind in ("C", "CPE") for e in elements_of(part))


def _start(
    circuit: Circuit,
    arcs: list[Node],
    w: Floats,
    z: Complexes,
    taus: tuple[float, ...],
    x: Floats,
    span: float,
) -> Floats:
    values = np.zeros(len(circuit.names))
    resistors = [
        e for part in circuit.root.parts if isinstance(part, Element) for e in [part] if e.kind == "R"
    ]
    for e in resistors:
        values[e.at] = x[0] / len(resistors)
    slope = max(float(x[-1]), 1e-6 * span)
    for part in circuit.root.parts:
        if isinstance(part, Element) and part.kind != "R":
            _element(values, part, slope, 1 / w.min(), span, w, z)
        elif isinstance(part, Parallel) and not _is_arc(part):
            for e in elements_of(part):
                values[e.at] = 2 * float(np.abs(z[np.argmax(w)]))
                if e.kind != "R":
                    _element(values, e, slope, 1 / w.min(), span, w, z)
    for part, tau, r in zip(arcs, taus, x[1:], strict=False):
        _branch(values, part, r, tau, w, z)
    return values


def _branch(values: Floats, part: Node, r: float, tau: float, w: Floats, z: Complexes) -> None:
    """Set the elements inside a p(...) for an arc of resistance r and time constant tau."""
    inside = elements_of(part)
    resistors = sum(e.kind == "R" for e in inside)
    for e in inside:
        if e.kind == "R":
            values[e.at] = r / max(resistors, 1)
        elif e.kind == "C":
            values[e.at] = tau / r
        elif e.kind == "CPE":
            values[e.at], values[e.at + 1] = tau**0.85 / r, 0.85
        else:
            _element(values, e, r * math.sqrt(w.min()), 1 / w.min(), r, w, z)


def _element(
    values: Floats, e: Element, slope: float, slowest_s: float, r: float, w: Floats, z: Complexes
) -> None:
    """Set an element that stands alone."""
    if e.kind == "W":
        values[e.at] = slope
    elif e.kind in ("Wo", "Ws"):
        values[e.at], values[e.at + 1] = max(r, 1e-12), slowest_s
    elif e.kind == "L":
        values[e.at] = max(abs(float(z[np.argmax(w)].imag)) / w.max(), 1e-15)
    elif e.kind == "C":
        values[e.at] = 1 / (w.min() * max(abs(float(z[np.argmin(w)].imag)), 1e-15))
    elif e.kind == "CPE":
        values[e.at], values[e.at + 1] = 1 / (slope * math.sqrt(2)), 0.5  # as a Warburg element
