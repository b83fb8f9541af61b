"""What a picture shows, apart from whether it is broken: content, and scores that follow it.

A score that follows the size of the object finds large objects. Content is measured here, what it
explains of a score is taken off, and how well a score tells broken runs is also said among runs of
like content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Content = Mapping[str, Floats]

EXPLAINED = 0.05  # a score of which content explains more is residualised: a correlation of .22
CAUSES = ("starting energy",)
"""Measured and reported, never taken off: no content of a picture, and a cause of breaking.

On `fashion` runs break by it; an outcome without its share left a detector that chose whole runs.
"""
STRATA = 10
ALIKE = 5
FEWEST = 20


def content_of(
    pictures: NDArray[np.floating[Any]], start: NDArray[np.floating[Any]] | None = None
) -> dict[str, Floats]:
    """Area of the foreground, brightness, contrast, colourfulness, energy of the start, by run.

    Parameters
    ----------
    pictures : array, shape (n, channel, y, x)
    start : array, shape (n, ...), optional
        The noise that the runs began with.

    Returns
    -------
    dict of str to array, shape (n,)
        Only what pictures of these channels have; see `varying`.
    """
    values = np.asarray(pictures, np.float32)
    border = np.concatenate(
        [values[:, :, 0], values[:, :, -1], values[:, :, :, 0], values[:, :, :, -1]], axis=2
    )
    away = np.abs(values - np.median(border, axis=2)[:, :, None, None]).max(1)
    span = np.maximum(values.max((1, 2, 3)) - values.min((1, 2, 3)), 1e-6)
    found = {
        "area": (away > 0.1 * span[:, None, None]).mean((1, 2)),
        "brightness": values.mean((1, 2, 3)),
        "contrast": values.std((1, 2, 3)),
    }
    if values.shape[1] > 1:
        found["colourfulness"] = values.std(1).mean((1, 2))
    if start is not None:
        found["starting energy"] = (
            np.asarray(start, np.float32).reshape(len(start), -1).astype(np.float64) ** 2
        ).mean(1)
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def neighbour_means(
    score: NDArray[np.floating[Any]], vectors: NDArray[np.floating[Any]], *, neighbours: int = 10
) -> Floats:
    """Mean score of each run's nearest others in an embedding: content that has no name.

    Only for embeddings that do not see what is broken, or the breakage is taken off with the
    content: of planted breakage, AUROC fell from .96 to .64 by neighbours in whitened patches.

    Parameters
    ----------
    score : array, shape (n,)
    vectors : array, shape (n, d)
    neighbours : int

    Returns
    -------
    float64 array, shape (n,)
    """
    scaled = np.asarray(vectors, np.float64)
    scaled = (scaled - scaled.mean(0)) / np.maximum(scaled.std(0), 1e-9)
    values = np.asarray(score, np.float64)
    count = min(neighbours, len(values) - 1)
    if count < 1:
        return values.copy()
    squares = (scaled**2).sum(1)
    found = np.empty(len(values))
    for begin in range(0, len(values), 512):
        part = slice(begin, begin + 512)
        away = squares - 2 * scaled[part] @ scaled.T
        away[np.arange(len(away)), np.arange(begin, begin + len(away))] = np.inf
        found[part] = values[np.argpartition(away, count - 1, axis=1)[:, :count]].mean(1)
    return found


def varying(content: Content) -> dict[str, Floats]:
    """Those kinds of content that differ between runs."""
    return {name: value for name, value in content.items() if np.ptp(value) > 1e-9}


def shown(content: Content) -> dict[str, Floats]:
    """What a picture shows, without the causes of breaking that are measured beside it."""
    return {name: value for name, value in content.items() if name not in CAUSES}


def rank_correlations(score: NDArray[np.floating[Any]], content: Content) -> dict[str, float]:
    """Spearman's correlation of a score with each kind of content; 0 of a constant score."""
    from scipy.stats import spearmanr

    if np.ptp(score) == 0:
        return dict.fromkeys(content, 0.0)
    return {name: float(spearmanr(score, value)[0]) for name, value in content.items()}


