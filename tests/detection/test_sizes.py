"""Clean-up sizes: fractions of the image, or pixels of the recorded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asced_analysis import calibrate
from asced_analysis.calibration.fitting import as_fractions
from asced_stores.testing import synthetic_store


def test_pixels_become_fractions_of_the_recorded_image() -> None:
    given = {"min_area": 100, "min_width": 4, "combine": "mean"}
    assert as_fractions(given, (1, 16, 32)) == {
        "min_area": 100 / 512,
        "min_width": 4 / 16,
        "combine": "mean",
    }
    assert as_fractions({"min_width": 0.25}, (1, 16, 32)) == {"min_width": 0.25}


@pytest.mark.parametrize("width", [4, 0.25, np.int64(4)])
def test_calibration_takes_both_forms(width: float, tmp_path: Path) -> None:
    store = synthetic_store(tmp_path / "runs.zarr", runs=96, shape=(1, 16, 16))
    given = {"min_width": width, "floor": np.float64(1e-3)}  # numbers of a sweep are NumPy's
    thresholds = calibrate(store, parameters=given, false_alarm_rate=0.1)
    assert type(thresholds.parameters["floor"]) is float
    assert thresholds.cleanup.min_width == 0.25
    assert thresholds.cleanup.pixels(16, 16)[1] == 4
