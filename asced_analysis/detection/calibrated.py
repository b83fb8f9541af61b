"""Dynamics standardised against a population on the log-SNR grid, in constant memory.

Per grid cell, the size of the signal's change is pooled to a small map, its logarithm compared with
the population's location and scale, and combined over the window. The level comes from calibration;
the clean-up (an opening) is nested in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection.calibrated_steps import ALGORITHM
from asced_analysis.detection.change_maps import (
    Parameters,
    Settings,
    enlarge,
    log_change,
    map_shape,
)
from asced_analysis.detection.log_snr_grid import (
    GridSignal,
    GridState,
    made_of,
    make_grid,
)
from asced_analysis.detection.opening import grey_opening
from asced_analysis.detection.population import fit_population, sizes_by_bands
from asced_analysis.detection.variant import Sampler, Variant, nested, table
from asced_analysis.thresholds.parts import Cleanup
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.thresholds.document import Thresholds

UNSEEN = -1e4


@dataclass(frozen=True)
class State:
    """What the detector keeps between steps."""

    grid: GridState
    shape: tuple[int, int]
    combined: Any = None
    latest: Any = None
    cells: int = 0


@dataclass(frozen=True)
class Stream:
    """The detector for one sampler: constant memory over steps.

    Attributes
    ----------
    parameters : Parameters
    signal : GridSignal
        Grid and sampler.
    location, scale : ndarray, float32, shape (cell, 1, 1) or (cell, y, x)
        Of the population's log change.
    """

    parameters: Parameters
    signal: GridSignal
    location: np.ndarray[Any, np.dtype[np.float32]]
    scale: np.ndarray[Any, np.dtype[np.float32]]

    @property
    def first_step(self) -> int:
        """First step that is looked at."""
        return self.signal.first_step

    @property
    def last_step(self) -> int:
        """Step after which the window is complete."""
        return self.signal.last_step

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return self.signal.needs()

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        height, width = shape[-2:]
        return State(GridState(), (int(height), int(width)))

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        grid, cells = self.signal.advance(state.grid, step, eps=eps, x0=x0)
        state = replace(state, grid=grid)
        for cell, change in cells:
            size = log_change(change, self.parameters, contrast_of=grid.signal)
            state = self._combine(state, self.standardise(cell, size))
        return state

    def by_bands(self, arrays: Mapping[str, Any], first_step: int) -> State:
        """State after all steps of a large image, which is read by bands of its rows."""
        state = self.start(next(iter(arrays.values())).shape)
        sizes = sizes_by_bands(arrays, first_step, self.signal, self.parameters)
        for cell, size in sizes.items():
            state = self._combine(state, self.standardise(cell, size))
        return state

    def standardise(self, cell: int, size: Any) -> Any:
        """Robust units of the population in one grid cell."""
        location, scale = self.location[cell], self.scale[cell]
        if location.size == 1:
            robust = (size - float(location.flat[0])) * (1 / float(scale.flat[0]))
        else:
            xp = array_api_compat.array_namespace(size)
            device = array_api_compat.device(size)
            if location.shape != tuple(size.shape[-2:]):
                raise InputError(
                    f"thresholds by position are for maps of {location.shape}, these samples give "
                    f"{tuple(size.shape[-2:])}"
                )
            robust = (size - xp.asarray(location, device=device)) / xp.asarray(scale, device=device)
        if self.parameters.direction == "high":
            return robust
        return -robust if self.parameters.direction == "low" else abs(robust)

    def statistic(self, state: State) -> Any:
        """Opened map over the window so far, shape (batch, map y, map x), or None before any."""
        if state.combined is None:
            return None
        combined = state.combined
        if self.parameters.combine == "mean":
            combined = combined / state.cells
        return grey_opening(combined, self.parameters.min_width)

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        statistic = self.statistic(state)
        if statistic is None:
            raise InputError("no grid cell is complete yet; feed steps up to last_step first")
        xp = array_api_compat.array_namespace(statistic)
        score = xp.max(statistic, axis=(-2, -1))
        return enlarge(statistic > level, *state.shape), score, score > level

    def _combine(self, state: State, robust: Any) -> State:
        """Combine one cell with those before it."""
        xp = array_api_compat.array_namespace(robust)
        if self.parameters.combine == "mean":
            combined = robust if state.combined is None else state.combined + robust
        elif self.parameters.combine == "peak":
            combined = robust if state.combined is None else xp.maximum(state.combined, robust)
        elif state.latest is None:
            combined = xp.full_like(robust, UNSEEN)
        else:
            combined = xp.maximum(state.combined, xp.minimum(state.latest, robust))
        latest = robust if self.parameters.combine == "persistent" else None
        return replace(state, combined=combined, latest=latest, cells=state.cells + 1)


def artifact_mask(
    change: Any,
    location: Any,
    scale: Any,
    *,
    level: float,
    parameters: Parameters | None = None,
) -> Any:
    """Mask of changes that are already given on a grid.

    Parameters
    ----------
    change : array, shape (..., cell, channel, y, x)
        Differences of the signal between adjacent grid points.
    location, scale : array, shape (cell,)
        The population's, of the logarithm of the change.
    level : float
        In robust units.
    parameters : Parameters, optional

    Returns
    -------
    array, bool, shape (..., y, x)

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import calibrated
    >>> change = np.full((4, 1, 16, 16), 0.1, np.float32)  # by grid cell
    >>> change[:, :, 4:10, 4:10] = 2
    >>> mask = calibrated.artifact_mask(change, np.full(4, -2.3), np.ones(4), level=1.0)
    >>> mask[7, 7].item(), mask[0, 15].item()
    (True, False)
    """
    parameters = parameters or Parameters()
    if change.ndim < 4:
        raise InputError(
            f"change has shape {tuple(change.shape)}; expected (..., cell, channel, y, x)"
        )
    xp = array_api_compat.array_namespace(change)
    shape = tuple(change.shape)
    flat = xp.reshape(change, (prod(shape[:-4]), *shape[-4:]))
    cells = shape[-4]
    axis = tuple(float(cell) for cell in range(cells + 1))
    stream = Stream(
        parameters,
        GridSignal(parameters.signal, axis, axis, axis, axis),
        np.asarray(location, dtype=np.float32).reshape(cells, 1, 1),
        np.asarray(scale, dtype=np.float32).reshape(cells, 1, 1),
    )
    state = stream.start(shape)
    for cell in range(cells):
        size = log_change(flat[:, cell, ...], parameters)
        state = stream._combine(state, stream.standardise(cell, size))
    mask = enlarge(stream.statistic(state) > level, shape[-2], shape[-1])
    return xp.reshape(mask, (*shape[:-4], *shape[-2:]))


class _Calibrated(Variant):
    """See the module."""

    name = "calibrated"
    summary = "Dynamics standardised against the population by noise level and place."
    on_grid = True
    opened_maps = True
    parameters_type = Settings
    cleanup = Cleanup("opening", min_width=0.12)
    steps_held = STEPS_HELD
    algorithm = ALGORITHM

    def reads(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Variant.reads`."""
        return made_of(parameters["signal"])

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> Stream:
        """Bind the grid; see `Variant.stream`."""
        given, levels = thresholds.parameters, thresholds.levels
        rows, columns = map_shape(int(shape[-2]), int(shape[-1]), given["resolution"])
        width = thresholds.cleanup.pixels(rows, columns)[1]
        parameters = Parameters(**given, min_width=width)
        cells = len(levels.log_snr) - 1
        location, scale = table(levels.location), table(levels.scale)
        if (
            location.shape != scale.shape
            or location.shape[0] != cells
            or location.ndim not in (1, 3)
        ):
            raise InputError(
                f"location {location.shape} and scale {scale.shape} don't fit {cells} grid cells"
            )
        if location.ndim == 1:
            location, scale = location[:, None, None], scale[:, None, None]
        grid = GridSignal(
            parameters.signal, levels.log_snr, sampler.alpha, sampler.sigma, sampler.log_snr
        )
        return Stream(parameters, grid, location, scale)

    def fit(
        self, thresholds: Thresholds, source: Source, fit: npt.NDArray[np.bool_]
    ) -> tuple[Thresholds, npt.NDArray[np.float64]]:
        """Location and scale of the population in every grid cell."""
        parameters = Parameters(**thresholds.parameters)
        signal = GridSignal(
            parameters.signal,
            make_grid(source.log_snr, *thresholds.window.steps),
            source.alpha,
            source.sigma,
            source.log_snr,
        )
        steps = (signal.first_step, signal.last_step)
        population = fit_population(
            source.batches(signal.needs(), steps=steps, only=fit), signal, parameters
        )
        rounded = (np.round(numbers, 5) for numbers in (population.location, population.scale))
        location, scale = (nested(numbers.tolist()) for numbers in rounded)
        fitted = thresholds.with_levels(log_snr=signal.grid, location=location, scale=scale)
        return fitted, population.run_means


VARIANT = _Calibrated()
