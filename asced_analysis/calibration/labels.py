"""Levels from labels: the cheapest level for a stated cost, judged by nested validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError

FOLDS = 5


@dataclass(frozen=True)
class LabelledLevel:
    """The level that costs least, and what it would cost on runs it was not chosen on.

    Attributes
    ----------
    level : float
    cost : float
        Mean cost a run on held-out folds.
    false_alarm_rate, detection_rate : float
        On held-out folds.
    """

    level: float
    cost: float
    false_alarm_rate: float
    detection_rate: float


def cheapest_level(
    scores: npt.ArrayLike, broken: npt.ArrayLike, *, false_alarm_cost: float, miss_cost: float
) -> float:
    """Level with the least total cost on these runs, half-way between neighbouring scores."""
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(broken, dtype=bool)
    order = np.argsort(values)
    ordered, hits = values[order], truth[order]
    # cut i: the i lowest runs are not flagged
    missed = np.concatenate([[0], np.cumsum(hits)])
    alarms = (~truth).sum() - np.concatenate([[0], np.cumsum(~hits)])
    cost = missed * miss_cost + alarms * false_alarm_cost
    between = np.concatenate([[True], np.diff(ordered) > 0, [True]])  # never inside a tie
    cut = int(np.flatnonzero(between)[np.argmin(cost[between])])
    if cut == 0:
        return float(ordered[0] - 1)
    if cut == ordered.size:
        return float(ordered[-1])
    return float((ordered[cut - 1] + ordered[cut]) / 2)


def level_from_labels(
    scores: npt.ArrayLike,
    broken: npt.ArrayLike,
    *,
    false_alarm_cost: float = 1.0,
    miss_cost: float = 1.0,
    seed: int = 0,
) -> LabelledLevel:
    """Cheapest level, with nested validation.

    Parameters
    ----------
    scores : array, shape (n,)
        Finite.
    broken : array of bool, shape (n,)
    false_alarm_cost, miss_cost : float
    seed : int
        Of the folds, which are stratified by label.

    Raises
    ------
    InputError
        Where a class has fewer runs than folds.
    """
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(broken, dtype=bool)
    if min(truth.sum(), (~truth).sum()) < FOLDS:
        raise InputError(
            f"labels need at least {FOLDS} runs of each kind; there are {int(truth.sum())} broken "
            f"and {int((~truth).sum())} others"
        )
    if false_alarm_cost <= 0 or miss_cost <= 0:
        raise InputError("costs must be positive")
    fold = np.empty(values.size, dtype=int)
    rng = np.random.default_rng(seed)
    for kind in (truth, ~truth):
        fold[kind] = rng.permutation(int(kind.sum())) % FOLDS
    flagged = np.zeros(values.size, dtype=bool)
    for number in range(FOLDS):
        learn = fold != number
        level = cheapest_level(
            values[learn], truth[learn], false_alarm_cost=false_alarm_cost, miss_cost=miss_cost
        )
        flagged[~learn] = values[~learn] > level
    alarms, misses = flagged & ~truth, ~flagged & truth
    return LabelledLevel(
        cheapest_level(values, truth, false_alarm_cost=false_alarm_cost, miss_cost=miss_cost),
        float((alarms.sum() * false_alarm_cost + misses.sum() * miss_cost) / values.size),
        float(flagged[~truth].mean()),
        float(flagged[truth].mean()),
    )
