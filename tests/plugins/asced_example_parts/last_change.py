"""A variant: root mean square of the last change of predicted x0 inside the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from asced_analysis.detection.run_scores import RunStream, RunVariant, State


@dataclass(frozen=True)
class Stream(RunStream):
    """Keeps the last predicted x0 and the size of its last change."""

    variable: ClassVar[Any] = "x0"

    def add(self, state: State, step: int, value: Any) -> Any:
        """The new predicted x0, and by how much it differs from the one before."""
        before = value if state.kept is None else state.kept[0]
        change = (value - before) ** 2
        return value, change.mean((-3, -2, -1)) ** 0.5

    def raw(self, state: State) -> Any:
        """Size of the last change, shape (batch,)."""
        return state.kept[1]


class LastChange(RunVariant):
    """See the module."""

    name = "last_change"
    summary = "Size of the last change of predicted x0 in the window (whole runs; an example)."
    stream_type = Stream


def artifact_mask(x0: Any, *, level: float, shape: Sequence[int] = ()) -> Any:
    """Whole runs whose last change exceeds a level; shape (...) of (..., step, channel, y, x)."""
    change = (x0[..., -1, :, :, :] - x0[..., -2, :, :, :]) ** 2
    return change.mean((-3, -2, -1)) ** 0.5 > level


VARIANT = LastChange()
