"""What the baselines share: one number a run, standardised against the population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.detection.variant import Sampler, Variant, raw_numbers, table
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.thresholds.document import Thresholds

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


@dataclass(frozen=True)
class RunStream:
    """A baseline over a window, in constant memory: subclasses say what a step adds.

    Attributes
    ----------
    parameters : Parameters
    location, scale : float
        The population's, of the run score.
    first_step, last_step : int
        The window, both included.
    sampler : Sampler
    """

    variable: ClassVar[Literal["eps", "x0"]] = "x0"

    parameters: Any
    location: float
    scale: float
    first_step: int
    last_step: int
    sampler: Sampler

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return (self.variable,)

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        return State((int(shape[-2]), int(shape[-1])))

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        if not self.first_step <= step <= self.last_step:
            return state
        value = x0 if self.variable == "x0" else eps
        return State(state.shape, state.steps + 1, self.add(state, step, value))

    def add(self, state: State, step: int, value: Any) -> Any:
        """What is kept after one more step, of ``state.kept`` (None before the first).

        `value` is as it was recorded or rounded, not widened.
        """
        raise NotImplementedError

    def raw(self, state: State) -> Any:
        """The run score before standardising, shape (batch,)."""
        raise NotImplementedError

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        score = standardise(self.raw(state), self.location, self.scale, self.parameters.direction)
        flagged = score > level
        return mask_of_runs(flagged, state.shape), score, flagged


@dataclass(frozen=True)
class State:
    """Image shape, steps seen, and what a baseline keeps of them."""

    shape: tuple[int, int]
    steps: int = 0
    kept: Any = None


def standardise(value: Any, location: float, scale: float, direction: Direction) -> Any:
    """A run's number in robust units of the population, larger for more suspicious."""
    robust = (value - location) / scale
    if direction == "high":
        return robust
    return -robust if direction == "low" else abs(robust)


def mask_of_runs(flagged: Any, shape: Sequence[int]) -> Any:
    """Whole images where only whole runs can be flagged; shape (..., y, x) of (...)."""
    xp = array_api_compat.array_namespace(flagged)
    mask = xp.broadcast_to(flagged[..., None, None], (*flagged.shape, *shape))
    return xp.asarray(mask, copy=True)


class RunVariant(Variant):
    """A baseline of one number a run; subclasses name it and its stream."""

    points = False
    parameters_type: ClassVar[type[Any]] = Parameters
    stream_type: ClassVar[type[RunStream]]

    def reads(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Variant.reads`."""
        return (self.stream_type.variable,)

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> RunStream:
        """Bind the window; see `Variant.stream`."""
        location, scale = table(thresholds.levels.location), table(thresholds.levels.scale)
        if location.shape != (1,) or scale.shape != (1,):
            raise InputError(f"{self.name} needs one location and one scale")
        return self.stream_type(
            self.parameters_type(**thresholds.parameters),
            float(location[0]),
            float(scale[0]),
            *sampler.window(thresholds),
            sampler,
        )

    def fit(
        self, thresholds: Thresholds, source: Source, fit: npt.NDArray[np.bool_]
    ) -> tuple[Thresholds, None]:
        """Median and 1.4826 MAD of the population's numbers."""
        sampler = Sampler(source.alpha, source.sigma, source.log_snr)
        values = raw_numbers(self.stream(thresholds, (1, 1, 1, 1), sampler), source, fit)
        return with_spread(thresholds, values), None


def with_spread(thresholds: Thresholds, scores: npt.NDArray[np.floating[Any]]) -> Thresholds:
    """Thresholds with location and scale of scores: median and 1.4826 MAD."""
    location = float(np.median(scores))
    scale = 1.4826 * float(np.median(np.abs(scores - location)))
    return thresholds.with_levels(location=(location,), scale=(max(scale, 1e-12),))
