"""Any torch module as a feature extractor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.local import Array, Encoder, RealismModel
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def model_from_references(
    name: str,
    encode: Encoder,
    real: NDArray[np.floating[Any]],
    *,
    patches: int = 16_000,
    seed: int = 0,
    image_shape: tuple[int, int, int] | None = None,
    card: dict[str, Any] | None = None,
) -> RealismModel:
    """Build a `RealismModel` from an encoder and reference images (n, channel, y, x) in -1..1.

    Local features are divided by their standard deviation over the references.
    """
    if len(real) < 2:
        raise InputError(f"a realism model needs at least 2 reference images, got {len(real)}")
    real = np.asarray(real, np.float32)
    parts = [encode(real[begin : begin + 256]) for begin in range(0, len(real), 256)]
    local = np.concatenate([part[0] for part in parts])
    vectors = np.concatenate([part[1] for part in parts])
    flat = local.reshape(-1, local.shape[-1])
    scale = np.maximum(flat.std(0), 1e-6)
    chosen = np.random.default_rng(seed).permutation(len(flat))[:patches]

    def scaled(images: Array) -> tuple[Array, Array]:
        maps, whole = encode(images)
        return np.ascontiguousarray(maps / scale), whole

    return RealismModel(
        name=name,
        encode=scaled,
        patches=np.ascontiguousarray(flat[np.sort(chosen)] / scale),
        vectors=vectors,
        mean=vectors.mean(0, dtype=np.float64),
        covariance=np.cov(vectors, rowvar=False, dtype=np.float64).reshape(
            vectors.shape[1], vectors.shape[1]
        ),
        image_shape=image_shape,
        card=card or {},
    )


def model_from_module(
    name: str,
    network: nn.Module,
    real: NDArray[np.floating[Any]],
    *,
    local_layer: str,
    vector_layer: str | None = None,
    patches: int = 16_000,
    seed: int = 0,
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

    return model_from_references(name, encode, real, patches=patches, seed=seed)
