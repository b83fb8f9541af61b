"""Intervals cover what they should, few and skewed runs included, and shares are never certain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, norm

from asced_analysis.evaluation.intervals import (
    bootstrap,
    change_estimate,
    change_of_share,
    mean_estimate,
    paired_estimate,
    ratio_parts,
    share_estimate,
    unpaired_estimate,
)
from asced_analysis.evaluation.outcome_rates import worst_quarter_limit

LAWS = {
    "normal": (lambda rng, n: rng.standard_normal(n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
}
TRIALS = 600
# a coverage of .93 gives fewer hits than this in one of a thousand samples of so many trials
LEAST = float(0.93 - norm.isf(1e-3) * np.sqrt(0.93 * 0.07 / TRIALS))


@pytest.mark.parametrize("runs", [5, 10, 20, 37])
@pytest.mark.parametrize("law", LAWS)
def test_means_cover(runs: int, law: str) -> None:
    draw, truth = LAWS[law]
    rng = np.random.default_rng([runs, len(law)])
    found = [mean_estimate(draw(rng, runs)) for _ in range(TRIALS)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= LEAST


@pytest.mark.parametrize("runs", [5, 10, 20, 37])
def test_shares_cover_exactly_at_every_probability(runs: int) -> None:
    """No sampling: the coverage of every share is a sum of binomial probabilities."""
    ends = [share_estimate(np.arange(runs) < k) for k in range(runs + 1)]
    low, high = (np.array([getattr(one, side) for one in ends]) for side in ("low", "high"))
    for share in np.linspace(0.005, 0.995, 199):
        inside = (low <= share) & (share <= high)
        assert binom.pmf(np.arange(runs + 1), runs, share)[inside].sum() >= 0.95 - 1e-6
    assert (high - low > 0.05).all()


def test_nine_of_nine_is_no_certainty() -> None:
    all_of_them = mean_estimate(np.ones(9, bool))
    assert all_of_them.value == 1
    assert all_of_them.high == 1
    assert all_of_them.low == pytest.approx(0.69, abs=0.03)
    assert share_estimate(np.zeros(9, bool)).high == pytest.approx(1 - all_of_them.low)
    same = change_of_share(np.ones(9, bool), np.ones(9, bool))
    assert same.low < 0 < same.high


@pytest.mark.parametrize("sizes", [(5, 5), (10, 37), (20, 20)])
def test_differences_of_different_runs_cover(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(sizes))
    hits = []
    for _ in range(TRIALS):
        a, b = rng.exponential(size=sizes[0]), 3 * rng.standard_normal(sizes[1])
        found = unpaired_estimate(a, b)
        hits.append(found.low <= 1 <= found.high)
    assert np.mean(hits) >= LEAST


def test_ratios_have_the_error_of_ratios() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 50, 20).astype(float)
    values = rng.standard_normal(20)
    found = mean_estimate(values, weights)
    assert found.value == pytest.approx((values * weights).sum() / weights.sum())
    ends = []
    for _ in range(TRIALS):
        weights = rng.integers(1, 50, 20).astype(float)
        one = mean_estimate(rng.standard_normal(20), weights)
        ends.append(one.low <= 0 <= one.high)
    assert np.mean(ends) >= LEAST


def test_pairs_are_compared_as_pairs() -> None:
    rng = np.random.default_rng(0)
    base, moved = 100 * rng.standard_normal(20), 1 + 1e-3 * rng.standard_normal(20)
    found = paired_estimate(ratio_parts(base + moved), ratio_parts(base))
    assert found.value == pytest.approx(1, abs=1e-2)
    assert 0 < found.high - found.low < 1e-2


@pytest.mark.parametrize("estimate", [mean_estimate, share_estimate])
def test_nothing_is_estimated_from_nothing(estimate: Callable[..., object]) -> None:
    assert estimate(np.zeros(0, bool)).value is None  # type: ignore[attr-defined]


def test_means_of_few_runs_say_that_they_are_too_few() -> None:
    few, enough = np.array([-1.2, -0.3, 0.1, -0.5]), np.arange(5.0)
    for one in (mean_estimate(few), paired_estimate(few, -few), unpaired_estimate(few, enough)):
        assert (one.low, one.high, one.sign) == (None, None, 0)
        assert str(one).endswith("(no interval: under 5 runs, or all alike)")
    assert str(mean_estimate(few)).startswith("-0.475 ")
    assert mean_estimate(enough).low is not None
    assert share_estimate(few > 0).low is not None  # exact however few they are


def test_a_change_of_yes_and_no_is_never_a_share_nor_certain() -> None:
    one_of_many = change_estimate(np.array([1.0] + [0.0] * 103))
    assert one_of_many.low is not None
    assert one_of_many.low < 0
    repaired = change_estimate(np.full(9, -1.0), np.ones(9))
    assert (repaired.value, repaired.low) == (-1, -1)
    assert repaired.high is not None
    assert repaired.high > -0.9
    weights = np.array([3.0, 1.0, 2.0, 0.0])
    unmarked = change_estimate(np.array([-1.0, -1.0, -1.0, 0.0]), weights)
    assert (unmarked.value, unmarked.low) == (-1, -1)
    assert unmarked.high is not None
    assert unmarked.high > -0.9, "of three runs, of unequal weight"


def test_runs_that_are_all_alike_are_no_certainty() -> None:
    """A third ten times over is the same number but for rounding: no spread, so no interval."""
    thirds = np.full(10, 1 / 3)
    for one in (
        mean_estimate(thirds),
        mean_estimate(thirds, np.arange(1.0, 11)),
        change_estimate(np.zeros(10)),
        paired_estimate(np.arange(10) + thirds, np.arange(10.0)),
        unpaired_estimate(thirds, np.full(7, 2.0)),
        bootstrap(lambda counts: 0.25, 10),
    ):
        assert (one.low, one.high, one.sign) == (None, None, 0)
        assert str(one).endswith("(no interval: under 5 runs, or all alike)")
    half = change_estimate(np.full(10, 0.5), bounds=(-1, 1))
    unseen = 1 - 0.025**0.1
    assert half.low == pytest.approx(0.5 - 1.5 * unseen)
    assert half.high == pytest.approx(0.5 + 0.5 * unseen)
    unmarked = change_estimate(np.zeros(10), np.arange(10.0), bounds=(-1, 1))
    assert unmarked.high == -unmarked.low == pytest.approx(1 - 0.025 ** (1 / 9)), (
        "one has no weight"
    )


def test_the_worst_are_all_that_are_as_bad_as_the_worst() -> None:
    """Outcomes of 0 and 1: a quarter of 34 % is all of them, of 8 % what there is."""
    for bad in (34, 8):
        scores = np.array([1.0] * bad + [0.0] * (100 - bad))
        assert (scores > worst_quarter_limit(scores)).sum() == bad
    assert not (np.ones(5) > worst_quarter_limit(np.ones(5))).any()
