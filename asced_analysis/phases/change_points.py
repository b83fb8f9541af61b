"""Two change points in curves over steps: least squares over every pair, by whole arrays.

A curve is split into three segments of constant mean; the middle one must lie above both others.
Steps may have widths (of log-SNR): then the curve is fitted along that axis, as if it were
sampled evenly there, and where it is split does not depend on where a sampler spends its steps.
With K steps there are about K**2 / 2 pairs, so the search over all of them is exact and, for
hundreds of curves at once, a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError, TooFewStepsError

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

    Raises
    ------
    TooFewStepsError
        With fewer than three steps.
    """
    if steps < 3:
        found = f"{steps + 1} step{'s' * (steps != 0)}"
        raise TooFewStepsError(f"{found} found; three phases need at least 4")
    return 2 if steps >= 6 else 1


def is_wide_enough(
    widths: Floats, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Which stretches of steps may be a segment: `shortest_segment` steps, or as wide as those.

    Parameters
    ----------
    widths : numpy.ndarray, shape (step,)
        Of the steps, such as the log-SNR that each spans.
    first, last : numpy.ndarray
        First step of each stretch, and the step after its last one.
    """
    shortest = shortest_segment(widths.size)
    edges = np.concatenate([[0.0], np.cumsum(widths / widths.mean())])
    wide: npt.NDArray[np.bool_] = edges[last] - edges[first] >= shortest - 1e-9
    return wide | (last - first >= shortest)


def segment(curves: npt.ArrayLike, widths: npt.ArrayLike | None = None) -> Segmentation:
    """Split every curve at its two best change points.

    Parameters
    ----------
    curves : array, shape (curve, step)
        Finite numbers.
    widths : array, shape (step,), optional
        Weight of each step, such as the log-SNR that it spans; all alike by default. A segment
        has at least `shortest_segment` steps, or is as wide as so many steps of mean width.
    """
    values = np.atleast_2d(np.asarray(curves))
    steps = values.shape[1]
    weights = _weights(steps, widths)
    begin, end = splits_of(weights)
    rows = max(1, _CELLS // begin.size)
    parts = [
        _best(np.asarray(values[start : start + rows], np.float64), weights, begin, end)
        for start in range(0, len(values), rows)
    ]
    first, second, gain = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Segmentation(first, second, gain)


def means_of(
    curves: npt.NDArray[np.floating[Any]], split: Segmentation, widths: npt.ArrayLike | None = None
) -> Floats:
    """The fitted curves: each step's segment mean (the overall mean where there is no split).

    Parameters
    ----------
    curves : numpy.ndarray, shape (curve, step)
        What was split.
    split : Segmentation
        Of these curves.
    widths : array, shape (step,), optional
        As in `segment`.

    Returns
    -------
    numpy.ndarray, shape (curve, step)
    """
    position = np.arange(curves.shape[1])
    weights = _weights(curves.shape[1], widths)
    with np.errstate(invalid="ignore"):
        segments = (position >= split.first[:, None]).astype(int) + (
            position >= split.second[:, None]
        )
    fitted = np.empty(curves.shape)
    for number in range(3):
        inside = np.where(segments == number, weights, 0.0)
        total = (inside * curves).sum(axis=1) / np.maximum(inside.sum(axis=1), 1e-300)
        fitted = np.where(inside > 0, total[:, None], fitted)
    return fitted


def _weights(steps: int, widths: npt.ArrayLike | None) -> Floats:
    """Weights of the steps, one on average."""
    if widths is None:
        return np.ones(steps)
    weights = np.asarray(widths, np.float64)
    if weights.shape != (steps,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise InputError(f"widths {weights} found; expected {steps} positive numbers")
    scaled: Floats = weights / weights.mean()
    return scaled


def splits_of(widths: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every place at which the second and the third segment may begin.

    Parameters
    ----------
    widths : numpy.ndarray, shape (step,)
        Of the steps.
    """
    steps = widths.size
    begin, end = np.triu_indices(steps + 1, 1)
    usable = (begin > 0) & (end < steps)
    for first, last in (
        (np.zeros_like(begin), begin),
        (begin, end),
        (end, np.full_like(end, steps)),
    ):
        usable &= is_wide_enough(widths, first, last)
    return begin[usable], end[usable]


def _best(
    values: Floats,
    weights: Floats,
    begin: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
) -> tuple[Floats, Floats, Floats]:
    """Best of the given pairs for each curve."""
    mean = values @ weights / weights.sum()
    total = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum((values - mean[:, np.newaxis]) * weights, axis=1, out=total[:, 1:])
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    before, after = total[:, begin], total[:, end]
    left = before / edges[begin]
    right = (total[:, -1:] - after) / (edges[-1] - edges[end])
    middle = (after - before) / (edges[end] - edges[begin])
    gain = (
        left**2 * edges[begin]
        + middle**2 * (edges[end] - edges[begin])
        + right**2 * (edges[-1] - edges[end])
    )
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
