"""Two change points in curves over steps: least squares over every pair, by whole arrays.

A curve is split into three segments of constant mean; the middle one must lie above both others.
With K steps there are about K**2 / 2 pairs, so the search over all of them is exact and, for
hundreds of curves at once, a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]

_CELLS = 1 << 17  # curves times pairs held at once: 1 MB an array, which stays in the cache


@dataclass(frozen=True)
class Segmentation:
    """Best split of each curve.

    Attributes
    ----------
    first, second : numpy.ndarray, shape (curve,)
        Position at which the middle and the last segment begin; NaN where no split has a middle
        above both sides.
    gain : numpy.ndarray, shape (curve,)
        Sum of squares explained by the three means (0 where there is no split).
    """

    first: Floats
    second: Floats
    gain: Floats


def shortest_segment(steps: int) -> int:
    """Smallest number of steps in a segment: two, or one where there are fewer than six steps.

    Parameters
    ----------
    steps : int
        Length of the curves.

    Returns
    -------
    int

    Raises
    ------
    InputError
        With fewer than three steps.
    """
    if steps < 3:
        raise InputError(f"{steps} differences found; three phases need at least 3 (4 steps)")
    return 2 if steps >= 6 else 1


def segment(curves: npt.ArrayLike) -> Segmentation:
    """Split every curve at its two best change points.

    Parameters
    ----------
    curves : array, shape (curve, step)
        Finite numbers.

    Returns
    -------
    Segmentation
    """
    values = np.atleast_2d(np.asarray(curves, np.float64))
    steps = values.shape[1]
    shortest = shortest_segment(steps)
    begin, end = np.triu_indices(steps + 1, shortest)
    usable = (begin >= shortest) & (end <= steps - shortest)
    begin, end = begin[usable], end[usable]
    rows = max(1, _CELLS // begin.size)
    parts = [
        _best(values[start : start + rows], begin, end) for start in range(0, len(values), rows)
    ]
    first, second, gain = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Segmentation(first, second, gain)


def means_of(curves: Floats, split: Segmentation) -> Floats:
    """The fitted curves: each step's segment mean (the overall mean where there is no split).

    Parameters
    ----------
    curves : numpy.ndarray, shape (curve, step)
        What was split.
    split : Segmentation
        Of these curves.

    Returns
    -------
    numpy.ndarray, shape (curve, step)
    """
    position = np.arange(curves.shape[1])
    with np.errstate(invalid="ignore"):
        segments = (position >= split.first[:, None]).astype(int) + (
            position >= split.second[:, None]
        )
    fitted = np.empty_like(curves)
    for number in range(3):
        inside = segments == number
        total = np.where(inside, curves, 0).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
        fitted = np.where(inside, total[:, None], fitted)
    return fitted


def _best(
    values: Floats, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Best of the given pairs for each curve."""
    steps = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(centred, axis=1)], axis=1)
    left = total[:, begin] / begin
    right = (total[:, -1:] - total[:, end]) / (steps - end)
    middle = (total[:, end] - total[:, begin]) / (end - begin)
    gain = left**2 * begin + middle**2 * (end - begin) + right**2 * (steps - end)
    # equal curves differ by rounding only: that is no hump
    floor = 1e-9 * (np.abs(values).max(axis=1, keepdims=True) + 1e-300)
    gain = np.where(middle > np.maximum(left, right) + floor, gain, -1.0)
    best = np.argmax(gain, axis=1)
    value = gain[np.arange(len(values)), best]
    found = value > 0
    return (
        np.where(found, begin[best], np.nan),
        np.where(found, end[best], np.nan),
        np.where(found, value, 0.0),
    )
