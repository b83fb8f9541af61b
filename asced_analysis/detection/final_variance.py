"""Variance of the latest predicted x0 over its pixels: how much contrast a run ends up with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat

from asced_analysis.detection.run_scores import Parameters, standardise, whole_runs, wide

__all__ = ["Parameters", "Stream", "artifact_mask", "run_score"]


def run_score(x0: Any, /) -> Any:
    """Variance over channel, y and x of the last step; shape (...) of (..., step, c, y, x)."""
    xp = array_api_compat.array_namespace(x0)
    return xp.var(wide(x0[..., -1, :, :, :]), axis=(-3, -2, -1))


def artifact_mask(x0: Any, /, *, level: float) -> Any:
    """Whole runs whose final variance exceeds a level; shape (..., y, x)."""
    xp = array_api_compat.array_namespace(x0)
    flagged = run_score(x0) > level
    return xp.asarray(
        xp.broadcast_to(flagged[..., None, None], (*flagged.shape, *x0.shape[-2:])), copy=True
    )


@dataclass(frozen=True)
class State:
    """The latest run score."""

    shape: tuple[int, int]
    value: Any = None


@dataclass(frozen=True)
class Stream:
    """Run score at the window's last step.

    Attributes
    ----------
    parameters : Parameters
    location, scale : float
        The population's, of the run score.
    first_step, last_step : int
        The window, both included.
    """

    parameters: Parameters
    location: float
    scale: float
    first_step: int
    last_step: int

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return ("x0",)

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        return State((int(shape[-2]), int(shape[-1])))

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        if not self.first_step <= step <= self.last_step:
            return state
        xp = array_api_compat.array_namespace(x0)
        return State(state.shape, run_score(xp.expand_dims(x0, axis=-4)))

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        return state.value

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        score = standardise(self.raw(state), self.location, self.scale, self.parameters.direction)
        return whole_runs(score, level, state.shape)
