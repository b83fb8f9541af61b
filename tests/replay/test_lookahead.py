"""Replay of thresholds with a lookahead: flags, costs, and what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_analysis.correction.lookahead import pipeline_network
from asced_analysis.evaluation import tune
from asced_analysis.replay import replay
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_recorders import record
from asced_stores import open_runs
from asced_stores.errors import InputError


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lookahead") / "runs.zarr"
    record(tiny_pipeline, path, runs=128, steps=10, batch_size=32, seed=3, checkpoints=(5,))
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path, tiny_pipeline: Any) -> Thresholds:
    return calibrate(
        runs,
        method="outcome",
        false_alarm_rate=0.2,
        outcome={"epochs": 2, "lookahead": 0.3, "draws": 1},
        pipeline=tiny_pipeline,
    )


def test_replay_flags_what_deployment_flags(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    assert thresholds.parameters["lookahead"] is not None
    replayed = replay(runs, tmp_path / "a.zarr", thresholds=thresholds, pipeline=tiny_pipeline)
    assert replayed.attributes["strategy"] == "renoise"
    assert replayed.attributes["strategy_parameters"]["where"] == "foreground"
    ds = open_runs(replayed.path)
    corrector = Corrector(thresholds)
    with corrector.attach(tiny_pipeline):
        from asced_recorders.pipelines.sampling import run_generators

        tiny_pipeline(
            batch_size=32,
            num_inference_steps=10,
            generator=run_generators(list(range(3, 35))),
            output_type="np",
        )
    assert [one.flagged for one in corrector.report] == ds["flagged"].values[:32].tolist()
    assert any(one.flagged for one in corrector.report)
    for one in corrector.report:
        if one.flagged:
            assert (one.mask == ds["mask"].values[one.run]).mean() > 0.99
    # every run is asked once more; those in batches without a flagged one pay for nothing else
    paid = ds["evaluations"].values
    assert set(paid) <= {1.0, 11.0}
    assert (paid[ds["flagged"].values] == 11).all()


def test_a_network_of_one_s_own_and_other_strategies(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    asked: list[int] = []
    real = pipeline_network(tiny_pipeline)

    def network(sample: Any, table: Any, step: int) -> Any:
        asked.append(len(sample))
        return real(sample, table, step)

    options: dict[str, Any] = {"thresholds": thresholds, "pipeline": tiny_pipeline}
    replayed = replay(
        runs, tmp_path / "a.zarr", strategy="restart", tries=1, network=network, **options
    )
    ds = open_runs(replayed.path)
    flagged = ds["flagged"].values
    assert sum(asked) == 128 + flagged.sum()  # every run, and every new draw
    target = replayed.attributes["correction_step"]
    assert set(ds["evaluations"].values[flagged]) == {1 + target + target + 1 + 10 - target}
    streamed = replay(
        runs, tmp_path / "b.zarr", strategy="score_clipping", only_flagged=False, **options
    )
    other = open_runs(streamed.path)
    # The loop's predictions round to float16 now and then the other way than the recorded ones.
    apart = np.abs(other["score"].values - ds["score"].values).max()
    assert apart < 1e-3 * ds["score"].values.std()
    clear = np.abs(ds["score"].values - thresholds.levels.level) > apart
    assert clear.sum() > 120
    assert (other["flagged"].values[clear] == flagged[clear]).all()
    with pytest.raises(InputError, match="give a pipeline"):
        detect_recorded(Recording(runs), thresholds)


def test_tune_asks_as_well(runs: Path, thresholds: Thresholds, tiny_pipeline: Any) -> None:
    tuned = tune(
        runs,
        thresholds,
        steps=[5],
        strategies=["ttc"],
        share=0.2,
        judge="patches",
        pipeline=tiny_pipeline,
    )
    assert tuned.runs == pytest.approx(0.2 * 128, abs=2)
    assert np.isfinite(tuned.best.chosen_on.value or np.nan)
