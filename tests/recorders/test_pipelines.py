"""Every family of pipelines is recorded as it is, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_recorders import Recorder
from asced_recorders.tap.schedulers import step_table
from asced_stores import open_runs
from asced_stores.errors import InputError

Build = Callable[..., Any]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def embeds(rows: int, tokens: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, tokens, 8, generator=torch.Generator().manual_seed(seed))


def picture(rows: int = 1) -> torch.Tensor:
    return torch.rand(rows, 3, 16, 16, generator=torch.Generator().manual_seed(5))


MASK = torch.zeros(1, 1, 16, 16)
MASK[..., 4:12, 4:12] = 1


CASES: dict[str, tuple[Any, dict[str, Any], int, tuple[int, ...]]] = {
    # what to build, arguments of the call, runs, shape of a recorded sample
    "sd": (
        ("sd",),
        {"prompt": ["a cat", "a dog"], "guidance_scale": 5.0, "negative_prompt": ["ugly", ""]},
        2,
        (4, 8, 8),
    ),
    "sd-eta": (("sd",), {"prompt": ["a cat", "a dog"], "eta": 0.3}, 2, (4, 8, 8)),
    "sd-img2img": (
        ("sd", "Img2Img"),
        {"prompt": ["a cat", "a dog"], "image": picture(2), "strength": 0.6},
        2,
        (4, 8, 8),
    ),
    "sd-inpaint": (
        ("sd", "Inpaint"),
        {"prompt": ["a cat"], "image": picture(), "mask_image": MASK, "height": 16, "width": 16},
        1,
        (4, 8, 8),
    ),
    "sd-inpaint-9-channels": (
        ("sd", "Inpaint", 9),
        {"prompt": ["a cat"], "image": picture(), "mask_image": MASK, "height": 16, "width": 16},
        1,
        (4, 8, 8),
    ),
    "sdxl": (
        ("sdxl",),
        {"prompt": ["a cat", "a dog"], "guidance_scale": 4.0},
        2,
        (4, 8, 8),
    ),
    "sd3": (
        ("sd3",),
        {
            "prompt_embeds": embeds(2),
            "pooled_prompt_embeds": embeds(2)[:, 0],
            "negative_prompt_embeds": embeds(2, seed=1),
            "negative_pooled_prompt_embeds": embeds(2, seed=1)[:, 0],
            "height": 16,
            "width": 16,
        },
        2,
        (4, 8, 8),
    ),
    "flux": (
        ("flux",),
        {
            "prompt_embeds": embeds(2),
            "pooled_prompt_embeds": embeds(2)[:, 0],
            "height": 8,
            "width": 16,
        },
        2,
        (4, 4, 8),
    ),
    "pixart": (
        ("pixart",),
        {
            "prompt": None,
            "negative_prompt": None,
            "prompt_embeds": embeds(2),
            "prompt_attention_mask": torch.ones(2, 4),
            "negative_prompt_embeds": embeds(2, seed=1),
            "negative_prompt_attention_mask": torch.ones(2, 4),
            "height": 16,
            "width": 16,
            "use_resolution_binning": False,
        },
        2,
        (4, 8, 8),
    ),
    "dit": (("dit",), {"class_labels": [3, 5], "guidance_scale": 3.0}, 2, (4, 8, 8)),
    "dit-unguided": (("dit",), {"class_labels": [3, 5], "guidance_scale": 1.0}, 2, (4, 8, 8)),
    "animatediff": (
        ("animatediff",),
        {"prompt": ["a cat", "a dog"], "num_frames": 3, "height": 16, "width": 16},
        2,
        (3, 4, 8, 8),
    ),
    "cogvideo": (
        ("cogvideo",),
        {
            "prompt_embeds": embeds(1),
            "negative_prompt_embeds": embeds(1, seed=1),
            "num_frames": 8,
            "height": 16,
            "width": 16,
            "max_sequence_length": 4,
        },
        1,
        (2, 4, 2, 2),
    ),
    "wan": (
        ("wan",),
        {
            "prompt_embeds": embeds(1),
            "negative_prompt_embeds": embeds(1, seed=1),
            "num_frames": 5,
            "height": 16,
            "width": 16,
        },
        1,
        (2, 16, 2, 2),
    ),
}


def call(pipe: Any, arguments: dict[str, Any], runs: int, output_type: str = "np") -> Any:
    return pipe(
        **arguments,
        generator=generators(*range(10, 10 + runs)),
        num_inference_steps=5,
        output_type=output_type,
    )


def first(output: Any) -> Any:
    found = getattr(output, "images", None)
    return found if found is not None else output.frames


@pytest.mark.parametrize("case", CASES)
def test_a_family_is_recorded_and_not_changed(case: str, build: Build, tmp_path: Path) -> None:
    what, arguments, runs, shape = CASES[case]
    plain = first(call(build(*what), arguments, runs))
    pipe = build(*what)
    kept = type(pipe), type(pipe.scheduler)
    with Recorder(pipe, tmp_path / "runs.zarr") as recorder:
        recorded = first(call(pipe, arguments, runs))
    assert (type(pipe), type(pipe.scheduler)) == kept
    assert np.array_equal(np.asarray(plain), np.asarray(recorded))

    ds = open_runs(tmp_path / "runs.zarr", statuses=("complete", "failed"))
    assert recorder.store is not None
    dims = ("frame",) * (len(shape) == 4) + ("channel", "y", "x")
    assert tuple(ds["sample"].sizes[d] for d in dims) == shape
    assert ds.sizes["run"] == runs
    assert ds["seed"].values.tolist() == list(range(10, 10 + runs))
    assert ds.attrs["scheduler_class"] == type(pipe.scheduler).__name__
    x = ds["alpha"] * ds["x0"].astype("f4") + ds["sigma"] * ds["eps"].astype("f4")
    x = x.transpose("run", "step", ...)
    scale = float(np.abs(ds["x_init"]).max())
    np.testing.assert_allclose(x[:, 0], ds["x_init"], atol=4e-3 * scale)
    # Images are the pipeline's own; of a video, the middle frame.
    wanted = np.asarray(plain)
    if wanted.ndim == 5:
        wanted = wanted[:, wanted.shape[1] // 2]
    np.testing.assert_array_equal(ds["image"].values, (wanted * 255).round().astype("uint8"))


@pytest.mark.parametrize("case", ["sd", "sd-img2img", "sd-inpaint", "sdxl", "sd3", "dit"])
def test_the_recorded_end_is_the_pipelines_own_latents(
    case: str, build: Build, tmp_path: Path
) -> None:
    what, arguments, runs, _ = CASES[case]
    if case == "dit":
        pipe = build(*what)
        with Recorder(pipe, tmp_path / "runs.zarr"):
            images = first(call(pipe, arguments, runs))
        sample = torch.from_numpy(open_runs(tmp_path / "runs.zarr")["sample"].values)
        with torch.no_grad():
            decoded = pipe.vae.decode(sample / pipe.vae.config.scaling_factor).sample
        again = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(again, images, atol=1e-6)
        return
    latents = first(call(build(*what), arguments, runs, "latent"))
    pipe = build(*what)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        call(pipe, arguments, runs)
    ds = open_runs(tmp_path / "runs.zarr")
    np.testing.assert_array_equal(ds["sample"].values, np.asarray(latents))


def test_flux_is_unpacked_as_its_own_pipeline_does(build: Build, tmp_path: Path) -> None:
    what, arguments, runs, _ = CASES["flux"]
    packed = first(call(build(*what), arguments, runs, "latent"))
    pipe = build(*what)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        call(pipe, arguments, runs)
    own = pipe._unpack_latents(packed, 8, 16, pipe.vae_scale_factor)
    sample = open_runs(tmp_path / "runs.zarr")["sample"].values
    np.testing.assert_array_equal(sample, own.numpy())


def test_img2img_records_the_shortened_schedule(build: Build, tmp_path: Path) -> None:
    what, arguments, runs, _ = CASES["sd-img2img"]
    pipe = build(*what)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        call(pipe, arguments, runs)
    ds = open_runs(tmp_path / "runs.zarr")
    pipe.scheduler.set_timesteps(5)
    assert ds["timestep"].values.tolist() == pipe.scheduler.timesteps[2:].tolist()


@pytest.mark.parametrize(
    "name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler", "LCMScheduler"]
)
@pytest.mark.parametrize("kind", ["", "Img2Img"])
def test_second_order_schedulers_in_a_pipeline(
    name: str, kind: str, build: Build, tmp_path: Path
) -> None:
    pipe = build("sd", kind)
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)
    arguments: dict[str, Any] = {"prompt": ["a cat"]}
    if kind:
        arguments |= {"image": picture(), "strength": 0.6}
    if name == "PNDMScheduler" and kind:
        with (
            pytest.raises(InputError, match="does not shorten its schedule"),
            Recorder(pipe, tmp_path / "runs.zarr"),
        ):
            call(pipe, arguments, 1)
        assert not (tmp_path / "runs.zarr").exists()
        return
    with Recorder(pipe, tmp_path / "runs.zarr"):
        call(pipe, arguments, 1)
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds.sizes["step"] == (3 if kind else 5)
    pipe.scheduler.set_timesteps(5)
    table = step_table(pipe.scheduler)
    np.testing.assert_allclose(ds["sigma"], table.sigma[-ds.sizes["step"] :], rtol=1e-6)


def test_prompts_guidance_and_seeds_stand_in_the_store(build: Build, tmp_path: Path) -> None:
    what, arguments, runs, _ = CASES["sd"]
    pipe = build(*what)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        call(pipe, {**arguments, "num_images_per_prompt": 2}, 2 * runs)
        call(pipe, arguments, runs)
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds["prompt"].values.tolist() == ["a cat"] * 2 + ["a dog"] * 2 + ["a cat", "a dog"]
    assert ds["guidance_scale"].values.tolist() == [5.0] * 6
    assert ds["run"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert ds["seed"].values.tolist() == [10, 11, 12, 13, 10, 11]
    with Recorder(pipe, tmp_path / "quiet.zarr", prompts=False):
        call(pipe, arguments, runs)
    assert open_runs(tmp_path / "quiet.zarr")["prompt"].str.startswith("hidden:").all()
    assert "a cat" not in "".join(
        path.read_text() for path in (tmp_path / "quiet.zarr").rglob("*.json")
    )


def test_an_error_of_the_pipeline_leaves_no_trace(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    plain = type(pipe), type(pipe.scheduler)

    def boom(*_: Any) -> dict[str, Any]:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(["a"], num_inference_steps=3, callback_on_step_end=boom)
    assert (type(pipe), type(pipe.scheduler)) == plain
    assert not (tmp_path / "runs.zarr").exists()


def test_a_run_that_turns_nan_is_recorded_as_failed(build: Build, tmp_path: Path) -> None:
    """NaN equals nothing, itself included: that is no change of the sample between two steps."""
    pipe = build("dit")
    forward, calls = pipe.transformer.forward, []

    def failing(*given: Any, **options: Any) -> Any:
        calls.append(1)
        output = forward(*given, **options)
        if len(calls) == 2:
            output[0][1] = float("nan")
        return output

    pipe.transformer.forward = failing
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(class_labels=[1, 2], num_inference_steps=4, output_type="np")
    ds = open_runs(tmp_path / "runs.zarr", statuses=("complete", "failed"))
    assert ds["status"].values.tolist() == [1, 2]
    assert np.isfinite(ds["x0"].values[0]).all()


def test_it_goes_on_after_a_failed_call(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")

    def boom(*_: Any) -> dict[str, Any]:
        raise RuntimeError("boom")

    with Recorder(pipe, tmp_path / "runs.zarr"):
        for _ in range(4):
            with pytest.raises(RuntimeError, match="boom"):
                pipe(["a"], num_inference_steps=3, callback_on_step_end=boom)
        pipe(["a"], num_inference_steps=3, output_type="np")
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 1


def test_a_run_that_is_cut_short_is_refused(build: Build, tmp_path: Path) -> None:
    pipe = build("sdxl")
    with (
        pytest.raises(InputError, match="stopped after 2 of 4 steps"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        pipe(["a"], num_inference_steps=4, denoising_end=0.5, output_type="latent")
    assert not (tmp_path / "runs.zarr").exists()


def test_another_schedule_in_the_same_store_is_refused(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(["a"], num_inference_steps=3, output_type="np")
        with pytest.raises(InputError, match="num_inference_steps 3, now 4"):
            pipe(["a"], num_inference_steps=4, output_type="np")
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 1


def test_a_scheduler_that_cannot_be_recorded_is_refused_at_once(
    build: Build, tmp_path: Path
) -> None:
    pipe = build("sd")
    pipe.scheduler = diffusers.RePaintScheduler()
    with (
        pytest.raises(InputError, match="back and forth"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        raise AssertionError("must not be entered")


def test_video_of_an_unknown_layout_is_refused(build: Build, tmp_path: Path) -> None:
    pipe = build("animatediff")
    type_of = type("SomeVideoPipeline", (type(pipe),), {})
    pipe.__class__ = type_of
    with (
        pytest.raises(InputError, match="which axis of its latents are the channels"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        pipe(["a"], num_frames=4, num_inference_steps=2, height=16, width=16)  # and channels
    with Recorder(pipe, tmp_path / "told.zarr"):
        pipe(["a"], num_frames=2, num_inference_steps=2, height=16, width=16, output_type="pt")
    assert open_runs(tmp_path / "told.zarr")["x0"].shape[2:] == (2, 4, 8, 8)


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_pipelines_of_pixels_are_recorded_in_their_own_loop(
    kind: str, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipe = getattr(diffusers, f"{kind}Pipeline")(
        tiny_pipeline.unet,
        getattr(diffusers, f"{kind}Scheduler").from_config(tiny_pipeline.scheduler.config),
    )
    pipe.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}
    plain = pipe(generator=generators(1, 2), **arguments).images
    with Recorder(pipe, tmp_path / "runs.zarr", value_range=(-1, 1)):
        recorded = pipe(generator=generators(1, 2), **arguments).images
    assert np.array_equal(plain, recorded)
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds["seed"].values.tolist() == [1, 2]
    np.testing.assert_array_equal(ds["image"].values, (plain * 255).round().astype("uint8"))


def test_a_pipeline_is_recorded_once_at_a_time(tiny_pipeline: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="another tap already listens"),
        Recorder(tiny_pipeline, tmp_path / "a.zarr") as first,
        Recorder(tiny_pipeline, tmp_path / "b.zarr"),
    ):
        raise AssertionError("must not be entered")
    assert first.store is None
    assert type(tiny_pipeline) is diffusers.DDIMPipeline


def test_a_recorder_resumes_with_the_next_batch(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    for seed in (1, 2):
        with Recorder(pipe, tmp_path / "runs.zarr", resume=seed == 2):
            pipe(["a"], num_inference_steps=3, generator=generators(seed), output_type="np")
    assert open_runs(tmp_path / "runs.zarr")["seed"].values.tolist() == [1, 2]
