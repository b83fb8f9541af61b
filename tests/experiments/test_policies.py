"""Restart beside plain sampling of more images."""

from __future__ import annotations

import numpy as np
import pytest

from asced_analysis.evaluation.populations import Quality
from experiments.correction import policies
from experiments.tables import correction_tables


def quality(images: int, realistic: np.ndarray, covered: np.ndarray, seed: int) -> Quality:
    vectors = np.random.default_rng(seed).standard_normal((images, 64)).astype("f4")
    return Quality(vectors, np.where(realistic, 2.0, 3.0), realistic, np.packbits(covered, axis=1))


def test_additional_images_count_for_plain_sampling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "RESAMPLES", 40)
    figures = {k: v for k, v in policies.FIGURES.items() if k != "frechet_distance"}
    monkeypatch.setattr(policies, "FIGURES", figures)
    covered = np.zeros((30, 120), np.bool_)
    covered[np.arange(30), np.arange(30) * 4] = True
    restart = quality(100, np.arange(100) >= 10, covered[:, :100], 0)
    plain = quality(120, np.arange(120) >= 30, covered, 0)
    found = policies.beside_plain(restart, plain)
    assert found["images"] == [100, 120]
    assert found["restart"]["precision"]["value"] == pytest.approx(0.9)
    assert found["plain"]["precision"]["value"] == pytest.approx(0.75)
    assert found["plain"]["recall"]["value"] == 1
    assert found["restart"]["recall"]["value"] == pytest.approx(25 / 30)
    assert found["difference"]["precision"]["value"] == pytest.approx(0.15)
    assert found["difference"]["precision"]["low"] > 0
    assert found["difference"]["recall"]["high"] < 0
    assert found["difference"]["local_distance"]["value"] == pytest.approx(-0.15)
    row = found | {"evaluations_per_run": 30.0}
    lines = correction_tables.equal({"equal": {"rows": {"restart": row}}}).splitlines()
    assert {line.count("|") for line in lines[2:]} == {8}
    assert "| 120 | 0.750 (" in lines[3]
