"""Medians and lines of counted values: bins with a lower and an upper edge, and counts in them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]


def line_of(lower: Floats, upper: Floats, counts: Integers) -> tuple[Floats, Floats]:
    """Cumulative counts as a line over the values, straight inside a bin, level between bins."""
    total = np.cumsum(counts)
    values = np.stack([lower, upper], axis=-1).reshape(-1)
    below = np.stack([total - counts, total], axis=-1).reshape(-1).astype(np.float64)
    return values, below


def weighted_median(values: Floats, weights: Integers) -> float:
    """Median of values that occur `weights` times (the mean of the two middle ones)."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    middle = np.array([(cumulative[-1] - 1) // 2, cumulative[-1] // 2])
    chosen = values[order][np.searchsorted(cumulative, middle, side="right")]
    return float(chosen.mean())


def median_distances(
    lower: Floats, upper: Floats, counts: Integers, cumulative: Integers, centre: Floats
) -> Floats:
    """Median distance of each group from its centre (mass uniform inside a bin).

    All groups at once, four bits of the distance a turn.

    Parameters
    ----------
    lower, upper : numpy.ndarray, shape (key,)
        Edges of the bins, in order.
    counts, cumulative : numpy.ndarray, shape (group, key)
        Counts, and their sums up to and with each bin.
    centre : numpy.ndarray, shape (group,)

    Returns
    -------
    numpy.ndarray, shape (group,)
        NaN for a group without counts.
    """
    if not counts.size:
        return np.full(len(counts), np.nan)
    middle, width = centre[:, np.newaxis], upper - lower
    divisor = np.where(width > 0, width, 1.0)  # exact zeros have no width
    rows = np.arange(len(counts))[:, np.newaxis]

    def below(values: Floats) -> Floats:
        column = np.minimum(np.searchsorted(upper, values), len(upper) - 1)
        inside = np.where(
            width[column] > 0,
            np.clip((values - lower[column]) / divisor[column], 0, 1),
            values >= lower[column],
        )
        mass: Floats = cumulative[rows, column] - counts[rows, column] * (1 - inside)
        return mass

    total = cumulative[:, -1:]
    ends = [np.searchsorted(row[:-1], (1, row[-1])) for row in cumulative]
    first, last = np.transpose(ends)[:, :, np.newaxis]
    farthest = np.maximum(upper[last] - middle, middle - lower[first])
    part = np.linspace(0, 1, 17)

    def holding(wanted: Floats) -> Floats:
        low: Floats = np.zeros_like(middle)
        high: Floats = farthest
        for _ in range(15):
            distance = low + (high - low) * part
            mass = below(middle + distance) - below(middle - distance)
            place = (mass >= wanted).argmax(axis=1).clip(1)[:, np.newaxis]
            low, high = distance[rows, place - 1], distance[rows, place]
        return high

    # Of an even number the two middle ones: among few values they lie far apart.
    apart = (total % 2 == 0) / 2
    found = (holding(total / 2 - apart) + holding(total / 2 + apart)) / 2
    return np.where(total > 0, found, np.nan)[:, 0]
