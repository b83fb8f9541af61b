"""Recorded numbers as the bytes of pictures: grey, colours, or a place on a colour scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.plots.false_colours import SHARE_INSIDE, Projection, false_colours

__all__ = ["Projection", "eight_bit", "false_colours", "pixels_of", "reach_of", "thumbnail"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def eight_bit(values: npt.NDArray[Any], low: float, high: float) -> Bytes:
    """Map low..high to 0..255, clipped; what is not a number becomes 0."""
    span = (high - low) or 1.0
    scaled = np.nan_to_num((values.astype(np.float32) - low) * (255.0 / span), nan=0.0)
    levels: Bytes = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return levels


def reach_of(values: npt.NDArray[Any]) -> float:
    """The largest magnitude of nearly all finite values; 1 where there is none."""
    size = np.abs(values[np.isfinite(values)])
    if not size.size:
        return 1.0
    place = int(SHARE_INSIDE * (size.size - 1))
    reach = float(np.partition(size, place)[place])
    return reach or float(size.max()) or 1.0


def pixels_of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Channels last, as pictures are stored: (channel, y, x) to (y, x, channel)."""
    return np.ascontiguousarray(np.moveaxis(values, -3, -1))


def thumbnail(image: Bytes, side: int) -> Bytes:
    """A picture whose longer side is at most `side` pixels, by averaging.

    Parameters
    ----------
    image : uint8 array, shape (row, column, colour)
        One, three or four colours; transparency is dropped.
    side : int

    Returns
    -------
    uint8 array, shape (row, column, 1 or 3)
    """
    from PIL import Image

    image = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    rows, columns = image.shape[:2]
    if max(rows, columns) <= side:
        return np.ascontiguousarray(image)
    scale = side / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    grey = image.shape[-1] == 1
    small = Image.fromarray(image[..., 0] if grey else image).resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.uint8).reshape(size[1], size[0], -1)
