"""Chebyshev panels: points, the matrix from values at them to coefficients, and sums of the polynomials."""

import math
from typing import Any

import numpy as np


def chebyshev(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Chebyshev points in [-1, 1], ascending, and the matrix from values at them to coefficients.

    >>> points, matrix = chebyshev(4)
    >>> (matrix @ points**3).round(12).tolist()
    [0.0, 0.75, 0.0, 0.25]
    """
    angles = math.pi * (np.arange(order)[::-1] + 0.5) / order
    matrix = 2 / order * np.cos(np.arange(order)[:, None] * angles[None, :])
    matrix[0] /= 2
    return np.cos(angles), matrix


def polynomials(np_: Any, x: Any, order: int) -> Any:
    """Return the first `order` polynomials at every x, on a last axis, in NumPy or jax.numpy."""
    return np_.cos(np_.arange(order) * np_.arccos(np_.clip(x, -1.0, 1.0))[..., None])


def clenshaw(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the sum of the polynomials at x; the coefficients are on the first axis, the others broadcast.

    >>> clenshaw(np.array([0.0, 0.75, 0.0, 0.25]), np.array([0.5, -1.0])).tolist()
    [0.125, -1.0]
    """
    ahead, here = 0.0, coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        ahead, here = here, coefficient + 2 * x * here - ahead
    return coefficients[0] + x * here - ahead
