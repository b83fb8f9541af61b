"""The detector of the authors' released code (method ASCED, arXiv:2503.16218), reproduced.

Predicted x0 is seen as an 8-bit picture; per step, the blurred absolute change is compared with a
robust threshold of the whole picture; flagged pixels are united over steps and cleaned up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Annotated, Any

import array_api_compat
from msgspec import Meta

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection.blur import gaussian_blur
from asced_analysis.detection.components import grow, keep_components, nested_score
from asced_analysis.detection.medians import median_and_mad
from asced_analysis.detection.row_means import wide
from asced_analysis.detection.variant import COMPONENTS, Sampler, Variant
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds

REFERENCE_SIDE = 256
GROWTH = 5
PIXEL_BYTES = 8
"""Of a grey pixel: four of the map, and as much of the step that is read and of frames."""
MOST_THREADS = 8


@dataclass(frozen=True)
class Parameters:
    """Parameters of the released detector; sizes in pixels, meant for 256 x 256.

    Attributes
    ----------
    mad_scale : float
        Threshold in robust standard deviations above the median of a step.
    min_area, max_area : float
        Components stay where ``min_area < area < max_area``.
    min_width : int
        Components stay where an erosion by a square of this side leaves a pixel.
    blur : float
        Standard deviation of the Gaussian over every axis, channels too.
    """

    mad_scale: float = 3.0
    min_area: float = 100
    max_area: float = 10000
    min_width: int = 5
    blur: float = 2.0

    def __post_init__(self) -> None:
        """Refuse sizes that can't be met."""
        if not (self.mad_scale >= 0 and self.blur >= 0 and self.min_width >= 1):
            raise InputError(
                f"mad_scale {self.mad_scale} and blur {self.blur} must not be negative, and "
                f"min_width {self.min_width} must be at least 1"
            )
        if not 0 <= self.min_area < self.max_area:
            raise InputError(
                f"min_area {self.min_area} must lie below max_area {self.max_area}, both positive"
            )

    @classmethod
    def for_size(cls, height: int, width: int, *, mad_scale: float = 3.0) -> Parameters:
        """Sizes as fractions of the image, from those at 256 x 256.

        Rounded up, at least area 3 and width 2; the blur scales with the side.
        """
        side = min(height, width) / REFERENCE_SIDE
        area = height * width / REFERENCE_SIDE**2
        return cls(
            mad_scale=mad_scale,
            min_area=max(3, ceil(100 * area)),
            max_area=max(4, ceil(10000 * area)),
            min_width=max(2, ceil(5 * side)),
            blur=2.0 * side,
        )


def artifact_mask(
    x0: Any,
    *,
    mad_scale: float = 3.0,
    min_area: float = 100,
    max_area: float = 10000,
    min_width: int = 5,
    blur: float = 2.0,
) -> Any:
    """Mask of the released detector over all given steps.

    Parameters
    ----------
    x0 : array, shape (..., step, channel, y, x)
        Predicted x0 of the window's steps, in -1..1. NumPy, torch or another array namespace.
    mad_scale, min_area, max_area, min_width, blur
        See `Parameters`.

    Returns
    -------
    array, bool, shape (..., y, x)
        True where an artifact is suspected; not yet grown (see `grown`).

    Raises
    ------
    InputError
        Where `x0` has fewer than four axes, or a parameter makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import released
    >>> x0 = np.random.default_rng(0).uniform(-0.1, 0.1, (4, 3, 64, 64)).astype(np.float32)
    >>> x0[2:, :, 20:40, 20:40] += 0.8  # a region jumps between steps 1 and 2
    >>> released.artifact_mask(x0)[30, 30].item()
    True
    """
    parameters = Parameters(mad_scale, min_area, max_area, min_width, blur)
    if x0.ndim < 4:
        raise InputError(f"x0 has shape {tuple(x0.shape)}; expected (..., step, channel, y, x)")
    xp = array_api_compat.array_namespace(x0)
    batch_shape, (height, width) = tuple(x0.shape[:-4]), tuple(x0.shape[-2:])
    runs = xp.reshape(x0, (prod(batch_shape), *x0.shape[-4:]))
    masks = _each_run(xp, runs, parameters)
    device = array_api_compat.device(x0)
    empty = xp.zeros((0, height, width), dtype=xp.bool, device=device)
    union = xp.stack(masks, axis=0) if masks else empty
    return xp.reshape(clean(union, parameters), (*batch_shape, height, width))


def clean(mask: Any, parameters: Parameters) -> Any:
    """Keep the components whose size is plausible (see `Parameters`)."""
    return keep_components(
        mask,
        min_area=parameters.min_area,
        max_area=parameters.max_area,
        min_width=parameters.min_width,
    )


def grown(mask: Any, pixels: int = GROWTH) -> Any:
    """Grow a mask before correction, by 5 pixels on every side at 256 x 256."""
    return grow(mask, pixels)


def frame(x0: Any) -> Any:
    """Predicted x0 as an 8-bit picture: ``(x0 + 1) * 127.5`` clipped to 0..255 and truncated.

    Parameters
    ----------
    x0 : array, floating
        In -1..1; half precision is widened to float32 first.

    Returns
    -------
    array, float32
        Whole numbers 0 .. 255.
    """
    xp = array_api_compat.array_namespace(x0)
    scaled = (wide(x0) + 1) * 127.5
    # an array's own clip is one pass, the namespace's several (4 ms a run)
    inside = scaled.clip(0.0, 255.0) if hasattr(scaled, "clip") else xp.clip(scaled, 0.0, 255.0)
    return xp.astype(xp.floor(inside), xp.float32)


