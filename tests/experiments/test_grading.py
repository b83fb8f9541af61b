"""Grades by eye: the middle one decides, and viewers' agreement is measured over all pairs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments.models.emoji import grading
from experiments.remedies import asking
from experiments.remedies.subjects import seen_by_eye

KEY = [("plain", 1), ("pruned", 0), ("plain", 0)]
NOTES = ("0 3\n1 0\n2 1\n", "0 2\n1 1\n2 2\n", "0 2\n1 0\n\n2 1\n")


def test_the_middle_grade_says_what_is_broken(tmp_path: Path) -> None:
    rows = grading.collect(KEY, NOTES)
    assert [(row["set"], row["run"], row["label"], row["grades"]) for row in rows] == [
        ("plain", 0, "whole", "1 2 1"),
        ("plain", 1, "broken", "3 2 2"),
        ("pruned", 0, "whole", "0 1 0"),
    ]
    path = tmp_path / "graded.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, grading.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    known, broken = seen_by_eye(path, "plain", 3)
    assert known.tolist() == [True, True, False]
    assert broken[known].tolist() == [False, True]
    found = grading.mean_grades(path, "plain", np.flatnonzero(known))
    assert found is not None
    np.testing.assert_allclose(found, [4 / 3, 7 / 3])
    assert "| `plain` | 2 | 50 %" in grading.shares(
        [{k: str(v) for k, v in r.items()} for r in rows]
    )


def test_agreement_is_that_of_all_pairs() -> None:
    rows = [{"grades": text} for text in ("0 0 0", "3 3 3", "1 1 2", "2 2 2", "0 1 0", "3 2 2")]
    found = grading.agreement(rows)
    assert found["same word"] == pytest.approx(1 - 4 / 36)  # two pairs of eighteen, twice
    assert 0.7 < found["kappa"] < 0.8
    assert 0.9 < found["reliability"] < 1
    with pytest.raises(ValueError, match="as many of each"):
        grading.agreement([{"grades": "1 2"}, {"grades": "1"}])


@pytest.mark.parametrize("line", ["0 broken", "3 1", "0 4", "0 1 2"])
def test_other_notes_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        grading.read_notes(line, 3)


def test_the_worst_tenth_shows_one_bad_place() -> None:
    rng = np.random.default_rng(0)
    residual = rng.uniform(0.9, 1.1, (40, 20, 20))
    residual[7, 3:9, 3:9] += 1  # a tenth of the places
    found = asking.readings(residual, np.ones(40), np.arange(40) < 20)
    for score in found.values():
        assert score.argmax() == 7
    above = {name: score[7] - np.median(score) for name, score in found.items()}
    assert above["worst tenth"] > 3 * above["mean"]
