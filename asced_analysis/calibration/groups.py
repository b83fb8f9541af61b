"""Group-conditional levels: each group large enough has a level of its own (Mondrian conformal)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.splits import total_runs
from asced_analysis.thresholds.conformal import conformal_level, runs_needed
from asced_stores.errors import InputError

UNKNOWN = ("-1", "", "nan", "None")
"""What the coordinates of runs that belong to no group are written as."""


class SmallGroupWarning(UserWarning):
    """Some groups have too few runs for a level of their own."""


def group_levels(
    scores: npt.ArrayLike,
    groups: Sequence[Any],
    rate: float,
    *,
    confidence: float | None = None,
    runs: int | None = None,
) -> dict[str, float]:
    """Level of every group that has enough calibration runs.

    Parameters
    ----------
    scores : array, shape (n,)
    groups : sequence, length n
        Group of each run.
    rate, confidence
        See `asced_analysis.thresholds.conformal.order_statistic`.
    runs : int, optional
        Recorded in all, of which these calibrate; by default these.

    Returns
    -------
    dict of str to float
        Groups that are too small are left to the pooled level, with a `SmallGroupWarning` that
        names them.
    """
    values = np.asarray(scores, dtype=np.float64)
    names = np.asarray([str(group) for group in groups])
    needed = runs_needed(rate, confidence=confidence)
    levels: dict[str, float] = {}
    small = {}
    for name in np.unique(names[~np.isin(names, UNKNOWN)]):
        own = values[names == name]
        level = conformal_level(own, rate, confidence=confidence)[0] if own.size >= needed else None
        if level is None or not np.isfinite(level):
            small[str(name)] = own.size
        else:
            levels[str(name)] = float(level)
    if unknown := int(np.isin(names, UNKNOWN).sum()):
        warnings.warn(
            f"{unknown} of {names.size} calibration runs belong to no group; such runs use the "
            "pooled level",
            SmallGroupWarning,
            stacklevel=2,
        )
    if not levels and not small:
        raise InputError("no run says which group it is of; leave groups out for one level")
    found = ", ".join(f"{name} ({size})" for name, size in list(small.items())[:10])
    recorded = names.size if runs is None else runs
    if not levels:
        most = total_runs(recorded, max(small.values()), needed)
        raise InputError(
            f"no group has the {needed} runs to calibrate on that a rate of {rate:g} needs (of "
            f"these {recorded} runs: {found}): record some {most} runs in all, or leave groups out "
            "for one level"
        )
    if small:
        most = total_runs(recorded, min(small.values()), needed)
        warnings.warn(
            f"groups with fewer than the {needed} runs to calibrate on that a rate of {rate:g} "
            f"needs use the pooled level: {found}{' ...' if len(small) > 10 else ''}; some {most} "
            "runs in all would give each its own",
            SmallGroupWarning,
            stacklevel=2,
        )
    return levels
