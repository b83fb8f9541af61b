"""Whoever calls, however it ends: the next call works, and nothing is lost in silence."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_cli.main import run
from asced_recorders import Recorder, record
from asced_recorders.pipelines.scheduler_names import recorded_scheduler
from asced_recorders.tap.stream import step_arguments
from asced_recorders.writing.session import RecordingWarning
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.writing.placement import placement

Build = Callable[..., Any]
QUIET: dict[str, Any] = {"num_inference_steps": 3, "output_type": "np"}


def embeds(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, 8, generator=torch.Generator().manual_seed(seed))


def test_the_end_is_what_a_callback_made_of_it(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")

    def clamp(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"].clamp(-0.5, 0.5)}

    options: dict[str, Any] = {"num_inference_steps": 3, "callback_on_step_end": clamp}
    with Recorder(pipe, tmp_path / "runs.zarr", fields=("eps", "sample")):
        latents = pipe(["a"], output_type="latent", **options).images
        pipe(["a"], output_type="np", **options)
    ds = open_runs(tmp_path / "runs.zarr")
    np.testing.assert_array_equal(ds["sample"].values[0], latents[0].numpy())
    assert abs(ds["sample"].values).max() == 0.5
    assert ds.attrs["call_missing"] == ["callback_on_step_end"]


def test_a_call_after_interrupted_and_refused_ones_is_recorded(
    build: Build, tmp_path: Path
) -> None:
    pipe = build("sd")

    def stop(pipe: Any, *_: Any) -> dict[str, Any]:
        pipe._interrupt = True
        return {}

    with Recorder(pipe, tmp_path / "runs.zarr"):
        for _ in range(4):
            with pytest.raises(InputError, match="stopped after 1 of 3"):
                pipe(["a"], callback_on_step_end=stop, **QUIET)
        pipe(["a"], **QUIET)
        for _ in range(4):
            with pytest.raises(InputError, match="makes 2 runs, and a batch of the store holds 1"):
                pipe(["a", "b"], **QUIET)
        for _ in range(4):
            with pytest.raises(InputError, match="gives latents"):
                pipe(["a"], num_inference_steps=3, output_type="latent")
        pipe(["a"], **QUIET)
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 2


def test_copies_made_inside_are_plain_objects(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    with Recorder(pipe, tmp_path / "runs.zarr"):
        copied = copy.deepcopy(pipe)
        scheduler = copy.deepcopy(pipe.scheduler)
        anew = type(pipe.scheduler).from_config(pipe.scheduler.config)
        pickled = pickle.loads(pickle.dumps(pipe.scheduler))
        copied(["b"], **QUIET)
        pipe(["a"], **QUIET)
    assert type(copied) is diffusers.StableDiffusionPipeline
    for each in (scheduler, anew, pickled, copied.scheduler):
        assert type(each) is diffusers.DDIMScheduler
    copied(["b"], **QUIET)
    with Recorder(copied, tmp_path / "copied.zarr"):
        copied(["b"], **QUIET)
    assert open_runs(tmp_path / "runs.zarr")["prompt"].values.tolist() == ["a"]
    assert open_runs(tmp_path / "copied.zarr")["prompt"].values.tolist() == ["b"]


def test_a_scheduler_replaced_inside_is_followed_or_refused(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        pipe(["a"], **QUIET)
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
            pipe.scheduler.config, timestep_type="continuous"
        )
        with pytest.raises(InputError, match=r"timestep_type .discrete., now .continuous."):
            pipe(["a"], **QUIET)
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
        with pytest.raises(InputError, match="is a DDIMScheduler now"):
            pipe(["a"], **QUIET)
    assert type(pipe.scheduler) is diffusers.DDIMScheduler
    assert open_runs(tmp_path / "runs.zarr").attrs["scheduler_class"] == "EulerDiscreteScheduler"


def test_a_recorder_that_was_left_refuses_at_once(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    recorder = Recorder(pipe, tmp_path / "runs.zarr")
    with recorder:
        pipe(["a"], **QUIET)
    with pytest.raises(InputError, match="make another, with resume=True"), recorder:
        pipe(["a"], **QUIET)
    with Recorder(pipe, tmp_path / "runs.zarr", resume=True):
        pipe(["a"], **QUIET)
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 2


def test_weights_that_a_callback_changes_are_no_recording(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")

    def warm(pipeline: Any, *_: Any) -> dict[str, Any]:
        pipeline.unet.conv_in.weight.data.mul_(1.1)
        return {}

    with Recorder(pipe, tmp_path / "runs.zarr"):
        with pytest.raises(InputError, match="unet changed since this recording began"):
            pipe(["a"], **QUIET, callback_on_step_end=warm)
        pipe(["a"], **QUIET)


def test_a_loop_of_ones_own_inside_is_an_error_at_the_end(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")

    def loop() -> None:
        pipe.scheduler.set_timesteps(3)
        x = torch.zeros(1, 4, 8, 8)
        for timestep in pipe.scheduler.timesteps:
            x = pipe.scheduler.step(x, timestep, x).prev_sample

    with (
        pytest.raises(InputError, match="3 steps of the scheduler were taken outside a call"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        loop()
    with (
        pytest.raises(InputError, match="nothing was recorded"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        pass


@pytest.mark.parametrize("inside", [(True, False), (False, True)])
def test_inference_mode_may_change_between_calls(inside: tuple[bool, bool], tmp_path: Path) -> None:
    x = torch.randn(2, 1, 8, 8)
    with Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 2) as recorder:
        for _ in range(3):
            for mode in inside:
                with torch.inference_mode(mode):
                    for alpha, sigma in ((0.1, 0.99), (0.9, 0.44)):
                        recorder.step(sample=x + 0, model_output=x * 1, alpha=alpha, sigma=sigma)
                    end = x * 2
                recorder.end(end)
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 12


def test_a_custom_batch_is_abandoned(tmp_path: Path) -> None:
    x = np.ones((1, 1, 8, 8), np.float32)
    with Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 2) as recorder:
        for _ in range(4):
            recorder.step(sample=x, model_output=x, alpha=0.1, sigma=0.99)
            recorder.discard()
        for alpha, sigma in ((0.1, 0.99), (0.9, 0.44)):
            recorder.step(sample=x, model_output=x, alpha=alpha, sigma=sigma)
        recorder.end(x)
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 1


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("done", [1, 2])
def test_a_batch_that_an_error_cut_short_is_named_and_left_out(
    whole: int, done: int, tmp_path: Path
) -> None:
    x = np.ones((1, 1, 8, 8), np.float32)

    def loop(recorder: Any, steps: int = 3) -> None:
        for alpha in (0.1, 0.5, 0.9)[:steps]:
            recorder.step(sample=x, model_output=x, alpha=alpha, sigma=(1 - alpha**2) ** 0.5)

    with Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 3) as recorder:
        for _ in range(whole):
            loop(recorder)
        for _ in range(2):
            loop(recorder, done)  # and an error that the caller catches
            with pytest.raises(InputError, match=rf"begins anew after {done} of 3 .* discard\(\)"):
                loop(recorder)
            loop(recorder)
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds.sizes["run"] == whole + 2
    np.testing.assert_allclose(ds["alpha"], (0.1, 0.5, 0.9))


def test_a_custom_batch_that_is_too_large_is_refused_at_its_first_step(tmp_path: Path) -> None:
    x = np.ones((2, 1, 8, 8), np.float32)
    with Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 2, batch_size=1) as recorder:
        for _ in range(2):
            for _ in range(4):
                with pytest.raises(InputError, match="has 2 runs, and a batch of the store holds"):
                    recorder.step(sample=x, model_output=x, alpha=0.1, sigma=0.9)
            with pytest.raises(InputError, match="differs from run to run"):  # as it was begun
                recorder.step(sample=x, model_output=x, alpha=torch.rand(2), sigma=0.9)
            for alpha in (0.1, 0.5):
                recorder.step(sample=x[:1], model_output=x[:1], alpha=alpha, sigma=0.9)
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 2


def test_a_whole_batch_whose_end_is_refused_is_left_out(tmp_path: Path) -> None:
    x = np.ones((1, 1, 8, 8), np.float32)
    with Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 1) as recorder:
        for _ in range(2):
            recorder.step(sample=x, model_output=x, alpha=0.1, sigma=0.9)
            with pytest.raises(InputError, match="expected"):
                recorder.end(x[..., :3])
            recorder.step(sample=x, model_output=x, alpha=0.1, sigma=0.9)
            recorder.end(2 * x)
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds["sample"].values[:, 0, 0, 0].tolist() == [2, 2]
    assert ds.attrs["value_range"] == [0, 2]  # of one value


def test_a_loop_that_is_too_long_commits_nothing(tmp_path: Path) -> None:
    x = np.ones((1, 1, 8, 8), np.float32)

    def loop(recorder: Any) -> None:
        for alpha in np.linspace(0.1, 0.9, 10):
            recorder.step(sample=x, model_output=x, alpha=alpha, sigma=(1 - alpha**2) ** 0.5)

    with (
        Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 5) as recorder,
        pytest.raises(InputError, match="goes on after the 5 steps"),
    ):
        loop(recorder)
    assert not (tmp_path / "runs.zarr").exists()


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerDiscreteScheduler"])
def test_custom_timesteps_are_recorded(name: str, build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(["a"], timesteps=[900, 500, 20], output_type="np")
    assert open_runs(tmp_path / "runs.zarr")["timestep"].values.tolist() == [900, 500, 20]


class Own(diffusers.DDIMScheduler):
    """A scheduler of one's own, which passes on what it does not name."""

    def step(self, model_output: Any, *args: Any, **kwargs: Any) -> Any:
        return super().step(0.9 * model_output, *args, **kwargs)


