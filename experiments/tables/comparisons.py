"""Paired tests of many rows at once, corrected for their number by Holm's method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def paired_p(differences: ArrayLike) -> float:
    """Two-sided p of the paired t test that the mean difference is zero; NaN of fewer than two."""
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0:
        return float(values[0] == 0)
    return float(stats.ttest_1samp(values, 0).pvalue)


def interval_p(estimate: Mapping[str, Any]) -> float:
    """Two-sided p that a 95 % bootstrap interval stands for, its resamples taken as normal.

    For figures of whole sets, of which no run has a value (BMJ 2011, 343, d2304).

    Parameters
    ----------
    estimate : mapping
        `value`, `low` and `high`; NaN where one is missing.
    """
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return float("nan")
    if high == low:
        return float(value == 0)
    return float(2 * stats.norm.sf(abs(value) / ((high - low) / (2 * stats.norm.ppf(0.975)))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values by Holm's step-down method: they hold whatever the dependence."""
    values: NDArray[np.float64] = np.nan_to_num(np.asarray(p_values, np.float64), nan=1.0)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    out = np.empty(len(values))
    out[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in out]


def note_adjusted(tests: Sequence[tuple[dict[str, Any], str, float]]) -> int:
    """Write each test's adjusted p into its row, under its key.

    Parameters
    ----------
    tests : sequence of (dict, str, float)
        Row, key and p of every test of one table.

    Returns
    -------
    int
        How many tests were corrected for.
    """
    for (row, key, _), value in zip(tests, holm([p for _, _, p in tests]), strict=True):
        row[key] = value
    return len(tests)


def note_changes(rows: Mapping[str, dict[str, Any]]) -> int:
    """Write into every row the p of the paired t test of its `changes`, adjusted for all rows."""
    return note_adjusted([(row, "p", paired_p(row["changes"])) for row in rows.values()])


def note_intervals(estimates: Sequence[dict[str, Any]]) -> int:
    """Write into every estimate the p that its interval stands for, adjusted for all of them."""
    return note_adjusted([(one, "p", interval_p(one)) for one in estimates])
