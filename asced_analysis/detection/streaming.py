"""One streaming detector for all callers: the sampling loop, offline blocks, conformance vectors.

::

    detector = make_detector(thresholds, alpha=alpha, sigma=sigma, log_snr=log_snr)
    state = detector.start((batch, channel, y, x))
    for step in range(steps):
        state = detector.update(state, step, eps=eps, x0=x0)   # rounded to the recorded dtype
        if step == detector.last_step:
            found = detector.result(state)  # found.mask, .score, .flagged
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds


@dataclass(frozen=True)
class Detection:
    """What was found in a batch.

    Attributes
    ----------
    mask : array, bool, shape (batch, y, x)
        Suspected pixels, cleaned up.
    score : array, floating, shape (batch,)
        Largest level at which the run would be flagged.
    flagged : array, bool, shape (batch,)
        ``score > level``.
    """

    mask: Any
    score: Any
    flagged: Any


class Stream(Protocol):
    """What a variant brings along."""

    @property
    def first_step(self) -> int:
        """First step that is looked at."""

    @property
    def last_step(self) -> int:
        """Step after which the window is complete."""

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""

    def start(self, shape: Sequence[int]) -> Any:
        """State before the first step."""

    def update(self, state: Any, step: int, *, eps: Any = None, x0: Any = None) -> Any:
        """State after one more step."""

    def detect(self, state: Any, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag at a level."""


@dataclass(frozen=True)
class DetectorState:
    """A variant's stream for one sample shape, and its state."""

    stream: Any
    inner: Any


@dataclass(frozen=True)
class Detector:
    """Thresholds bound to one sampler.

    Attributes
    ----------
    thresholds : Thresholds
    alpha, sigma, log_snr : tuple of float
        The sampler's steps, noisy end first.
    level : float
        Above which a run is flagged.
    probe : callable, optional
        ``probe(sample, step)`` asks the model for predicted x0, where the thresholds want that.
    """

    thresholds: Thresholds
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float, ...]
    level: float
    probe: Callable[[Any, int], Any] | None = None

    def __post_init__(self) -> None:
        """Build the stream once, so that thresholds that make no detector fail early."""
        _ = self._reference

    @cached_property
    def _reference(self) -> Stream:
        """A stream whose window is asked for; no window depends on the sample's shape."""
        return self._stream((1, 1, 32, 32))

    @property
    def first_step(self) -> int:
        """First step that is looked at."""
        return self._reference.first_step

    @property
    def last_step(self) -> int:
        """Step after which the window is complete and `result` is final."""
        return self._reference.last_step

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return self._reference.needs()

    def start(self, example: Any) -> DetectorState:
        """Begin a batch.

        Parameters
        ----------
        example : array or sequence of int
            Samples of shape ``(batch, channel, y, x)``, or that shape.
        """
        shape = tuple(int(size) for size in getattr(example, "shape", example))
        if len(shape) != 4:
            raise InputError(f"samples have shape {shape}; expected (batch, channel, y, x)")
        stream = self._stream(shape)
        return DetectorState(stream, stream.start(shape))

    def update(
        self, state: DetectorState, step: int, *, eps: Any = None, x0: Any = None
    ) -> DetectorState:
        """Take in one step.

        Parameters
        ----------
        state : DetectorState
        step : int
            Noise level's number, 0 at the noisy end, in order; steps outside the window cost
            nothing.
        eps, x0 : array, shape (batch, channel, y, x)
            Already rounded to the recorded dtype; only what `needs` names is looked at.
        """
        return replace(state, inner=state.stream.update(state.inner, step, eps=eps, x0=x0))

    def result(self, state: DetectorState) -> Detection:
        """Mask, score and flag by what was seen so far; final from `last_step` on."""
        if getattr(state.inner, "statistic", self) is None:
            raise InputError("nothing to detect yet: a change needs two steps of the window")
        return Detection(*state.stream.detect(state.inner, self.level))

    def _stream(self, shape: Sequence[int]) -> Stream:
        """The variant's stream for samples of one shape."""
        return make_stream(
            self.thresholds,
            shape,
            alpha=self.alpha,
            sigma=self.sigma,
            log_snr=self.log_snr,
            probe=self.probe,
        )


def make_detector(
    thresholds: Thresholds,
    *,
    alpha: Iterable[float],
    sigma: Iterable[float],
    log_snr: Iterable[float],
    level: float | None = None,
    probe: Callable[[Any, int], Any] | None = None,
) -> Detector:
    """Bind thresholds to a sampler, from numbers alone.

    Parameters
    ----------
    thresholds : Thresholds
    alpha, sigma, log_snr : sequence of float, one entry a step
    level : float, optional
        Instead of the thresholds' own (see `Thresholds.level_for`).
    probe : callable, optional
        ``probe(sample, step)`` gives the model's predicted x0 of a sample at a step's noise level,
        for learnt thresholds that look ahead (see `asced_analysis.correction.lookahead`).

    Raises
    ------
    InputError
        Where the sampler never crosses the thresholds' window.
    """
    return Detector(
        thresholds,
        tuple(float(value) for value in alpha),
        tuple(float(value) for value in sigma),
        tuple(float(value) for value in log_snr),
        thresholds.levels.level if level is None else float(level),
        probe,
    )


