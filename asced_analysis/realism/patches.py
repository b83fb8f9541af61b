"""Features without a network: whitened patches at two or three scales."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import Array, RealismModel, cross_fitted
from asced_analysis.realism.modules import PATCHES, model_from_references
from asced_analysis.realism.registry import FeatureKind
from asced_stores.errors import InputError

SIZE = 5  # pixels a side, at full and at half resolution
COMPONENTS = 32
CROSSED = 4  # images from which a population is split in two


def _halve(images: Array) -> Array:
    """Average 2x2 neighbours."""
    n, channels, rows, columns = images.shape
    even = images[:, :, : rows // 2 * 2, : columns // 2 * 2]
    blocks = even.reshape(n, channels, rows // 2, 2, columns // 2, 2)
    return np.asarray(blocks.mean((3, 5)), np.float32)


def _windows(images: Array, stride: int, offset: int) -> Array:
    """Patches of SIZE x SIZE around every stride-th pixel, (n, rows, columns, c)."""
    margin = SIZE // 2
    padded = np.pad(images, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode="edge")
    view = np.lib.stride_tricks.sliding_window_view(padded, (SIZE, SIZE), axis=(2, 3))
    view = view[:, :, offset::stride, offset::stride].transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(view).reshape(*view.shape[:3], -1)


def stride_of(shape: tuple[int, ...]) -> int:
    """Pixels from place to place: 16 places a side up to 64 pixels, 32 above.

    Every second pixel of a 64 x 64 image made the search of one image 4 times as long, and the
    places in between see nearly the same pixels.
    """
    longest = max(shape[-2:])
    places = 16 if longest <= 64 else 32
    stride = 2
    while longest > places * stride:
        stride *= 2
    return stride


def multi_scale_patches(images: Array) -> Array:
    """Pixels around each place, at two or three scales: (n, rows, columns, c).

    At full resolution, and averaged so that a patch spans the places around it; above a stride of
    2 pixels at half of that as well.
    """
    stride = stride_of(images.shape)
    scales = [1, 2] if stride == 2 else [1, stride // 2, stride]
    small, factor, parts = images, 1, []
    for scale in scales:
        while factor < scale:
            small, factor = _halve(small), 2 * factor
        step = stride // scale
        parts.append(_windows(small, step, step // 2 if stride > 2 else 0))
    rows, columns = (min(part.shape[axis] for part in parts) for axis in (1, 2))
    return np.concatenate([part[:, :rows, :columns] for part in parts], axis=-1)


def patch_model(
    reference: NDArray[np.floating[Any]],
    *,
    name: str = "patches",
    patches: int = PATCHES,
    seed: int = 0,
    of: Reference | None = None,
    runs: NDArray[np.integer[Any]] | None = None,
) -> RealismModel:
    """Build a judge from images alone.

    Parameters
    ----------
    reference : array, shape (n, channel, y, x)
        Real images, or samples of a population, in -1..1.
    name : str
        Stands in every result.
    patches : int
        How many reference patches to keep.
    seed : int
        Of their choice.
    of : Reference, optional
        What the reference is. Where it is not said, its images may be judged themselves: each half
        of them then judges the other (`asced_analysis.realism.local.cross_fitted`).
    runs : int array, shape (n,), optional
        The runs that the reference's images are of, where they are recorded ones.

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
    if of is None and len(reference) >= CROSSED:

        def build(images: Array, numbers: NDArray[np.integer[Any]] | None) -> RealismModel:
            some = Reference(images=len(images))
            return patch_model(images, name=name, patches=patches, seed=seed, of=some, runs=numbers)

        return cross_fitted(build, reference, runs)
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
        reference=of,
        runs=runs,
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
    if min(reference.shape[-2:]) < 4:
        raise InputError(
            f"patches need images of at least 4 x 4 pixels, not {reference.shape[-2:]}; choose "
            "another kind of features"
        )
    flat = multi_scale_patches(few)
    flat = flat.reshape(-1, flat.shape[-1])
    flat = flat[rng.permutation(len(flat))[:50_000]]
    centre = flat.mean(0)
    values, basis = np.linalg.eigh(np.cov(flat - centre, rowvar=False))
    if values.max() <= 1e-12:
        raise InputError(
            f"the {len(reference)} reference images are all one flat colour: there is nothing to "
            "compare with; give, or record, different images"
        )
    keep = np.argsort(values)[::-1][:COMPONENTS]
    floor = 1e-3 * values.max()  # rarely used directions are not blown up to noise
    return centre, (basis[:, keep] / np.sqrt(values[keep] + floor)).astype(np.float32)


class PatchKind(FeatureKind):
    """Whitened patches of the reference itself: no network, pictures of any kind."""

    name = "patches"
    summary = "whitened patches at several scales: no network, pictures and latents of any kind"

    def build(self, given: str, images: Any, of: Reference | None, runs: Any) -> RealismModel:
        """Look at the reference (see `registry.FeatureKind`)."""
        return patch_model(images, of=of, runs=runs)


KIND = PatchKind()
