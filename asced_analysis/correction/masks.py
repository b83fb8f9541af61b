"""Shape of the edit: growing a mask and softening its edges, on the device of the sample."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def grow(mask: Tensor, pixels: int, /) -> Tensor:
    """Grow a mask by a square of `pixels` on every side.

    Parameters
    ----------
    mask : Tensor, shape (n, y, x)
        Float in 0..1.
    pixels : int
        0 leaves it; the released code of ASCED grows by 5 pixels of 256.
    """
    if pixels <= 0:
        return mask
    return functional.max_pool2d(mask[:, None], 2 * pixels + 1, 1, pixels)[:, 0]


def soften(mask: Tensor, pixels: int, /) -> Tensor:
    """Let the weight fall linearly to 0 over `pixels` outside a hard mask.

    The mask itself keeps weight 1, and beyond `pixels` the weight is exactly 0.
    """
    weight = mask
    grown = mask
    for distance in range(1, pixels + 1):
        grown = grow(grown, 1)
        weight = torch.maximum(weight, grown * (1 - distance / (pixels + 1)))
    return weight


def without_edges(masks: NDArray[np.bool_], pixels: int, /) -> NDArray[np.bool_]:
    """Take soft edges off masks (n, y, x) that hold them: what is left fades to the same again."""
    outside = 1 - torch.from_numpy(masks).float()
    return np.asarray(grow(outside, pixels).numpy() == 0)


def resize(mask: Tensor, shape: tuple[int, int], /) -> Tensor:
    """Bring a mask (n, y, x) to another resolution; a pixel is in where any of its sources is."""
    if tuple(mask.shape[-2:]) == shape:
        return mask
    if mask.shape[-2] >= shape[0] and mask.shape[-1] >= shape[1]:
        return functional.adaptive_max_pool2d(mask[:, None], shape)[:, 0]
    return functional.interpolate(mask[:, None], shape, mode="nearest")[:, 0]


def broadcast_to_sample(mask: Tensor, sample: Tensor, /) -> Tensor:
    """Reshape a mask (n, y, x) to (n, 1, ..., y, x), so that it multiplies the sample."""
    resized = resize(mask, (sample.shape[-2], sample.shape[-1]))
    return resized.reshape(len(mask), *[1] * (sample.ndim - 3), *resized.shape[-2:])
