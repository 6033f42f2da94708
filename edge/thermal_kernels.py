"""The inverse of a small covariance, compiled: a library's threads cost more here than the work itself.

On two busy cores the likelihood of one record took eight times as long by OpenBLAS with its threads.
"""

from __future__ import annotations

import math

from numba import njit


@njit("f8(f8[:,::1])", cache=True, nogil=True, boundscheck=False)
def invert(matrix):  # type: ignore[no-untyped-def]  # numba compiles the signature above
    """Put the inverse of a symmetric matrix, shape (n, n), in its place; return the log of its determinant.

    NaN, and rubbish in the matrix, if it is not positive definite.
    """
    size = matrix.shape[0]
    logarithm = 0.0
    for i in range(size):  # Cholesky: the factor in the lower triangle
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i > j:
                matrix[i, j] = total / matrix[j, j]
            elif total > 0.0:
                matrix[i, i] = math.sqrt(total)
                logarithm += math.log(total)
            else:
                return math.nan
    for i in range(size):  # its inverse, in the upper triangle by rows: row j holds column j
        for j in range(i):
            total = 0.0
            for k in range(j, i):
                left = matrix[j, k] if k > j else 1.0 / matrix[j, j]
                total -= matrix[i, k] * left
            matrix[j, i] = total / matrix[i, i]
    for i in range(size):
        matrix[i, i] = 1.0 / matrix[i, i]
    for i in range(size):  # the product of that with itself; row by row, nothing is needed again
        for j in range(i, size):
            total = 0.0
            for k in range(j, size):
                total += matrix[i, k] * matrix[j, k]
            matrix[i, j] = total
    for i in range(size):
        for j in range(i):
            matrix[i, j] = matrix[j, i]
    return logarithm