def step_excess(previous: Any, current: Any, blur: float) -> tuple[Any, Any, Any]:
    """Blurred change between two frames with the median and MAD of the whole picture.

    Parameters
    ----------
    previous, current : arrays, float32, shape (..., channel, y, x)
        Frames of adjacent steps.
    blur : float
        Standard deviation over y, x and channel, in this order.

    Returns
    -------
    peak : array, float32, shape (..., y, x)
        Blurred absolute change, maximum over channels.
    median, mad : arrays, float32, shape (...)
    """
    xp = array_api_compat.array_namespace(current)
    change = gaussian_blur(xp.abs(current - previous), blur, axes=(-2, -1, -3))
    median, mad = median_and_mad(xp.reshape(change, (*change.shape[:-3], -1)))
    return xp.max(change, axis=-3), median, mad


def _each_run(xp: Any, runs: Any, parameters: Parameters) -> list[Any]:
    """Uncleaned masks, one run and one step at a time: those stay in the cache, batches don't.

    On NumPy two threads share the runs; products, comparisons and sorts release the GIL.
    """
    parts = [runs[index, ...] for index in range(runs.shape[0])]
    threads = min(os.cpu_count() or 1, MOST_THREADS, len(parts))
    if threads < 2 or not array_api_compat.is_numpy_namespace(xp):
        return [_union_of_steps(xp, part, parameters) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda part: _union_of_steps(xp, part, parameters), parts))


def _union_of_steps(xp: Any, x0: Any, parameters: Parameters) -> Any:
    """Pixels beyond the threshold at any step, shape (y, x)."""
    device = array_api_compat.device(x0)
    union = xp.zeros(tuple(x0.shape[-2:]), dtype=xp.bool, device=device)
    previous = None
    for step in range(x0.shape[0]):  # frame by frame: all at once leave the cache (5 ms -> 1 ms)
        current = frame(x0[step, ...])
        if previous is not None:
            peak, median, mad = step_excess(previous, current, parameters.blur)
            union = union | (peak > median + parameters.mad_scale * 1.4826 * mad)
        previous = current
    return union


@dataclass(frozen=True)
class State:
    """What the streaming form keeps: the last frame and the running statistic."""

    frame: Any = None
    statistic: Any = None


@dataclass(frozen=True)
class Stream:
    """The released detector with a calibrated level in place of ``mad_scale``.

    Attributes
    ----------
    parameters : Parameters
        ``max_area`` is not used: an upper bound on the area is not nested in the level.
    first_step, last_step : int
        The window, both included.
    """

    parameters: Parameters
    first_step: int
    last_step: int

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return ("x0",)

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        return State()

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        if not self.first_step <= step <= self.last_step:
            return state
        current = frame(x0)
        if state.frame is None:
            return State(current)
        peak, median, mad = step_excess(state.frame, current, self.parameters.blur)
        xp = array_api_compat.array_namespace(peak)
        spread = xp.clip(1.4826 * mad, 1e-6, None)
        robust = (peak - median[..., None, None]) / spread[..., None, None]
        statistic = robust if state.statistic is None else xp.maximum(state.statistic, robust)
        return State(current, statistic)

    def by_bands(self, arrays: Mapping[str, Any], first_step: int) -> State:
        """State after all steps of a large image: the statistic alone."""
        from asced_analysis.detection.released_bands import largest_excess

        steps = range(self.first_step - first_step, self.last_step + 1 - first_step)
        return State(None, largest_excess(arrays, steps, frame, self.parameters.blur))

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        return components_above(state.statistic, level, self.parameters)


def components_above(statistic: Any, level: float, parameters: Any) -> tuple[Any, Any, Any]:
    """Mask, score and flag of a statistic whose clean-up is by components.

    Parameters
    ----------
    statistic : array, shape (batch, y, x)
    level : float
    parameters : object with ``min_area`` and ``min_width``, in pixels

    Returns
    -------
    mask : array, bool, shape (batch, y, x)
    score : array, float64, shape (batch,)
    flagged : array, bool, shape (batch,)
    """
    xp = array_api_compat.array_namespace(statistic)
    sizes = {"min_area": parameters.min_area, "min_width": parameters.min_width}
    score = xp.asarray(nested_score(statistic, **sizes), device=array_api_compat.device(statistic))
    mask = keep_components(statistic > level, **sizes)
    return mask, score, xp.any(mask, axis=(-2, -1))


@dataclass(frozen=True)
class Settings:
    """Parameters as thresholds hold them.

    Attributes
    ----------
    blur : float
        As a fraction of the shorter side.
    """

    blur: Annotated[float, Meta(ge=0, lt=1)] = Parameters().blur / REFERENCE_SIDE


class _Released(Variant):
    """The authors' released detector, with a calibrated level in place of ``mad_scale``."""

    name = "released"
    summary = "The released code: blurred changes of 8-bit predicted x0, in each image's own units."
    steps_held = STEPS_HELD
    pixel_bytes = PIXEL_BYTES
    parameters_type = Settings
    cleanup = COMPONENTS

    def reads(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Variant.reads`."""
        return ("x0",)

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> Stream:
        """Bind the window; see `Variant.stream`."""
        height, width = int(shape[-2]), int(shape[-1])
        area, side = thresholds.cleanup.pixels(height, width)
        parameters = Parameters(
            min_area=area,
            max_area=max(height * width, area) + 1,  # an upper bound would not be nested
            min_width=side,
            blur=thresholds.parameters["blur"] * min(height, width),
        )
        return Stream(parameters, *sampler.window(thresholds))


VARIANT = _Released()
