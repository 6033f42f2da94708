"""Equivalent circuits: a short notation, impedances, and their derivatives in closed form.

``R0-p(R1,C1)-Wo1``: a dash joins in series, ``p(a,b)`` in parallel. Elements (parameter names in brackets):

R (ohm); C (F), 1 / (j w C); L (H), j w L; CPE (Q in s^a/ohm, a), 1 / (Q (j w)^a); W (A in ohm/sqrt(s)),
semi-infinite diffusion, A (1 - j) / sqrt(w); Wo (R in ohm, tau in s), finite space (reflecting), R coth(s) /
s; Ws (the same), finite length (transmitting), R tanh(s) / s, with s = sqrt(j w tau).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Kernel = Callable[[Any, list[Floats]], tuple[Any, list[Any]]]  # complex, but typed loosely: numpy widens

MAX_TEXT = 200
MAX_ELEMENTS = 20
TOKEN = re.compile(r"(CPE|Wo|Ws|W|R|C|L)(\d*)")


def _r(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    z = p[0] + 0j * s
    return z, [z]


def _c(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    z = 1.0 / (s * p[0])
    return z, [-z]


def _l(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    z = s * p[0]
    return z, [z]


def _cpe(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    log_s = np.log(s)
    z = np.exp(-p[1] * log_s) / p[0]
    return z, [-z, -z * log_s]


def _w(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    z = p[0] * np.sqrt(2.0) / np.sqrt(s)  # A (1 - j) / sqrt(w)
    return z, [z]


def _finite(s: Any, p: list[Floats], sign: float) -> tuple[Any, list[Any]]:
    x = np.sqrt(s * p[1])
    e = np.exp(-2.0 * x)  # |e| < 1: no overflow
    f = (1 + sign * e) / (1 - sign * e)  # coth (+1) or tanh (-1)
    slope = -sign * 4.0 * e / (1 - sign * e) ** 2  # df/dx
    z = p[0] * f / x
    return z, [z, 0.5 * (p[0] * slope - z)]


def _wo(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    return _finite(s, p, 1.0)


def _ws(s: Any, p: list[Floats]) -> tuple[Any, list[Any]]:
    return _finite(s, p, -1.0)


@dataclass(frozen=True)
class Kind:
    """What an element's parameters are called, their units, and which are fitted as a logarithm."""

    parameters: tuple[str, ...]
    units: tuple[str, ...]
    logarithmic: tuple[bool, ...]
    kernel: Kernel


KINDS: dict[str, Kind] = {
    "R": Kind(("",), ("ohm",), (True,), _r),
    "C": Kind(("",), ("F",), (True,), _c),
    "L": Kind(("",), ("H",), (True,), _l),
    "CPE": Kind(("_Q", "_a"), ("s^a/ohm", ""), (True, False), _cpe),
    "W": Kind(("",), ("ohm/s^0.5",), (True,), _w),
    "Wo": Kind(("_R", "_tau"), ("ohm", "s"), (True, True), _wo),
    "Ws": Kind(("_R", "_tau"), ("ohm", "s"), (True, True), _ws),
}


@dataclass(frozen=True)
class Element:
    """One element; ``at`` is the number of its first parameter."""

    kind: str
    name: str
    at: int


