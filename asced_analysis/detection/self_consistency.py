"""Self-consistency while sampling: what the model would redraw of what it predicts by now.

The window's last predicted x0 is re-noised a few times to one level, the model predicts x0 once
each, and the mean answer is compared with it, less one slope on content
(`asced_analysis.realism.self_consistency`, which has it of finished samples as the teacher). Needs
no labels and learns nothing but the slope and the population's spread; it costs its draws in
evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import array_api_compat
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from asced_analysis.detection.outcome import lookahead_step, worst_places
from asced_analysis.detection.run_scores import RunStream, RunVariant, State, with_spread
from asced_analysis.detection.variant import Sampler, raw_numbers
from asced_analysis.realism.self_consistency import (
    DRAWS,
    LOG_SNR,
    content_energy,
    content_slope,
    level_for,
    noise_of,
    redrawn_residual,
    self_consistency,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.thresholds.document import Thresholds


@dataclass(frozen=True)
class Parameters:
    """How the model is evaluated, and how much of a flagged run is marked.

    Attributes
    ----------
    log_snr : float
        Log-SNR that is re-noised to; samples of a few numbers get a finer one when fitted.
    draws : int
        Of noise, each one evaluation.
    slope : float
        On log content energy; found on the population.
    share : float
        Share of the image that the mask of a flagged run covers.
    """

    log_snr: float = LOG_SNR
    draws: Annotated[int, Meta(ge=1, le=64)] = DRAWS
    slope: Annotated[float, Meta(ge=0, le=2)] = 0.0
    share: Annotated[float, Meta(gt=0, le=1)] = 0.12

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.draws < 1 or not 0 < self.share <= 1:
            raise InputError(f"draws must be at least 1 and share above 0, at most 1: {self}")


@dataclass(frozen=True)
class Stream(RunStream):
    """The detector for one sampler: keeps nothing before the window's last step."""

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        if step != self.last_step:
            return state
        xp = array_api_compat.array_namespace(x0)
        clean = xp.astype(x0, xp.float32)
        residual = redrawn_residual(clean, self._redrawn(xp, clean))
        return replace(state, kept=(residual, content_energy(clean)))

    def _redrawn(self, xp: Any, clean: Any) -> Any:
        """Mean prediction from the re-noised samples; every run meets the same noise."""
        if self.sampler.lookahead is None:
            raise InputError(
                "self_consistency evaluates the model: give a pipeline, or a network of your own"
            )
        step = lookahead_step(self.sampler.log_snr, self.parameters.log_snr)
        alpha, sigma = self.sampler.alpha[step], self.sampler.sigma[step]
        total = 0.0 * clean
        for draw in range(self.parameters.draws):
            noise = noise_of((0, draw), tuple(clean.shape[1:]))
            noise = xp.asarray(noise, device=array_api_compat.device(clean))
            predicted = self.sampler.lookahead(clean * alpha + noise * sigma, step)
            total = total + xp.astype(predicted, xp.float32)
        return total / self.parameters.draws

    def measure(self, state: State) -> tuple[Any, Any]:
        """Map, shape (batch, y, x), and score, (batch,), not yet standardised."""
        if state.kept is None:
            raise InputError("the window is not complete yet; feed steps up to last_step first")
        residual, energy = state.kept
        return self_consistency(residual, energy, self.parameters.slope)

    def raw(self, state: State) -> Any:
        """Mean residual and energy of each run, shape (batch, 2)."""
        residual, energy = state.kept
        xp = array_api_compat.array_namespace(residual)
        return xp.stack([xp.mean(residual, axis=(1, 2)), energy], axis=1)

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        maps, score = self.measure(state)
        score = (score - self.location) * (1 / self.scale)
        flagged = score > level
        return worst_places(maps, self.parameters.share) & flagged[:, None, None], score, flagged


def artifact_mask(x0: Any, predicted: Any, *, share: float = 0.12) -> Any:
    """Places that the model would redraw most.

    Parameters
    ----------
    x0 : array, shape (n, channel, y, x)
    predicted : array, shape (n, channel, y, x)
        The model's mean prediction from x0 re-noised.
    share : float
        Share of the places to mark.

    Returns
    -------
    array, bool, shape (n, y, x)

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import self_consistency
    >>> x0 = np.zeros((1, 1, 16, 16), np.float32)
    >>> x0[..., 4:8, 4:8] = 1
    >>> self_consistency.artifact_mask(x0, 0 * x0, share=0.1)[0, 5, 5].item()
    True
    """
    maps, _ = self_consistency(redrawn_residual(x0, predicted), content_energy(x0), 0.0)
    return worst_places(maps, share)


class _SelfConsistency(RunVariant):
    """See the module."""

    name = "self_consistency"
    summary = "What the model itself would redraw of its predicted x0; costs a few evaluations."
    points = True
    parameters_type = Parameters
    stream_type = Stream
    correction = ("renoise", {"where": "foreground"})

    def parameters(self) -> dict[str, Any]:
        """See `Parameters`; the slope is found on the population."""
        defaults = super().parameters()
        del defaults["slope"]
        return defaults

    def extra_evaluations(self, parameters: Mapping[str, Any]) -> int:
        """One evaluation a draw."""
        return int(parameters["draws"])

    def fit(
        self, thresholds: Thresholds, source: Source, fit: npt.NDArray[np.bool_]
    ) -> tuple[Thresholds, None]:
        """The slope on content, then median and 1.4826 MAD of the population's scores."""
        given = dict(thresholds.parameters)
        if given["log_snr"] == LOG_SNR:  # points of a few numbers are told apart by finer noise
            given["log_snr"] = level_for(prod(source.sample_shape))
        sampler = Sampler(source.alpha, source.sigma, source.log_snr, source.lookahead)
        stream = self.stream(replace(thresholds, parameters=given), (), sampler)
        residual, energy = raw_numbers(stream, source, fit).T
        slope = given["slope"] = content_slope(residual, energy)
        _, scores = self_consistency(residual[:, None, None], energy, slope)
        return with_spread(replace(thresholds, parameters=given), scores), None

    def is_clear(self, thresholds: Thresholds, stream: Any, state: Any, margin: float) -> bool:
        """Whether the worst places stand clear of the others."""
        places = np.sort(np.asarray(stream.measure(state)[0]).ravel())
        count = max(1, round(thresholds.parameters["share"] * places.size))
        return count == places.size or bool(places[-count] - places[-count - 1] > margin)


VARIANT = _SelfConsistency()
