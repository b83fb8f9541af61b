"""Trajectory variance (arXiv:2406.09358): variance of predicted x0 over the window's steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import array_api_compat

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection.feeding import feed_bands
from asced_analysis.detection.row_means import pixel_mean, rows_at_once, wide
from asced_analysis.detection.run_scores import Parameters, RunStream, RunVariant, State

__all__ = ["Parameters", "Stream", "artifact_mask", "run_score", "variance_map"]


def variance_map(x0: Any, /) -> Any:
    """Variance over steps, mean over channels.

    Parameters
    ----------
    x0 : array, shape (..., step, channel, y, x)

    Returns
    -------
    array, shape (..., y, x)
    """
    xp = array_api_compat.array_namespace(x0)
    return xp.mean(xp.var(wide(x0), axis=-4), axis=-3)


def run_score(x0: Any, /) -> Any:
    """Trajectory variance averaged over pixels; shape (...) of (..., step, channel, y, x)."""
    xp = array_api_compat.array_namespace(x0)
    return xp.mean(variance_map(x0), axis=(-2, -1))


def artifact_mask(x0: Any, *, level: float) -> Any:
    """Pixels whose trajectory variance exceeds a level; shape (..., y, x).

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import trajectory_variance
    >>> x0 = np.zeros((6, 1, 8, 8), np.float32)
    >>> x0[::2, :, 2, 2] = 1
    >>> trajectory_variance.artifact_mask(x0, level=0.1).sum().item()
    1
    """
    return variance_map(x0) > level


@dataclass(frozen=True)
class Stream(RunStream):
    """Run score over a window; see `RunStream`. Keeps Welford's mean and sum of squares."""

    def add(self, state: State, step: int, value: Any) -> Any:
        """Running mean and sum of squared deviations."""
        value = wide(value)
        if state.kept is None:
            return value, value * 0
        mean, squares = state.kept
        change = value - mean
        mean = mean + change / (state.steps + 1)
        return mean, squares + change * (value - mean)

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        return pixel_mean(self._rows(state)) / max(state.steps, 1)

    def by_bands(self, arrays: Mapping[str, Any], first_step: int) -> State:
        """State after all steps of a large image: of its squares, only the means of rows."""
        *_, channels, height, width = arrays["x0"].shape
        begun = self.start((height, width))
        high = rows_at_once(channels * width)
        parts, steps = [], 0
        for state in feed_bands(arrays, first_step, high, lambda: begun, self.update):
            parts.append(self._rows(state)[..., None])
            steps = state.steps
        xp = array_api_compat.array_namespace(parts[0])
        return State(begun.shape, steps, (None, xp.concat(parts, axis=-2)))

    def _rows(self, state: State) -> Any:
        """Mean square of each row, times the steps; shape (batch, channel, y)."""
        squares = state.kept[1]
        return array_api_compat.array_namespace(squares).mean(squares, axis=-1)


class _TrajectoryVariance(RunVariant):
    """See the module."""

    name = "trajectory_variance"
    summary = "Variance of predicted x0 over the window's steps (arXiv 2406.09358; whole runs)."
    steps_held = STEPS_HELD
    stream_type = Stream


VARIANT = _TrajectoryVariance()
