"""Norm of the score: root mean square of ``eps / sigma``, averaged over the window's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat

from asced_analysis.detection.run_scores import Parameters, standardise, whole_runs, wide

__all__ = ["Parameters", "Stream", "artifact_mask", "run_score"]


def run_score(score: Any, /) -> Any:
    """Root mean square of each step, averaged over steps; shape (...) of (..., step, c, y, x)."""
    xp = array_api_compat.array_namespace(score)
    values = wide(score)
    return xp.mean(xp.sqrt(xp.mean(values * values, axis=(-3, -2, -1))), axis=-1)


def artifact_mask(score: Any, /, *, level: float) -> Any:
    """Whole runs whose score norm exceeds a level; shape (..., y, x)."""
    xp = array_api_compat.array_namespace(score)
    flagged = run_score(score) > level
    return xp.asarray(
        xp.broadcast_to(flagged[..., None, None], (*flagged.shape, *score.shape[-2:])), copy=True
    )


@dataclass(frozen=True)
class State:
    """Sum over steps so far."""

    shape: tuple[int, int]
    steps: int = 0
    total: Any = None


@dataclass(frozen=True)
class Stream:
    """Run score over a window, in constant memory.

    Attributes
    ----------
    parameters : Parameters
    location, scale : float
        The population's, of the run score.
    sigma : tuple of float
        Noise level by step.
    first_step, last_step : int
        The window, both included.
    """

    parameters: Parameters
    location: float
    scale: float
    sigma: tuple[float, ...]
    first_step: int
    last_step: int

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return ("eps",)

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        return State((int(shape[-2]), int(shape[-1])))

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        if not self.first_step <= step <= self.last_step:
            return state
        xp = array_api_compat.array_namespace(eps)
        values = wide(eps)
        norm = xp.sqrt(xp.mean(values * values, axis=(-3, -2, -1))) / self.sigma[step]
        total = norm if state.total is None else state.total + norm
        return State(state.shape, state.steps + 1, total)

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        return state.total / max(state.steps, 1)

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        score = standardise(self.raw(state), self.location, self.scale, self.parameters.direction)
        return whole_runs(score, level, state.shape)
