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
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from asced_analysis.detection.registry import VARIANTS
from asced_analysis.detection.variant import Sampler, Stream
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
    lookahead : callable, optional
        ``lookahead(sample, step)`` asks the model for predicted x0, where the thresholds want that.
    """

    thresholds: Thresholds
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float, ...]
    level: float
    lookahead: Callable[[Any, int], Any] | None = None

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
        """What `update` looks at: ``eps``, ``x0``, ``activations``."""
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
        self, state: DetectorState, step: int, *, eps: Any = None, x0: Any = None, **more: Any
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
        **more : array
            What else `needs` names: ``activations``, of shape ``(batch, value)``.
        """
        return replace(state, inner=state.stream.update(state.inner, step, eps=eps, x0=x0, **more))

    def result(self, state: DetectorState, levels: Any = None) -> Detection:
        """Mask, score and flag by what was seen so far; final from `last_step` on.

        Parameters
        ----------
        state : DetectorState
        levels : array, shape (batch,), optional
            Of each sample, where groups have levels of their own; by default `level` is for all.
        """
        if getattr(state.inner, "statistic", self) is None:
            raise InputError("nothing to detect yet: a change needs two steps of the window")
        if levels is None:
            return Detection(*state.stream.detect(state.inner, self.level))
        given = np.asarray(levels, np.float64)
        found: Detection | None = None
        for level in np.unique(given):
            mask, score, flagged = state.stream.detect(state.inner, float(level))
            if found is None:
                found = Detection(mask, score, flagged)
                continue
            xp = array_api_compat.array_namespace(mask)
            here = xp.asarray(given == level, device=array_api_compat.device(mask))
            found = Detection(
                xp.where(here[:, None, None], mask, found.mask),
                score,
                xp.where(here, flagged, found.flagged),
            )
        assert found is not None
        return found

    def _stream(self, shape: Sequence[int]) -> Stream:
        """The variant's stream for samples of one shape."""
        variant = VARIANTS.get(self.thresholds.variant)
        sampler = Sampler(self.alpha, self.sigma, self.log_snr, self.lookahead)
        return variant.stream(self.thresholds, shape, sampler)


def make_detector(
    thresholds: Thresholds,
    *,
    alpha: Iterable[float],
    sigma: Iterable[float],
    log_snr: Iterable[float],
    level: float | None = None,
    lookahead: Callable[[Any, int], Any] | None = None,
) -> Detector:
    """Bind thresholds to a sampler, from numbers alone.

    Parameters
    ----------
    thresholds : Thresholds
    alpha, sigma, log_snr : sequence of float, one entry a step
    level : float, optional
        Instead of the thresholds' own (see `Thresholds.level_for`).
    lookahead : callable, optional
        ``lookahead(sample, step)`` gives the model's predicted x0 of a sample at a step's
        noise level, for thresholds that need it (see `asced_analysis.correction.lookahead`).

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
        lookahead,
    )
