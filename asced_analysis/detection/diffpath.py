"""DiffPath (arXiv:2405.11881): six numbers a run, of eps and of its rate of change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.detection.run_scores import mask_of_runs, wide
from asced_analysis.detection.variant import Sampler, Variant, nested, raw_numbers, table
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.thresholds.document import Thresholds

NUMBERS = 6


@dataclass(frozen=True)
class Parameters:
    """DiffPath has no parameters: its distance from the population has no direction."""


def run_numbers(eps: Any, /) -> Any:
    """The six numbers: means over steps and pixels of powers of eps and of d eps / dt.

    Parameters
    ----------
    eps : array, shape (..., step, channel, y, x)
        The window's steps; time runs from 0 to 1 over them.

    Returns
    -------
    array, shape (..., 6)
    """
    xp = array_api_compat.array_namespace(eps)
    values = wide(eps)
    rate = (values[..., 1:, :, :, :] - values[..., :-1, :, :, :]) * (eps.shape[-4] - 1)
    axes = (-4, -3, -2, -1)
    return xp.stack([*_powers(xp, values, axes), *_powers(xp, rate, axes)], axis=-1)


def artifact_mask(eps: Any, location: Any, whitening: Any, *, level: float) -> Any:
    """Whole runs farther from the population than a level; shape (..., y, x).

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import diffpath
    >>> eps = np.random.default_rng(0).standard_normal((6, 1, 8, 8)).astype(np.float32)
    >>> diffpath.artifact_mask(eps, np.zeros(6), np.eye(6), level=1e9).any().item()
    False
    """
    return mask_of_runs(distance(run_numbers(eps), location, whitening) > level, eps.shape[-2:])


def distance(numbers: Any, location: Any, whitening: Any) -> Any:
    """Mahalanobis distance; shape (...) of (..., 6)."""
    xp = array_api_compat.array_namespace(numbers)
    device = array_api_compat.device(numbers)
    center = xp.asarray(np.asarray(location, dtype=np.float64), device=device)
    matrix = xp.asarray(np.asarray(whitening, dtype=np.float64), device=device)
    white = xp.matmul(xp.astype(numbers, xp.float64) - center, matrix.T)
    return xp.sqrt(xp.sum(white * white, axis=-1))


def _powers(xp: Any, values: Any, axes: tuple[int, ...]) -> list[Any]:
    """Means of the first three powers."""
    square = values * values
    return [xp.mean(part, axis=axes) for part in (values, square, square * values)]


@dataclass(frozen=True)
class State:
    """Running sums of the six numbers, and the last eps."""

    shape: tuple[int, int]
    steps: int = 0
    eps: Any = None
    levels: Any = None
    rates: Any = None


@dataclass(frozen=True)
class Stream:
    """Mahalanobis distance of the six numbers over a window, in constant memory.

    Attributes
    ----------
    location : ndarray, shape (6,)
    whitening : ndarray, shape (6, 6)
        Its product with the centred numbers has unit covariance in the population.
    first_step, last_step : int
        The window, both included.
    """

    location: np.ndarray[Any, np.dtype[np.float64]]
    whitening: np.ndarray[Any, np.dtype[np.float64]]
    first_step: int
    last_step: int

    def __post_init__(self) -> None:
        """Check that the window holds a difference."""
        if self.last_step <= self.first_step:
            raise InputError("DiffPath needs a window of at least two steps")

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
        levels = xp.stack(_powers(xp, values, (-3, -2, -1)), axis=-1)
        if state.eps is None:
            return State(state.shape, 1, values, levels, levels * 0)
        rate = (values - state.eps) * (self.last_step - self.first_step)
        rates = state.rates + xp.stack(_powers(xp, rate, (-3, -2, -1)), axis=-1)
        return State(state.shape, state.steps + 1, values, state.levels + levels, rates)

    def raw(self, state: State) -> Any:
        """The six numbers, shape (batch, 6)."""
        xp = array_api_compat.array_namespace(state.levels)
        return xp.concat(
            [state.levels / state.steps, state.rates / max(state.steps - 1, 1)], axis=-1
        )

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        score = distance(self.raw(state), self.location, self.whitening)
        flagged = score > level
        return mask_of_runs(flagged, state.shape), score, flagged


class _DiffPath(Variant):
    """Six numbers of a run against the population's."""

    name = "diffpath"
    summary = "DiffPath: six numbers of eps and its rate of change, by their distance (whole runs)."
    steps_held = 12
    points = False

    def reads(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Variant.reads`."""
        return ("eps",)

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> Stream:
        """Bind the window; see `Variant.stream`."""
        levels = thresholds.levels
        if levels.whitening is None:
            raise InputError("diffpath needs levels.whitening")
        center = table(levels.location).astype(np.float64)
        whitening = table(levels.whitening).astype(np.float64)
        if center.shape != (NUMBERS,) or whitening.shape != (NUMBERS,) * 2:
            raise InputError("diffpath needs six locations and a 6 x 6 whitening matrix")
        return Stream(center, whitening, *sampler.window(thresholds))

    def fit(
        self, thresholds: Thresholds, source: Source, fit: npt.NDArray[np.bool_]
    ) -> tuple[Thresholds, None]:
        """Mean, standard deviation and whitening of the population's six numbers."""
        unit = np.eye(NUMBERS)
        sampler = Sampler(source.alpha, source.sigma, source.log_snr)
        raw = Stream(np.zeros(NUMBERS), unit, *sampler.window(thresholds))
        values = raw_numbers(raw, source, fit)
        covariance = np.cov(values, rowvar=False) + 1e-12 * unit
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        return thresholds.with_levels(
            location=tuple(values.mean(axis=0).tolist()),
            scale=tuple(np.maximum(values.std(axis=0), 1e-12).tolist()),
            whitening=nested(whitening.tolist()),
        ), None


VARIANT = _DiffPath()
