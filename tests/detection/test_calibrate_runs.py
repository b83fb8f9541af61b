"""Calibration of recorded runs end to end, on small synthetic stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from asced_analysis.calibration import calibrate, calibrate_transfer, check
from asced_analysis.calibration.choose_level import Request, choose_level
from asced_analysis.calibration.drift import COUNT_WIDTH, common_shift, holm, run_counts
from asced_analysis.calibration.splits import ExchangeableUnitWarning, split_runs
from asced_analysis.compute.source import open_source
from asced_analysis.detection import VARIANTS
from asced_analysis.detection.population import location_and_scale
from asced_analysis.detection.scoring import detector_for, scores_of, with_lookahead
from asced_analysis.thresholds.conformal import TooFewRunsError, expected_band
from asced_analysis.thresholds.document import (
    FingerprintMismatchError,
    PortabilityWarning,
    Thresholds,
)
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "runs.zarr"
    synthetic_store(path, runs=240, steps=12, shape=(1, 16, 16), batch_size=16)
    return path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "others.zarr"
    synthetic_store(path, runs=200, steps=12, shape=(1, 16, 16), batch_size=16, seed=90_000)
    return path


def shrinking(sample: Any, alpha: float, sigma: float) -> Any:
    """A model that knows of nothing but an empty picture."""
    return sample * alpha / (alpha**2 + sigma**2)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not VARIANTS.get(name).learnt])
def test_new_runs_lie_in_the_beta_binomial_band(variant: str, store: Path, others: Path) -> None:
    kind = VARIANTS.get(variant)
    network = shrinking if kind.extra_evaluations(kind.parameters()) else None
    thresholds = calibrate(store, variant, false_alarm_rate=0.1, network=network)
    guarantee = thresholds.guarantee
    source = open_source(others)
    if network is not None:
        source = with_lookahead(source, thresholds, network=network)
    assert detector_for(source, thresholds).needs() == kind.reads(thresholds.parameters)
    _, scores = scores_of(source, thresholds, np.ones(source.runs, dtype=bool))
    assert guarantee.order_statistic is not None
    low, high = expected_band(guarantee.calibrate, guarantee.order_statistic, source.runs)
    assert low <= (scores > thresholds.levels.level).sum() <= high
    assert guarantee.fit + guarantee.calibrate + guarantee.report == 240
    assert guarantee.needed["0.01"] == 99


def test_counts_over_many_splits_follow_the_beta_binomial(store: Path) -> None:
    """A rate that leans to one side, by ever so little in each split, adds up over splits."""
    source = open_source(open_runs(store).load())
    thresholds = calibrate(source, "final_variance", false_alarm_rate=0.1)
    request = Request("conformal", 0.1, None, None, None, (1.0, 1.0), "all runs")
    places = []
    for seed in range(120):
        split = split_runs(None, source.runs, seed=seed)
        guarantee = choose_level(source, thresholds, split, request).guarantee
        assert guarantee.measured is not None
        assert guarantee.order_statistic == 9
        law = stats.betabinom(guarantee.report, 9, guarantee.calibrate + 1 - 9)
        count = round(guarantee.measured * guarantee.report)
        chance = np.random.default_rng(seed).random()  # spreads a count over its step of the law
        places.append(law.cdf(count) - chance * law.pmf(count))
    assert stats.kstest(places, "uniform").pvalue > 0.01
    assert abs(np.mean(places) - 0.5) < 3 / np.sqrt(12 * len(places))


def test_the_guarantee_knows_which_counts_were_to_be_expected(store: Path) -> None:
    guarantee = calibrate(store, "final_variance", false_alarm_rate=0.1).guarantee
    law = stats.betabinom(48, 9, 88)
    band = guarantee.band()
    assert band is not None
    assert guarantee.report == 48
    assert law.cdf(band[1]) - law.cdf(band[0] - 1) >= 0.99
    assert replace(guarantee, report=0).band() is None
    assert calibrate(store, method="robust").guarantee.band() is None


def test_a_dataset_a_path_and_a_store_give_the_same(store: Path) -> None:
    by_path = calibrate(store, false_alarm_rate=0.1)
    assert calibrate(str(store), false_alarm_rate=0.1) == by_path
    assert calibrate(open_runs(store), false_alarm_rate=0.1) == by_path
    assert calibrate(open_runs(store).load(), false_alarm_rate=0.1) == by_path


def test_too_few_runs_name_how_many_are_needed(store: Path) -> None:
    with pytest.raises(TooFewRunsError, match=r"needs 999 runs .* it has 96: record"):
        calibrate(store, false_alarm_rate=0.001)


@pytest.mark.parametrize(
    "bad",
    [
        {"false_alarm_rate": 0.0},
        {"false_alarm_rate": 1.5},
        {"method": "magic"},
        {"variant": "magic"},
        {"window": (0.6, 0.2)},
        {"parameters": {"magic": 1}},
        {"parameters": {"signal": "magic"}},
        {"fractions": (1.0, 0.0, 0.0)},
        {"method": "labels"},
        {"groups": "magic"},
        {"variant": "released", "method": "risk"},
        {"variant": "released", "method": "outcome"},
        {"variant": "magic", "method": "outcome"},
        {"variant": "outcome", "method": "robust"},
    ],
)
def test_bad_arguments_are_input_errors(bad: dict[str, Any], store: Path) -> None:
    with pytest.raises(InputError):
        calibrate(store, **{"false_alarm_rate": 0.1, **bad})


def test_methods_say_what_they_promise(store: Path) -> None:
    risk = calibrate(store, method="risk", false_alarm_rate=0.02)
    assert risk.guarantee.measured is not None
    assert risk.guarantee.measured <= 0.03
    robust = calibrate(store, method="robust", false_alarm_rate=0.05)
    assert not robust.guarantee.finite_sample
    assert "no finite-sample guarantee" in robust.guarantee.notes[0]
    labels = {run: run % 4 == 0 for run in range(200)}
    labelled = calibrate(store, method="labels", labels=labels)
    assert labelled.guarantee.population == "runs labelled normal"
    normal = calibrate(store, normal=dict.fromkeys(range(150), True), normal_name="a person")
    assert normal.guarantee.population == "runs called normal by a person"
    assert normal.guarantee.fit + normal.guarantee.calibrate + normal.guarantee.report == 150


def test_levels_by_group(store: Path) -> None:
    runs = open_runs(store)
    runs = runs.assign_coords(label=("run", np.arange(240) % 2))
    thresholds = calibrate(runs, groups="label", false_alarm_rate=0.1)
    assert sorted(thresholds.groups) == ["0", "1"]
    assert thresholds.level_for(group=1) == thresholds.groups["1"]
    assert thresholds.level_for(group="unknown") == thresholds.levels.level


def test_another_sampler_warns_until_its_transfer_is_known(store: Path, tmp_path: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.1)
    finer = tmp_path / "finer.zarr"
    synthetic_store(finer, runs=100, steps=24, shape=(1, 16, 16), batch_size=25, seed=7000)
    with pytest.warns(PortabilityWarning, match="not DDIMScheduler at 24 steps"):
        thresholds.level_for("DDIMScheduler", 24)
    known = calibrate_transfer(thresholds, finer)
    entry = known.transfers[0]
    assert known.level_for("DDIMScheduler", 24) == entry.level
    source = open_source(finer)
    _, scores = scores_of(source, known, np.ones(100, dtype=bool))
    assert (scores > entry.level).mean() <= 0.1
    assert entry.factor == pytest.approx((scores > thresholds.levels.level).mean() / 0.1)
    with pytest.warns(PortabilityWarning, match="largest measured factor"):
        known.level_for("EulerDiscreteScheduler", 30)
    known.save(tmp_path / "known.json")
    assert Thresholds.load(tmp_path / "known.json") == known


def test_another_model_is_refused_by_name(store: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.1)
    foreign = open_runs(store).assign_attrs(model_fingerprint="another")
    for use in (
        lambda: calibrate_transfer(thresholds, foreign),
        lambda: check(foreign, thresholds),
    ):
        with pytest.raises(FingerprintMismatchError, match="model_fingerprint is 'another'"):
            use()


def test_drift_is_found_and_calm_is_not(store: Path, others: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.1)
    assert not check(others, thresholds).drifted
    runs = open_runs(others).load()
    louder = runs.assign(x0=(runs["x0"] * np.float16(1.3)))
    drift = check(louder, thresholds)
    assert drift.drifted
    names = [name for name, _, _ in drift.comparisons]
    assert names[0] == "score"
    cells, levels = len(thresholds.levels.location), len(thresholds.levels.log_snr)
    assert names[cells + 1] == "amplitude"
    assert names[cells + 2] == "energy of eps, level 0"
    assert len(names) == cells + 2 + 2 * levels
    eps = [p for name, _, p in drift.comparisons if name.startswith("energy of eps")]
    assert min(eps) > 0.001  # eps was left as it was
    quieter = runs.assign({name: runs[name] / np.float16(1.1) for name in ("eps", "x0")})
    found = {name: (shift, p) for name, shift, p in check(quieter, thresholds).comparisons}
    shift, p_value = found["energy of eps, level 1"]
    assert shift == pytest.approx(-np.log(1.1), abs=0.02)
    assert p_value < 1e-6
    with pytest.raises(InputError, match="at least 20 runs"):
        check(runs.isel(run=slice(0, 10)), thresholds)


def test_a_small_change_of_amplitude_is_found_and_none_is_not() -> None:
    """Cells that share most of what runs differ in: 256 against 256 runs, 150 times."""
    rng = np.random.default_rng(0)

    def means(shift: float) -> Any:
        own = rng.standard_normal((256, 9))
        return 0.4 * rng.standard_normal((256, 1)) + 0.3 * (own + np.roll(own, 1, 1)) + shift

    def found(shift: float) -> float:
        alarms = []
        for _ in range(150):
            shipped = run_counts(means(0), np.zeros(0))["cells"]
            alarms.append(common_shift(shipped, means(shift), COUNT_WIDTH)[1] <= 0.05)
        return float(np.mean(alarms))

    assert found(0) <= 0.1
    assert found(np.log(1.1)) >= 0.5


def test_prompts_that_were_not_kept_stand_in_the_guarantee(store: Path) -> None:
    hidden = open_runs(store).assign_attrs(call_missing=["prompt"])
    with pytest.warns(ExchangeableUnitWarning, match="were not kept"):
        thresholds = calibrate(hidden, false_alarm_rate=0.1)
    assert "were not kept" in thresholds.guarantee.notes[0]


def test_holm_controls_the_family() -> None:
    rng = np.random.default_rng(0)
    alarms = [holm(rng.uniform(size=12), 0.05).any() for _ in range(2000)]
    assert np.mean(alarms) <= 0.065
    assert holm(np.array([0.5, 1e-6, 0.02]), 0.05).tolist() == [False, True, True]


def test_location_and_scale_from_counts() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(3.0, 0.7, size=20_001)
    counts = np.bincount((values / 0.01).clip(0).astype(int), minlength=1000)
    location, scale = location_and_scale(counts, (np.arange(1000) + 0.5) * 0.01)
    assert location == pytest.approx(np.median(values), abs=0.01)
    mad = 1.4826 * np.median(np.abs(values - np.median(values)))
    assert scale == pytest.approx(mad, abs=0.02)


def test_runs_without_phases_give_no_window(store: Path) -> None:
    with pytest.raises(InputError, match="no phases"):
        calibrate(store, window="phases", false_alarm_rate=0.1)
