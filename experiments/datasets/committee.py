"""Real garments, and what teaches beside the embedded teacher: whitened patches, and both.

The embedded teacher's own look at a finished image agrees with the judge less than plain whitened
patches do, and both together agree most (docs/truth-detection.md): a network teaches its own blind
spots. References are the training images of even number, as the teacher's are; the judge's are the
others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism import RealismModel, load_embedded, patch_model
from training.fashion_mnist import load_fashion_mnist

IMAGES = 2000
PLACES = 6000
HALF = {"teacher": 0, "judge": 1}  # of the training images; the model's references


def garments(half: int, count: int, seed: int = 5) -> NDArray[np.float32]:
    """Real training images of even (0) or odd (1) number."""
    images = load_fashion_mnist("train")[0][half::2]
    chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
    return np.asarray(images[np.sort(chosen)], np.float32)


@cache
def patches() -> RealismModel:
    """Whitened patches alone."""
    return patch_model(garments(0, IMAGES), patches=PLACES, name="whitened patches of real images")


@cache
def committee() -> RealismModel:
    """Both, at equal weight, of places and of whole runs."""
    return replace(load_embedded("committee"), runs=None)