def test_a_scheduler_of_ones_own_is_stored_as_what_it_is(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    pipe.scheduler = Own.from_config(pipe.scheduler.config)
    assert step_arguments(Own) == step_arguments(diffusers.DDIMScheduler)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(["a"], **QUIET)
    facts = open_runs(tmp_path / "runs.zarr").attrs
    assert facts["scheduler_class"] == "Own"
    assert facts["scheduler_base"] == "DDIMScheduler"
    config, module = facts["scheduler_config"], facts["scheduler_module"]
    again = recorded_scheduler("Own", config, module=module, present=pipe.scheduler)
    assert type(again) is Own
    with pytest.raises(InputError, match="cannot be imported here"):
        recorded_scheduler("Own", config, module="a.notebook", present=None)


def test_steps_that_a_cache_answers_are_not_evaluated(build: Build, tmp_path: Path) -> None:
    pipe = build("flux")
    arguments: dict[str, Any] = {
        "prompt_embeds": embeds(2),
        "pooled_prompt_embeds": embeds(2)[:, 0],
        "height": 8,
        "width": 16,
        "num_inference_steps": 4,
        "output_type": "np",
    }
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(1e9))
    plain = pipe(**arguments).images
    with Recorder(pipe, tmp_path / "runs.zarr"):
        recorded = pipe(**arguments).images
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds["evaluated"].values.tolist() == [[True, False, False, False]] * 2
    assert plain.shape == recorded.shape
    assert not any(part._forward_pre_hooks for part in pipe.transformer.modules())
    pipe.transformer.disable_cache()
    with Recorder(pipe, tmp_path / "plain.zarr"):
        pipe(**arguments)
    assert "evaluated" not in open_runs(tmp_path / "plain.zarr")


