"""The released detector written slowly and plainly with SciPy, one image at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def artifact_mask(
    x0: npt.NDArray[Any],
    *,
    mad_scale: float = 3.0,
    min_area: float = 100,
    max_area: float = 10000,
    min_width: int = 5,
) -> npt.NDArray[np.bool_]:
    """Mask of one run; `x0` has shape (step, channel, y, x)."""
    pictures = np.clip((x0 + np.float32(1)) * np.float32(127.5), 0, 255).astype(np.uint8)
    frames = np.moveaxis(pictures, 1, -1).astype(np.float32)
    union = np.zeros(x0.shape[-2:], dtype=bool)
    for previous, current in itertools.pairwise(frames):
        change = ndimage.gaussian_filter(np.abs(current - previous), 2.0)
        median = np.median(change)
        mad = np.median(np.abs(change - median))
        union |= change.max(axis=-1) > median + mad_scale * 1.4826 * mad
    labels, count = ndimage.label(union)
    cores = ndimage.binary_erosion(union, np.ones((min_width, min_width)))
    result = np.zeros_like(union)
    for label in range(1, count + 1):
        component = labels == label
        if min_area < component.sum() < max_area and (component & cores).any():
            result |= component
    return result
