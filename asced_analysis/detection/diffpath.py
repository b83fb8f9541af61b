"""DiffPath (arXiv:2405.11881): six numbers a run, of eps and of its rate of change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection.row_means import pixel_mean, row_means, wide
from asced_analysis.detection.run_scores import mask_of_runs
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
    powers = (*_powers(values), *_powers(rate))
    return xp.stack([xp.mean(part, axis=(-4, -3, -2, -1)) for part in powers], axis=-1)


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


def _powers(values: Any) -> tuple[Any, Any, Any]:
    """The first three powers."""
    square = values * values
    return values, square, square * values


def _means(function: Callable[..., tuple[Any, ...]], *images: Any) -> Any:
    """Means over pixels of the first three powers, shape (batch, 3)."""
    rows = row_means(function, *images)
    xp = array_api_compat.array_namespace(rows[0])
    return xp.stack([pixel_mean(one) for one in rows], axis=-1)


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
        levels = _means(_powers, eps)
        if state.eps is None:
            return State(state.shape, 1, eps, levels, levels * 0)
        steps = self.last_step - self.first_step
        rates = _means(lambda now, last: _powers((now - last) * steps), eps, state.eps)
        return State(state.shape, state.steps + 1, eps, state.levels + levels, state.rates + rates)

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
    steps_held = STEPS_HELD
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
