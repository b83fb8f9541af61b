"""Recorded numbers as the bytes of pictures: grey, colours, or a place on a colour scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SHARE_INSIDE = 0.995
"""Share of the values that a colour scale spans; the rest has its end's colour."""


@dataclass(frozen=True)
class Projection:
    """How latents of many channels become three colours.

    Attributes
    ----------
    mean : array, shape (channel,)
    components : array, shape (3, channel)
    reach : float
        Value at which a colour is full.
    """

    mean: Floats
    components: Floats
    reach: float

    def colours(self, values: npt.NDArray[Any]) -> Floats:
        """Project (..., channel, y, x) to (..., 3, y, x)."""
        centred = values.astype(np.float32) - self.mean[:, None, None]
        mixed: Floats = np.einsum("kc,...cyx->...kyx", self.components, centred)
        return mixed


def false_colours(latent: npt.NDArray[Any]) -> Projection:
    """Three principal components of a latent: what differs most within it gets colours.

    Parameters
    ----------
    latent : array, shape (channel, y, x)
        Predicted x0 at the end of a run.
    """
    flat = np.nan_to_num(latent.astype(np.float64)).reshape(latent.shape[0], -1)
    mean = flat.mean(axis=1)
    _, vectors = np.linalg.eigh(np.cov(flat) if flat.shape[0] > 1 else np.ones((1, 1)))
    chosen = vectors[:, ::-1][:, :3].T
    if len(chosen) < 3:
        chosen = np.concatenate([chosen, np.zeros((3 - len(chosen), latent.shape[0]))])
    # an eigenvector's sign is arbitrary: fixed, so that runs can be compared
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, None], axis=1)
    chosen = chosen * np.where(largest < 0, -1, 1)
    reach = float(np.quantile(np.abs(chosen @ (flat - mean[:, None])), SHARE_INSIDE)) or 1.0
    return Projection(mean.astype(np.float32), chosen.astype(np.float32), reach)


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
