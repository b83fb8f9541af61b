"""The 25-Gaussian grid as a model whose truth is exact: points as pictures of one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.gaussian_grid import (
    MEANS,
    WIDTH,
    Floats,
    away_from_modes,
    predicted_noise,
    sample,
    schedule,
)
from experiments.remedies.measuring import Images, Real
from experiments.remedies.pool import PointPool, point_pool

POINTS = 3000
DRAWN = 1500
SMOOTHING = 0.02


def seen(ends: NDArray[Any]) -> Images:
    """Points with their coordinates as content."""
    points = np.asarray(ends, np.float64).reshape(len(ends), 2)
    content = {"x": points[:, 0], "y": points[:, 1]}
    return Images(points.astype(np.float32), content, away_from_modes(points))


def ways(way: str, steps: int) -> Images | None:
    """Points drawn otherwise; None for what has no meaning here."""
    if way == "plain":
        return seen(sample(DRAWN, SMOOTHING, 41, neighbours=True, steps=steps)[0])
    if way in ("ancestral", "renoised"):
        return seen(_fresh_noise(steps, once=way == "renoised"))
    return None


def parts() -> tuple[PointPool, Images, Real, Callable[[str, int], Images | None]]:
    """Plain points, the same as images, points of the mixture, and other ways to draw."""
    pool = point_pool(POINTS, SMOOTHING)
    rng = np.random.default_rng(8)
    real = MEANS[rng.integers(0, len(MEANS), 1000)] + WIDTH * rng.standard_normal((1000, 2))
    return pool, seen(pool.ends), Real(real.astype(np.float32)), ways


def _fresh_noise(steps: int, *, once: bool) -> Floats:
    """Points with fresh noise at every step (DDPM's posterior), or once in the middle."""
    alpha, sigma = schedule(steps)
    x = np.random.default_rng(41).standard_normal((DRAWN, 2))
    score, rng = np.random.default_rng(46), np.random.default_rng(47)
    for k in range(steps):
        eps = predicted_noise(x, alpha[k], sigma[k], SMOOTHING, rng=score)
        x0 = (x - sigma[k] * eps) / alpha[k]
        if k + 1 == steps:
            return np.asarray(x0, np.float64)
        fresh = 0.0
        if not once:
            ratio = 1 - (alpha[k] / alpha[k + 1]) ** 2
            fresh = float(np.sqrt(ratio) * sigma[k + 1] / sigma[k])
        elif k + 1 == steps // 2:
            fresh = float(sigma[k + 1])
        rest = np.sqrt(max(0.0, sigma[k + 1] ** 2 - fresh**2))
        x = alpha[k + 1] * x0 + rest * eps + fresh * rng.standard_normal(x.shape)
    raise AssertionError("no steps")
