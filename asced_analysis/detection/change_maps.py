"""Maps of how much a signal changed: pooled, blurred, as a logarithm.

What `calibrated` and `outcome` look at, and what a population is measured by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Annotated, Any, Literal

import array_api_compat
from msgspec import Meta

from asced_analysis.detection.blur import gaussian_blur
from asced_analysis.detection.log_snr_grid import SIGNALS, SignalName
from asced_stores.errors import InputError


@dataclass(frozen=True)
class Settings:
    """What the detector looks at, as thresholds hold it.

    Attributes
    ----------
    signal : str
        `predicted_x0`, `weighted_score` or `innovation`.
    resolution : int
        Changes are pooled (root mean square over channels and square cells) until no side of the
        map is longer than this.
    blur : float
        Gaussian blur of the pooled squared change, as a fraction of the map's shorter side.
    floor : float
        Added to the change before the logarithm, in units of the data (-1..1): a flat background
        changes by rounding alone, and that is no news.
    contrast : str
        `local` divides the change by the local standard deviation of the signal (plus `floor` *
        10), so that faint structures count as much as bold ones; `none` does not.
    combine : str
        Over the window's cells: `peak` (largest), `persistent` (largest of the smaller of two
        adjacent cells: what refinement repairs at once does not count), or `mean`.
    direction : str
        `high`, `low`, or `both` (absolute value) where the sign isn't known.
    by_position : bool
        Location and scale for every place of the map instead of one for all: convolutions pad with
        zeros, so corners change more than the middle in every run, and one scale for all flags
        little else.
    """

    signal: SignalName = "predicted_x0"
    resolution: Annotated[int, Meta(ge=4, le=1024)] = 64
    blur: Annotated[float, Meta(ge=0, lt=1)] = 1 / 32
    floor: Annotated[float, Meta(gt=0, le=10)] = 2e-3
    contrast: Literal["none", "local"] = "none"
    combine: Literal["peak", "persistent", "mean"] = "mean"
    direction: Literal["high", "low", "both"] = "high"
    by_position: bool = True


@dataclass(frozen=True)
class Parameters(Settings):
    """Settings with the clean-up in map cells.

    Attributes
    ----------
    min_width : int
        Side of the opening, in map cells.
    """

    min_width: int = 2

    def __post_init__(self) -> None:
        """Check names and sizes."""
        for name, value, expected in (
            ("signal", self.signal, SIGNALS),
            ("contrast", self.contrast, ("none", "local")),
            ("combine", self.combine, ("peak", "persistent", "mean")),
            ("direction", self.direction, ("high", "low", "both")),
        ):
            if value not in expected:
                raise InputError(f"{name} {value!r} is unknown; expected one of {expected}")
        if self.resolution < 4 or self.min_width < 1 or not 0 <= self.blur < 1 or self.floor <= 0:
            raise InputError(
                "resolution must be at least 4, min_width at least 1, blur a fraction of the side "
                f"in 0..1 and floor positive: {self}"
            )


def log_change(change: Any, parameters: Parameters, *, contrast_of: Any = None) -> Any:
    """Logarithm of the pooled size of a change.

    Parameters
    ----------
    change : array, float32, shape (batch, channel, y, x)
    parameters : Parameters
    contrast_of : array, optional
        The signal itself, whose local standard deviation divides the change where the parameters
        ask for it.

    Returns
    -------
    array, float32, shape (batch, map y, map x)
    """
    return log_size(pooled(change, parameters, contrast_of=contrast_of), parameters)


def pooled(
    change: Any, parameters: Parameters, *, contrast_of: Any = None, factor: int | None = None
) -> tuple[Any, ...]:
    """The maps that `log_size` needs: what is made of them knows no pixel any more.

    Parameters
    ----------
    change, parameters, contrast_of
        As in `log_change`; or only some of the image's rows, from one that a map's begins with.
    factor : int, optional
        Side in pixels of a cell, where these are not all rows.

    Returns
    -------
    tuple of array, each of shape (batch, map y, map x)
    """
    given = [change * change]
    if parameters.contrast == "local" and contrast_of is not None:
        given += [contrast_of, contrast_of * contrast_of]
    return tuple(pool(values, parameters.resolution, factor) for values in given)


def log_size(maps: Sequence[Any], parameters: Parameters) -> Any:
    """Logarithm of the size of a change, from what `pooled` makes of it.

    Parameters
    ----------
    maps : sequence of array, each of shape (batch, map y, map x)
    parameters : Parameters

    Returns
    -------
    array, float32, shape (batch, map y, map x)
    """
    xp = array_api_compat.array_namespace(maps[0])
    squares, *contrast = (_smooth(values, parameters) for values in maps)
    size = xp.sqrt(squares)
    if contrast:
        mean, square = contrast
        deviation = xp.sqrt(xp.clip(square - mean * mean, 0.0, None))
        size = size / (deviation + 10 * parameters.floor)
    return xp.log(size + parameters.floor)


def pool(values: Any, resolution: int, factor: int | None = None) -> Any:
    """Mean over channels and square cells, until no side is longer than `resolution`.

    Parameters
    ----------
    values : array, shape (batch, channel, y, x)
    resolution : int
    factor : int, optional
        Side of the cells; by default that of an image of this size.

    Returns
    -------
    array, shape (batch, map y, map x)
        A last cell that sticks out of the image is filled by repeating the edge.
    """
    xp = array_api_compat.array_namespace(values)
    factor = factor or pooling_factor(values.shape[-2], values.shape[-1], resolution)
    channels = values.shape[-3]
    total = _sum([values[..., channel, :, :] for channel in range(channels)])
    if factor > 1:
        for axis in (-2, -1):
            missing = -total.shape[axis] % factor
            if missing:
                edge = total[..., -1:, :] if axis == -2 else total[..., -1:]
                total = xp.concat([total] + [edge] * missing, axis=axis)
        # sums of slices, rows first: three times faster than a mean over the axes of a reshape
        total = _sum([total[..., start::factor, :] for start in range(factor)])
        total = _sum([total[..., start::factor] for start in range(factor)])
    count = channels * factor**2
    return total if count == 1 else total * (1 / count)


def _sum(parts: list[Any]) -> Any:
    """Sum of a few arrays."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def pooling_factor(height: int, width: int, resolution: int) -> int:
    """Side in pixels of one map cell."""
    return max(1, ceil(max(height, width) / resolution))


def map_shape(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Shape of the map for images of this size."""
    factor = pooling_factor(height, width, resolution)
    return ceil(height / factor), ceil(width / factor)


def enlarge(small: Any, height: int, width: int) -> Any:
    """Repeat map cells to the size of the image.

    Parameters
    ----------
    small : array, shape (batch, map y, map x)
    height, width : int

    Returns
    -------
    array, shape (batch, height, width)
    """
    xp = array_api_compat.array_namespace(small)
    rows, columns = small.shape[-2:]
    factor = max(ceil(height / rows), ceil(width / columns))
    if factor == 1:
        return small
    blocks = xp.broadcast_to(
        small[:, :, None, :, None], (small.shape[0], rows, factor, columns, factor)
    )
    return xp.reshape(blocks, (small.shape[0], rows * factor, columns * factor))[:, :height, :width]


def lowest_log_change(parameters: Parameters) -> float:
    """The least value `log_change` can take."""
    return log(parameters.floor)


def _smooth(values: Any, parameters: Parameters) -> Any:
    """Blur a map by its fraction of the side."""
    return gaussian_blur(values, parameters.blur * min(values.shape[-2:]))