def window_steps(log_snr: Sequence[float], first: float, last: float) -> tuple[int, int]:
    """First and last step whose log-SNR lies in a window (both included).

    Raises
    ------
    InputError
        Where fewer than two steps do.
    """
    slack = 1e-6 * max(1.0, abs(last - first))
    inside = [
        step
        for step, value in enumerate(log_snr)
        if isfinite(value) and first - slack <= value <= last + slack
    ]
    if len(inside) < 2:
        raise InputError(
            f"{len(inside)} steps of this sampler lie in the window of log-SNR {first:.3g} .. "
            f"{last:.3g}; expected at least two. Sample with more steps, or calibrate for it."
        )
    return inside[0], inside[-1]


def make_stream(
    thresholds: Thresholds,
    shape: Sequence[int],
    *,
    alpha: Sequence[float],
    sigma: Sequence[float],
    log_snr: Sequence[float],
    probe: Callable[[Any, int], Any] | None = None,
) -> Stream:
    """A variant's stream for samples of one shape ``(batch, channel, y, x)``."""
    from asced_analysis.detection import calibrated, diffpath, paper, released, run_scores
    from asced_analysis.detection.log_snr_grid import GridSignal

    height, width = int(shape[-2]), int(shape[-1])
    levels, cleanup = thresholds.levels, thresholds.cleanup
    given = dict(thresholds.parameters)
    if thresholds.variant == "calibrated":
        rows, columns = calibrated.map_shape(height, width, given["resolution"])
        parameters = calibrated.Parameters(**given, min_width=cleanup.pixels(rows, columns)[1])
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
            parameters.signal, levels.log_snr, tuple(alpha), tuple(sigma), tuple(log_snr)
        )
        return calibrated.Stream(parameters, grid, location, scale)
    if thresholds.variant == "outcome":
        from asced_analysis.detection import outcome

        learnt: Stream = outcome.stream_of(
            thresholds, alpha=alpha, sigma=sigma, log_snr=log_snr, ask=probe
        )
        return learnt
    first, last = window_steps(log_snr, levels.log_snr[0], levels.log_snr[-1])
    if thresholds.variant == "released":
        area, side = cleanup.pixels(height, width)
        return released.Stream(
            released.Parameters(
                min_area=area,
                max_area=max(height * width, area) + 1,
                min_width=side,
                blur=given["blur"] * min(height, width),
            ),
            first,
            last,
        )
    if thresholds.variant == "paper":
        area, side = cleanup.pixels(height, width)
        kappa = tuple(s / a if a else float("inf") for s, a in zip(sigma, alpha, strict=True))
        return paper.Stream(
            paper.Parameters(**given, min_area=area, min_width=side), kappa, first, last
        )
    if thresholds.variant == "diffpath":
        if levels.whitening is None:
            raise InputError("diffpath needs levels.whitening")
        center = table(levels.location).astype(np.float64)
        whitening = table(levels.whitening).astype(np.float64)
        if center.shape != (diffpath.NUMBERS,) or whitening.shape != (diffpath.NUMBERS,) * 2:
            raise InputError("diffpath needs six locations and a 6 x 6 whitening matrix")
        return diffpath.Stream(center, whitening, first, last)
    baseline = _baseline(thresholds.variant)
    location, scale = table(levels.location), table(levels.scale)
    if location.shape != (1,) or scale.shape != (1,):
        raise InputError(f"{thresholds.variant} needs one location and one scale")
    numbers = (float(location[0]), float(scale[0]))
    extra = {"sigma": tuple(sigma)} if thresholds.variant == "score_norm" else {}
    stream: Stream = baseline.Stream(run_scores.Parameters(**given), *numbers, first, last, **extra)
    return stream


def table(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers of thresholds as a float32 array.

    Raises
    ------
    InputError
        Where rows differ in length, or a number is beyond float32.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except ValueError:
        raise InputError("a table of the thresholds has rows of different lengths") from None
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise InputError("a number of the thresholds is beyond single precision")
    return numbers.astype(np.float32)


def _baseline(variant: str) -> Any:
    """Module of a run-level baseline."""
    from asced_analysis.detection import final_variance, score_norm, trajectory_variance

    modules = {
        "trajectory_variance": trajectory_variance,
        "final_variance": final_variance,
        "score_norm": score_norm,
    }
    if variant not in modules:
        raise InputError(f"variant {variant!r} is unknown; expected one of {sorted(modules)}")
    return modules[variant]
