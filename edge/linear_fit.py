"""Linear fits of known shapes to many spectra at once: unweighted, or with weights from the model.

y_c ~ Poisson(sum_k a_k T_kc). Both estimates are linear in the counts (the second nearly so), unbiased, and
their errors are the Poisson ones. Weights never come from the data: 1 / max(y, 1) biases every amplitude by
about -1.2 sigma at two counts per channel.

Everything is a product of matrices in 32-bit numbers (relative rounding 1e-6, a thousandth of the error of
ten thousand counts); only the small equations are solved in 64 bits. Buffers are fixed when the shapes are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

FLOOR = 0.05  # counts per channel of a model that serves as a weight, as in edge.peaks
BATCH = 256  # spectra that are looked at together: the buffers stay in the second cache


@dataclass(frozen=True)
class LinearFit:
    """Amplitudes of many spectra with their Poisson errors."""

    amplitudes: Floats  # (n, k), counts for templates of unit area
    sigma: Floats  # (n, k)


class Shapes:
    """Known shapes, prepared once for any number of spectra.

    Args:
        templates: shape (k, channels), linearly independent; a line of unit area gives counts.

    Raises:
        ValueError: if the templates are linearly dependent.
    """

    def __init__(self, templates: ArrayLike) -> None:
        shapes = np.asarray(templates, np.float64)
        self.size, self.channels = shapes.shape
        norm = np.sqrt(np.sum(shapes**2, axis=1))
        unit = shapes / np.where(norm > 0.0, norm, 1.0)[:, None]
        if np.linalg.matrix_rank(unit, tol=1e-9) < self.size:
            raise ValueError("the templates are linearly dependent")
        self._peak = np.max(np.abs(shapes), axis=1)  # amplitudes in 32 bits refer to templates of height one
        gain = np.linalg.solve(unit @ unit.T, unit) / norm[:, None]
        self._gains = np.concatenate([gain, gain**2]).T.astype(np.float32)
        self._scaled = (shapes / self._peak[:, None]).astype(np.float32)
        self._turned = np.ascontiguousarray(self._scaled.T)
        self._i, self._j = np.triu_indices(self.size)
        self._pairs = np.ascontiguousarray((self._scaled[self._i] * self._scaled[self._j]).T)
        self._counts = np.empty((BATCH, self.channels), np.float32)
        self._weights = np.empty_like(self._counts)

    def unweighted(self, spectra: ArrayLike) -> LinearFit:
        """Fit without weights: a = G y, variance = G^2 y, G the pseudo-inverse of the templates.

        Args:
            spectra: counts, shape (n, channels), any type.

        Returns:
            Amplitudes and one-sigma errors, each (n, k). A spectrum without counts has zero errors.

        Raises:
            ValueError: if the number of channels differs.
        """
        y = self._checked(spectra)
        found = np.empty((y.shape[0], 2 * self.size))
        for start in range(0, y.shape[0], BATCH):
            self._gain(y[start : start + BATCH], found[start : start + BATCH])
        return LinearFit(found[:, : self.size], np.sqrt(np.maximum(found[:, self.size :], 0.0)))

    def weighted(self, spectra: ArrayLike, iterations: int = 1) -> LinearFit:
        """Fit with weights 1 / model, the first model being that of the unweighted fit.

        a = N^-1 T W y with N = T W T^T, which is also the inverse of the Poisson covariance. The model is
        floored at 0.05 counts per channel.

        Args:
            spectra: counts, shape (n, channels), any type.
            iterations: of the weights, at least 1.

        Returns:
            Amplitudes and one-sigma errors, each (n, k); NaN where the equations are singular.

        Raises:
            ValueError: if the number of channels differs.
        """
        y = self._checked(spectra)
        amplitudes, sigma = np.empty((y.shape[0], self.size)), np.empty((y.shape[0], self.size))
        first = np.empty((min(BATCH, y.shape[0]), 2 * self.size))
        for start in range(0, y.shape[0], BATCH):
            part = y[start : start + BATCH]
            counts = self._gain(part, first[: part.shape[0]])
            weights = self._weights[: part.shape[0]]
            a = first[: part.shape[0], : self.size] * self._peak
            for _ in range(iterations):
                np.matmul(a.astype(np.float32), self._scaled, out=weights)
                np.maximum(weights, np.float32(FLOOR), out=weights)
                np.divide(np.float32(1.0), weights, out=weights)
                pairs = weights @ self._pairs
                np.multiply(weights, counts, out=weights)
                a, errors = self._solved(pairs, weights @ self._turned)
            amplitudes[start : start + BATCH], sigma[start : start + BATCH] = (
                a / self._peak,
                errors / self._peak,
            )
        return LinearFit(amplitudes, sigma)

    def _gain(self, part: NDArray[np.generic], out: Floats) -> Singles:
        """Set amplitudes and variances of a batch; return its counts in 32 bits."""
        counts = self._counts[: part.shape[0]]
        counts[...] = part
        out[...] = counts @ self._gains
        return counts

    def _solved(self, pairs: Singles, right: Singles) -> tuple[Floats, Floats]:
        """Return amplitudes and errors from the normal equations of a batch."""
        normal = np.empty((pairs.shape[0], self.size, self.size))
        normal[:, self._i, self._j] = pairs
        normal[:, self._j, self._i] = pairs
        try:
            inverse = np.linalg.inv(normal)
        except np.linalg.LinAlgError:
            inverse = np.stack([_inverse(one) for one in normal])
        errors = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
        return np.matmul(inverse, right.astype(np.float64)[:, :, None])[:, :, 0], errors

    def _checked(self, spectra: ArrayLike) -> NDArray[np.generic]:
        y = np.asarray(spectra)
        if y.ndim != 2 or y.shape[1] != self.channels:
            raise ValueError(f"spectra {y.shape} do not fit {self.channels} channels")
        return y


def _inverse(matrix: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)
