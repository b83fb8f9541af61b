"""The detector as the paper prints it (Eq. 4 and Algorithm 1 of arXiv:2503.16218).

Per step, the absolute score dynamics are compared with ``tau = max(MAD(D_k), mean(score bank))``;
the mask is the union over the window. Where the text leaves a choice, it is a parameter here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import array_api_compat

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection.components import keep_components
from asced_analysis.detection.medians import nonnegative_median
from asced_analysis.detection.released import components_above
from asced_analysis.detection.row_means import wide
from asced_analysis.detection.variant import Sampler, Variant
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds


@dataclass(frozen=True)
class Parameters:
    """Choices that the paper's text leaves open; the defaults are its literal form.

    Attributes
    ----------
    multiple : float
        Factor on ``tau``. The literal 1 flags up to half of all pixels at a calm step.
    bank_mean : str
        The mean of the score bank: of its `absolute` value, or `signed` as the text could be read.
    mad_center : str
        The MAD's deviations are taken from the `median` of the dynamics (the definition of a
        MAD), or from `zero` (as Eq. 4 takes the dynamics' own size).
    min_area, min_width
        Clean-up of components, which the paper doesn't have: none by default.
    """

    multiple: float = 1.0
    bank_mean: Literal["absolute", "signed"] = "absolute"
    mad_center: Literal["median", "zero"] = "median"
    min_area: float = 0
    min_width: int = 1

    def __post_init__(self) -> None:
        """Check names and sizes."""
        if self.bank_mean not in ("absolute", "signed") or self.mad_center not in (
            "median",
            "zero",
        ):
            raise InputError(
                f"bank_mean {self.bank_mean!r} must be absolute or signed, and mad_center "
                f"{self.mad_center!r} median or zero"
            )
        if not (self.multiple >= 0 and self.min_area >= 0 and self.min_width >= 1):
            raise InputError(f"sizes and the multiple must not be negative: {self}")


def artifact_mask(
    weighted_score: Any,
    *,
    multiple: float = 1.0,
    bank_mean: Literal["absolute", "signed"] = "absolute",
    mad_center: Literal["median", "zero"] = "median",
    min_area: float = 0,
    min_width: int = 1,
) -> Any:
    """Mask of the paper's detector over all given steps.

    Parameters
    ----------
    weighted_score : array, shape (..., step, channel, y, x)
        The window's steps ``T_d .. T_c``; they are also the score bank. Steps that are not finite
        (``alpha = 0``) are dropped, never filled.
    multiple, bank_mean, mad_center, min_area, min_width
        See `Parameters`.

    Returns
    -------
    array, bool, shape (..., y, x)
        A pixel is set where any channel exceeds the threshold.

    Raises
    ------
    InputError
        Where the array has fewer than four axes, or a parameter makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import paper
    >>> weighted = np.random.default_rng(0).normal(0, 0.1, (4, 1, 16, 16)).astype(np.float32)
    >>> weighted[2:, :, 4:8, 4:8] += 5  # a region jumps between steps 1 and 2
    >>> paper.artifact_mask(weighted, multiple=3)[5, 5].item()
    True
    """
    parameters = Parameters(multiple, bank_mean, mad_center, min_area, min_width)
    if weighted_score.ndim < 4:
        raise InputError(
            f"weighted_score has shape {tuple(weighted_score.shape)}; expected "
            "(..., step, channel, y, x)"
        )
    xp = array_api_compat.array_namespace(weighted_score)
    scores = wide(weighted_score)
    mask = xp.any(_exceeds(xp, scores, parameters), axis=-3)
    if min_area <= 0 and min_width <= 1:
        return mask
    return keep_components(mask, min_area=min_area, min_width=min_width)


def _exceeds(xp: Any, scores: Any, parameters: Parameters) -> Any:
    """Which pixels exceed tau at which step, shape (..., step - 1, y, x)."""
    usable = xp.all(xp.isfinite(scores), axis=(-3, -2, -1))
    scores = xp.where(usable[..., None, None, None], scores, xp.zeros_like(scores))
    elements = scores.shape[-1] * scores.shape[-2] * scores.shape[-3]
    bank_size = xp.sum(xp.astype(usable, xp.float32), axis=-1) * elements
    banked = abs(scores) if parameters.bank_mean == "absolute" else scores
    bank = xp.sum(banked, axis=(-4, -3, -2, -1)) / xp.clip(bank_size, 1.0, None)
    dynamics = scores[..., 1:, :, :, :] - scores[..., :-1, :, :, :]  # Eq. 4
    adjacent = usable[..., 1:] & usable[..., :-1]
    mad = dispersion(dynamics, parameters)
    tau = parameters.multiple * xp.maximum(mad, bank[..., None])
    beyond = xp.max(abs(dynamics), axis=-3) > tau[..., None, None]
    return beyond & adjacent[..., None, None]


def dispersion(dynamics: Any, parameters: Parameters) -> Any:
    """MAD of a step's dynamics over channel, y and x; shape (...) of (..., channel, y, x)."""
    xp = array_api_compat.array_namespace(dynamics)
    flat = xp.reshape(dynamics, (*dynamics.shape[:-3], -1))
    if parameters.mad_center == "zero":
        return nonnegative_median(abs(flat))
    ordered = xp.sort(flat, axis=-1)
    count = flat.shape[-1]
    center = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
    return nonnegative_median(abs(flat - center[..., None]))


@dataclass(frozen=True)
class State:
    """What the streaming form keeps; the bank is a running mean, not a list of scores."""

    score: Any = None
    bank: Any = None
    steps: int = 0
    statistic: Any = None


@dataclass(frozen=True)
class Stream:
    """The paper's detector with a calibrated level in place of `multiple`.

    In the loop the score bank holds the steps so far, since later ones are not known yet.

    Attributes
    ----------
    parameters : Parameters
    kappa : tuple of float
        ``sigma / alpha`` by step.
    first_step, last_step : int
        The window, both included.
    """

    parameters: Parameters
    kappa: tuple[float, ...]
    first_step: int
    last_step: int

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return ("eps",)

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        return State()

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        if not self.first_step <= step <= self.last_step:
            return state
        xp = array_api_compat.array_namespace(eps)
        score = wide(eps) * -self.kappa[step]
        banked = abs(score) if self.parameters.bank_mean == "absolute" else score
        bank = xp.mean(banked, axis=(-3, -2, -1))
        if state.score is None:
            return State(score, bank, 1)
        bank = (state.bank * state.steps + bank) / (state.steps + 1)
        dynamics = score - state.score
        tau = xp.clip(xp.maximum(dispersion(dynamics, self.parameters), bank), 1e-6, None)
        ratio = xp.max(abs(dynamics), axis=-3) / tau[..., None, None]
        statistic = ratio if state.statistic is None else xp.maximum(state.statistic, ratio)
        return State(score, bank, state.steps + 1, statistic)

    def by_bands(self, arrays: Mapping[str, Any], first_step: int) -> State:
        """State after all steps of a large image: the statistic alone."""
        from asced_analysis.detection.paper_parts import largest_ratio

        steps = range(self.first_step - first_step, self.last_step + 1 - first_step)
        kappa = self.kappa[self.first_step : self.last_step + 1]
        given = self.parameters
        found = largest_ratio(
            *(arrays, steps, kappa),
            absolute=given.bank_mean == "absolute",
            around_zero=given.mad_center == "zero",
        )
        return State(statistic=found)

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        return components_above(state.statistic, level, self.parameters)


@dataclass(frozen=True)
class Settings:
    """What the paper's text leaves open; the level takes the place of `multiple`."""

    bank_mean: Literal["absolute", "signed"] = "absolute"
    mad_center: Literal["median", "zero"] = "median"


class _Paper(Variant):
    """The paper's detector, with a calibrated level in place of `multiple`."""

    name = "paper"
    parameters_type = Settings
    summary = "Eq. 4 of the paper: dynamics of the weighted score beyond its MAD and score bank."
    steps_held = STEPS_HELD
    pixel_bytes = 8  # of a grey one: of the map four, and of two steps

    def reads(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Variant.reads`."""
        return ("eps",)

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> Stream:
        """Bind the window; see `Variant.stream`."""
        area, side = thresholds.cleanup.pixels(int(shape[-2]), int(shape[-1]))
        parameters = Parameters(**thresholds.parameters, min_area=area, min_width=side)
        return Stream(parameters, sampler.kappa, *sampler.window(thresholds))


VARIANT = _Paper()
