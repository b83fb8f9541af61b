"""Means over an image's pixels, by rows: a large image is widened a few rows at a time.

The rows' own means are taken first in any case, so that the loop and a store give the same numbers
but for what a library's sums differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import array_api_compat

AT_ONCE = 1 << 16
"""Values of the rows that are worked on at once, if a row has no more."""


def rows_at_once(row_values: int) -> int:
    """How many rows of so many values are worked on together."""
    return max(1, AT_ONCE // row_values)


def bands(height: int, row_values: int) -> Iterator[slice]:
    """Rows that are worked on together.

    Parameters
    ----------
    height : int
        Number of rows.
    row_values : int
        Values of a row, over all channels.
    """
    each = rows_at_once(row_values)
    return (slice(at, min(at + each, height)) for at in range(0, height, each))


def row_means(function: Callable[..., tuple[Any, ...]], *images: Any) -> tuple[Any, ...]:
    """Means along x of what a function makes of pixels, each of shape (..., channel, y).

    Parameters
    ----------
    function : callable
        Of arrays in float32 (or wider, where they are) to arrays of the same shape.
    *images : array, shape (..., channel, y, x)
        All of one shape.
    """
    xp = array_api_compat.array_namespace(images[0])
    shape = images[0].shape
    alone = array_api_compat.is_numpy_namespace(xp) and len(shape) == 4 and shape[0] == 1
    some = bands(shape[-2], shape[-3] * shape[-1]) if alone else [slice(None)]
    parts = []
    for rows in some:
        made = function(*(wide(values[..., rows, :]) for values in images))
        parts.append(tuple(xp.mean(one, axis=-1) for one in made))
    if len(parts) == 1:
        return parts[0]
    return tuple(xp.concat(ones, axis=-1) for ones in zip(*parts, strict=True))


def pixel_mean(rows: Any) -> Any:
    """Mean over channels and rows, shape (...) of (..., channel, y)."""
    return array_api_compat.array_namespace(rows).mean(rows, axis=(-2, -1))


def wide(values: Any) -> Any:
    """At least float32."""
    xp = array_api_compat.array_namespace(values)
    return values if values.dtype in (xp.float32, xp.float64) else xp.astype(values, xp.float32)
