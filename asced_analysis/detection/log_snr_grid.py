"""Differences of a signal on a fixed grid of log-SNR, streaming, whatever the sampler's steps.

The signal is interpolated linearly in log-SNR onto the grid and differenced there, so that neither
the size of a difference nor the number of comparisons depends on the step count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite
from typing import Any, Literal

import array_api_compat

from asced_stores.errors import InputError

SignalName = Literal["predicted_x0", "weighted_score", "innovation"]
SIGNALS: tuple[SignalName, ...] = ("predicted_x0", "weighted_score", "innovation")


TOLERANCE = 1e-3
"""Log-SNR within which levels are the same: tables of float32 and loops of float64 differ."""


@dataclass(frozen=True)
class GridState:
    """What is kept between steps: three arrays of the sample's size, however many steps there are.

    Attributes
    ----------
    log_snr : float
        Where the last signal was seen; -inf before the first.
    signal, at_grid, eps : array or None
        The last signal, the signal at the last grid point passed, the last eps (innovation only).
    point : int
        Grid points passed so far.
    """

    log_snr: float = -inf
    signal: Any = None
    at_grid: Any = None
    eps: Any = None
    point: int = 0


def made_of(signal: SignalName) -> tuple[str, ...]:
    """Which of ``eps`` and ``x0`` a signal is made of."""
    return ("x0",) if signal == "predicted_x0" else ("eps",)


@dataclass(frozen=True)
class GridSignal:
    """A signal's differences between grid points, for one sampler.

    Attributes
    ----------
    name : str
        `predicted_x0`, `weighted_score` or `innovation` (whose running sum is the signal).
    grid : tuple of float
        Rising log-SNR values; n + 1 points make n cells.
    alpha, sigma, log_snr : tuple of float
        The sampler's steps, noisy end first.
    """

    name: SignalName
    grid: tuple[float, ...]
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that the grid rises and that the steps can reach it."""
        if self.name not in SIGNALS:
            raise InputError(f"signal {self.name!r} is unknown; expected one of {SIGNALS}")
        if len(self.grid) < 2 or any(b <= a for a, b in pairwise(self.grid)):
            raise InputError(f"the log-SNR grid must rise over at least two points: {self.grid}")
        if not len(self.alpha) == len(self.sigma) == len(self.log_snr):
            raise InputError("alpha, sigma and log_snr must have one entry a step each")
        object.__setattr__(self, "log_snr", _snapped(self.log_snr, self.grid))
        finite = [value for value in self.log_snr if isfinite(value)]
        if not finite or max(finite) <= self.grid[0] or min(finite) >= self.grid[-1]:
            levels = f"{finite[0]:.3g} .. {finite[-1]:.3g}" if finite else "nowhere finite"
            raise InputError(
                f"the sampler's log-SNR ({levels}) never crosses the grid "
                f"{self.grid[0]:.3g} .. {self.grid[-1]:.3g} of the thresholds"
            )

    @property
    def first_step(self) -> int:
        """First step that matters: the last one at or before the grid's first point."""
        return max(
            (
                k
                for k, value in enumerate(self.log_snr)
                if value <= self.grid[0] and isfinite(value)
            ),
            default=next(k for k, value in enumerate(self.log_snr) if isfinite(value)),
        )

    @property
    def last_step(self) -> int:
        """First step at or beyond the grid's last point (the sampler's last where none is)."""
        return next(
            (k for k, value in enumerate(self.log_snr) if value >= self.grid[-1]),
            len(self.log_snr) - 1,
        )

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` the signal is made of."""
        return made_of(self.name)

    def advance(
        self, state: GridState, step: int, *, eps: Any = None, x0: Any = None
    ) -> tuple[GridState, list[tuple[int, Any]]]:
        """Take in one step.

        Parameters
        ----------
        state : GridState
        step : int
            Steps are given in order; those outside `first_step` .. `last_step` change nothing.
        eps, x0 : array, shape (batch, channel, y, x)
            Only what `needs` names is looked at.

        Returns
        -------
        state : GridState
        cells : list of (cell, difference)
            Grid cells completed by this step, with the signal's difference over each.
        """
        here = self.log_snr[step]
        if not self.first_step <= step <= self.last_step or not isfinite(here):
            return state, []
        signal, eps = self._signal(state, step, eps, x0)
        point, at_grid = state.point, state.at_grid
        cells: list[tuple[int, Any]] = []
        if state.signal is None:
            while point < len(self.grid) and self.grid[point] <= here:
                point, at_grid = point + 1, signal  # a sampler that starts inside the grid
        else:
            final = step == len(self.log_snr) - 1  # nothing follows: a short last cell is closed
            while point < len(self.grid) and (self.grid[point] <= here or final):
                fraction = (self.grid[point] - state.log_snr) / (here - state.log_snr)
                if fraction >= 1:
                    value = signal
                else:
                    value = state.signal + (signal - state.signal) * fraction
                if at_grid is not None:
                    cells.append((point - 1, value - at_grid))
                point, at_grid = point + 1, value
        return replace(
            state, log_snr=here, signal=signal, at_grid=at_grid, eps=eps, point=point
        ), cells

    def _signal(self, state: GridState, step: int, eps: Any, x0: Any) -> tuple[Any, Any]:
        """The signal at a step in float32, and the eps to keep."""
        given = x0 if self.name == "predicted_x0" else eps
        if given is None:
            raise InputError(f"the signal {self.name} needs {self.needs()[0]} at step {step}")
        xp = array_api_compat.array_namespace(given)
        wide = given if given.dtype == xp.float32 else xp.astype(given, xp.float32)
        if self.name == "predicted_x0":
            return wide, None
        kappa = self.sigma[step] / self.alpha[step]
        if self.name == "weighted_score":
            return wide * -kappa, None
        if state.signal is None:
            return xp.zeros_like(wide), wide
        return state.signal - (wide - state.eps) * kappa, wide


def _snapped(log_snr: Sequence[float], grid: Sequence[float]) -> tuple[float, ...]:
    """The steps' log-SNR, that of the nearest step put on a grid point that it stands for."""
    levels = [float(value) for value in log_snr]
    for point in grid:
        nearest = min(range(len(levels)), key=lambda step: abs(levels[step] - point))
        if abs(levels[nearest] - point) <= TOLERANCE:
            levels[nearest] = point
    return tuple(levels)


def make_grid(log_snr: Sequence[float], first: int, last: int) -> tuple[float, ...]:
    """Evenly spaced grid over a window of steps, no finer than the sampler anywhere inside it.

    Parameters
    ----------
    log_snr : sequence of float
        The sampler's steps, noisy end first.
    first, last : int
        The window's first and last step, both included.

    Returns
    -------
    tuple of float
        From ``log_snr[first]`` to ``log_snr[last]``.
    """
    inside = [float(value) for value in log_snr[first : last + 1]]
    if len(inside) < 2 or not all(isfinite(value) for value in inside):
        raise InputError(
            f"the window of steps {first} .. {last} holds {len(inside)} steps with a finite "
            "log-SNR; expected at least two"
        )
    widest = max(b - a for a, b in pairwise(inside))
    cells = max(1, int((inside[-1] - inside[0]) / widest + 1e-9))
    width = (inside[-1] - inside[0]) / cells
    return (*tuple(inside[0] + width * cell for cell in range(cells)), inside[-1])
