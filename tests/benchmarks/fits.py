"""Linear fits of known shapes to spectra: speed, and the bias and pulls without which speed says nothing."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge.linear_fit import Shapes
from edge.peaks import gaussian
from tests.benchmarks.race import Contender, race, table

Floats = NDArray[np.float64]

CHANNELS, ELEMENTS, SPECTRA = 961, 10, 8192
PYMCA = importlib.util.find_spec("PyMca5") is not None
COUNTS = 2072.0  # per spectrum: about two per channel


def shapes() -> Floats:
    """Return ten K-alpha, K-beta doublets and three background terms, each of unit area."""
    x = np.arange(CHANNELS, dtype=np.float64)
    rows = []
    for number in range(ELEMENTS):
        centre = 120.0 + 75.0 * number
        rows.append(0.87 * gaussian(x, centre, 14.0) + 0.13 * gaussian(x, centre * 1.1, 15.0))
    u = x / CHANNELS
    rows += [np.full(CHANNELS, 1.0 / CHANNELS), np.exp(-3 * u), np.exp(-12 * u)]
    return np.array([row / row.sum() for row in rows])


def draw(templates: Floats) -> tuple[Floats, Floats]:
    """Return spectra (SPECTRA, CHANNELS) and the amplitudes that they were drawn with."""
    rng = np.random.default_rng(11)
    truth = np.full(templates.shape[0], COUNTS / templates.shape[0])
    return rng.poisson(truth @ templates, (SPECTRA, CHANNELS)).astype(np.float64), truth


def edge_weighted(spectra: Floats, known: Shapes) -> tuple[Floats, Floats]:
    """Weights from the model of the unweighted fit; Poisson errors."""
    fit = known.weighted(spectra)
    return fit.amplitudes, fit.sigma


def edge_unweighted(spectra: Floats, known: Shapes) -> tuple[Floats, Floats]:
    """No weights; Poisson errors."""
    fit = known.unweighted(spectra)
    return fit.amplitudes, fit.sigma


def numpy_pinv(spectra: Floats, templates: Floats) -> tuple[Floats, Floats]:
    """No weights: one pseudo-inverse for every spectrum; Poisson errors from the data."""
    gain = np.linalg.pinv(templates.T)
    return spectra @ gain.T, np.sqrt(spectra @ (gain.T**2))


def numpy_data_weights(spectra: Floats, templates: Floats) -> tuple[Floats, Floats]:
    """Weights 1 / max(y, 1): what many programs do."""
    amplitudes, sigmas = [], []
    for one in spectra:
        weighted = templates / np.maximum(one, 1.0)
        covariance = np.linalg.inv(weighted @ templates.T)
        amplitudes.append(covariance @ weighted @ one)
        sigmas.append(np.sqrt(np.diag(covariance)))
    return np.array(amplitudes), np.array(sigmas)


def quality(found: tuple[Floats, Floats], truth: Floats) -> str:
    """Return mean and standard deviation of the pulls of the line areas."""
    pull = ((found[0] - truth) / found[1])[:, :ELEMENTS]
    return f"pulls {pull.mean():+.2f} +- {pull.std():.2f}"


def fits(rounds: int) -> str:
    """Race the fits."""
    templates = shapes()
    spectra, truth = draw(templates)
    known = Shapes(templates)
    with one_thread():
        return _unweighted(spectra, templates, known, truth, rounds) + _weighted(
            spectra, templates, known, truth, rounds
        )


def _unweighted(spectra: Floats, templates: Floats, known: Shapes, truth: Floats, rounds: int) -> str:
    kinds = {
        "numpy pinv": lambda: numpy_pinv(spectra, templates),
        "edge, unweighted": lambda: edge_unweighted(spectra, known),
    }
    if PYMCA:
        kinds = {"PyMca weight 0": lambda: pymca(spectra, templates, 0), **kinds}
    peer = next(iter(kinds))
    contenders = [
        Contender(name, call, 1.0 if name.startswith("edge") else None, quality(call(), truth))
        for name, call in kinds.items()
    ]
    race(contenders, rounds)
    title = f"linear fit without weights, {ELEMENTS} lines, {CHANNELS} channels, {COUNTS:g} counts, one core"
    return table(title, contenders, work=SPECTRA, unit="k spectra/s", peer=peer)


def _weighted(spectra: Floats, templates: Floats, known: Shapes, truth: Floats, rounds: int) -> str:
    few = spectra[: SPECTRA // 8]
    kinds = {
        "numpy, weights from the data": lambda: numpy_data_weights(few, templates),
        "edge, weights from the model": lambda: edge_weighted(few, known),
    }
    if PYMCA:
        kinds = {"PyMca weight 2": lambda: pymca(few, templates, 2), **kinds}
    peer = next(iter(kinds))
    contenders = [
        Contender(name, call, 1.9 if name.startswith("edge") else None, quality(call(), truth))
        for name, call in kinds.items()
    ]
    race(contenders, rounds)
    title = "the same with weights"
    text = table(title, contenders, work=len(few), unit="k spectra/s", peer=peer)
    text += "pulls should be 0 +- 1; weights from the data bias every amplitude\n"
    if not PYMCA:
        text += "PyMca5 is not installed (extra benchmarks): no comparison with its fast linear fit\n"
    return text


def pymca(spectra: Floats, templates: Floats, weight: int) -> tuple[Floats, Floats]:
    """Fit as PyMca's FastXRFLinearFit does with this weight: its linear algebra, in its chunks of 1 MB."""
    from PyMca5.PyMcaMath.linalg import lstsq

    step = max(1, (1 << 20) // (8 * CHANNELS))
    amplitudes, sigmas, decomposed = [], [], None
    for start in range(0, len(spectra), step):
        found = lstsq(
            templates.T, spectra[start : start + step].T, digested_output=True, svd=weight == 0, sigma_b=None,
            weight=int(weight > 0), last_svd=decomposed,
        )  # fmt: skip
        decomposed = found.get("svd") if weight == 0 else None
        amplitudes.append(found["parameters"].T)
        sigmas.append(found["uncertainties"].T)
    return np.concatenate(amplitudes), np.concatenate(sigmas)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold the linear algebra of numpy to one core, where threadpoolctl is there to do it."""
    if importlib.util.find_spec("threadpoolctl") is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
