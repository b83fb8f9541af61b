"""What the baselines share: one number a run, standardised against the population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import array_api_compat

from asced_stores.errors import InputError

Direction = Literal["high", "low", "both"]


@dataclass(frozen=True)
class Parameters:
    """Parameters of a run-level baseline.

    Attributes
    ----------
    direction : str
        `high`, `low`, or `both` where the sign isn't known beforehand: it inverts between data
        sets, so `both` is the default.
    """

    direction: Direction = "both"

    def __post_init__(self) -> None:
        """Check the name."""
        if self.direction not in ("high", "low", "both"):
            raise InputError(f"direction {self.direction!r} must be high, low or both")


def standardise(value: Any, location: float, scale: float, direction: Direction) -> Any:
    """A run's number in robust units of the population, larger for more suspicious."""
    robust = (value - location) / scale
    if direction == "high":
        return robust
    return -robust if direction == "low" else abs(robust)


def whole_runs(score: Any, level: float, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Mask, score and flag where only whole runs can be flagged: their mask is the whole image."""
    xp = array_api_compat.array_namespace(score)
    flagged = score > level
    mask = xp.broadcast_to(flagged[:, None, None], (flagged.shape[0], *shape))
    return xp.asarray(mask, copy=True), score, flagged


def wide(values: Any) -> Any:
    """At least float32."""
    xp = array_api_compat.array_namespace(values)
    return values if values.dtype in (xp.float32, xp.float64) else xp.astype(values, xp.float32)