def test_values_beyond_float16_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.ones((2, 1, 4, 4), np.float32)
    far = x.copy()
    far[1, 0, 0, :3] = 1e6
    recorder = Recorder.custom(tmp_path / "runs.zarr", (1, 4, 4), 2)
    for alpha, output in ((0.1, x), (0.9, far)):
        recorder.step(
            sample=x,
            model_output=output,
            alpha=alpha,
            sigma=(1 - alpha**2) ** 0.5,
            prediction_type="sample",
        )
    recorder.end(x)
    with pytest.warns(RecordingWarning, match="6 values of eps or x0 in 1 runs"):
        recorder.close()
    ds = open_runs(tmp_path / "runs.zarr", statuses=("complete", "failed"))
    assert ds["overflows"].values[0] == 0
    assert ds["overflows"].values[1] >= 3
    assert ds["first_bad_step"].values.tolist() == [-1, 1]
    assert run(["info", str(tmp_path / "runs.zarr")]) == 0
    said = capsys.readouterr().out
    assert "6 values of eps or x0 in 1 runs are beyond the recorded precision" in said
    assert "1 runs, from step 1 at the earliest" in said


def test_data_of_another_range_are_shown_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.linspace(0, 6.5, 32, dtype=np.float32).reshape(2, 1, 4, 4)
    for name, options in (("found", {}), ("given", {"value_range": (0, 13)})):
        with Recorder.custom(tmp_path / name, (1, 4, 4), 1, **options) as recorder:
            recorder.step(sample=x, model_output=x, alpha=0.9, sigma=0.4, prediction_type="sample")
            recorder.end(x)
    assert "ends between 0 and 6.5" in caplog.text
    found, given = open_runs(tmp_path / "found"), open_runs(tmp_path / "given")
    assert found.attrs["value_range"] == [0, 6.5]
    assert given.attrs["value_range"] == [0, 13]
    assert (found["image"].values.min(), found["image"].values.max()) == (0, 255)
    assert given["image"].values.max() == 128
    with pytest.raises(InputError, match="give the lower one first"):
        Recorder.custom(tmp_path / "no", (1, 4, 4), 1, value_range=(1, 0))


