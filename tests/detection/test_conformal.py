"""What split conformal calibration promises is kept, on thousands of simulated draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from asced_analysis.calibration.groups import SmallGroupWarning, group_levels
from asced_analysis.calibration.labels import cheapest_level, level_from_labels
from asced_analysis.calibration.risk import RiskCurve, risk_curve, risk_level, shares_above
from asced_analysis.calibration.robust import robust_level
from asced_analysis.calibration.splits import ExchangeableUnitWarning, split_runs
from asced_analysis.thresholds.conformal import (
    TooFewRunsError,
    conformal_level,
    expected_band,
    order_statistic,
    rate_interval,
    runs_needed,
)
from asced_stores.errors import InputError

DRAWS, CALIBRATION, NEW = 2000, 199, 100


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.10])
def test_simulated_rates_follow_the_beta_binomial(rate: float) -> None:
    rng = np.random.default_rng(int(rate * 1000))
    scores = rng.gumbel(size=(DRAWS, CALIBRATION)) ** 3
    level, rank = conformal_level(scores, rate)
    counts = (rng.gumbel(size=(DRAWS, NEW)) ** 3 > level[:, None]).sum(axis=1)
    law = stats.betabinom(NEW, rank, CALIBRATION + 1 - rank)
    error = law.std() / NEW / np.sqrt(DRAWS)
    mean = counts.mean() / NEW
    assert rate - 1 / (CALIBRATION + 1) - 4 * error <= mean <= rate + 4 * error
    # chi-square against the beta-binomial, cells of at least 20 expected draws
    edges = np.unique(law.ppf(np.linspace(0, 1, 16)[1:-1])).astype(int)
    cells = np.digitize(counts, edges, right=True)
    expected = np.diff(np.concatenate([[0], law.cdf(edges), [1]])) * DRAWS
    keep = expected > 20
    observed = np.bincount(cells, minlength=expected.size)
    lumped = np.append(observed[keep], observed[~keep].sum())
    wanted = np.append(expected[keep], expected[~keep].sum())
    full = wanted > 0
    assert stats.chisquare(lumped[full], wanted[full]).pvalue > 1e-3
    # and a binomial it is not
    assert counts.var() > 1.2 * NEW * mean * (1 - mean)


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 3000), st.floats(0.002, 0.6))
def test_the_rank_is_the_largest_that_keeps_the_rate(count: int, rate: float) -> None:
    if count < runs_needed(rate):
        with pytest.raises(TooFewRunsError, match=f"at least {runs_needed(rate)} runs to"):
            order_statistic(count, rate)
        return
    rank = order_statistic(count, rate)
    assert rank / (count + 1) <= rate + 1e-9
    assert (rank + 1) / (count + 1) > rate - 1e-9


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.01, 99), (0.001, 999), (0.5, 1)])
def test_how_many_runs_a_rate_needs(rate: float, needed: int) -> None:
    assert runs_needed(rate) == needed


def test_training_conditional_levels_hold_with_the_stated_confidence() -> None:
    rng = np.random.default_rng(5)
    level, rank = conformal_level(rng.uniform(size=(DRAWS, 300)), 0.1, confidence=0.9)
    assert rank < order_statistic(300, 0.1)
    kept = (1 - level <= 0.1).mean()  # the true rate of a uniform score
    assert 0.88 <= kept <= 0.97
    with pytest.raises(TooFewRunsError):
        conformal_level(rng.uniform(size=20), 0.05, confidence=0.9)


def test_ties_and_runs_without_a_score_never_raise_the_rate() -> None:
    scores = np.array([-np.inf] * 50 + [1.0] * 49)
    level, _ = conformal_level(scores, 0.1)
    assert level == 1.0
    with pytest.raises(InputError, match="NaN"):
        conformal_level(np.array([np.nan] * 50), 0.1)


def test_bands_and_intervals() -> None:
    low, high = expected_band(199, 10, 100)
    law = stats.betabinom(100, 10, 190)
    assert law.cdf(high) - law.cdf(low - 1) >= 0.99
    assert rate_interval(0, 20)[0] == 0
    assert rate_interval(20, 20)[1] == 1
    low, high = rate_interval(5, 100)
    assert low < 0.05 < high


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_contamination_blinds_the_plain_level_but_not_the_robust_one(share: float) -> None:
    rng = np.random.default_rng(8)
    rates, plain_rates = [], []
    for _ in range(40):
        broken = rng.uniform(size=400) < share
        scores = rng.gumbel(size=400) + broken * rng.uniform(4, 8, size=400)
        clean = rng.gumbel(size=20_000)
        level, estimate = robust_level(scores, 0.05)
        rates.append((clean > level).mean())
        plain_rates.append((clean > conformal_level(scores, 0.05)[0]).mean())
        assert 0 <= estimate <= 0.2
    assert 0.025 <= np.mean(rates) <= 0.1
    if share:  # the plain level promises the contaminated population's rate, and goes blind
        assert np.mean(plain_rates) < 0.012


def test_risk_control_keeps_the_expected_share() -> None:
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(200):
        maps = rng.exponential(size=(60, 12, 12)) * rng.uniform(0.5, 1.5, size=(60, 1, 1))
        level = risk_level(risk_curve([maps[:30], maps[30:]], 0.0, 40.0), 0.1)
        new = rng.exponential(size=(50, 12, 12)) * rng.uniform(0.5, 1.5, size=(50, 1, 1))
        shares.append((new > level).mean())
    assert np.mean(shares) <= 0.1 + 4 * np.std(shares) / np.sqrt(200)
    assert np.mean(shares) >= 0.06  # and isn't needlessly careful
    with pytest.raises(TooFewRunsError, match="at least 99"):
        risk_level(RiskCurve(np.zeros(1), np.zeros(1), 50), 0.01)


def test_shares_are_what_lies_above_the_level() -> None:
    maps = np.random.default_rng(0).integers(0, 5, size=(3, 4, 4)).astype(float)
    levels = np.array([-1.0, 0.0, 1.5, 4.0])
    expected = (maps[:, None] > levels[None, :, None, None]).mean(axis=(2, 3))
    np.testing.assert_allclose(shares_above(maps, levels), expected)


def test_groups_get_their_own_levels_where_they_can() -> None:
    rng = np.random.default_rng(1)
    groups = ["a"] * 200 + ["b"] * 200 + ["c"] * 5
    scores = rng.normal(size=405) + np.array([0.0] * 200 + [3.0] * 200 + [0.0] * 5)
    with pytest.warns(SmallGroupWarning, match=r"c \(5\)"):
        levels = group_levels(scores, groups, 0.05)
    assert sorted(levels) == ["a", "b"]
    assert levels["b"] - levels["a"] > 2


def test_the_cheapest_level_for_labels() -> None:
    rng = np.random.default_rng(2)
    broken = rng.uniform(size=600) < 0.3
    scores = rng.normal(size=600) + 3 * broken
    even = level_from_labels(scores, broken)
    careful = level_from_labels(scores, broken, miss_cost=20)
    assert careful.level < even.level
    assert even.detection_rate > 0.8
    assert even.false_alarm_rate < 0.1
    brute = min(
        np.r_[scores.min() - 1, scores],
        key=lambda level: ((scores > level) & ~broken).sum() + ((scores <= level) & broken).sum(),
    )
    best = cheapest_level(scores, broken, false_alarm_cost=1, miss_cost=1)
    errors = [((scores > level) != broken).sum() for level in (brute, best)]
    assert errors[0] == errors[1]
    with pytest.raises(InputError, match="at least 5 runs of each kind"):
        level_from_labels(scores, np.zeros(600, dtype=bool))


def test_repeated_prompts_are_the_unit_and_never_cross_sets() -> None:
    prompts = [f"prompt {i % 40}" for i in range(400)]
    split = split_runs(prompts, 400)
    assert split.unit == "prompt"
    names = np.array(prompts)
    sets = [set(names[part]) for part in (split.fit, split.calibrate, split.report)]
    assert not sets[0] & sets[1]
    assert not (sets[0] | sets[1]) & sets[2]
    assert len(sets[1]) == split.calibrate.sum() == 16
    plain = split_runs([""] * 400, 400, seed=3)
    assert plain.unit == "run"
    total = plain.fit.astype(int) + plain.calibrate + plain.report
    assert (total == 1).all()


def test_runs_without_a_prompt_are_left_out_where_prompts_repeat() -> None:
    prompts = [""] + [f"prompt {i % 60}" for i in range(1, 480)]
    with pytest.warns(ExchangeableUnitWarning, match="1 of 480 runs have no prompt"):
        split = split_runs(prompts, 480)
    assert (split.unit, int(split.calibrate.sum())) == ("prompt", 24)
    assert not (split.fit | split.calibrate | split.report)[0]
    assert "left out" in split.notes[0]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_prompts_missing_keeps_the_promise(share: float) -> None:
    """Scores that are nearly the prompt's own: 50 prompts, 8 runs each, 5 % promised."""
    rng, rate, flagged = np.random.default_rng(0), 0.05, []
    for seed in range(200):
        prompt = np.repeat(np.arange(60), 8)
        scores = rng.standard_normal(60)[prompt] + 1e-3 * rng.standard_normal(480)
        names = [
            f"p{p}" if kept else ""
            for p, kept in zip(prompt, rng.random(480) >= share, strict=True)
        ]
        with pytest.warns(ExchangeableUnitWarning, match="no prompt"):
            split = split_runs(names, 480, seed=seed)
        level = conformal_level(scores[split.calibrate], rate)[0]
        flagged.append((rng.standard_normal(40) > level).sum())  # forty fresh prompts
    # BetaBinomial(40, 1, 24): mean 1.6, deviation 2.0, so of 200 calibrations 1.6 +- 0.14
    assert 1.6 - 0.45 < np.mean(flagged) < 1.6 + 0.45


