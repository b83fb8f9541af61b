"""Energy of what was recorded, run by run: what hardly differs between runs shows a small drift.

The size of a network's noise prediction is nearly the same in every run at a noise level, where its
changes differ by a factor. So a model or sampler whose amplitude is off by a tenth is told at once
by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.source import Source

Floats = npt.NDArray[np.float64]


def run_energies(
    source: Source, grid: Sequence[float], *, only: npt.NDArray[np.bool_] | None = None
) -> dict[str, Floats]:
    """Log root mean square of eps and x0 of each run, at the levels of a grid.

    Parameters
    ----------
    source : Source
    grid : sequence of float
        Log-SNR, rising; between steps it is interpolated.
    only : array of bool, shape (run,), optional
        Runs wanted.

    Returns
    -------
    dict of str to array, shape (run, level)
        Of those that were recorded; minus infinity where all is zero.
    """
    names = [name for name in ("eps", "x0") if name in source.dataset]
    levels = np.asarray(source.log_snr, np.float64)
    inside = np.flatnonzero(np.isfinite(levels))
    before = inside[levels[inside] <= grid[0]]
    after = inside[levels[inside] >= grid[-1]]
    first = int(before[-1]) if before.size else int(inside[0])
    last = int(after[0]) if after.size else int(inside[-1])
    at = levels[first : last + 1]
    found: dict[str, list[Floats]] = {name: [] for name in names}
    for batch in source.batches(names, steps=(first, last), only=only):
        for name, values in batch.arrays.items():
            squares = np.stack(
                [
                    np.square(values[:, step], dtype=np.float32).mean(axis=(1, 2, 3), dtype=float)
                    for step in range(values.shape[1])
                ],
                axis=1,
            )
            squares = squares.reshape(-1, batch.frames, squares.shape[1]).mean(axis=1)
            with np.errstate(divide="ignore"):
                logs = 0.5 * np.log(squares)
            found[name].append(np.stack([np.interp(grid, at, row) for row in logs]))
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def mean_shift(shipped: Mapping[str, Any], values: Floats, width: float) -> tuple[float, float]:
    """Difference of means between shipped counts and new values, and Welch's p-value.

    Parameters
    ----------
    shipped : mapping
        Sparse counts.
    values : array, shape (run,)
    width : float
        Of the bins.

    Returns
    -------
    shift : float
    p_value : float
        1 where there are fewer than two of either, or nothing differs.
    """
    from scipy import stats

    counts = np.asarray(shipped["counts"], np.float64)
    centres = (np.asarray(shipped["bins"], np.float64) + 0.5) * width
    new = values[np.isfinite(values)]
    if counts.sum() < 2 or new.size < 2:
        return 0.0, 1.0
    mean = float(centres @ counts / counts.sum())
    # bins add a spread of their own, without which two sharp values would differ beyond doubt
    spread = float((centres - mean) ** 2 @ counts / (counts.sum() - 1)) + width**2 / 12
    result = stats.ttest_ind_from_stats(
        *(float(new.mean()), float(np.sqrt(new.var(ddof=1) + width**2 / 12)), new.size),
        *(mean, np.sqrt(spread), counts.sum()),
        equal_var=False,
    )
    return float(new.mean()) - mean, float(result.pvalue)
