"""Remedies at equal evaluations: what is chosen, at which price, and that content is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from experiments.datasets import sets
from experiments.remedies import both, choosing, correcting, grid
from experiments.remedies.__main__ import Bench, auroc_within, rows_of
from experiments.remedies.choosing import (
    Plan,
    coarse,
    finished,
    generic,
    less_content,
    partitions,
    plans,
)
from experiments.remedies.subjects import Subject, seen_by_eye


def test_every_plan_keeps_to_its_budget_and_spends_what_it_can() -> None:
    for budget in (50, 100):
        for plan in plans(budget):
            assert plan.draws >= 2
            assert plan.evaluations <= budget < plan.evaluations + plan.look + 1
    assert plans(25) == []
    assert Plan(look=8, draws=3).evaluations == 3 * 9 + 16


def test_draws_of_equal_content_deliver_the_content_that_was_drawn() -> None:
    rng = np.random.default_rng(0)
    size = rng.random(1200)
    scores = size + rng.random(1200)  # small objects look most promising
    plan = Plan(8, 3, 4)
    for content, kept in ((size, True), (None, False)):
        groups = next(partitions(content, np.arange(1200), plan, count=1))
        chosen = finished(scores, groups, plan)
        assert len(set(chosen.tolist())) == len(chosen) == 400
        assert scores[chosen].mean() < scores.mean()
        assert (ks_2samp(size[chosen], size).pvalue > 0.05) == kept


def test_a_score_less_its_content_keeps_content_as_drawn() -> None:
    rng = np.random.default_rng(0)
    ends = np.where(rng.random((1200, 1, 8, 8)) < rng.random((1200, 1, 1, 1)), 1.0, -1.0)
    size = ends.mean((1, 2, 3))
    fault = rng.random(1200) < 0.2
    pool = SimpleNamespace(x0=lambda _: ends.astype(np.float32))
    plan = Plan(8, 3, 4)
    score = size + fault + rng.random(1200)
    for scores, kept in ((score, False), (less_content(score, pool, 8), True)):
        chosen = finished(scores, next(partitions(None, np.arange(1200), plan, count=1)), plan)
        assert fault[chosen].mean() < fault.mean() / 1.2
        assert (ks_2samp(size[chosen], size).pvalue > 0.05) == kept


def test_draws_of_a_class_compete_among_themselves() -> None:
    classes = np.repeat([0, 1, 2], [40, 21, 5])
    groups = next(partitions(None, np.arange(66), Plan(8, 2, 3), count=1, classes=classes))
    assert groups.shape == (6 + 3, 6)  # what is left of a class over whole groups is left out
    assert (classes[groups] == classes[groups][:, :1]).all()
    assert len(np.unique(groups)) == groups.size


def test_auroc_within_classes_counts_no_pair_of_two_classes() -> None:
    classes = np.array([0, 0, 0, 1, 1, 2])
    broken = np.array([True, False, False, True, False, True])
    scores = np.array([3.0, 1.0, 3.0, 0.0, 9.0, 5.0])
    assert auroc_within(scores, broken, classes) == (1 + 0.5 + 0) / 3
    assert auroc_within(scores[-1:], broken[-1:], classes[-1:]) is None


def test_of_corrected_runs_only_the_flagged_ones_are_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    said = [
        *("pool,4,0,whole", "pool,5,0,broken", "pool,6,0,unsure", "pool,7,0,broken"),
        *("corrected-ttc,5,0,whole", "corrected-ttc,7,0,unsure", "corrected-ttc,4,0,broken"),
    ]
    path.write_text("\n".join(["set,run,pass,label", *said]) + "\n")
    subject = Subject("mine", "fashion", "labels by eye", sets.judge_of, eyes=path)
    flagged = np.array([False, True, False, True])
    ends = np.zeros((4, 1, 2, 2), np.float32)
    one = correcting.Corrected(np.arange(4, 8), ends, flagged, 25.0)
    known, broken = correcting.broken_after(subject, "ttc", one, seen_by_eye(path, "pool", 8))
    assert known.tolist() == [True, True, False, False]
    assert correcting.broken_after(subject, "renoise", one, seen_by_eye(path, "pool", 8)) is None
    assert broken[:2].tolist() == [False, False]


def test_features_know_place_and_need_no_picture() -> None:
    pictures = np.zeros((2, 1, 8, 8), np.float32)
    pictures[0, 0, :2, :2] = 1
    pictures[1, 0, 6:, 6:] = 1
    first, second = coarse(np.asarray(pictures, np.float64))
    assert first.argmax() == 0
    assert second.argmax() == 15
    assert generic(pictures).shape[0] == 2
    assert generic(np.ones((3, 2, 1, 1), np.float32)).shape == (3, 9)


def test_pruning_halves_what_breaks_on_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "POINTS", 800)
    monkeypatch.setattr(grid, "DRAWN", 300)
    monkeypatch.setattr(choosing, "LOOKS", (22,))
    monkeypatch.setattr("experiments.remedies.__main__.LOOKS", (22,))
    monkeypatch.setattr("experiments.remedies.__main__.PARTITIONS", 10)
    pool, plain, real, draws = grid.parts()
    rows = rows_of(Bench(pool, plain, real, draws), 50)
    by_name = {name.rsplit(", ", 1)[1]: row for name, row in rows.items() if "pruning" in name}
    chance, learnt = by_name["chance"], by_name["forest"]
    assert learnt["broken"]["value"] < chance["broken"]["value"] / 2
    assert learnt["content"] > 0.05
    assert learnt["evaluations"] <= 50
    assert by_name["a perfect choice"]["broken"]["value"] <= learnt["broken"]["value"]
    assert chance["broken"]["value"] == pytest.approx(
        rows["plain, 25 steps"]["broken"]["value"], abs=0.04
    )
    told = by_name["less content's share"]
    assert told["broken"]["value"] < chance["broken"]["value"] / 2
    # the same draws compete again, as those of another sampler would
    together = both.rows_of(
        *(Bench(pool, plain, real, draws) for _ in range(2))  # plain, and of the sampler
    )
    own = {name.rsplit(", ", 1)[1]: row for name, row in together.items() if "pruning" in name}
    assert own["forest"]["broken"] == learnt["broken"]
    assert own["chance"]["broken"] == chance["broken"]
