"""The two classifiers of `fashion` with their references, as package data."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from asced_analysis.realism.local import Array, RealismModel
from asced_stores.errors import InputError

FOLDER = Path(__file__).parent / "fashion"
NAMES = ("teacher", "judge")


@cache
def load_embedded(name: str) -> RealismModel:
    """Load the teacher (for calibration) or the judge (for reporting) of `fashion`.

    Parameters
    ----------
    name : {"teacher", "judge"}
        They differ in architecture, seed, layer and in the real images they refer to.

    Returns
    -------
    RealismModel
        For images (n, 1, 32, 32) in -1..1.

    Examples
    --------
    >>> from asced_analysis.realism import load_embedded
    >>> load_embedded("teacher").name
    'fashion-teacher'
    """
    if name not in NAMES:
        raise InputError(f"no embedded realism model {name!r}; choose one of {', '.join(NAMES)}")
    import torch
    from safetensors.torch import load_file

    from asced_analysis.realism.networks import build_network

    card = json.loads((FOLDER / f"{name}.json").read_text())
    network = build_network(card["architecture"])
    network.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))
    reference = load_file(FOLDER / f"{name}-reference.safetensors")
    scale = reference["scale"]

    def encode(images: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            local, vectors = network.features(torch.from_numpy(np.ascontiguousarray(images)))
            scaled = (local / scale[:, None, None]).permute(0, 2, 3, 1)
            return scaled.contiguous().numpy(), vectors.numpy()

    return RealismModel(
        name=card["name"],
        encode=encode,
        patches=reference["patches"].float().numpy(),
        vectors=reference["vectors"].float().numpy(),
        mean=reference["mean"].numpy(),
        covariance=reference["covariance"].numpy(),
        image_shape=(1, 32, 32),
        card=card,
    )