@dataclass(frozen=True)
class Series:
    """Parts in series."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Parallel:
    """Parts in parallel."""

    parts: tuple[Node, ...]


Node = Element | Series | Parallel


@dataclass(frozen=True)
class Circuit:
    """A parsed circuit.

    Attributes:
        text: as written.
        names, units: of every parameter.
        logarithmic: whether a parameter is fitted as its logarithm (so it stays positive).
    """

    text: str
    root: Series
    names: tuple[str, ...]
    units: tuple[str, ...]
    logarithmic: NDArray[np.bool_] = field(compare=False)  # follows from the text

    def impedance(self, values: Floats, frequency_hz: Floats) -> Complexes:
        """Return Z in ohm, shape (..., n), for parameters of shape (..., p)."""
        return self.with_derivatives(values, frequency_hz)[0]

    def with_derivatives(self, values: Floats, frequency_hz: Floats) -> tuple[Complexes, Complexes]:
        """Return Z, shape (..., n), and dZ/dq, (..., n, p); q = ln(value) where logarithmic, else value."""
        s = 2j * np.pi * np.asarray(frequency_hz, np.float64)
        v = np.asarray(values, np.float64)
        derivatives = np.zeros((*v.shape[:-1], s.size, v.shape[-1]), np.complex128)
        return _evaluate(self.root, s, v, derivatives), derivatives


def parse(text: str) -> Circuit:
    """Read the notation.

    Raises:
        ValueError: says where it is not understood, or that an element occurs twice.
    """
    if not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"a circuit has 1 to {MAX_TEXT} characters")
    elements: list[Element] = []
    names: list[str] = []
    units: list[str] = []
    logarithmic: list[bool] = []
    clean = text.replace(" ", "")

    def element(at: int) -> tuple[Node, int]:
        found = TOKEN.match(clean, at)
        if found is None:
            raise ValueError(f"circuit {text!r}: expected {', '.join(KINDS)} or p( at character {at + 1}")
        kind, label = found.group(1), found.group(0)
        if any(e.name == label for e in elements):
            raise ValueError(f"circuit {text!r}: {label} occurs twice")
        node = Element(kind, label, len(names))
        elements.append(node)
        names.extend(label + suffix for suffix in KINDS[kind].parameters)
        units.extend(KINDS[kind].units)
        logarithmic.extend(KINDS[kind].logarithmic)
        return node, found.end()

    def series(at: int) -> tuple[Series, int]:
        parts: list[Node] = []
        while True:
            node, at = parallel(at + 2) if clean.startswith("p(", at) else element(at)
            parts.append(node)
            if at >= len(clean) or clean[at] != "-":
                return Series(tuple(parts)), at
            at += 1

    def parallel(at: int) -> tuple[Node, int]:
        branches: list[Node] = []
        while True:
            node, at = series(at)
            branches.append(node)
            if at >= len(clean) or clean[at] not in ",)":
                raise ValueError(f"circuit {text!r}: expected , or ) at character {at + 1}")
            at += 1
            if clean[at - 1] == ")":
                if len(branches) < 2:
                    raise ValueError(f"circuit {text!r}: p( ) needs two branches")
                return Parallel(tuple(branches)), at

    if clean.count("(") > MAX_ELEMENTS:
        raise ValueError(f"circuit {text!r}: more than {MAX_ELEMENTS} brackets")
    root, end = series(0)
    if end != len(clean):
        raise ValueError(f"circuit {text!r}: {clean[end:]!r} is left over at character {end + 1}")
    if len(elements) > MAX_ELEMENTS:
        raise ValueError(f"circuit {text!r}: more than {MAX_ELEMENTS} elements")
    return Circuit(text, root, tuple(names), tuple(units), np.array(logarithmic))


def _evaluate(node: Node, s: Any, values: Floats, derivatives: Complexes) -> Any:
    """Return Z of a node and write its dZ/dq; in parallel, dZ/dZ_i = (Z / Z_i)^2."""
    if isinstance(node, Element):
        kind = KINDS[node.kind]
        p = [values[..., node.at + k, None] for k in range(len(kind.parameters))]
        z, parts = kind.kernel(s, p)
        for k, part in enumerate(parts):
            derivatives[..., node.at + k] = part
        return z
    branches = [_evaluate(part, s, values, derivatives) for part in node.parts]
    if isinstance(node, Series):
        return np.sum(np.broadcast_arrays(*branches), axis=0)
    whole = 1.0 / np.sum([1.0 / branch for branch in branches], axis=0)
    for child, branch in zip(node.parts, branches, strict=True):
        for k in _parameters(child):
            derivatives[..., k] *= (whole / branch) ** 2
    return whole


def _parameters(node: Node) -> list[int]:
    if isinstance(node, Element):
        return [node.at + k for k in range(len(KINDS[node.kind].parameters))]
    return [k for part in node.parts for k in _parameters(part)]


def elements_of(node: Node) -> list[Element]:
    """Return the elements of a node in order."""
    return [node] if isinstance(node, Element) else [e for part in node.parts for e in elements_of(part)]
