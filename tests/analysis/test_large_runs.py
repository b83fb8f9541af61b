"""Runs larger than a part of memory are read step by step, with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from asced_analysis.accessor import open_runs
from asced_analysis.compute import stepped, streaming
from asced_analysis.phases.activity import activity_curves
from asced_analysis.statistics.by_pixel import pixel_maps
from asced_analysis.statistics.by_step import step_statistics
from asced_analysis.statistics.features import run_features
from asced_stores.reading import recorded
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "video.zarr"
    synthetic_store(path, runs=3, batch_size=2, steps=8, shape=(2, 3, 8, 8))
    return open_runs(path)


WORK = {
    "features": lambda ds: run_features(ds, by_step=True).to_numpy(),
    "statistics": lambda ds: step_statistics(ds, by="channel")["counts"].values,
    "groups": lambda ds: step_statistics(ds, "x0", by="seed")["quantile"].values,
    "halves": lambda ds: step_statistics(ds, "eps", measure="value")["quantile"].values,
    "activity": lambda ds: activity_curves(ds, signal="innovation")[0],
    "maps": lambda ds: pixel_maps(ds)["quantile"].values,
}


@pytest.mark.parametrize("name", WORK)
def test_numbers_are_the_same_step_by_step(video, name, monkeypatch):
    whole = WORK[name](video)
    monkeypatch.setattr(streaming, "LARGE_RUN_BYTES", 0)
    reads = []
    read = recorded.read_rows

    def watched(backend, layout, batches, slots, steps=None, **options):
        reads.append(steps.stop - steps.start)
        return read(backend, layout, batches, slots, steps, **options)

    monkeypatch.setattr(recorded, "read_rows", watched)
    np.testing.assert_array_equal(WORK[name](video), whole)
    assert max(reads) <= (8 if name == "halves" else 2)


def test_what_it_takes_is_said_beforehand(video, monkeypatch, capsys):
    assert stepped.memory_note(video, ["eps", "x0"]) == ""
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    run_features(video, progress=True)
    assert "Features of 3 runs of 0 MB each, step by step in about 3" in capsys.readouterr().err