def test_seeds_are_the_unit_where_only_they_repeat_and_are_spoken_of_across_prompts() -> None:
    split = split_runs(None, 400, seeds=np.arange(400) % 100)
    assert (split.unit, int(split.calibrate.sum())) == ("seed", 40)
    with pytest.warns(ExchangeableUnitWarning, match="8 seeds for 50 prompts"):
        crossed = split_runs([f"p{i // 8}" for i in range(400)], 400, seeds=np.arange(400) % 8)
    assert crossed.unit == "prompt"
    with pytest.warns(ExchangeableUnitWarning, match="1 seeds for 400 prompts"):
        assert split_runs([f"p{i}" for i in range(400)], 400, seeds=np.zeros(400)).unit == "run"


def test_prompts_that_were_not_kept_are_said() -> None:
    with pytest.warns(ExchangeableUnitWarning, match="were not kept"):
        split = split_runs([""] * 400, 400, prompts_hidden=True)
    assert split.unit == "run"


def test_groups_that_are_all_too_small_or_unknown_are_refused() -> None:
    scores = np.arange(40.0)
    with pytest.raises(InputError, match=r"of these 100 runs: a \(20\), b \(20\)\).* 495 "):
        group_levels(scores, ["a", "b"] * 20, 0.01, runs=100)
    with (
        pytest.warns(SmallGroupWarning, match="belong to no group"),
        pytest.raises(InputError, match="no run says which group"),
    ):
        group_levels(scores, [-1] * 40, 0.05)
