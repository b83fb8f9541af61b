"""What kinds of input know of the end of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asced_stores.testing import synthetic_store
from experiments.detection.outcome_comparison import border_share, compare_inputs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outcome") / "runs.zarr"
    synthetic_store(path, runs=160, steps=12, shape=(1, 16, 16), batch_size=32)
    return path


def test_inputs_are_compared_within_matched_content(store: Path) -> None:
    rows = compare_inputs(store, epochs=2, teacher="patches")
    assert all(0 <= row["border"] <= 1 and 0 <= row["truth_border"] <= 1 for row in rows)
    assert [row["inputs"] for row in rows] == ["dynamics", "snapshot", "both"]
    assert {row["runs"] for row in rows} == {32}
    for row in rows:
        assert 0 <= row["run_auroc"] <= 1
        assert 0 <= row["run_auroc_matched"] <= 1
        assert -1 <= row["place_correlation"] <= 1


def test_border_share_counts_the_outermost_ring() -> None:
    middle = np.zeros((2, 10, 10), np.float32)
    middle[:, 3:7, 3:6] = np.arange(1, 13).reshape(4, 3)
    assert border_share(middle) == 0
    edge = middle.copy()
    edge[1, 0] = 99
    assert border_share(edge) == pytest.approx(10 / 12 / 2)
