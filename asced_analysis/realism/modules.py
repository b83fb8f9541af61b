"""Any torch module as a feature extractor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.cache import cached
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import Array, Encoder, RealismModel
from asced_analysis.realism.membership import membership_of
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import nn

PATCHES = 16_000


def model_from_references(
    name: str,
    encode: Encoder,
    real: NDArray[np.floating[Any]],
    *,
    patches: int = PATCHES,
    seed: int = 0,
    image_shape: tuple[int, int, int] | None = None,
    card: dict[str, Any] | None = None,
    reference: Reference | None = None,
    runs: NDArray[np.integer[Any]] | None = None,
    version: str | None = None,
) -> RealismModel:
    """Build a `RealismModel` from an encoder and reference images.

    Local features are centred, and divided by their standard deviation over the reference.

    Parameters
    ----------
    name : str
    encode : callable
        Images to local features and vectors, see `RealismModel`.
    real : array, shape (n, channel, y, x)
        The reference, in -1..1.
    patches : int
        How many local features to keep, as many of each image as may be.
    seed : int
        Of that choice.
    image_shape, card
        See `RealismModel`.
    reference : Reference, optional
        What `real` is; by default real images.
    runs : int array, shape (n,), optional
        The runs that the images are of, where they are recorded ones.
    version : str, optional
        Hash of what the encoder is made of; with it, features are kept in the cache.
    """
    if len(real) < 2:
        raise InputError(f"a realism model needs at least 2 reference images, got {len(real)}")
    real = np.asarray(real, np.float32)
    if not np.isfinite(real).all():
        raise InputError("reference images hold NaN or infinity; leave such images out")

    def look() -> dict[str, NDArray[Any]]:
        return _few_of_each(encode, real, patches, seed)

    seen: dict[str, NDArray[Any]]
    seen = look() if version is None else cached(real, f"{version} {patches} {seed}", look)
    local, vectors, owners = (seen[key] for key in ("local", "vectors", "owners"))
    centre, scale = local.mean(0), np.maximum(local.std(0), 1e-6)

    def scaled(images: Array) -> tuple[Array, Array]:
        maps, whole = encode(images)
        return np.ascontiguousarray((maps - centre) / scale), whole

    return RealismModel(
        name=name,
        encode=scaled,
        patches=np.ascontiguousarray((local - centre) / scale),
        vectors=vectors,
        mean=vectors.mean(0, dtype=np.float64),
        covariance=np.cov(vectors, rowvar=False, dtype=np.float64).reshape(
            vectors.shape[1], vectors.shape[1]
        ),
        image_shape=image_shape,
        card=card or {},
        reference=reference or Reference(images=len(real)),
        members=membership_of(real, owners, runs),
    )


def _few_of_each(encode: Encoder, real: Array, patches: int, seed: int) -> dict[str, NDArray[Any]]:
    """Some local features of every image, all vectors, and the image of each feature.

    Never all features of all images at once: of 5,000 images of 32 x 32 places they are gigabytes.
    """
    rng = np.random.default_rng(seed)
    each = max(1, -(-patches // len(real)))
    local, vectors, owners = [], [], []
    for begin in range(0, len(real), 256):
        maps, whole = encode(real[begin : begin + 256])
        flat = maps.reshape(len(maps), -1, maps.shape[-1])
        for i, places in enumerate(flat):
            chosen = np.sort(rng.permutation(len(places))[:each])
            local.append(places[chosen])
            owners.append(np.full(len(chosen), begin + i, np.intp))
        vectors.append(whole)
    return {
        "local": np.concatenate(local),
        "vectors": np.concatenate(vectors),
        "owners": np.concatenate(owners),
    }


def referred(
    name: str,
    encode: Encoder,
    images: Array,
    of: Reference | None,
    runs: NDArray[np.integer[Any]] | None,
    *,
    version: str,
) -> RealismModel:
    """Build the model of a kind of features; real images' features are kept in the cache."""
    keep = version if of is not None and of.kind == "real" else None
    return model_from_references(name, encode, images, reference=of, runs=runs, version=keep)


def model_from_module(
    name: str,
    network: nn.Module,
    real: NDArray[np.floating[Any]],
    *,
    local_layer: str,
    vector_layer: str | None = None,
    patches: int = PATCHES,
    seed: int = 0,
    reference: Reference | None = None,
    runs: NDArray[np.integer[Any]] | None = None,
    version: str | None = None,
) -> RealismModel:
    """Judge realism by the activations of any torch module.

    Parameters
    ----------
    name : str
        Stands in every result: say which network it is.
    network : torch.nn.Module
        Takes images (n, channel, y, x) in -1..1, on whatever device it lies.
    real : array, shape (n, channel, y, x)
        Real images to refer to.
    local_layer, vector_layer : str
        Names of submodules (`network.named_modules()`): one whose output is a map
        (n, c, rows, columns), and one whose output, averaged over positions if it has any, is the
        image's vector (by default the same).
    patches, seed, reference, runs, version
        As of `model_from_references`.

    Examples
    --------
    >>> import torch
    >>> from asced_analysis import open_runs
    >>> from asced_analysis.realism import model_from_module
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> real = open_runs("runs.zarr")["sample"].values
    >>> model_from_module("mine", net, real, local_layer="1", patches=500).name
    'mine'
    """
    import torch

    modules = dict(network.named_modules())
    for layer in (local_layer, vector_layer or local_layer):
        if layer not in modules:
            raise InputError(f"{name} has no layer {layer!r}; it has {', '.join(modules)[:300]}")
    network.eval()
    example = next(network.parameters())

    def encode(images: Array) -> tuple[Array, Array]:
        seen: dict[str, torch.Tensor] = {}
        layers = {local_layer, vector_layer or local_layer}
        hooks = [
            modules[layer].register_forward_hook(
                lambda _module, _inputs, output, layer=layer: seen.__setitem__(layer, output)
            )
            for layer in layers
        ]
        try:
            with torch.inference_mode():
                network(torch.from_numpy(np.ascontiguousarray(images)).to(example))
        finally:
            for hook in hooks:
                hook.remove()
        local = seen[local_layer].float().permute(0, 2, 3, 1).cpu()
        vector = seen[vector_layer or local_layer].float().cpu()
        vector = vector.mean(tuple(range(2, vector.ndim))) if vector.ndim > 2 else vector
        return local.contiguous().numpy(), vector.numpy()

    return model_from_references(
        name,
        encode,
        real,
        patches=patches,
        seed=seed,
        reference=reference,
        runs=runs,
        version=version,
    )
