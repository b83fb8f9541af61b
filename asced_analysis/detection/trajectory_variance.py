"""Trajectory variance (arXiv:2406.09358): variance of predicted x0 over the window's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat

from asced_analysis.detection.run_scores import Parameters, standardise, whole_runs, wide

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


def artifact_mask(x0: Any, /, *, level: float) -> Any:
    """Pixels whose trajectory variance exceeds a level; shape (..., y, x)."""
    return variance_map(x0) > level


@dataclass(frozen=True)
class State:
    """Welford's running mean and sum of squared deviations."""

    shape: tuple[int, int]
    steps: int = 0
    mean: Any = None
    squares: Any = None


@dataclass(frozen=True)
class Stream:
    """Run score over a window, in constant memory.

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
        value, steps = wide(x0), state.steps + 1
        if state.mean is None:
            return State(state.shape, 1, value, value * 0)
        change = value - state.mean
        mean = state.mean + change / steps
        return State(state.shape, steps, mean, state.squares + change * (value - mean))

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        xp = array_api_compat.array_namespace(state.squares)
        return xp.mean(state.squares / max(state.steps, 1), axis=(-3, -2, -1))

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        score = standardise(self.raw(state), self.location, self.scale, self.parameters.direction)
        return whole_runs(score, level, state.shape)
