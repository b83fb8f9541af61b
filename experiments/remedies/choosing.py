"""Whom pruning finishes: predictors of predicted x0, and draws that compete within equal content.

Choices among recorded runs cost nothing, so a figure of pruning is the mean over many ways to put
the same runs into groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.content import content_of, explained_by, shown
from experiments.remedies.pool import STEPS, Floats, Pool
from experiments.remedies.subjects import Images

BANDS = 5
LOOKS = (4, 7, 11, 14, 18, 20, 22)
DELIVERED = 16  # runs of a batch, whose draws are sampled at once and sorted by content
FINISHED = (1, 4)  # of each group of draws
PARTITIONS = 200
GROUPED = 0.8


@dataclass(frozen=True)
class Plan:
    """Look at a step, draw so many for each that is delivered, finish one or more of a group."""

    look: int
    draws: int
    finish: int = 1

    @property
    def title(self) -> str:
        """In words."""
        return f"best {self.finish} of {self.draws * self.finish} at step {self.look}"

    @property
    def evaluations(self) -> int:
        """A delivered image."""
        return self.draws * (self.look + 1) + STEPS - self.look - 1


def plans(budget: int) -> list[Plan]:
    """What a budget pays for, with at least two draws."""
    each = [(look, 1 + (budget - STEPS) // (look + 1)) for look in LOOKS]
    return [Plan(look, draws, one) for look, draws in each if draws > 1 for one in FINISHED]


def generic(x0: Images) -> Floats:
    """Features that know nothing of the data, shape (n, d).

    Means, spreads, gradients, mirror differences and energies in five bands of the spectrum, by
    channel where there are few of them, and the mean of all channels in four by four blocks.
    """
    values = np.asarray(x0, np.float64)
    _, channels, height, width = values.shape
    by_channel = [values.mean((2, 3)), values.std((2, 3)), values.max((2, 3)), values.min((2, 3))]
    if height * width > 1:
        by_channel += [np.abs(np.diff(values, axis=axis)).mean((2, 3)) for axis in (2, 3)]
        by_channel += [np.abs(values - np.flip(values, axis)).mean((2, 3)) for axis in (2, 3)]
        spectrum = np.abs(np.fft.fft2(values - values.mean((2, 3), keepdims=True))) ** 2
        radius = np.hypot(
            *np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
        )
        edges = np.linspace(0, 0.5, BANDS + 1)
        for low, high in itertools.pairwise(edges):
            inside = (radius > low) & (radius <= high)
            if inside.any():
                by_channel.append(np.log(spectrum[..., inside].mean(-1) + 1e-12))
    if channels > 4:
        by_channel = [one.mean(1, keepdims=True) for one in by_channel]
    return np.concatenate([*by_channel, coarse(values)], axis=1)


def coarse(values: Floats) -> Floats:
    """The mean of all channels in four by four blocks."""
    mean = values.mean(1)
    if min(mean.shape[1:]) < 4:
        return np.asarray(mean.reshape(len(mean), -1))
    parts = [np.array_split(np.arange(size), 4) for size in mean.shape[1:]]
    rows = np.stack([mean[:, part].mean(1) for part in parts[0]], axis=1)
    blocks = np.stack([rows[..., part].mean(-1) for part in parts[1]], axis=-1)
    return np.asarray(blocks.reshape(len(mean), -1))


def forest(features: Floats, taught: Floats, first: NDArray[np.bool_], seed: int = 0) -> Floats:
    """Predicted outcomes of all runs: of the first half by folds, of the second by the first."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    out = np.zeros(len(features))

    def model() -> RandomForestRegressor:
        return RandomForestRegressor(
            100, min_samples_leaf=3, max_features=0.4, random_state=seed, n_jobs=1
        )

    rows = np.flatnonzero(first)
    out[~first] = model().fit(features[rows], taught[rows]).predict(features[~first])
    for learn, tell in KFold(3, shuffle=True, random_state=seed).split(rows):
        fitted = model().fit(features[rows[learn]], taught[rows[learn]])
        out[rows[tell]] = fitted.predict(features[rows[tell]])
    return out


def partitions(
    content: Floats | None,
    runs: NDArray[np.intp],
    plan: Plan,
    *,
    count: int,
    seed: int = 0,
    classes: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.intp]]:
    """Runs in groups of draws, shape (group, draws): at random, or of like content in batches.

    Parameters
    ----------
    content : float64 array, shape (n,), optional
        By which the runs of a batch are sorted.
    runs : int array
        Those to put into groups.
    plan : Plan
    count : int
        Partitions.
    seed : int, optional
    classes : int array, shape (n,), optional
        All draws of a group are of one class; content is not asked then.
    """
    rng = np.random.default_rng(seed)
    draws = plan.draws * plan.finish
    for _ in range(count):
        order = rng.permutation(runs)
        if classes is not None:
            own = [order[classes[order] == one] for one in np.unique(classes[order])]
            order = np.concatenate([part[: len(part) // draws * draws] for part in own])
        else:
            order = order[: len(order) // draws * draws]
            if content is not None:
                at_once = DELIVERED * plan.draws
                order = np.concatenate(
                    [
                        part[np.argsort(content[part], kind="stable")]
                        for part in np.split(order, range(at_once, len(order), at_once))
                    ]
                )
        yield order.reshape(-1, draws)


def finished(scores: Floats, groups: NDArray[np.intp], plan: Plan) -> NDArray[np.intp]:
    """The runs of the smallest scores in each group."""
    best = np.argsort(scores[groups], axis=1, kind="stable")[:, : plan.finish]
    return np.asarray(np.take_along_axis(groups, best, axis=1).ravel(), np.intp)


def chosen_plan(
    pool: Pool, views: dict[int, Floats], budget: int, worst: NDArray[np.bool_] | None = None
) -> Plan:
    """The plan whose finished runs are the fewest of the worst, on the first half.

    Plans whose groups hold fewer than `GROUPED` of the runs, since classes are small, are left out.

    Parameters
    ----------
    pool : Pool
    views : mapping of int to array, shape (n,)
        What a predictor says, by the step that it looks at.
    budget : int
    worst : bool array, shape (n,), optional
        By default the teacher's worst quarter, so that no truth is asked.
    """
    runs = np.flatnonzero(pool.first)
    if worst is None:
        worst = pool.taught > np.quantile(pool.taught[runs], 0.75)

    def cost(plan: Plan) -> float:
        content = brightness(pool, plan.look)
        each = list(partitions(content, runs, plan, count=40, seed=1, classes=pool.classes))
        if each[0].size < GROUPED * len(runs):
            return np.inf
        scores = views[plan.look]
        return float(np.mean([worst[finished(scores, one, plan)].mean() for one in each]))

    return min(plans(budget), key=cost)


def less_content(scores: Floats, pool: Pool, look: int) -> Floats:
    """Scores without what the content of predicted x0 says of them (`explained_by`).

    Where more breaks the more there is in an image, the best of a group shows less than the others.
    """
    return scores - explained_by(scores, shown(content_of(pool.x0(look))))[1]


def brightness(pool: Pool, look: int) -> Floats:
    """Mean of predicted x0, by which the toolkit's own `Pruner` sorts draws."""
    return np.asarray(pool.x0(look).mean((1, 2, 3)), np.float64)
