"""What the learnt detector sees of a large image, made of bands of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import array_api_compat

from asced_analysis.detection import change_maps
from asced_analysis.detection.feeding import IMAGE_PASSES, feed_bands
from asced_analysis.detection.log_snr_grid import GridSignal, GridState
from asced_analysis.detection.row_means import rows_at_once


@dataclass(frozen=True)
class _Band:
    """Of some rows: the grid's state, pooled changes so far, the snapshot at the window's end."""

    grid: GridState = field(default_factory=GridState)
    cells: tuple[Any, ...] = ()
    snapshot: Any = None


def maps_by_bands(
    arrays: Mapping[str, Any],
    first_step: int,
    signal: GridSignal,
    last_step: int,
    maps: change_maps.Parameters,
    snapshot: Callable[..., Any],
) -> tuple[dict[int, Any], Any]:
    """Log change in every grid cell, and channels of the window's end.

    Parameters
    ----------
    arrays : mapping of str to array, shape (1, step, channel, y, x)
        Holding ``eps`` and ``x0``, read step by step.
    first_step : int
        Of the arrays.
    signal : GridSignal
        Of predicted x0.
    last_step : int
        Of the window.
    maps : change_maps.Parameters
        How changes are pooled.
    snapshot : callable
        ``snapshot(x0, eps, height)`` to channels of some rows of an image so high.

    Returns
    -------
    cells : dict of int to array, shape (1, map y, map x)
    snapshot : array, shape (1, channel, map y, map x)
    """
    *_, channels, height, width = arrays["x0"].shape
    factor = change_maps.pooling_factor(height, width, maps.resolution)
    rows = min(rows_at_once(channels * width), height // IMAGE_PASSES)

    def update(band: _Band, step: int, *, eps: Any, x0: Any) -> _Band:
        grid, changes = signal.advance(band.grid, step, x0=x0)
        pooled = [change_maps.pooled(change, maps, factor=factor)[0] for _, change in changes]
        band = replace(band, grid=grid, cells=(*band.cells, *pooled))
        if step != last_step:
            return band
        return replace(band, grid=GridState(), snapshot=snapshot(grid.at_grid, eps, height))

    pictures = {name: arrays[name] for name in ("eps", "x0")}
    bands = feed_bands(pictures, first_step, factor * max(1, rows // factor), _Band, update)
    parts = list(bands)
    xp = array_api_compat.array_namespace(parts[0].snapshot)
    joined = (
        xp.concat(every, axis=-2) for every in zip(*(one.cells for one in parts), strict=True)
    )
    cells = {cell: change_maps.log_size([whole], maps) for cell, whole in enumerate(joined)}
    return cells, xp.concat([one.snapshot for one in parts], axis=-2)
