"""Gaussian blur as products with small banded matrices, on any array namespace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

# Rows of one banded block. 16 rows against 16 + 2*8 columns at sigma 2: an eighth of the
# multiplications of the dense 256 x 256 product (26 ms -> 10 ms for 11 frames of 3 channels;
# blocks of 64 take 18 ms). On a GPU one dense product beats sixteen small ones.
BLOCK = 16


@lru_cache(maxsize=64)
def gaussian_matrix(
    size: int, sigma: float, truncate: float = 4.0
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Matrix of a one-dimensional Gaussian blur whose boundary rule is folded in.

    Parameters
    ----------
    size : int
        Length of the axis.
    sigma : float
        Standard deviation in elements; 0 gives the identity.
    truncate : float
        The kernel reaches this many standard deviations, as in `scipy.ndimage`.

    Returns
    -------
    ndarray, shape (size, size), float64, read-only
        ``matrix @ values`` blurs with the boundary rule ``d c b a | a b c d | d c b a``
        (SciPy's ``reflect``).
    """
    matrix = gaussian_rows(size, sigma, 0, size, truncate)
    matrix.setflags(write=False)
    return matrix


def gaussian_rows(
    size: int, sigma: float, start: int, stop: int, truncate: float = 4.0
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Some rows of `gaussian_matrix`, shape (stop - start, size).

    Parameters
    ----------
    size, sigma, truncate
        As there.
    start, stop : int
        First row, and the one after the last.
    """
    if sigma <= 0:
        return np.eye(size)[start:stop]
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    folded = (np.arange(start, stop)[:, None] + offsets) % (2 * size)
    folded = np.where(folded < size, folded, 2 * size - 1 - folded)
    matrix = np.zeros((stop - start, size))
    np.add.at(matrix, (np.arange(stop - start)[:, None], folded), weights)
    return matrix


@dataclass(frozen=True)
class Band:
    """Some rows of the matrix of a blur, and the columns in which they differ from zero.

    Attributes
    ----------
    rows, columns : slice
    weights : ndarray, shape (row, column), float64
    """

    rows: slice
    columns: slice
    weights: np.ndarray[Any, np.dtype[np.float64]]


@lru_cache(maxsize=64)
def gaussian_bands(size: int, sigma: float) -> tuple[Band, ...]:
    """The matrix of a blur as bands of few rows, whose weights away from borders are one array.

    Parameters
    ----------
    size, sigma
        As in `gaussian_matrix`.
    """
    bands = []
    made: dict[tuple[int, ...], np.ndarray[Any, np.dtype[np.float64]]] = {}
    for start, stop, low, high in _blocks(size, int(4.0 * sigma + 0.5)):
        place = low - start, high - stop, stop - start
        if place not in made:
            made[place] = gaussian_rows(size, sigma, start, stop)[:, low:high].copy()
        bands.append(Band(slice(start, stop), slice(low, high), made[place]))
    return tuple(bands)


def gaussian_blur(values: Any, sigma: float, *, axes: tuple[int, ...] = (-2, -1)) -> Any:
    """Blur along some axes, with SciPy's rule ``reflect`` and ``truncate=4``.

    Parameters
    ----------
    values : array, floating
        Any shape.
    sigma : float
        Standard deviation in elements.
    axes : tuple of int
        Negative axes, blurred in this order.

    Returns
    -------
    array, shape and dtype of `values`

    Notes
    -----
    All axes are summed in float64 and rounded once, at the end: a constant stays that constant to
    the last bit, as in `scipy.ndimage`, so that its MAD is zero and not rounding noise.
    """
    if sigma <= 0:
        return values
    xp = array_api_compat.array_namespace(values)
    wide = xp.astype(values, xp.float64)
    for axis in axes:
        wide = _blur_axis(xp, wide, sigma, axis)
    return xp.astype(wide, values.dtype)


def _blur_axis(xp: Any, values: Any, sigma: float, axis: int) -> Any:
    """Blur float64 values along one axis."""
    size = values.shape[axis]
    if size == 1:
        return values
    device = array_api_compat.device(values)
    if axis not in (-1, -2) or not _on_host(values):
        matrix = xp.asarray(np.array(gaussian_matrix(size, float(sigma))), device=device)
        if axis in (-1, -2):
            return xp.matmul(values, matrix.T) if axis == -1 else xp.matmul(matrix, values)
        # a short axis such as the channels: flatten what lies behind it
        flat = xp.reshape(values, (*values.shape[: axis + 1], -1))
        return xp.reshape(xp.matmul(matrix, flat), values.shape)
    blurred = xp.empty_like(values)
    for band in gaussian_bands(size, float(sigma)):
        weights = xp.asarray(band.weights, device=device)
        if axis == -1:
            given, made = values[..., band.columns], blurred[..., band.rows]
            xp.matmul(given, weights.T, out=made)
        else:
            given, made = values[..., band.columns, :], blurred[..., band.rows, :]
            xp.matmul(weights, given, out=made)
    return blurred


def _on_host(values: Any) -> bool:
    """Whether products run on the CPU, by NumPy or torch, which write where they are told."""
    if array_api_compat.is_torch_array(values):
        return bool(values.device.type == "cpu")
    return array_api_compat.is_numpy_array(values)


def _blocks(size: int, radius: int) -> list[tuple[int, int, int, int]]:
    """Row ranges and the column ranges in which their band lies."""
    if size <= BLOCK + 2 * radius:
        return [(0, size, 0, size)]
    return [
        (start, min(start + BLOCK, size), max(0, start - radius), min(size, start + BLOCK + radius))
        for start in range(0, size, BLOCK)
    ]
