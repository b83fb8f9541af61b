"""Where runs hold NaN or infinity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.format.steps_on_disk import StepsOnDisk


class Faults:
    """Where runs hold NaN or infinity, and how many values were beyond their precision.

    Parameters
    ----------
    runs : int

    Attributes
    ----------
    overflows : ndarray, shape (run,), int64
        Infinite values of eps and x0: in float16, whatever lies beyond 65,504.
    first : ndarray, shape (run,), int64
        First step with NaN or infinity; -1 where there is none.
    """

    def __init__(self, runs: int) -> None:
        self.overflows = np.zeros(runs, np.int64)
        self.first = np.full(runs, -1, np.int64)

    def look(self, array: NDArray[Any] | StepsOnDisk, whole: NDArray[np.bool_]) -> None:
        """Look through the runs of a variable, shape (run, step, ...), that are not finite."""
        for run in np.flatnonzero(~whole).tolist():
            for step in range(array.shape[1]):
                values = _steps(array, run, slice(step, step + 1))
                if not np.isfinite(values).all():
                    if self.first[run] < 0:
                        self.first[run] = step
                    self.overflows[run] += int(np.isinf(values).sum())

    def join(self, other: Faults) -> None:
        """Add what was found in another variable."""
        self.overflows += other.overflows
        both = np.stack([self.first, other.first])
        earliest = np.where(both < 0, np.iinfo(np.int64).max, both).min(0)
        self.first = np.where((both < 0).all(0), -1, earliest)


def finite_runs(array: NDArray[Any] | StepsOnDisk) -> NDArray[np.bool_]:
    """Which runs have no element that is NaN or infinite."""
    if not isinstance(array, StepsOnDisk):
        return np.array([all_finite(run) for run in array])
    whole = np.ones(len(array), np.bool_)
    for run, _, values in array.blocks():
        whole[run] &= all_finite(values)
    return whole


def all_finite(array: NDArray[Any]) -> bool:
    """Whether no element is NaN or infinite; float16 at memory speed, by its bit patterns."""
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    # Positive infinity and NaN are the largest as signed integers, negative ones as unsigned.
    return bool(array.view(np.int16).max() < 0x7C00 and array.view(np.uint16).max() < 0xFC00)


def _steps(array: NDArray[Any] | StepsOnDisk, run: int, steps: slice) -> NDArray[Any]:
    return array.read(run, steps) if isinstance(array, StepsOnDisk) else array[run, steps]
