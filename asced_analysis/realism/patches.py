"""Local realism without a network: whitened patches at two scales.

For pipelines that no embedded classifier fits. Where no real images are at hand, the bulk of the
population's own samples serves as reference; the name then says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.local import Array, RealismModel
from asced_analysis.realism.modules import model_from_references

SIZE = 5  # pixels a side, at full and at half resolution
COMPONENTS = 32


def _halve(images: Array) -> Array:
    """Average 2x2 neighbours."""
    n, channels, rows, columns = images.shape
    even = images[:, :, : rows // 2 * 2, : columns // 2 * 2]
    blocks = even.reshape(n, channels, rows // 2, 2, columns // 2, 2)
    return np.asarray(blocks.mean((3, 5)), np.float32)


def _windows(images: Array, stride: int) -> Array:
    """Patches of SIZE x SIZE around every stride-th pixel, (n, rows, columns, c)."""
    margin = SIZE // 2
    padded = np.pad(images, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode="edge")
    view = np.lib.stride_tricks.sliding_window_view(padded, (SIZE, SIZE), axis=(2, 3))
    view = view[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(view).reshape(*view.shape[:3], -1)


def multi_scale_patches(images: Array) -> Array:
    """Pixels around each position of a half-resolution grid, at two scales: (n, y/2, x/2, c)."""
    fine = _windows(images, 2)
    coarse = _windows(_halve(images), 1)
    rows, columns = min(fine.shape[1], coarse.shape[1]), min(fine.shape[2], coarse.shape[2])
    return np.concatenate([fine[:, :rows, :columns], coarse[:, :rows, :columns]], axis=-1)


def patch_model(
    reference: NDArray[np.floating[Any]],
    *,
    name: str = "patches",
    patches: int = 16_000,
    seed: int = 0,
) -> RealismModel:
    """Build a judge from images alone.

    Parameters
    ----------
    reference : array, shape (n, channel, y, x)
        Real images, or the bulk of the population's own samples, in -1..1.
    name : str
        Stands in every result; say what the reference was.
    patches : int
        How many reference patches to keep.
    seed : int
        Of their choice.

    Returns
    -------
    RealismModel
        Local features are the leading principal components of the patches, whitened; an image's
        vector is the mean and the standard deviation of its local features.

    Examples
    --------
    >>> from asced_analysis import open_runs
    >>> from asced_analysis.realism import patch_model
    >>> patch_model(open_runs("runs.zarr")["sample"].values, patches=500).name
    'patches'
    """
    reference = np.asarray(reference, np.float32)
    centre, projection = whitening_of(reference, seed=seed)

    def encode(images: Array) -> tuple[Array, Array]:
        local = (multi_scale_patches(images) - centre) @ projection
        vectors = np.concatenate([local.mean((1, 2)), local.std((1, 2))], axis=1)
        return np.asarray(local, np.float32), np.asarray(vectors, np.float32)

    return model_from_references(
        name,
        encode,
        reference,
        patches=patches,
        seed=seed,
        image_shape=(int(reference.shape[1]), int(reference.shape[2]), int(reference.shape[3])),
    )


def whitening_of(reference: Array, *, seed: int = 0) -> tuple[Array, Array]:
    """Centre and whitening projection of the patches of reference images.

    Parameters
    ----------
    reference : float32 array, shape (n, channel, y, x)
    seed : int
        Of the images and patches that are looked at.

    Returns
    -------
    centre : array, shape (c,)
    projection : array, shape (c, 32)
        Leading principal components, whitened.
    """
    rng = np.random.default_rng(seed)
    few = reference[rng.permutation(len(reference))[:1000]]
    flat = multi_scale_patches(few)
    flat = flat.reshape(-1, flat.shape[-1])
    flat = flat[rng.permutation(len(flat))[:50_000]]
    centre = flat.mean(0)
    values, basis = np.linalg.eigh(np.cov(flat - centre, rowvar=False))
    keep = np.argsort(values)[::-1][:COMPONENTS]
    floor = 1e-3 * values.max()  # rarely used directions are not blown up to noise
    return centre, (basis[:, keep] / np.sqrt(values[keep] + floor)).astype(np.float32)