def explained_by(
    score: NDArray[np.floating[Any]], content: Content, *, seed: int = 0
) -> tuple[float, Floats]:
    """How much of a score's variance content explains, and what it predicts of each run.

    Additive splines with a ridge penalty; every run is predicted by a fit that it took no part in,
    so that few runs explain nothing by chance.

    Parameters
    ----------
    score : array, shape (n,)
    content : mapping of str to array, shape (n,)
    seed : int
        Of the ten folds.

    Returns
    -------
    share : float
        0 to 1.
    predicted : float64 array, shape (n,)
    """
    values = np.asarray(score, np.float64)
    total = float(values.var())
    if len(values) < FEWEST or not content or total == 0:
        return 0.0, np.full(len(values), values.mean() if len(values) else 0.0)
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer, StandardScaler

    table = np.stack([_uniform(value) for value in content.values()], axis=1)
    model = make_pipeline(
        SplineTransformer(n_knots=4, degree=3, include_bias=False),
        StandardScaler(),
        RidgeCV(alphas=np.logspace(-2, 4, 13)),
    )
    folds = KFold(min(10, len(values) // 2), shuffle=True, random_state=seed)
    predicted = cross_val_predict(model, table, values, cv=folds)
    share = 1 - float(((values - predicted) ** 2).mean()) / total
    return max(0.0, share), np.asarray(predicted, np.float64)


def matched_auroc(
    score: NDArray[np.floating[Any]], broken: NDArray[np.bool_], content: Content
) -> float | None:
    """AUROC among runs of like content: pairs within strata of what content says of the score.

    Of fewer than `FEWEST` runs nobody can tell what content says.

    Parameters
    ----------
    score : array, shape (n,)
        Higher is worse.
    broken : bool array, shape (n,)
    content : mapping of str to array, shape (n,)

    Returns
    -------
    float or None
        None where no stratum holds both kinds, or of too few runs.
    """
    values = np.asarray(score, np.float64)
    if content and len(values) < FEWEST:
        return None
    strata = strata_of(values, content)
    won = pairs = 0.0
    for stratum in np.unique(strata):
        inside = strata == stratum
        bad, good = values[inside & broken], values[inside & ~broken]
        if len(bad) and len(good):
            order = np.sort(good)
            below = np.searchsorted(order, bad, "left") + np.searchsorted(order, bad, "right")
            won += below.sum() / 2
            pairs += len(bad) * len(good)
    return float(won / pairs) if pairs else None


def strata_of(score: NDArray[np.floating[Any]], content: Content) -> NDArray[np.intp]:
    """Runs in groups of like content: as many runs each, ranked by what content says of a score.

    Groups of 20 runs left a score that is nothing but size an AUROC of .85 among 21 runs, .71 among
    40; groups of `ALIKE` .55 and .54. All runs are alike where content says nothing.
    """
    _, predicted = explained_by(score, content)
    if not len(predicted) or np.ptp(predicted) == 0:
        return np.zeros(len(predicted), np.intp)
    parts = max(1, min(STRATA, len(predicted) // ALIKE))
    ranks = np.argsort(np.argsort(predicted, kind="stable"), kind="stable")
    return np.asarray(ranks * parts // len(predicted), np.intp)


def auroc(score: NDArray[np.floating[Any]], broken: NDArray[np.bool_]) -> float | None:
    """Share of pairs of a broken and a whole run that a score puts in order; None without pairs."""
    return matched_auroc(score, broken, {})


def worst_level(score: NDArray[np.floating[Any]], share: float) -> float:
    """Score above which a share of the runs lies; with ties, all that are as bad as the worst.

    Parameters
    ----------
    score : array, shape (n,)
        Higher is worse.
    share : float
    """
    level = float(np.quantile(score, 1 - share))
    below = score[score < level]
    return level if (score > level).any() or not below.size else float(below.max())


def _uniform(values: Floats) -> Floats:
    """Ranks in 0..1: areas and energies spread over magnitudes."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values) - 0.5) / len(values))
