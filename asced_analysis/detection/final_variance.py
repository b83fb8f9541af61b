"""Variance of the latest predicted x0 over its pixels: how much contrast a run ends up with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import array_api_compat

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection.row_means import pixel_mean, row_means
from asced_analysis.detection.run_scores import (
    Parameters,
    RunStream,
    RunVariant,
    State,
    mask_of_runs,
)

__all__ = ["Parameters", "Stream", "artifact_mask", "run_score"]


def run_score(x0: Any, /) -> Any:
    """Variance over channel, y and x of the last step; shape (...) of (..., step, c, y, x)."""
    return _variance(x0[..., -1, :, :, :])


def artifact_mask(x0: Any, *, level: float) -> Any:
    """Whole runs whose final variance exceeds a level; shape (..., y, x).

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import final_variance
    >>> final_variance.artifact_mask(np.zeros((6, 1, 8, 8), np.float32), level=0.1).any().item()
    False
    """
    return mask_of_runs(run_score(x0) > level, x0.shape[-2:])


def _variance(values: Any) -> Any:
    """Variance over the last three axes: the mean of the rows' own, and that of their means."""
    means, within = row_means(_of_rows, values)
    return pixel_mean(within) + array_api_compat.array_namespace(means).var(means, axis=(-2, -1))


def _of_rows(part: Any) -> tuple[Any, Any]:
    """Values, and their squared distances from their row's mean."""
    xp = array_api_compat.array_namespace(part)
    away = part - xp.mean(part, axis=-1, keepdims=True)
    return part, away * away


@dataclass(frozen=True)
class Stream(RunStream):
    """Run score at the window's last step; see `RunStream`."""

    def add(self, state: State, step: int, value: Any) -> Any:
        """Replace the variance by the latest."""
        return _variance(value)

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        return state.kept


class _FinalVariance(RunVariant):
    """See the module."""

    name = "final_variance"
    summary = "Variance of the window's last predicted x0 (whole runs)."
    steps_held = STEPS_HELD
    stream_type = Stream


VARIANT = _FinalVariance()