def test_pixels_of_another_range_are_shown_in_it(tiny_pipeline: Any, tmp_path: Path) -> None:
    pipe = copy.deepcopy(tiny_pipeline)
    record(pipe, tmp_path / "a", runs=1, steps=2, value_range=(-8, 8))
    with pytest.raises(InputError, match=r"the store's data lie in \(-8.0, 8.0\)"):
        record(pipe, tmp_path / "a", runs=1, steps=2, value_range=(0, 1), resume=True)
    with Recorder(pipe, tmp_path / "b", value_range=(-8, 8)) as recorder:
        for _ in range(2):
            pipe(num_inference_steps=2, output_type="np")
    with (
        pytest.raises(InputError, match="lie in"),
        Recorder(pipe, tmp_path / "b", resume=True, value_range=(0, 1)),
    ):
        pipe(num_inference_steps=2, output_type="np")
    assert recorder.store is not None
    for ds in (open_runs(tmp_path / "a"), open_runs(tmp_path / "b")):
        assert ds.attrs["value_range"] == [-8, 8]
        seen = ds["image"].values[..., 0] / 255 * 16 - 8
        np.testing.assert_allclose(seen, ds["sample"].values[:, 0].clip(-8, 8), atol=0.04)


def test_a_second_thread_is_refused_and_the_first_goes_on(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    refused: list[str] = []

    def second(*_: Any) -> dict[str, Any]:
        def sample() -> None:
            try:
                pipe(["b"], **QUIET)
            except InputError as error:
                refused.append(str(error))

        thread = threading.Thread(target=sample)
        thread.start()
        thread.join()
        return {}

    plain = pipe(["a"], generator=torch.Generator().manual_seed(1), **QUIET).images
    with Recorder(pipe, tmp_path / "runs.zarr"):
        generator = torch.Generator().manual_seed(1)
        found = pipe(["a"], generator=generator, callback_on_step_end=second, **QUIET).images
    assert np.array_equal(plain, found)
    assert refused
    assert "give each thread a pipeline of its own" in refused[0]
    assert open_runs(tmp_path / "runs.zarr")["seed"].values.tolist() == [1]


def test_a_batch_script_of_slurm_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert placement() == (0, 1)
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert placement() == (0, 4)


def test_a_modular_pipeline_is_recorded_as_its_classic_version(
    build: Build, tmp_path: Path
) -> None:
    from diffusers.modular_pipelines import FluxAutoBlocks

    classic = build("flux")
    blocks = FluxAutoBlocks()
    blocks.sub_blocks.pop("text_encoder")
    modular = blocks.init_pipeline()
    modular.update_components(
        **{n: c for n, c in classic.components.items() if n in modular.component_names and c}
    )
    modular.set_progress_bar_config(disable=True)
    found = []
    for name, pipe in (("classic", classic), ("modular", modular)):
        with Recorder(pipe, tmp_path / name):
            for seed in (0, 1):
                pipe(
                    prompt_embeds=embeds(2, seed),
                    pooled_prompt_embeds=embeds(2, seed)[:, 0],
                    generator=[torch.Generator().manual_seed(i) for i in (5, 6)],
                    height=8,
                    width=16,
                    **QUIET,
                )
        found.append(open_runs(tmp_path / name))
    # Their arithmetic differs in the last bits of float32; eps is then rounded to float16.
    for name, off in (
        ("seed", 0),
        ("timestep", 1e-3),
        ("image", 1),
        ("sample", 1e-3),
        ("eps", 1e-2),
    ):
        first, second = (ds[name].values.astype("f8") for ds in found)
        np.testing.assert_allclose(first, second, atol=off)
    for name in ("model_fingerprint", "scheduler_class", "compute"):
        assert found[0].attrs[name] == found[1].attrs[name]
    assert found[1]["arguments"].values[2] != ""
