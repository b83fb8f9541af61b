"""Paired tests of the truth bench, corrected for their number."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.tables.comparisons import (
    holm,
    interval_p,
    note_adjusted,
    note_changes,
    note_intervals,
    paired_p,
)


def test_holm_adjusts_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, float("nan")]) == pytest.approx([1.0, 1.0])


def test_a_paired_test_knows_a_shift_from_noise() -> None:
    noise = np.random.default_rng(0).standard_normal(400)
    assert paired_p(noise - noise.mean()) == pytest.approx(1)
    assert paired_p(noise + 0.3) < 1e-4
    assert paired_p(np.zeros(5)) == 1
    assert paired_p(np.full(5, -1.0)) == 0
    assert np.isnan(paired_p([0.2]))


def test_adjusted_values_stand_in_their_rows() -> None:
    rows = [{}, {}]
    tests = [(rows[0], "p", 0.01), (rows[1], "p", 0.9), (rows[0], "p_against", float("nan"))]
    assert note_adjusted(tests) == 3
    assert rows == [{"p": pytest.approx(0.03), "p_against": 1.0}, {"p": 1.0}]


def test_an_interval_stands_for_a_p() -> None:
    assert interval_p({"value": 1.96, "low": 0.0, "high": 3.92}) == pytest.approx(0.05, abs=1e-3)
    assert interval_p({"value": -3.29, "low": -5.25, "high": -1.33}) < 1.1e-3
    assert interval_p({"value": 0.0, "low": 0.0, "high": 0.0}) == 1
    assert np.isnan(interval_p({"value": None, "low": None, "high": None}))


def test_rows_and_estimates_are_tested_together() -> None:
    changes = np.random.default_rng(0).standard_normal((3, 60))
    changes[0] -= 2
    rows = {str(i): {"changes": one.tolist()} for i, one in enumerate(changes)}
    assert note_changes(rows) == 3
    assert rows["0"]["p"] == pytest.approx(3 * paired_p(changes[0]))
    assert min(rows["1"]["p"], rows["2"]["p"]) > 0.05
    estimates = [{"value": v, "low": v - 1.96, "high": v + 1.96} for v in (0.1, 4.0)]
    assert note_intervals(estimates) == 2
    assert estimates[0]["p"] > 0.9
    assert estimates[1]["p"] < 2e-4
