"""The noise level of a sample, as ComfyUI's model says how it is noised."""

from __future__ import annotations

import math
from typing import Any

from asced_stores.errors import InputError

REFUSED = {"IMG_TO_IMG": "its sample is an image, not an image with noise"}
"""Kinds of ``model_sampling`` whose samples have no noise level."""


def noise_level(model_sampling: Any, sigma: float) -> tuple[float, float]:
    """``alpha`` and ``sigma`` of ``x = alpha * x0 + sigma * eps`` at a level of ComfyUI.

    Asked of the model itself: an image of ones without noise shows alpha, noise of ones without an
    image shows sigma. So every parametrisation is read as it is: sigma space (1 and s) for epsilon,
    v and EDM models and for Cosmos, flow (1 - s and s) for SD3, Flux and the like.

    Parameters
    ----------
    model_sampling : object
        Of a model of ComfyUI.
    sigma : float
        What its sampler calls the level.

    Returns
    -------
    alpha, sigma : float

    Raises
    ------
    InputError
        For a kind whose samples are not images with noise.
    """
    import torch

    name = kind_of(model_sampling)
    for base in type(model_sampling).__mro__:
        if base.__name__ in REFUSED:
            raise InputError(
                f"models of the kind {base.__name__} are not recorded or corrected: "
                f"{REFUSED[base.__name__]}"
            )
    if not hasattr(model_sampling, "noise_scaling"):
        raise InputError(
            f"{name} does not say how samples are noised (noise_scaling), so that their noise "
            "levels are not known: it is not recorded or corrected"
        )
    level = torch.tensor([sigma], dtype=torch.float64)
    one, zero = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (1.0, 0.0))
    signal = float(model_sampling.noise_scaling(level, zero.clone(), one.clone()).reshape(()))
    noise = float(model_sampling.noise_scaling(level, one.clone(), zero.clone()).reshape(()))
    if not (math.isfinite(signal) and math.isfinite(noise) and signal >= 0 and noise >= 0):
        raise InputError(
            f"{name} noises samples with alpha {signal} and sigma {noise} at level {sigma}: "
            "expected numbers of at least 0; it is not recorded or corrected"
        )
    return signal, noise


def kind_of(model_sampling: Any) -> str:
    """The kind, by the classes it is made of."""
    own = type(model_sampling)
    made_of = [base.__name__ for base in own.__bases__ if base is not object]
    return " ".join(made_of) or own.__name__
