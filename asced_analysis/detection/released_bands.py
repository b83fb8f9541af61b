"""The released detector's steps of one large image, of which few rows are widened at once.

Frames are kept as 8-bit numbers. The blurred change between two is made band by band, anew for each
of the passes that its exact median and MAD take; of a third of the bands it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.changes import parts_of
from asced_analysis.counts.selection import deviation_of, median_of
from asced_analysis.detection.blur import Band, gaussian_bands, gaussian_matrix

Floats = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]
COLUMNS = 256
"""That are blurred at once: the blur's reach, in rows, grows with the image."""


def largest_excess(
    arrays: Mapping[str, Any], steps: range, frame: Any, blur: float
) -> npt.NDArray[np.float32]:
    """What `released.Stream` has as its statistic after all steps, shape (1, y, x).

    Parameters
    ----------
    arrays : mapping of str to array, shape (1, step, channel, y, x)
        Holding ``x0``, read step by step.
    steps : range
        Places along its steps.
    frame : callable
        Predicted x0 to an 8-bit picture of floating numbers.
    blur : float
        Standard deviation in pixels.
    """
    *_, height, width = arrays["x0"].shape
    statistic = np.full((height, width), -np.inf, np.float32)
    previous: Frame | None = None
    for step in steps:
        current = _eight_bits(arrays["x0"], step, frame)
        if current is None:
            return np.full((1, height, width), np.nan, np.float32)
        if previous is not None:
            _take_in(statistic, _BlurredChange(previous, current, blur))
        previous = current
    return statistic[None]


def _eight_bits(x0: Any, step: int, frame: Any) -> Frame | None:
    """One step's frame, shape (channel, y, x); None where a number is not one."""
    values = np.asarray(x0[:, step])[0]
    made = np.empty(values.shape, np.uint8)
    for row in range(values.shape[-2]):
        part = frame(values[:, row])
        if np.isnan(part).any():
            return None
        made[:, row] = part
    return made


def _take_in(statistic: Floats, change: _BlurredChange) -> None:
    """The largest of what there was and of a change in its own robust units, in place."""
    median = median_of(change.parts, change.size)
    mad = deviation_of(change.parts, change.size, median)
    spread = np.maximum(np.float32(1.4826) * mad, np.float32(1e-6))
    for rows, part in change.bands():
        robust = (part.max(axis=0) - median) / spread
        np.maximum(statistic[rows], robust, out=statistic[rows])


class _BlurredChange:
    """`released.step_excess`'s blurred absolute change, by bands of rows."""

    def __init__(self, previous: Frame, current: Frame, blur: float) -> None:
        self._frames, self._blur = (previous, current), blur
        self.size = current.size
        channels, height, width = current.shape
        self._down = gaussian_bands(height, blur)
        self._across = gaussian_bands(width, blur)
        self._over = gaussian_matrix(channels, blur)
        self._kept = [self._made(band) for band in self._down[: len(self._down) // 3]]

    def bands(self) -> Iterator[tuple[slice, Floats]]:
        """Rows, and the change there, shape (channel, row, x)."""
        for place, band in enumerate(self._down):
            kept = place < len(self._kept)
            yield band.rows, self._kept[place] if kept else self._made(band)

    def parts(self) -> Iterator[Floats]:
        """The change alone, flat."""
        return (part.reshape(-1) for _, part in self.bands())

    def _made(self, band: Band) -> Floats:
        """In float64, rounded at the end, as `blur.gaussian_blur` does."""
        channels, _, width = self._frames[0].shape
        high = band.rows.stop - band.rows.start
        down = np.empty((channels, high, width))
        for channel in range(channels):  # the rows around it, in float64, are as much as a step
            for some in parts_of(width, COLUMNS):
                last, now = (one[channel, band.columns, some].astype(float) for one in self._frames)
                np.subtract(now, last, out=now)
                down[channel, :, some] = band.weights @ np.abs(now, out=now)
        across = np.empty_like(down)
        for one in self._across:
            np.matmul(down[..., one.columns], one.weights.T, across[..., one.rows])
        if channels > 1 and self._blur > 0:
            across = (self._over @ across.reshape(channels, -1)).reshape(across.shape)
        return across.astype(np.float32)
