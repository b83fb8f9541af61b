"""What `keep` does: statistics of all runs, trajectories of a few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.statistics.by_step import counts_of, step_statistics
from asced_analysis.statistics.observing import (
    StatisticsObserver,
    batch_dataset,
    observed_counts,
    observed_features,
)
from asced_cli.main import run
from asced_recorders import Recorder, record
from asced_recorders.recording import recording_loop
from asced_recorders.writing.flight import KeepRule
from asced_recorders.writing.observers import Observation, ObservedBatch
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import DamagedBatchError, InputError
from asced_stores.format.observations import Observations, SparseCounts

SETTINGS: dict[str, Any] = {"runs": 20, "steps": 6, "batch_size": 4}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_loop, "GROUP_RUNS", 8)


@pytest.fixture(scope="module")
def everything(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("all") / "all.zarr"
    record(tiny_pipeline, path, **SETTINGS)
    return open_runs(path)


class EveryThird:
    """Flags every third run."""

    def observe(self, batch: ObservedBatch) -> Observation:
        runs = np.asarray(batch.runs)
        return Observation({"number": runs * 2.0}, {}, runs % 3 == 1)


def test_a_random_share_is_kept_and_everything_is_counted(
    tiny_pipeline: Any, everything: Any, tmp_path: Path
) -> None:
    path = tmp_path / "some.zarr"
    observers = [StatisticsObserver()]
    record(tiny_pipeline, path, keep="sample:0.3", observers=observers, **SETTINGS)
    ds = open_runs(path)
    chosen = set(np.flatnonzero(KeepRule.parse("sample:0.3").chosen(range(20))).tolist())  # type: ignore[union-attr]
    kept = ds["run"].values.tolist()
    assert chosen <= set(kept)
    assert len(kept) < 12
    for name in ("eps", "x0", "sample", "image"):
        np.testing.assert_array_equal(ds[name].values, everything[name].values[kept])
    assert ds["seed"].values.tolist() == kept
    assert ds.attrs["keep"] == "sample:0.3"
    for signal in ("weighted_score", "innovation"):
        whole = counts_of(step_statistics(everything, signal))
        seen = observed_counts(str(path), signal)
        np.testing.assert_array_equal(seen.keys, whole.keys)
        np.testing.assert_array_equal(seen.table, whole.table)
        np.testing.assert_array_equal(seen.quantile([0.5, 0.99]), whole.quantile([0.5, 0.99]))
    features = observed_features(str(path))
    assert features.index.tolist() == list(range(20))
    assert np.isfinite(features.to_numpy()).all()


def test_flagged_runs_are_kept_and_a_resume_gives_the_same(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    path = tmp_path / "flagged.zarr"
    settings = {"keep": "flagged", "observers": [EveryThird()], **SETTINGS}
    record(tiny_pipeline, path, **settings)
    first = open_runs(path)
    assert first["run"].values.tolist() == [1, 4, 7, 10, 13, 16, 19]
    assert TrajectoryStore.open(path).committed_batches() == [0, 1, 2]
    assert observed_features(str(path))["number"].tolist() == [2.0 * i for i in range(20)]
    (path / "commits" / "1.json").unlink()
    record(tiny_pipeline, path, resume=True, **settings)
    assert open_runs(path).equals(first)
    with pytest.raises(InputError, match="keep"):
        record(tiny_pipeline, path, resume=True, **{**settings, "keep": "sample:0.5"})
    (path / "observations" / "2.npz").write_bytes(b"torn")
    with pytest.raises(DamagedBatchError, match=r"observations/2\.npz"):
        observed_features(str(path))


def test_observers_see_runs_that_are_all_kept_too(tiny_pipeline: Any, tmp_path: Path) -> None:
    observers = [EveryThird()]
    record(tiny_pipeline, tmp_path / "0", runs=5, steps=3, batch_size=2, observers=observers)
    with Recorder(tiny_pipeline, tmp_path / "1", observers=observers):
        for count in (2, 2, 1):
            tiny_pipeline(batch_size=count, num_inference_steps=3, output_type="np")
    with Recorder.custom(tmp_path / "2", (1, 4, 4), 1, observers=observers) as recorder:
        for count in (2, 2, 1):
            x = np.ones((count, 1, 4, 4), np.float32)
            recorder.step(sample=x, model_output=x, alpha=0.6, sigma=0.8)
    for path in (str(tmp_path / name) for name in "012"):
        assert open_runs(path).sizes["run"] == 5
        assert observed_features(path)["number"].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
        assert TrajectoryStore.open(path).verify().ok
    assert run(["stats", str(tmp_path / "1")]) == 0  # nobody counted: from the runs themselves


def test_a_group_without_a_flagged_run_still_exists(tiny_pipeline: Any, tmp_path: Path) -> None:
    class Nothing:
        def observe(self, batch: ObservedBatch) -> Observation:
            return Observation({}, {}, np.zeros(len(batch.runs), bool))

    path = tmp_path / "none.zarr"
    record(tiny_pipeline, path, keep="flagged", observers=[Nothing()], **SETTINGS)
    assert open_runs(path)["run"].values.tolist() == [0, 8, 16]


@pytest.mark.parametrize("text", ["some", "sample", "sample:0", "sample:1.5", "sample:x"])
def test_a_rule_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--keep is"):
        KeepRule.parse(text)


def test_flagged_needs_something_that_flags(tiny_pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--thresholds"):
        record(tiny_pipeline, tmp_path / "a.zarr", keep="flagged", **SETTINGS)


def test_counts_add_up_and_survive_the_file() -> None:
    one = SparseCounts(np.array([-3, 5, 9]), np.array([[1, 2, 3], [0, 1, 0]]))
    two = SparseCounts(np.array([5, 7]), np.array([[10, 20], [30, 300]]))
    both = one + two
    assert both.keys.tolist() == [-3, 5, 7, 9]
    assert both.table.tolist() == [[1, 12, 20, 3], [0, 31, 300, 0]]
    seen = Observations(np.arange(2), {"f": np.array([0.5, np.nan])}, {"c": both})
    again = Observations.from_bytes(seen.to_bytes())
    assert again.counts["c"].keys.tolist() == both.keys.tolist()
    np.testing.assert_array_equal(again.counts["c"].table, both.table)
    np.testing.assert_array_equal(again.features["f"], seen.features["f"])


def test_an_observer_sees_what_open_runs_gives(everything: Any, tiny_pipeline: Any) -> None:
    import types

    spec = types.SimpleNamespace(
        variables=[
            types.SimpleNamespace(name=n, dims=everything[n].dims[1:]) for n in ("eps", "x0")
        ],
        steps=6,
        attributes={},
        **{n: everything[n].values for n in ("timestep", "alpha", "sigma", "log_snr")},
    )
    arrays = {name: everything[name].values for name in ("eps", "x0")}
    ds = batch_dataset(ObservedBatch(arrays, range(20), spec))  # type: ignore[arg-type]
    one, two = step_statistics(ds), step_statistics(everything)
    np.testing.assert_array_equal(one["median"], two["median"])
