"""Figures of a set of images: share broken, likeness to real ones, diversity, content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from asced_analysis.realism.distances import (
    frechet_distance,
    inside_manifold,
    neighbour_radii,
    squared_distances,
)
from experiments.remedies.pool import Floats

NEIGHBOURS = 3
STRATA = 5


@dataclass(frozen=True)
class Images:
    """Images as their features.

    Attributes
    ----------
    vectors : array, shape (n, d)
    content : mapping of str to array, shape (n,)
        Area, brightness and so on; of points, their coordinates.
    broken : bool array, shape (n,)
    """

    vectors: NDArray[np.float32]
    content: Mapping[str, Floats]
    broken: NDArray[np.bool_]

    def only(self, rows: NDArray[np.intp]) -> Images:
        """Some of them."""
        content = {name: value[rows] for name, value in self.content.items()}
        return Images(self.vectors[rows], content, self.broken[rows])

    def __len__(self) -> int:
        """How many."""
        return len(self.broken)


@dataclass(frozen=True)
class Real:
    """Features of real images."""

    vectors: NDArray[np.float32]

    @cached_property
    def radii(self) -> NDArray[np.float32]:
        """To the third neighbour."""
        return neighbour_radii(self.vectors, NEIGHBOURS)

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean and covariance."""
        values = np.asarray(self.vectors, np.float64)
        return values.mean(0), np.cov(values, rowvar=False)

    def figures(self, images: Images) -> dict[str, float]:
        """Frechet distance, precision, recall, and mean distance within equal content."""
        vectors = images.vectors
        radii = neighbour_radii(vectors, NEIGHBOURS)
        return {
            "frechet_distance": frechet_distance(vectors, *self.moments),
            "precision": float(inside_manifold(vectors, self.vectors, self.radii).mean()),
            "recall": float(inside_manifold(self.vectors, vectors, radii).mean()),
            "diversity": diversity(images),
        }

    def at_size(self, images: Images, size: int, subsets: int) -> dict[str, float]:
        """The same figures as means over random subsets of a size: recall grows with it."""
        rng = np.random.default_rng(0)
        found = [
            self.figures(images.only(rng.choice(len(images), size, replace=False)))
            for _ in range(1 if size == len(images) else subsets)
        ]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def diversity(images: Images) -> float:
    """Mean distance of pairs of like content: neighbours in the first kind, in `STRATA` parts."""
    order = np.argsort(next(iter(images.content.values())), kind="stable")
    found = []
    for part in np.array_split(order, STRATA):
        apart = np.sqrt(squared_distances(images.vectors[part], images.vectors[part]))
        found.append(apart.sum() / max(1, len(part) * (len(part) - 1)))
    return float(np.mean(found))


def content_kept(plain: Images, other: Images) -> float:
    """Smallest p that both show the same content (Kolmogorov and Smirnov, Bonferroni)."""
    kinds = [name for name, value in plain.content.items() if np.ptp(value) > 1e-9]
    smallest = min(
        float(stats.ks_2samp(plain.content[name], other.content[name]).pvalue) for name in kinds
    )
    return min(1.0, smallest * len(kinds))
