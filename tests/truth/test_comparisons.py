"""Paired tests of the truth bench, corrected for their number."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "truth"))

from comparisons import holm, note_adjusted, paired_p


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
    tests = [(rows[0], "p", 0.01), (rows[1], "p", 0.9), (rows[0], "p_worth", float("nan"))]
    assert note_adjusted(tests) == 3
    assert rows == [{"p": pytest.approx(0.03), "p_worth": 1.0}, {"p": 1.0}]
