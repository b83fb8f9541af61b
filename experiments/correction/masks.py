"""Masks of one area from maps, and inside the foreground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.12  # of the image


def top_share(
    maps: NDArray[Any],
    share: float = SHARE,
    *,
    inside: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """The highest pixels of each map, exactly `share` of the image; ties fall by chance.

    Parameters
    ----------
    maps : array, shape (n, y, x)
    share : float
    inside : bool array, shape (n, y, x), optional
        Pixels that come first, whatever their rank.
    seed : int
        Of the ties.
    """
    rng = np.random.default_rng(seed)
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    first = np.zeros(flat.shape) if inside is None else ~inside.reshape(flat.shape) * 1.0
    order = np.lexsort((rng.random(flat.shape), -flat, first), axis=-1)
    out = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(out, order[:, : round(share * flat.shape[1])], True, axis=1)
    return out.reshape(maps.shape)
