"""A corrector in use: with a recorder, with few steps, with a strategy of one's own; and replays
of calls that the store does not hold whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_analysis.correction.strategy import LoopState, Strategy, blend
from asced_analysis.evaluation import evaluate
from asced_analysis.replay import exactness, replay
from asced_analysis.replay.agreement import NotReproducedError
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_recorders import Recorder, record
from asced_recorders.pipelines.sampling import run_generators
from asced_recorders.tap.tap import StepEvent
from asced_stores import open_runs
from asced_stores.errors import InputError

SQUARE = np.zeros((16, 16), bool)
SQUARE[4:9, 5:10] = True


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deployment") / "runs.zarr"
    record(tiny_pipeline, path, runs=60, steps=10, batch_size=20, seed=100)
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path) -> Thresholds:
    return calibrate(runs, "calibrated", false_alarm_rate=0.3)


def sample(pipe: Any, steps: int = 10, runs: int = 4) -> Any:
    return pipe(
        batch_size=runs,
        num_inference_steps=steps,
        generator=run_generators(list(range(100, 100 + runs))),
        output_type="np",
    ).images


def test_a_corrected_call_is_recorded(tiny_pipeline: Any, tmp_path: Path) -> None:
    masks = np.stack([SQUARE, np.zeros_like(SQUARE)] * 2)
    ends, images = [], []
    for name in ("plain", "inside", "outside"):
        corrector = Corrector(None, step=5)
        corrector.assign(range(4), masks=masks)
        recorder = Recorder(tiny_pipeline, tmp_path / f"{name}.zarr")
        if name == "plain":
            with recorder:
                images.append(sample(tiny_pipeline))
        elif name == "inside":
            with recorder, corrector.attach(tiny_pipeline):
                images.append(sample(tiny_pipeline))
        else:
            with corrector.attach(tiny_pipeline), recorder:
                images.append(sample(tiny_pipeline))
        ds = open_runs(tmp_path / f"{name}.zarr").load()
        ends.append(ds)
    plain, inside, outside = ends
    assert (inside["sample"].values == outside["sample"].values).all()
    assert (images[1] == images[2]).all()
    changed = (inside["x0"].values != plain["x0"].values).any((2, 3, 4))
    assert not changed[:, :5].any()
    assert changed[::2, 5:].all()  # what is recorded is what was sampled, edit included
    assert not changed[1::2].any()
    for ds in (inside, outside):
        assert ds["flagged"].values.tolist() == [True, False] * 2
        assert (ds["mask"].values == masks).all()
    assert "mask" not in plain


def test_a_server_detects_corrects_and_records(
    thresholds: Thresholds, runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    path, corrector = tmp_path / "served.zarr", Corrector(thresholds, grow=0)
    offline = detect_recorded(Recording(runs), thresholds)
    with Recorder(tiny_pipeline, path) as recorder, corrector.attach(tiny_pipeline):
        sample(tiny_pipeline, runs=20)
        sample(tiny_pipeline, runs=20)
    with (
        Recorder(tiny_pipeline, path, resume=True),
        pytest.raises(InputError, match="not corrected, and those before it in the store are corr"),
    ):
        sample(tiny_pipeline, runs=20)
    ds = open_runs(path).load()
    assert ds["flagged"].values.tolist() == [run in offline.masks for run in range(20)] * 2
    for run in range(20):
        expected = offline.masks.get(run, SQUARE & False)
        assert (ds["mask"].values[run].astype(bool) == expected).mean() > 0.999
        assert ds["score"].values[run] == pytest.approx(offline.scores[run], rel=1e-4)
    assert recorder.store is not None
    said = recorder.store.attributes["correction"]
    assert (said["strategy"], said["grow"]) == ("ttc", 0)
    assert Thresholds.from_dict(said["thresholds"]).levels == thresholds.levels
    again = replay(path, tmp_path / "without.zarr", strategy="none", pipeline=tiny_pipeline)
    assert exactness(again).runs == (~ds["flagged"].values).sum()
    recorded = open_runs(runs)["sample"].values[:20]
    assert (open_runs(again.path)["sample"].values[:20] == recorded).all()


def test_a_scheduler_that_was_given_meanwhile_is_corrected_too(tiny_pipeline: Any) -> None:
    import copy

    pipe, corrector = copy.copy(tiny_pipeline), Corrector(None, step=5)
    with corrector.attach(pipe):
        pipe.scheduler = diffusers.DDIMScheduler.from_config(tiny_pipeline.scheduler.config)  # type: ignore[no-untyped-call]
        corrector.assign(range(4), masks=np.stack([SQUARE] * 4))
        images = sample(pipe)
    assert type(pipe.scheduler) is diffusers.DDIMScheduler
    assert len(corrector.report) == 4
    assert (images != sample(tiny_pipeline)).any()


def test_too_few_steps_are_refused_before_sampling(
    thresholds: Thresholds, tiny_pipeline: Any
) -> None:
    asked: list[int] = []
    hook = tiny_pipeline.unet.register_forward_pre_hook(lambda *_: asked.append(1))
    try:
        with (
            pytest.raises(InputError, match=r"in 3 steps has .* log-SNR .* calibrated in 10 steps"),
            pytest.warns(UserWarning, match="not promised"),
            Corrector(thresholds).attach(tiny_pipeline),
        ):
            sample(tiny_pipeline, steps=3)
    finally:
        hook.remove()
    assert not asked


def test_a_report_is_of_one_call_and_short(thresholds: Thresholds, tiny_pipeline: Any) -> None:
    corrector = Corrector(thresholds)
    with corrector.attach(tiny_pipeline):
        sample(tiny_pipeline)
        sample(tiny_pipeline, runs=3)
    assert [one.run for one in corrector.report] == [4, 5, 6]
    assert len(repr(corrector.report[0])) < 120
    assert "of 3 images" in repr(corrector)


@dataclass(frozen=True)
class Dim(Strategy):
    """Halves what is seen in the mask."""

    name = "dim"

    share: float = 0.5

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        return [correction_step]

    def after_step(self, event: StepEvent, sample: Any, state: LoopState) -> Any:
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        return blend(sample, self.share * sample, state.mask)


def test_a_strategy_of_one_s_own_is_known_by_its_name(
    runs: Path, tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asced_analysis.correction import STRATEGIES

    options: dict[str, Any] = {"masks": {3: SQUARE, 30: SQUARE}, "step": 5}
    replayed = replay(
        runs, tmp_path / "a.zarr", strategy=Dim(0.4), pipeline=tiny_pipeline, **options
    )
    assert replayed.attributes["strategy"] == "dim"
    assert replayed.attributes["strategy_parameters"] == {"share": 0.4}
    data = evaluate(runs, replayed, pipeline=tiny_pipeline).to_dict()
    assert data["strategy"] == "dim"
    assert set(data["controls"]) == {"shuffled", "foreground", "everywhere"}
    monkeypatch.setattr(STRATEGIES, "_registered", {})  # as another process has it
    data = evaluate(runs, replayed, pipeline=tiny_pipeline).to_dict()
    assert data["correction"] == "dim"
    assert data["controls"] == {}

    class Unnamed(Strategy):
        pass

    with pytest.raises(InputError, match="Unnamed has no name"):
        Corrector(None, strategy=Unnamed())


def test_a_strategy_of_one_s_own_samples_flagged_runs_again(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asced_analysis.correction import STRATEGIES

    monkeypatch.setattr(STRATEGIES, "_registered", dict(STRATEGIES._registered))

    class Mirrored(Strategy):
        """Flagged runs are seen in a mirror, at the price of two evaluations."""

        name = "mirrored"
        in_loop = False

        def sample_again(self, job: Any, batch: Any, masks: Any) -> Any:
            ends = job.recording.read(batch, "sample")[..., ::-1]
            return ends, masks, np.full(len(ends), 2.0)

    class Silent(Strategy):
        name = "silent"
        in_loop = False

    given: dict[str, Any] = {"masks": {3: SQUARE}, "step": 4, "pipeline": tiny_pipeline}
    with pytest.raises(InputError, match="silent samples a run more than once, and does not say"):
        replay(tiny_runs, tmp_path / "s.zarr", strategy=Silent(), **given)
    replayed = replay(tiny_runs, tmp_path / "m.zarr", strategy=Mirrored(), **given)
    again, before = open_runs(replayed.path), open_runs(tiny_runs)
    wanted = before["sample"].values.copy()
    wanted[3] = wanted[3][..., ::-1]
    assert (again["sample"].values == wanted).all()
    assert again["evaluations"].values.tolist() == [2.0 * (run == 3) for run in range(len(wanted))]


def test_what_does_not_come_back_is_an_error_that_says_what_is_missing(
    runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    def other(pipe: Any, batch: Any) -> Any:
        from asced_recorders.tap.tap import Tap, TapListener

        class Louder(TapListener):
            def after_step(self, event: StepEvent, next_sample: Any) -> Any:
                return next_sample * 1.5 if event.step == 6 else None

        with Tap(pipe, Louder()):
            return pipe(
                batch_size=len(batch.runs),
                num_inference_steps=10,
                generator=run_generators(batch.seeds.tolist()),
                output_type="np",
            )

    called = tmp_path / "called.zarr"
    with Recorder(tiny_pipeline, called):
        sample(tiny_pipeline)
    again = replay(called, tmp_path / "b.zarr", strategy="none", pipeline=tiny_pipeline)
    assert (open_runs(again.path)["difference"].values == 0).all()
    with pytest.raises(NotReproducedError, match="compare its arguments"):
        replay(called, tmp_path / "c.zarr", strategy="none", pipeline=tiny_pipeline, call=other)
    with pytest.raises(InputError, match="does not reproduce"):
        evaluate(called, tmp_path / "c.zarr", pipeline=tiny_pipeline)
