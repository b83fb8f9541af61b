"""Grey opening: a clean-up that is nested in the level and needs no labelling.

A mask that is opened by a square keeps the places where the whole square fits. Opening commutes
with thresholds: the opened statistic above a level *is* the opened mask of that level. So one map
holds the cleaned-up masks of all levels, its maximum is the largest level that leaves anything,
and it runs on a GPU without a host round trip.
"""

from __future__ import annotations

from typing import Any

import array_api_compat


def grey_opening(statistic: Any, width: int, /) -> Any:
    """Opening by a square: the largest, over squares that hold a place, of the square's smallest.

    Parameters
    ----------
    statistic : array, shape (..., y, x)
    width : int
        Side of the square in elements; squares lie wholly inside the image. An image smaller than
        the square is treated as one square.

    Returns
    -------
    array, shape (..., y, x)
        At most `statistic` everywhere; its components are at least `width` wide and
        ``width**2`` large at every level.
    """
    if width <= 1:
        return statistic
    xp = array_api_compat.array_namespace(statistic)
    opened = statistic
    for axis in (-2, -1):
        opened = _slide(xp, opened, min(width, statistic.shape[axis]), axis, xp.minimum)
    for axis in (-2, -1):
        side = min(width, statistic.shape[axis])
        opened = _slide(xp, _pad(xp, opened, side - 1, axis), side, axis, xp.maximum)
    return opened


def _slide(xp: Any, values: Any, width: int, axis: int, combine: Any) -> Any:
    """Combine every `width` neighbours of an axis; the axis gets shorter by ``width - 1``."""
    length = values.shape[axis] - width + 1
    result = None
    for offset in range(width):
        part = (
            values[..., offset : offset + length]
            if axis == -1
            else values[..., offset : offset + length, :]
        )
        result = part if result is None else combine(result, part)
    return result


def _pad(xp: Any, values: Any, count: int, axis: int) -> Any:
    """Put `count` values below everything on both ends of an axis."""
    if count == 0:
        return values
    shape = list(values.shape)
    shape[axis] = count
    border = xp.full(
        tuple(shape), -xp.inf, dtype=values.dtype, device=array_api_compat.device(values)
    )
    return xp.concat([border, values, border], axis=axis)
