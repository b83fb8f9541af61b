"""What is usual in a population: robust location and scale, streamed in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.detection import change_maps
from asced_analysis.detection.feeding import (
    BAND_VALUES,
    IMAGE_PASSES,
    feed,
    feed_bands,
    is_large_image,
)
from asced_analysis.detection.log_snr_grid import GridSignal, GridState

if TYPE_CHECKING:
    from asced_analysis.compute.source import Batch

Floats = npt.NDArray[np.float64]
_Sizes = tuple[GridState, dict[int, npt.NDArray[Any]]]
_Maps = tuple[GridState, dict[int, tuple[npt.NDArray[Any], ...]]]

BIN_WIDTH = 0.01
BIN_WIDTH_BY_POSITION = 0.1
SPAN = 14.0
LEAST_SCALE = 0.05


@dataclass(frozen=True)
class Population:
    """Location and scale of the log change by grid cell, and each run's means for drift.

    Attributes
    ----------
    location, scale : array, shape (cell,) or (cell, y, x)
        Median and 1.4826 MAD.
    run_means : array, shape (run, cell)
        Mean log change of each run.
    """

    location: Floats
    scale: Floats
    run_means: Floats


def fit_population(
    batches: Iterable[Batch],
    signal: GridSignal,
    parameters: change_maps.Parameters,
) -> Population:
    """Stream over batches of the fit set.

    Parameters
    ----------
    batches : iterable of Batch
        Holding what ``signal.needs()`` names, from step ``signal.first_step`` on.
    signal : GridSignal
    parameters : Parameters of `calibrated`
    """
    cells = len(signal.grid) - 1
    width = BIN_WIDTH_BY_POSITION if parameters.by_position else BIN_WIDTH
    bins = int(SPAN / width)
    lowest = change_maps.lowest_log_change(parameters)
    counts: npt.NDArray[np.int32] | None = None
    means: list[Floats] = []
    for batch in batches:
        for rows, sizes in cell_sizes(batch, signal, parameters):
            if counts is None:
                places = sizes[0].shape[1:] if parameters.by_position else (1, 1)
                counts = np.zeros((cells, *places, bins), dtype=np.int32)
            means.append(np.full((rows, cells), np.nan))
            for cell, size in sizes.items():
                index = np.clip(((size - lowest) / width).astype(np.int64), 0, bins - 1)
                _count(counts[cell], index)
                means[-1][:, cell] = size.mean(axis=(-2, -1))
    if counts is None:
        raise ValueError("no run to fit on")
    centers = lowest + (np.arange(bins, dtype=np.float64) + 0.5) * width
    location, scale = location_and_scale(counts, centers)
    if not parameters.by_position:
        location, scale = location[:, 0, 0], scale[:, 0, 0]
    return Population(location, np.maximum(scale, LEAST_SCALE), np.concatenate(means))


def cell_sizes(
    batch: Batch, signal: GridSignal, parameters: change_maps.Parameters
) -> Iterable[tuple[int, dict[int, npt.NDArray[Any]]]]:
    """Log change of a batch in every grid cell, as ``(rows, {cell: (row, y, x)})``."""
    if is_large_image(batch.arrays):
        yield 1, sizes_by_bands(batch.arrays, batch.first_step, signal, parameters)
        return

    def update(state: _Sizes, step: int, **given: Any) -> _Sizes:
        grid, sizes = state
        grid, changes = signal.advance(grid, step, **given)
        for cell, change in changes:
            sizes[cell] = change_maps.log_change(change, parameters, contrast_of=grid.signal)
        return grid, sizes

    fed = feed(batch.arrays, batch.first_step, lambda _: (GridState(), {}), update)
    for rows, (_, sizes) in fed:
        yield rows.stop - rows.start, sizes


def sizes_by_bands(
    arrays: Mapping[str, Any],
    first_step: int,
    signal: GridSignal,
    parameters: change_maps.Parameters,
) -> dict[int, npt.NDArray[Any]]:
    """Log change of a large image in every grid cell, band by band of its rows.

    Parameters
    ----------
    arrays, first_step
        As in `feeding.feed_bands`.
    signal : GridSignal
    parameters : change_maps.Parameters

    Returns
    -------
    dict of int to array, shape (1, map y, map x)
    """
    *_, channels, height, width = next(iter(arrays.values())).shape
    factor = change_maps.pooling_factor(height, width, parameters.resolution)
    cells_high = min(BAND_VALUES // (channels * width * factor), height // factor // IMAGE_PASSES)

    def update(state: _Maps, step: int, **given: Any) -> _Maps:
        grid, cells = state
        grid, changes = signal.advance(grid, step, **given)
        for cell, change in changes:
            cells[cell] = change_maps.pooled(
                change, parameters, contrast_of=grid.signal, factor=factor
            )
        return grid, cells

    band = factor * max(1, cells_high)
    bands = feed_bands(arrays, first_step, band, lambda: (GridState(), {}), update)
    parts = [cells for _, cells in bands]
    return {
        cell: change_maps.log_size(
            [
                np.concatenate(maps, axis=-2)
                for maps in zip(*(part[cell] for part in parts), strict=True)
            ],
            parameters,
        )
        for cell in parts[0]
    }


def location_and_scale(counts: npt.NDArray[Any], centers: Floats) -> tuple[Floats, Floats]:
    """Median and 1.4826 MAD from counts; shape (...) of (..., bin)."""
    total = counts.sum(axis=-1, keepdims=True)
    below = np.cumsum(counts, axis=-1, dtype=np.int64)
    median_bin = (below * 2 < total).sum(axis=-1)
    median = centers[np.minimum(median_bin, centers.size - 1)]
    # a bin d bins away from the median's bin deviates by d bin widths: fold the counts
    reach = np.arange(centers.size)
    padded = np.concatenate([np.zeros_like(below[..., :1]), below], axis=-1)
    upper = np.minimum(median_bin[..., None] + reach + 1, centers.size)
    lower = np.maximum(median_bin[..., None] - reach, 0)
    inside = np.take_along_axis(padded, upper, axis=-1) - np.take_along_axis(padded, lower, axis=-1)
    mad = (inside * 2 < total).sum(axis=-1) * (centers[1] - centers[0])
    return median, 1.4826 * mad


def _count(counts: npt.NDArray[np.int32], index: npt.NDArray[np.int64]) -> None:
    """Add (run, y, x) bin numbers to counts of shape (y or 1, x or 1, bin)."""
    rows, columns, bins = counts.shape
    if rows * columns == 1:
        counts[0, 0] += np.bincount(index.ravel(), minlength=bins).astype(np.int32)
        return
    place = np.arange(rows * columns).reshape(rows, columns) * bins
    flat = np.bincount((index + place).ravel(), minlength=counts.size)
    counts += flat.reshape(counts.shape).astype(np.int32)
