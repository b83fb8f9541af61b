"""Norm of the score: root mean square of ``eps / sigma``, averaged over the window's steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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


def run_score(score: Any, /) -> Any:
    """Root mean square of each step, averaged over steps; shape (...) of (..., step, c, y, x)."""
    norms = _norm(score)
    return array_api_compat.array_namespace(norms).mean(norms, axis=-1)


def artifact_mask(score: Any, *, level: float) -> Any:
    """Whole runs whose score norm exceeds a level; shape (..., y, x).

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import score_norm
    >>> score_norm.artifact_mask(np.ones((6, 1, 8, 8), np.float32), level=0.5).all().item()
    True
    """
    return mask_of_runs(run_score(score) > level, score.shape[-2:])


def _norm(values: Any) -> Any:
    """Root mean square over the last three axes."""
    (squares,) = row_means(lambda part: (part * part,), values)
    return array_api_compat.array_namespace(squares).sqrt(pixel_mean(squares))


@dataclass(frozen=True)
class Stream(RunStream):
    """Run score over a window; see `RunStream`."""

    variable: ClassVar[Literal["eps", "x0"]] = "eps"

    def add(self, state: State, step: int, value: Any) -> Any:
        """Sum of the steps' norms."""
        norm = _norm(value) / self.sampler.sigma[step]
        return norm if state.kept is None else state.kept + norm

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        return state.kept / max(state.steps, 1)


class _ScoreNorm(RunVariant):
    """See the module."""

    name = "score_norm"
    summary = "Norm of the score, averaged over the window's steps (whole runs)."
    steps_held = STEPS_HELD
    stream_type = Stream


VARIANT = _ScoreNorm()
