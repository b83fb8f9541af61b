"""Recorded plain runs, among which pruning chooses: who looks finished, predicted x0, teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.compute.source import open_source
from asced_analysis.realism.content import worst_level
from asced_recorders import record
from asced_stores import open_runs
from asced_stores.errors import InputError
from experiments.datasets.gaussian_grid import away_from_modes, predicted_noise, sample, schedule
from experiments.models.emoji.grading import mean_grades
from experiments.remedies.subjects import Images, Subject, seen_by_eye

STEPS = 25
WORST = 0.25
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Finished plain runs.

    Attributes
    ----------
    ends : float32 array, shape (n, channel, y, x)
    taught : float64 array, shape (n,)
        Self-consistency of the ends, less content's share; lower is better.
    broken : bool array, shape (n,)
        The truth.
    limit : float or None
        Beyond which the judge's distance is broken; None where it is counted.
    classes : int array, shape (n,), optional
        Draws compete within a class, where there are classes.
    grades : float64 array, shape (n,), optional
        Means of what viewers gave, from 0 (whole) to 3.
    """

    ends: Images
    taught: Floats
    broken: NDArray[np.bool_]
    limit: float | None
    classes: NDArray[np.int64] | None = None
    grades: Floats | None = None

    @property
    def severity(self) -> Floats:
        """What a predictor taught by the truth learns from: the mean grade, or broken or not."""
        return self.broken.astype(np.float64) if self.grades is None else self.grades

    @property
    def folder(self) -> Path | None:
        """Where what is learnt of it is kept."""
        return None

    @property
    def first(self) -> NDArray[np.bool_]:
        """The half on which everything is learnt and chosen."""
        return np.arange(len(self.ends)) < len(self.ends) // 2

    def x0(self, step: int) -> Images:
        """Predicted x0 at a step, shape of `ends`."""
        raise NotImplementedError


@dataclass(frozen=True)
class RecordedPool(Pool):
    """Of a store.

    Attributes
    ----------
    store : Path
    known : bool array, shape (runs of the store,)
        Runs of which the truth is known: the pool's own.
    """

    store: Path = Path()
    known: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def first(self) -> NDArray[np.bool_]:
        """The first half of the store."""
        return np.asarray((np.arange(len(self.known)) < len(self.known) // 2)[self.known])

    @property
    def folder(self) -> Path:
        """Of the store."""
        return self.store.parent

    @cached_property
    def dataset(self) -> Any:
        """Opened runs."""
        return open_runs(self.store).isel(run=np.flatnonzero(self.known))

    def x0(self, step: int) -> Images:
        """Read it."""
        return np.asarray(self.dataset["x0"].isel(step=step).values, np.float32)


@dataclass(frozen=True)
class PointPool(Pool):
    """Of the Gaussian grid."""

    path: Floats = field(default_factory=lambda: np.zeros((0, 0, 2)))

    def x0(self, step: int) -> Images:
        """Points as pictures of one place."""
        return np.asarray(self.path[:, step, :, None, None], np.float32)


def recorded_pool(subject: Subject, runs: int, limit: float | None = None) -> RecordedPool:
    """Record what is missing, ask the model about the ends, and the truth.

    Where the truth is a judge's distance, runs beyond a limit are broken: by default those of the
    worst quarter.
    """
    if subject.sampler is not None and subject.eyes is not None:
        raise InputError(
            f"labels by eye are of {subject.name}'s own sampler; "
            "choose a model whose truth is counted or measured"
        )
    store = subject.cache / "pool.zarr"
    if not store.exists():
        how: dict[str, Any] = {"fields": ("eps", "x0", "x_init", "sample"), "seed": subject.seed}
        how |= subject.recorded
        if subject.sampler is not None:
            how["scheduler"] = subject.sampler
        if subject.classes:
            how["labels"] = subject.labels(range(subject.seed, subject.seed + runs))
            how["call_options"] = {"guidance_scale": subject.guidance, "output_type": "latent"}
        part = store.with_name("pool.part.zarr")
        record(
            subject.pipe, part, runs=runs, steps=STEPS, batch_size=32, resume=part.exists(), **how
        )
        part.rename(store)
    dataset = open_runs(store)
    ends = np.asarray(dataset["sample"].values, np.float32)
    taught = _kept(subject, "taught", lambda: _ask(subject, store, ends))
    known = np.ones(len(ends), np.bool_)
    classes = np.asarray(dataset["label"].values) if subject.classes else None
    if subject.eyes is not None:
        known, broken = seen_by_eye(subject.eyes, "pool", len(ends))
    elif subject.counted is not None:
        broken = subject.counted(ends)
    else:
        distance = _kept(subject, "distance", lambda: subject.distances(ends))
        limit = worst_level(distance[: len(ends) // 2], WORST) if limit is None else limit
        broken = distance > limit
    own = None if classes is None else classes[known]
    grades = None
    if subject.eyes is not None:
        grades = mean_grades(subject.eyes, "pool", np.flatnonzero(known))
    return RecordedPool(ends[known], taught[known], broken[known], limit, own, grades, store, known)


def point_pool(points: int, smoothing: float, seed: int = 0) -> PointPool:
    """Points of the grid, whose truth is exact, asked about by the score that made them."""
    ends, _, path = sample(points, smoothing, seed, neighbours=True, steps=STEPS)
    alpha, sigma = schedule(1000)
    level = int(np.argmin(np.abs(2 * np.log(alpha / sigma) - 5.3)))
    rng = np.random.default_rng(seed + 77)
    mean = np.zeros_like(ends)
    for _ in range(4):
        noised = alpha[level] * ends + sigma[level] * rng.standard_normal(ends.shape)
        eps = predicted_noise(noised, alpha[level], sigma[level], smoothing, rng=rng)
        mean += (noised - sigma[level] * eps) / alpha[level] / 4
    taught = np.log(((mean - ends) ** 2).mean(1) + 1e-8)
    pictures = ends[:, :, None, None].astype(np.float32)
    return PointPool(pictures, taught, away_from_modes(ends), None, path=path)


def _ask(subject: Subject, store: Any, ends: Images) -> Floats:
    """Self-consistency of all ends; the slope on content is that of the first half."""
    source = open_source(open_runs(store))
    first = np.arange(len(ends)) < len(ends) // 2
    teacher = choose_teacher(source, first, store=store, pipeline=subject.pipe)
    rows = np.arange(len(ends))
    parts = [teacher.outcomes(source, rows[part], ends.shape[-2:])[1] for part in (first, ~first)]
    return np.asarray(np.concatenate(parts), np.float64)


def _kept(subject: Subject, name: str, make: Any) -> Floats:
    """A number by run, made once."""
    path = subject.cache / f"{name}.npy"
    if not path.exists():
        np.save(path, make())
    return np.asarray(np.load(path), np.float64)
