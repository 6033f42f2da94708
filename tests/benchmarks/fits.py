"""Linear fits of known shapes to spectra: speed, and the bias and pulls without which speed says nothing."""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray

from edge.peaks import fit_templates, gaussian
from tests.benchmarks.race import Contender, race, table

Floats = NDArray[np.float64]

CHANNELS, ELEMENTS, SPECTRA = 961, 10, 400
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


def edge_fit(spectra: Floats, templates: Floats) -> tuple[Floats, Floats]:
    """Weights from the model, iterated; Poisson errors."""
    fits = [fit_templates(one, templates) for one in spectra]
    return np.array([f.amplitudes for f in fits]), np.array([np.sqrt(np.diag(f.covariance)) for f in fits])


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
    kinds = {
        "numpy pinv": numpy_pinv, "numpy, weights from the data": numpy_data_weights,
        "edge, weights from the model": edge_fit,
    }  # fmt: skip
    contenders = [
        Contender(name, lambda f=call: f(spectra, templates), note=quality(call(spectra, templates), truth))
        for name, call in kinds.items()
    ]
    race(contenders, rounds)
    title = f"linear fit, {ELEMENTS} lines on background, {CHANNELS} channels, {COUNTS:g} counts"
    text = table(title, contenders, work=SPECTRA, unit="k spectra/s", peer="numpy, weights from the data")
    text += "pulls should be 0 +- 1; edge fits spectrum by spectrum, whole maps are projected once fitted\n"
    if importlib.util.find_spec("PyMca5") is None:
        text += "PyMca5 is not installed: no comparison with its fast linear fit\n"
    else:
        text += pymca(spectra, templates, truth, rounds)
    return text


def pymca(spectra: Floats, templates: Floats, truth: Floats, rounds: int) -> str:
    """Race the linear algebra of PyMca on the same design matrix."""
    from PyMca5.PyMcaMath.linalg import lstsq

    peer = "PyMca linalg.lstsq, weights from the data"
    contenders = [
        Contender(
            peer, lambda: [lstsq(templates.T, y, sigma_b=np.sqrt(np.maximum(y, 1.0))) for y in spectra]
        ),
        Contender("edge, weights from the model", lambda: edge_fit(spectra, templates)),
    ]
    race(contenders, rounds)
    return table("the same against PyMca", contenders, work=SPECTRA, unit="k spectra/s", peer=peer)
